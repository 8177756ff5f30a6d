"""Find which bars of a file a commit has added, revised and removed: `ChangedBars`, and count them: `BarChange`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
import pyarrow as pa

from data_engine.market.bars import Int64s, from_micros, timestamps_us, to_micros
from data_engine.market.time_range import TimeRange
from data_engine.store.history.bar_undo import differing, times_before

NONE: Int64s = np.empty(0, np.int64)


@dataclass(frozen=True)
class ChangedBars:
    """The bars of a file that a commit has changed, by their timestamps: microseconds since 1970, ascending.

    Attributes:
        added: Bars with a new timestamp.
        revised: Bars that got other values.
        removed: Bars that went.
    """

    added: Int64s
    revised: Int64s
    removed: Int64s

    @classmethod
    def between(cls, before: pa.Table, after: pa.Table) -> ChangedBars:
        """Return how the sorted bars of a file changed."""
        old, new = timestamps_us(before), timestamps_us(after)
        stays, known = np.isin(old, new, assume_unique=True), np.isin(new, old, assume_unique=True)
        return cls(new[~known], new[known][differing(before, stays, after, known)], old[~stays])

    @classmethod
    def undone(cls, body: bytes, times: Int64s) -> tuple[ChangedBars, Int64s]:
        """Return what a difference of bars (`bar_undo`) says that changed, and the timestamps before that.

        Args:
            body: The difference.
            times: The timestamps after the change.

        Raises:
            ValueError: If the difference is damaged, or of another table.
        """
        added, old, before = times_before(body, times)
        if not old.size:
            return cls(added, NONE, NONE), before
        stays = np.isin(old, times, assume_unique=True)
        return cls(added, old[stays], old[~stays]), before

    @cached_property
    def touched(self) -> Int64s:
        """The timestamps of all of them, ascending."""
        return np.sort(np.concatenate([self.added, self.revised, self.removed]))

    def where(self, ranges: Iterable[TimeRange]) -> ChangedBars:
        """Return those that start inside some ranges."""
        edges = [(to_micros(span.start), to_micros(span.end)) for span in ranges]
        return ChangedBars(_inside(self.added, edges), _inside(self.revised, edges), _inside(self.removed, edges))


def _inside(times: Int64s, edges: Iterable[tuple[int, int]]) -> Int64s:
    inside = np.zeros(times.size, bool)
    for start, end in edges if times.size else ():
        inside |= (times >= start) & (times < end)
    found: Int64s = times[inside]
    return found


@dataclass(frozen=True, slots=True)
class BarChange:
    """What a commit did to bars. Sums add up.

    Attributes:
        added: The number of bars with a new timestamp.
        revised: The number of bars that got other values.
        removed: The number of bars that went.
        not_kept: The number of files that were removed or replaced and whose old bars are not kept.
        first: The timestamp of the first of these bars; None if there is none.
        last: The timestamp of the last one.
    """

    added: int = 0
    revised: int = 0
    removed: int = 0
    not_kept: int = 0
    first: datetime | None = None
    last: datetime | None = None

    @classmethod
    def of(cls, bars: ChangedBars) -> BarChange:
        """Return how many bars changed."""
        if not bars.touched.size:
            return cls()
        ends = from_micros(int(bars.touched[0])), from_micros(int(bars.touched[-1]))
        return cls(bars.added.size, bars.revised.size, bars.removed.size, 0, *ends)

    def __add__(self, other: BarChange) -> BarChange:
        firsts = [one.first for one in (self, other) if one.first is not None]
        lasts = [one.last for one in (self, other) if one.last is not None]
        return BarChange(
            self.added + other.added,
            self.revised + other.revised,
            self.removed + other.removed,
            self.not_kept + other.not_kept,
            min(firsts, default=None),
            max(lasts, default=None),
        )

    def __bool__(self) -> bool:
        return self != BarChange()
