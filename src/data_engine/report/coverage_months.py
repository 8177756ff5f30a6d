"""The coverage of series, month by month: what is held, may still change, is missing, or was never wanted. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np

from data_engine.market.bars import Int64s, to_micros
from data_engine.market.exchange_calendar import extended_hours, session_starts, sessions
from data_engine.market.series import Dataset, Feed
from data_engine.market.time_range import TimeRange, difference, new_york_date, new_york_days, union
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Period

STATES = ("none", "never", "whole", "provisional", "asked", "partly", "missing", "empty")
"""By number. ``none``: the month has no session (yet). ``never``: nothing of it was wanted. ``whole``: every session is held and
final. ``provisional``: every session is held, and some may still change. ``asked``: all that was wanted is held, and the rest
was never wanted. ``partly``: some is held, and some that was wanted is not. ``missing``: nothing is held of what was wanted.
``empty``: held whole, and the vendor has no bar there."""

NONE, NEVER, WHOLE, PROVISIONAL, ASKED, PARTLY, MISSING, EMPTY = range(len(STATES))

_LEAST = timedelta(microseconds=1)

Month = tuple[int, int]
"""Year, and month from 1 to 12, in New York."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """The sessions of a dataset by month; of bars longer than a day, those bars.

    Attributes:
        months: consecutive, ascending.
        starts: of each session that has begun, microseconds since 1970, ascending.
        ends: where it ends.
        month: of each session, its place in *months*.
    """

    months: tuple[Month, ...]
    starts: Int64s
    ends: Int64s
    month: Int64s

    @property
    def counts(self) -> Int64s:
        """How many sessions each month has."""
        return np.bincount(self.month, minlength=len(self.months)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Months:
    """One series, month by month of a `Calendar`.

    Attributes:
        states: places in `STATES`.
        held: sessions that are held and final.
        provisional: sessions that are held and may still change.
        missing: sessions of which something was wanted and is not held.
        bars: in the files of the month; of bars kept by year, all of the year's in its January.
    """

    states: Any
    held: Int64s
    provisional: Int64s
    missing: Int64s
    bars: Int64s


def calendar_of(dataset: Dataset, first: date, last: date, now: datetime) -> Calendar:
    """Return the sessions from the month of *first* to that of *last*, those left out that have not begun.

    Args:
        dataset: of the bars: a session of minutes spans its extended hours (of a feed that has hours of its own, the day); a
            daily bar begins at midnight in New York.
        first: a day in New York.
        last: one that is not earlier.
        now: UTC.
    """
    months = [(year, month) for year in range(first.year, last.year + 1) for month in range(1, 13)]
    months = months[first.month - 1 : len(months) - 12 + last.month]
    after = date(last.year + last.month // 12, last.month % 12 + 1, 1)
    until = min(after - timedelta(days=1), new_york_date(now))
    spans = [span for span in _sessions(dataset, date(first.year, first.month, 1), until) if span.start < now]
    place = {month: number for number, month in enumerate(months)}
    days = [new_york_date(span.start) for span in spans]
    kept = [(span, place[day.year, day.month]) for span, day in zip(spans, days, strict=True) if (day.year, day.month) in place]
    starts, ends = ([to_micros(getattr(span, side)) for span, _ in kept] for side in ("start", "end"))
    return Calendar(tuple(months), *(np.array(values, np.int64) for values in (starts, ends, [number for _, number in kept])))


def months_of(known: Coverage, calendar: Calendar) -> Months:
    """Return how a series stands in each month."""
    here = union((*known.covered, *known.provisional))
    owed = difference(known.wanted, here)
    held = _inside(calendar, known.covered)
    missing = _touched(calendar, owed) & ~held
    # Of today's session nobody has asked for the rest yet.
    provisional = (_inside(calendar, here) | _touched(calendar, known.provisional)) & ~held & ~missing
    wanted = _touched(calendar, union((*known.wanted, *here)))
    size = len(calendar.months)
    total, has, may, lacks, any_wanted = (
        np.bincount(calendar.month[mask], minlength=size).astype(np.int64)
        for mask in (np.ones(calendar.starts.size, bool), held, provisional, missing, wanted)
    )
    bars = _bars(known, calendar)
    states = np.select(
        [
            total == 0,
            any_wanted == 0,
            (lacks > 0) & (has + may == 0),
            lacks > 0,
            has + may < total,
            may > 0,
            _empty(known, calendar, bars),
        ],
        [NONE, NEVER, MISSING, PARTLY, ASKED, PROVISIONAL, EMPTY],
        WHOLE,
    ).astype(np.uint8)
    return Months(states, has, may, lacks, bars)


def _sessions(dataset: Dataset, first: date, last: date) -> Iterable[TimeRange]:
    timeframe = dataset.timeframe
    if not timeframe.intraday:
        starts = sorted({timeframe.floor(start) for start in session_starts(new_york_days(first, last))})
        return [TimeRange(start, start + _LEAST) for start in starts]
    days = list(sessions(first, last))
    if dataset.feed not in (Feed.SIP, Feed.IEX):
        return [new_york_days(day, day) for day in days]
    return [extended_hours(day) for day in days]


def reach_of(held: Iterable[Coverage], now: datetime) -> tuple[date, date]:
    """Return the first and the last day in New York of which anything is known, none later than that of *now*."""
    firsts, lasts = [], []
    for known in held:
        for piece in (*known.wanted, *known.covered):
            firsts.append(new_york_date(piece.start))
            lasts.append(new_york_date(piece.end - _LEAST))
        months = [date(period.year, period.month, 1) for period in known.rows if period.month is not None]
        ends = [new_york_date(bar) for bar in (known.first_bar, known.last_bar) if bar is not None]
        firsts += months + ends
        lasts += months + ends
    today = new_york_date(now)
    last = min(max(lasts, default=today), today)
    return min(min(firsts, default=last), last), last


def _inside(calendar: Calendar, ranges: Iterable[TimeRange]) -> Any:
    """Tell of each session whether one range holds all of it."""
    mask = np.zeros(calendar.starts.size, bool)
    for piece in ranges:
        mask |= (calendar.starts >= to_micros(piece.start)) & (calendar.ends <= to_micros(piece.end))
    return mask


def _touched(calendar: Calendar, ranges: Iterable[TimeRange]) -> Any:
    """Tell of each session whether a range has a part of it."""
    mask = np.zeros(calendar.starts.size, bool)
    for piece in ranges:
        mask |= (calendar.starts < to_micros(piece.end)) & (calendar.ends > to_micros(piece.start))
    return mask


def _bars(known: Coverage, calendar: Calendar) -> Int64s:
    """Return the bars of each month's file; a file is of a month of UTC: a month's last evening is in the next one's."""
    place = {month: number for number, month in enumerate(calendar.months)}
    bars = np.zeros(len(calendar.months), np.int64)
    for period, count in known.rows.items():
        number = place.get(_month(period))
        if number is not None:
            bars[number] += count
    return bars


def _empty(known: Coverage, calendar: Calendar, bars: Int64s) -> Any:
    """Tell which months have no bar; of bars kept by year, those before the first bar."""
    if known.series.dataset.timeframe.intraday:
        return bars == 0
    first = None if known.first_bar is None else new_york_date(known.first_bar)
    return np.array([first is None or month < (first.year, first.month) for month in calendar.months], bool)


def _month(period: Period) -> Month:
    return period.year, period.month or 1
