"""Classify missing bars by evidence.

A minute without trades has no bar, so most absent bars are normal. An empty stretch of covered regular hours is *quiet* if the
symbol's own habit explains it: the share of bars present in the same half hour of the ten sessions before and after, by the
calendar; sessions that are not covered tell nothing. Bars of a day or longer are judged by `data_engine.verify.daily_gaps`.
Else it is a surprising gap: *shared* if nearly all other symbols that usually trade then lack the same bars, *single_symbol* if
not (a trading halt, or bars missing at Alpaca for this symbol). A requested range that is missing is *not_fetched* yet, or
*failed*; a range between two requested ones is *not_requested*; a part of either without a session is *no_session*.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any

import numpy as np

from data_engine.market.bars import Int64s, from_micros, to_micros
from data_engine.market.exchange_calendar import can_hold_bars, regular_hours, session_starts, sessions
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, difference, new_york_date, union
from data_engine.store.coverage import Coverage
from data_engine.verify.daily_gaps import surprising_days, trades_around

KINDS = ("no_session", "quiet", "shared", "single_symbol", "not_requested", "not_fetched", "failed")

_AROUND = 10  # sessions before and after that tell the habit

_LEAST = 5  # with fewer known sessions among them, nothing is surprising

CHANCE = float(np.log(1e-9))
"""The logarithm of the probability by the habit of a symbol below which a gap is surprising."""

_HABIT = 1_800_000_000  # microseconds: one habit per half hour

_MOST = 0.9  # of the other symbols

_OTHERS = 2  # with fewer others that usually trade then, a gap cannot be classified as shared


@dataclass(frozen=True, slots=True)
class Gap:
    """A period without expected bars.

    Attributes:
        series: The series.
        kind: The kind, one of `KINDS`.
        span: The period, from the first absent bar to the end of the last.
        places: The number of absent bars. If 0, they were not counted.
        others: The number of other symbols that usually trade then. Only of shared and single-symbol gaps.
        lacking: The number of these that lack the same bars.
    """

    series: Series
    kind: str
    span: TimeRange
    places: int = 0
    others: int = 0
    lacking: int = 0


@dataclass(frozen=True, slots=True)
class Presence:
    """Which bars of its covered sessions a series has, one bit per bar.

    Attributes:
        series: The series.
        days: The sessions (or first days of longer bars) as ordinals, ascending.
        bits: A row of packed bits per session.
        trades: For bars of a day or longer, the trades of the quietest bar around each session. If None, unknown.
    """

    series: Series
    days: Int64s
    bits: Any
    trades: Any = None


@dataclass(frozen=True, slots=True)
class _Grid:
    """The places where a dataset can have bars, by session: regular hours, or the one bar of the day."""

    days: Int64s  # ordinals
    starts: Int64s  # of the first place, by session
    ends: Int64s  # of the session
    counts: Int64s  # places, by session
    step: int  # microseconds

    @property
    def width(self) -> int:
        return int(self.counts.max(initial=0))

    def span(self, row: int, start: int, stop: int) -> TimeRange:
        """Return the range from a place of a session to the end of the place before *stop*."""
        first = int(self.starts[row]) + start * self.step
        return TimeRange(from_micros(first), from_micros(min(int(self.starts[row]) + stop * self.step, int(self.ends[row]))))


def presence(
    series: Series, times: Sequence[Int64s], covered: Iterable[TimeRange], trades: Sequence[Any] | None = None
) -> Presence:
    """Return which bars a series has in its completely covered sessions.

    Args:
        series: The series.
        times: The timestamps of its bars, in any number of arrays.
        covered: The covered ranges.
        trades: For bars of a day or longer, the number of trades of each. If None, unknown.
    """
    ranges = union(covered)
    if not ranges:
        return Presence(series, np.empty(0, np.int64), np.empty((0, 0), np.uint8))
    grid = _grid(series.dataset, ranges[0].start.year, ranges[-1].end.year)
    within = np.zeros(grid.starts.size, bool)
    for piece in ranges:
        within |= (grid.starts >= to_micros(piece.start)) & (grid.ends <= to_micros(piece.end))
    rows = np.flatnonzero(within)
    first = int(rows[0]) if rows.size else 0
    filled = np.zeros(((int(rows[-1]) + 1 - first) if rows.size else 0, grid.width), bool)
    for part in times if rows.size else ():
        at = np.searchsorted(grid.starts, part, side="right") - 1
        inside = (at >= first) & (at < first + len(filled)) & (part < grid.ends[np.maximum(at, 0)])
        at, starts = at[inside], part[inside]
        filled[at - first, (starts - grid.starts[at]) // grid.step] = True
    bits = np.packbits(filled[rows - first] if rows.size else filled, axis=1)
    around = None
    if trades is not None and times and not series.dataset.timeframe.intraday:
        around = trades_around(grid.starts[rows], np.concatenate(times), np.concatenate(trades))
    return Presence(series, grid.days[rows], bits, around)


def find_gaps(dataset: Dataset, series: Sequence[Presence]) -> tuple[list[Gap], dict[Series, int]]:
    """Return the surprising gaps of the series of one dataset, and the number of quiet absent bars of each series.

    Args:
        dataset: The dataset.
        series: The series; with few of them, no gap can be classified as shared.
    """
    reach = [date.fromordinal(int(day)).year for one in series if one.days.size for day in (one.days[0], one.days[-1])]
    if not reach:
        return [], {one.series: 0 for one in series}
    grid = _grid(dataset, min(reach), max(reach))
    habits = {one.series: _Habit(one, grid) for one in series}
    found: list[Gap] = []
    quiet: dict[Series, int] = {}
    judged: dict[tuple[int, int, int], tuple[int, int]] = {}
    for one, habit in habits.items():
        quiet[one] = habit.empty - sum(stop - start for _, start, stop in habit.surprises)
        for row, start, stop in habit.surprises:
            place = (row, start, stop)
            if place not in judged:
                judged[place] = _judge(habits.values(), row, start, stop)
            # The counts include the series itself.
            others, lacking = judged[place][0] - 1, judged[place][1] - 1
            kind = "shared" if others >= _OTHERS and lacking >= _MOST * others else "single_symbol"
            found.append(Gap(one, kind, grid.span(row, start, stop), stop - start, others, lacking))
    return found, quiet


def absent_bars(one: Presence, days: Collection[date]) -> Iterator[TimeRange]:
    """Yield the ranges without bars in some covered sessions, by time; neighboring places are one range.

    Args:
        one: The bars of a series.
        days: The sessions.
    """
    if not one.days.size:
        return
    reach = [date.fromordinal(int(day)).year for day in (one.days[0], one.days[-1])]
    grid = _grid(one.series.dataset, *reach)
    filled = np.unpackbits(one.bits, axis=1, count=grid.width).astype(bool)
    chosen = {day.toordinal() for day in days}
    for at, day in enumerate(one.days.tolist()):
        if day in chosen:
            row = int(np.searchsorted(grid.days, day))
            yield from _spans(grid, row, ~filled[at, : grid.counts[row]])


def _spans(grid: _Grid, row: int, empty: Any) -> Iterator[TimeRange]:
    """Yield the stretches of a session that are empty."""
    for start, stop in _stretches(empty):
        yield grid.span(row, start, stop)


def _stretches(empty: Any) -> Iterator[tuple[int, int]]:
    """Yield the first place of each stretch that is empty, and the place after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], empty.view(np.int8), [0]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def missing_ranges(coverage: Coverage, now: datetime) -> list[Gap]:
    """Return the missing ranges of a series, and the ranges between its requested ones.

    Args:
        coverage: The coverage of the series.
        now: The current time; from the bar on that contains it, nothing is missing yet.
    """
    requested = coverage.wanted
    missing = difference(requested, (*coverage.covered, *coverage.provisional))
    between = difference([TimeRange(requested[0].start, requested[-1].end)], requested) if requested else ()
    kind = "failed" if coverage.failure is not None and coverage.failure.code != "interrupted" else "not_fetched"
    ranges = sorted([(span, kind) for span in missing] + [(span, "not_requested") for span in between])
    series = coverage.series
    ended = series.dataset.timeframe.floor(now)
    past = [(part, kind) for span, kind in ranges if (part := span.before(ended))]
    return [Gap(series, kind if can_hold_bars(part, series.dataset) else "no_session", part) for part, kind in past]


class _Habit:
    """How one series fills its sessions, and its surprising gaps."""

    def __init__(self, one: Presence, grid: _Grid) -> None:
        width = grid.width
        self._width = width
        self._bits = one.bits
        self._of = np.arange(width) * grid.step // _HABIT  # which half hour a place is in
        self._rows = np.searchsorted(grid.days, one.days)
        filled = np.unpackbits(one.bits, axis=1, count=width).astype(bool) if one.days.size else np.zeros((0, width), bool)
        room = np.arange(width) < grid.counts[self._rows][:, None]
        empty = room & ~filled
        self.empty = int(np.count_nonzero(empty))
        # Outside these sessions the series is not yet listed, or no longer.
        alive = np.flatnonzero(filled.any(axis=1))
        self._first, self._last = (int(alive[0]), int(alive[-1])) if alive.size else (0, -1)
        edges = np.searchsorted(self._of, np.arange(int(self._of[-1]) + 1))
        full, rooms, empties = (
            np.add.reduceat(each, edges, axis=1, dtype=np.int64) if alive.size else np.zeros((len(each), edges.size), np.int64)
            for each in (filled, room, empty)
        )
        if width == 1:
            alive_rows = slice(self._first, self._last + 1)
            surprising = surprising_days(self._rows, filled[:, 0], alive_rows, one.trades, CHANCE)
            self._chances = np.where(surprising[:, None], 2 * CHANCE, 0.0).astype(np.float32)
        else:
            self._chances = self._chance_of_empty(full, rooms).astype(np.float32)
        worth = np.flatnonzero(
            (empties * self._chances).sum(axis=1) < CHANCE
        )  # else all gaps of the session together are not surprising
        self.surprises = [gap for at in worth.tolist() if self._first <= at <= self._last for gap in self._gaps(at, empty[at])]

    def _chance_of_empty(self, full: Any, rooms: Any) -> Any:
        """Return the logarithm of the probability that a place is empty, by session and half hour."""
        full_around, room_around, known = (self._around(each) for each in (full, rooms, (rooms > 0).astype(np.int64)))
        return np.where(known >= _LEAST, np.log1p(-(full_around + 0.5) / (room_around + 1)), 0.0)

    def _around(self, counts: Any) -> Any:
        """Return for each session the sum over its neighbors in the calendar during the life of the series, without itself."""
        listed = counts.copy()
        listed[: self._first] = 0
        listed[self._last + 1 :] = 0
        sums = np.concatenate([np.zeros((1, counts.shape[1]), np.int64), np.cumsum(listed, axis=0)])
        low = np.searchsorted(self._rows, self._rows - _AROUND)
        high = np.searchsorted(self._rows, self._rows + _AROUND, side="right")
        return sums[high] - sums[low] - listed

    def _gaps(self, at: int, empty: Any) -> Iterator[tuple[int, int, int]]:
        """Yield the surprising gaps of one session: its row in the grid, the first place, and the place after the last."""
        for start, stop in _stretches(empty):
            if at == self._first and start == 0 and self._width > 1:
                continue  # a new listing opens hours after the exchange on its first day
            if float(self._chances[at][self._of[start:stop]].sum()) < CHANCE:
                yield int(self._rows[at]), start, stop

    def usual(self, row: int, start: int, stop: int) -> bool:
        """Tell whether it would be surprising if all these places were empty; False if the session is not covered."""
        at = int(np.searchsorted(self._rows, row))
        if at == self._rows.size or self._rows[at] != row or not self._first <= at <= self._last:
            return False
        return bool(self._chances[at][self._of[start:stop]].sum() < CHANCE)

    def lacks(self, row: int, start: int, stop: int) -> bool:
        """Tell whether all these places are empty."""
        bits = self._bits[int(np.searchsorted(self._rows, row))]
        return not np.unpackbits(bits, count=self._width)[start:stop].any()


def _judge(habits: Iterable[_Habit], row: int, start: int, stop: int) -> tuple[int, int]:
    """Count the series that usually trade at these places, and those of them that have no bar there."""
    usual = lacking = 0
    for habit in habits:
        if habit.usual(row, start, stop):
            usual += 1
            lacking += habit.lacks(row, start, stop)
    return usual, lacking


@lru_cache(maxsize=16)
def _grid(dataset: Dataset, first: int, last: int) -> _Grid:
    timeframe = dataset.timeframe
    step = int(timeframe.length.total_seconds()) * 1_000_000
    days = list(sessions(date(first, 1, 1), date(last, 12, 31)))
    if timeframe.intraday:
        ordinals = np.array([day.toordinal() for day in days], np.int64)
        hours = [regular_hours(day) for day in days]
        starts = np.array([to_micros(timeframe.floor(span.start)) for span in hours], np.int64)
        ends = np.array([to_micros(span.end) for span in hours], np.int64)
        return _Grid(ordinals, starts, ends, -(-(ends - starts) // step), step)
    everything = TimeRange(from_micros(0).replace(year=first), from_micros(0).replace(year=last + 1))
    bars = sorted({timeframe.floor(start) for start in session_starts(everything)})
    starts = np.array([to_micros(start) for start in bars], np.int64)
    ends = np.array([to_micros(timeframe.next(start)) for start in bars], np.int64)
    ordinals = np.array([new_york_date(start).toordinal() for start in bars], np.int64)
    return _Grid(ordinals, starts, ends, np.ones(starts.size, np.int64), max(step, 32 * 86_400_000_000))
