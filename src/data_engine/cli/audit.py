"""``audit``: whether the vendor still says what it said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from data_engine.cli.console import (
    choice_options,
    number,
    pace_options,
    print_json,
    print_store,
    stop_on_signal,
    store_options,
    warn_writer,
)
from data_engine.cli.run_output import name_run, quiet_logs

if TYPE_CHECKING:
    from data_engine.ingest.audit import AuditReport
    from data_engine.ingest.drift import AuditPlan, Revision


_SHOWN = 40


@click.command()
@click.argument("symbols", nargs=-1, metavar="[SYMBOL ...]")
@click.option(
    "--sample",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    metavar="N",
    help="Sessions to ask again, counted by series.",
)
@click.option("--seed", metavar="K", help="A whole number; the same one draws the same sessions. Default: today's date.")
@choice_options
@click.option("--accept", is_flag=True, help="Take over the vendor's values and new bars. Bars that no longer come are kept.")
@click.option("--dry-run", is_flag=True, help="Print what would be asked for; send and write nothing.")
@pace_options
@store_options
@click.pass_context
def audit(
    context: click.Context,
    symbols: tuple[str, ...],
    sample: int,
    seed: str | None,
    timeframe: str | None,
    feed: str | None,
    adjustment: str | None,
    accept: bool,
    dry_run: bool,
    workers: str | None,
    requests_per_minute: str | None,
    wait: float | None,
    base_path: str | None,
    settings_path: str | None,
    as_json: bool,
) -> None:
    """Ask for some held sessions again, compare bar by bar, and log what the vendor has revised.

    Nothing in the store is changed without --accept. Adjusted series are drawn only where --adjustment names them.
    """
    from datetime import UTC, datetime

    from data_engine.ingest.audit import Audit, Auditable, auditable
    from data_engine.ingest.drift import plan_audit
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.market.time_range import new_york_date
    from data_engine.settings import load_settings
    from data_engine.store.selection import DatasetFilter
    from data_engine.universe.symbol_lists import SymbolLoader

    settings = load_settings(
        base_path=base_path,
        settings_path=settings_path,
        workers=number(workers, "--workers"),
        requests_per_minute=number(requests_per_minute, "--requests-per-minute"),
    )
    now = datetime.now(UTC)
    pipeline = IngestionPipeline(settings=settings)
    storage = pipeline.storage.bars
    drawn_by = number(seed, "--seed")
    if drawn_by is None:
        drawn_by = int(f"{new_york_date(now):%Y%m%d}")
    names = SymbolLoader.from_list(symbols) if symbols else None
    choice = DatasetFilter.parse(timeframe, feed, adjustment)

    def drawn() -> tuple[Auditable, AuditPlan]:
        found = auditable(storage, choice, names, now=now, accept=accept)
        return found, plan_audit(found.known, sample, seed=drawn_by, asof=found.asof)

    if dry_run:
        print_store(settings, storage.files)
        storage.check_exists()
        _, plan = drawn()
        print_json(_plan_fields(plan)) if as_json else click.echo("\n".join(_plan_lines(plan)))
        return
    name_run(settings, pipeline)
    storage.check_exists()
    warn_writer(storage.files)
    with stop_on_signal(), quiet_logs(), storage.files.lock("run", seconds=0.0 if wait is None else wait):
        storage.files.remove_stale_drafts()
        found, plan = drawn()
        audit = Audit(storage, pipeline.client, found.known, now=now, workers=pipeline.workers, accept=accept)
        report = audit.run(plan, found.failed)
    if as_json:
        print_json(report.to_json())
    else:
        for line in _lines(report, accept=accept):
            click.echo(line)
    context.exit(report.exit_code)


def _plan_fields(plan: AuditPlan) -> dict[str, object]:
    """Return a plan as the fields of a JSON object."""
    return {
        "sessions": plan.sessions,
        "held_sessions": plan.held,
        "series": plan.series,
        "seed": plan.seed,
        "requests": plan.requests,
        "tasks": [
            {"dataset": task.dataset.name, "symbols": list(task.symbols), "start": task.range.start, "end": task.range.end}
            for task in plan.tasks
        ],
    }


def _plan_lines(plan: AuditPlan) -> list[str]:
    """Return a plan for people."""
    lines = [f"{_sessions(plan)}, about {plan.requests:,} requests (seed {plan.seed})"]
    for task in plan.tasks[:_SHOWN]:
        names = ", ".join(task.symbols[:6]) + (f" and {len(task.symbols) - 6} more" if len(task.symbols) > 6 else "")
        lines.append(f"  {task.dataset.name}  {task.range}  {names}")
    if len(plan.tasks) > _SHOWN:
        lines.append(f"  and {len(plan.tasks) - _SHOWN} more (--json prints all)")
    return lines


def _sessions(plan: AuditPlan) -> str:
    return f"{plan.sessions:,} of {plan.held:,} held sessions, of {plan.series:,} series"


def _lines(report: AuditReport, *, accept: bool) -> list[str]:
    """Return what came of an audit for people: what differs by series and day, what failed, and the counts."""
    from data_engine.ingest.drift import count_bars

    lines = _by_day(report.revisions)
    if len(lines) > _SHOWN:
        lines = [*lines[:_SHOWN], f"and {len(lines) - _SHOWN} more sessions that differ (--json prints all)"]
    lines += [f"{series} failed: {message}" for series, (_, message) in report.failed.items()]
    counts = count_bars(report.revisions)
    plan = report.plan
    asked = f"asked again in {report.requests:,} requests (seed {plan.seed})"
    lines.append(f"{_sessions(plan)}, {asked}; {report.bars:,} bars compared")
    if not report.revisions:
        lines.append("The vendor says what it said." if not report.failed else "Nothing differs in what could be compared.")
        return lines
    said = ", ".join(f"{count:,} {change}" for change, count in counts.items())
    lines.append(f"Bars: {said}; {report.logged:,} new lines in {', '.join(report.logs)}")
    if accept:
        kept = f"; {counts['vanished']:,} that no longer come are kept" if counts["vanished"] else ""
        lines.append(f"Taken over: {report.accepted:,} bars{kept}")
    else:
        lines.append("The bars in the store are as they were; --accept takes over what the vendor says now.")
    return lines


def _by_day(revisions: list[Revision]) -> list[str]:
    """Return a line for each series and day that differ."""
    from data_engine.ingest.drift import count_bars
    from data_engine.market.time_range import new_york_date

    by_day: dict[tuple[str, str], list[Revision]] = {}
    for one in revisions:
        by_day.setdefault((str(one.series), str(new_york_date(one.timestamp))), []).append(one)
    lines = []
    for (series, day), ours in by_day.items():
        said = ", ".join(f"{count:,} {change}" for change, count in count_bars(ours).items() if count)
        fields = sorted({one.field for one in ours if one.change == "revised"})
        lines.append(f"{series} on {day}: {said}{' (' + ', '.join(fields) + ')' if fields else ''}")
    return lines
