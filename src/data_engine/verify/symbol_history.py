"""Collect what changed of the bars of some symbols in all their datasets: `symbol_history`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from data_engine.market.time_range import TimeRange, iso
from data_engine.store.bar_store import BarStore
from data_engine.store.history.revision_log import LoggedRevisions, logged_revisions
from data_engine.store.history.series_history import SeriesBeginning, SeriesChange, SeriesGap, recorded_series, series_history
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.selection import DatasetFilter
from data_engine.verify.verify import known_series


@dataclass(frozen=True, slots=True)
class SymbolHistory:
    """What changed of the bars of some symbols.

    Attributes:
        begins: When the history of the store begins; None if it has none.
        symbols: The symbols that the store has or had.
        changes: The changes of all series, the latest first.
        beginnings: Where the history of files begins that were there before, by symbol and dataset.
        gaps: When it is not known what files held, by symbol and dataset.
        logged: What audits of earlier versions saw at Alpaca, by symbol and dataset.
    """

    begins: datetime | None
    symbols: frozenset[str]
    changes: tuple[SeriesChange, ...]
    beginnings: tuple[SeriesBeginning, ...]
    gaps: tuple[SeriesGap, ...]
    logged: tuple[LoggedRevisions, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``history --json`` prints."""
        return {
            "history_begins": iso(self.begins) if self.begins else None,
            "changes": [one.to_json() for one in self.changes],
            "beginnings": [one.to_json() for one in self.beginnings],
            "gaps": [one.to_json() for one in self.gaps],
            "logged_revisions": [one.to_json() for one in self.logged],
        }


def symbol_history(store: BarStore, datasets: DatasetFilter, symbols: Sequence[str], span: TimeRange) -> SymbolHistory:
    """Return what changed of the bars of some symbols.

    Args:
        store: The store as it is.
        datasets: The datasets.
        symbols: The symbols.
        span: The range in which the bars start.

    Raises:
        StoreError: If a file or its history cannot be read.
    """
    records = StoreHistory(store.files)
    every = recorded_series(records, symbols, datasets).union(known_series(store, datasets, symbols))
    ordered = sorted(every, key=lambda one: (one.symbol, one.dataset.name))
    found = [series_history(store, records, one, span) for one in ordered]
    return SymbolHistory(
        records.begins,
        frozenset(one.symbol for one in every),
        tuple(sorted((one for of in found for one in of.changes), key=lambda one: one.instant, reverse=True)),
        tuple(one for of in found for one in of.beginnings),
        tuple(one for of in found for one in of.gaps),
        tuple(line for one in ordered for line in logged_revisions(store.files, one, span)),
    )
