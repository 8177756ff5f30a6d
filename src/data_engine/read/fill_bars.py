"""Join bars of other sources into the gaps of Alpaca's bars that they fill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from data_engine.errors import InputError
from data_engine.market.bars import Int64s, timestamps_us, to_micros
from data_engine.read.bar_query import BarQuery
from data_engine.read.holdings import Holdings
from data_engine.store.bar_store import BarStore
from data_engine.store.filled import Filled
from data_engine.store.live_fills import fill_of, live_fills


def with_fills(store: BarStore, query: BarQuery, holdings: Holdings) -> BarQuery:
    """Return a query with the filled ranges of its symbols; bar files are read only of symbols that have some.

    Args:
        store: The store of the bars.
        query: The query; its dataset is the one that is read.
        holdings: The coverage of the call.

    Raises:
        InputError: If the bars to read are not raw.
        StoreError: If a coverage or a file cannot be read.
    """
    if not query.dataset.adjustment.is_raw:
        raise InputError(
            f"cannot use fill=True with prices that Alpaca adjusted ({query.dataset.name}): bars of other sources are raw; "
            "pass prices='computed'"
        )
    fills: dict[str, tuple[Filled, ...]] = {}
    for series in query.series:
        known = holdings.coverage(fill_of(series))
        if known.filled and (live := live_fills(store, series, known, query.reach)):
            fills[series.symbol] = live
    return replace(query, fills=fills)


def joined(table: pa.Table, fill: pa.Table, ranges: Sequence[Filled]) -> tuple[pa.Table, list[tuple[Filled, int]]]:
    """Return bars of Alpaca and those of other sources in filled ranges, sorted, and how many came into each range.

    A range in which there is a bar of Alpaca gets none, so that no timestamp is there twice.

    Args:
        table: The bars of Alpaca, sorted.
        fill: The bars of other sources with the same columns, sorted; those outside of *ranges* are left out.
        ranges: The filled ranges, by time, disjoint.
    """
    theirs, ours = timestamps_us(table), timestamps_us(fill)
    kept: list[pa.Table] = []
    used: list[tuple[Filled, int]] = []
    for one in ranges:
        first, stop = _rows(ours, one)
        begin, end = _rows(theirs, one)
        if first < stop and begin == end:
            kept.append(fill.slice(first, stop - first))
            used.append((one, stop - first))
    if not kept:
        return table, []
    both = pa.concat_tables([table, *kept])
    return both.take(np.argsort(timestamps_us(both), kind="stable")), used


def _rows(times: Int64s, one: Filled) -> tuple[int, int]:
    """Return the first row inside a range, and the one after the last."""
    first, stop = np.searchsorted(times, [to_micros(one.range.start), to_micros(one.range.end)])
    return int(first), int(stop)
