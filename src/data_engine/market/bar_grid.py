"""Which stamps bars of a timeframe can have, so that days cannot land among minutes unnoticed. Pure."""

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
    """Return the stamps that lie after *now*; times are sorted."""
    late: Int64s = times[int(np.searchsorted(times, to_micros(now), side="right")) :]
    return late


_DAY = 86_400_000_000  # microseconds


def check_stamps(tables: Mapping[str, pa.Table], dataset: Dataset) -> None:
    """Check that every bar starts where bars of the dataset's timeframe do.

    Args:
        tables: bars by symbol.
        dataset: that they are to be stored in.

    Raises:
        InputError: one does not; or minutes or hours are all midnights, which no session has: they are daily bars.
    """
    timeframe = dataset.timeframe
    for symbol, table in tables.items():
        wrong = off_grid(timestamps_us(table), timeframe)
        if wrong.size:
            stamp = iso(from_micros(wrong[0]))
            raise InputError(f"{symbol}: {stamp} is not the start of a {timeframe} bar; say which timeframe these bars have")
    if timeframe.intraday and tables:
        every = np.concatenate([timestamps_us(table) for table in tables.values()])
        if _only_midnights(every, overnight=dataset.feed not in (Feed.SIP, Feed.IEX)):
            raise InputError("every stamp is a midnight: these are daily bars; say timeframe='1Day'")


def off_grid(times: Int64s, timeframe: Timeframe) -> Int64s:
    """Return the stamps that are not where a bar of *timeframe* starts."""
    if timeframe.intraday:
        step = int(timeframe.length.total_seconds()) * 1_000_000
        off = times % _DAY % step != 0
    else:
        off = np.array([timeframe.floor(from_micros(time)) != from_micros(time) for time in times], dtype=bool)
    wrong: Int64s = times[off]
    return wrong


def _only_midnights(times: Int64s, *, overnight: bool) -> bool:
    """Tell whether all stamps are midnights of New York, or of UTC on several days. Only overnight feeds have one by chance."""
    if not times.size or (times % 3_600_000_000).any():
        return False
    several = np.unique(times // _DAY).size > 1
    clocks = {from_micros(time).astimezone(NEW_YORK).hour for time in np.unique(times)}
    if clocks == {0}:
        return several or not overnight
    return several and not (times % _DAY).any()
