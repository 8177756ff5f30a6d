"""Compute bars for any symbol and range, the same in every run, on the exchange's real calendar: `SimulatedMarket`.

Only the calendar, the dates of a few splits (`SPLITS`) and of two ticker changes (`TICKER_CHANGES`) are real. Symbols that
start with ``ZZZ`` are unknown; all others are listed since 2016-01-04 (on ``iex`` since 2020-08-03). A symbol's liquidity
follows from its name: well-known ones trade in nearly every minute from 04:00 to 20:00, most have 400 to 600 bars per day, some
are illiquid. There are no dividends, and no bars of ``otc`` and ``boats``.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

import numpy as np

from data_engine.market.exchange_calendar import extended_hours, is_session
from data_engine.market.series import Adjustment, Timeframe
from data_engine.market.time_range import TimeRange, new_york_date, new_york_midnight
from data_engine.sandbox.aggregation import MINUTE, to_days, to_intraday, to_periods
from data_engine.sandbox.assets import Assets
from data_engine.sandbox.bar_columns import NO_BARS, Bars, concatenate
from data_engine.sandbox.corporate_actions import Announcements
from data_engine.sandbox.listings import Listing
from data_engine.sandbox.protocol import nanoseconds
from data_engine.sandbox.simulation import FIRST_DAY, Sessions, all_sessions, make_days, make_minutes
from data_engine.sandbox.splits import adjusted
from data_engine.sandbox.symbol_profile import FAMOUS, SPLITS, symbol_profile

_FIRST_DAYS = {"sip": FIRST_DAY, "iex": date(2020, 8, 3)}

_A_DAY = timedelta(hours=26)  # longer than any day in New York

_MINUTES_KEPT = 32

TICKER_CHANGES = ((date(2022, 2, 14), "VIAC", "PARA"), (date(2022, 6, 9), "FB", "META"))
"""The ticker changes that the market announces. Its bars do not reflect them: each name has its own prices, at all times."""


_OVER_THE_COUNTER = (Listing("TCEHY", "TCEHY"), Listing("LEHMQ", "LEHMQ", None, date(2018, 12, 31)))

_ONE_DAY = timedelta(days=1)

_LISTED = (
    *(Listing(old, f"the company of {new}", None, day - _ONE_DAY) for day, old, new in TICKER_CHANGES),
    *(Listing(new, f"the company of {new}", day) for day, _, new in TICKER_CHANGES),
    Listing("META", "a fund that had the ticker before", None, date(2022, 1, 31)),
    *(Listing(symbol, symbol) for symbol in sorted(FAMOUS - {new for _, _, new in TICKER_CHANGES})),
    *_OVER_THE_COUNTER,
)


class SimulatedMarket:
    """A source of simulated bars. All instances are the same market. Safe to share between threads."""

    mark = "simulated market"
    announcements = Announcements.of(SPLITS, TICKER_CHANGES)
    assets = Assets(_LISTED, otc=[one.security for one in _OVER_THE_COUNTER])

    def __init__(self) -> None:
        self._raw_minutes = lru_cache(_MINUTES_KEPT)(self._make_minutes)

    def reach(self, symbol: str, feed: str, now: datetime) -> TimeRange | None:
        """Return the range from a symbol's first day to *now*."""
        if symbol.startswith("ZZZ") or feed not in _FIRST_DAYS:
            return None
        start = new_york_midnight(_FIRST_DAYS[feed])
        return TimeRange(start, now.astimezone(UTC)) if start < now else None

    def bars(
        self, symbol: str, timeframe: Timeframe, span: TimeRange, *, adjustment: Adjustment, feed: str, now: datetime
    ) -> Bars:
        """Return the bars that start inside *span*, made of the minutes that had ended at *now*."""
        reach = self.reach(symbol, feed, now)
        if reach is None:
            return NO_BARS
        whole = timeframe.widen(span).intersect(timeframe.widen(reach))
        if whole is None:
            return NO_BARS
        splits = symbol_profile(symbol).splits
        if timeframe.intraday:
            minutes = adjusted(self._minutes(symbol, whole, feed, now), splits, adjustment)
            return to_intraday(minutes, timeframe).inside(span)
        days = adjusted(self._days(symbol, whole, feed, now), splits, adjustment)
        return to_periods(days, timeframe).inside(span)

    def _minutes(self, symbol: str, span: TimeRange, feed: str, now: datetime) -> Bars:
        bars = self._raw_minutes(symbol, span, feed)
        ended = nanoseconds(now) // MINUTE * MINUTE
        return bars.take(slice(0, int(np.searchsorted(bars.start, ended))))

    def _days(self, symbol: str, span: TimeRange, feed: str, now: datetime) -> Bars:
        today = new_york_date(now)
        midnight = new_york_midnight(today)
        if not is_session(today) or now >= extended_hours(today).end:
            midnight = new_york_midnight(today + timedelta(days=1))
        past = span.before(midnight)
        finished = NO_BARS if past is None else make_days(symbol, _sessions(past, feed), feed)
        current = span.after(midnight)
        if current is None or not is_session(today) or now < midnight:
            return finished
        return concatenate((finished, to_days(self._minutes(symbol, extended_hours(today), feed, now))))

    def _make_minutes(self, symbol: str, span: TimeRange, feed: str) -> Bars:
        reached = TimeRange(span.start - _A_DAY, span.end)
        return make_minutes(symbol, _sessions(reached, feed), feed).inside(span)


def _sessions(span: TimeRange, feed: str) -> Sessions:
    first = max(nanoseconds(span.start), nanoseconds(new_york_midnight(_FIRST_DAYS[feed])))
    return all_sessions(span.end.year // 10 * 10 + 9).between(first, nanoseconds(span.end))
