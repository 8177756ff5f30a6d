"""Compute coarser bars from finer ones, as Alpaca does.

Minutes become N-minute and N-hour bars; minutes become days (prices of the regular session only, volume and count of the
extended one); days become weeks and months. All of it in numpy: a year of minutes takes a few hundredths of a second.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from data_engine.market.exchange_calendar import is_half_day, is_session
from data_engine.market.series import Timeframe
from data_engine.market.time_range import NEW_YORK, new_york_midnight
from data_engine.sandbox.bar_columns import NO_BARS, Bars, Floats, Ints
from data_engine.sandbox.protocol import nanoseconds

MINUTE = 60 * 1_000_000_000

HOUR = 60 * MINUTE

DAY = 24 * HOUR

_OPEN, _CLOSE, _EARLY_CLOSE = 570, 960, 780  # minutes since midnight in New York

Dates = npt.NDArray[np.datetime64]


def to_intraday(minutes: Bars, timeframe: Timeframe) -> Bars:
    """Return N-minute or N-hour bars, aligned as `Timeframe.floor` says; finer bars are returned as they are."""
    length = timeframe.length // timedelta(microseconds=1) * 1000
    midnight = minutes.start // DAY * DAY
    return _group(minutes, midnight + (minutes.start - midnight) // length * length)


def to_days(minutes: Bars) -> Bars:
    """Return daily bars; a day without a minute of the regular session has none."""
    local = minutes.start + new_york_offsets(minutes.start)
    day = local // DAY
    minute = (local % DAY) // MINUTE
    regular = (minute >= _OPEN) & (minute < _each(_regular_close, day.astype("datetime64[D]")))
    days = _group(minutes.take(regular), day[regular])
    if not len(days):
        return NO_BARS
    slot = np.searchsorted(days.start, day)
    slot[slot == len(days)] = 0
    known = days.start[slot] == day
    volume = _sums(slot[known], minutes.volume[known], len(days))
    count = _sums(slot[known], minutes.trade_count[known], len(days))
    starts = midnights(days.start.astype("datetime64[D]"))
    return Bars(starts, days.open, days.high, days.low, days.close, volume, count, days.vwap)


def to_periods(days: Bars, timeframe: Timeframe) -> Bars:
    """Return weekly or monthly bars, made of daily ones."""
    local = ((days.start + new_york_offsets(days.start)) // DAY).astype("datetime64[D]")
    if timeframe.unit == "Week":
        number = local.astype(np.int64)
        first: Dates = (number - (number + 3) % 7).astype("datetime64[D]")  # day 0 was a Thursday
    elif timeframe.unit == "Month":
        months = local.astype("datetime64[M]").astype(np.int64)
        first = (months // timeframe.amount * timeframe.amount).astype("datetime64[M]").astype("datetime64[D]")
    else:
        return days
    return _group(days, midnights(first))


def midnights(days: Dates) -> Ints:
    """Return when each of *days* (dates) begins in New York, in nanoseconds since 1970."""
    return _each(_midnight, days)


def new_york_offsets(starts: Ints) -> Ints:
    """Return what to add to each instant to read New York's wall clock, in nanoseconds."""
    return _each(_offset, starts // HOUR)


def _each(function: Callable[[Any], int], values: Ints | Dates) -> Ints:
    """Return what *function* returns for each value, called once per distinct value."""
    unique, inverse = np.unique(values, return_inverse=True)
    return np.array([function(value) for value in unique.tolist()], np.int64)[inverse]


@lru_cache(maxsize=200_000)
def _offset(hour: int) -> int:
    shift = datetime.fromtimestamp(hour * 3600, UTC).astimezone(NEW_YORK).utcoffset()
    return 0 if shift is None else shift // timedelta(microseconds=1) * 1000


@lru_cache(maxsize=20_000)
def _midnight(day: date) -> int:
    return nanoseconds(new_york_midnight(day))


@lru_cache(maxsize=20_000)
def _regular_close(day: date) -> int:
    if not is_session(day):
        return 0
    return _EARLY_CLOSE if is_half_day(day) else _CLOSE


def _sums(slots: npt.NDArray[np.intp], values: Floats, number: int) -> Floats:
    return np.asarray(np.round(np.bincount(slots, values, number), 6), np.float64)


def _group(bars: Bars, keys: Ints) -> Bars:
    """Fold the bars of equal *keys* (ascending) into one, which starts at the key."""
    if not len(bars):
        return NO_BARS
    first = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    if len(first) == len(bars):
        return Bars(keys, *bars.values)
    last = np.concatenate((first[1:], [len(bars)])) - 1
    high, low = np.maximum.reduceat(bars.high, first), np.minimum.reduceat(bars.low, first)
    volume = np.add.reduceat(bars.volume, first)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.add.reduceat(bars.vwap * bars.volume, first) / volume
    vwap = np.where(volume > 0, np.round(mean, 6), bars.close[last])
    count = np.add.reduceat(bars.trade_count, first)
    # Sums of fractional volumes gather noise in the last digits.
    whole: Floats = np.asarray(np.round(volume, 6), np.float64)
    return Bars(keys[first], bars.open[first], high, low, bars.close[last], whole, count, np.clip(vwap, low, high))
