"""Plan which covered ranges to fetch again, in which order and in how many nights. Pure; the plan is a value.

Suspect ranges come first, then the ranges that were seen longest ago. Tasks are cut from the front of each series at the edges of
files, and symbols with the same range share a task: without the tasks that are done, the rest of a plan stays as it is. So all
that is covered now is fetched again within the number of nights that the plan says, whatever the store fetches meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from data_engine.ingest.recheck_tasks import (
    BEFORE_ALL,
    BEFORE_FIRST_BAR,
    NO_BARS,
    SUSPICIONS,
    UNSEEN,
    Cut,
    RecheckTask,
    Suspect,
    Unit,
)
from data_engine.market.exchange_calendar import can_hold_bars
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange, difference, intersection, new_york_date, new_york_midnight
from data_engine.store.coverage import Coverage

LEAST_LIMIT = 200
"""The requests per minute of a free plan: what is counted on before an account has stated its limit."""

_MOST_PAGES = 40  # of a task: what is in memory at once, and what an interrupt loses at most

_SUSPECT_SHARE = 10  # suspect ranges take at most one request of so many, and one night of so many or a part of the first

_NEAR = timedelta(days=31)  # ranges of a series that were last seen by the same run are one if no more than this is between them

_WAIT = 2  # a suspect range is fetched first once in so many times the nights of a plan, so at most once in these nights ...

_LEAST_WAIT = timedelta(days=7)  # ... and no sooner than this

_WEEKS = timedelta(weeks=26)

_ALLOWANCE = 50  # one night of so many, and at least one, for what is stored meanwhile


@dataclass(frozen=True, slots=True)
class RecheckPlan:
    """All covered ranges, in the order in which they are fetched again.

    Attributes:
        tasks: The tasks.
        budget: The requests per night.
        series: The number of series.
        later: Suspect ranges that were fetched again lately. They are first again within these nights, at most once.
    """

    tasks: tuple[RecheckTask, ...]
    budget: int
    series: int
    later: tuple[RecheckTask, ...] = ()

    @property
    def requests(self) -> int:
        """The expected number of requests of all nights."""
        return sum(one.pages for one in self.tasks)

    @property
    def suspects(self) -> dict[str, int]:
        """The number of tasks by suspicion."""
        counts = dict.fromkeys(SUSPICIONS, 0)
        for one in self.tasks:
            if one.reason != UNSEEN:
                counts[one.reason] += 1
        return counts

    @property
    def nights(self) -> int:
        """The number of nights within which everything that is covered now is fetched again; 0 if nothing is covered.

        It has an allowance for the bars that updates and rechecks add meanwhile.
        """
        nights = len(_nights((*self.tasks, *self.later), self.budget))
        return nights if nights <= 1 else nights + math.ceil(nights / _ALLOWANCE)

    @property
    def suspect_nights(self) -> int:
        """The number of nights within which all suspect ranges are."""
        return len(_nights([one for one in self.tasks if one.reason != UNSEEN], self.budget))

    def night(self, number: int = 0) -> tuple[RecheckTask, ...]:
        """Return the tasks of a night, the first by default."""
        found = _nights(self.tasks, self.budget)
        return tuple(found[number]) if number < len(found) else ()

    @property
    def oldest(self) -> datetime | None:
        """When the oldest response came that was not fetched again since; None if nothing is covered."""
        return min((one.seen for one in self.tasks), default=None)


def requests_of(minutes: float, limit: float | None) -> int:
    """Return how many requests an account may send in some minutes, at least one.

    Args:
        minutes: The minutes.
        limit: The requests per minute of the account. If None, those of a free plan.
    """
    return max(1, math.floor(minutes * (limit or LEAST_LIMIT)))


def plan_recheck(
    known: Iterable[Coverage],
    suspects: Iterable[Suspect],
    *,
    now: datetime,
    budget: int,
    asof: Mapping[Series, date] | None = None,
    page_limit: int = 10_000,
) -> RecheckPlan:
    """Return what to fetch again, all of it.

    Args:
        known: The coverage of the series.
        suspects: Ranges to fetch first, the most suspect first. They take at most a tenth of all requests; the others come when
            it is their turn.
        now: The current instant.
        budget: The requests per night, at least one.
        asof: For each series whose security has left the ticker, its last day there.
        page_limit: The bars per page.
    """
    coverages = [one for one in known if one.covered]
    cut = Cut(page_limit, asof or {}, min(_MOST_PAGES, max(1, budget // 10)))
    ordinary = cut.tasks(sorted((unit for one in coverages for unit in _units(one, now)), key=_turn))
    nights = len(_nights(ordinary, budget))
    if nights <= 1:
        return RecheckPlan(tuple(ordinary), budget, len(coverages))  # all of it is fetched tonight
    by_series = {one.series: one for one in coverages}
    since = now - max(_LEAST_WAIT, _WAIT * timedelta(days=nights))
    found = cut.suspects([one for one in suspects if one.series in by_series], by_series)
    room = sum(one.pages for one in ordinary) // _SUSPECT_SHARE
    first: list[RecheckTask] = []
    later: list[RecheckTask] = []
    for one in _first_tenth(found, budget, room, max(1, nights // _SUSPECT_SHARE)):
        series = (Series(name, one.task.dataset) for name in one.task.symbols)
        due = any(_is_due(one.task.range, by_series[name], since) for name in series)
        (first if due else later).append(one)
    return RecheckPlan((*first, *ordinary), budget, len(coverages), tuple(later))


def _nights(tasks: Iterable[RecheckTask], budget: int) -> list[list[RecheckTask]]:
    """Return the tasks by night, in order; the task that reaches the budget is the last one of its night."""
    found: list[list[RecheckTask]] = []
    left = 0
    for one in tasks:
        if left <= 0:
            found.append([])
            left = budget
        found[-1].append(one)
        left -= one.pages
    return found


def _first_tenth(tasks: Sequence[RecheckTask], budget: int, pages: int, nights: int) -> Sequence[RecheckTask]:
    """Return the first tasks that take no more than some pages and nights."""
    chosen = 0
    for number, of_night in enumerate(_nights(tasks, budget)):
        for one in of_night:
            pages -= one.pages
            if pages < 0 or number >= nights:
                return tasks[:chosen]
            chosen += 1
    return tasks


def _is_due(span: TimeRange, known: Coverage, since: datetime) -> bool:
    """Tell whether no run since an instant has fetched any part of a range again; an emptiness grows with every update."""
    lately = (one.range for one in known.seen if one.asked > since)
    return bool(intersection((span,), known.covered)) and not any(span.intersect(one) for one in lately)


# ----------------------------------------------------------------------------------------------------------------- units


def _turn(unit: Unit) -> tuple[datetime, str, str, TimeRange]:
    series = unit.known.series
    return unit.seen, series.dataset.name, series.symbol, unit.range


def _units(known: Coverage, now: datetime) -> Iterator[Unit]:
    """Yield the covered ranges of a series that can hold bars, by when they were last seen; near ones as one."""
    by_time: dict[datetime, list[TimeRange]] = {}
    for seen, span in last_seen(known, now):
        by_time.setdefault(seen, []).append(span)
    for seen, spans in by_time.items():
        joined: list[TimeRange] = []
        for span in sorted(spans):
            if joined and span.start - joined[-1].end <= _NEAR:
                joined[-1] = TimeRange(joined[-1].start, span.end)
            else:
                joined.append(span)
        for span in joined:
            if can_hold_bars(span, known.series.dataset):
                yield Unit(known, span, seen)


def last_seen(known: Coverage, now: datetime) -> Iterator[tuple[datetime, TimeRange]]:
    """Yield all that is covered of a series, each part with an instant that is not after its last response.

    What was never fetched again was answered after its end, and after the series was begun. What updates have added since then is
    in weeks, or months if it is older, so that the part that grows every night is one of the last.
    """
    for one in known.seen:
        for part in intersection((one.range,), known.covered):
            yield one.asked, part
    begun = min(known.begun or BEFORE_ALL, now)
    for part in difference(known.covered, (one.range for one in known.seen)):
        first = part.before(begun)
        if first is not None:
            yield begun, first
        rest = part.after(begun)
        for span in _calendar(rest, now - _WEEKS) if rest is not None else ():
            yield span.start, span


def _calendar(span: TimeRange, weeks: datetime) -> Iterator[TimeRange]:
    """Cut a range at the edges of months before an instant, and of weeks in New York from then on."""
    start = span.start
    while start < span.end:
        day = new_york_date(start)
        month = date(day.year + day.month // 12, day.month % 12 + 1, 1)
        edge = new_york_midnight(day + timedelta(days=7 - day.weekday()) if start >= weeks else month)
        yield TimeRange(start, min(edge, span.end))
        start = edge


def emptiness(known: Coverage) -> Iterator[Suspect]:
    """Yield the covered ranges of a series before the session of its first bar, or all of them if it has no bar."""
    series, first = known.series, known.first_bar
    limit = None if first is None else new_york_midnight(new_york_date(first))
    for span in known.covered:
        part = span if limit is None else span.before(limit)
        if part is not None and can_hold_bars(part, series.dataset):
            yield Suspect(series, part, NO_BARS if first is None else BEFORE_FIRST_BAR)
