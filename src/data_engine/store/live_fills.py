"""Find the fills that count: those of ranges in which Alpaca still has no bar."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from data_engine.market.bars import Int64s, timestamps_us, to_micros
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.filled import Filled
from data_engine.store.partitions import Period


def fill_of(series: Series) -> Series:
    """Return the series with the bars of other sources for the gaps of a series."""
    return replace(series, dataset=replace(series.dataset, fill=True))


def filled_by(series: Series) -> Series:
    """Return the series whose gaps a series of fill bars fills; undo `fill_of`."""
    return replace(series, dataset=replace(series.dataset, fill=False))


def live_fills(store: BarStore, series: Series, known: Coverage, span: TimeRange | None = None) -> tuple[Filled, ...]:
    """Return the filled ranges of a series in which no bar of Alpaca is stored now, by time.

    The files are looked at, not the coverage: a bar may have come in any way, such as `recheck`, `ingest --refetch` or `store`.

    Args:
        store: The store of the bars.
        series: The series whose gaps are filled.
        known: The coverage of `fill_of` the series.
        span: A range: only filled ranges that overlap it are returned. If None, all.

    Raises:
        DamagedFile: If a file of Alpaca's bars cannot be read.
    """
    files: dict[Period, Int64s] = {}  # many short gaps may lie in one file

    def is_empty(part: TimeRange) -> bool:
        for period in store.periods(series, part):
            if period not in files:
                files[period] = timestamps_us(store.read(series, period, ["timestamp"]))
            first, stop = np.searchsorted(files[period], [to_micros(part.start), to_micros(part.end)])
            if first < stop:
                return False
        return True

    near = (one for one in known.filled if span is None or one.range.intersect(span))
    return tuple(one for one in near if is_empty(one.range))
