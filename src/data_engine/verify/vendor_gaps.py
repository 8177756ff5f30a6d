"""Find the gaps of one series that `verify` reports as bars missing at Alpaca, and in which bars of another source may be put."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from data_engine.market.bars import from_micros
from data_engine.market.exchange_calendar import regular_hours
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange, difference, new_york_date, union
from data_engine.store.bar_store import BarStore
from data_engine.verify.gaps import Presence, absent_bars, find_gaps
from data_engine.verify.missing_minutes import lacking_minutes
from data_engine.verify.series_check import check_series
from data_engine.verify.verify import presence_of


def vendor_gaps(storage: BarStore, series: Series, *, now: datetime) -> tuple[TimeRange, ...]:
    """Return the ranges in which a series lacks bars at Alpaca.

    These are the absent bars of the warnings ``gap``, ``minutes_missing`` and ``session_sparse``, as far as Alpaca has responded
    completely and finally there: not what was only imported, is provisional, or was never fetched.

    Args:
        storage: The store.
        series: The series.
        now: The current time.

    Returns:
        The ranges, half open, by time, disjoint. Each lies in the regular hours of one session, or is that of one bar of a day
        or longer.

    Raises:
        StoreError: If requested ranges cannot be read.
    """
    checked = check_series(storage, series, now=now)
    if checked.coverage is None:
        return ()
    filled = presence_of(checked, checked.coverage.covered)
    answered = difference(checked.coverage.covered, checked.coverage.imported)
    gaps, _ = find_gaps(series.dataset, [filled])  # whether others lack the same bars does not matter here
    sparse = [new_york_date(from_micros(midnight)) for midnight in checked.sparse]
    found = (*(gap.span for gap in gaps), *_minutes(filled), *absent_bars(filled, sparse))
    spans = sorted({span for span in found if not difference((span,), answered)})
    return union(spans) if series.dataset.timeframe.intraday else tuple(spans)  # days that follow each other stay apart


def _minutes(filled: Presence) -> Iterator[TimeRange]:
    """Yield the bars that are absent session after session."""
    timeframe = filled.series.dataset.timeframe
    for one in lacking_minutes(filled):
        for day in one.days:
            start = timeframe.floor(regular_hours(day).start) + one.place * timeframe.length
            yield TimeRange(start, start + timeframe.length)
