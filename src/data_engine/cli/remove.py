"""``remove``: bars and their coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from data_engine.cli.console import LIST_ALL, print_json, refuse_unknown, size, warn_writer
from data_engine.cli.exit_codes import Command
from data_engine.cli.options import filter_options, wait_option, with_store
from data_engine.cli.values import END, START
from data_engine.store.run_lock import RUN_LOCK

_ACTOR = "remove"

if TYPE_CHECKING:
    from data_engine.market.series import Series
    from data_engine.store.bar_store import BarStore
    from data_engine.store.selection import DatasetFilter


@click.command(cls=Command, exits="0 1 2 4 7 130")
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL ...")
@click.option("--start", type=START, metavar="DATE", help="First day or instant. [default: first bar]")
@click.option("--end", type=END, metavar="DATE", help="Last day, included, or instant. [default: last bar]")
@filter_options
@click.option("--fill", is_flag=True, help="Remove only bars of other sources that `import --fill` added.")
@click.option(
    "--forget",
    is_flag=True,
    help="Keep no values of the bars, earlier ones included. Earlier states of their files cannot be read then.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be removed; remove nothing.")
@wait_option()
@with_store
def remove(
    store: BarStore,
    names: list[str],
    datasets: DatasetFilter,
    start: str | None,
    end: str | None,
    fill: bool,
    forget: bool,
    dry_run: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Remove bars and their coverage from the store.

    The history of the store keeps the bars for states before the removal, unless --forget is given.
    """
    from data_engine.market.dates import any_span
    from data_engine.store.history.cost import kept_since, last_number
    from data_engine.store.history.forgetting import drop_forgotten
    from data_engine.store.removal import plan_removal, remove_bars

    store = store.acting(_ACTOR, forgets=forget)
    datasets = datasets.filling if fill else datasets
    _selected(store, names, datasets)
    kept = 0
    if dry_run:
        removed = {series: bars for series, _, bars in plan_removal(store, datasets, names, start, end)}
    else:
        span = any_span(start, end)
        warn_writer(store.files)
        with store.files.lock(RUN_LOCK, seconds=wait):
            store.files.remove_stale_drafts()
            number = last_number(store.files)
            # Again, since another run may have added or removed some while this one waited.
            removed = remove_bars(store, _selected(store, names, datasets), span)
            if forget:
                drop_forgotten(store.files, _ACTOR)
            kept = kept_since(store.files, number, _ACTOR)
    if as_json:
        listed = [{"symbol": series.symbol, "dataset": series.dataset.name, "bars": bars} for series, bars in removed.items()]
        print_json({"removed": listed, "dry_run": dry_run, "kept_bytes": kept})
        return
    verb = "Would remove" if dry_run else "Removed"
    for series, bars in removed.items():
        click.echo(f"{verb} {bars:,} bars of {series}")
    if kept:
        click.echo(f"The history keeps {size(kept)} of them for earlier states; `data-engine history prune` frees the space")


def _selected(store: BarStore, names: list[str], datasets: DatasetFilter) -> list[Series]:
    """Return the series of these symbols that the store has; each symbol must have one."""
    from data_engine.store.selection import select_series

    selected = list(select_series(store.coverage, datasets, names))
    refuse_unknown(names, {series.symbol for series in selected}, f"nothing was removed; {LIST_ALL}", store=store)
    return selected
