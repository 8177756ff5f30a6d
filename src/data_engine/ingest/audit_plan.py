"""Plan an audit: a sample of final sessions, which is fetched again and compared as `recheck` does.

Sessions before a first bar, and those of series without any bar, are final sessions, too. The sample is drawn by hashes of the
seed and the series: the same seed draws the same sessions of a series, whatever else is stored. Sessions are drawn at random,
with several symbols of each, since the symbols of a session share a request.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

from data_engine.ingest.bar_rate import bars_per_session
from data_engine.ingest.plan import FetchTask
from data_engine.market.bars import Int64s, from_micros, to_micros
from data_engine.market.exchange_calendar import can_hold_bars, sessions
from data_engine.market.series import Dataset, Feed, Series
from data_engine.market.time_range import TimeRange, new_york_date, new_york_midnight
from data_engine.store.coverage import Coverage

_HOUR = 3_600_000_000

_MAX_SYMBOLS = 400  # per request

_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, slots=True)
class AuditPlan:
    """The final sessions that an audit fetches again.

    Attributes:
        tasks: The tasks, each the pages of one request; symbols that share sessions share them.
        sessions: The number of sessions, counted per series.
        available: The number of sessions that they were drawn from.
        series: The number of series that they belong to.
        seed: The seed that drew them.
    """

    tasks: tuple[FetchTask, ...]
    sessions: int
    available: int
    series: int
    seed: int

    @property
    def requests(self) -> int:
        """The expected number of requests."""
        return sum(task.pages(10_000) for task in self.tasks)


def plan_audit(
    known: Iterable[Coverage],
    sample: int,
    *,
    seed: int,
    page_limit: int = 10_000,
    asof: Mapping[Series, date] | None = None,
) -> AuditPlan:
    """Draw final sessions, and put them into few requests.

    Args:
        known: The coverage of the series to draw from.
        sample: The number of sessions, counted per series; all if there are fewer.
        seed: The seed; the same one draws the same sessions.
        page_limit: The maximum number of bars per page.
        asof: For each series whose security has left the ticker since, its last day there.
    """
    drawable = _Sessions(known, seed, page_limit)
    drawn = drawable.draw(sample)
    by_session: dict[tuple[str, int], list[int]] = {}
    for unit in drawn:
        by_session.setdefault((drawable.dataset_of(unit).name, int(drawable.starts[unit])), []).append(unit)
    tasks: list[FetchTask] = []
    for _, units in sorted(by_session.items()):
        for task in drawable.tasks(units, asof or {}):
            joined = _joined(tasks[-1], task, page_limit) if tasks else None
            tasks[-1:] = [joined] if joined else [*tasks[-1:], task]
    series = len({int(drawable.owners[unit]) for unit in drawn})
    return AuditPlan(tuple(tasks), len(drawn), len(drawable.starts), series, seed)


class _Sessions:
    """All sessions that can be drawn; one of one series is a unit, and has a start, an owner and a number to draw it by."""

    def __init__(self, known: Iterable[Coverage], seed: int, page_limit: int) -> None:
        self._known = [one for one in known if one.covered]
        self._rates = [bars_per_session(one) if one.bars or one.first_bar else 0.0 for one in self._known]
        self._page_limit = page_limit
        starts = [final_sessions(one) for one in self._known]
        self.starts: Int64s = np.concatenate([np.empty(0, np.int64), *starts])
        self.owners = np.repeat(np.arange(len(starts)), [len(of_one) for of_one in starts])
        names = [one.series.dataset.name for one in self._known]
        self._datasets = np.unique(names, return_inverse=True)[1][self.owners]
        keys = [_hashes(seed, one.series, of_one) for one, of_one in zip(self._known, starts, strict=True)]
        self._keys = np.concatenate([np.empty(0, np.uint64), *keys])

    def dataset_of(self, unit: int) -> Dataset:
        return self._series_of(unit).dataset

    def _series_of(self, unit: int) -> Series:
        return self._known[int(self.owners[unit])].series

    def draw(self, sample: int) -> list[int]:
        """Return units: about as many symbols per session as sessions, but no more than fill a page."""
        if sample >= len(self.starts):
            return list(range(len(self.starts)))
        taken = np.zeros(len(self.starts), bool)
        count_of_series = np.zeros(len(self._known), np.int64)
        drawn: list[int] = []
        used: set[tuple[int, int]] = set()
        order = np.argsort(self._keys, kind="stable").tolist()
        for repeat in (False, True):  # a session is drawn again only if there are too few of them
            for first in order:
                session = (int(self._datasets[first]), int(self.starts[first]))
                if len(drawn) >= sample:
                    return drawn
                if taken[first] or (session in used and not repeat):
                    continue
                used.add(session)
                units = [first, *self._beside(first, taken, count_of_series, sample, sample - len(drawn))]
                taken[units] = True
                count_of_series[self.owners[units]] += 1
                drawn += units
        return drawn

    def _beside(self, first: int, taken: Any, count_of_series: Any, sample: int, left: int) -> list[int]:
        """Return the other units of the session of *first* that are drawn with it."""
        rate = max(1.0, self._rates[self.owners[first]])
        share = max(1, min(math.isqrt(sample - 1) + 1, int(self._page_limit / rate), left))
        found = np.flatnonzero((self.starts == self.starts[first]) & (self._datasets == self._datasets[first]) & ~taken)
        found = found[found != first]
        # The series that were drawn least come first, so that the sample is spread over the series.
        order = np.lexsort((self._keys[found], count_of_series[self.owners[found]]))
        units: list[int] = found[order][: share - 1].tolist()
        return units

    def tasks(self, units: Sequence[int], asof: Mapping[Series, date]) -> Iterator[FetchTask]:
        """Yield the tasks of one session."""
        dataset = self.dataset_of(units[0])
        start = from_micros(int(self.starts[units[0]]))
        end = start + timedelta(days=1) if dataset.timeframe.intraday else dataset.timeframe.next(start)
        by_day: dict[date | None, list[int]] = {}
        for unit in sorted(units, key=lambda unit: self._series_of(unit).symbol):
            by_day.setdefault(asof.get(self._series_of(unit)), []).append(unit)
        for day, of_day in by_day.items():
            for at in range(0, len(of_day), _MAX_SYMBOLS):
                part = of_day[at : at + _MAX_SYMBOLS]
                names = tuple(self._series_of(unit).symbol for unit in part)
                estimate = sum(self._rates[self.owners[unit]] for unit in part)
                yield FetchTask(names, TimeRange(start, end), dataset, estimate, asof=day, beside=True)


def final_sessions(known: Coverage) -> Int64s:
    """Return the starts of the sessions of a series that are covered as a whole, with bars or without; microseconds.

    A session of minutes and hours is a New York day, one of longer bars is a bar.
    """
    dataset = known.series.dataset
    if not known.covered:
        return np.empty(0, np.int64)
    first, last = known.covered[0].start, known.covered[-1].end
    if dataset.timeframe.intraday or dataset.timeframe.unit == "Day":
        starts = _midnights(new_york_date(first), new_york_date(last))
    else:
        starts = np.array([to_micros(start) for start in _long_bars(dataset, first, last)], np.int64)
    begin, end = 0, 1  # a longer bar belongs to where its start is
    if dataset.timeframe.intraday:
        # A run of the same evening covers the hours of the exchange to their end.
        begin, end = (4 * _HOUR, 20 * _HOUR) if dataset.feed in (Feed.SIP, Feed.IEX) else (0, 24 * _HOUR)
    final = np.zeros(len(starts), bool)
    for piece in known.covered:
        final |= (starts + begin >= to_micros(piece.start)) & (starts + end <= to_micros(piece.end))
    chosen: Int64s = starts[final]
    return chosen


def _long_bars(dataset: Dataset, first: datetime, last: datetime) -> Iterator[datetime]:
    start = dataset.timeframe.floor(first)
    while start < last:
        end = dataset.timeframe.next(start)
        if can_hold_bars(TimeRange(start, end), dataset):
            yield start
        start = end


@lru_cache(maxsize=1024)
def _midnights(first: date, last: date) -> Int64s:
    # No session is on a day of 23 or 25 hours: clocks change on Sundays.
    return np.array([to_micros(new_york_midnight(day)) for day in sessions(first, last)], np.int64)


def _hashes(seed: int, series: Series, starts: Int64s) -> Any:
    """Return an evenly spread number for each start, the same on every machine and in every version of numpy."""
    name = f"{seed}|{series.dataset.name}|{series.symbol}".encode()
    mixed = starts.astype(np.uint64) * _MIX[0] + np.frombuffer(blake2b(name, digest_size=8).digest(), "<u8")
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[1]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[2]
    return mixed ^ (mixed >> np.uint64(31))


def _joined(last: FetchTask, task: FetchTask, page_limit: int) -> FetchTask | None:
    """Return both tasks as one if the second is the next session of the same symbols, and both fit on one page; else None."""
    alike = (last.symbols, last.dataset, last.asof) == (task.symbols, task.dataset, task.asof)
    estimate = last.estimate + task.estimate
    if not alike or estimate > page_limit:
        return None
    between = sessions(new_york_date(last.range.end), new_york_date(task.range.start) - timedelta(days=1))
    if next(between, None) is not None:
        return None
    return replace(last, range=TimeRange(last.range.start, task.range.end), estimate=estimate)
