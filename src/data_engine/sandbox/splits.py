"""Apply splits to raw bars, with Alpaca's arithmetic and rounding."""

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
        ex_date: The first day at the new price.
        new: The number of shares after the split that replace *old* shares; 10 for 1 divides the price by 10.
        old: The number of shares before the split.
    """

    ex_date: date
    new: int
    old: int = 1


def adjusted(bars: Bars, splits: Sequence[Split], adjustment: Adjustment) -> Bars:
    """Return raw bars with splits applied if the adjustment includes them.

    Only bars before a split change: prices are divided and rounded to 2 decimals, volumes multiplied, counts left unchanged.
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

    # A reverse split leaves fractions of shares, and v is sent as an integer; a fractional replayed volume stays one.
    scaled = bars.volume * ratio
    volume = np.where(changed & (bars.volume == np.floor(bars.volume)), np.round(scaled), scaled)
    opened, high, low, close = price(bars.open), price(bars.high), price(bars.low), price(bars.close)
    return Bars(bars.start, opened, high, low, close, volume, bars.trade_count, price(bars.vwap))


def share_ratio(bars: Bars, splits: Sequence[Split]) -> Floats:
    """Return the number of today's shares that one share at the time of each bar has become."""
    ratio = np.ones(len(bars))
    for split in splits:
        ratio[bars.start < nanoseconds(new_york_midnight(split.ex_date))] *= split.new / split.old
    return ratio
