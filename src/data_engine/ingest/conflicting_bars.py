"""Take Alpaca's values of conflicting bars into the store, and forget conflicts that are none any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from data_engine.errors import OF_ONE_FILE, Failure, ForeignFiles
from data_engine.market.bars import NO_CHANGES, Changes
from data_engine.market.series import Series
from data_engine.store.bar_store import BarStore
from data_engine.store.conflicts import (
    Conflicts,
    by_file,
    live_conflicts,
    refresh_conflicts,
    still_conflicting,
    with_theirs,
)
from data_engine.store.coverage import Coverage
from data_engine.store.file_edit import FileEdit, WriteResult
from data_engine.store.legacy_files import refuse_foreign
from data_engine.store.partitions import Partition


@dataclass(slots=True)
class Accepted:
    """What was taken over.

    Attributes:
        changes: How the bars have changed, by series.
        failed: The failures of series whose files cannot be read.
    """

    changes: dict[Series, Changes] = field(default_factory=dict)
    failed: dict[Series, Failure] = field(default_factory=dict)

    @property
    def total(self) -> Changes:
        """How the bars have changed, in all."""
        return sum(self.changes.values(), NO_CHANGES)


def accept_conflicts(storage: BarStore, selected: Iterable[Coverage], accepted: Accepted, *, removals: bool = True) -> None:
    """Store Alpaca's values of the conflicting bars of some series.

    The bars are those that were found last; nothing is requested. The coverage first says which files will change, so that a
    killed run does not look like damage.

    Args:
        storage: The store; the caller has locked it.
        selected: The coverage of the series, of raw bars.
        accepted: What was taken over is added to it file by file, so that it is told whatever ends the run.
        removals: Whether to remove the bars that Alpaca no longer has. If not, they go on conflicting.

    Raises:
        StoreError: If the store cannot be written.
    """
    for known in selected:
        if known.conflicting and known.series.dataset.adjustment.is_raw:
            try:
                _accept(storage, known.series, accepted.changes, removals=removals)
            except (*OF_ONE_FILE, ForeignFiles) as error:
                accepted.failed[known.series] = Failure.of(error)


def _accept(storage: BarStore, series: Series, changes: dict[Series, Changes], *, removals: bool) -> None:
    refuse_foreign(storage.files, series)
    live = live_conflicts(storage, series)
    taken = tuple(one for one in live if removals or one.values is not None)
    parts = by_file(series, taken)
    changes[series] = NO_CHANGES
    if parts:
        storage.coverage.update(series, lambda known: known.with_changing(parts))
        for period, part in parts.items():
            edit = FileEdit(Partition(series, period).key, storage.decode, lambda stored, part=part: _replaced(stored, part))  # type: ignore[misc]
            storage.files.update(edit.key, edit.rewrite)
            changes[series] += edit.result.changes
        storage.coverage.update(series, lambda known: known.counted(storage.count_files(known, parts)))
    refresh_conflicts(storage, series)


def _replaced(stored: pa.Table, conflicts: Conflicts) -> tuple[pa.Table, WriteResult]:
    """Return stored bars with Alpaca's values."""
    live = still_conflicting(conflicts, stored)
    made = with_theirs(stored, live)
    gone = sum(one.values is None for one in live)
    return made, WriteResult(made.num_rows, Changes(revised=len(live) - gone, removed=gone))
