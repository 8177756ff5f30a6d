"""What to fetch: the missing ranges of many series as few, well-filled requests. Pure; the plan is a value.

Symbols that miss the same range share requests, because a page's 10,000 bars are one budget over all symbols of a request.
Long ranges are cut only at the edges of files, so that each file has one writer. Tasks are as few as keep all workers busy:
each ends with a page that is half empty on average.

What is the same for many series is computed once: what series with equal coverage lack, and how a range is cut at files.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import lru_cache, partial

from data_engine.errors import Failure
from data_engine.ingest.bar_rate import expected_rates, sessions_in
from data_engine.ingest.comparison import comparison_session
from data_engine.market.exchange_calendar import can_hold_bars, count_sessions
from data_engine.market.series import Dataset
from data_engine.market.time_range import TimeRange, difference
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Period, periods

WIRE_BYTES_PER_BAR = 22  # gzip, measured on a recorded page

DISK_BYTES_PER_BAR = 20  # measured on real minute bars: 17.9, and coverage

_FEW_PAGES, _MANY_PAGES = 10, 40  # of a task: enough that its half-empty last page weighs little

MOST_SYMBOLS, _MOST_CHARACTERS = 500, 3500  # 518 symbols in 3,209 characters are known to be accepted


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
        own_overlaps: Of an adjusted dataset whose symbols were last traded on different days: the held session of each. The
            range is requested of all of them, and of those that have a bar in it once more, with their sessions.
        compare_only: Whether *own_overlaps* are only compared with what is stored.
        beside: Whether other tasks of the run may change files of the same series at the same time.
    """

    symbols: tuple[str, ...]
    range: TimeRange
    dataset: Dataset
    estimate: float = 0.0
    overlap: TimeRange | None = None
    asof: date | None = None
    own_overlaps: Mapping[str, TimeRange] = field(default_factory=dict, hash=False)
    compare_only: bool = False
    beside: bool = False

    def owns(self, period: Period) -> bool:
        """Tell whether no other task of the run changes the file of a period of these series: ranges of tasks do not overlap."""
        return not self.beside or (self.range.start <= period.span.start and period.span.end <= self.range.end)

    def overlap_of(self, symbol: str) -> TimeRange | None:
        """Return the held session of a symbol that is compared, or None if there is none."""
        return self.own_overlaps.get(symbol, self.overlap)

    def with_symbols(self, symbols: Sequence[str], *, estimate: float) -> FetchTask:
        """Return the same for some of the symbols."""
        own = {symbol: span for symbol in symbols if (span := self.own_overlaps.get(symbol))}
        return replace(self, symbols=tuple(symbols), estimate=estimate, own_overlaps=own)

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
        asof: The day whose owner of a symbol is meant, where that is not today's.
        failed: The symbols that cannot be worked on, and why.
    """

    dataset: Dataset
    symbols: tuple[str, ...]
    span: TimeRange
    tasks: tuple[FetchTask, ...]
    outstanding: Mapping[str, int] = field(default_factory=dict)
    held: int = 0
    page_limit: int = 10_000
    wanted: Mapping[str, tuple[TimeRange, ...]] = field(default_factory=dict)
    asof: Mapping[str, date] = field(default_factory=dict)
    failed: Mapping[str, Failure] = field(default_factory=dict)

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
        """How many symbols need no request, and can be worked on."""
        return len(self.symbols) - len(self.outstanding) - len(self.failed)


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
    groups = _with_probes(_group(targets, dataset, now, can_hold))
    rates = expected_rates([target.coverage for target in targets])
    tasks = _tasks(groups, dataset, rates, page_limit, workers)
    last = max((group.range.end for group in groups), default=now)
    order = {target.symbol: number for number, target in enumerate(targets)}

    def turn(task: FetchTask) -> tuple[bool, int, datetime]:
        return gaps_first and task.range.end == last, min(order[symbol] for symbol in task.symbols), task.range.start

    tasks.sort(key=turn)
    outstanding = Counter(symbol for task in tasks for symbol in task.symbols)
    tasks = [replace(task, beside=True) if any(outstanding[one] > 1 for one in task.symbols) else task for task in tasks]
    requested = [piece for target in targets for piece in target.ranges] or [TimeRange(now - timedelta(days=1), now)]
    return IngestionPlan(
        dataset,
        tuple(target.symbol for target in targets),
        TimeRange(min(piece.start for piece in requested), max(piece.end for piece in requested)),
        tuple(tasks),
        outstanding,
        sum(target.coverage.bars for target in targets),
        page_limit,
        {target.symbol: target.ranges for target in targets},
        {target.symbol: target.asof for target in targets if target.asof is not None},
    )


@dataclass(frozen=True, slots=True)
class _Group:
    """What symbols must share to share requests."""

    range: TimeRange
    overlap: TimeRange | None
    asof: date | None
    probe: bool = False


_Groups = dict[_Group, dict[str, TimeRange | None]]
"""The symbols of each group, each with its held session to compare."""


def _group(targets: Sequence[Target], dataset: Dataset, now: datetime, can_hold: Callable[[TimeRange, Dataset], bool]) -> _Groups:
    """Return the symbols that lack the same range, by that range."""
    groups: _Groups = {}
    lacking = _Lacking(dataset, now, can_hold)
    for target in targets:
        for past in lacking.of(target):
            compared = not target.refetch and not dataset.adjustment.is_raw
            overlap = comparison_session(target.coverage, past) if compared else None
            probe = overlap is not None and not difference((past,), (one.range for one in target.coverage.tentative))
            group = _Group(past, None if probe else overlap, target.asof, probe)
            groups.setdefault(group, {})[target.symbol] = overlap
    return groups


class _Lacking:
    """What series of one dataset lack, computed once for those with equal coverage of equal ranges."""

    def __init__(self, dataset: Dataset, now: datetime, can_hold: Callable[[TimeRange, Dataset], bool]) -> None:
        self._dataset = dataset
        self._now = now
        self._can_hold = lru_cache(maxsize=None)(can_hold)
        self._known: dict[object, tuple[TimeRange, ...]] = {}

    def of(self, target: Target) -> tuple[TimeRange, ...]:
        """Return the parts of the ranges of a target that are to be requested, up to now; each can hold a bar."""
        known = target.coverage
        # All that `Coverage.missing` looks at.
        alike = (target.ranges, None) if target.refetch else (target.ranges, known.covered, known.tentative, known.unconfirmed)
        if alike not in self._known:
            parts = target.ranges if target.refetch else known.missing(target.ranges)
            ended = (part.before(self._now) for part in parts)
            self._known[alike] = tuple(past for past in ended if past is not None and self._can_hold(past, self._dataset))
        return self._known[alike]


def _with_probes(groups: _Groups) -> _Groups:
    """Return the same with those in one group that lack the same range and were not last traded on the usual day.

    A request of its own for each of them would be sent every night: for all that stopped trading, or trade thinly.
    """
    by_range: dict[tuple[TimeRange, date | None], list[_Group]] = {}
    for group in groups:
        if group.overlap is not None:
            by_range.setdefault((group.range, group.asof), []).append(group)
    made = dict(groups)
    for (piece, asof), alike in by_range.items():
        usual = max(alike, key=lambda group: len(groups[group]))
        others = [group for group in alike if group is not usual]
        if len(others) > 1:
            probe = made.setdefault(_Group(piece, None, asof, probe=True), {})
            probe.update((symbol, overlap) for group in others for symbol, overlap in made.pop(group).items())
    return made


def _tasks(groups: _Groups, dataset: Dataset, rates: Mapping[str, float], page_limit: int, workers: int) -> list[FetchTask]:
    bars = sum(sessions_in(group.range) * rates[symbol] for group, symbols in groups.items() for symbol in symbols)
    size = _task_pages(bars / page_limit, workers)
    return [task for group, symbols in groups.items() for task in _cut(group, symbols, rates, page_limit, dataset, size)]


def _overlap_of(group: _Group, part: TimeRange) -> TimeRange | None:
    """Return the held session that a part of a range is compared by: that of the part beside it, and None for the others.

    What comes in the others is stored and not claimed (`Coverage.unconfirmed`) until the run has compared it in the end.
    """
    if group.overlap is None:
        return None
    behind = group.overlap.start >= group.range.end
    beside = part.end == group.range.end if behind else part.start == group.range.start
    return group.overlap if beside else None


def _task_pages(total: float, workers: int) -> float:
    """Return how many pages a task should take: one share a worker while that is little, more tasks when there is much."""
    share = total / max(1, workers)
    if share <= _FEW_PAGES:
        return max(1.0, share)
    return min(_MANY_PAGES, max(_FEW_PAGES, share / 4))


def _cut(
    group: _Group,
    symbols: Mapping[str, TimeRange | None],
    rates: Mapping[str, float],
    page_limit: int,
    dataset: Dataset,
    size: float,
) -> Iterator[FetchTask]:
    """Cut symbols x range into tasks of about *size* pages.

    A range that only tells which symbols have bars in it stays *whole* in time.
    """
    whole, sessions = group.probe, sessions_in(group.range)
    cut_time = lru_cache(maxsize=None)(partial(_cut_time, group.range, dataset))
    small: list[str] = []
    for symbol in symbols:
        rate = rates[symbol]
        if whole or sessions * rate / page_limit < size:
            small.append(symbol)
            continue
        for part, inside in cut_time(max(1, math.ceil(round(sessions / (size * page_limit / rate), 6)))):
            yield FetchTask((symbol,), part, dataset, inside * rate, _overlap_of(group, part), group.asof)
    # Equal shares: a last task with three symbols in it would waste most of its page.
    pages = sum(sessions * rates[symbol] for symbol in small) / page_limit
    shares = max(1, math.ceil(round(pages / size, 6)))
    batch: list[str] = []
    filled, done, characters = 0.0, 0, 0
    for symbol in small:
        batch.append(symbol)
        characters += len(symbol) + 1
        filled += sessions * rates[symbol] / page_limit
        full = filled >= pages * (done + 1) / shares - 1e-9
        if full or len(batch) >= MOST_SYMBOLS or characters > _MOST_CHARACTERS:
            yield _shared(batch, group, symbols, dataset, rates)
            batch, characters = [], 0
            done += full
    if batch:
        yield _shared(batch, group, symbols, dataset, rates)


def fits_one_request(symbols: Sequence[str]) -> bool:
    """Tell whether a request may name one more symbol than these."""
    return len(symbols) < MOST_SYMBOLS and sum(len(name) + 1 for name in symbols) <= _MOST_CHARACTERS


def _shared(
    batch: Sequence[str], group: _Group, symbols: Mapping[str, TimeRange | None], dataset: Dataset, rates: Mapping[str, float]
) -> FetchTask:
    estimate = sessions_in(group.range) * sum(rates[symbol] for symbol in batch)
    own = {symbol: overlap for symbol in sorted(batch) if (overlap := symbols[symbol])} if group.probe else {}
    return FetchTask(tuple(sorted(batch)), group.range, dataset, estimate, group.overlap, group.asof, own)


def _cut_time(piece: TimeRange, dataset: Dataset, shares: int) -> Sequence[tuple[TimeRange, float]]:
    """Cut a range at the edges of files into at most so many parts, as equal as the files allow; each with its sessions."""
    edges = [period.start for period in periods(piece, dataset)][1:]
    # A New York day ends some hours into the next UTC month: a task of its own for that night would bring a print or two.
    edges = [edge for edge in edges if count_sessions(TimeRange(edge, piece.end))]
    parts: list[TimeRange] = []
    start = piece.start
    for edge in edges:
        if len(parts) == shares - 1:
            break
        if sessions_in(TimeRange(piece.start, edge)) >= sessions_in(piece) * (len(parts) + 1) / shares - 0.5:
            parts.append(TimeRange(start, edge))
            start = edge
    parts.append(TimeRange(start, piece.end))
    return [(part, sessions_in(part)) for part in parts]
