"""Compare minutes with daily bars of the same symbol, feed and adjustment, by session.

Both are made from the same trades by different rules, so they differ a little. At Alpaca the prices of a daily bar are those of
regular hours, and its volume includes extended hours and odd lots; its close may be a print of the closing auction, after the
last regular minute. The tolerances are larger than these differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from statistics import median

import numpy as np
import pyarrow as pa

from data_engine.market.bars import from_micros, numbers, timestamps_us, to_micros
from data_engine.market.time_range import TimeRange, new_york_date, union
from data_engine.verify.file_bars import FileBars, reduce_rows

PRICE = 0.005
"""The maximum relative difference of open, high and low. Real ones agree to 0.01 %."""

CLOSE = 0.01
"""The maximum relative difference of the close, for the closing auction. Real ones differ by up to 0.4 %."""

VOLUME = 1.1
"""The maximum volume of the minutes, relative to that of the day, in half of the sessions."""

VOLUMES = 1.5
"""The same in each session: late and cancelled trades change a day or its minutes."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A value of a session that differs between the minutes and the daily bar.

    Attributes:
        day: The New York day.
        name: The column: ``open``, ``high``, ``low``, ``close`` or ``volume``.
        minutes: The value by the minutes.
        daily: The value by the daily bar.
    """

    day: date
    name: str
    minutes: float
    daily: float

    def __str__(self) -> str:
        return f"{self.day} {self.name} {self.minutes:g} by the minutes, {self.daily:g} by the daily bar"


class SessionSums:
    """Daily values of one series of minutes, for completely covered sessions.

    Args:
        covered: The covered ranges of the minutes.
    """

    def __init__(self, covered: Iterable[TimeRange]) -> None:
        ranges = union(covered)
        self._starts = np.array([to_micros(span.start) for span in ranges], np.int64)
        self._ends = np.array([to_micros(span.end) for span in ranges], np.int64)
        self._sums: dict[date, list[float]] = {}

    def add(self, bars: FileBars) -> None:
        """Add the bars of the next file, in order of time."""
        if not self._starts.size:
            return
        days = bars.days
        at = np.maximum(np.searchsorted(self._starts, days.midnights, side="right") - 1, 0)
        days = days.where((days.midnights >= self._starts[at]) & (days.afters <= self._ends[at]))
        volumes = reduce_rows(np.add, bars["volume"], days.begins, days.ends)
        for midnight, volume in zip(days.midnights.tolist(), volumes.tolist(), strict=True):
            # A session can be cut in two by the end of a month of UTC, though not its regular hours.
            self._sums.setdefault(new_york_date(from_micros(midnight)), [0.0])[0] += volume
        days = days.where(days.stops > days.starts)
        columns = (
            bars["open"][days.starts],
            reduce_rows(np.maximum, bars["high"], days.starts, days.stops),
            reduce_rows(np.minimum, bars["low"], days.starts, days.stops),
            bars["close"][days.stops - 1],
        )
        for midnight, *prices in zip(days.midnights.tolist(), *(column.tolist() for column in columns), strict=True):
            self._sums[new_york_date(from_micros(midnight))][1:] = prices

    @property
    def sessions(self) -> int:
        """The number of sessions with values."""
        return len(self._sums)

    def compare(self, days: pa.Table) -> list[Difference]:
        """Return the differences from daily bars that exceed the tolerances."""
        daily = [(day, values) for day, values in _daily(days) if len(self._sums.get(day, ())) > 1]
        ratios = [self._sums[day][0] / values[4] for day, values in daily if values[4] > 0]
        most = VOLUME if ratios and median(ratios) > VOLUME else VOLUMES
        return [difference for day, values in daily for difference in self._differences(day, values, most)]

    def _differences(self, day: date, daily: Sequence[float], most: float) -> Iterable[Difference]:
        sums = self._sums[day]
        for name, minutes, days, tolerance in zip(
            ("open", "high", "low", "close"), sums[1:], daily, (PRICE, PRICE, PRICE, CLOSE), strict=False
        ):
            if days > 0 and abs(minutes / days - 1) > tolerance:
                yield Difference(day, name, minutes, days)
        if sums[0] > daily[4] * most:
            yield Difference(day, "volume", sums[0], daily[4])


def _daily(days: pa.Table) -> Iterable[tuple[date, list[float]]]:
    columns = [numbers(days.column(name)) for name in ("open", "high", "low", "close", "volume")]
    for row, time in enumerate(timestamps_us(days)):
        yield new_york_date(from_micros(time)), [float(column[row]) for column in columns]
