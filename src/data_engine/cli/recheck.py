"""``recheck``: covered ranges fetched again, the most suspect first; and what ``audit`` and ``update`` print of the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from data_engine.cli.console import first_lines, print_json, print_text, progress_for, refuse_unstored
from data_engine.cli.exit_codes import Command
from data_engine.cli.options import (
    dry_run_option,
    filter_options,
    open_store,
    parse_selection,
    request_options,
    symbols_argument,
    with_settings,
)
from data_engine.cli.run_output import running

if TYPE_CHECKING:
    from data_engine.ingest.drift import Difference
    from data_engine.ingest.plan import FetchTask
    from data_engine.ingest.recheck import RecheckReport
    from data_engine.ingest.recheck_plan import RecheckPlan
    from data_engine.settings import Settings

_DEFAULT_MINUTES = 10.0

REASONS = {
    "shared_gap": "gaps that several symbols share",
    "before_first_bar": "emptiness before first bars",
    "no_bars": "series without bars",
    "few_bars": "sessions with few bars",
}


class Minutes(click.FloatRange):
    """Minutes of a day; not NaN, which is neither below nor above a bound."""

    def __init__(self) -> None:
        super().__init__(0, 24 * 60, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number of minutes."""
        minutes = float(super().convert(value, param, ctx))
        if minutes != minutes:
            self.fail(f"{value!r} is not a number of minutes", param, ctx)
        return minutes


@click.command(cls=Command, exits="0 1 2 3 4 6 7 130", partial=True)
@symbols_argument
@click.option("--minutes", type=Minutes(), metavar="N", help="Time to spend at the rate limit, in minutes. [default: 10]")
@filter_options
@click.option("--accept", is_flag=True, help="Apply Alpaca's values of all conflicting bars. Without --minutes, fetches nothing.")
@dry_run_option
@request_options()
@with_settings
@click.pass_context
def recheck(
    context: click.Context,
    /,
    settings: Settings,
    minutes: float | None,
    accept: bool,
    dry_run: bool,
    wait: float,
    as_json: bool,
    **selection: Any,
) -> None:
    """Fetch covered ranges again: late and revised bars.

    The most suspect ranges come first, then those that were seen longest ago; the next run goes on where this one stopped. New
    bars are stored. Bars that Alpaca revised or dropped stay as they are and are conflicting, until --accept stores Alpaca's
    values and removes dropped bars. --dry-run prints within how many nights everything will have been fetched again.
    """
    from datetime import UTC, datetime

    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.ingest.recheck import planned
    from data_engine.ingest.recheck import recheck as run
    from data_engine.ingest.recheckable import recheckable

    chosen = parse_selection(selection)
    spent = minutes if minutes is not None or (accept and not dry_run) else _DEFAULT_MINUTES
    if dry_run:
        store, now = open_store(settings), datetime.now(UTC)
        found = recheckable(store, chosen["datasets"], chosen["names"], now=now)
        plan = planned(store, found, now=now, minutes=spent or _DEFAULT_MINUTES, limit=settings.requests_per_minute)
        print_json(_plan_fields(plan)) if as_json else print_text("\n".join(plan_lines(plan)))
        return
    pipeline = IngestionPipeline(settings=settings, progress=progress_for(as_json=as_json, quiet=True), wait=wait)
    with running(pipeline, check=lambda: refuse_unstored(pipeline.storage.bars, chosen["datasets"], chosen["names"])):
        report = run(pipeline, chosen["datasets"], chosen["names"], minutes=spent, accept=accept)
    print_json(fields(report)) if as_json else print_text("\n".join(lines(report)))
    context.exit(report.exit_code)


def _plan_fields(plan: RecheckPlan) -> dict[str, object]:
    """Return a plan as the fields of a JSON object."""
    return {
        **_nights(plan),
        "suspects": plan.suspects,
        "suspect_nights": plan.suspect_nights,
        "tasks": [{**task_fields(one.task), "reason": one.reason, "requests": one.pages} for one in plan.night()],
    }


def _nights(plan: RecheckPlan) -> dict[str, object]:
    return {
        "series": plan.series,
        "requests": plan.requests,
        "requests_per_night": plan.budget,
        "nights": plan.nights,
        "oldest": plan.oldest,
    }


def task_fields(task: FetchTask) -> dict[str, object]:
    """Return a task as the fields of a JSON object."""
    return {"dataset": task.dataset.name, "symbols": list(task.symbols), "start": task.range.start, "end": task.range.end}


def plan_lines(plan: RecheckPlan) -> list[str]:
    """Return a plan as text."""
    from data_engine.market.wording import and_more, plural

    head = (
        f"All final ranges of {plural(plan.series, 'series', 'series')}: about {plural(plan.requests, 'request')}, "
        f"{plan.budget:,} per night: within {plural(plan.nights, 'night')}"
    )
    first = [f"{REASONS[name]} ({plural(count, 'task')})" for name, count in plan.suspects.items() if count]
    suspect = [f"First, within {plural(plan.suspect_nights, 'night')}: {', '.join(first)}"] if first else []
    tonight = [
        f"  {one.task.dataset.name}  {one.task.range}  {and_more(one.task.symbols, 6)}  {one.reason.replace('_', ' ')}"
        for one in plan.night()
    ]
    return [head, *suspect, *(["Next:"] if tonight else []), *first_lines(tonight, "(--json prints all)")]


def fields(report: RecheckReport) -> dict[str, object]:
    """Return a result as the fields of a JSON object."""
    return {**report.to_json(), **({} if report.plan is None else {**_nights(report.plan), "suspects": report.plan.suspects})}


def lines(report: RecheckReport) -> list[str]:
    """Return a result as text: what differs by series and day, what failed, and the counts."""
    from data_engine.market.wording import plural

    done, made = report.total, details(report)
    if report.plan is not None:
        made.append(
            f"{plural(len(report.rechecked), 'series', 'series')} fetched again in {plural(report.requests, 'request')}; "
            f"{plural(done.bars, 'bar')} compared; everything within {plural(report.plan.nights, 'night')} of "
            f"{plural(report.plan.budget, 'request')}, this one included"
        )
    return [*made, *outcome(report)]


def details(report: RecheckReport) -> list[str]:
    """Return what differs by series and day, and what failed."""
    made = first_lines(_by_day(report.total.differences), "sessions that differ (--json prints all)")
    return [*made, *(f"{series} failed: {failure.message}" for series, failure in report.failed.items())]


def outcome(report: RecheckReport, *, whole: bool = True) -> Iterator[str]:
    """Yield what was found, what was stored, and what conflicts.

    Args:
        report: The result.
        whole: Whether the run came to its end: only then is it news that nothing was found.
    """
    from data_engine.ingest.outcome import conflicts_text
    from data_engine.market.wording import plural

    done, accepted, changes = report.total, report.accepted, report.changes
    if done.revised or done.appeared or done.vanished:
        yield f"Bars: {', '.join(f'{count:,} {change}' for change, count in done.counts.items())}"
    elif whole and (report.plan is not None or report.sample is not None):
        yield "No revisions found in the series that could be compared." if report.failed else "No revisions found."
    if report.added or accepted is not None:
        removed = f"; {plural(changes.removed, 'bar')} removed" if changes.removed else ""
        yield f"Stored: {plural(changes.written, 'bar')}{removed}"
    if report.conflicting:
        yield conflicts_text({str(series): count for series, count in report.conflicting.items()})


def _by_day(differences: Sequence[Difference]) -> list[str]:
    """Return a line per series and day that differ."""
    from collections import Counter

    from data_engine.market.time_range import new_york_date

    by_day: dict[tuple[str, str], list[Difference]] = {}
    for one in differences:
        by_day.setdefault((str(one.series), str(new_york_date(one.timestamp))), []).append(one)
    made = []
    for (series, day), ours in by_day.items():
        counts = Counter(one.change for one in ours)
        changes = ", ".join(f"{counts[change]:,} {change}" for change in ("revised", "appeared", "vanished") if counts[change])
        names = sorted({name for one in ours if one.change == "revised" for name in one.fields})
        made.append(f"{series} on {day}: {changes}{' (' + ', '.join(names) + ')' if names else ''}")
    return made
