"""Describe what differs between stored bars and Alpaca's: `Rechecked`. Pure values; they may travel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa

from data_engine.market.bars import VALUES, from_micros, numbers, timestamps_us, to_micros
from data_engine.market.series import Series
from data_engine.market.time_range import iso
from data_engine.store.conflicts import Conflicts, Values

REVISED, APPEARED, VANISHED = "revised", "appeared", "vanished"

_MOST = 1_000  # differences of one symbol and task that are listed; all are counted


@dataclass(frozen=True, slots=True)
class Difference:
    """One bar that Alpaca has otherwise now.

    Attributes:
        series: The series of the bar.
        timestamp: The timestamp of the bar, UTC.
        old: The stored values, by `VALUES`. None if the bar is not stored: it appeared.
        new: Alpaca's values. None if Alpaca no longer has the bar: it vanished.
    """

    series: Series
    timestamp: datetime
    old: Values | None
    new: Values | None

    @property
    def change(self) -> str:
        """``revised``, ``appeared`` or ``vanished``."""
        return APPEARED if self.old is None else VANISHED if self.new is None else REVISED

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the values that differ; all of them if the bar appeared or vanished."""
        if self.old is None or self.new is None:
            return VALUES
        return tuple(name for name, old, new in zip(VALUES, self.old, self.new, strict=True) if old != new)

    def to_json(self) -> dict[str, object]:
        """Return the fields that ``--json`` prints: the values that differ, by name."""
        old, new = (None if one is None else dict(zip(VALUES, one, strict=True)) for one in (self.old, self.new))
        return {
            "dataset": self.series.dataset.name,
            "symbol": self.series.symbol,
            "timestamp": iso(self.timestamp),
            "change": self.change,
            "old": old and {name: old[name] for name in self.fields},
            "new": new and {name: new[name] for name in self.fields},
        }


@dataclass(frozen=True, slots=True)
class Rechecked:
    """What was compared of one series, or of several. Sums add up.

    Attributes:
        bars: The number of stored bars that were compared.
        revised: The number of stored bars that Alpaca has with other values.
        appeared: The number of bars that were not stored.
        vanished: The number of stored bars that Alpaca no longer has.
        differences: The bars that differ, by time; the first thousand of each series and task.
    """

    bars: int = 0
    revised: int = 0
    appeared: int = 0
    vanished: int = 0
    differences: tuple[Difference, ...] = ()

    def __add__(self, other: Rechecked) -> Rechecked:
        return Rechecked(
            self.bars + other.bars,
            self.revised + other.revised,
            self.appeared + other.appeared,
            self.vanished + other.vanished,
            (*self.differences, *other.differences),
        )

    @property
    def counts(self) -> dict[str, int]:
        """The number of bars by change."""
        return {REVISED: self.revised, APPEARED: self.appeared, VANISHED: self.vanished}


def rechecked_of(series: Series, stored: pa.Table, conflicts: Conflicts, new: pa.Table) -> Rechecked:
    """Return what was compared of a series.

    Args:
        series: The series.
        stored: The stored bars that were compared, sorted.
        conflicts: Those that Alpaca has otherwise, or no longer.
        new: Alpaca's bars that were not stored, sorted.
    """
    times = timestamps_us(stored)
    listed = conflicts[:_MOST]
    rows = np.searchsorted(times, np.array([to_micros(one.timestamp) for one in listed], np.int64))
    olds = [_row(stored, int(row)) for row in rows]
    found = [Difference(series, one.timestamp, old, one.values) for one, old in zip(listed, olds, strict=True)]
    appeared = timestamps_us(new)[:_MOST].tolist()
    found += [Difference(series, from_micros(time), None, _row(new, row)) for row, time in enumerate(appeared)]
    vanished = sum(one.values is None for one in conflicts)
    ordered = tuple(sorted(found, key=lambda one: one.timestamp))
    return Rechecked(stored.num_rows, len(conflicts) - vanished, new.num_rows, vanished, ordered[:_MOST])


def _row(table: pa.Table, row: int) -> Values:
    return tuple(float(numbers(table.column(name))[row]) for name in VALUES)


def total(parts: Iterable[Rechecked]) -> Rechecked:
    """Return the sum."""
    return sum(parts, Rechecked())
