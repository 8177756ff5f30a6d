"""Plan which covered ranges to fetch again, in which order and in how many nights. Pure; the plan is a value.

Suspect ranges come first, then the ranges that were seen longest ago. Tasks are cut from the front of each series at the edges of
files, and symbols with the same range share a task: without the tasks that are done, the rest of a plan stays as it is. So all
that is covered now is fetched again within the number of nights that the plan says, whatever the store fetches meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from data_engine.ingest.bar_rate import bars_per_session, sessions_in
from data_engine.ingest.plan import MOST_SYMBOLS, FetchTask, fits_one_request
from data_engine.market.exchange_calendar import can_hold_bars
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, difference, intersection, new_york_date, new_york_midnight
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Period, periods

LEAST_LIMIT = 200
"""The requests per minute of a free plan: what is counted on before an account has stated its limit."""

UNSEEN = "unseen"

BEFORE_FIRST_BAR, NO_BARS, SHARED_GAP, FEW_BARS = "before_first_bar", "no_bars", "shared_gap", "few_bars"

SUSPICIONS = (SHARED_GAP, BEFORE_FIRST_BAR, NO_BARS, FEW_BARS)
"""The reasons to suspect a range, the most suspect first."""

_MOST_PAGES = 40  # of a task: what is in memory at once, and what an interrupt loses at most

_SUSPECT_SHARE = 10  # suspect ranges take at most one request of so many, and one night of so many or a part of the first

_NEAR = timedelta(days=31)  # ranges of a series that were last seen by the same run are one if no more than this is between them

_WAIT = 2  # a suspect range is fetched first once in so many times the nights of a plan, so at most once in these nights ...

_LEAST_WAIT = timedelta(days=7)  # ... and no sooner than this

_BEFORE_ALL = datetime(1900, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A covered range that Alpaca may have answered wrongly.

    Attributes:
        series: The series.
        range: The range.
        reason: One of `SUSPICIONS`.
    """

    series: Series
    range: TimeRange
    reason: str


@dataclass(frozen=True, slots=True)
class RecheckTask:
    """What one chain of pages fetches again.

    Attributes:
        task: The symbols and the range.
        reason: ``unseen``, or one of `SUSPICIONS`.
        seen: When the oldest response of it came, as far as is known.
        pages: The expected number of requests.
    """

    task: FetchTask
    reason: str
    seen: datetime
    pages: int


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
        """The number of nights within which everything that is covered now is fetched again; 0 if nothing is covered."""
        return len(_nights((*self.tasks, *self.later), self.budget))

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
    cut = _Cut(page_limit, asof or {}, min(_MOST_PAGES, max(1, budget // 10)))
    ordinary = cut.tasks(sorted((unit for one in coverages for unit in _units(one)), key=_turn))
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
    """Return the tasks by night: in order, as many as the budget allows, at least one."""
    found: list[list[RecheckTask]] = []
    left = 0
    for one in tasks:
        if not found or one.pages > left:
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
    """Tell whether no run since an instant has fetched all that is covered of a range again."""
    lately = [one.range for one in known.seen if one.asked > since]
    return bool(difference(intersection((span,), known.covered), lately))


# ----------------------------------------------------------------------------------------------------------------- units


@dataclass(frozen=True, slots=True)
class _Unit:
    """A range of one series that is fetched again as a whole."""

    known: Coverage
    range: TimeRange
    seen: datetime


def _turn(unit: _Unit) -> tuple[datetime, str, str, TimeRange]:
    series = unit.known.series
    return unit.seen, series.dataset.name, series.symbol, unit.range


def _units(known: Coverage) -> Iterator[_Unit]:
    """Yield the covered ranges of a series that can hold bars, by when they were last seen; near ones as one."""
    by_time: dict[datetime, list[TimeRange]] = {}
    for seen, span in last_seen(known):
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
                yield _Unit(known, span, seen)


def last_seen(known: Coverage) -> Iterator[tuple[datetime, TimeRange]]:
    """Yield all that is covered of a series, each part with an instant that is not after its last response.

    What was never fetched again was answered after its end, and after the series was begun.
    """
    for one in known.seen:
        for part in intersection((one.range,), known.covered):
            yield one.asked, part
    for part in difference(known.covered, (one.range for one in known.seen)):
        yield max(part.start, known.begun or _BEFORE_ALL), part


def estimate(known: Coverage, span: TimeRange) -> float:
    """Return how many bars a series has in a range, by the counts of its files."""
    return sum(bars for _, bars in _by_file(known, span))


def _by_file(known: Coverage, span: TimeRange) -> Iterator[tuple[TimeRange, float]]:
    """Yield the parts of a range by file, each with its bars."""
    for period, part, whole in _files_of(span, known.series.dataset):
        rows = known.rows.get(period, 0)
        yield part, rows if whole or not rows else rows * _share(known, period, part)


@lru_cache(maxsize=1024)  # most series of a store have the same ranges
def _files_of(span: TimeRange, dataset: Dataset) -> tuple[tuple[Period, TimeRange, bool], ...]:
    """Return the files of a range, each with the part of the range that is in it, and whether that is all of the file."""
    found = ((period, period.span, period.span.intersect(span)) for period in periods(span, dataset))
    return tuple((period, part, part == whole) for period, whole, part in found if part is not None)


def _share(known: Coverage, period: Period, part: TimeRange) -> float:
    """Return which share of the bars of a file a part of its range has, by the sessions between the first and the last bar."""
    first, last = known.first_bar, known.last_bar
    if first is None or last is None:
        return 1.0
    life = TimeRange(first, last + timedelta(microseconds=1))
    whole, inside = period.span.intersect(life), part.intersect(life)
    if whole is None or inside is None:
        return 0.0
    return min(1.0, sessions_in(inside) / max(1e-9, sessions_in(whole)))


# ----------------------------------------------------------------------------------------------------------------- tasks


@dataclass(slots=True)
class _Batch:
    """Symbols that share a task."""

    dataset: Dataset
    asof: date | None
    range: TimeRange
    reason: str
    seen: datetime
    symbols: list[str] = field(default_factory=list)
    bars: float = 0.0

    def task(self, page_limit: int) -> RecheckTask:
        made = FetchTask(tuple(sorted(self.symbols)), self.range, self.dataset, self.bars, asof=self.asof)
        return RecheckTask(made, self.reason, self.seen, made.pages(page_limit))


class _Cut:
    """Puts ranges of series into tasks.

    Args:
        page_limit: The bars per page.
        asof: The day whose owner of a symbol is meant, by series.
        most: The most pages of a task.
    """

    def __init__(self, page_limit: int, asof: Mapping[Series, date], most: int) -> None:
        self._page_limit = page_limit
        self._asof = asof
        self._most = most * page_limit

    def tasks(self, units: Iterable[_Unit], reason: str = UNSEEN) -> list[RecheckTask]:
        """Return the tasks of units, in their order."""
        made: list[_Batch] = []
        open_: dict[tuple[str, date | None, TimeRange], _Batch] = {}
        for unit in units:
            series = unit.known.series
            asof = self._asof.get(series)
            for part, bars in self._parts(unit):
                key = series.dataset.name, asof, part
                batch = open_.get(key)
                full = batch is not None and (
                    batch.bars + bars > self._most or not fits_one_request(batch.symbols) or series.symbol in batch.symbols
                )
                if batch is None or full:
                    batch = open_[key] = _Batch(series.dataset, asof, part, reason, unit.seen)
                    made.append(batch)
                batch.symbols.append(series.symbol)
                batch.bars += bars
        return [batch.task(self._page_limit) for batch in made]

    def _parts(self, unit: _Unit) -> Iterator[tuple[TimeRange, float]]:
        """Cut a unit from its front, at the edges of files, into parts of so many bars at most if a file has no more."""
        begin, end, held = unit.range.start, unit.range.start, 0.0
        for part, bars in _by_file(unit.known, unit.range):
            if held and held + bars > self._most:
                yield TimeRange(begin, end), held
                begin, held = end, 0.0
            end, held = part.end, held + bars
        yield TimeRange(begin, unit.range.end), held

    def suspects(self, suspects: Sequence[Suspect], by_series: Mapping[Series, Coverage]) -> list[RecheckTask]:
        """Return the tasks of suspect ranges, the most suspect first."""
        found: list[RecheckTask] = []
        for reason in SUSPICIONS:
            ours = [one for one in suspects if one.reason == reason]
            if reason == BEFORE_FIRST_BAR:
                found += self._before_first_bars(ours, by_series)
            else:
                units = [_Unit(by_series[one.series], one.range, _BEFORE_ALL) for one in ours]
                found += self.tasks(units, reason)
        return found

    def _before_first_bars(self, suspects: Sequence[Suspect], by_series: Mapping[Series, Coverage]) -> list[RecheckTask]:
        """Return the tasks of emptiness before first bars.

        Symbols share a request that reaches to the latest first bar of them, as long as the bars that it brings of the others
        fit on one page.
        """
        made: list[_Batch] = []
        open_: dict[tuple[str, date | None, datetime], _Batch] = {}
        for one in sorted(suspects, key=lambda one: (one.series.dataset.name, one.range.start, one.range.end, one.series.symbol)):
            series, asof = one.series, self._asof.get(one.series)
            key = series.dataset.name, asof, one.range.start
            batch = open_.get(key)
            more = 0.0
            if batch is not None and one.range.end > batch.range.end:
                between = sessions_in(TimeRange(batch.range.end, one.range.end))
                more = between * sum(bars_per_session(by_series[Series(name, series.dataset)]) for name in batch.symbols)
            full = batch is not None and (len(batch.symbols) >= MOST_SYMBOLS or not fits_one_request(batch.symbols))
            if batch is None or full or batch.bars + more > self._page_limit:
                batch = open_[key] = _Batch(series.dataset, asof, one.range, one.reason, _BEFORE_ALL)
                made.append(batch)
                more = 0.0
            batch.range = TimeRange(batch.range.start, max(batch.range.end, one.range.end))
            batch.symbols.append(series.symbol)
            batch.bars += more
        return [batch.task(self._page_limit) for batch in made]


def emptiness(known: Coverage) -> Iterator[Suspect]:
    """Yield the covered ranges of a series before the session of its first bar, or all of them if it has no bar."""
    series, first = known.series, known.first_bar
    limit = None if first is None else new_york_midnight(new_york_date(first))
    for span in known.covered:
        part = span if limit is None else span.before(limit)
        if part is not None and can_hold_bars(part, series.dataset):
            yield Suspect(series, part, NO_BARS if first is None else BEFORE_FIRST_BAR)
