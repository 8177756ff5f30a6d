"""``remove``: bars and their coverage taken out."""

from __future__ import annotations

import click

from data_engine.cli.console import (
    choice_options,
    print_json,
    print_store,
    store_options,
    warn_writer,
)


@click.command()
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL ...")
@click.option("--start", metavar="DATE", help="First day, or an instant. Default: from the beginning.")
@click.option("--end", metavar="DATE", help="Last day, included, or an instant. Default: to the end.")
@choice_options
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=0.0,
    metavar="SECONDS",
    help="How long to wait for another writer.",
)
@store_options
def remove(
    symbols: tuple[str, ...],
    start: str | None,
    end: str | None,
    timeframe: str | None,
    feed: str | None,
    adjustment: str | None,
    dry_run: bool,
    wait: float,
    base_path: str | None,
    settings_path: str | None,
    as_json: bool,
) -> None:
    """Take bars and their coverage out of the store."""
    from data_engine.errors import InputError
    from data_engine.settings import load_settings
    from data_engine.store.bar_store import BarStore
    from data_engine.store.location import open_file_store
    from data_engine.store.removal import plan_removal
    from data_engine.store.selection import DatasetFilter
    from data_engine.universe.symbol_lists import SymbolLoader

    settings = load_settings(base_path=base_path, settings_path=settings_path)
    storage = BarStore(open_file_store(settings.base_path))
    print_store(settings, storage.files)
    storage.check_exists()
    names = SymbolLoader.from_list(symbols)
    plan = plan_removal(storage, DatasetFilter.parse(timeframe, feed, adjustment), names, start, end)
    strange = [name for name in names if name not in {series.symbol for series, _, _ in plan}]
    if strange:
        raise InputError(f"{', '.join(strange)}: not in the store; nothing was removed")
    removed = {}
    if dry_run:
        removed = {series: bars for series, _, bars in plan}
    else:
        warn_writer(storage.files)
        with storage.files.lock("run", seconds=wait):
            storage.files.remove_stale_drafts()
            for series, span, _ in plan:
                removed[series] = storage.remove(series, span)
    if as_json:
        print_json(
            {
                "removed": [
                    {"symbol": series.symbol, "dataset": series.dataset.name, "bars": bars} for series, bars in removed.items()
                ],
                "dry_run": dry_run,
            }
        )
        return
    verb = "Would remove" if dry_run else "Removed"
    for series, bars in removed.items():
        click.echo(f"{verb} {bars:,} bars of {series}")
