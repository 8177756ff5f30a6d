"""``ingest``: the bars of many symbols, fetched into the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from data_engine.cli.console import first_lines, print_json, print_text, progress_for, size
from data_engine.cli.exit_codes import FAILED, OK, Command
from data_engine.cli.options import (
    actions_option,
    cluster_option,
    complete_file,
    dataset_options,
    dry_run_option,
    open_store,
    request_options,
    symbols_argument,
    with_settings,
)
from data_engine.cli.run_output import running, show

if TYPE_CHECKING:
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.ingest.plan import IngestionPlan
    from data_engine.market.time_range import TimeRange
    from data_engine.settings import Settings
    from data_engine.universe.index_store import MetadataStore


_INDEX_HELP = "Name under which to store the given list. Without a list, the stored index whose members to fetch."


@click.command(cls=Command, exits="0 1 2 3 4 6 7 130", partial=True)
@symbols_argument
@click.option("--csv", "csv_path", metavar="FILE", shell_complete=complete_file, help="CSV file with the symbols.")
@click.option("--column", metavar="NAME", help="Column of --csv with the symbols. [default: Symbol, then Ticker]")
@click.option(
    "--file", "text_path", metavar="FILE", shell_complete=complete_file, help="Text file with the symbols, one per line."
)
@click.option("--index", "index_name", metavar="NAME", help=_INDEX_HELP)
@click.option("--no-index", is_flag=True, help="With --csv: store no index. [default: one with the file's name]")
@click.option("--ever", is_flag=True, help="With --index, fetch all members at any time in the range.")
@click.option("--start", metavar="DATE", help="First day in New York, or instant; required the first time.")
@click.option("--end", metavar="DATE", help="Last day, included, or instant. [default: now]")
@dataset_options
@request_options(600)
@cluster_option
@actions_option
@click.option("--refetch", is_flag=True, help="Fetch everything again; revised values replace stored ones.")
@click.option("--accept-removals", is_flag=True, help="With --refetch: remove dropped bars.")
@click.option("--force", is_flag=True, help="Let the list drop more than 20 % of the index's members.")
@dry_run_option
@with_settings
@click.pass_context
def ingest(
    context: click.Context,
    /,
    settings: Settings,
    start: str | None,
    end: str | None,
    timeframe: str,
    feed: str | None,
    adjustment: str | None,
    wait: float,
    dask: str | None,
    no_actions: bool,
    refetch: bool,
    accept_removals: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
    **lists: Any,
) -> None:
    """Fetch bars of many symbols into the store.

    Covered ranges are not fetched again.
    """
    from datetime import UTC, datetime

    from data_engine.errors import InputError
    from data_engine.ingest.index_members import series_ever
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.market.wording import plural

    if accept_removals and not refetch:
        raise InputError("cannot use --accept-removals without --refetch: only a refetch finds dropped bars; pass both")
    progress = progress_for(as_json=as_json)
    pipeline = IngestionPipeline(
        settings=settings, feed=feed, adjustment=adjustment, progress=progress, wait=wait, dask=dask, actions=not no_actions
    )
    no_index = lists.pop("no_index")
    names, stored_as = _symbols(pipeline.metadata, start, end, **lists)
    derived = _derived_index(lists["csv_path"], lists["index_name"], no_index=no_index)
    _check_request(pipeline, names, start, end, timeframe)
    ever = lists["index_name"] if lists["ever"] else None
    since: dict[str, datetime] = {}
    if dry_run:
        open_store(settings, must_exist=False)
        if ever is not None and start is not None:
            names, since = series_ever(pipeline, ever, start, end, timeframe, now=datetime.now(UTC), fetch=False)
        plan = pipeline.plan(names, start, end, timeframe, refetch=refetch, since=since)
        print_json(plan_fields(plan)) if as_json else print_text(plan_text(plan))
        context.exit(FAILED if plan.failed else OK)
    what = f"{timeframe} bars, feed {pipeline.feed.value}, adjustment {pipeline.adjustment}"
    workers = f"Dask: {dask}" if dask else plural(pipeline.workers, "worker")
    with running(pipeline, f"{plural(len(names), 'symbol')}, {what}, {workers}", must_exist=False):
        if ever is not None and start is not None:
            names, since = series_ever(pipeline, ever, start, end, timeframe, now=datetime.now(UTC))
        report = pipeline.ingest_symbols(
            names,
            start,
            end,
            timeframe,
            derived if stored_as is None else stored_as,
            refetch=refetch,
            accept_removals=accept_removals,
            force=force,
            derived=stored_as is None,
            since=since,
        )
    show(report, as_json=as_json, settings=settings)
    context.exit(report.exit_code)


def _derived_index(csv_path: str | None, index_name: str | None, *, no_index: bool) -> str | None:
    """Return the name under which the list of a CSV file is stored if none is given.

    Raises:
        InputError: If ``--no-index`` has no effect.
    """
    from data_engine.errors import InputError
    from data_engine.universe.index_names import derived_name

    if no_index and (csv_path is None or index_name is not None):
        raise InputError("cannot use --no-index without --csv or together with --index: only --csv stores an index unasked")
    return None if csv_path is None or no_index else derived_name(csv_path)


def _check_request(pipeline: IngestionPipeline, names: Sequence[str], start: str | None, end: str | None, timeframe: str) -> None:
    """Refuse a request before the store is opened and credentials are read: these are of no use then.

    Raises:
        InputError: If the timeframe does not exist, or there is no *start* and none of the series is stored.
        ForeignFiles: If the legacy pipeline wrote the folder.
    """
    from data_engine.market.series import Dataset, Series, Timeframe
    from data_engine.store.legacy_files import refuse_legacy_store

    dataset = Dataset(Timeframe.parse(timeframe), pipeline.adjustment, pipeline.feed)
    refuse_legacy_store(pipeline.storage.files)
    coverage = pipeline.storage.bars.coverage
    if start is None and not any(coverage.read(Series(name, dataset)).wanted for name in names):
        pipeline.plan(names, start, end, timeframe)  # raises the error, whose text is there


def _symbols(
    metadata: MetadataStore,
    start: str | None,
    end: str | None,
    *,
    symbols: tuple[str, ...],
    csv_path: str | None,
    column: str | None,
    text_path: str | None,
    index_name: str | None,
    ever: bool,
) -> tuple[list[str], str | None]:
    """Return the symbols that the options name, and the name of the index to store them as; None for none.

    Raises:
        InputError: If options contradict each other, or the list or a date cannot be used.
    """
    from data_engine.errors import InputError
    from data_engine.universe.symbol_lists import SymbolLoader

    given = {"SYMBOL": symbols, "--csv": csv_path, "--file": text_path}
    named = [option for option, value in given.items() if value not in (None, ())]
    if len(named) > 1:
        raise InputError(f"cannot use {' together with '.join(named)}; pass one list of symbols")
    if column is not None and csv_path is None:
        raise InputError("cannot use --column without --csv: it names a column of that file; pass both")
    if ever and (named or index_name is None or start is None):
        raise InputError("cannot use --ever: it reads a stored index; pass --index and --start, and no other list of symbols")
    if not named and index_name is None:
        raise InputError("no symbols given; pass SYMBOL, --csv, --file or --index")

    def load(span: TimeRange | None) -> list[str]:
        if csv_path is not None:
            return SymbolLoader.from_csv(Path(csv_path), symbol_column=column)
        if text_path is not None:
            return SymbolLoader.from_text_file(Path(text_path))
        if index_name is None or symbols:
            return SymbolLoader.from_list(symbols)
        if not ever:
            return list(metadata.members(index_name))
        return [] if span is None else list(metadata.memberships(index_name, span))

    return _load_for(start, end, load), index_name if named else None


def _load_for(start: str | None, end: str | None, load: Callable[[TimeRange | None], list[str]]) -> list[str]:
    """Return the symbols of a list for a range.

    Args:
        start: The first day or instant. If None, it is found in the store later.
        end: The last day or instant. If None, now.
        load: The function that loads the list, given the range; None if there is no *start*, or no usable one.

    Raises:
        InputError: If a date or the list cannot be used; an error in one does not hide an error in the other.
    """
    from datetime import UTC, datetime

    from data_engine.errors import InputError
    from data_engine.market.dates import any_span, parse_span

    span, problems, names = None, list[InputError](), list[str]()
    try:
        if start is None:
            any_span(None, end)
        else:
            span = parse_span(start, end, now=datetime.now(UTC)).range
    except InputError as error:
        problems.append(error)
    try:
        names = load(span)
    except InputError as error:
        problems.append(error)
    if len(problems) > 1:
        raise InputError("\n".join(map(str, problems)))
    if problems:
        raise problems[0]
    return names


def plan_fields(plan: IngestionPlan) -> dict[str, object]:
    """Return a plan as the fields of the JSON object."""
    return {
        "dataset": plan.dataset.name,
        "symbols": len(plan.symbols),
        "complete": plan.complete,
        "failed": [{"symbol": symbol, "code": why.code, "message": why.message} for symbol, why in plan.failed.items()],
        "start": plan.span.start,
        "end": plan.span.end,
        "held_bars": plan.held,
        "bars": plan.bars,
        "least_requests": plan.least_requests,
        "requests": plan.requests,
        "wire_bytes": plan.wire_bytes,
        "disk_bytes": plan.disk_bytes,
        "tasks": [
            {"symbols": list(task.symbols), "start": task.range.start, "end": task.range.end, "bars": round(task.estimate)}
            for task in plan.tasks
        ],
    }


def plan_text(plan: IngestionPlan) -> str:
    """Return a plan as text."""
    from data_engine.ingest.outcome import duration
    from data_engine.market.wording import and_more, plural

    tasks = [
        f"    {_without_microseconds(task.range)}  about {task.estimate:,.0f} bars  {and_more(task.symbols, 4)}"
        for task in plan.tasks
    ]
    lines = [
        f"Plan for {plan.dataset.name}: {plural(len(plan.symbols), 'symbol')}, {_without_microseconds(plan.span)}",
        f"  Stored: {plan.held:,} bars; {plural(plan.complete, 'complete symbol')}",
        f"  To fetch: about {plan.bars:,} bars, {plural(plan.requests, 'request')} (at least {plan.least_requests:,})",
        f"  Size: {size(plan.wire_bytes)} to transfer, {size(plan.disk_bytes)} on disk",
        f"  Time at 200 requests per minute: {duration(plan.requests * 0.3)}; at 10,000: {duration(plan.requests * 0.006)}",
        f"  Tasks: {len(tasks)}",
        *first_lines(tasks, "tasks (--json prints all)", most=20),
        *([f"  Failed: {plural(len(plan.failed), 'symbol')}"] if plan.failed else []),
        *first_lines([f"    {symbol}: {why.message}" for symbol, why in plan.failed.items()], "symbols (--json prints all)"),
    ]
    return "\n".join(lines)


def _without_microseconds(span: TimeRange) -> str:
    """Return a range whose end may be now, as text for people."""
    from data_engine.market.time_range import iso

    return " .. ".join(iso(instant.replace(microsecond=0)) for instant in (span.start, span.end))
