"""Estimate how many bars a series brings. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from data_engine.market.exchange_calendar import count_sessions
from data_engine.market.series import Timeframe
from data_engine.market.time_range import TimeRange
from data_engine.store.coverage import Coverage

_LEARNT_SESSIONS = 5  # of fewer, a series tells nothing about itself

_LEARNT_SERIES = 20  # of fewer, the known series of a run tell nothing about the others

_FILLED = 0.5  # of the 960 minutes of extended hours, of a member of a large index

_MARKET = ((500, 1.0), (1_500, 0.79), (2_000, 0.48))
"""The market by size: so many symbols, and the share of the minutes of a large company that each of them fills."""

_REST = 0.1  # share of all others: small companies, most funds, preferred stock, warrants


def bars_per_session(coverage: Coverage) -> float:
    """Return how many bars a session of this series brings: as it did so far, or as large companies do."""
    return _learnt(coverage) or market_rate(coverage.series.dataset.timeframe, 1)


def expected_rates(known: Sequence[Coverage]) -> Mapping[str, float]:
    """Return how many bars a session of each series of one dataset is expected to bring, by symbol.

    A series goes on as it did so far. One without bars brings what a member of a list of this length does in the market, and the
    more series of the list are known, the more it brings what they do on average.
    """
    learnt = {one.series.symbol: rate for one in known if (rate := _learnt(one)) is not None}
    if len(learnt) == len(known):
        return learnt
    other = market_rate(known[0].series.dataset.timeframe, len(known))
    if len(learnt) >= _LEARNT_SERIES:
        other = (sum(learnt.values()) + (len(known) - len(learnt)) * other) / len(known)
    return {one.series.symbol: learnt.get(one.series.symbol, other) for one in known}


def market_rate(timeframe: Timeframe, count: int) -> float:
    """Return how many bars a session brings on average for the *count* largest symbols of the market."""
    left, total = max(1, count), 0.0
    for symbols, share in (*_MARKET, (left, _REST)):
        total += min(symbols, left) * _rate(timeframe, share)
        left -= min(symbols, left)
    return total / max(1, count)


def _learnt(coverage: Coverage) -> float | None:
    """Return how many bars a session of a series brought so far, or None if too few are known."""
    if not coverage.first_bar or not coverage.last_bar or not (bars := coverage.bars):
        return None
    known = _sessions_between(coverage.first_bar, coverage.last_bar)
    return bars / known if known >= _LEARNT_SESSIONS else None


@lru_cache(maxsize=4096)  # most series of a store have the same first and last bar
def _sessions_between(first: datetime, last: datetime) -> int:
    # A bar may start at midnight UTC, and be the only one: the end lies behind it.
    start = first.replace(hour=0, minute=0)
    return count_sessions(TimeRange(start, max(start, last) + timedelta(microseconds=1))) or 1


def _rate(timeframe: Timeframe, share: float) -> float:
    """Return how many bars a session brings for a symbol that fills a share of the minutes that a large company does."""
    empty = 1 - _FILLED * share
    if timeframe.unit == "Min":  # the longer the bar, the fewer are empty
        return 960 / timeframe.amount * (1 - empty**timeframe.amount)
    if timeframe.unit == "Hour":
        return max(1.0, 16 / timeframe.amount) * (1 - empty ** (60 * timeframe.amount))
    return {"Day": 1.0, "Week": 0.21, "Month": 0.05 / timeframe.amount}[timeframe.unit]


@lru_cache(maxsize=4096)
def sessions_in(span: TimeRange) -> float:
    """Return how many sessions a range holds; a part of a day counts as a part of a session."""
    whole = count_sessions(span)
    return whole or min(1.0, span.length.total_seconds() / 57_600)
