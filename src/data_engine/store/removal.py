"""Compute what `remove` will remove, and remove it."""

from __future__ import annotations

from collections.abc import Sequence

from data_engine.market.bars import within
from data_engine.market.dates import DateLike, any_span
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange, difference
from data_engine.store.bar_store import BarStore
from data_engine.store.conflicts import conflict_file, refresh_conflicts
from data_engine.store.legacy_files import refuse_foreign
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
        ForeignFiles: If the folder of a series has files of the legacy pipeline, whose bars would stay.
    """
    span = any_span(start, end)
    selected = list(select_series(store.coverage, datasets, symbols))
    for series in selected:
        refuse_foreign(store.files, series)
    return [(series, span, _count(store, series, span)) for series in selected]


def _count(store: BarStore, series: Series, span: TimeRange) -> int:
    bars = 0
    for partition in store.partitions(series.dataset, series.symbol):
        shared = partition.period.span.intersect(span)
        if shared is not None:
            bars += within(store.read(series, partition.period, ["timestamp"]), shared).num_rows
    return bars


def remove_bars(store: BarStore, selected: Sequence[Series], span: TimeRange) -> dict[Series, int]:
    """Remove the bars of some series that start inside *span*, with their coverage; return how many bars of each.

    The requested ranges of all of them are withdrawn first, in one write: a store has one file for all series, and to write it
    once per series would take a time that grows with the square of their number.

    Raises:
        ForeignFiles: If the folder of a series has files of the legacy pipeline, whose bars would stay; nothing was removed.
        DamagedFile: If a file cannot be read; it is left as it is.
        StoreError: If the store cannot be written.
    """
    for series in selected:
        refuse_foreign(store.files, series)
    requested = store.coverage.requested
    requested.refresh()
    taken = dict.fromkeys(selected, (span,))
    requested.replace({series: difference(requested.of(series), taken.get(series, ())) for series in requested.series()})
    for series in selected:  # first: nobody looks for the conflicting bars of a series that is forgotten
        conflict_file(store.files, series).update(lambda known: tuple(one for one in known if one.timestamp not in span))
    removed = {series: store.remove(series, span) for series in selected}
    for series in selected:
        refresh_conflicts(store, series)
    return removed
