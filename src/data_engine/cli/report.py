"""``report``: one page that shows a store."""

from __future__ import annotations

from pathlib import Path

import click

from data_engine.cli.console import choice_options, print_err, print_json, print_store, size, store_options

DEFAULT = "data-engine-report.html"


@click.command()
@click.argument("symbols", nargs=-1, metavar="[SYMBOL ...]")
@click.option(
    "--out", metavar="FILE", default=DEFAULT, show_default=True, help="Where to write the page; an older one is replaced."
)
@choice_options
@click.option("--quick", is_flag=True, help="Read the ends of the files alone, daily bars, and a year of minutes.")
@click.option(
    "--minutes",
    type=click.IntRange(0, 250),
    metavar="N",
    default=5,
    show_default=True,
    help="Put the minutes of the last N sessions into the page, of as many symbols as fit.",
)
@store_options
def report(
    symbols: tuple[str, ...],
    out: str,
    timeframe: str | None,
    feed: str | None,
    adjustment: str | None,
    quick: bool,
    minutes: int,
    base_path: str | None,
    settings_path: str | None,
    as_json: bool,
) -> None:
    """Write one self-contained HTML page: coverage, holes and flags, candles, and what each run did."""
    from datetime import UTC, datetime

    from data_engine.report import contents as overview
    from data_engine.report import html_page
    from data_engine.settings import load_settings
    from data_engine.store.bar_store import BarStore
    from data_engine.store.location import open_file_store
    from data_engine.store.selection import DatasetFilter
    from data_engine.universe.symbol_lists import SymbolLoader
    from data_engine.version import __version__

    settings = load_settings(base_path=base_path, settings_path=settings_path)
    storage = BarStore(open_file_store(settings.base_path))
    print_store(settings, storage.files)
    storage.check_exists()
    path = html_page.check_target(Path(out), storage.files.folder)
    names = SymbolLoader.from_list(symbols) if symbols else None
    choice = DatasetFilter.parse(timeframe, feed, adjustment)
    by = f"data-engine {__version__}"
    seen = overview.look(storage, choice, names, now=datetime.now(UTC), quick=quick, minutes=minutes, by=by)
    written = html_page.save(html_page.render(seen), path)
    for note in seen.notes:
        print_err(f"Note: {note}")
    verdict = seen.verdict
    if as_json:
        print_json(
            {
                "page": str(path),
                "bytes": written,
                "series": verdict.series,
                "contradictions": len(verdict.contradictions),
                "warnings": len(verdict.warnings),
                "holes": None if quick else verdict.holes,
                "runs": len(seen.runs),
                "quick": quick,
            }
        )
        return
    click.echo(f"{path}  {size(written)}")
    found = f"{len(verdict.contradictions):,} contradictions, {len(verdict.warnings):,} warnings"
    click.echo(f"{verdict.series:,} series, {found}, {len(seen.runs):,} runs; open it in any browser")
