"""``update``: missing ranges and new bars of stored series."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from data_engine.cli.console import print_text, progress_for
from data_engine.cli.exit_codes import Command
from data_engine.cli.notify import notify_options
from data_engine.cli.options import (
    actions_option,
    cluster_option,
    filter_options,
    request_options,
    symbols_argument,
    with_settings,
)
from data_engine.cli.recheck import Minutes
from data_engine.cli.recheck import fields as recheck_fields
from data_engine.cli.recheck import lines as recheck_lines
from data_engine.cli.run_output import running, show

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from data_engine.cli.notify import Ending
    from data_engine.ingest.outcome import IngestionReport
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.ingest.recheck import RecheckReport
    from data_engine.settings import Settings
    from data_engine.store.bar_store import BarStore
    from data_engine.store.selection import DatasetFilter
    from data_engine.verify.reach import Reach
    from data_engine.verify.session_gate import SessionGate


@click.command(cls=Command, exits="0 1 2 3 4 6 7 130", partial=True)
@symbols_argument
@click.option("--index", "index_name", metavar="NAME", help="Only the members of this index, with its new members.")
@filter_options
@request_options()
@cluster_option
@actions_option
@click.option("--recheck", "minutes", type=Minutes(), metavar="N", help="Then spend N minutes on what `recheck` does.")
@click.option("--quiet", is_flag=True, help="Print one summary line, the failures and the latest session; for cron.")
@notify_options("update")
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
    minutes: float | None,
    quiet: bool,
    ending: Ending,
    as_json: bool,
) -> None:
    """Fetch missing ranges and new bars of stored series.

    Without SYMBOL or --index, updates all series of the store. A new member of an index starts where the index starts.

    With --recheck, it then fetches covered ranges again, the most suspect first, to find late, revised and dropped bars.
    """
    from data_engine.errors import DataEngineError
    from data_engine.ingest.pipeline import IngestionPipeline

    pipeline = IngestionPipeline(
        settings=settings, progress=progress_for(as_json=as_json, quiet=quiet), wait=wait, dask=dask, actions=not no_actions
    )
    ending.store = pipeline.storage.files.location
    # What is wrong with the command comes before what is wrong with the store, and that before missing credentials.
    choice, names, check = checked(pipeline, symbols, index_name, timeframe, feed, adjustment)
    said = _said(pipeline) if quiet else frozenset()
    with running(pipeline, quiet=quiet, check=check):
        report = pipeline.update(names, index_name, timeframe=timeframe, feed=feed, adjustment=adjustment)
        ending.report, ending.text = report, report.line()
        try:
            again = None if minutes is None else _rechecked(pipeline, choice, names, index_name, minutes)
        except DataEngineError as error:
            error.report = report  # what the update did is told, whatever ends the command
            raise
    if again is not None:
        ending.recheck, report["recheck"] = again, recheck_fields(again)
    if quiet:
        selected = names if index_name is None else list(pipeline.metadata.members(index_name))
        held, gate = _held(pipeline.storage.bars, choice, selected)
        ending.text = _line(pipeline, report, held, said)
        show(report, as_json=as_json, text=ending.text)
        click.echo(str(gate), err=as_json)
    else:
        show(report, as_json=as_json, settings=settings)
    if again is not None:
        rechecked = "\n".join(recheck_lines(again))
        ending.text = f"{ending.text}\n{rechecked}"
        print_text(rechecked, err=as_json)
    context.exit(ending.finish())


def checked(
    pipeline: IngestionPipeline,
    symbols: tuple[str, ...],
    index_name: str | None,
    timeframe: str | None,
    feed: str | None,
    adjustment: str | None,
) -> tuple[DatasetFilter, Sequence[str] | None, Callable[[], None]]:
    """Return the datasets and symbols of an update, and what checks that the store has them; `schedule show` calls both, too.

    Raises:
        InputError: If an option cannot be used, whatever the store has.
    """
    from datetime import UTC, datetime

    from data_engine.errors import InputError
    from data_engine.ingest.update_targets import check_targets
    from data_engine.store.selection import DatasetFilter
    from data_engine.universe.symbol_lists import SymbolLoader

    if symbols and index_name is not None:
        raise InputError("cannot use SYMBOL together with --index; pass one of them")
    choice = DatasetFilter.parse(timeframe, feed, adjustment)
    names = SymbolLoader.from_list(symbols) if symbols else None
    known = pipeline.storage.bars, pipeline.metadata
    return choice, names, lambda: check_targets(*known, choice, names, index_name, now=datetime.now(UTC))


def _rechecked(
    pipeline: IngestionPipeline, choice: DatasetFilter, names: Sequence[str] | None, index_name: str | None, minutes: float
) -> RecheckReport:
    """Spend some minutes on the covered ranges of the series that were updated: adjusted ones are compared by the update."""
    from data_engine.ingest.recheck import recheck
    from data_engine.store.selection import stored_of

    selected = names if index_name is None else list(pipeline.metadata.members(index_name))
    stored = None if selected is None else stored_of(pipeline.storage.bars.coverage, choice.raw.fetched, selected)
    return recheck(pipeline, choice.raw, stored, minutes=minutes)


def _said(pipeline: IngestionPipeline) -> frozenset[str]:
    """Return the notes that earlier runs have said: a rename is news once, and true every night."""
    from data_engine.errors import StoreError
    from data_engine.ingest.run_log import RunLog

    try:
        return frozenset(note for run in RunLog(pipeline.storage.files).read() for note in run.notes)
    except StoreError:
        return frozenset()


def _held(store: BarStore, choice: DatasetFilter, names: Sequence[str] | None) -> tuple[list[Reach], SessionGate]:
    """Return to which day each dataset is held, and how many of the selected series hold the latest session.

    The second is what ``status --session`` prints. Each coverage is read once for both.
    """
    from datetime import UTC, datetime

    from data_engine.verify.reach import ReachCount
    from data_engine.verify.session_gate import LatestSession
    from data_engine.verify.status import stored_series

    now = datetime.now(UTC)
    selected = None if names is None else set(names)
    reaches, gate = ReachCount(), LatestSession(store, now)
    for one in stored_series(store, choice.fetched, now=now):
        reaches.add(one)
        if selected is None or one.series.symbol in selected:
            gate.add(one)
    return reaches.result(), gate.result()


def _line(pipeline: IngestionPipeline, report: IngestionReport, held: Sequence[Reach], said: frozenset[str]) -> str:
    """Return the line of a nightly run: when, which store, what came, to which day each dataset is held, and who is behind."""
    from datetime import UTC, datetime

    from data_engine.market.time_range import iso
    from data_engine.market.wording import and_more

    first, *others = report.line(said=said).split("\n")
    now = datetime.now(UTC)
    behind = (f"; behind: {and_more(one.behind, 10)}" if one.behind else "" for one in held)
    reach = ", ".join(f"{one}{late}" for one, late in zip(held, behind, strict=True))
    when = iso(now.replace(microsecond=0))
    return "\n".join([f"{when} {pipeline.storage.files.location}: {first}; {reach}", *others])
