"""``audit``: final sessions, fetched again and compared with the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from data_engine.cli.console import first_lines, print_json
from data_engine.cli.exit_codes import Command
from data_engine.cli.options import (
    dry_run_option,
    filter_options,
    number,
    open_store,
    parse_selection,
    request_options,
    symbols_argument,
    with_settings,
)
from data_engine.cli.run_output import running
from data_engine.store.run_lock import RUN_LOCK

if TYPE_CHECKING:
    from data_engine.ingest.audit import AuditReport
    from data_engine.ingest.drift import AuditPlan, Revision
    from data_engine.settings import Settings


@click.command(cls=Command, exits="0 1 2 3 4 6 7 130", partial=True)
@symbols_argument
@click.option(
    "--sample",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    metavar="N",
    help="Number of sessions to fetch again, counted per series.",
)
@click.option("--seed", metavar="K", help="Whole number that selects the sessions. [default: today's date]")
@filter_options
@click.option("--accept", is_flag=True, help="Store Alpaca's values and new bars. Dropped bars are kept.")
@dry_run_option
@request_options()
@with_settings
@click.pass_context
def audit(
    context: click.Context,
    /,
    settings: Settings,
    sample: int,
    seed: str | None,
    accept: bool,
    dry_run: bool,
    wait: float,
    as_json: bool,
    **selection: Any,
) -> None:
    """Compare stored sessions with Alpaca and log revisions.

    Fetches a sample of final sessions again. The store is unchanged without --accept. Adjusted series are sampled only if
    --adjustment names them.
    """
    from datetime import UTC, datetime

    from data_engine.ingest.audit import Audit, Auditable, auditable
    from data_engine.ingest.drift import plan_audit
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.market.time_range import new_york_date

    now = datetime.now(UTC)
    pipeline = IngestionPipeline(settings=settings)
    store = pipeline.storage.bars
    given = number(seed, "--seed")
    drawn_by = int(f"{new_york_date(now):%Y%m%d}") if given is None else given
    chosen = parse_selection(selection)

    def draw() -> tuple[Auditable, AuditPlan]:
        found = auditable(store, chosen["datasets"], chosen["names"], now=now, accept=accept)
        return found, plan_audit(found.known, sample, seed=drawn_by, asof=found.asof)

    if dry_run:
        open_store(settings)
        _, plan = draw()
        print_json(_plan_fields(plan)) if as_json else click.echo("\n".join(_plan_lines(plan)))
        return
    with running(pipeline), store.files.lock(RUN_LOCK, seconds=wait):
        store.files.remove_stale_drafts()
        found, plan = draw()
        run = Audit(store, pipeline.client, found.known, now=now, workers=pipeline.workers, accept=accept)
        report = run.run(plan, found.failed)
    print_json(report.to_json()) if as_json else click.echo("\n".join(_lines(report, accept=accept)))
    context.exit(report.exit_code)


def _plan_fields(plan: AuditPlan) -> dict[str, object]:
    """Return a plan as the fields of a JSON object."""
    return {
        "sessions": plan.sessions,
        "held_sessions": plan.available,
        "series": plan.series,
        "seed": plan.seed,
        "requests": plan.requests,
        "tasks": [
            {"dataset": task.dataset.name, "symbols": list(task.symbols), "start": task.range.start, "end": task.range.end}
            for task in plan.tasks
        ],
    }


def _plan_lines(plan: AuditPlan) -> list[str]:
    """Return a plan as text."""
    from data_engine.market.wording import and_more, plural

    tasks = [f"  {task.dataset.name}  {task.range}  {and_more(task.symbols, 6)}" for task in plan.tasks]
    return [
        f"{_sessions(plan)}, about {plural(plan.requests, 'request')} (seed {plan.seed})",
        *first_lines(tasks, "(--json prints all)"),
    ]


def _sessions(plan: AuditPlan) -> str:
    return f"{plan.sessions:,} of {plan.available:,} final sessions of {plan.series:,} series"


def _lines(report: AuditReport, *, accept: bool) -> list[str]:
    """Return the result as text: what differs by series and day, what failed, and the counts."""
    from data_engine.ingest.drift import count_bars
    from data_engine.market.wording import plural

    lines = first_lines(_by_day(report.revisions), "sessions that differ (--json prints all)")
    lines += [f"{series} failed: {failure.message}" for series, failure in report.failed.items()]
    requests = f"fetched again in {plural(report.requests, 'request')} (seed {report.plan.seed})"
    lines.append(f"{_sessions(report.plan)}, {requests}; {report.bars:,} bars compared")
    if not report.revisions:
        return [*lines, "No revisions found in the series that could be compared." if report.failed else "No revisions found."]
    counts = count_bars(report.revisions)
    changes = ", ".join(f"{count:,} {change}" for change, count in counts.items())
    lines.append(f"Bars: {changes}; {report.logged:,} new lines in {', '.join(report.logs)}")
    if not accept:
        return [*lines, "The bars in the store are unchanged; --accept stores Alpaca's values."]
    kept = f"; {counts['vanished']:,} dropped bars kept" if counts["vanished"] else ""
    return [*lines, f"Stored: {report.accepted:,} bars{kept}"]


def _by_day(revisions: list[Revision]) -> list[str]:
    """Return a line per series and day that differ."""
    from data_engine.ingest.drift import count_bars
    from data_engine.market.time_range import new_york_date

    by_day: dict[tuple[str, str], list[Revision]] = {}
    for one in revisions:
        by_day.setdefault((str(one.series), str(new_york_date(one.timestamp))), []).append(one)
    lines = []
    for (series, day), ours in by_day.items():
        changes = ", ".join(f"{count:,} {change}" for change, count in count_bars(ours).items() if count)
        fields = sorted({one.field for one in ours if one.change == "revised"})
        lines.append(f"{series} on {day}: {changes}{' (' + ', '.join(fields) + ')' if fields else ''}")
    return lines
