"""What an update wants: all that is owed, and everything since, of the series that are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from data_engine.errors import DamagedFile, InputError
from data_engine.market.series import Dataset
from data_engine.market.time_range import TimeRange, union
from data_engine.store.coverage_store import CoverageStore
from data_engine.store.selection import DatasetFilter

_LEAST = timedelta(microseconds=1)


def update_targets(
    coverage: CoverageStore, choice: DatasetFilter, names: Sequence[str] | None, members: Sequence[str] | None, *, now: datetime
) -> dict[Dataset, dict[str, tuple[TimeRange, ...]]]:
    """Return the ranges that an update wants, by dataset and symbol.

    Args:
        coverage: of the store.
        choice: of datasets.
        names: only these symbols; None is all.
        members: of an index, in place of *names*; where most of them are stored, one that is not starts where the earliest of the
            others does. Who is in no dataset then is given no range, in the one that has most of them.
        now: to which the series are brought.

    Raises:
        InputError: a symbol was never ingested in any chosen dataset, or nothing was.
    """
    wishes: dict[Dataset, dict[str, tuple[TimeRange, ...]]] = {}
    for dataset in coverage.datasets():
        if dataset in choice:
            made = _targets_of(coverage, dataset, names if members is None else members, now, begin_new=members is not None)
            if made:
                wishes[dataset] = made
    known = {symbol for of_dataset in wishes.values() for symbol in of_dataset}
    strange = [name for name in names or () if name not in known]
    if strange:
        raise InputError(f"{', '.join(strange[:10])}: never ingested here; `data-engine ingest` with --start begins a series")
    lacking = [name for name in members or () if name not in known]
    if lacking and wishes:
        max(wishes.values(), key=len).update(dict.fromkeys(lacking, ()))
    if not wishes:
        raise InputError("nothing to update: no such series was ever ingested here; `data-engine ingest` begins one")
    return wishes


def _targets_of(
    coverage: CoverageStore, dataset: Dataset, names: Sequence[str] | None, now: datetime, *, begin_new: bool
) -> dict[str, tuple[TimeRange, ...]]:
    stored = {series.symbol: series for series in coverage.series(dataset)}
    wanted: dict[str, tuple[TimeRange, ...]] = {}
    for symbol in stored if names is None else names:
        if symbol in stored:
            try:
                wanted[symbol] = coverage.read(stored[symbol]).wanted
            except DamagedFile:
                wanted[symbol] = (TimeRange(now - _LEAST, now),)  # whoever reads it next says what is wrong with it
    starts = [ranges[0].start for ranges in wanted.values() if ranges]
    if not starts:
        return {}
    # One stock that is held as days, too, does not make its index an index of days.
    if begin_new and 2 * len(starts) >= len(names or ()):
        wanted.update({symbol: (TimeRange(min(starts), now),) for symbol in names or () if not wanted.get(symbol)})
    return {symbol: union((*ranges, _since(ranges[-1].end, now))) for symbol, ranges in wanted.items() if ranges}


def _since(end: datetime, now: datetime) -> TimeRange:
    return TimeRange(min(end, now - _LEAST), now)
