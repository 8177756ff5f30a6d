"""Check that timestamps fit a timeframe, so that daily bars cannot be stored as minutes unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from data_engine.errors import InputError
from data_engine.market.bars import Int64s, from_micros, timestamps_us, to_micros
from data_engine.market.series import Dataset, Feed, Timeframe
from data_engine.market.time_range import NEW_YORK, iso

if TYPE_CHECKING:
    import pyarrow as pa


def in_future(times: Int64s, now: datetime) -> Int64s:
    """Return the timestamps after *now*; *times* are sorted."""
    late: Int64s = times[int(np.searchsorted(times, to_micros(now), side="right")) :]
    return late


_DAY = 86_400_000_000  # microseconds


def check_timestamps(tables: Mapping[str, pa.Table], dataset: Dataset) -> None:
    """Raise if a bar does not start where bars of the dataset's timeframe do.

    Args:
        tables: The bars of each symbol.
        dataset: The dataset to store them in.

    Raises:
        InputError: If a bar does not, or all minutes or hours are midnights, which no session has: they are daily bars.
    """
    timeframe = dataset.timeframe
    for symbol, table in tables.items():
        wrong = off_grid(timestamps_us(table), timeframe)
        if wrong.size:
            first = iso(from_micros(wrong[0]))
            raise InputError(f"{symbol}: {first} is not the start of a {timeframe} bar; pass the timeframe of these bars")
    if timeframe.intraday and tables:
        every = np.concatenate([timestamps_us(table) for table in tables.values()])
        if _only_midnights(every, overnight=dataset.feed not in (Feed.SIP, Feed.IEX)):
            raise InputError("all timestamps are midnights, so these are daily bars; pass timeframe='1Day'")


def off_grid(times: Int64s, timeframe: Timeframe) -> Int64s:
    """Return the timestamps at which no bar of *timeframe* starts."""
    if timeframe.intraday:
        step = int(timeframe.length.total_seconds()) * 1_000_000
        off = times % _DAY % step != 0
    else:
        off = np.array([timeframe.floor(from_micros(time)) != from_micros(time) for time in times], dtype=bool)
    wrong: Int64s = times[off]
    return wrong


def _only_midnights(times: Int64s, *, overnight: bool) -> bool:
    """Return whether all timestamps are midnights of New York, or of UTC on several days. Overnight feeds may have one."""
    if not times.size or (times % 3_600_000_000).any():
        return False
    several = np.unique(times // _DAY).size > 1
    clocks = {from_micros(time).astimezone(NEW_YORK).hour for time in np.unique(times)}
    if clocks == {0}:
        return several or not overnight
    return several and not (times % _DAY).any()
