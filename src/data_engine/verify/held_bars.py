"""Compute the digest of all bars that a store holds, those without coverage included: `held_bars`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from data_engine.market.digest import series_digest, store_digest
from data_engine.market.series import Series
from data_engine.store.bar_store import BarStore
from data_engine.store.selection import DatasetFilter
from data_engine.verify.verify import known_series


@dataclass(frozen=True, slots=True)
class HeldBars:
    """What a store holds.

    Attributes:
        digest: The digest of the bars; two stores have the same one if and only if they have the same bars.
        bars: The number of bars.
        series: The number of series with bars.
    """

    digest: str
    bars: int
    series: int


def held_bars(store: BarStore, datasets: DatasetFilter, symbols: Sequence[str] | None = None) -> HeldBars:
    """Read all bars of some series, and return their digest.

    Args:
        store: The store, as it is or as it was.
        datasets: The datasets.
        symbols: The symbols. If None, all.

    Raises:
        DamagedFile: If a file cannot be read.
        StoreError: If what a file was at an earlier instant is not known.
    """
    digests: dict[Series, str] = {}
    counts: dict[Series, int] = {}

    def tables(one: Series) -> Iterator[pa.Table]:
        for part in store.partitions(one.dataset, one.symbol):
            table = store.read(one, part.period)
            counts[one] = counts.get(one, 0) + table.num_rows
            yield table

    for one in known_series(store, datasets, symbols):
        digests[one] = series_digest(tables(one))
    return HeldBars(store_digest(digests), sum(counts.values()), sum(count > 0 for count in counts.values()))
