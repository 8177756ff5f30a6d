"""Splits, and what they do to raw bars. The arithmetic is the vendor's, with its roundings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from data_engine.market.series import Adjustment
from data_engine.market.time_range import new_york_midnight
from data_engine.sandbox.bar_columns import Bars, Floats
from data_engine.sandbox.protocol import nanoseconds


@dataclass(frozen=True, slots=True)
class Split:
    """A change of the number of shares.

    Attributes:
        ex_date: the first day at the new price.
        new: how many shares there are afterwards...
        old: ...for so many before; 10 for 1 makes the price a tenth, 1 for 8 eight times as high.
    """

    ex_date: date
    new: int
    old: int = 1


def adjusted(bars: Bars, splits: Sequence[Split], adjustment: Adjustment) -> Bars:
    """Work *splits* into raw *bars* where *adjustment* says so.

    Only bars before a split change: prices are divided and rounded to 2 decimals, volumes multiplied, counts left alone.
    """
    if not len(bars) or not {"split", "all"} & set(adjustment.value.split(",")):
        return bars
    ratio = share_ratio(bars, splits)
    changed = ratio != 1.0
    if not changed.any():
        return bars

    def price(column: Floats) -> Floats:
        # Halves go up, as recorded: 1140.45 before a 10-for-1 split is 114.05.
        return np.where(changed, np.floor(column / ratio * 100 + 0.5) / 100, column)

    # A reverse split leaves fractions of shares, and v is an integer on the wire; a fractional replayed volume stays one.
    scaled = bars.volume * ratio
    volume = np.where(changed & (bars.volume == np.floor(bars.volume)), np.round(scaled), scaled)
    opened, high, low, close = price(bars.open), price(bars.high), price(bars.low), price(bars.close)
    return Bars(bars.start, opened, high, low, close, volume, bars.trade_count, price(bars.vwap))


def share_ratio(bars: Bars, splits: Sequence[Split]) -> Floats:
    """Return how many of today's shares one share of each bar's time has become."""
    ratio = np.ones(len(bars))
    for split in splits:
        ratio[bars.start < nanoseconds(new_york_midnight(split.ex_date))] *= split.new / split.old
    return ratio
