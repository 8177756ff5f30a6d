"""``report``: one HTML page about a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import print_err, print_json, refuse_unstored, size
from data_engine.cli.exit_codes import Command
from data_engine.cli.options import complete_file, filter_options, symbols_argument, with_store

if TYPE_CHECKING:
    from data_engine.store.bar_store import BarStore
    from data_engine.store.selection import DatasetFilter

DEFAULT = "data-engine-report.html"


@click.command(cls=Command, exits="0 1 2 4 130")
@symbols_argument
@click.option(
    "--out",
    metavar="FILE",
    default=DEFAULT,
    show_default=True,
    shell_complete=complete_file,
    help="HTML file to write or replace.",
)
@filter_options
@click.option("--quick", is_flag=True, help="Read only file metadata, daily bars and one year of minutes.")
@click.option(
    "--minutes",
    type=click.IntRange(0, 250),
    metavar="N",
    default=5,
    show_default=True,
    help="Sessions whose minutes the page shows, for as many symbols as fit.",
)
@with_store
def report(
    store: BarStore,
    names: list[str] | None,
    datasets: DatasetFilter,
    out: str,
    quick: bool,
    minutes: int,
    as_json: bool,
) -> None:
    """Write an HTML page of coverage, gaps, prices and runs."""
    from datetime import UTC, datetime

    from data_engine.market.wording import plural
    from data_engine.report import contents, html_page
    from data_engine.version import written_by

    refuse_unstored(store, datasets, names)
    path = html_page.check_target(Path(out), store.files.folder)
    page = contents.overview_of(store, datasets, names, now=datetime.now(UTC), quick=quick, minutes=minutes, by=written_by())
    written = html_page.save(html_page.render(page), path)
    for note in page.notes:
        print_err(f"Note: {note}")
    verdict = page.verification
    if as_json:
        print_json(
            {
                "report": str(path),
                "bytes": written,
                "series": verdict.series,
                "inconsistencies": len(verdict.inconsistencies),
                "warnings": len(verdict.warnings),
                "gaps": None if quick else verdict.gaps,
                "runs": len(page.runs),
                "quick": quick,
            }
        )
        return
    inconsistencies = plural(len(verdict.inconsistencies), "inconsistency", "inconsistencies")
    found = f"{inconsistencies}, {plural(len(verdict.warnings), 'warning')}, {plural(len(page.runs), 'run')}"
    click.echo(f"{path}  {size(written)}")
    click.echo(f"{verdict.series:,} series, {found}; open the file in a browser")
