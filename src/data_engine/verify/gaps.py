"""Where bars are lacking, and what kind of lack it is, by evidence. Pure.

Minutes without trades have no bar, so most gaps are the market's own. A gap in covered regular hours is *thin* where the
symbol's own habit makes it unsurprising: the share of places filled in the same half hour of the sessions around. A surprising
gap is the *vendor's* where nearly all other symbols that usually trade then lack the same places (or the whole market stood
still), and *lone* where they do not: a trading halt, or bars that the vendor lacks for this symbol. What was wanted and is not
held was *never asked*, or *failed*. And a part of it without any session is *not a session*: no bar can be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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

KINDS = ("not_a_session", "thin", "vendor", "lone", "never_asked", "failed")

_AROUND = 10  # sessions before and after, whose habit counts

_LEAST = 5  # of them must be known, or nothing is surprising

_CHANCE = np.log(1e-9)  # that a gap came about by the symbol's own habit: less than this is a surprise

_HABIT = 1_800_000_000  # microseconds: habits are told apart by half hours

_MOST = 0.9  # of the other symbols

_OTHERS = 2  # so many others must usually trade then, or nothing can be said of the vendor


@dataclass(frozen=True, slots=True)
class Hole:
    """A gap.

    Attributes:
        series: whose.
        kind: one of `KINDS`.
        span: from the first empty place to the end of the last; for what is not held, the range.
        places: how many bars could be there; 0 where that was not counted.
        others: of a surprising gap: how many other symbols usually trade then.
        lacking: how many of these lack the same places.
    """

    series: Series
    kind: str
    span: TimeRange
    places: int = 0
    others: int = 0
    lacking: int = 0


@dataclass(frozen=True, slots=True)
class Presence:
    """Which places of its covered sessions a series fills, packed to bits.

    Attributes:
        series: whose.
        days: the sessions (or first days of longer bars), as ordinals, ascending.
        bits: a row of packed bits for each.
    """

    series: Series
    days: Int64s
    bits: Any


@dataclass(frozen=True, slots=True)
class _Grid:
    """The places where bars of a dataset can be, session by session: regular hours, or the one bar of the day."""

    days: Int64s  # ordinals
    starts: Int64s  # of the first place, by session
    ends: Int64s  # of the session
    counts: Int64s  # places, by session
    step: int  # microseconds

    @property
    def width(self) -> int:
        return int(self.counts.max(initial=0))


def presence(series: Series, times: Sequence[Int64s], covered: Iterable[TimeRange]) -> Presence:
    """Return which places a series fills in the sessions that are covered whole.

    Args:
        series: whose.
        times: its stamps, in any pieces.
        covered: ranges.
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
    for piece_of_times in times if rows.size else ():
        at = np.searchsorted(grid.starts, piece_of_times, side="right") - 1
        inside = (at >= first) & (at < first + len(filled)) & (piece_of_times < grid.ends[np.maximum(at, 0)])
        at, stamps = at[inside], piece_of_times[inside]
        filled[at - first, (stamps - grid.starts[at]) // grid.step] = True
    return Presence(series, grid.days[rows], np.packbits(filled[rows - first] if rows.size else filled, axis=1))


def gaps(dataset: Dataset, series: Sequence[Presence]) -> tuple[list[Hole], dict[Series, int]]:
    """Return the surprising gaps of all series of one dataset, and how many places of each are empty with no surprise.

    Args:
        dataset: of all of them.
        series: the more of them, the more can be said of the vendor.
    """
    reach = [date.fromordinal(int(day)).year for one in series if one.days.size for day in (one.days[0], one.days[-1])]
    if not reach:
        return [], {one.series: 0 for one in series}
    grid = _grid(dataset, min(reach), max(reach))
    habits = {one.series: _Habit(one, grid) for one in series}
    found: list[Hole] = []
    thin: dict[Series, int] = {}
    judged: dict[tuple[int, int, int], tuple[int, int]] = {}
    for one, habit in habits.items():
        thin[one] = habit.empty - sum(stop - start for _, start, stop in habit.surprises)
        for row, start, stop in habit.surprises:
            place = (row, start, stop)
            if place not in judged:
                judged[place] = _judge(habits.values(), row, start, stop)
            # The series itself is among those that usually trade then, and lack it.
            others, lacking = judged[place][0] - 1, judged[place][1] - 1
            kind = "vendor" if others >= _OTHERS and lacking >= _MOST * others else "lone"
            first = int(grid.starts[row]) + start * grid.step
            last = min(int(grid.starts[row]) + stop * grid.step, int(grid.ends[row]))
            found.append(Hole(one, kind, TimeRange(from_micros(first), from_micros(last)), stop - start, others, lacking))
    return found, thin


def unheld(known: Coverage, now: datetime) -> list[Hole]:
    """Return what was wanted of a series and is not held, and the gaps between its wishes.

    Args:
        known: of the series.
        now: what lies later is no hole yet.
    """
    owed = difference(known.wanted, (*known.covered, *known.provisional))
    between = difference([TimeRange(known.wanted[0].start, known.wanted[-1].end)], known.wanted) if known.wanted else ()
    kind = "failed" if known.failure is not None and known.failure.code != "interrupted" else "never_asked"
    made = [(piece, kind) for piece in owed] + [(piece, "never_asked") for piece in between]
    cut = [(past, kind) for piece, kind in sorted(made) if (past := piece.before(now))]
    dataset = known.series.dataset
    return [Hole(known.series, kind if can_hold_bars(piece, dataset) else "not_a_session", piece) for piece, kind in cut]


class _Habit:
    """How one series fills its sessions, and which gaps do not go with that."""

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
        # The sessions in which the series lives: outside them it is not yet listed, or no longer.
        alive = np.flatnonzero(filled.any(axis=1))
        self._first, self._last = (int(alive[0]), int(alive[-1])) if alive.size else (0, -1)
        edges = np.searchsorted(self._of, np.arange(int(self._of[-1]) + 1))
        full, rooms, empties = (
            np.add.reduceat(each, edges, axis=1, dtype=np.int64) if alive.size else np.zeros((len(each), edges.size), np.int64)
            for each in (filled, room, empty)
        )
        self._chances = self._chance_of_empty(full, rooms).astype(np.float32)
        worth = np.flatnonzero((empties * self._chances).sum(axis=1) < _CHANCE)  # else not even all gaps of the session together
        self.surprises = [gap for at in worth.tolist() if self._first <= at <= self._last for gap in self._gaps(at, empty[at])]

    def _chance_of_empty(self, full: Any, rooms: Any) -> Any:
        """Return for each session and half hour the logarithm of the chance that a place in it is empty."""
        full_around, room_around, known = (
            _around(each, self._first, self._last) for each in (full, rooms, (rooms > 0).astype(np.int64))
        )
        if self._width == 1:  # bars of a day or longer: dense, or nothing is surprising
            return np.where((known >= _LEAST) & (full_around == room_around), 2 * _CHANCE, 0.0)
        return np.where(known >= _LEAST, np.log1p(-(full_around + 0.5) / (room_around + 1)), 0.0)

    def _gaps(self, at: int, empty: Any) -> Iterator[tuple[int, int, int]]:
        """Yield the surprising gaps of one session: its row in the grid, the first place, and the place after the last."""
        edges = np.flatnonzero(np.diff(np.concatenate([[0], empty.view(np.int8), [0]])))
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if float(self._chances[at][self._of[start:stop]].sum()) < _CHANCE:
                yield int(self._rows[at]), start, stop

    def usual(self, row: int, start: int, stop: int) -> bool:
        """Tell whether it would be a surprise if some places were all empty; never where nothing is covered."""
        at = int(np.searchsorted(self._rows, row))
        if at == self._rows.size or self._rows[at] != row or not self._first <= at <= self._last:
            return False
        return bool(self._chances[at][self._of[start:stop]].sum() < _CHANCE)

    def lacks(self, row: int, start: int, stop: int) -> bool:
        """Tell whether none of some places is filled."""
        bits = self._bits[int(np.searchsorted(self._rows, row))]
        return not np.unpackbits(bits, count=self._width)[start:stop].any()


def _around(counts: Any, first: int, last: int) -> Any:
    """Return for each session the sum over its neighbours, itself left out; neighbours live between *first* and *last*."""
    lived = counts.copy()
    lived[:first] = 0
    lived[last + 1 :] = 0
    sums = np.concatenate([np.zeros((1, counts.shape[1]), np.int64), np.cumsum(lived, axis=0)])
    rows = np.arange(len(counts))
    low, high = np.maximum(rows - _AROUND, 0), np.minimum(rows + _AROUND + 1, len(counts))
    return sums[high] - sums[low] - lived


def _judge(habits: Iterable[_Habit], row: int, start: int, stop: int) -> tuple[int, int]:
    """Count the series that usually trade at some places, and those of them that lack all of them."""
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
