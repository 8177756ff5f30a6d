"""Tell minutes, hours, days, weeks and months apart by the timestamps of bars.

The legacy pipeline stores bars of every timeframe in ``equities_1min``, one timeframe per file. Bars that start at midnight in
New York are days or longer, since no minute of the consolidated tape or of IEX starts there. Of the others, all of a file start
on the grid of their timeframe, and hardly ever all on a coarser one by chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from math import gcd
from typing import Any

import numpy as np

from data_engine.market.bars import Int64s, from_micros
from data_engine.market.exchange_calendar import is_session
from data_engine.market.series import Timeframe
from data_engine.market.time_range import NEW_YORK, new_york_date

_HOUR = 3_600_000_000  # microseconds

_MINUTE = 60_000_000

_CHANCE = 1e-5  # that bars of a shorter timeframe all start on the grid of a longer one

_FEW = 5_000  # bars: more that share a grid are no chance, whatever the clock

DAY, WEEK, MONTH = Timeframe(1, "Day"), Timeframe(1, "Week"), Timeframe(1, "Month")

_SESSIONS_BETWEEN = {WEEK: 5, MONTH: 21}


def midnights(times: Int64s) -> Any:
    """Return which timestamps are midnights in New York, as an array of truth values."""
    found = times % _HOUR == 0
    for place in np.flatnonzero(found):
        found[place] = from_micros(times[place]).astimezone(NEW_YORK).hour == 0
    return found


def lengths_of(times: Int64s) -> frozenset[Timeframe]:
    """Return the timeframes that bars can have; one if the timestamps tell, none if there are no bars.

    Args:
        times: The timestamps, all midnights in New York or none; microseconds since 1970.
    """
    if not times.size:
        return frozenset()
    if bool(midnights(times[:1])[0]):
        return _longer([new_york_date(from_micros(time)) for time in times])
    return _intraday(times)


def _intraday(times: Int64s) -> frozenset[Timeframe]:
    if (times % _MINUTE).any():
        return frozenset()
    minutes = np.unique(times // _MINUTE)
    grid = gcd(1440, int(np.gcd.reduce(minutes % 1440)))
    chances = _independent(minutes)
    found, shortest = [1], 1
    for step in range(2, min(grid, 23 * 60) + 1):
        if grid % step or (step > 59 and step % 60) or step % shortest:
            continue
        if (shortest / step) ** chances < _CHANCE:
            found, shortest = [step], step
        else:
            found.append(step)
    return frozenset(Timeframe(step, "Min") if step < 60 else Timeframe(step // 60, "Hour") for step in found)


def _independent(minutes: Int64s) -> int:
    """Return how many bars tell something of their grid: a stock that trades in closing auctions only has one clock."""
    if minutes.size > _FEW:
        return int(minutes.size)
    clocks = Counter(from_micros(minute * _MINUTE).astimezone(NEW_YORK).time() for minute in minutes)
    return int(minutes.size) - max(clocks.values()) + 1


def _longer(days: Sequence[date]) -> frozenset[Timeframe]:
    distinct = sorted(set(days))
    found = {DAY} if all(is_session(day) for day in distinct) else set()
    fitting = {WEEK: all(day.weekday() == 0 for day in distinct), MONTH: all(day.day == 1 for day in distinct)}
    for timeframe in (timeframe for timeframe, fits in fitting.items() if fits):
        if DAY in found and (1 / _SESSIONS_BETWEEN[timeframe]) ** len(distinct) < _CHANCE:
            found.discard(DAY)
        found.add(timeframe)
    return frozenset(found)


def settle(mine: frozenset[Timeframe], neighbors: Iterable[frozenset[Timeframe]]) -> Timeframe | None:
    """Return the timeframe of a file of which the timestamps leave several, or None if its neighbors leave several, too.

    Args:
        mine: The timeframes that are possible.
        neighbors: Those of other files; only those that are decided count.
    """
    if len(mine) == 1:
        return next(iter(mine))
    decided = {timeframe for other in neighbors if len(other) == 1 for timeframe in other}
    both = [timeframe for timeframe in mine if timeframe in decided]
    return both[0] if len(both) == 1 else None
