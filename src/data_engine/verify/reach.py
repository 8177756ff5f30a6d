"""Compute to which session each dataset of a store is held, and which series are behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from data_engine.market.exchange_calendar import DAY
from data_engine.market.series import Dataset
from data_engine.market.time_range import new_york_date
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.selection import DatasetFilter
from data_engine.verify.status import StoredSeries, stored_series


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a dataset is held.

    Attributes:
        dataset: The dataset.
        last: The New York day of its latest bar. None if it has no bar.
        behind: The symbols that are neither covered nor provisional on that day and whose security has its ticker still; those
            whose coverage is damaged are among them.
    """

    dataset: Dataset
    last: date | None
    behind: tuple[str, ...]

    def __str__(self) -> str:
        """Return the dataset and its latest day."""
        return f"{self.dataset.name} to {self.last}" if self.last else f"{self.dataset.name} without bars"


def reach_of(store: BarStore, choice: DatasetFilter, names: Sequence[str] | None = None, *, now: datetime) -> list[Reach]:
    """Return how far each chosen dataset is held; coverage is read, and of bar files only those that a killed run was changing.

    Args:
        store: The store.
        choice: The datasets.
        names: The symbols. If None, all.
        now: The current time; a series whose end is only announced has not ended.
    """
    reaches = ReachCount()
    for one in stored_series(store, choice.fetched, names, now=now):
        reaches.add(one)
    return reaches.result()


class ReachCount:
    """How far datasets are held, series by series: `add` all, then ask for the `result`."""

    def __init__(self) -> None:
        self._known: dict[Dataset, list[tuple[str, datetime | None, date | None]]] = {}
        self._damaged: dict[Dataset, list[str]] = {}

    def add(self, one: StoredSeries) -> None:
        """Count a series."""
        dataset, known = one.series.dataset, one.coverage
        if one.damage is not None:
            self._damaged.setdefault(dataset, []).append(one.series.symbol)
        elif one.ended is None:
            row = (one.series.symbol, known.last_bar, _fetched_before(known))
            self._known.setdefault(dataset, []).append(row)

    def result(self) -> list[Reach]:
        """Return how far each dataset is held, by name."""
        return [self._reach(dataset) for dataset in sorted({*self._known, *self._damaged}, key=str)]

    def _reach(self, dataset: Dataset) -> Reach:
        known, damaged = self._known.get(dataset, []), self._damaged.get(dataset, [])
        last = max((bar for _, bar, _ in known if bar), default=None)
        if last is None:
            return Reach(dataset, None, tuple(sorted(damaged)))
        day = new_york_date(last)
        behind = [symbol for symbol, _, before in known if before is not None and before <= day]
        return Reach(dataset, day, tuple(sorted([*behind, *damaged])))


def _fetched_before(known: Coverage) -> date | None:
    """Return the first day of which nothing of a series was fetched; None if nothing of it was ever requested.

    The end of a range is its last instant, excluded.
    """
    if not known.wanted:
        return None
    if (until := known.claimed_until) is None:
        return date.min
    ends, last = new_york_date(until), known.last_bar
    if last is None or last >= until:  # a bar that somebody stored says nothing of what was fetched
        return ends
    return max(ends, new_york_date(last) + DAY)
