"""Compute when bars become final: the instant up to which Alpaca no longer revises them.

Source: docs/explanation/protocol.md. *now* is always an argument.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta

from data_engine.market.exchange_calendar import DAY, at_clock, is_session, next_session
from data_engine.market.series import Dataset
from data_engine.market.time_range import new_york_date, new_york_midnight

_RECOMPUTED = time(10)
"""By then the vendor has recomputed the bars of the last session, and dropped cancelled trades."""

RECENT = timedelta(days=7)
"""How long before a request a session is recent: that all of it is empty can be an outage at the vendor."""


def final_before(dataset: Dataset, now: datetime) -> datetime:
    """Return the instant up to which bars of *dataset* are final at *now*, in UTC.

    Bars of every timeframe are final from 10:00 New York on the next session after their period: minutes and hours of a Friday
    on Monday at 10:00, together with the weekend in which there are none.
    """
    timeframe = dataset.timeframe
    if timeframe.intraday:
        session = new_york_date(now)
        while not is_session(session) or now < at_clock(session, _RECOMPUTED):
            session -= DAY
        return timeframe.floor(new_york_midnight(session))
    start = timeframe.floor(now)
    while now < at_clock(next_session(new_york_date(start) - DAY), _RECOMPUTED):
        # The period before *start* waits for the first session from *start* on.
        start = timeframe.floor(start - DAY)
    return start


def recent_since(now: datetime) -> datetime:
    """Return the start of the first day whose session is recent at *now*."""
    return new_york_midnight(new_york_date(now - RECENT))
