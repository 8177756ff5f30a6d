"""Find other files of a dataset with the same content, and tell whether that is explained by a ticker change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.ticker_changes import TickerChanges
from data_engine.errors import StoreError
from data_engine.market.series import Dataset
from data_engine.market.symbol import ticker_of
from data_engine.store.bar_store import BarStore
from data_engine.store.file_count import Fingerprint
from data_engine.store.partitions import Partition


class FileCatalog:
    """The files of one dataset by the content that the coverage has for them. Safe between threads.

    The store is read when the first file is looked up, which an undamaged store seldom needs.

    Args:
        storage: The store.
        dataset: The dataset.
    """

    def __init__(self, storage: BarStore, dataset: Dataset) -> None:
        self._storage = storage
        self._dataset = dataset

    def others(self, partition: Partition, content: Fingerprint) -> list[Partition]:
        """Return the other files that were counted with a content; none if one of them is of the same security.

        Alpaca returns the bars of a security under its earlier tickers, too: then equal files are no error.
        """
        found = [one for one in self._files.get(content, ()) if one != partition]
        symbol = partition.series.symbol
        return (
            [] if any(symbol != one.series.symbol and self._same_security(symbol, one.series.symbol) for one in found) else found
        )

    def _same_security(self, symbol: str, other: str) -> bool:
        """Tell whether known ticker changes lead from one symbol to another."""
        other = ticker_of(other)
        seen, left = {ticker_of(symbol)}, [ticker_of(symbol)]
        while left:
            changes = self._changes.of(left.pop())
            new = {name for change in changes if change.new for name in (change.old, change.new)} - seen
            seen |= new
            left += new
        return other in seen

    @cached_property
    def _changes(self) -> TickerChanges:
        return ActionStore(self._storage.files).ticker_changes()

    @cached_property
    def _files(self) -> Mapping[Fingerprint, Sequence[Partition]]:
        found: dict[Fingerprint, list[Partition]] = {}
        for series in self._storage.coverage.series(self._dataset):
            with suppress(StoreError):  # the check of that series reports it
                for period, fingerprint in self._storage.coverage.read(series).files.items():
                    found.setdefault(fingerprint, []).append(Partition(series, period))
        return found
