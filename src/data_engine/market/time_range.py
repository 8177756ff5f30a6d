"""Compute unions, intersections and differences of time ranges.

All times are aware and in UTC, all ranges half-open ``[start, end)``; the constructor of `TimeRange` checks it, so that no
other module has to. The functions take any iterable of ranges and return sorted, disjoint, non-touching tuples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")


@dataclass(frozen=True, order=True, slots=True)
class TimeRange:
    """A half-open range of time, ``[start, end)``.

    Attributes:
        start: The first instant inside, aware UTC.
        end: The first instant after, aware UTC, later than *start*.

    Raises:
        ValueError: If a bound is naive or not in UTC, or *end* is not after *start*.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        start, end = self.start, self.end
        if start.tzinfo is not UTC or end.tzinfo is not UTC:
            name = "end" if start.tzinfo is UTC else "start"
            raise ValueError(f"TimeRange.{name} must be in UTC, was {getattr(self, name)!r}")
        if not start < end:
            raise ValueError(f"TimeRange.end must be after its start, was [{start}, {end})")

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= instant < self.end

    def __str__(self) -> str:
        return f"{iso(self.start)} .. {iso(self.end)}"

    @property
    def length(self) -> timedelta:
        """The length of the range."""
        return self.end - self.start

    def intersect(self, other: TimeRange) -> TimeRange | None:
        """Return the common part of both ranges, or None if there is none."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return TimeRange(start, end) if start < end else None

    def before(self, instant: datetime) -> TimeRange | None:
        """Return the part before *instant*, or None if there is none."""
        end = min(self.end, instant)
        return TimeRange(self.start, end) if self.start < end else None

    def after(self, instant: datetime) -> TimeRange | None:
        """Return the part from *instant* on, or None if there is none."""
        start = max(self.start, instant)
        return TimeRange(start, self.end) if start < self.end else None


def union(ranges: Iterable[TimeRange]) -> tuple[TimeRange, ...]:
    """Return the same instants in as few ranges as possible: sorted, disjoint, touching ones merged."""
    pieces = sorted(ranges)
    if len(pieces) < 2:
        return tuple(pieces)
    merged: list[TimeRange] = []
    for piece in pieces:
        if merged and piece.start <= merged[-1].end:
            if piece.end > merged[-1].end:
                merged[-1] = TimeRange(merged[-1].start, piece.end)
        else:
            merged.append(piece)
    return tuple(merged)


def difference(wanted: Iterable[TimeRange], taken: Iterable[TimeRange]) -> tuple[TimeRange, ...]:
    """Return the instants of *wanted* that are in none of *taken*."""
    cuts, at = union(taken), 0
    left: list[TimeRange] = []
    for piece in union(wanted):
        start = piece.start
        while at < len(cuts) and cuts[at].start < piece.end:
            cut = cuts[at]
            if cut.start > start:
                left.append(TimeRange(start, cut.start))
            start = max(start, cut.end)
            if cut.end > piece.end:
                break  # it may cut the next piece, too
            at += 1
        if start < piece.end:
            left.append(TimeRange(start, piece.end))
    return tuple(left)


def missing(wanted: TimeRange, covered: Iterable[TimeRange]) -> tuple[TimeRange, ...]:
    """Return the parts of *wanted* that are not in *covered*: the difference, for one range."""
    return difference((wanted,), covered)


def intersection(left: Iterable[TimeRange], right: Iterable[TimeRange]) -> tuple[TimeRange, ...]:
    """Return the instants that are in both."""
    return tuple(_meet(union(left), union(right)))


@lru_cache(maxsize=1024)  # most series of a store have the same ranges
def unanswered(span: TimeRange, wanted: tuple[TimeRange, ...], answered: tuple[TimeRange, ...]) -> tuple[TimeRange, ...]:
    """Return the instants of *span* that are in *wanted* and in none of *answered*."""
    return difference(intersection((span,), wanted), answered)


def _meet(left: tuple[TimeRange, ...], right: tuple[TimeRange, ...]) -> Iterator[TimeRange]:
    i = j = 0
    while i < len(left) and j < len(right):
        both = left[i].intersect(right[j])
        if both is not None:
            yield both
        if left[i].end <= right[j].end:
            i += 1
        else:
            j += 1


def iso(instant: datetime) -> str:
    """Return an aware UTC instant as ``2024-06-03T04:00:00Z``, with microseconds only if there are any."""
    return instant.replace(tzinfo=None).isoformat() + "Z"


def from_iso(text: str) -> datetime:
    """Undo `iso`.

    Raises:
        ValueError: If the text is not an instant in UTC.
    """
    instant = datetime.fromisoformat(text[:-1]) if text.endswith("Z") else None
    if instant is None or instant.tzinfo is not None:
        raise ValueError(f"not an instant in UTC: {text!r}")
    return instant.replace(tzinfo=UTC)


@lru_cache(maxsize=65536)
def new_york_midnight(day: date) -> datetime:
    """Return the start of the calendar day *day* in New York, in UTC."""
    return datetime.combine(day, time(), NEW_YORK).astimezone(UTC)


def new_york_days(first: date, last: date) -> TimeRange:
    """Return the New York calendar days from *first* to *last*, both included."""
    return TimeRange(new_york_midnight(first), new_york_midnight(last + timedelta(days=1)))


def in_days(span: TimeRange) -> str:
    """Return a range for people: its first and last day in New York if it is whole days there, else its instants."""
    first, last = new_york_date(span.start), new_york_date(span.end - timedelta(microseconds=1))
    if new_york_days(first, last) != span:
        return str(span)
    return days_of(span)


def days_of(span: TimeRange) -> str:
    """Return the first and the last New York day of which a range has a part, for people."""
    return f"{new_york_date(span.start)} .. {new_york_date(span.end - timedelta(microseconds=1))}"


def new_york_date(instant: datetime) -> date:
    """Return the calendar day in New York at *instant*."""
    return instant.astimezone(NEW_YORK).date()
