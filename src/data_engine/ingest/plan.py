"""What to fetch: the missing ranges of many series as few, well-filled requests. Pure; the plan is a value.

Symbols that miss the same range share requests, because a page's 10,000 bars are one budget over all symbols of a request.
Long ranges are cut only at the edges of files, so that each file has one writer. Tasks are as few as keep all workers busy:
each ends with a page that is half empty on average.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import lru_cache

from data_engine.market.exchange_calendar import can_hold_bars, count_sessions, regular_hours, sessions
from data_engine.market.series import Dataset
from data_engine.market.time_range import TimeRange, new_york_date, new_york_days
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import periods

_NEAR = timedelta(days=100)  # how far from a hole a session tells of its prices

_COMPARISON_BARS = 20  # of a thin series, several sessions are compared

WIRE_BYTES_PER_BAR = 22  # gzip, measured on a recorded page

DISK_BYTES_PER_BAR = 20  # measured on real minute bars: 17.9, and coverage

_FEW_PAGES, _MANY_PAGES = 10, 40  # of a task: enough that its half-empty last page weighs little

_MOST_SYMBOLS, _MOST_CHARACTERS = 500, 3500  # 518 symbols in 3,209 characters are known to be accepted


@dataclass(frozen=True, slots=True)
class FetchTask:
    """One chain of pages: these symbols, this range.

    Attributes:
        symbols: ascending, as the server fills pages.
        range: to be covered; the request may reach further (whole bars, an overlap).
        dataset: of all of them.
        estimate: how many bars may come.
        overlap: of an adjusted dataset: a held session whose bars are asked for again, to be compared with those stored;
            None where there is none.
        asof: the day whose owners of the symbols are meant, where a security has left its ticker since; None is today.
    """

    symbols: tuple[str, ...]
    range: TimeRange
    dataset: Dataset
    estimate: float = 0.0
    overlap: TimeRange | None = None
    asof: date | None = None

    def pages(self, page_limit: int) -> int:
        """Return how many requests the task is expected to take, at least one."""
        return max(1, math.ceil(self.estimate / page_limit))


@dataclass(frozen=True, slots=True)
class IngestionPlan:
    """All that a run will ask for in one dataset.

    Attributes:
        dataset: of every task.
        symbols: all that were wanted, in the order given.
        span: from the earliest to the latest wanted instant.
        tasks: in the order of work: symbols are finished one group after the other.
        outstanding: per symbol with anything to ask, how many tasks hold it.
        held: bars that are there already, of all symbols.
        page_limit: bars per page.
        wanted: the ranges that were asked for, by symbol.
    """

    dataset: Dataset
    symbols: tuple[str, ...]
    span: TimeRange
    tasks: tuple[FetchTask, ...]
    outstanding: Mapping[str, int] = field(default_factory=dict)
    held: int = 0
    page_limit: int = 10_000
    wanted: Mapping[str, tuple[TimeRange, ...]] = field(default_factory=dict)

    @property
    def bars(self) -> int:
        """The bars that are expected to come."""
        return round(sum(task.estimate for task in self.tasks))

    @property
    def requests(self) -> int:
        """The requests that are expected to be sent."""
        return sum(task.pages(self.page_limit) for task in self.tasks)

    @property
    def least_requests(self) -> int:
        """The fewest requests that could carry the expected bars; at least one per task is never avoidable in full."""
        return math.ceil(self.bars / self.page_limit)

    @property
    def wire_bytes(self) -> int:
        """About how many bytes will be transferred."""
        return self.bars * WIRE_BYTES_PER_BAR

    @property
    def disk_bytes(self) -> int:
        """About how many bytes the new bars will take on disk."""
        return self.bars * DISK_BYTES_PER_BAR

    @property
    def complete(self) -> int:
        """How many symbols need no request."""
        return len(self.symbols) - len(self.outstanding)


@dataclass(frozen=True, slots=True)
class Target:
    """What is wanted of one symbol, and what is known of it.

    Attributes:
        symbol: as Alpaca writes it.
        ranges: wanted.
        coverage: of the series.
        refetch: Whether to request everything, covered or not (``--refetch``).
        asof: a day on which the security that is meant had the symbol; None is today.
        cut: Why a part of what was requested is left out; None if nothing is.
    """

    symbol: str
    ranges: tuple[TimeRange, ...]
    coverage: Coverage
    refetch: bool = False
    asof: date | None = None
    cut: str | None = None


def plan_ingestion(
    targets: Sequence[Target],
    dataset: Dataset,
    *,
    now: datetime,
    workers: int,
    page_limit: int = 10_000,
    gaps_first: bool = False,
    can_hold: Callable[[TimeRange, Dataset], bool] = can_hold_bars,
) -> IngestionPlan:
    """Return the requests that complete every target.

    Args:
        targets: One per symbol.
        dataset: The dataset of all of them.
        now: The current instant; nothing after it is requested, and emptiness is judged by it.
        workers: The number of tasks that run at once.
        page_limit: Bars per page.
        gaps_first: Whether to request what ends before now first, then the ends; else one group of symbols after the other.
        can_hold: Whether a range can hold a bar at all; what cannot (a weekend) is not requested.
    """
    groups = _group(targets, dataset, now, lru_cache(maxsize=None)(can_hold))
    rates = {target.symbol: bars_per_session(target.coverage) for target in targets}
    tasks = _tasks(groups, dataset, rates, page_limit, workers)
    last = max((group.range.end for group in groups), default=now)
    order = {target.symbol: number for number, target in enumerate(targets)}

    def turn(task: FetchTask) -> tuple[bool, int, datetime]:
        return gaps_first and task.range.end == last, min(order[symbol] for symbol in task.symbols), task.range.start

    tasks.sort(key=turn)
    requested = [piece for target in targets for piece in target.ranges] or [TimeRange(now - timedelta(days=1), now)]
    return IngestionPlan(
        dataset,
        tuple(target.symbol for target in targets),
        TimeRange(min(piece.start for piece in requested), max(piece.end for piece in requested)),
        tuple(tasks),
        Counter(symbol for task in tasks for symbol in task.symbols),
        sum(target.coverage.bars for target in targets),
        page_limit,
        {target.symbol: target.ranges for target in targets},
    )


@dataclass(frozen=True, slots=True)
class _Group:
    """What symbols must share to share requests."""

    range: TimeRange
    overlap: TimeRange | None
    asof: date | None


def _group(
    targets: Sequence[Target], dataset: Dataset, now: datetime, can_hold: Callable[[TimeRange, Dataset], bool]
) -> dict[_Group, list[str]]:
    """Return the symbols that lack the same range, by that range."""
    groups: dict[_Group, list[str]] = {}
    for target in targets:
        for piece in target.ranges if target.refetch else target.coverage.missing(target.ranges):
            past = piece.before(now)
            if past is not None and can_hold(past, dataset):
                compared = not target.refetch and not dataset.adjustment.is_raw
                overlap = comparison_session(target.coverage, past) if compared else None
                groups.setdefault(_Group(past, overlap, target.asof), []).append(target.symbol)
    return groups


def _tasks(
    groups: Mapping[_Group, Sequence[str]], dataset: Dataset, rates: Mapping[str, float], page_limit: int, workers: int
) -> list[FetchTask]:
    bars = sum(_sessions(group.range) * rates[symbol] for group, symbols in groups.items() for symbol in symbols)
    size = _task_pages(bars / page_limit, workers)
    return [
        replace(task, overlap=group.overlap, asof=group.asof)
        for group, symbols in groups.items()
        for task in _cut(symbols, group.range, rates, page_limit, dataset, size if group.overlap is None else math.inf)
    ]


def comparison_session(coverage: Coverage, piece: TimeRange) -> TimeRange | None:
    """Return held sessions next to a missing piece, whose bars tell whether the vendor's prices still have the same base.

    It is the day (or longer bar) of the last bar before the piece, else of the first bar after it. Where bars lie on both sides,
    or in the piece (a provisional tail), it is the last whole session that is covered before it, or the first after it: as many
    as are likely to hold some bars. None where nothing is held.
    """
    if coverage.last_bar is None or coverage.first_bar is None:
        return None
    if coverage.last_bar >= piece.start and coverage.first_bar < piece.end:
        return _covered_sessions_beside(coverage, piece)
    timeframe = coverage.series.dataset.timeframe
    bar = coverage.last_bar if coverage.last_bar < piece.start else coverage.first_bar
    day = new_york_days(new_york_date(bar), new_york_date(bar)) if timeframe.intraday else None
    whole = day or TimeRange(timeframe.floor(bar), timeframe.next(timeframe.floor(bar)))
    return whole.before(piece.start) if whole.start < piece.start else whole.after(piece.end)


def _covered_sessions_beside(coverage: Coverage, piece: TimeRange) -> TimeRange | None:
    """Return the last covered sessions before a piece, else the first after it."""
    for part in reversed(coverage.covered):
        if part.end <= piece.start and can_hold_bars(part, coverage.series.dataset):
            return _comparison_sessions(coverage, part, latest=True)
    for part in coverage.covered:
        if part.start >= piece.end and can_hold_bars(part, coverage.series.dataset):
            return _comparison_sessions(coverage, part, latest=False)
    return None


def _comparison_sessions(coverage: Coverage, part: TimeRange, *, latest: bool) -> TimeRange:
    """Return the last (or first) sessions of a covered range that are likely to hold bars; all of a short range."""
    near = part.after(part.end - _NEAR) if latest else part.before(part.start + _NEAR)
    if near is None or coverage.series.dataset.timeframe.unit in ("Week", "Month"):
        return part
    days = list(sessions(new_york_date(near.start), new_york_date(near.end)))
    days = [day for day in days if regular_hours(day).intersect(near) == regular_hours(day)]
    if not days:
        return near
    many = math.ceil(_COMPARISON_BARS / max(bars_per_session(coverage), 0.1))
    if not coverage.series.dataset.timeframe.intraday:
        many = min(many, 5)  # of days, one a session
    chosen = days[-many:] if latest else days[:many]
    return new_york_days(chosen[0], chosen[-1]).intersect(near) or near


def bars_per_session(coverage: Coverage) -> float:
    """Return how many bars a session of this series brings: as it did so far, or as large companies do."""
    if coverage.bars and coverage.first_bar and coverage.last_bar:
        # A bar may start at midnight UTC, and be the only one: the end lies behind it.
        first, last = coverage.first_bar.replace(hour=0, minute=0), coverage.last_bar
        known = count_sessions(TimeRange(first, max(first, last) + timedelta(microseconds=1))) or 1
        if known >= 5:
            return coverage.bars / known
    timeframe = coverage.series.dataset.timeframe
    if timeframe.unit == "Min":
        # An index member's minutes with extended hours; the longer the bar, the fewer are empty (of 960 minutes).
        return 960 / timeframe.amount * (1 - 0.5**timeframe.amount)
    if timeframe.unit == "Hour":
        return max(1.0, 16 / timeframe.amount)
    return {"Day": 1.0, "Week": 0.21, "Month": 0.05 / timeframe.amount}[timeframe.unit]


def _task_pages(total: float, workers: int) -> float:
    """Return how many pages a task should take: one share a worker while that is little, more tasks when there is much."""
    share = total / max(1, workers)
    if share <= _FEW_PAGES:
        return max(1.0, share)
    return min(_MANY_PAGES, max(_FEW_PAGES, share / 4))


@lru_cache(maxsize=4096)
def _sessions(span: TimeRange) -> float:
    """Return how many sessions a range holds; a part of a day counts as a part of a session."""
    whole = count_sessions(span)
    return whole or min(1.0, span.length.total_seconds() / 57_600)


def _cut(
    symbols: Sequence[str], piece: TimeRange, rates: Mapping[str, float], page_limit: int, dataset: Dataset, size: float
) -> Iterator[FetchTask]:
    """Cut symbols x range into tasks of about *size* pages.

    What has an overlap to be compared stays whole in time (*size* is infinite): were a later part kept before the comparison
    failed, two price bases would stand side by side.
    """
    small: list[str] = []
    for symbol in symbols:
        if _sessions(piece) * rates[symbol] / page_limit < size:
            small.append(symbol)
            continue
        for part in _cut_time(piece, dataset, size * page_limit / rates[symbol]):
            yield FetchTask((symbol,), part, dataset, _sessions(part) * rates[symbol])
    # Equal shares: a last task with three symbols in it would waste most of its page.
    pages = sum(_sessions(piece) * rates[symbol] for symbol in small) / page_limit
    shares = max(1, math.ceil(round(pages / size, 6)))
    batch: list[str] = []
    filled, done = 0.0, 0
    for symbol in small:
        batch.append(symbol)
        filled += _sessions(piece) * rates[symbol] / page_limit
        full = filled >= pages * (done + 1) / shares - 1e-9
        if full or len(batch) >= _MOST_SYMBOLS or sum(len(name) + 1 for name in batch) > _MOST_CHARACTERS:
            yield _shared(batch, piece, dataset, rates)
            batch = []
            done += full
    if batch:
        yield _shared(batch, piece, dataset, rates)


def _shared(batch: Sequence[str], piece: TimeRange, dataset: Dataset, rates: Mapping[str, float]) -> FetchTask:
    estimate = _sessions(piece) * sum(rates[symbol] for symbol in batch)
    return FetchTask(tuple(sorted(batch)), piece, dataset, estimate)


def _cut_time(piece: TimeRange, dataset: Dataset, sessions_each: float) -> list[TimeRange]:
    """Cut a range at the edges of files into parts of at most about *sessions_each* sessions, as equal as the files allow."""
    edges = [period.start for period in periods(piece, dataset)][1:]
    # A New York day ends some hours into the next UTC month: a task of its own for a part of the night would bring nothing.
    edges = [edge for edge in edges if can_hold_bars(TimeRange(edge, piece.end), dataset)]
    shares = max(1, math.ceil(round(_sessions(piece) / sessions_each, 6)))
    parts: list[TimeRange] = []
    start = piece.start
    for edge in edges:
        if len(parts) == shares - 1:
            break
        if _sessions(TimeRange(piece.start, edge)) >= _sessions(piece) * (len(parts) + 1) / shares - 0.5:
            parts.append(TimeRange(start, edge))
            start = edge
    parts.append(TimeRange(start, piece.end))
    return parts
