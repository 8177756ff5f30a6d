"""Claim the sessions of imported bars: they count as covered by the user's word, with the source ``import``."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import numpy as np

from data_engine.errors import InputError
from data_engine.market.bars import Int64s, from_micros, to_micros
from data_engine.market.exchange_calendar import can_hold_bars
from data_engine.market.finality import final_before
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, new_york_date, new_york_days
from data_engine.store.coverage import Coverage

_HOUR = 3_600_000_000  # microseconds


def sessions_of(series: Series, times: Int64s, now: datetime) -> tuple[TimeRange, ...]:
    """Return the sessions in which imported bars start and that are final, one range each (weeks and months, for such bars).

    Args:
        series: The series of the bars.
        times: Their timestamps, sorted; microseconds since 1970.
        now: The current instant: what is not final yet is not claimed.

    Raises:
        InputError: If the series is adjusted: nothing says which corporate actions its prices reflect.
    """
    if not series.dataset.adjustment.is_raw:
        raise InputError(f"cannot claim {series}: nothing says which adjustment basis its prices have; import it without --claim")
    limit = final_before(series.dataset, now)
    return tuple(part for part in _periods(series.dataset, times) if part.end <= limit)


def with_claims(known: Coverage, sessions: Iterable[TimeRange]) -> Coverage:
    """Return the coverage of a series where sessions, whose bars are stored, are covered by the user's word."""
    ranges = _joined(sorted((*known.imported, *sessions), key=lambda one: one.start), known.series.dataset)
    return known.claimed(ranges) if ranges else known


def _periods(dataset: Dataset, times: Int64s) -> list[TimeRange]:
    """Return the New York days (the weeks or months, for such bars) in which bars start, in order.

    Files, and ranges with naive ends, begin at midnight UTC, which is in the evening in New York: of a first day whose bars all
    start after it, only the evening is meant.
    """
    hours = (from_micros(hour * _HOUR) for hour in np.unique(times // _HOUR))
    if dataset.timeframe.intraday:
        made = [new_york_days(day, day) for day in sorted({new_york_date(hour) for hour in hours})]
        if made and times[0] >= to_micros(evening := made[0].end.replace(hour=0)):
            made[0] = TimeRange(evening, made[0].end)
        return made
    starts = sorted({dataset.timeframe.floor(hour) for hour in hours})
    return [TimeRange(start, dataset.timeframe.next(start)) for start in starts]


def _joined(periods: Iterable[TimeRange], dataset: Dataset) -> tuple[TimeRange, ...]:
    """Return ranges in which nothing is left out between two periods if no bar can be there, such as a weekend."""
    made: list[TimeRange] = []
    for one in periods:
        gap = TimeRange(made[-1].end, one.start) if made and made[-1].end < one.start else None
        if made and (gap is None or not can_hold_bars(gap, dataset)):
            made[-1] = TimeRange(made[-1].start, one.end)
        else:
            made.append(one)
    return tuple(made)
