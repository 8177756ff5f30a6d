"""Longer bars computed from minutes, counted from the open of a session; the vendor's are counted from midnight UTC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.errors import InputError
from data_engine.market.bars import VALUES, Int64s, arrow, numbers, timestamps_us
from data_engine.market.exchange_calendar import is_session
from data_engine.market.series import Timeframe
from data_engine.market.session_hours import Hours, held, in_hours
from data_engine.market.time_range import TimeRange, new_york_date, new_york_midnight

_MINUTE = timedelta(minutes=1)

_WORDS = re.compile(r"(?P<amount>[0-9]{1,4})?\s*(?:(?P<minutes>min|minutes?|T)|(?P<hours>hours?|H)|days?|D)", re.IGNORECASE)

_LONGEST = {Hours.REGULAR: 390, Hours.EXTENDED: 960}  # minutes of a whole session

_COMMON = {Hours.REGULAR: 30, Hours.EXTENDED: 60}  # what divides every open and close, in minutes of the day


@dataclass(frozen=True, slots=True)
class Resampling:
    """Which bars are to be made.

    Attributes:
        minutes: how long a bar is, counted from the open; the last of a session may be shorter. None is one bar a session.
        hours: regular (from 09:30 New York) or extended (from 04:00).
    """

    minutes: int | None
    hours: Hours

    @classmethod
    def parse(cls, value: object, hours: Hours, source: Timeframe) -> Resampling:
        """Read what people ask for: ``15Min``, ``1Hour``, ``90Min``, ``1Day``, or alpaca-py's ``TimeFrame``.

        Args:
            value: as it was given.
            hours: of which sessions.
            source: the bars that there are.

        Raises:
            InputError: there is no such bar, or it cannot be made of these.
        """
        if hours is Hours.ALL:
            raise InputError("resample counts bars from the open of a session: choose session='regular' or 'extended'")
        text = str(getattr(value, "value", value)).strip()
        match = _WORDS.fullmatch(text)
        amount = int(match["amount"] or 1) if match else 0
        minutes = (
            None if match and not match["minutes"] and not match["hours"] else amount * (60 if match and match["hours"] else 1)
        )
        longest = _LONGEST[hours]
        if not amount or (minutes is None and amount != 1) or (minutes is not None and minutes > longest):
            raise InputError(
                f"resample {text!r}: choose 1Min to {longest}Min (the length of a session), whole hours (1Hour), or 1Day"
            )
        step = {"Min": 1, "Hour": 60}.get(source.unit, 0) * source.amount
        if not step or _COMMON[hours] % step or (minutes or _COMMON[hours]) % step:
            raise InputError(
                f"{text} bars of {hours.value} sessions cannot be made of {source} bars; "
                f"these must divide {_COMMON[hours]} minutes and the new bar: take timeframe='1Min'"
            )
        return cls(minutes, hours)

    def __str__(self) -> str:
        return "1Day" if self.minutes is None else f"{self.minutes}Min"

    def needs(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Return the columns that these are computed from, in the order of `VALUES`."""
        return tuple(name for name in VALUES if name in columns or (name == "volume" and "vwap" in columns))

    def bar_at(self, moment: datetime) -> tuple[datetime, TimeRange] | None:
        """Return the stamp of the bar whose trades *moment* is among, and the time that it is made of; None outside sessions."""
        day = new_york_date(moment)
        if not is_session(day) or moment not in (session := self.hours.of(day)):
            return None
        if self.minutes is None:
            return new_york_midnight(day), session
        start = moment - (moment - session.start) % (self.minutes * _MINUTE)
        return start, TimeRange(start, min(start + self.minutes * _MINUTE, session.end))

    def end_before(self, moment: datetime) -> datetime:
        """Return the end of the last bar that is stamped before *moment*, or *moment* where that is earlier or there is none."""
        last = moment - timedelta(microseconds=1)
        day = new_york_date(last)
        if self.minutes is None and is_session(day):
            return max(moment, self.hours.of(day).end)
        bar = self.bar_at(last)
        return moment if bar is None else bar[1].end

    def before_forming(self, now: datetime) -> datetime:
        """Return the stamp of the bar that is under way at *now*, or *now*: bars that start before it are over."""
        forming = self.bar_at(now)
        return now if forming is None else forming[0]


def resample(table: pa.Table, bars: Resampling) -> pa.Table:
    """Make longer bars of shorter ones.

    The first open, the highest high, the lowest low, the last close, the sums of volume and trade_count; vwap weighted by volume
    (where no shares were traded, the mean of the shorter bars' own). A bar is stamped with its start; a daily one with midnight
    in New York, as Alpaca does. Where there was no bar there is none.

    Args:
        table: bars of one series, sorted, with any of the columns of `BAR_SCHEMA` (``vwap`` needs ``volume``); those outside
            the hours are left out. Sessions must be whole for the bars to be.
        bars: which.

    Returns:
        The same columns.
    """
    inside = in_hours(table, bars.hours)
    if not inside.num_rows:
        return inside.slice(0, 0)
    found = held(timestamps_us(inside), bars.hours)
    if bars.minutes is None:
        first, times = found.starts, found.midnights
    else:
        first, times = _cut(timestamps_us(inside), found.opens, found.stops - found.starts, bars.minutes * 60_000_000)
    columns = [arrow(times, inside.schema.field("timestamp").type)]
    columns += [arrow(_value(inside, name, first), pa.float64()) for name in inside.column_names[1:]]
    return pa.Table.from_arrays(columns, schema=inside.schema)


def _cut(times: Int64s, opens: Int64s, counts: Int64s, step: int) -> tuple[Int64s, Int64s]:
    """Return the position of each bar's first row, and the bar's stamp."""
    starts = times - (times - np.repeat(opens, counts)) % step
    first = np.flatnonzero(np.diff(starts, prepend=starts[0] - 1))
    return first, starts[first]


def _value(table: pa.Table, name: str, first: Int64s) -> Any:
    """Return one column of the longer bars, of which *first* says where each one's rows begin."""
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
    shares = np.add.reduceat(volumes, first)
    traded = shares > 0
    plain = np.add.reduceat(prices, first) / np.diff(np.append(first, prices.size))
    mean = np.where(traded, np.add.reduceat(prices * volumes, first) / np.where(traded, shares, 1.0), plain)
    # A mean lies among its values; rounding may put it one step outside.
    return np.clip(mean, np.minimum.reduceat(prices, first), np.maximum.reduceat(prices, first))
