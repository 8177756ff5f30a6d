"""Tell where bars of a timeframe may start: for responses, `store`, `import` and `verify` alike.

A bar that one of them takes and another refuses would be fetched, quarantined and fetched again for ever. The same checks keep
daily bars from being stored as minutes unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
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

_ENOUGH = 8  # bars: of eight minutes of a day, one in 400,000 times all are multiples of five


def check_timestamps(tables: Mapping[str, pa.Table], dataset: Dataset, *, assumed: bool = False) -> None:
    """Raise if a bar does not start where bars of the dataset's timeframe do.

    Args:
        tables: The bars of each symbol.
        dataset: The dataset to store them in.
        assumed: Whether nothing says that the bars are of this timeframe. Then minutes that all start at hours, quarters and the
            like are refused, too.

    Raises:
        InputError: If a bar does not, or all minutes or hours are midnights, which no session has: they are daily bars.
    """
    timeframe = dataset.timeframe
    wrong = {symbol: off for symbol, table in tables.items() if (off := off_grid(timestamps_us(table), timeframe)).size}
    if wrong:
        raise InputError(_off_grid_text(wrong, sum(table.num_rows for table in tables.values()), timeframe))
    if timeframe.intraday and tables:
        every = np.concatenate([timestamps_us(table) for table in tables.values()])
        if _only_midnights(every, overnight=dataset.feed not in (Feed.SIP, Feed.IEX)):
            raise InputError("all timestamps are midnights, so these are daily bars; pass timeframe='1Day'")
        step = _common_step(np.unique(every)) if assumed else 1
        if step > 1:
            longer = "1Hour" if step == 60 else f"{step}Min"
            raise InputError(
                f"all {every.size:,} timestamps are starts of {longer} bars, and nothing says that they are minutes; "
                f"pass timeframe='{longer}' or timeframe='1Min'"
            )


def _off_grid_text(wrong: Mapping[str, Int64s], rows: int, timeframe: Timeframe) -> str:
    count = sum(off.size for off in wrong.values())
    symbol = next(iter(wrong))
    first = iso(from_micros(wrong[symbol][0]))
    if count == 1:
        text = f"1 of {rows:,} timestamps is not the start of a {timeframe} bar"
    else:
        text = f"{count:,} of {rows:,} timestamps are not starts of {timeframe} bars"
    remedy = "pass the timeframe of these bars" if 2 * count >= rows else "leave these rows out, or correct them"
    return f"{text}: {symbol} at {first}; {remedy}"


def _common_step(times: Int64s) -> int:
    """Return 60, 30, 15, 10 or 5 if so many minutes divide all distinct timestamps, which is hardly chance; else 1."""
    if times.size < _ENOUGH:
        return 1
    minutes = times // 60_000_000
    return next((step for step in (60, 30, 15, 10, 5) if not (minutes % step).any()), 1)


def off_grid(times: Int64s, timeframe: Timeframe) -> Int64s:
    """Return the timestamps at which no bar of *timeframe* starts, by `Timeframe.floor`."""
    if timeframe.intraday:
        step = int(timeframe.length.total_seconds()) * 1_000_000
        of_day = times - times // _DAY * _DAY if _DAY % step else times
        off = of_day // step * step != of_day  # in a fifth of the time that `%` takes
    elif times.size:
        first, last = (from_micros(edge).year for edge in (times.min(), times.max()))
        starts = np.concatenate([_starts(timeframe, year) for year in range(first, last + 2)])
        off = starts[np.searchsorted(starts, times)] != times
    else:
        return times
    wrong: Int64s = times[off]
    return wrong


@lru_cache(maxsize=256)
def _starts(timeframe: Timeframe, year: int) -> Int64s:
    """Return where the bars of a day or longer start in a year of UTC, which for midnights is that of New York."""
    starts, start = [], timeframe.ceil(datetime(year, 1, 1, tzinfo=UTC))
    while start.year == year:
        starts.append(to_micros(start))
        start = timeframe.next(start)
    return np.array(starts, np.int64)


def _only_midnights(times: Int64s, *, overnight: bool) -> bool:
    """Return whether all timestamps are midnights of New York, or of UTC on several days. Overnight feeds may have one."""
    if not times.size or (times % 3_600_000_000).any():
        return False
    several = np.unique(times // _DAY).size > 1
    clocks = {from_micros(time).astimezone(NEW_YORK).hour for time in np.unique(times)}
    if clocks == {0}:
        return several or not overnight
    return several and not (times % _DAY).any()
