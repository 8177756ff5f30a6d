"""Find bars outside every session of the exchange."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import lru_cache

import numpy as np

from data_engine.market.bars import Int64s, from_micros, to_micros
from data_engine.market.exchange_calendar import is_session, sessions, trading_hours
from data_engine.market.series import Dataset, Feed, Timeframe
from data_engine.market.time_range import new_york_date
from data_engine.market.wording import and_more
from data_engine.verify.file_bars import session_edges

_DAY = 86_400_000_000  # microseconds

_DAYS = Timeframe.parse("1Day")


def outside_sessions(times: Int64s, dataset: Dataset) -> Int64s:
    """Return the timestamps of bars that overlap no session's trading hours; a bar of a day or longer must span a session.

    The overnight, over-the-counter and account feeds have other hours: for these, none is returned.

    Args:
        times: The timestamps, sorted.
        dataset: The dataset.
    """
    if not times.size or dataset.feed not in (Feed.SIP, Feed.IEX):
        return times[:0]
    timeframe = dataset.timeframe
    if not timeframe.intraday:
        if timeframe == _DAYS:
            first, last = (new_york_date(from_micros(time)).year for time in (times[0], times[-1]))
            begins, afters = session_edges(first, last)[:2]
            at = np.maximum(np.searchsorted(begins, times, side="right") - 1, 0)
            whole = (times >= begins[at]) & (times < afters[at]) if begins.size else np.zeros(times.size, bool)
        else:
            whole = np.array([_holds_session(timeframe, from_micros(time)) for time in times], dtype=bool)
        outside: Int64s = times[~whole]
        return outside
    opens, closes = _hours(new_york_date(from_micros(times[0])), new_york_date(from_micros(times[-1])))
    ends = np.minimum(times + int(timeframe.length.total_seconds()) * 1_000_000, times - times % _DAY + _DAY)
    # The last session that opens before the bar ends must close after the start of the bar.
    at = np.searchsorted(opens, ends, side="left") - 1
    inside = (at >= 0) & (times < closes[np.maximum(at, 0)]) if opens.size else np.zeros(times.size, bool)
    stray: Int64s = times[~inside]
    return stray


def days_of(times: Int64s) -> list[date]:
    """Return the New York days of timestamps, each once, in order."""
    return sorted({new_york_date(from_micros(time)) for time in times})


def _holds_session(timeframe: Timeframe, start: datetime) -> bool:
    floor = timeframe.floor(start)
    first, last = new_york_date(floor), new_york_date(timeframe.next(floor)) - timedelta(days=1)
    return any(sessions(first, last))


@lru_cache(maxsize=512)
def _hours(first: date, last: date) -> tuple[Int64s, Int64s]:
    """Return when the trading hours of the sessions around these days begin and end, in microseconds."""
    hours = [trading_hours(day) for day in sessions(first - timedelta(days=7), last)]
    opens = np.array([to_micros(span.start) for span in hours], np.int64)
    closes = np.array([to_micros(span.end) for span in hours], np.int64)
    return opens, closes


def describe_days(stray: Int64s, timeframe: Timeframe) -> str:
    """Return the days of bars outside sessions as text, with reasons; at most five days."""
    return and_more((f"{day} ({_reason(day, timeframe)})" for day in days_of(stray)), 5, "days")


def _reason(day: date, timeframe: Timeframe) -> str:
    if day.weekday() >= 5:
        return "Saturday" if day.weekday() == 5 else "Sunday"
    if not is_session(day):
        return "exchange closed"
    return "outside hours" if timeframe.intraday else "no session"
