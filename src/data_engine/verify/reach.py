"""Compute to which session each dataset of a store is held, and which series are behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.errors import DamagedFile
from data_engine.market.series import Dataset
from data_engine.market.time_range import new_york_date, union
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.selection import DatasetFilter, select_series
from data_engine.verify.status import end_of_series


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
    """Return how far each chosen dataset is held; coverage is read, and no bar.

    Args:
        store: The store.
        choice: The datasets.
        names: The symbols. If None, all.
        now: The current time; a series whose end is only announced has not ended.
    """
    changes = ActionStore(store.files).ticker_changes().until(now)
    known: dict[Dataset, list[Coverage]] = {}
    damaged: dict[Dataset, list[str]] = {}
    for series in select_series(store.coverage, choice, names):
        try:
            one = store.coverage.read(series)
        except DamagedFile:
            damaged.setdefault(series.dataset, []).append(series.symbol)
            continue
        if end_of_series(one, changes) is None:
            known.setdefault(series.dataset, []).append(one)
    return [_reach(dataset, known.get(dataset, []), damaged.get(dataset, [])) for dataset in sorted({*known, *damaged}, key=str)]


def _reach(dataset: Dataset, known: Sequence[Coverage], damaged: Sequence[str]) -> Reach:
    last = max((one.last_bar for one in known if one.last_bar), default=None)
    if last is None:
        return Reach(dataset, None, tuple(sorted(damaged)))
    day = new_york_date(last)
    behind = [one.series.symbol for one in known if one.wanted and not _fetched(one, day)]
    return Reach(dataset, day, tuple(sorted([*behind, *damaged])))


def _fetched(one: Coverage, day: date) -> bool:
    """Tell whether a series was fetched to some time of a day; its end is the last instant of a range, excluded."""
    fetched = union((*one.covered, *one.provisional))
    has_bar = one.last_bar is not None and new_york_date(one.last_bar) >= day
    return bool(fetched) and (has_bar or new_york_date(fetched[-1].end) > day)
