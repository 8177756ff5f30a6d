"""Select the bars that start within the regular or extended hours of a session, half days and clock changes included."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import Enum
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.errors import InputError
from data_engine.market.bars import Int64s, arrow, from_micros, numbers, timestamps_us, to_micros
from data_engine.market.exchange_calendar import extended_hours, regular_hours, sessions
from data_engine.market.time_range import TimeRange, new_york_date, new_york_midnight


class Hours(Enum):
    """A part of the day: all of it, 09:30 to 16:00 New York of a session, or 04:00 to 20:00 (half days: to 13:00, 17:00)."""

    ALL = "all"
    REGULAR = "regular"
    EXTENDED = "extended"

    @classmethod
    def parse(cls, value: object) -> Hours:
        """Return the hours that a text stands for.

        Raises:
            InputError: If it is none of the three.
        """
        if isinstance(value, cls):
            return value
        try:
            return cls(value)
        except ValueError:
            raise InputError(f"session {value!r} is not one of {', '.join(hours.value for hours in cls)}") from None

    def of(self, day: date) -> TimeRange:
        """Return the hours of a session. `ALL` has none: a caller must not ask."""
        return {Hours.REGULAR: regular_hours, Hours.EXTENDED: extended_hours}[self](day)


@dataclass(frozen=True, slots=True)
class SessionRows:
    """The sessions with bars in a sorted column of timestamps, in order: four arrays of equal length.

    Attributes:
        midnights: The start of the day in New York, microseconds since 1970: the timestamp of a daily bar.
        opens: The start of the session's hours, microseconds.
        starts: The position of the session's first bar.
        stops: The position after its last bar.
    """

    midnights: Int64s
    opens: Int64s
    starts: Int64s
    stops: Int64s


def session_rows(times: Int64s, hours: Hours) -> SessionRows:
    """Return the sessions in a sorted column of timestamps, and the positions of their bars.

    Args:
        times: The timestamps, in microseconds since 1970, sorted.
        hours: Regular or extended hours.
    """
    if not times.size:
        return SessionRows(*(np.empty(0, np.int64) for _ in range(4)))
    first, last = (new_york_date(from_micros(int(time))) for time in (times[0], times[-1]))
    midnights, opens, closes = _edges_between(first.year, last.year, hours)
    starts, stops = np.searchsorted(times, opens), np.searchsorted(times, closes)
    some = stops > starts
    return SessionRows(midnights[some], opens[some], starts[some], stops[some])


def session_edges(first: date, last: date, hours: Hours) -> Any:
    """Return the midnights, opens and closes of the sessions from *first* to *last*, included, as three rows of microseconds.

    Args:
        first: The first day.
        last: The last day.
        hours: Regular or extended hours.
    """
    edges = _edges_between(first.year, last.year, hours)
    start, stop = np.searchsorted(edges[0], [to_micros(new_york_midnight(first)), to_micros(new_york_midnight(last)) + 1])
    return edges[:, start:stop]


def _edges_between(first: int, last: int, hours: Hours) -> Any:
    return np.concatenate([_edges(year, hours) for year in range(first, last + 1)], axis=1)


@lru_cache(maxsize=128)
def _edges(year: int, hours: Hours) -> Any:
    """Return the midnights, opens and closes of a year's sessions (of New York), as three rows of microseconds."""
    days = list(sessions(date(year, 1, 1), date(year, 12, 31)))
    spans = [hours.of(day) for day in days]
    edges = np.array(
        [
            [to_micros(new_york_midnight(day)) for day in days],
            [to_micros(span.start) for span in spans],
            [to_micros(span.end) for span in spans],
        ],
        dtype=np.int64,
    )
    edges.setflags(write=False)  # the cache shares it
    return edges


def in_hours(table: pa.Table, hours: Hours) -> pa.Table:
    """Return the bars that start within the hours of a session.

    Args:
        table: The bars, sorted by ``timestamp``, with any of the columns of `BAR_SCHEMA`.
        hours: The hours; `Hours.ALL` selects every bar.
    """
    if hours is Hours.ALL:
        return table
    found = session_rows(timestamps_us(table), hours)
    count = table.num_rows
    if int((found.stops - found.starts).sum()) == count:
        return table
    # The lengths of the stretches outside, inside, outside ... the hours.
    edges = np.empty(2 * found.starts.size + 2, dtype=np.int64)
    edges[0], edges[-1] = 0, count
    edges[1:-1:2], edges[2:-1:2] = found.starts, found.stops
    inside = np.repeat(np.arange(edges.size - 1) % 2 == 1, np.diff(edges))
    columns = [arrow(_array(table.column(field.name), field)[inside], field.type) for field in table.schema]
    return pa.Table.from_arrays(columns, schema=table.schema)


def _array(column: pa.ChunkedArray, field: pa.Field) -> Any:
    return numbers(column, np.int64 if pa.types.is_timestamp(field.type) else np.float64)
