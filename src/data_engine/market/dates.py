"""Read dates from users: New York days and instants, as one range.

A plain day (``2024-01-31``, a `date`, a naive datetime at midnight) is a calendar day in New York, and as an end it is
included. An aware datetime is an exact instant, and as an end it is excluded. Everything else is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from data_engine.errors import InputError
from data_engine.market.time_range import TimeRange, iso, new_york_midnight

DateLike = str | date | datetime
"""A day or an instant, as users write it."""

_DAY = re.compile(r"\d{4}-\d\d-\d\d")

_HOW = "write a day (2024-01-31) or an instant with its zone (2024-01-31T09:30:00-05:00)"

_FIRST = date(1970, 1, 1)

_LAST = date(2200, 1, 1)


@dataclass(frozen=True, slots=True)
class Span:
    """A requested range.

    Attributes:
        range: The range from the start to the end, or to now if there is no end or it is in the future.
        future_end: Whether the given end is after now.
    """

    range: TimeRange
    future_end: bool = False


def parse_span(start: DateLike, end: DateLike | None, *, now: datetime) -> Span:
    """Return the range from *start* to *end*, or to *now* if that is earlier.

    Args:
        start: A New York day or an aware instant.
        end: A New York day (included) or an aware instant (excluded). If None, *now*.
        now: The current instant, aware.

    Raises:
        InputError: If a date cannot be read, the start is not before the end, or the start is in the future.
    """
    first = parse_start(start)
    last = now if end is None else parse_end(end)
    if first >= now:
        raise InputError(f"start {_shown(start)} lies in the future (now is {iso(now.replace(microsecond=0))})")
    if last <= first:
        raise InputError(f"end {_shown(end)} is not after start {_shown(start)}")
    return Span(TimeRange(first, min(last, now)), future_end=last > now)


def parse_start(value: DateLike) -> datetime:
    """Return the first instant of a day in New York, or the instant itself; in UTC."""
    parsed = _parse(value, "start")
    return parsed if isinstance(parsed, datetime) else new_york_midnight(parsed)


def parse_end(value: DateLike) -> datetime:
    """Return the instant after a day in New York, or the instant itself; in UTC."""
    parsed = _parse(value, "end")
    return parsed if isinstance(parsed, datetime) else new_york_midnight(parsed + timedelta(days=1))


def any_span(start: DateLike | None, end: DateLike | None) -> TimeRange:
    """Return the range between two dates, either of which may be None; it may end in the future.

    Raises:
        InputError: If a date cannot be read, or the end is not after the start.
    """
    first = datetime(_FIRST.year, 1, 1, tzinfo=UTC) if start is None else parse_start(start)
    last = datetime(_LAST.year, 1, 1, tzinfo=UTC) if end is None else parse_end(end)
    if last <= first:
        raise InputError(f"end {_shown(end)} is not after start {_shown(start)}")
    return TimeRange(first, last)


def parse_asof(value: date | str | None) -> date | str | None:
    """Return the day whose symbol mapping is used: a day, ``-`` for no mapping, None for the vendor's choice.

    Raises:
        InputError: If the value is none of these.
    """
    if value is None or value == "-":
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise InputError(f"asof {value!r} is neither a day (YYYY-MM-DD) nor -") from None


def parse_day(value: date | str, name: str) -> date:
    """Return a New York calendar day.

    Args:
        value: The day, as users write it.
        name: The name of the parameter, for the message.

    Raises:
        InputError: If the value is an instant, or no date.
    """
    parsed = _parse(value, name)
    if isinstance(parsed, datetime):
        raise InputError(f"{name} {_shown(value)} is not a day such as 2024-01-31")
    return parsed


def parse_zone(value: str | tzinfo) -> tzinfo:
    """Return a time zone.

    Raises:
        InputError: If there is none of that name.
    """
    if isinstance(value, tzinfo):
        return value
    try:
        return ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise InputError(f"tz {value!r} is not a time zone; use a name such as America/New_York or UTC") from None


def _parse(value: DateLike, name: str) -> date | datetime:
    """Return a day, or an instant in UTC."""
    parsed: date | datetime | None = None
    if getattr(getattr(value, "dtype", None), "kind", None) == "M":
        parsed = _of_numpy(value)
    elif isinstance(value, str):
        text = value.strip()
        try:
            parsed = date.fromisoformat(text) if _DAY.fullmatch(text) else _instant(text)
        except ValueError as error:
            raise InputError(f"{name} {value!r} is not a date ({error}); {_HOW}") from None
    elif isinstance(value, date):  # a datetime (pandas' Timestamp too) is a date
        parsed = value
    if parsed is None or parsed != parsed:
        raise InputError(f"{name} {value!r} is not a date; {_HOW}")
    if isinstance(parsed, datetime):
        parsed = _resolved(parsed, f"{name} {_shown(value)}")
    day = parsed.date() if isinstance(parsed, datetime) else parsed
    if not _FIRST < day < _LAST:
        raise InputError(f"{name} {_shown(value)} is out of range; bars exist from 2016 on, the earliest date is {_FIRST}")
    return parsed


def _of_numpy(value: Any) -> date | datetime | None:
    """Return NumPy's ``datetime64``, which has no zone, as a day or a naive datetime; None for NaT, a month or a year."""
    if value.dtype.str.endswith(("[Y]", "[M]", "[W]")):
        return None
    day: date | datetime | None = value.astype("datetime64[D]").item()
    return day if value == value.astype("datetime64[D]") else value.astype("datetime64[us]").item()


def _resolved(parsed: datetime, what: str) -> date | datetime:
    """Return an aware datetime in UTC, and a naive one at midnight as its day."""
    if parsed.tzinfo is not None:
        try:
            return datetime.fromtimestamp(parsed.timestamp(), UTC).replace(microsecond=parsed.microsecond)
        except (OverflowError, OSError, ValueError):
            raise InputError(f"{what} is out of range") from None
    if parsed.time() != time():
        raise InputError(f"{what} has a time of day but no time zone; {_HOW}")
    return parsed.date()


def _instant(text: str) -> datetime:
    if "T" not in text and " " not in text:
        raise ValueError("no YYYY-MM-DD")
    return datetime.fromisoformat(text)


def _shown(value: object) -> str:
    return value.strip() if isinstance(value, str) else str(value)
