"""Judge sessions by what is known of their range, and by their number of bars: final, provisional, missing, suspect, unverified.

A session is *suspect* if it was answered and has far fewer bars than the sessions around it. The rule is about a session that has
nearly gone, not about a few minutes: in eleven weeks of 258,824 real minutes of eight symbols it names none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any

import numpy as np

from data_engine.market.bars import Int64s, from_micros, to_micros
from data_engine.market.exchange_calendar import STROKE, sessions
from data_engine.market.series import Dataset, Feed
from data_engine.market.session_hours import Hours, session_edges
from data_engine.market.time_range import TimeRange, new_york_midnight, union

FINAL, PROVISIONAL, MISSING, SUSPECT, UNVERIFIED = range(5)

STATES = ("final", "provisional", "missing", "suspect", "unverified")
"""The names of the states, by their numbers."""

_NEAR = 10  # sessions on each side, for bars shorter than a day

_FAR = 60  # ... and for bars of a day

_SHARE = 0.25  # of the lower quartile of the sessions around

_ENOUGH = 20  # bars: a quartile below says nothing about a session without any


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions of a range: three arrays of equal length, in order of time.

    Attributes:
        days: The days in New York.
        starts: The first instant at which a bar of the session may start, microseconds since 1970.
        ends: The instant before which its bars start, microseconds; not after *now*.
    """

    days: tuple[date, ...]
    starts: Int64s
    ends: Int64s


def sessions_of(dataset: Dataset, first: date, last: date, now: datetime) -> Sessions:
    """Return the sessions from *first* to *last* of which a bar has ended at *now*.

    Args:
        dataset: The dataset: bars of a day or longer start at midnight; the overnight feed has the whole day.
        first: The first day.
        last: The last day, included.
        now: The current instant, aware.
    """
    days, starts, ends = _whole(dataset, first, last)
    ended = to_micros(dataset.timeframe.floor(now))
    count = int(np.searchsorted(starts, ended))
    return Sessions(days[:count], starts[:count], np.minimum(ends[:count], ended))


@lru_cache(maxsize=32)
def _whole(dataset: Dataset, first: date, last: date) -> tuple[tuple[date, ...], Int64s, Int64s]:
    """Return the sessions from *first* to *last*, whether or not they have begun: days, starts, ends."""
    timeframe = dataset.timeframe
    days = tuple(sessions(first, last))
    if not timeframe.intraday:
        if timeframe.unit == "Day":
            starts = session_edges(first, last, Hours.REGULAR)[0]
        else:
            starts = np.array([to_micros(timeframe.floor(new_york_midnight(day))) for day in days], np.int64)
        return days, starts, starts + 1
    if dataset.feed in (Feed.SIP, Feed.IEX):
        _, starts, ends = session_edges(first, last, Hours.EXTENDED)
        if timeframe.unit == "Hour":  # the first bar of several hours may start before the session does
            starts = np.array([to_micros(timeframe.floor(from_micros(start))) for start in starts.tolist()], np.int64)
        return days, starts, ends + int(STROKE.total_seconds()) * 1_000_000
    starts = session_edges(first, last, Hours.REGULAR)[0]
    return days, starts, starts + 86_400_000_000


def states(
    found: Sessions, covered: Iterable[TimeRange], provisional: Iterable[TimeRange], unverified: Iterable[TimeRange]
) -> Any:
    """Return the state of each session by the ranges of its series: an array of numbers, none of them `SUSPECT`."""
    final = union(covered)
    answered = union((*final, *provisional))
    stored = union((*answered, *unverified))
    made = np.full(found.starts.size, MISSING, np.int8)
    made[_inside(found, stored)] = UNVERIFIED
    made[_inside(found, answered)] = PROVISIONAL
    made[_inside(found, final)] = FINAL
    return made


def _inside(found: Sessions, ranges: Sequence[TimeRange]) -> Any:
    """Return which sessions lie inside one of some disjoint, sorted ranges."""
    if not ranges:
        return np.zeros(found.starts.size, bool)
    starts = np.array([to_micros(one.start) for one in ranges], np.int64)
    ends = np.array([to_micros(one.end) for one in ranges], np.int64)
    at = np.searchsorted(starts, found.starts, side="right") - 1
    return (at >= 0) & (found.ends <= ends[np.maximum(at, 0)])


def counts(found: Sessions, pieces: Iterable[Int64s]) -> Int64s:
    """Return the number of bars of each session.

    Args:
        found: The sessions.
        pieces: Timestamps, sorted, in pieces that follow each other: joining them would take longer than counting.
    """
    made = np.zeros(found.starts.size, np.int64)
    for times in pieces:
        if times.size:
            first, last = (
                np.searchsorted(found.ends, times[0], side="right"),
                np.searchsorted(found.starts, times[-1], side="right"),
            )
            near = slice(int(first), max(int(first), int(last)))
            made[near] += np.searchsorted(times, found.ends[near]) - np.searchsorted(times, found.starts[near])
    return made


def suspects(number: Int64s, dataset: Dataset) -> Any:
    """Return which sessions have far fewer bars than those around them.

    For bars shorter than a day: fewer than a quarter of the lower quartile of the ten sessions before and after, if that is at
    least 20. For daily bars: none, where at most one of the sixty before and after has none. Longer bars: no session.

    Args:
        number: The number of bars of each session in a row, between the first and the last bar of a series.
        dataset: The dataset of the bars.
    """
    suspect = np.zeros(number.size, bool)
    intraday = dataset.timeframe.intraday
    if not intraday and dataset.timeframe.unit != "Day":
        return suspect
    near = _NEAR if intraday else _FAR
    if intraday and number.size:
        edge = np.zeros(near, np.int64)
        padded = np.concatenate([edge, number, edge])
        most = np.lib.stride_tricks.sliding_window_view(padded, 2 * near + 1).max(axis=1)
        candidates = np.flatnonzero((number < _SHARE * most) & (most >= _ENOUGH))  # no quartile is above the maximum
    else:
        candidates = np.flatnonzero(number == 0)
    for at in candidates.tolist():
        around = np.concatenate([number[max(0, at - near) : at], number[at + 1 : at + 1 + near]])
        if around.size < near:
            continue
        if intraday:
            usual = float(np.quantile(around, 0.25))
            suspect[at] = usual >= _ENOUGH and number[at] < _SHARE * usual
        else:
            suspect[at] = np.count_nonzero(around == 0) <= 1
    return suspect
