"""Compute the exchange's sessions and their hours.

Holidays and early closes come from the ``holidays`` package (NYSE); the tests compare them with ``exchange_calendars``.
*now* is always an argument.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

from data_engine.market.series import Dataset, Feed
from data_engine.market.time_range import NEW_YORK, TimeRange, new_york_date, new_york_midnight

DAY = timedelta(days=1)

_OPEN, _CLOSE, _EARLY_CLOSE = time(9, 30), time(16), time(13)

PRE_OPEN, POST_CLOSE, _EARLY_POST_CLOSE = time(4), time(20), time(17)


@lru_cache(maxsize=256)
def _exceptions(year: int) -> tuple[frozenset[date], frozenset[date]]:
    """Return the weekdays of *year* without a session, and those that close early."""
    from holidays import financial_holidays  # 0.2 s: not for --help

    closed = financial_holidays("NYSE", years=year)
    early = financial_holidays("NYSE", years=year, categories=("half_day",))
    return frozenset(closed), frozenset(early)


@lru_cache(maxsize=256)
def _year(year: int) -> tuple[date, ...]:
    """Return the sessions of a year, in order."""
    first = date(year, 1, 1)
    return tuple(day for day in (first + n * DAY for n in range(366)) if day.year == year and is_session(day))


def is_session(day: date) -> bool:
    """Return whether the New York Stock Exchange opens on *day*."""
    return day.weekday() < 5 and day not in _exceptions(day.year)[0]


def is_half_day(day: date) -> bool:
    """Return whether *day* is a session that closes early (13:00; its extended session at 17:00)."""
    return is_session(day) and day in _exceptions(day.year)[1]


def _by_year(first: date, last: date) -> Iterator[tuple[date, ...]]:
    for year in range(first.year, last.year + 1):
        days = _year(year)
        yield days[bisect_left(days, first) : bisect_right(days, last)]


def sessions(first: date, last: date) -> Iterator[date]:
    """Yield the sessions from *first* to *last*, both included, in order."""
    for days in _by_year(first, last):
        yield from days


def next_session(day: date) -> date:
    """Return the first session after *day*."""
    day += DAY
    while not is_session(day):
        day += DAY
    return day


def regular_hours(day: date) -> TimeRange:
    """Return 09:30 to 16:00 New York of a session, to 13:00 on a half day."""
    return _hours(day, _OPEN, _EARLY_CLOSE if is_half_day(day) else _CLOSE)


def extended_hours(day: date) -> TimeRange:
    """Return 04:00 to 20:00 New York of a session, to 17:00 on a half day."""
    return _hours(day, PRE_OPEN, _EARLY_POST_CLOSE if is_half_day(day) else POST_CLOSE)


def trading_hours(day: date) -> TimeRange:
    """Return the extended hours and the minute that begins with their end, which holds prints at the stroke of the close."""
    hours = extended_hours(day)
    return TimeRange(hours.start, hours.end + timedelta(minutes=1))


@lru_cache(maxsize=8192)
def _hours(day: date, opens: time, closes: time) -> TimeRange:
    return TimeRange(at_clock(day, opens), at_clock(day, closes))


def at_clock(day: date, clock: time) -> datetime:
    """Return the instant of a wall-clock time in New York, in UTC."""
    return datetime.combine(day, clock, NEW_YORK).astimezone(UTC)


def can_hold_bars(span: TimeRange, dataset: Dataset) -> bool:
    """Return whether a bar of *dataset* may start inside *span*.

    A weekend, a holiday or a night needs no request; the minute that begins with the end of the extended hours can hold the
    prints of that stroke. For the overnight and over-the-counter feeds, whose hours are not those
    of the exchange, and for the account's own feed, the result is always true.
    """
    if dataset.feed not in (Feed.SIP, Feed.IEX):
        return True
    timeframe = dataset.timeframe
    if not timeframe.intraday:
        start = timeframe.ceil(span.start)
        while start < span.end:
            end = timeframe.next(start)
            if any(sessions(new_york_date(start), new_york_date(end) - DAY)):
                return True
            start = end
        return False
    # A bar that starts before the open can still contain trades: its whole length counts.
    reach = TimeRange(timeframe.floor(span.start), timeframe.ceil(span.end))
    return any(trading_hours(day).intersect(reach) for day in sessions(new_york_date(reach.start), new_york_date(reach.end)))


def count_sessions(span: TimeRange) -> int:
    """Count the sessions whose extended hours begin inside *span*."""
    first, last = new_york_date(span.start), new_york_date(span.end)
    if span.start > at_clock(first, PRE_OPEN):
        first += DAY
    if span.end <= at_clock(last, PRE_OPEN):
        last -= DAY
    return sum(map(len, _by_year(first, last)))


def session_starts(span: TimeRange) -> Iterator[datetime]:
    """Yield midnight New York (the timestamp of a daily bar, in UTC) of each session that begins inside *span*."""
    for day in sessions(new_york_date(span.start), new_york_date(span.end)):
        start = new_york_midnight(day)
        if start in span:
            yield start
