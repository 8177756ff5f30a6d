"""Compute the bars of one symbol on consecutive sessions: days directly, minutes as a path through each day's four prices.

What holds between the two, exactly: a day's open is the 09:30 minute's open, its close the close of the last regular
minute, its high and low the extremes over the regular minutes; these minutes always have bars. Volume and trade count of
the day are figures of their own, within some per cent of the sum over the minutes (Alpaca's differ too: odd lots).
All prices are raw: as printed at the time, before later splits.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from data_engine.market.exchange_calendar import is_half_day, sessions
from data_engine.sandbox.aggregation import MINUTE, midnights
from data_engine.sandbox.bar_columns import NO_BARS, Bars, Floats, Ints
from data_engine.sandbox.hash_random import Bits, bits, key, quarter, uniform
from data_engine.sandbox.symbol_profile import (
    HALF_DAY_MINUTES,
    POST_MINUTES,
    PRE_MINUTES,
    REGULAR_MINUTES,
    SLOTS,
    SymbolProfile,
    day_shape,
    symbol_profile,
)

FIRST_DAY = date(2016, 1, 4)

_FOUR_O_CLOCK = 240 * MINUTE

_SESSIONS_PER_YEAR = 252

_MINUTES_OF_THE_TAPE = 0.97


@dataclass(frozen=True, slots=True)
class Sessions:
    """Consecutive sessions.

    Attributes:
        number: The number of each session, from 0 for the first of the simulated market.
        midnight: The beginning of its day in New York, in nanoseconds since 1970.
        half: Whether it closes early.
    """

    number: Ints
    midnight: Ints
    half: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.number)

    def between(self, first: int, beyond: int) -> Sessions:
        """Return the sessions that begin at *first* or later, and before *beyond* (nanoseconds)."""
        cut = slice(*np.searchsorted(self.midnight, (first, beyond)).tolist())
        return Sessions(self.number[cut], self.midnight[cut], self.half[cut])


@lru_cache(maxsize=8)
def all_sessions(last_year: int) -> Sessions:
    """Return the sessions of the simulated market to the end of *last_year*."""
    days = list(sessions(FIRST_DAY, date(last_year + 1, 1, 1) - timedelta(days=1)))
    starts = midnights(np.array(days, "datetime64[D]"))
    return Sessions(np.arange(len(days)), starts, np.array([is_half_day(day) for day in days], bool))


def make_days(symbol: str, on: Sessions, feed: str) -> Bars:
    """Return the daily bars of *symbol*."""
    if not len(on):
        return NO_BARS
    profile = symbol_profile(symbol)
    day = _Days(profile, on)
    shares = np.floor(day.shares * day_shape(symbol, feed).trades)
    count = np.maximum(1.0, np.floor(shares / profile.trade_size))
    vwap = np.clip(np.round((day.open + day.high + day.low + day.close) / 4, 6), day.low, day.high)
    return Bars(on.midnight, day.open, day.high, day.low, day.close, shares, count, vwap)


def make_minutes(symbol: str, on: Sessions, feed: str) -> Bars:
    """Return the minute bars of *symbol*, extended hours included."""
    if not len(on):
        return NO_BARS
    profile, shape = symbol_profile(symbol), day_shape(symbol, feed)
    day = _Days(profile, on)
    slots = np.arange(SLOTS + 1)
    mixed = bits(profile.stream, (on.number[:, None] + 1) * 1024 + slots)
    kind = on.half.astype(np.intp)
    traded = quarter(mixed[:, :SLOTS], 0) < shape.chance[kind]
    if feed != "sip":
        # Every bar of one exchange is a bar of the consolidated tape too.
        wider = quarter(mixed[:, :SLOTS], 0) < day_shape(symbol, "sip").chance[kind]
        traded = wider & (uniform(key(symbol, feed), (on.number[:, None] + 1) * 1024 + slots[:SLOTS]) < shape.chance[kind])
    rows = np.arange(len(on))
    for minute in (0 * rows, day.regular - 1, day.first_extreme, day.second_extreme):
        traded[rows, PRE_MINUTES + minute] = True
    flat = np.flatnonzero(traded)
    row, slot = flat // SLOTS, flat % SLOTS
    opened = day.line(row, slot, mixed)
    closed = day.line(row, slot + 1, mixed)
    own = mixed[row, slot]
    high, low = day.wicks(row, slot, opened, closed, quarter(own, 3))
    weight = shape.weight[kind[row], slot]
    volume = np.floor(day.shares[row] * weight * _MINUTES_OF_THE_TAPE * (0.4 + 1.2 * quarter(own, 2)))
    volume = np.maximum(volume, 100 + np.floor(20 * quarter(own, 2)))
    count = np.maximum(1.0, np.floor(volume / profile.trade_size))
    vwap = np.clip(np.round(low + (high - low) * (0.3 + 0.4 * quarter(own, 2)), 6), low, high)
    return Bars(on.midnight[row] + _FOUR_O_CLOCK + slot * MINUTE, opened, high, low, closed, volume, count, vwap)


class _Days:
    """Prices and shares of consecutive sessions, and the path that the minutes take through them."""

    def __init__(self, profile: SymbolProfile, on: Sessions) -> None:
        self._profile = profile
        ratio = np.ones(len(on))
        for split in profile.splits:
            ratio[on.midnight < midnights(np.array([split.ex_date], "datetime64[D]"))[0]] *= split.new / split.old
        number = on.number
        before, today = _level(profile, number - 1), _level(profile, number)
        gap = 0.006 * (uniform(key(profile.stream, "gap"), number + 1) - 0.5)
        self.open = to_ticks(np.exp(before + 0.25 * (today - before) + gap) * ratio)
        self.close = to_ticks(np.exp(today) * ratio)
        self.evening = to_ticks(np.exp(today + _evening(profile, number)) * ratio)
        self.morning = to_ticks(np.exp(before + _evening(profile, number - 1)) * ratio)
        reach = profile.spread * uniform(key(profile.stream, "high"), number + 1) ** 1.5
        self.high = to_ticks(np.maximum(self.open, self.close) * np.exp(reach))
        reach = profile.spread * uniform(key(profile.stream, "low"), number + 1) ** 1.5
        self.low = to_ticks(np.minimum(self.open, self.close) * np.exp(-reach))
        mood = uniform(key(profile.stream, "mood"), number + 1) + uniform(key(profile.stream, "crowd"), number + 1) - 1
        self.shares = np.floor(profile.shares / ratio * np.exp(0.7 * mood) * np.where(on.half, 0.5, 1.0))
        self.regular = np.where(on.half, HALF_DAY_MINUTES, REGULAR_MINUTES)
        where = uniform(key(profile.stream, "first extreme"), number + 1)
        self.first_extreme = 1 + np.floor(where * (self.regular * 0.6)).astype(np.int64)
        where = uniform(key(profile.stream, "second extreme"), number + 1)
        room = self.regular - 12 - self.first_extreme
        self.second_extreme = self.first_extreme + 10 + np.floor(where * room).astype(np.int64)
        self._up_first = uniform(key(profile.stream, "up first"), number + 1) < 0.5

    def line(self, row: npt.NDArray[np.intp], slot: npt.NDArray[np.intp], mixed: Bits) -> Floats:
        """Return the price at the beginning of each *slot* (minutes since 04:00)."""
        minute, regular = slot - PRE_MINUTES, self.regular[row]
        first, second = self.first_extreme[row], self.second_extreme[row]
        up_first = self._up_first[row]
        peak, trough = self.high[row], self.low[row]
        corners = [
            (np.full_like(minute, -PRE_MINUTES), self.morning[row]),
            (np.zeros_like(minute), self.open[row]),
            (first, np.where(up_first, peak, trough)),
            (second, np.where(up_first, trough, peak)),
            (regular, self.close[row]),
            (regular + POST_MINUTES, self.evening[row]),
        ]
        price = corners[0][1]
        for (start, value), (end, target) in pairwise(corners):
            price = np.where(minute >= start, value + (target - value) * ((minute - start) / (end - start)), price)
        price = price * (1 + self._profile.jitter * (2 * quarter(mixed[row, slot], 1) - 1))
        inside = (minute > 0) & (minute < regular)
        price = np.where(inside, np.clip(price, trough, peak), to_ticks(price))
        price = np.where(minute == 0, self.open[row], np.where(minute == regular, self.close[row], price))
        return to_ticks(price)

    def wicks(
        self, row: npt.NDArray[np.intp], slot: npt.NDArray[np.intp], opened: Floats, closed: Floats, chance: Floats
    ) -> tuple[Floats, Floats]:
        """Return high and low of each minute; the day's own are reached in its two extreme minutes, and never exceeded."""
        upper, lower = np.maximum(opened, closed), np.minimum(opened, closed)
        high = to_ticks(upper * (1 + 0.6 * self._profile.jitter * chance))
        low = to_ticks(lower * (1 - 0.6 * self._profile.jitter * (1 - chance)))
        minute = slot - PRE_MINUTES
        regular = (minute >= 0) & (minute < self.regular[row])
        high = np.where(regular, np.minimum(high, self.high[row]), high)
        low = np.where(regular, np.maximum(low, self.low[row]), low)
        first, second, up_first = minute == self.first_extreme[row], minute == self.second_extreme[row], self._up_first[row]
        high = np.where(np.where(up_first, first, second), self.high[row], high)
        low = np.where(np.where(up_first, second, first), self.low[row], low)
        return high, low


def _level(profile: SymbolProfile, number: Ints) -> Floats:
    """Return the logarithm of the close in today's shares: waves, a drift, and a little noise of each day."""
    level = np.log(profile.price) + profile.drift * (number / _SESSIONS_PER_YEAR - 5)
    for amplitude, period, phase in profile.waves.T:
        level = level + amplitude * np.cos(2 * np.pi * number / period + phase)
    noise = uniform(key(profile.stream, "level"), number + 1) + uniform(key(profile.stream, "more"), number + 1) - 1
    return np.asarray(level + profile.day_noise * noise, np.float64)


def _evening(profile: SymbolProfile, number: Ints) -> Floats:
    return 0.004 * (uniform(key(profile.stream, "evening"), number + 1) - 0.5)


def to_ticks(price: Floats) -> Floats:
    """Return prices rounded to cents, below one dollar to hundredths of a cent."""
    return np.where(price < 1.0, np.maximum(np.round(price, 4), 0.0001), np.round(price, 2))
