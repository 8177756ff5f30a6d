"""Put covered ranges into the tasks that fetch them again. Pure.

Ranges are cut from the front of each series at the edges of files, and symbols with the same range share a task: without the
tasks that are done, the others stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from data_engine.ingest.bar_rate import bars_per_session, sessions_in
from data_engine.ingest.plan import MOST_SYMBOLS, FetchTask, fits_one_request
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Period, periods

UNSEEN = "unseen"

BEFORE_FIRST_BAR, NO_BARS, SHARED_GAP, FEW_BARS = "before_first_bar", "no_bars", "shared_gap", "few_bars"

SUSPICIONS = (SHARED_GAP, BEFORE_FIRST_BAR, NO_BARS, FEW_BARS)
"""The reasons to suspect a range, the most suspect first."""

BEFORE_ALL = datetime(1900, 1, 1, tzinfo=UTC)


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
class Unit:
    """A range of one series that is fetched again as a whole."""

    known: Coverage
    range: TimeRange
    seen: datetime


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
        made = FetchTask(tuple(sorted(self.symbols)), self.range, self.dataset, self.bars, asof=self.asof, beside=True)
        return RecheckTask(made, self.reason, self.seen, made.pages(page_limit))


class Cut:
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

    def tasks(self, units: Iterable[Unit], reason: str = UNSEEN) -> list[RecheckTask]:
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

    def _parts(self, unit: Unit) -> Iterator[tuple[TimeRange, float]]:
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
                units = [Unit(by_series[one.series], one.range, BEFORE_ALL) for one in ours]
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
                batch = open_[key] = _Batch(series.dataset, asof, one.range, one.reason, BEFORE_ALL)
                made.append(batch)
                more = 0.0
            batch.range = TimeRange(batch.range.start, max(batch.range.end, one.range.end))
            batch.symbols.append(series.symbol)
            batch.bars += more
        return [batch.task(self._page_limit) for batch in made]
