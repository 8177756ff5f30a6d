"""Estimate how many bars a series brings. Pure."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache

from data_engine.market.exchange_calendar import count_sessions
from data_engine.market.time_range import TimeRange
from data_engine.store.coverage import Coverage


def bars_per_session(coverage: Coverage) -> float:
    """Return how many bars a session of this series brings: as it did so far, or as large companies do."""
    if coverage.bars and coverage.first_bar and coverage.last_bar:
        # A bar may start at midnight UTC, and be the only one: the end lies behind it.
        first, last = coverage.first_bar.replace(hour=0, minute=0), coverage.last_bar
        known = count_sessions(TimeRange(first, max(first, last) + timedelta(microseconds=1))) or 1
        if known >= 5:
            return coverage.bars / known
    timeframe = coverage.series.dataset.timeframe
    if timeframe.unit == "Min":
        # An index member's minutes with extended hours; the longer the bar, the fewer are empty (of 960 minutes).
        return 960 / timeframe.amount * (1 - 0.5**timeframe.amount)
    if timeframe.unit == "Hour":
        return max(1.0, 16 / timeframe.amount)
    return {"Day": 1.0, "Week": 0.21, "Month": 0.05 / timeframe.amount}[timeframe.unit]


@lru_cache(maxsize=4096)
def sessions_in(span: TimeRange) -> float:
    """Return how many sessions a range holds; a part of a day counts as a part of a session."""
    whole = count_sessions(span)
    return whole or min(1.0, span.length.total_seconds() / 57_600)
