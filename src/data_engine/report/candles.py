"""Candles for a page: one a session, made of its bars; and as few bytes as a browser can still read without a library. Pure.

A candle's numbers are written as whole numbers, as differences to what is known already (the last close, the higher of open and
close), each column by itself and its bytes sorted by weight: so deflate, which every browser undoes, finds little left to write.
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
"""Volumes are kept to 0.1 %: their logarithms are whole numbers of this; prices are kept as they are, to 0.0001 dollars."""

ROUNDED_PRICE, ROUNDED_VOLUME = 0.0005, 0.04
"""Rounded, prices are kept to 0.025 %, and volumes to 2 %."""

HEADER = struct.Struct("<IIdd")
"""How many, by what whole number prices are divided (0: they are logarithms), the step of those, and of volume's logarithms."""

_EPOCH = date(1970, 1, 1).toordinal()

_DAY = 86_400_000_000

_SCALES = (1, 100, 1000, 10_000)

_LARGEST = 2**30


@dataclass(frozen=True, slots=True)
class Candles:
    """Candles of one symbol.

    Attributes:
        times: ascending: the days' ordinals, or minutes since 1970.
        values: a row for each of `COLUMNS`.
    """

    times: Int64s
    values: Any

    def __len__(self) -> int:
        return int(self.times.size)

    def latest(self, count: int) -> Candles:
        """Return the last of them."""
        start = max(0, len(self) - count)
        return Candles(self.times[start:], self.values[:, start:])

    def since(self, time: int) -> Candles:
        """Return those from *time* on."""
        start = int(np.searchsorted(self.times, time))
        return Candles(self.times[start:], self.values[:, start:])


NOTHING = Candles(np.empty(0, np.int64), np.empty((len(COLUMNS), 0)))


def of_days(table: pa.Table) -> Candles:
    """Return daily bars, by `BAR_SCHEMA`, as they are: a bar of a day begins at midnight in New York, the same day in UTC."""
    return _finite(Candles(timestamps_us(table) // _DAY + _EPOCH, _values(table)))


def of_minutes(table: pa.Table, days: Int64s, starts: Int64s, ends: Int64s) -> Candles:
    """Return one candle of each session in which a bar of *table* starts.

    Args:
        table: bars of one series, by the columns ``timestamp`` and `COLUMNS`, sorted.
        days: ordinals of the sessions, ascending.
        starts: of each session, microseconds since 1970.
        ends: of each session, excluded.
    """
    times = timestamps_us(table)
    begin, stop = np.searchsorted(times, starts), np.searchsorted(times, ends)
    filled = np.flatnonzero(stop > begin)
    if not filled.size:
        return NOTHING
    begin, stop = begin[filled], stop[filled]
    opens, highs, lows, closes, volumes = _values(table)
    # `reduceat` goes on to the next place it is given; every other one is the end of a session.
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
    """Return bars of minutes or hours, by the columns ``timestamp`` and `COLUMNS`, as they are, by the minute."""
    return _finite(Candles(timestamps_us(table) // 60_000_000, _values(table)))


def joined(parts: Sequence[Candles]) -> Candles:
    """Return all candles of some parts, ascending; where two have the same time, the first part's."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return NOTHING
    times = np.concatenate([part.times for part in parts])
    values = np.concatenate([part.values for part in parts], axis=1)
    kept, first = np.unique(times, return_index=True)
    return Candles(kept, values[:, first])


def pack(candles: Candles, *, rounded: bool = False) -> str:
    """Return candles as the text that the page reads: base64 of a `HEADER` and deflated columns. None at all are no text.

    Args:
        candles: with times that fit into 31 bits, as they are to be read again.
        rounded: prices to 0.025 % and volumes to 2 %, where all of them do not fit.
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
    """Return candles without those of which a number is none: what is wrong with their file is said elsewhere."""
    good = np.isfinite(candles.values).all(axis=0)
    return candles if good.all() else Candles(candles.times[good], candles.values[:, good])


def _scale(prices: Any) -> int:
    """Return the least whole number that makes whole numbers of all prices, or the largest that fits them into 31 bits."""
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
    """Return whole numbers of 32 bits, small ones of either sign as small ones, all first bytes before all second ones."""
    folded = ((values << 1) ^ (values >> 63)).astype("<u4")
    return folded.view(np.uint8).reshape(-1, 4).T.tobytes()
