"""Compute when bars become final: the instant up to which Alpaca no longer revises them.

Source: docs/explanation/protocol.md. *now* is always an argument.
"""

from __future__ import annotations

from datetime import datetime, time

from data_engine.market.exchange_calendar import DAY, POST_CLOSE, PRE_OPEN, at_clock, next_session
from data_engine.market.series import Dataset, Feed
from data_engine.market.time_range import new_york_date

_SETTLED = time(20, 30)  # minutes of a day are final then: half an hour after the extended session, also on half days

_RECOMPUTED = time(10)  # the vendor has recomputed yesterday's daily bars by then


def final_before(dataset: Dataset, now: datetime) -> datetime:
    """Return the instant up to which bars of *dataset* are final at *now*, in UTC.

    Minutes and hours of a day: from 20:30 New York of that day, its extended session (20:00) and all before it. Bars of a
    day or longer: from 10:00 New York on the next session after their period, since the vendor recomputes them overnight.
    """
    timeframe = dataset.timeframe
    today = new_york_date(now)
    if timeframe.intraday:
        day = today if now >= at_clock(today, _SETTLED) else today - DAY
        if dataset.feed in (Feed.SIP, Feed.IEX):
            return timeframe.floor(at_clock(day, POST_CLOSE))
        return timeframe.floor(at_clock(day, PRE_OPEN))  # the overnight session continues after 20:00
    start = timeframe.floor(now)
    while now < at_clock(next_session(new_york_date(start) - DAY), _RECOMPUTED):
        # The period before *start* waits for the first session from *start* on.
        start = timeframe.floor(start - DAY)
    return start
