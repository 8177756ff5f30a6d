"""Compute longer bars from minutes, counted from the open of a session; Alpaca counts its own from midnight UTC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.errors import InputError
from data_engine.market.bars import VALUES, Int64s, arrow, numbers, timestamps_us
from data_engine.market.exchange_calendar import is_session
from data_engine.market.series import Timeframe, parse_length
from data_engine.market.session_hours import Hours, in_hours, session_rows
from data_engine.market.time_range import TimeRange, new_york_date, new_york_midnight

_MINUTE = timedelta(minutes=1)

_LONGEST = {Hours.REGULAR: 390, Hours.EXTENDED: 960}  # minutes of a whole session

_COMMON = {Hours.REGULAR: 30, Hours.EXTENDED: 60}  # what divides every open and close, in minutes of the day


@dataclass(frozen=True, slots=True)
class Resampling:
    """The kind of bars to make.

    Attributes:
        minutes: The length of a bar, from the open on; the last one of a session may be shorter. If None, one bar per session.
        hours: Regular (from 09:30 New York) or extended (from 04:00).
    """

    minutes: int | None
    hours: Hours

    @classmethod
    def parse(cls, value: object, hours: Hours, source: Timeframe) -> Resampling:
        """Return the kind of bars that ``15Min``, ``1Hour``, ``90Min``, ``1Day`` or alpaca-py's ``TimeFrame`` stands for.

        Args:
            value: The text or ``TimeFrame``.
            hours: The hours of a session.
            source: The timeframe of the bars to compute from.

        Raises:
            InputError: If there is no such bar, or it cannot be computed from the source.
        """
        if hours is Hours.ALL:
            raise InputError("cannot resample without the open of a session; choose session='regular' or 'extended'")
        text = str(getattr(value, "value", value)).strip()
        minutes = _minutes(value, _LONGEST[hours])
        if minutes == 0:
            longest = f"{_LONGEST[hours]}Min (the length of a session)"
            raise InputError(f"cannot resample to {text!r}; choose 1Min to {longest}, whole hours (1Hour), or 1Day")
        step = _step(source)
        if not step or _COMMON[hours] % step or (minutes or _COMMON[hours]) % step:
            raise InputError(
                f"cannot make {text} bars of {hours.value} sessions from {source} bars, which must divide "
                f"{_COMMON[hours]} minutes and the new bar; use timeframe='1Min'"
            )
        return cls(minutes, hours)

    def __str__(self) -> str:
        return "1Day" if self.minutes is None else f"{self.minutes}Min"

    def needs(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Return the columns that *columns* are computed from, in the order of `VALUES`."""
        return tuple(name for name in VALUES if name in columns or (name == "volume" and "vwap" in columns))

    def bar_at(self, moment: datetime) -> tuple[datetime, TimeRange] | None:
        """Return the timestamp and the range of the bar that contains *moment*, or None outside sessions."""
        day = new_york_date(moment)
        if not is_session(day) or moment not in (session := self.hours.of(day)):
            return None
        if self.minutes is None:
            return new_york_midnight(day), session
        start = moment - (moment - session.start) % (self.minutes * _MINUTE)
        return start, TimeRange(start, min(start + self.minutes * _MINUTE, session.end))

    def end_before(self, moment: datetime) -> datetime:
        """Return the end of the last bar whose timestamp is before *moment*, or *moment* if that is later or no bar is."""
        last = moment - timedelta(microseconds=1)
        day = new_york_date(last)
        if self.minutes is None and is_session(day):
            return max(moment, self.hours.of(day).end)
        bar = self.bar_at(last)
        return moment if bar is None else bar[1].end

    def first_touched(self, moment: datetime) -> datetime:
        """Return the timestamp of the bar that contains *moment*, or *moment*: from it on, bars have minutes after *moment*."""
        day = new_york_date(moment)
        if self.minutes is None and is_session(day) and moment < self.hours.of(day).end:
            return new_york_midnight(day)
        bar = self.bar_at(moment)
        return moment if bar is None else bar[0]

    def before_forming(self, now: datetime) -> datetime:
        """Return the timestamp of the bar that is incomplete at *now*, or *now*: bars that start before it are over."""
        forming = self.bar_at(now)
        return now if forming is None else forming[0]


def check_within_sessions(timeframe: Timeframe, hours: Hours) -> None:
    """Raise if stored bars of a timeframe cross the open or the close of sessions, so that they cannot be told by their start.

    Raises:
        InputError: If they do; the message names what to use.
    """
    step = _step(timeframe)
    if hours is not Hours.ALL and step and _COMMON[hours] % step:
        raise InputError(
            f"{timeframe} bars cannot be told by {hours.value} session: one has minutes from both sides of an open or close; "
            f"use timeframe='1Min', resample='{timeframe}', session='{hours.value}'"
        )


def _step(timeframe: Timeframe) -> int:
    """Return the minutes of a bar, or 0 if it is a day or longer."""
    return {"Min": 1, "Hour": 60}.get(timeframe.unit, 0) * timeframe.amount


def _minutes(value: object, longest: int) -> int | None:
    """Return the length of a bar in minutes: None for one bar per session, 0 if there is no such bar."""
    amount, unit = parse_length(str(value) if isinstance(value, Timeframe) else value) or (0, "")
    if unit == "Day":
        return None if amount == 1 else 0
    minutes = amount * {"Min": 1, "Hour": 60}.get(unit, 0)
    return minutes if minutes <= longest else 0


def resample(table: pa.Table, bars: Resampling) -> pa.Table:
    """Return longer bars computed from shorter ones.

    They have the first open, the highest high, the lowest low, the last close and the sums of volume and trade_count; vwap is
    weighted by volume (if no shares were traded, it is the mean of the shorter bars' vwap). A vwap of zero is none: it weighs
    nothing, and is the result only if no shorter bar has another. The timestamp is the start of the
    bar; that of a daily bar is midnight in New York, as at Alpaca. A period without bars gives no bar.

    Args:
        table: The sorted bars of one series, with any of the columns of `BAR_SCHEMA` (``vwap`` needs ``volume``). Bars outside
            the hours are ignored. Incomplete sessions give incomplete bars.
        bars: The kind of bars to make.

    Returns:
        The same columns.
    """
    inside = in_hours(table, bars.hours)
    if not inside.num_rows:
        return inside.slice(0, 0)
    found = session_rows(timestamps_us(inside), bars.hours)
    if bars.minutes is None:
        first, times = found.starts, found.midnights
    else:
        first, times = _cut(timestamps_us(inside), found.opens, found.stops - found.starts, bars.minutes * 60_000_000)
    columns = [arrow(times, inside.schema.field("timestamp").type)]
    columns += [arrow(_value(inside, name, first), pa.float64()) for name in inside.column_names[1:]]
    return pa.Table.from_arrays(columns, schema=inside.schema)


def _cut(times: Int64s, opens: Int64s, counts: Int64s, step: int) -> tuple[Int64s, Int64s]:
    """Return the position of each bar's first row, and the bar's timestamp."""
    starts = times - (times - np.repeat(opens, counts)) % step
    first = np.flatnonzero(np.diff(starts, prepend=starts[0] - 1))
    return first, starts[first]


def _value(table: pa.Table, name: str, first: Int64s) -> Any:
    """Return one column of the longer bars; *first* has the position of the first row of each."""
    values = numbers(table.column(name))
    if name == "open":
        return values[first]
    if name == "close":
        return values[np.append(first[1:], values.size) - 1]
    if name == "high":
        return np.maximum.reduceat(values, first)
    if name == "low":
        return np.minimum.reduceat(values, first)
    if name == "vwap":
        return _weighted(values, numbers(table.column("volume")), first)
    return np.add.reduceat(values, first)


def _weighted(prices: Any, volumes: Any, first: Int64s) -> Any:
    """Return the mean of each bar's prices by volume, without those that are zero: Alpaca sends such a vwap for some bars."""
    priced = prices > 0
    weights = np.where(priced, volumes, 0.0)
    shares = np.add.reduceat(weights, first)
    number = np.add.reduceat(priced.astype(np.float64), first)
    traded = shares > 0
    plain = np.add.reduceat(np.where(priced, prices, 0.0), first) / np.maximum(number, 1.0)
    mean = np.where(traded, np.add.reduceat(prices * weights, first) / np.where(traded, shares, 1.0), plain)
    # A mean lies among its values; rounding may put it one step outside.
    lowest = np.minimum.reduceat(np.where(priced, prices, np.inf), first)
    highest = np.maximum.reduceat(np.where(priced, prices, 0.0), first)
    return np.where(number > 0, np.clip(mean, np.minimum(lowest, highest), highest), 0.0)
