"""``ingest``: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import (
    dataset_options,
    number,
    pace_options,
    print_err,
    print_json,
    print_store,
    progress_for,
    size,
    stop_on_signal,
    store_options,
    tune_allocator,
    warn_writer,
)
from data_engine.cli.run_output import cluster_option, name_run, quiet_logs, show, show_failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.ingest.plan import IngestionPlan


@click.command()
@click.argument("symbols", nargs=-1, metavar="[SYMBOL ...]")
@click.option("--csv", "csv_path", metavar="FILE", help="Take the symbols from a CSV file.")
@click.option("--column", metavar="NAME", help="The column of the CSV file that holds the symbols.")
@click.option("--file", "text_path", metavar="FILE", help="Take the symbols from a text file, one a line.")
@click.option("--index", "index_name", metavar="NAME", help="With a list: store it under this name. Alone: take the stored list.")
@click.option("--ever", is_flag=True, help="With --index alone: all that were members at any time from --start to --end.")
@click.option("--start", metavar="DATE", help="First day (New York), or an instant. Needed the first time.")
@click.option("--end", metavar="DATE", help="Last day, included, or an instant. Default: now.")
@dataset_options
@pace_options
@cluster_option
@click.option("--refetch", is_flag=True, help="Ask for everything again, held or not; revised values replace the old ones.")
@click.option("--accept-removals", is_flag=True, help="With --refetch: take out bars that the vendor no longer has.")
@click.option("--force", is_flag=True, help="Let the list drop more than 20 % of the index's members.")
@click.option("--dry-run", is_flag=True, help="Print what would be asked for; send and write nothing.")
@store_options
@click.pass_context
def ingest(
    context: click.Context,
    symbols: tuple[str, ...],
    csv_path: str | None,
    column: str | None,
    text_path: str | None,
    index_name: str | None,
    ever: bool,
    start: str | None,
    end: str | None,
    timeframe: str,
    feed: str | None,
    adjustment: str | None,
    workers: str | None,
    requests_per_minute: str | None,
    wait: float | None,
    dask: str | None,
    refetch: bool,
    accept_removals: bool,
    force: bool,
    dry_run: bool,
    base_path: str | None,
    settings_path: str | None,
    as_json: bool,
) -> None:
    """Bring the bars of many symbols into the store. What is there already is not asked for again."""
    tune_allocator()
    from data_engine.errors import DataEngineError, InputError
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.settings import load_settings

    try:
        if accept_removals and not refetch:
            raise InputError("--accept-removals goes with --refetch: only what is asked for again can be found missing")
        settings = load_settings(
            base_path=base_path,
            settings_path=settings_path,
            workers=number(workers, "--workers"),
            requests_per_minute=number(requests_per_minute, "--requests-per-minute"),
            feed=feed,
        )
        pipeline = IngestionPipeline(
            settings=settings,
            adjustment=adjustment,
            progress=progress_for(as_json=as_json),
            wait=600.0 if wait is None else wait,
            dask=dask,
        )
        if ever:
            if index_name is None or symbols or csv_path or text_path:
                raise InputError(
                    "--ever goes with --index alone: all that were members of a stored index at any time in the range"
                )
            names = _ever_members(pipeline, index_name, start, end)
        else:
            names = _symbols(pipeline, symbols, csv_path, column, text_path, index_name)
        stored_as = index_name if symbols or csv_path or text_path else None
        if dry_run:
            print_store(settings, pipeline.storage.files)
            plan = pipeline.plan(names, start, end, timeframe, refetch=refetch)
            print_json(plan_fields(plan)) if as_json else click.echo(plan_text(plan))
            return
        name_run(settings, pipeline)
        warn_writer(pipeline.storage.files)
        what = f"{timeframe} bars, feed {pipeline.feed.value}, {pipeline.adjustment}"
        print_err(f"{len(names)} symbols, {what}, {'Dask: ' + dask if dask else f'{pipeline.workers} workers'}")
        with stop_on_signal(), quiet_logs():
            report = pipeline.ingest_symbols(
                names, start, end, timeframe, stored_as, refetch=refetch, accept_removals=accept_removals, force=force
            )
    except DataEngineError as error:
        show_failure(error, as_json=as_json)
        raise
    show(report, as_json=as_json)
    context.exit(report.exit_code)


def _symbols(
    pipeline: IngestionPipeline,
    symbols: Sequence[str],
    csv_path: str | None,
    column: str | None,
    text_path: str | None,
    index_name: str | None,
) -> list[str]:
    """Return the symbols from wherever they were named."""
    from data_engine.errors import InputError
    from data_engine.universe.symbol_lists import SymbolLoader

    sources = [bool(symbols), csv_path is not None, text_path is not None]
    if sum(sources) > 1:
        raise InputError("name the symbols in one way: as arguments, with --csv, or with --file")
    if column is not None and csv_path is None:
        raise InputError("--column names a column of the file that --csv names")
    if csv_path is not None:
        return SymbolLoader.from_csv(Path(csv_path), symbol_column=column)
    if text_path is not None:
        return SymbolLoader.from_text_file(Path(text_path))
    if symbols:
        return SymbolLoader.from_list(symbols)
    if index_name is not None:
        return list(pipeline.metadata.members(index_name))
    raise InputError("which symbols? Name them, or a list with --csv, --file or --index; `data-engine ingest --help` says how")


def _ever_members(pipeline: IngestionPipeline, index_name: str, start: str | None, end: str | None) -> list[str]:
    """Return all that were members of an index at any time in a range, whether or not they still are."""
    from datetime import UTC, datetime

    from data_engine.errors import InputError
    from data_engine.market.dates import parse_span

    if start is None:
        raise InputError("--ever needs --start: the members of which time?")
    return list(pipeline.metadata.memberships(index_name, parse_span(start, end, now=datetime.now(UTC)).range))


def plan_fields(plan: IngestionPlan) -> dict[str, object]:
    """Return a plan as the fields of a JSON object."""
    return {
        "dataset": plan.dataset.name,
        "symbols": len(plan.symbols),
        "complete": plan.complete,
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
    """Return a plan for people."""
    from data_engine.ingest.outcome import duration
    from data_engine.market.time_range import iso

    lines = [
        f"Plan for {plan.dataset.name}: {len(plan.symbols)} symbols, {plan.span}",
        f"  Held already: {plan.held:,} bars; {plan.complete} symbols are complete",
        f"  To come: about {plan.bars:,} bars, {plan.requests:,} requests (at least {plan.least_requests:,}), "
        f"{size(plan.wire_bytes)} to transfer, {size(plan.disk_bytes)} on disk",
        f"  Time at 200 requests a minute: {duration(plan.requests * 0.3)}; at 10,000: {duration(plan.requests * 0.006)}",
        f"  Tasks: {len(plan.tasks)}",
    ]
    for task in plan.tasks[:20]:
        names = ", ".join(task.symbols[:4]) + (f" and {len(task.symbols) - 4} more" if len(task.symbols) > 4 else "")
        lines.append(f"    {iso(task.range.start)} .. {iso(task.range.end)}  about {task.estimate:,.0f} bars  {names}")
    if len(plan.tasks) > 20:
        lines.append(f"    and {len(plan.tasks) - 20} more (--json prints all)")
    return "\n".join(lines)
