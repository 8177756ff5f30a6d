"""Damages of a series of minutes as a researcher meets them, each a function of the true bars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import numpy as np

from data_engine.market.bars import to_micros
from data_engine.market.exchange_calendar import extended_hours, regular_hours, sessions
from data_engine.market.time_range import new_york_midnight

FIRST, LAST = date(2024, 6, 3), date(2024, 8, 16)
SESSIONS = list(sessions(FIRST, LAST))
MINUTE = 60_000_000
PRICES = ("open", "high", "low", "close", "vwap")


@dataclass(frozen=True)
class Bars:
    """Columns of one symbol."""

    times: Any
    columns: dict[str, Any]

    def take(self, keep: Any) -> Bars:
        return Bars(self.times[keep], {name: column[keep] for name, column in self.columns.items()})

    def changed(self, where: Any, **factors: float) -> Bars:
        """Return the bars with some columns multiplied in some rows."""
        columns = {name: column.copy() for name, column in self.columns.items()}
        for name, factor in factors.items():
            columns[name][where] = columns[name][where] * factor
        return replace(self, columns=columns)

    def within(self, start: Any, end: Any) -> Any:
        return (self.times >= to_micros(start)) & (self.times < to_micros(end))

    def regular(self, *days: date) -> Any:
        found = np.zeros(self.times.size, bool)
        for day in days:
            hours = regular_hours(day)
            found |= self.within(hours.start, hours.end)
        return found

    def days(self, first: date, last: date) -> Any:
        return self.within(new_york_midnight(first), new_york_midnight(last + timedelta(days=1)))


Damage = Callable[[Bars], Bars]
MIDDLE = SESSIONS[25]
WEEK = SESSIONS[20:25]


def row_at(bars: Bars, day: date, minute: int) -> int:
    """Return the row of the first bar from a minute after the open on."""
    return int(np.searchsorted(bars.times, to_micros(regular_hours(day).start) + minute * MINUTE))


def shifted(bars: Bars, minutes: int) -> Bars:
    return replace(bars, times=bars.times + minutes * MINUTE)


def one_close(bars: Bars) -> Bars:
    row = row_at(bars, MIDDLE, 100)
    made = bars.changed([row], close=1.2)
    made.columns["high"][row] = max(made.columns["high"][row], made.columns["close"][row])
    return made


def copied_session(bars: Bars) -> Bars:
    """The session after is one more copy of MIDDLE's, extended hours included."""
    after = SESSIONS[26]
    source = bars.take(bars.days(MIDDLE, MIDDLE))
    moved = int((new_york_midnight(after) - new_york_midnight(MIDDLE)).total_seconds()) * 1_000_000
    rest = bars.take(~bars.days(after, after))
    times = np.concatenate([rest.times, source.times + moved])
    order = np.argsort(times)
    columns = {name: np.concatenate([rest.columns[name], source.columns[name]])[order] for name in rest.columns}
    return Bars(times[order], columns)


def six_flat_hours(bars: Bars) -> Bars:
    start = row_at(bars, MIDDLE, 15)
    end = row_at(bars, MIDDLE, 375)
    columns = {name: column.copy() for name, column in bars.columns.items()}
    for name in PRICES:
        columns[name][start:end] = bars.columns["close"][start]
    return replace(bars, columns=columns)


def without_minute(bars: Bars, minute: int) -> Bars:
    gone = [to_micros(regular_hours(day).start) + minute * MINUTE for day in SESSIONS]
    return bars.take(~np.isin(bars.times, gone))


def regular_only(bars: Bars) -> Bars:
    return bars.take(bars.regular(*SESSIONS))


def end_labels(bars: Bars) -> Bars:
    """Timestamps of the end; what would start at the end of the extended hours is dropped, as Alpaca's filters do."""
    made = shifted(bars, 1)
    ends = [to_micros(extended_hours(day).end) for day in SESSIONS]
    return made.take(~np.isin(made.times, ends))


DAMAGES: dict[str, tuple[Damage, set[str]]] = {
    "ends-six-weeks-early": (lambda bars: bars.take(bars.days(FIRST, SESSIONS[22])), {"series_ends_early"}),
    "begins-six-weeks-late": (lambda bars: bars.take(bars.days(SESSIONS[28], LAST)), {"series_begins_late"}),
    "one-high-doubled": (lambda bars: bars.changed([row_at(bars, MIDDLE, 100)], high=2.0), {"price_wick"}),
    "one-low-a-tenth": (lambda bars: bars.changed([row_at(bars, MIDDLE, 100)], low=0.1), {"price_wick"}),
    "one-close-a-fifth-higher": (one_close, {"price_break", "price_spike"}),
    "ten-minutes-doubled": (
        lambda bars: bars.changed(slice(row_at(bars, MIDDLE, 100), row_at(bars, MIDDLE, 110)), **dict.fromkeys(PRICES, 2.0)),
        {"price_break"},
    ),
    "session-copied": (copied_session, {"session_repeated"}),
    "volume-times-1000-for-a-week": (lambda bars: bars.changed(bars.days(WEEK[0], WEEK[-1]), volume=1000.0), {"volume_unusual"}),
    "no-volume-for-a-week": (lambda bars: bars.changed(bars.days(WEEK[0], WEEK[-1]), volume=0.0), {"volume_unusual"}),
    "six-flat-hours": (six_flat_hours, {"price_frozen"}),
    "every-first-minute-gone": (lambda bars: without_minute(bars, 0), {"minutes_missing"}),
    "no-extended-hours": (regular_only, {"extended_hours_missing"}),
    "end-labels": (end_labels, {"timestamps_shifted"}),
}
"""The damages that the limits were chosen with: a function, and the codes of which one must be found."""


def hour_of(other: Bars) -> Damage:
    """Return a damage: an hour of another symbol's bars in one session."""

    def damage(bars: Bars) -> Bars:
        start = regular_hours(MIDDLE).start + timedelta(hours=2)
        span = (start, start + timedelta(hours=1))
        mine, theirs = bars.take(~bars.within(*span)), other.take(other.within(*span))
        times = np.concatenate([mine.times, theirs.times])
        order = np.argsort(times)
        columns = {name: np.concatenate([mine.columns[name], theirs.columns[name]])[order] for name in mine.columns}
        return Bars(times[order], columns)

    return damage


def an_hour_late_for_a_week(bars: Bars) -> Bars:
    late = bars.days(WEEK[0], WEEK[-1])
    return replace(bars, times=np.where(late, bars.times + 60 * MINUTE, bars.times))


def adjusted_for_no_split(bars: Bars) -> Bars:
    """A week is adjusted for a split that was not one."""
    week = bars.days(WEEK[0], WEEK[-1])
    return bars.changed(week, **dict.fromkeys(PRICES, 0.5), volume=2.0)


NEW_DAMAGES: dict[str, Damage] = {
    "an-hour-late-for-a-week": an_hour_late_for_a_week,
    "a-week-adjusted-for-no-split": adjusted_for_no_split,
}
"""With `hour_of`, three damages at which nobody looked while the limits were chosen."""
