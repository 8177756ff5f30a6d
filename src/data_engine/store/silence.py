"""Tell which series have fallen silent: nothing says that they have ended, and Alpaca has had no bar of them for long."""

from __future__ import annotations

from datetime import date, timedelta

from data_engine.market.time_range import TimeRange, difference, new_york_date
from data_engine.store.coverage import Coverage

SILENCE = timedelta(days=30)
"""The time without a bar after which a series that has not ended is named: it may be suspended, or delisted without an action."""


def silent_since(known: Coverage) -> date | None:
    """Return the New York day of the last bar, if a covered range follows it that is longer than `SILENCE`; None if not."""
    if known.last_bar is None or not known.covered:
        return None
    end = known.last_bar + known.series.dataset.timeframe.length
    if known.covered[-1].end - end <= SILENCE or difference([TimeRange(end, known.covered[-1].end)], known.covered):
        return None
    return new_york_date(known.last_bar)
