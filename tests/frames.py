"""Frames of bars that tests store."""

from __future__ import annotations

import pandas as pd

from running import COLUMNS


def bars(symbol: str, first: str, count: int, price: float, every: str = "1min") -> pd.DataFrame:
    times = pd.date_range(first, periods=count, freq=every, tz="UTC")
    index = pd.MultiIndex.from_arrays([[symbol] * count, times], names=["symbol", "timestamp"])
    return pd.DataFrame(price, index=index, columns=list(COLUMNS))
