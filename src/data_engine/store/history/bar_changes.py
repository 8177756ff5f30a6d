"""Compare the bars of a file before and after a commit: `BarChange`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.market.bars import from_micros, timestamps_us, within
from data_engine.market.time_range import TimeRange
from data_engine.store.history.bar_undo import differing


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


def change_between(before: pa.Table, after: pa.Table, span: TimeRange) -> BarChange:
    """Return how the sorted bars of a file changed, as far as they start inside a range."""
    before, after = within(before, span), within(after, span)
    old, new = timestamps_us(before), timestamps_us(after)
    stays, known = np.isin(old, new, assume_unique=True), np.isin(new, old, assume_unique=True)
    revised = new[known][differing(before, stays, after, known)]
    added, removed = new[~known], old[~stays]
    times: Any = np.concatenate([added, revised, removed])
    if not times.size:
        return BarChange()
    ends = from_micros(int(times.min())), from_micros(int(times.max()))
    return BarChange(added.size, revised.size, removed.size, 0, *ends)
