"""Bars where there can be none: in the future, or outside every session of the exchange. Pure."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import lru_cache

import numpy as np

from data_engine.market.bars import Int64s, from_micros, to_micros
from data_engine.market.exchange_calendar import extended_hours, is_session, sessions
from data_engine.market.series import Dataset, Feed, Timeframe
from data_engine.market.time_range import new_york_date

_DAY = 86_400_000_000  # microseconds


def outside_sessions(times: Int64s, dataset: Dataset) -> Int64s:
    """Return the stamps of bars that hold no moment of any session's extended hours; times are sorted.

    Of a bar of a day or longer, its days are looked at. The overnight and over-the-counter feeds, and whatever an account's own
    feed is, have hours of their own: there, nothing is outside.
    """
    if not times.size or dataset.feed not in (Feed.SIP, Feed.IEX):
        return times[:0]
    timeframe = dataset.timeframe
    if not timeframe.intraday:
        whole = np.array([_holds_session(timeframe, from_micros(time)) for time in times], dtype=bool)
        lone: Int64s = times[~whole]
        return lone
    opens, closes = _hours(new_york_date(from_micros(times[0])), new_york_date(from_micros(times[-1])))
    ends = np.minimum(times + int(timeframe.length.total_seconds()) * 1_000_000, times - times % _DAY + _DAY)
    # The last session that opens before the bar ends must not have closed before the bar begins.
    at = np.searchsorted(opens, ends, side="left") - 1
    # A print at the stroke of the close is real: the consolidated tape has a few a year.
    inside = (at >= 0) & (times <= closes[np.maximum(at, 0)]) if opens.size else np.zeros(times.size, bool)
    stray: Int64s = times[~inside]
    return stray


def days_of(times: Int64s) -> list[date]:
    """Return the New York days of some stamps, each once, in order."""
    return sorted({new_york_date(from_micros(time)) for time in times})


def _holds_session(timeframe: Timeframe, start: datetime) -> bool:
    floor = timeframe.floor(start)
    first, last = new_york_date(floor), new_york_date(timeframe.next(floor)) - timedelta(days=1)
    return any(sessions(first, last))


@lru_cache(maxsize=512)
def _hours(first: date, last: date) -> tuple[Int64s, Int64s]:
    """Return when the extended hours of each session around some days open and close, in microseconds."""
    hours = [extended_hours(day) for day in sessions(first - timedelta(days=7), last)]
    opens = np.array([to_micros(span.start) for span in hours], np.int64)
    closes = np.array([to_micros(span.end) for span in hours], np.int64)
    return opens, closes


def described(stray: Int64s, timeframe: Timeframe) -> str:
    """Return for people on which days, or when, stray bars are: at most five of them."""
    days = days_of(stray)
    words = [f"{day} ({_why(day, timeframe)})" for day in days[:5]]
    return ", ".join(words) + (f" and {len(days) - 5} more days" if len(days) > 5 else "")


def _why(day: date, timeframe: Timeframe) -> str:
    if day.weekday() >= 5:
        return "a Saturday" if day.weekday() == 5 else "a Sunday"
    if not is_session(day):
        return "the exchange was closed"
    return "outside its hours" if timeframe.intraday else "no session"
