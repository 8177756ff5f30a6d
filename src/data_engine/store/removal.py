"""Compute what `remove` will remove, before anything is changed."""

from __future__ import annotations

from collections.abc import Sequence

from data_engine.market.bars import within
from data_engine.market.dates import DateLike, any_span
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange
from data_engine.store.bar_store import BarStore
from data_engine.store.selection import DatasetFilter, select_series


def plan_removal(
    store: BarStore, datasets: DatasetFilter, symbols: Sequence[str], start: DateLike | None, end: DateLike | None
) -> list[tuple[Series, TimeRange, int]]:
    """Return the series to remove bars from, each with the range and the number of its bars.

    Args:
        store: The store of the bars.
        datasets: The datasets to remove from.
        symbols: The symbols.
        start: The first day, or an instant. If None, the beginning.
        end: The last day, included, or an instant, excluded. If None, the end.

    Raises:
        InputError: If a date cannot be read, or the end is not after the start.
    """
    span = any_span(start, end)
    plan = []
    for series in select_series(store.coverage, datasets, symbols):
        bars = 0
        for partition in store.partitions(series.dataset, series.symbol):
            shared = partition.period.span.intersect(span)
            if shared is not None:
                bars += within(store.read(series, partition.period, ["timestamp"]), shared).num_rows
        plan.append((series, span, bars))
    return plan
