"""Read the bars of one file as arrays, with the sessions they belong to: what every check of bars works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.market.bars import VALUES, Int64s, from_micros, numbers, timestamps_us, to_micros
from data_engine.market.exchange_calendar import regular_hours, sessions
from data_engine.market.series import Dataset
from data_engine.market.time_range import new_york_date, new_york_midnight


@dataclass(frozen=True, slots=True)
class SessionRows:
    """The sessions of the exchange with bars in a file, in order: arrays of equal length.

    Attributes:
        midnights: The start of the day in New York, in microseconds since 1970.
        afters: The start of the next day.
        opens: The start of the regular hours.
        begins: The row of the first bar of the day.
        starts: The row of the first bar in regular hours.
        stops: The row after the last bar in regular hours; equal to *starts* if there is none.
        ends: The row after the last bar of the day.
    """

    midnights: Int64s
    afters: Int64s
    opens: Int64s
    begins: Int64s
    starts: Int64s
    stops: Int64s
    ends: Int64s

    def where(self, mask: Any) -> SessionRows:
        """Return some of the sessions."""
        return SessionRows(*(getattr(self, name)[mask] for name in self.__slots__))


class FileBars:
    """The bars of one file.

    Attributes:
        times: The timestamps, in microseconds since 1970, ascending.
        values: The columns by name.
        step: The length of a bar in microseconds.
        intraday: Whether bars are shorter than a day.
    """

    def __init__(self, times: Int64s, values: Mapping[str, Any], dataset: Dataset) -> None:
        self.times = times
        self.values = values
        self.step = int(dataset.timeframe.length.total_seconds()) * 1_000_000
        self.intraday = dataset.timeframe.intraday

    @classmethod
    def of(cls, table: pa.Table, dataset: Dataset) -> FileBars:
        """Return the bars of a table by `BAR_SCHEMA`, without copying where it is in one piece."""
        return cls(timestamps_us(table), {name: numbers(table.column(name)) for name in VALUES}, dataset)

    def __len__(self) -> int:
        return int(self.times.size)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @cached_property
    def days(self) -> SessionRows:
        """The sessions with a bar at any time of the day; none for bars of a day or longer."""
        if not self.intraday or not len(self):
            return SessionRows(*(np.empty(0, np.int64) for _ in range(7)))
        years = [new_york_date(from_micros(time)).year for time in (self.times[0], self.times[-1])]
        edges = session_edges(*years)
        first, last = np.searchsorted(edges[1], [self.times[0], self.times[-1]], side="right").tolist()
        midnights, afters, opens, closes = edges[:, first : last + 1]
        begins, ends, starts, stops = (np.searchsorted(self.times, edge) for edge in (midnights, afters, opens, closes))
        rows = SessionRows(midnights, afters, opens, begins, starts, stops, ends)
        return rows.where(ends > begins)

    @cached_property
    def regular(self) -> SessionRows:
        """The sessions with a bar in regular hours; none for bars of a day or longer."""
        return self.days.where(self.days.stops > self.days.starts)

    @cached_property
    def in_regular(self) -> Any:
        """Whether each bar starts in regular hours."""
        change = np.zeros(len(self) + 1, np.int8)
        change[self.regular.starts] += 1
        change[self.regular.stops] -= 1
        return np.cumsum(change[:-1], dtype=np.int8).astype(bool)

    @cached_property
    def seams(self) -> Any:
        """The open of each bar but the first, relative to the close of the one before; NaN if one is not positive."""
        return _ratios(self["open"][1:], self["close"][:-1])

    @cached_property
    def changes(self) -> Any:
        """The close of each bar but the first, relative to the close of the one before; NaN if one is not positive."""
        return _ratios(self["close"][1:], self["close"][:-1])


def _ratios(after: Any, before: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = after / before
    if ratios.size and (before.min() <= 0 or after.min() <= 0):
        ratios[(before <= 0) | (after <= 0)] = np.nan
    return ratios


def reduce_rows(function: np.ufunc, values: Any, starts: Int64s, stops: Int64s) -> Any:
    """Return what a function like ``np.add`` makes of the values of each stretch of rows.

    Args:
        function: The function.
        values: A value per row.
        starts: The first row of each stretch, ascending; no stretch is empty, and none overlap.
        stops: The row after the last.
    """
    if not starts.size:
        return np.empty(0, values.dtype)
    edges = np.stack([starts, stops], axis=1).ravel()
    kind = np.int64 if values.dtype == bool else values.dtype
    return function.reduceat(values, edges[:-1] if edges[-1] == values.size else edges, dtype=kind)[::2]


@lru_cache(maxsize=64)
def session_edges(first: int, last: int) -> Any:
    """Return the sessions of some years: four rows of microseconds.

    Args:
        first: The first year.
        last: The last year.

    Returns:
        The start of the day in New York, that of the next day, the open and the close, by session.
    """
    days = list(sessions(date(first, 1, 1), date(last, 12, 31)))
    hours = [regular_hours(day) for day in days]
    edges = np.array(
        [
            [to_micros(new_york_midnight(day)) for day in days],
            [to_micros(new_york_midnight(day + timedelta(days=1))) for day in days],
            [to_micros(span.start) for span in hours],
            [to_micros(span.end) for span in hours],
        ],
        np.int64,
    ).reshape(4, len(days))
    edges.setflags(write=False)  # the cache shares it
    return edges
