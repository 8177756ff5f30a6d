"""``remove``: bars and their coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from data_engine.cli.console import LIST_ALL, print_json, refuse_unknown, warn_writer
from data_engine.cli.exit_codes import Command
from data_engine.cli.options import filter_options, wait_option, with_store
from data_engine.store.file_store import RUN_LOCK

if TYPE_CHECKING:
    from data_engine.store.bar_store import BarStore
    from data_engine.store.selection import DatasetFilter


@click.command(cls=Command, exits="0 1 2 4 7 130")
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL ...")
@click.option("--start", metavar="DATE", help="First day or instant. [default: first bar]")
@click.option("--end", metavar="DATE", help="Last day, included, or instant. [default: last bar]")
@filter_options
@click.option("--dry-run", is_flag=True, help="Print what would be removed; remove nothing.")
@wait_option()
@with_store
def remove(
    store: BarStore,
    names: list[str],
    datasets: DatasetFilter,
    start: str | None,
    end: str | None,
    dry_run: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Remove bars and their coverage from the store."""
    from data_engine.store.removal import plan_removal

    plan = plan_removal(store, datasets, names, start, end)
    refuse_unknown(names, {series.symbol for series, _, _ in plan}, f"nothing was removed; {LIST_ALL}")
    removed = {series: bars for series, _, bars in plan}
    if not dry_run:
        warn_writer(store.files)
        with store.files.lock(RUN_LOCK, seconds=wait):
            store.files.remove_stale_drafts()
            removed = {series: store.remove(series, span) for series, span, _ in plan}
    if as_json:
        listed = [{"symbol": series.symbol, "dataset": series.dataset.name, "bars": bars} for series, bars in removed.items()]
        print_json({"removed": listed, "dry_run": dry_run})
        return
    verb = "Would remove" if dry_run else "Removed"
    for series, bars in removed.items():
        click.echo(f"{verb} {bars:,} bars of {series}")
