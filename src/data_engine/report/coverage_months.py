"""Compute the coverage of series by month: final, provisional, missing or not requested sessions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np

from data_engine.market.bars import Int64s, to_micros
from data_engine.market.dates import any_span
from data_engine.market.exchange_calendar import session_range, session_starts, sessions
from data_engine.market.series import Dataset
from data_engine.market.time_range import TimeRange, new_york_date, new_york_days, union
from data_engine.read.holdings import unverified
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Period

STATES = (
    "no_session",
    "not_requested",
    "complete",
    "provisional",
    "requested",
    "partial",
    "missing",
    "empty",
    "unverified",
    "filled",
)
"""The states of a month, by index.

``no_session``: no session has begun (of days and longer: no bar has ended). ``not_requested``: no part is requested.
``complete``: all sessions are covered. ``provisional``: all sessions are covered or provisional. ``requested``: the same, but
only for the requested part of the month. ``partial``: some requested sessions are missing. ``missing``: all are. ``empty``: all
sessions are covered, without bars. ``unverified``: no part is requested, and bars are stored: `store` or an import brought them.
``filled``: the same of a dataset of fill bars.
"""

NO_SESSION, NOT_REQUESTED, COMPLETE, PROVISIONAL, REQUESTED, PARTIAL, MISSING, EMPTY, UNVERIFIED, FILLED = range(len(STATES))

_LEAST = timedelta(microseconds=1)

Month = tuple[int, int]
"""A year and a month from 1 to 12, in New York."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """The sessions of a dataset by month; for bars of a day or longer, the bars.

    Attributes:
        now: The current time; from the bar on that contains it, nothing is missing yet.
        months: The months, consecutive and ascending.
        starts: The start of each session that has begun and each such bar that has ended, in microseconds since 1970, ascending.
        ends: The end of each session.
        month: The index in *months* of each session.
    """

    now: datetime
    months: tuple[Month, ...]
    starts: Int64s
    ends: Int64s
    month: Int64s

    @property
    def counts(self) -> Int64s:
        """The number of sessions per month."""
        return np.bincount(self.month, minlength=len(self.months)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Months:
    """The coverage of one series by month of a `Calendar`.

    Attributes:
        states: The states, as indices of `STATES`.
        final: The number of covered sessions.
        provisional: The number of provisional sessions.
        missing: The number of sessions of which a requested part is missing.
        bars: The number of bars in the file of the month; in January for files of a year.
    """

    states: Any
    final: Int64s
    provisional: Int64s
    missing: Int64s
    bars: Int64s


def calendar_of(dataset: Dataset, first: date, last: date, now: datetime) -> Calendar:
    """Return the sessions that have begun (of days and longer: the bars that have ended) in the months of *first* to *last*.

    Args:
        dataset: The dataset: a session of minutes spans its trading hours (for feeds with other hours, the day); a daily bar
            starts at midnight in New York.
        first: The first New York day.
        last: The last New York day.
        now: The current time.
    """
    months = [(year, month) for year in range(first.year, last.year + 1) for month in range(1, 13)]
    months = months[first.month - 1 : len(months) - 12 + last.month]
    after = date(last.year + last.month // 12, last.month % 12 + 1, 1)
    until = min(after - timedelta(days=1), new_york_date(now))
    # Minutes of a session that has begun are stored; a longer bar only once it has ended.
    limit = now if dataset.timeframe.intraday else dataset.timeframe.floor(now)
    spans = [span for span in _sessions(dataset, date(first.year, first.month, 1), until) if span.start < limit]
    place = {month: number for number, month in enumerate(months)}
    days = [new_york_date(span.start) for span in spans]
    kept = [(span, place[day.year, day.month]) for span, day in zip(spans, days, strict=True) if (day.year, day.month) in place]
    starts, ends = ([to_micros(getattr(span, side)) for span, _ in kept] for side in ("start", "end"))
    return Calendar(
        now, tuple(months), *(np.array(values, np.int64) for values in (starts, ends, [number for _, number in kept]))
    )


def months_of(coverage: Coverage, calendar: Calendar) -> Months:
    """Return the coverage of a series by month."""
    fetched = union((*coverage.covered, *coverage.provisional))
    final = _inside(calendar, coverage.covered)
    missing = _overlapping(calendar, coverage.incomplete(any_span(None, None), calendar.now)) & ~final
    # The rest of today's session is not requested yet.
    provisional = (_inside(calendar, fetched) | _overlapping(calendar, coverage.provisional)) & ~final & ~missing
    requested = _overlapping(calendar, union((*coverage.wanted, *fetched)))
    imported = _overlapping(calendar, unverified(coverage))
    total, finals, provisionals, missings, requesteds, unverifieds = (
        np.bincount(calendar.month[mask], minlength=len(calendar.months)).astype(np.int64)
        for mask in (np.ones(calendar.starts.size, bool), final, provisional, missing, requested, imported)
    )
    stored, bars = finals + provisionals, _bars(coverage, calendar)
    states = {
        NO_SESSION: total == 0,
        FILLED if coverage.series.dataset.fill else UNVERIFIED: (requesteds == 0) & (unverifieds > 0),
        NOT_REQUESTED: requesteds == 0,
        MISSING: (missings > 0) & (stored == 0),
        PARTIAL: missings > 0,
        REQUESTED: stored < total,
        PROVISIONAL: provisionals > 0,
        EMPTY: _empty(coverage, calendar, bars),
    }
    state = np.select(list(states.values()), list(states), COMPLETE).astype(np.uint8)
    return Months(state, finals, provisionals, missings, bars)


def _sessions(dataset: Dataset, first: date, last: date) -> Iterable[TimeRange]:
    timeframe = dataset.timeframe
    if not timeframe.intraday:
        starts = sorted({timeframe.floor(start) for start in session_starts(new_york_days(first, last))})
        return [TimeRange(start, start + _LEAST) for start in starts]
    return [session_range(dataset, day) for day in sessions(first, last)]


def reach_of(coverages: Iterable[Coverage], now: datetime) -> tuple[date, date]:
    """Return the first and the last New York day that is requested, covered or stored, at most that of *now*."""
    firsts, lasts = [], []
    for coverage in coverages:
        for piece in (*coverage.wanted, *coverage.covered):
            firsts.append(new_york_date(piece.start))
            lasts.append(new_york_date(piece.end - _LEAST))
        months = [date(period.year, period.month, 1) for period in coverage.rows if period.month is not None]
        ends = [new_york_date(bar) for bar in (coverage.first_bar, coverage.last_bar) if bar is not None]
        firsts += months + ends
        lasts += months + ends
    today = new_york_date(now)
    last = min(max(lasts, default=today), today)
    return min(min(firsts, default=last), last), last


def _inside(calendar: Calendar, ranges: Iterable[TimeRange]) -> Any:
    """Tell for each session whether it lies in one of the ranges."""
    mask = np.zeros(calendar.starts.size, bool)
    for piece in ranges:
        mask |= (calendar.starts >= to_micros(piece.start)) & (calendar.ends <= to_micros(piece.end))
    return mask


def _overlapping(calendar: Calendar, ranges: Iterable[TimeRange]) -> Any:
    """Tell for each session whether it overlaps one of the ranges."""
    mask = np.zeros(calendar.starts.size, bool)
    for piece in ranges:
        mask |= (calendar.starts < to_micros(piece.end)) & (calendar.ends > to_micros(piece.start))
    return mask


def _bars(coverage: Coverage, calendar: Calendar) -> Int64s:
    """Return the number of bars in each month's file. Files are by UTC month: the last evening is in the next one."""
    place = {month: number for number, month in enumerate(calendar.months)}
    bars = np.zeros(len(calendar.months), np.int64)
    for period, count in coverage.rows.items():
        number = place.get(_month(period))
        if number is not None:
            bars[number] += count
    return bars


def _empty(coverage: Coverage, calendar: Calendar, bars: Int64s) -> Any:
    """Tell for each month whether it has no bar; for files of a year, whether it is before the first bar or after the last.

    A year without a file has no bar, either.
    """
    if coverage.series.dataset.timeframe.intraday:
        return bars == 0
    if coverage.first_bar is None:
        return np.ones(len(calendar.months), bool)
    first, last = new_york_date(coverage.first_bar), new_york_date(coverage.last_bar or coverage.first_bar)
    known = coverage.last_bar is not None
    years = {period.year for period in coverage.rows}
    return np.array(
        [
            month < (first.year, first.month) or (known and month > (last.year, last.month)) or month[0] not in years
            for month in calendar.months
        ],
        bool,
    )


def _month(period: Period) -> Month:
    return period.year, period.month or 1
