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

    The coverage of each takes its requested ranges over first, and the file that all series share is written once: to write it
    once per series would take a time that grows with the square of their number. So a series whose turn does not come, since
    another one cannot be read or the process is killed, is as it was.

    Raises:
        ForeignFiles: If the folder of a series has files of the legacy pipeline, whose bars would stay; nothing was removed.
        DamagedFile: If a file cannot be read; it is left as it is.
        StoreError: If the store cannot be written.
    """
    for series in selected:
        refuse_foreign(store.files, series)
        conflict_file(store.files, series).read()  # if it cannot be read, nothing is removed
    requested = store.coverage.requested
    requested.refresh()
    for series in selected:
        if requested.of(series):
            store.coverage.update(series, lambda known: known)
    taken = dict.fromkeys(selected, (span,))
    requested.replace({series: difference(requested.of(series), taken.get(series, ())) for series in requested.series()})
    return {series: _remove(store, series, span) for series in selected}


def _remove(store: BarStore, series: Series, span: TimeRange) -> int:
    removed = store.remove(series, span)
    # Afterwards: until a bar is removed, it conflicts.
    conflict_file(store.files, series).update(lambda known: tuple(one for one in known if one.timestamp not in span))
    refresh_conflicts(store, series)
    return removed
