"""Ranges of a dataset of fill bars, each with the source that its bars come from. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from data_engine.errors import InputError
from data_engine.market.time_range import TimeRange, difference

MOST_CHARACTERS = 40
"""The maximum length of the name of a source."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A gap of Alpaca's that has bars of another source.

    Attributes:
        range: The range: a whole gap, though the source may have bars in a part of it only.
        source: The name of the source.
    """

    range: TimeRange
    source: str


def outside(filled: Iterable[Filled], ranges: Iterable[TimeRange]) -> tuple[Filled, ...]:
    """Return what is left of filled ranges outside of some others."""
    cut = tuple(ranges)
    return tuple(replace(one, range=left) for one in filled for left in difference((one.range,), cut))


def joined(filled: Iterable[Filled], ranges: Iterable[TimeRange], source: str) -> tuple[Filled, ...]:
    """Return filled ranges after some more have bars of a source, in order; where they overlap, the new ones count."""
    new = tuple(ranges)
    return tuple(sorted((*outside(filled, new), *(Filled(one, source) for one in new)), key=lambda one: one.range))


def check_source(name: str) -> str:
    """Return the name of a source without blanks around it.

    Raises:
        InputError: If it is empty, too long, or has characters that cannot be printed.
    """
    source = name.strip()
    if not (source and source.isprintable() and len(source) <= MOST_CHARACTERS):
        raise InputError(f"cannot use --source {name[:80]!r}: not a name of 1 to {MOST_CHARACTERS} printable characters")
    return source
