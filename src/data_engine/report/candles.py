"""Compute candles, and pack them for the report into few bytes that a browser reads without a library.

Values are written as integers, as differences from known ones (the last close, the higher of open and close), column by column,
the bytes sorted by weight. The result compresses well with deflate, which every browser decompresses.
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.market.bars import Int64s, numbers, timestamps_us

COLUMNS = ("open", "high", "low", "close", "volume")

EXACT_VOLUME = 0.002
"""The step of volume logarithms, for a precision of 0.1 %; prices have a precision of 0.0001 dollars."""

ROUNDED_PRICE, ROUNDED_VOLUME = 0.0005, 0.04
"""The steps of logarithms if rounded, for a precision of 0.025 % of prices and 2 % of volumes."""

HEADER = struct.Struct("<IIdd")
"""The count, the divisor of prices (0: they are logarithms), the step of their logarithms, and that of volumes."""

_EPOCH = date(1970, 1, 1).toordinal()

_DAY = 86_400_000_000

_SCALES = (1, 100, 1000, 10_000)

_LARGEST = 2**30


@dataclass(frozen=True, slots=True)
class Candles:
    """The candles of one symbol.

    Attributes:
        times: The ordinals of days, or minutes since 1970, ascending.
        values: A row per column of `COLUMNS`.
    """

    times: Int64s
    values: Any

    def __len__(self) -> int:
        return int(self.times.size)

    def latest(self, count: int) -> Candles:
        """Return the last candles, at most *count*."""
        start = max(0, len(self) - count)
        return Candles(self.times[start:], self.values[:, start:])

    def since(self, time: int) -> Candles:
        """Return the candles from *time* on."""
        start = int(np.searchsorted(self.times, time))
        return Candles(self.times[start:], self.values[:, start:])


NOTHING = Candles(np.empty(0, np.int64), np.empty((len(COLUMNS), 0)))


def of_days(table: pa.Table) -> Candles:
    """Return daily bars as candles. A daily bar starts at midnight in New York, which is the same day in UTC."""
    return _finite(Candles(timestamps_us(table) // _DAY + _EPOCH, _values(table)))


def of_minutes(table: pa.Table, days: Int64s, starts: Int64s, ends: Int64s) -> Candles:
    """Return one candle per session in which a bar starts.

    Args:
        table: The bars of one series, with the columns ``timestamp`` and `COLUMNS`, sorted.
        days: The ordinals of the sessions, ascending.
        starts: The start of each session, in microseconds since 1970.
        ends: The end of each session, excluded.
    """
    times = timestamps_us(table)
    begin, stop = np.searchsorted(times, starts), np.searchsorted(times, ends)
    filled = np.flatnonzero(stop > begin)
    if not filled.size:
        return NOTHING
    begin, stop = begin[filled], stop[filled]
    opens, highs, lows, closes, volumes = _values(table)
    # `reduceat` reduces up to the next index; every second index is the end of a session.
    edges = np.column_stack([begin, stop]).ravel()
    padded = [np.append(column, column[-1]) for column in (highs, lows)]
    sums = np.concatenate([[0.0], np.cumsum(volumes)])
    made = np.vstack(
        [
            opens[begin],
            np.maximum.reduceat(padded[0], edges)[::2],
            np.minimum.reduceat(padded[1], edges)[::2],
            closes[stop - 1],
            sums[stop] - sums[begin],
        ]
    )
    return _finite(Candles(days[filled], made))


def of_bars(table: pa.Table) -> Candles:
    """Return bars of minutes or hours as candles, with times in minutes since 1970."""
    return _finite(Candles(timestamps_us(table) // 60_000_000, _values(table)))


def merge(parts: Sequence[Candles]) -> Candles:
    """Return the candles of all parts, ascending; of two with the same time, that of the first part."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return NOTHING
    times = np.concatenate([part.times for part in parts])
    values = np.concatenate([part.values for part in parts], axis=1)
    kept, first = np.unique(times, return_index=True)
    return Candles(kept, values[:, first])


def pack(candles: Candles, *, rounded: bool = False) -> str:
    """Return candles as text for the report: base64 of a `HEADER` and deflated columns; empty if there is no candle.

    Args:
        candles: The candles; their times must fit into 31 bits.
        rounded: Whether to round prices to 0.025 % and volumes to 2 %.
    """
    if not len(candles):
        return ""
    opens, highs, lows, closes, volumes = candles.values
    scale = 0 if rounded else _scale(candles.values[:4])
    step = ROUNDED_VOLUME if rounded else EXACT_VOLUME
    o, h, low, c = (_whole(column, scale) for column in (opens, highs, lows, closes))
    v = np.rint(np.log1p(np.maximum(volumes, 0)) / step).astype(np.int64)
    before = np.concatenate([[0], c[:-1]])
    columns = (_steps(candles.times), o - before, c - o, h - np.maximum(o, c), np.minimum(o, c) - low, _steps(v))
    planes = b"".join(_planes(column) for column in columns)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)  # raw: the browser's "deflate-raw"
    head = HEADER.pack(len(candles), scale, 0.0 if scale else ROUNDED_PRICE, step)
    return b64encode(head + squeeze.compress(planes) + squeeze.flush()).decode("ascii")


def _values(table: pa.Table) -> Any:
    return np.vstack([numbers(table.column(name)) for name in COLUMNS])


def _finite(candles: Candles) -> Candles:
    """Return the candles whose values are all finite; `verify` reports the others."""
    good = np.isfinite(candles.values).all(axis=0)
    return candles if good.all() else Candles(candles.times[good], candles.values[:, good])


def _scale(prices: Any) -> int:
    """Return the smallest factor that makes all prices integers, or the largest that fits them into 31 bits."""
    top = float(np.abs(prices).max())
    fitting = [scale for scale in _SCALES if top * scale < _LARGEST] or [1]
    for scale in fitting:
        scaled = prices * scale
        if np.abs(scaled - np.rint(scaled)).max() < 1e-5:
            return scale
    return fitting[-1]


def _whole(prices: Any, scale: int) -> Int64s:
    scaled = prices * scale if scale else np.log(np.maximum(prices, 1e-6)) / ROUNDED_PRICE
    whole: Int64s = np.clip(np.rint(scaled), -_LARGEST, _LARGEST).astype(np.int64)
    return whole


def _steps(values: Int64s) -> Int64s:
    return np.diff(values, prepend=0)


def _planes(values: Int64s) -> bytes:
    """Return zigzag-encoded 32-bit integers, all first bytes before all second ones."""
    folded = ((values << 1) ^ (values >> 63)).astype("<u4")
    return folded.view(np.uint8).reshape(-1, 4).T.tobytes()
