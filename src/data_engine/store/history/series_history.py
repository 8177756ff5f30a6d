"""Find what came, went and changed of the bars of a series, by the records of its files: `series_history`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from data_engine.market.bars import Int64s, to_micros
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange, iso
from data_engine.store.bar_store import BarStore
from data_engine.store.history.bar_changes import BarChange
from data_engine.store.history.chain import NEVER
from data_engine.store.history.file_walk import FileWalk
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.partitions import Partition, series_folder
from data_engine.store.selection import DatasetFilter


@dataclass(frozen=True, slots=True)
class SeriesChange:
    """What one commit did to the bars of a series.

    Attributes:
        series: The series.
        instant: When the commit was recorded, UTC: what the store held at this instant has the change.
        actor: Who made it, such as ``update of 2024-01-31T02:00:00Z``, ``store`` or ``remove``.
        bars: What it did.
    """

    series: Series
    instant: datetime
    actor: str
    bars: BarChange

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``history --json`` prints for a change."""
        bars = self.bars
        return {
            "instant": iso(self.instant),
            "actor": self.actor,
            "dataset": self.series.dataset.name,
            "symbol": self.series.symbol,
            "added": bars.added,
            "revised": bars.revised,
            "removed": bars.removed,
            "files_not_kept": bars.not_kept,
            "first_bar": iso(bars.first) if bars.first else None,
            "last_bar": iso(bars.last) if bars.last else None,
        }


@dataclass(frozen=True, slots=True)
class SeriesBeginning:
    """Where the history of some files of a series begins.

    Attributes:
        series: The series.
        instant: The instant from which their bars are known; None if only those of now are.
        files: The number of files.
        bars: The number of bars in the range that they held then. If None, it is not known.
    """

    series: Series
    instant: datetime | None
    files: int
    bars: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``history --json`` prints for a beginning."""
        return {
            "instant": iso(self.instant) if self.instant else None,
            "dataset": self.series.dataset.name,
            "symbol": self.series.symbol,
            "files": self.files,
            "bars": self.bars,
        }


@dataclass(frozen=True, slots=True)
class SeriesGap:
    """When it is not known what a file of a series held, since two processes without a common lock made the same of it.

    Attributes:
        series: The series.
        start: From when.
        end: Until when, excluded. If None, until the next change.
    """

    series: Series
    start: datetime
    end: datetime | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``history --json`` prints for a gap."""
        return {
            "start": iso(self.start),
            "end": iso(self.end) if self.end else None,
            "dataset": self.series.dataset.name,
            "symbol": self.series.symbol,
        }


@dataclass(slots=True)
class SeriesHistory:
    """The history of a series.

    Attributes:
        changes: What changed, the latest first.
        beginnings: Where it begins for files that were there before, the latest first.
        gaps: When it is not known what a file held, the latest first.
    """

    changes: list[SeriesChange] = field(default_factory=list)
    beginnings: list[SeriesBeginning] = field(default_factory=list)
    gaps: list[SeriesGap] = field(default_factory=list)


def recorded_series(history: StoreHistory, symbols: Sequence[str] | None, datasets: DatasetFilter) -> set[Series]:
    """Return the series of some symbols, of all if they are None, that have a record, also those of which no file is left."""
    found = (Partition.parse(key) for key in history.links if key.startswith("equities_"))
    series = {one.series for one in found if one is not None and one.series.dataset in datasets}
    return series if symbols is None else {one for one in series if one.symbol in set(symbols)}


def series_history(store: BarStore, history: StoreHistory, series: Series, span: TimeRange) -> SeriesHistory:
    """Return what changed of the bars of a series that start inside a range.

    Args:
        store: The store as it is.
        history: Its history.
        series: The series.
        span: The range.

    Raises:
        StoreError: If a file or its history cannot be read.
    """
    changes: dict[tuple[datetime, str], BarChange] = {}
    begun: dict[tuple[datetime | None, bool], tuple[int, int]] = {}
    gaps: set[tuple[datetime, datetime]] = set()
    for partition in recorded_files(store, history, series, span):
        key = partition.key
        content, chain = history.present(key)
        if content is None and not chain.links:
            continue
        walk = FileWalk(store, key, content)
        for link, changed in walk.back(chain):
            change = BarChange(not_kept=1) if changed is None else BarChange.of(changed.where((span,)))
            if change:
                at = link.instant, link.actor
                changes[at] = changes.get(at, BarChange()) + change
        gaps.update(chain.gaps)
        known = not chain.unknown and chain.begins is None
        held = _count(walk.times, span) if known else 0
        if held or not known:
            at_begin = (history.begins if known else chain.begins), known
            files, bars = begun.get(at_begin, (0, 0))
            begun[at_begin] = files + 1, bars + held
    return SeriesHistory(
        [SeriesChange(series, *at, change) for at, change in sorted(changes.items(), reverse=True)],
        [
            SeriesBeginning(series, instant, files, bars if known else None)
            for (instant, known), (files, bars) in sorted(begun.items(), key=_latest_first, reverse=True)
        ],
        [SeriesGap(series, start, None if end == NEVER else end) for start, end in sorted(gaps, reverse=True)],
    )


def _latest_first(item: tuple[tuple[datetime | None, bool], tuple[int, int]]) -> tuple[bool, str, bool]:
    (instant, known), _ = item
    return instant is None, iso(instant) if instant else "", known


def recorded_files(store: BarStore, history: StoreHistory, series: Series, span: TimeRange | None) -> list[Partition]:
    """Return the files of a series that are there or were, and can have bars of a range; of any if it is None. By time."""
    there = set(store.partitions(series.dataset, series.symbol))
    once = (Partition.in_folder(series, key) for key in history.files_below(series_folder(series)))
    every = there.union(one for one in once if one is not None)
    chosen = every if span is None else (one for one in every if one.period.span.intersect(span))
    return sorted(chosen, key=lambda one: one.period)


def _count(times: Int64s, span: TimeRange) -> int:
    first, last = np.searchsorted(times, [to_micros(span.start), to_micros(span.end)])
    return int(last - first)
