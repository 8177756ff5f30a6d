"""Write responses of ``/v2/calendar`` and ``/v2/clock``: the sessions of the exchange, on which the bars are.

Pure: the time is an argument. The calendar has the real sessions and half days from 1970 to 2029, as Alpaca's has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta

from data_engine.market.exchange_calendar import (
    is_half_day,
    is_session,
    next_session,
    regular_hours,
    sessions,
)
from data_engine.market.time_range import NEW_YORK, new_york_date
from data_engine.sandbox.protocol import Refusal, read_date

_FIRST, _LAST = date(1970, 1, 1), date(2029, 12, 31)

_DATE_TYPES = ("TRADING", "SETTLEMENT")

_SETTLEMENT = ((date(2024, 5, 28), 1), (date(2017, 9, 5), 2), (date.min, 3))
"""From which trading day on a trade settles after how many sessions."""

_LONGEST_SETTLEMENT = timedelta(days=14)


def calendar_body(query: Mapping[str, str]) -> bytes:
    """Return the sessions of a range as JSON, in order.

    Args:
        query: The parameters ``start`` and ``end`` (days, both included) and ``date_type``: whether they are days of trading
            (the default) or of settlement.

    Raises:
        Refusal: If a parameter is wrong (422).
    """
    kind = query.get("date_type") or "TRADING"
    if kind not in _DATE_TYPES:
        raise Refusal(422, f"invalid date_type: {kind}")
    first, last = (_day(name, query, default) for name, default in (("start", _FIRST), ("end", _LAST)))
    rows = list(_rows(first, last)) if kind == "TRADING" else _settled(first, last)
    return json.dumps(rows, separators=(",", ":")).encode()


def clock_body(now: datetime) -> bytes:
    """Return the time and the next open and close of the regular session as JSON, in New York's time.

    Args:
        now: The current instant.
    """
    today = new_york_date(now)
    hours = regular_hours(today) if is_session(today) else None
    is_open = hours is not None and now in hours
    ahead = today if hours is not None and now < hours.start else next_session(today)
    closes = regular_hours(today if is_open else ahead).end
    stated = {
        "timestamp": now,
        "next_open": regular_hours(ahead).start,
        "next_close": closes,
    }
    zoned = {name: instant.astimezone(NEW_YORK).isoformat() for name, instant in stated.items()}
    return json.dumps({"is_open": is_open, **zoned}, separators=(",", ":")).encode()


def _settled(first: date, last: date) -> list[dict[str, str]]:
    """Return the sessions whose trades settle from *first* to *last*."""
    earliest = max(_FIRST, first - _LONGEST_SETTLEMENT) if first > _FIRST else _FIRST
    return [row for row in _rows(earliest, last) if first.isoformat() <= row["settlement_date"] <= last.isoformat()]


def _rows(first: date, last: date) -> Iterator[dict[str, str]]:
    for day in sessions(first, last):
        close, session_close = ("13:00", "1700") if is_half_day(day) else ("16:00", "2000")
        yield {
            "close": close,
            "date": day.isoformat(),
            "open": "09:30",
            "session_close": session_close,
            "session_open": "0400",
            "settlement_date": _settlement(day).isoformat(),
        }


def _settlement(day: date) -> date:
    settled = day
    for _ in range(next(count for since, count in _SETTLEMENT if day >= since)):
        settled = next_session(settled)
    return settled


def _day(name: str, query: Mapping[str, str], default: date) -> date:
    """Return the day of a parameter, within the calendar."""
    text = query.get(name)
    if not text:
        return default
    try:
        # Alpaca takes an instant too, of which the day counts.
        day = read_date(name, text[:10])
    except Refusal as refusal:
        raise Refusal(422, refusal.message) from None
    return min(max(day, _FIRST), _LAST)
