"""Tell on which days a series has bars: only their timestamps are read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

from data_engine.market.bars import from_micros, timestamps_us
from data_engine.market.series import Series
from data_engine.market.time_range import new_york_date, new_york_days
from data_engine.store.bar_store import BarStore

LATELY = 10
"""In so many sessions before, a series with any bar traded lately; one with a bar in each of them is regular."""


def days_with_bars(storage: BarStore, series: Series, first: date, last: date) -> set[date]:
    """Return the New York days with a stored bar.

    Args:
        storage: The store.
        series: The series.
        first: The first day.
        last: The last day, included.

    Raises:
        DamagedFile: If a file cannot be read as bars.
    """
    times = timestamps_us(storage.read_range(series, new_york_days(first, last), ["timestamp"]))
    return {new_york_date(from_micros(time)) for time in _first_of_days(times)}


def _first_of_days(times: Any) -> Iterable[int]:
    """Return timestamps among some that include one of each New York day."""
    hours = times // 3_600_000_000
    keep = [0, *(row + 1 for row in (hours[1:] != hours[:-1]).nonzero()[0].tolist())] if times.size else []
    return times[keep].tolist() if keep else ()
