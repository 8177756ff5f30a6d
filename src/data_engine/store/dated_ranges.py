"""Ranges of a series with the time of a response: emptiness that is asked for again, unconfirmed prices, and rechecks. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from data_engine.market.time_range import TimeRange, difference, intersection, union

TENTATIVE = timedelta(days=7)
"""How long emptiness without bars before it is asked again: the vendor maps a renamed symbol's bars from the next day on."""


_ABOUT, _LONG_AGO = timedelta(days=7), timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Tentative:
    """An emptiness that is covered, and asked for again.

    Attributes:
        range: The range without bars.
        answered: When the response came that had none, UTC.
    """

    range: TimeRange
    answered: datetime


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A range of an adjusted series whose bars are stored, and whose price base was not compared with that of the others.

    Attributes:
        range: The range of one chain of pages; its first bars came first.
        answered: When it was requested, UTC.
    """

    range: TimeRange
    answered: datetime


@dataclass(frozen=True, slots=True)
class Seen:
    """A covered range that was fetched again and compared with what is stored.

    Attributes:
        range: The range.
        asked: When the run began that did it last, UTC.
    """

    range: TimeRange
    asked: datetime


_Part = TypeVar("_Part", Tentative, Unconfirmed)


def without(parts: Iterable[_Part], *spans: TimeRange) -> tuple[_Part, ...]:
    """Return what is left of dated ranges outside of some others."""
    return tuple(replace(one, range=left) for one in parts for left in difference((one.range,), spans))


def seen_again(
    parts: Iterable[Seen], spans: Iterable[TimeRange], asked: datetime, covered: tuple[TimeRange, ...]
) -> tuple[Seen, ...]:
    """Return rechecked ranges after some of them were fetched again.

    Ranges of one run are joined. So are neighbours of about the same time that is long ago, as of the older one: they are few.

    Args:
        parts: The rechecked ranges.
        spans: The ranges that were fetched again.
        asked: When that run began, UTC.
        covered: What is covered; nothing outside of it is returned.
    """
    new = union(spans)
    by_run: dict[datetime, list[TimeRange]] = {asked: list(new)}
    for one in parts:
        by_run.setdefault(one.asked, []).extend(difference((one.range,), new))
    made = [Seen(part, at) for at, ranges in by_run.items() for part in intersection(ranges, covered)]
    joined: list[Seen] = []
    for one in sorted(made, key=lambda one: one.range):
        before = joined[-1] if joined else None
        if before is not None and before.range.end == one.range.start and _joinable(before.asked, one.asked, asked):
            joined[-1] = Seen(TimeRange(before.range.start, one.range.end), min(before.asked, one.asked))
        else:
            joined.append(one)
    return tuple(joined)


def _joinable(left: datetime, right: datetime, now: datetime) -> bool:
    return abs(left - right) <= _ABOUT and max(left, right) < now - _LONG_AGO
