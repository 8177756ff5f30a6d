"""``update``: missing ranges and new bars of stored series."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from data_engine.cli.console import progress_for, tune_allocator
from data_engine.cli.exit_codes import Command
from data_engine.cli.options import (
    actions_option,
    cluster_option,
    filter_options,
    request_options,
    symbols_argument,
    with_settings,
)
from data_engine.cli.run_output import running, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_engine.settings import Settings
    from data_engine.store.bar_store import BarStore
    from data_engine.store.selection import DatasetFilter


@click.command(cls=Command, exits="0 1 2 3 4 6 7 130", partial=True)
@symbols_argument
@click.option("--index", "index_name", metavar="NAME", help="Only the members of this index, with its new members.")
@filter_options
@request_options()
@cluster_option
@actions_option
@click.option("--quiet", is_flag=True, help="Print one summary line, the failures and the latest session; for cron.")
@with_settings
@click.pass_context
def update(
    context: click.Context,
    settings: Settings,
    symbols: tuple[str, ...],
    index_name: str | None,
    timeframe: str | None,
    feed: str | None,
    adjustment: str | None,
    wait: float,
    dask: str | None,
    no_actions: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Fetch missing ranges and new bars of stored series.

    Without SYMBOL or --index, updates all series of the store. A new member of an index starts where the index starts.
    """
    tune_allocator()
    from data_engine.errors import InputError
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.store.selection import DatasetFilter

    if symbols and index_name is not None:
        raise InputError("cannot use SYMBOL together with --index; pass one of them")
    pipeline = IngestionPipeline(
        settings=settings, progress=progress_for(as_json=as_json, quiet=quiet), wait=wait, dask=dask, actions=not no_actions
    )
    with running(pipeline, quiet=quiet):
        report = pipeline.update(symbols or None, index_name, timeframe=timeframe, feed=feed, adjustment=adjustment)
    show(report, as_json=as_json, brief=quiet)
    if quiet:
        names = symbols or (None if index_name is None else tuple(pipeline.metadata.members(index_name)))
        _print_gate(pipeline.storage.bars, DatasetFilter.parse(timeframe, feed, adjustment), names, as_json=as_json)
    context.exit(report.exit_code)


def _print_gate(store: BarStore, datasets: DatasetFilter, names: Sequence[str] | None, *, as_json: bool) -> None:
    """Print how many series hold the latest session, as ``status --session`` does."""
    from datetime import UTC, datetime

    from data_engine.universe.symbol_lists import SymbolLoader
    from data_engine.verify.session_gate import latest_session_gate

    selected = None if names is None else SymbolLoader.from_list(names)
    click.echo(str(latest_session_gate(store, datasets, selected, now=datetime.now(UTC))), err=as_json)
