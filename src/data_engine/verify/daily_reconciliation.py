"""Minutes against daily bars of the same symbol, feed and adjustment, session by session. Pure.

The two are made from the same trades by different rules, so they differ a little where nothing is wrong. At Alpaca a daily
bar's prices are those of regular hours, and its volume is all of the day's, extended hours and odd lots included; its close may
be a print of the closing auction that came after the last regular minute. What is flagged here is more than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.market.bars import from_micros, numbers, timestamps_us, to_micros
from data_engine.market.exchange_calendar import regular_hours, sessions
from data_engine.market.time_range import TimeRange, new_york_date, new_york_days

PRICE = 0.005
"""How far a session's open, high or low may lie from the day's, relative. Real ones agree to 0.01 %."""

CLOSE = 0.01
"""How far its close may, relative: the closing auction. Real ones differ by up to 0.4 %."""

VOLUME = 1.02
"""How much more volume than the day the minutes may hold."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of one session that the minutes and the day do not agree on.

    Attributes:
        day: New York.
        name: ``open``, ``high``, ``low``, ``close`` or ``volume``.
        minutes: by the minutes.
        days: by the daily bar.
    """

    day: date
    name: str
    minutes: float
    days: float

    def __str__(self) -> str:
        return f"{self.day} {self.name} {self.minutes:g} by the minutes, {self.days:g} by the day"


class SessionSums:
    """What the minutes of one series make of each session that is covered whole, file by file in order of time.

    Args:
        covered: ranges of the minutes.
    """

    def __init__(self, covered: Iterable[TimeRange]) -> None:
        self._covered = tuple(covered)
        self._made: dict[date, list[Any]] = {}

    def look(self, table: pa.Table) -> None:
        """Take the bars of the next file, by `BAR_SCHEMA`."""
        times = timestamps_us(table)
        if not times.size:
            return
        columns = {name: numbers(table.column(name)) for name in ("open", "high", "low", "close", "volume")}
        for day in sessions(new_york_date(from_micros(times[0])), new_york_date(from_micros(times[-1]))):
            whole = new_york_days(day, day)
            if not any(piece.start <= whole.start and whole.end <= piece.end for piece in self._covered):
                continue
            hours = regular_hours(day)
            spans = [to_micros(at) for at in (whole.start, whole.end, hours.start, hours.end)]
            begin, end, start, stop = np.searchsorted(times, spans).tolist()
            volume = float(columns["volume"][begin:end].sum())
            # A session can be cut in two by the end of a month of UTC, though not its regular hours.
            sums = self._made.setdefault(day, [0.0])
            sums[0] += volume
            if stop > start:
                inside = slice(start, stop)
                sums[1:] = [
                    float(columns["open"][start]),
                    float(columns["high"][inside].max()),
                    float(columns["low"][inside].min()),
                    float(columns["close"][stop - 1]),
                ]

    def against(self, days: pa.Table) -> list[Difference]:
        """Return where daily bars, by `BAR_SCHEMA`, differ by more than the tolerances, in sessions that both have."""
        return [difference for day, values in _daily(days) for difference in self._differences(day, values)]

    def _differences(self, day: date, daily: Sequence[float]) -> Iterable[Difference]:
        sums = self._made.get(day)
        if sums is None or len(sums) == 1:
            return
        for name, made, held, tolerance in zip(
            ("open", "high", "low", "close"), sums[1:], daily, (PRICE, PRICE, PRICE, CLOSE), strict=False
        ):
            if held > 0 and abs(made / held - 1) > tolerance:
                yield Difference(day, name, made, held)
        if sums[0] > daily[4] * VOLUME:
            yield Difference(day, "volume", sums[0], daily[4])


def _daily(days: pa.Table) -> Iterable[tuple[date, list[float]]]:
    columns = [numbers(days.column(name)) for name in ("open", "high", "low", "close", "volume")]
    for row, time in enumerate(timestamps_us(days)):
        yield new_york_date(from_micros(time)), [float(column[row]) for column in columns]
