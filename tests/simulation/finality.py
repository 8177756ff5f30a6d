"""When bars are final, by a calendar of its own: an engine with a wrong rule must not be judged by that rule."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from data_engine.market.series import Timeframe

from .market import NEW_YORK, floor, instant, micros

_HOLIDAYS = {
    date.fromisoformat(f"{year}-{day}")
    for year, days in {
        2023: "01-02 01-16 02-20 04-07 05-29 06-19 07-04 09-04 11-23 12-25",
        2024: "01-01 01-15 02-19 03-29 05-27 06-19 07-04 09-02 11-28 12-25",
        2025: "01-01 01-09 01-20 02-17 04-18 05-26 06-19 07-04 09-01 11-27 12-25",
        2026: "01-01 01-19 02-16 04-03 05-25 06-19 07-03 09-07 11-26 12-25",
    }.items()
    for day in days.split()
}
"""The days on which the exchange was closed or will be, beside weekends."""


def final_by_calendar(timeframe: Timeframe, now: int) -> int:
    """Return the instant before which bars are final at *now*: from 10:00 in New York on the first session after their period."""
    start = instant(now).astimezone(NEW_YORK).date()
    while True:
        begin = start if timeframe.intraday else _period(start, timeframe)
        if (begin == _session_from(begin) or not timeframe.intraday) and now >= _at(_session_from(begin), time(10)):
            return floor(_at(begin, time()), timeframe)
        start = begin - timedelta(days=1)


def _period(day: date, timeframe: Timeframe) -> date:
    """Return the first day of the period that holds a day."""
    if timeframe.unit == "Day":
        return day
    if timeframe.unit == "Week":
        return day - timedelta(days=day.weekday())
    month = (day.month - 1) // timeframe.amount * timeframe.amount + 1
    return date(day.year, month, 1)


def _session_from(day: date) -> date:
    """Return the first session from a day on."""
    while day.weekday() >= 5 or day in _HOLIDAYS:
        day += timedelta(days=1)
    return day


def _at(day: date, clock: time) -> int:
    return micros(datetime.combine(day, clock, NEW_YORK).astimezone(UTC))
