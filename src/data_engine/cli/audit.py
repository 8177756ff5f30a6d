"""``audit``: a sample of final sessions, fetched again and compared as ``recheck`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from data_engine.cli.console import first_lines, print_json, print_text, progress_for, refuse_unstored
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
from data_engine.cli.recheck import details, outcome, task_fields
from data_engine.cli.run_output import running

if TYPE_CHECKING:
    from data_engine.ingest.audit_plan import AuditPlan
    from data_engine.ingest.recheck import RecheckReport
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
@click.option("--accept", is_flag=True, help="Store Alpaca's values of conflicting bars. Dropped bars are kept.")
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
    """Compare a sample of stored sessions with Alpaca.

    Fetches final sessions again and compares them as `recheck` does: new bars are stored, and bars that Alpaca revised or dropped
    are conflicting. Adjusted series are sampled only if --adjustment names them, and nothing of them is written.
    """
    from datetime import UTC, datetime

    from data_engine.ingest.audit_plan import plan_audit
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.ingest.recheck import audit as run
    from data_engine.ingest.recheckable import recheckable
    from data_engine.market.time_range import new_york_date

    now = datetime.now(UTC)
    given = number(seed, "--seed")
    drawn_by = int(f"{new_york_date(now):%Y%m%d}") if given is None else given
    chosen = parse_selection(selection)
    if dry_run:
        found = recheckable(open_store(settings), chosen["datasets"], chosen["names"], now=now, command="audit")
        plan = plan_audit(found.known, sample, seed=drawn_by, asof=found.asof)
        print_json(_plan_fields(plan)) if as_json else print_text("\n".join(_plan_lines(plan)))
        return
    pipeline = IngestionPipeline(settings=settings, progress=progress_for(as_json=as_json, quiet=True), wait=wait)
    with running(pipeline, check=lambda: refuse_unstored(pipeline.storage.bars, chosen["datasets"], chosen["names"])):
        report = run(pipeline, chosen["datasets"], chosen["names"], sample=sample, seed=drawn_by, accept=accept)
    print_json(_fields(report)) if as_json else print_text("\n".join(_lines(report)))
    context.exit(report.exit_code)


def _fields(report: RecheckReport) -> dict[str, object]:
    """Return a result as the fields of a JSON object."""
    return {**report.to_json(), **({} if report.sample is None else _counts(report.sample))}


def _lines(report: RecheckReport) -> list[str]:
    """Return a result as text: what differs, what failed, exactly what was looked at, and what was found."""
    from data_engine.market.wording import plural

    drawn, made = report.sample, details(report)
    if drawn is not None:
        requests = plural(report.requests, "request")
        made.append(f"{_sessions(drawn)}, fetched again in {requests} (seed {drawn.seed}); {report.total.bars:,} bars compared")
    return [*made, *outcome(report)]


def _counts(plan: AuditPlan) -> dict[str, object]:
    return {"sessions": plan.sessions, "held_sessions": plan.available, "series": plan.series, "seed": plan.seed}


def _plan_fields(plan: AuditPlan) -> dict[str, object]:
    """Return a plan as the fields of a JSON object."""
    return {**_counts(plan), "requests": plan.requests, "tasks": [task_fields(task) for task in plan.tasks]}


def _plan_lines(plan: AuditPlan) -> list[str]:
    """Return a plan as text."""
    from data_engine.market.wording import and_more, plural

    tasks = [f"  {task.dataset.name}  {task.range}  {and_more(task.symbols, 6)}" for task in plan.tasks]
    return [
        f"{_sessions(plan)}, about {plural(plan.requests, 'request')} (seed {plan.seed})",
        *first_lines(tasks, "(--json prints all)"),
    ]


def _sessions(plan: AuditPlan) -> str:
    return f"{plan.sessions:,} of {plan.available:,} final sessions of {plan.series:,} series, with bars or without"
