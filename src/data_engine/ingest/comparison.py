"""Choose the held session that tells whether the vendor's adjusted prices still have the same base. Pure."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from data_engine.ingest.bar_rate import bars_per_session
from data_engine.market.exchange_calendar import can_hold_bars, regular_hours, sessions
from data_engine.market.time_range import TimeRange, new_york_date, new_york_days, union
from data_engine.store.coverage import Coverage

_NEAR = timedelta(days=100)  # how far from a hole a session tells of its prices

_COMPARISON_BARS = 20  # of a thin series, several sessions are compared


def comparison_session(coverage: Coverage, piece: TimeRange) -> TimeRange | None:
    """Return held sessions next to a missing piece, whose bars tell whether the vendor's prices still have the same base.

    It is the day (or longer bar) of the last bar before the piece, else of the first bar after it. Where bars lie on both sides,
    or in the piece (a provisional tail), it is the last whole session that is covered before it, or the first after it: as many
    as are likely to hold some bars. None where nothing is held.
    """
    if coverage.last_bar is None or coverage.first_bar is None:
        return None
    if coverage.last_bar >= piece.start and coverage.first_bar < piece.end:
        return _covered_sessions_beside(coverage, piece)
    timeframe = coverage.series.dataset.timeframe
    before = coverage.last_bar < piece.start
    bar = coverage.last_bar if before else coverage.first_bar
    day = new_york_days(new_york_date(bar), new_york_date(bar)) if timeframe.intraday else None
    whole = _held_part(coverage, bar, day or TimeRange(timeframe.floor(bar), timeframe.next(timeframe.floor(bar))))
    return whole.before(piece.start) if before else whole.after(piece.end)


def _held_part(coverage: Coverage, bar: datetime, whole: TimeRange) -> TimeRange:
    """Return the part of a session that was answered with a bar of it: what was never asked for is not stored.

    A range is answered with the bars that start inside it, so a long bar that contains its start is not.
    """
    claims = union((*coverage.covered, *coverage.provisional, *(one.range for one in coverage.unconfirmed)))
    held = next((part for one in claims if one.start <= bar < one.end and (part := one.intersect(whole))), whole)
    timeframe = coverage.series.dataset.timeframe
    wide = timeframe.widen(held)
    return wide if wide.start == held.start else TimeRange(timeframe.next(wide.start), wide.end)


def _covered_sessions_beside(coverage: Coverage, piece: TimeRange) -> TimeRange | None:
    """Return the last covered sessions before a piece, else the first after it."""
    for part in reversed(coverage.covered):
        if part.end <= piece.start and can_hold_bars(part, coverage.series.dataset):
            return _comparison_sessions(coverage, part, latest=True)
    for part in coverage.covered:
        if part.start >= piece.end and can_hold_bars(part, coverage.series.dataset):
            return _comparison_sessions(coverage, part, latest=False)
    return None


def _comparison_sessions(coverage: Coverage, part: TimeRange, *, latest: bool) -> TimeRange:
    """Return the last (or first) sessions of a covered range that are likely to hold bars; all of a short range."""
    near = part.after(part.end - _NEAR) if latest else part.before(part.start + _NEAR)
    if near is None or coverage.series.dataset.timeframe.unit in ("Week", "Month"):
        return part
    days = list(sessions(new_york_date(near.start), new_york_date(near.end)))
    days = [day for day in days if regular_hours(day).intersect(near) == regular_hours(day)]
    if not days:
        return near
    many = math.ceil(_COMPARISON_BARS / max(bars_per_session(coverage), 0.1))
    if not coverage.series.dataset.timeframe.intraday:
        many = min(many, 5)  # of days, one a session
    chosen = days[-many:] if latest else days[:many]
    return new_york_days(chosen[0], chosen[-1]).intersect(near) or near
