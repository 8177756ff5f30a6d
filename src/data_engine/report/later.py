"""Collect what a report shows of the history: what changed after it was final, conflicting bars, and filled gaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from data_engine.errors import DamagedFile, StoreError
from data_engine.market.bars import VALUES
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import iso
from data_engine.report.short_text import short_text
from data_engine.store.bar_store import BarStore
from data_engine.store.conflicts import FOLDER as CONFLICTS_FOLDER
from data_engine.store.conflicts import Conflict, Values, conflicting_values
from data_engine.store.coverage import Coverage
from data_engine.store.filled import Filled
from data_engine.store.history.later_changes import LaterChange, LaterChanges, later_changes
from data_engine.store.history.series_history import recorded_series
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.live_fills import filled_by, live_fills
from data_engine.store.partitions import series_folder, symbols_of
from data_engine.store.selection import DatasetFilter

CHANGES = 2_000
"""The maximum number of changes listed, the latest; all are counted."""

DAYS = 400
"""The maximum number of days listed on which something changed, the latest."""

CONFLICTS = 500
"""The maximum number of conflicting bars listed, those that were found last; all are counted."""

FILLS = 500
"""The maximum number of filled gaps listed, the latest; all are counted."""

_PROBLEMS = 20


@dataclass(slots=True)
class Later:
    """What a report shows of the history of a store.

    Attributes:
        begins: When the history begins; None if there is none.
        read: Whether the changes of bars were read.
        series: What changed, by series.
        conflicting: The bars that Alpaca has revised or dropped and that are stored as they were, with their stored values.
        fills: The gaps of a series that have bars of another source, and whether they count: Alpaca still has no bar there.
        problems: What cannot be read.
    """

    begins: datetime | None = None
    read: bool = False
    series: dict[Series, LaterChanges] = field(default_factory=dict)
    conflicting: list[tuple[Series, Conflict, Values]] = field(default_factory=list)
    fills: list[tuple[Series, Filled, bool]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def months(self, series: Series) -> dict[tuple[int, int], tuple[int, int, int]]:
        """Return the number of bars of a series that came late, were revised and went, by New York year and month."""
        found: dict[tuple[int, int], tuple[int, int, int]] = {}
        for day, counts in self.series[series].days.items() if series in self.series else ():
            late, revised, removed = found.get((day.year, day.month), (0, 0, 0))
            found[day.year, day.month] = late + counts[0], revised + counts[1], removed + counts[2]
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the JSON object in the report."""
        every = [change for one in self.series.values() for change in one.changes]
        every.sort(key=lambda one: one.instant, reverse=True)
        by_day = list(_by_day(every))
        found = sorted(self.conflicting, key=lambda one: (one[1].seen, one[1].timestamp), reverse=True)
        return {
            "begins": iso(self.begins) if self.begins else None,
            "read": self.read,
            "totals": {name: sum(getattr(one, name) for one in every) for name in ("late", "revised", "removed", "not_kept")},
            **{
                name: sum(getattr(one, name) for one in self.series.values())
                for name in ("open", "unknown", "from_before", "unexplained")
            },
            "changes": [_change(one) for one in every[:CHANGES]],
            "change_count": len(every),
            "days": by_day[:DAYS],
            "day_count": len(by_day),
            "values": VALUES,
            "conflicts": [_conflict(*one) for one in found[:CONFLICTS]],
            "conflict_count": len(found),
            "fills": [_fill(*one) for one in sorted(self.fills, key=lambda one: one[1].range, reverse=True)[:FILLS]],
            "fill_count": len(self.fills),
            "problems": [short_text(one) for one in self.problems[:_PROBLEMS]],
            "problem_count": len(self.problems),
        }


def later_of(
    storage: BarStore,
    history: StoreHistory,
    choice: DatasetFilter,
    names: Sequence[str] | None,
    known: Sequence[Coverage],
    *,
    quick: bool,
) -> Later:
    """Return what a report shows of the history of a store. Each record is read once, and each file that has one.

    Args:
        storage: The store.
        history: Its history.
        choice: The datasets.
        names: The symbols. If None, all.
        known: The coverage of the series that are stored.
        quick: Whether to leave out the changes of bars.
    """
    found = Later(history.begins, not quick)
    stored = [one.series for one in known]
    found.problems += [f"cannot read {key}, a part of the history" for key in _damaged(history)]
    if not quick and history.begins is not None:
        # By path, as records are packed: each block of a pack is then read once.
        for series in sorted({*stored, *recorded_series(history, names, choice)}, key=series_folder):
            try:
                found.series[series] = later_changes(storage, history, series)
            except StoreError as error:
                found.problems.append(str(error))
            else:
                found.problems += found.series[series].problems
    _add_conflicts(found, storage, stored)
    _add_fills(found, storage, known)
    return found


def _damaged(history: StoreHistory) -> Iterator[str]:
    """Yield the files of the history that cannot be read; the last one may be of a writer that is at it."""
    last = history.last_number
    return (key for key in history.incomplete if key == history.damaged or history.is_before(key, last))


def _add_conflicts(found: Later, storage: BarStore, known: Iterable[Series]) -> None:
    named: dict[Dataset, set[str]] = {}
    for series in known:
        dataset = series.dataset
        if dataset not in named:
            named[dataset] = set(symbols_of(storage.files.list(f"{CONFLICTS_FOLDER}/{dataset.name}")))
        if series.symbol not in named[dataset]:
            continue
        try:
            found.conflicting += [(series, conflict, stored) for conflict, stored in conflicting_values(storage, series)]
        except DamagedFile as error:
            found.problems.append(str(error))


def _add_fills(found: Later, storage: BarStore, known: Iterable[Coverage]) -> None:
    for one in known:
        if not one.filled:
            continue
        try:
            live = live_fills(storage, filled_by(one.series), one)
        except StoreError as error:
            found.problems.append(str(error))
        else:
            found.fills += [(one.series, gap, gap in live) for gap in one.filled]


def _by_day(changes: Sequence[LaterChange]) -> Iterator[dict[str, Any]]:
    """Yield the sums of the changes, the latest first, by the UTC day of their commits."""
    of_day: dict[date, list[LaterChange]] = {}
    for one in changes:
        of_day.setdefault(one.instant.astimezone(UTC).date(), []).append(one)
    for day, made in of_day.items():
        sums = {name: sum(getattr(one, name) for one in made) for name in ("late", "revised", "removed", "not_kept")}
        yield {"day": day.isoformat(), "series": len({one.series for one in made}), **sums}


def _change(one: LaterChange) -> dict[str, Any]:
    return {
        "instant": iso(one.instant),
        "actor": short_text(one.actor),
        "dataset": one.series.dataset.name,
        "symbol": one.series.symbol,
        "late": one.late,
        "revised": one.revised,
        "removed": one.removed,
        "not_kept": one.not_kept,
        "first": one.days[0].isoformat() if one.days else None,
        "last": one.days[-1].isoformat() if one.days else None,
        "days": len(one.days),
    }


def _conflict(series: Series, one: Conflict, stored: Values) -> dict[str, Any]:
    return {
        "dataset": series.dataset.name,
        "symbol": series.symbol,
        "timestamp": iso(one.timestamp),
        "seen": iso(one.seen),
        "stored": stored,
        "alpaca": one.values,
    }


def _fill(series: Series, one: Filled, counts: bool) -> dict[str, Any]:
    return {
        "dataset": series.dataset.name,
        "symbol": series.symbol,
        "start": iso(one.range.start),
        "end": iso(one.range.end),
        "source": one.source,
        "counts": counts,
    }
