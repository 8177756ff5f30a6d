"""What `remove` would take out: a plan, before anything is touched."""

from __future__ import annotations

from collections.abc import Sequence

from data_engine.market.bars import within
from data_engine.market.dates import DateLike, any_span
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange
from data_engine.store.bar_store import BarStore
from data_engine.store.selection import DatasetFilter, select_series


def plan_removal(
    storage: BarStore, choice: DatasetFilter, names: Sequence[str], start: DateLike | None, end: DateLike | None
) -> list[tuple[Series, TimeRange, int]]:
    """Return which series lose which range, and how many bars that is.

    Args:
        storage: of the bars.
        choice: of datasets.
        names: of symbols.
        start: first day, or an instant; None is the beginning.
        end: last day, included, or an instant, excluded; None is the end.

    Raises:
        InputError: a date cannot be read, or the end is not after the start.
    """
    span = any_span(start, end)
    plan = []
    for series in select_series(storage.coverage, choice, names):
        bars = 0
        for partition in storage.partitions(series.dataset, series.symbol):
            shared = partition.period.span.intersect(span)
            if shared is not None:
                bars += within(storage.read(series, partition.period, ["timestamp"]), shared).num_rows
        plan.append((series, span, bars))
    return plan
