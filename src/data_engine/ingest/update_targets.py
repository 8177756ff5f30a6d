"""Compute what an update is to complete: all that is missing, and everything since, of the series that are chosen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from data_engine.errors import DamagedFile, InputError
from data_engine.ingest.outcome import LastingNote
from data_engine.market.exchange_calendar import can_hold_bars
from data_engine.market.series import Dataset, Series
from data_engine.market.symbol import asof_day, ticker_of
from data_engine.market.time_range import TimeRange, difference, new_york_midnight, union
from data_engine.market.wording import and_more, did_you_mean
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage_store import CoverageSnapshot, CoverageStore
from data_engine.store.legacy_files import refuse_legacy_symbols
from data_engine.store.selection import DatasetFilter
from data_engine.universe.delisted import Delisted
from data_engine.universe.index_store import MetadataStore

Targets = dict[str, tuple[TimeRange, ...]]
"""The requested ranges by symbol; a symbol without any was never ingested."""

_DAY = timedelta(days=1)

_LEAST = timedelta(microseconds=1)


def targets_in(
    bars: BarStore,
    metadata: MetadataStore,
    choice: DatasetFilter,
    names: Sequence[str] | None,
    index_name: str | None,
    *,
    now: datetime,
    coverage: CoverageSnapshot | None = None,
    delisted: Delisted | None = None,
) -> dict[Dataset, Targets]:
    """Return what an update of a store requests (`update_targets`), read anew: another process may have changed it.

    Args:
        bars: The store.
        metadata: The indices of the store.
        choice: The datasets to update.
        names: The symbols to update. If None, all of them.
        index_name: The index whose members to update, instead of *names*.
        now: The instant up to which the series are brought.
        coverage: Where the coverage is read, of which nothing was read yet. If None, it is not kept.
        delisted: Tells which series are of delisted securities. If None, the lists of the store are read for it.

    Raises:
        StoreError: If there is no store.
        ForeignFiles: If the legacy pipeline wrote the only bars of one of *names*.
        InputError: As `update_targets`.
    """
    bars.check_exists()
    bars.coverage.requested.refresh()
    members = None if index_name is None else list(metadata.members(index_name))
    former = {} if index_name is None else metadata.former_members(index_name)
    known = coverage or CoverageSnapshot(bars.coverage)
    try:
        return update_targets(known, choice, names, members, now=now, former=former, delisted=delisted or Delisted(bars.files))
    except InputError:
        there = {one.symbol for dataset in known.datasets() for one in known.series(dataset)} if names else ()
        refuse_legacy_symbols(bars.files, (name for name in names or () if name not in there))
        raise


def check_targets(
    bars: BarStore,
    metadata: MetadataStore,
    choice: DatasetFilter,
    names: Sequence[str] | None,
    index_name: str | None,
    *,
    now: datetime,
) -> None:
    """Raise what `targets_in` does; without *names*, coverage is read up to the first series that an update can work on.

    Raises:
        StoreError: If there is no store.
        InputError: As `update_targets`.
    """
    if names is None:
        bars.check_exists()
        bars.coverage.requested.refresh()
        members = None if index_name is None else set(metadata.members(index_name))
        datasets = (dataset for dataset in bars.coverage.datasets() if dataset in choice.fetched)
        stored = (one for dataset in datasets for one in bars.coverage.series(dataset))
        if any(_targets_of(bars.coverage, [one], now) for one in stored if members is None or one.symbol in members):
            return
    targets_in(bars, metadata, choice, names, index_name, now=now)


def update_targets(
    coverage: CoverageStore | CoverageSnapshot,
    choice: DatasetFilter,
    names: Sequence[str] | None,
    members: Sequence[str] | None,
    *,
    now: datetime,
    former: Mapping[str, datetime] | None = None,
    delisted: Delisted | None = None,
) -> dict[Dataset, Targets]:
    """Return the ranges that an update requests, by dataset and symbol.

    Args:
        coverage: The coverage of the store.
        choice: The datasets to update.
        names: The symbols to update. If None, all of them.
        members: The members of an index, instead of *names*. If most of them are stored, one that is not starts where the
            earliest of the others does. A member that is in no dataset then gets no range, in the dataset with most members.
        now: The instant up to which the series are brought.
        former: Former members of the index, each with the end of its membership: what is provisional or missing of a stored
            one up to then is still fetched.
        delisted: Tells which series are of delisted securities, which are fetched once a week unless *names* has them. If None,
            none are.

    Raises:
        InputError: If a symbol was never ingested in any chosen dataset, or nothing was.
    """
    chosen = names if members is None else members
    made = {
        dataset: _targets_of(coverage, _chosen(coverage, dataset, chosen), now, delisted if names is None else None)
        for dataset in coverage.datasets()
        if dataset in choice.fetched
    }
    for of_dataset in made.values() if members is not None else ():
        _begin_new(of_dataset, members or (), now)
    for dataset, of_dataset in made.items():
        gone = {symbol: left for symbol, left in (former or {}).items() if symbol not in (members or ())}
        gone |= _former_owners(coverage, dataset, {*gone, *(members or ())} if members is not None else ())
        of_dataset.update(_left_of_former(coverage, dataset, gone, now))
    targets = {dataset: of_dataset for dataset, of_dataset in made.items() if of_dataset}
    if not targets and members:  # no member is stored; where former ones are, that is said of each member, as before their end
        targets = {dataset: of_dataset for dataset, of_dataset in made.items() if _has_any(coverage, dataset, former or ())}
    known = {series.symbol for dataset in made for series in coverage.series(dataset)} if chosen else set()
    begin = "run `data-engine ingest` with --start to begin one"
    if not targets:
        _refuse_unrequested(coverage, made, chosen)
        named = f" of {and_more(chosen, 10)}{did_you_mean(chosen, known) or ';'}" if chosen else " in the chosen datasets;"
        raise InputError(f"no stored series{named} {begin}")
    stored = set().union(*targets.values())
    unknown = [name for name in chosen or () if name not in stored]
    if unknown and members is None:
        _refuse_unrequested(coverage, made, unknown)
        raise InputError(f"no stored series of {and_more(unknown, 10)}{did_you_mean(unknown, known) or ';'} {begin}")
    max(targets.values(), key=len).update(dict.fromkeys(unknown, ()))
    return targets


def unrequested_notes(
    coverage: CoverageStore | CoverageSnapshot, choice: DatasetFilter, targets: Mapping[Dataset, Targets]
) -> list[str]:
    """Return a note per dataset on stored series of which nothing was requested: an update leaves them as they are.

    Args:
        coverage: The coverage of the store.
        choice: The datasets that are updated.
        targets: What the update of all their series requests.
    """
    notes: list[str] = []
    for dataset in coverage.datasets():
        chosen = targets.get(dataset, {})
        left = [one.symbol for one in coverage.series(dataset) if one.symbol not in chosen] if dataset in choice.fetched else ()
        if left:
            text = (
                f"{len(left):,} series in {dataset.name} not updated: imported or stored, and no range was requested "
                f"({and_more(left, 10)}); run `data-engine ingest` with these symbols and --start"
            )
            notes.append(LastingNote(text))
    return notes


def _refuse_unrequested(
    coverage: CoverageStore | CoverageSnapshot, datasets: Iterable[Dataset], names: Collection[str] | None
) -> None:
    """Refuse series of which nothing was requested: `store` or an import brought their bars, which tells no range to complete.

    Args:
        coverage: The coverage of the store.
        datasets: The datasets.
        names: The symbols, of which no series has a requested range. If None, all.

    Raises:
        InputError: If there is one.
    """
    found = {one.symbol for dataset in datasets for one in coverage.series(dataset) if names is None or one.symbol in names}
    if found:
        raise InputError(
            f"cannot update {and_more(sorted(found), 10)}: the bars were imported or stored, and no range was requested; "
            "run `data-engine ingest` with these symbols and --start first"
        )


def _chosen(coverage: CoverageStore | CoverageSnapshot, dataset: Dataset, names: Sequence[str] | None) -> Iterable[Series]:
    """Return the stored series of a dataset, in order of *names* if these are given."""
    if names is None:
        return coverage.series(dataset)
    stored = {series.symbol: series for series in coverage.series(dataset)}
    return [stored[name] for name in names if name in stored]


def _targets_of(
    coverage: CoverageStore | CoverageSnapshot, stored: Iterable[Series], now: datetime, delisted: Delisted | None = None
) -> Targets:
    """Return what was requested of stored series of one dataset, and everything since, by symbol.

    Of delisted ones that were fetched within a week, it is what was requested up to the last final answer.
    """
    targets: Targets = {}
    joined: dict[tuple[TimeRange, ...], tuple[TimeRange, ...]] = {}  # most series have the same ranges
    for series in stored:
        try:
            known = coverage.read(series)
            ranges = known.wanted
        except DamagedFile:
            known, ranges = None, (TimeRange(now - _LEAST, now),)  # the run that reads it next says what is wrong with it
        if known is not None and ranges and delisted is not None and not delisted.is_due(known, now):
            targets[series.symbol] = tuple(part for span in ranges if (part := span.before(known.covered[-1].end)) is not None)
            continue
        if ranges and ranges not in joined:
            joined[ranges] = union((*ranges, TimeRange(min(ranges[-1].end, now - _LEAST), now)))
        if ranges:
            targets[series.symbol] = joined[ranges]
    return targets


def _former_owners(coverage: CoverageStore | CoverageSnapshot, dataset: Dataset, tickers: Collection[str]) -> dict[str, datetime]:
    """Return the stored series ``S@DATE`` of some tickers, each with the end of its day."""
    named = ((series.symbol, asof_day(series.symbol)) for series in coverage.series(dataset)) if tickers else ()
    return {name: new_york_midnight(day + _DAY) for name, day in named if day is not None and ticker_of(name) in tickers}


def _has_any(coverage: CoverageStore | CoverageSnapshot, dataset: Dataset, symbols: Collection[str]) -> bool:
    return any(series.symbol in symbols for series in coverage.series(dataset))


def _left_of_former(
    coverage: CoverageStore | CoverageSnapshot, dataset: Dataset, former: Mapping[str, datetime], now: datetime
) -> Targets:
    """Return what is provisional or missing of former members until they left: what is provisional is owed until it is final."""
    targets: Targets = {}
    for series in coverage.series(dataset) if former else ():
        left = former.get(series.symbol)
        if left is None:
            continue
        try:
            known = coverage.read(series)
        except DamagedFile:
            continue  # it is no member; `verify` and `status` name it
        if not known.wanted or not known.bars:
            continue
        last, end = known.wanted[-1].end, min(left, now)
        ranges = union((*known.wanted, TimeRange(last, end))) if last < end else known.wanted
        owed = difference(ranges, known.covered)  # emptiness that is tentative is asked for as long as it is a member
        if any(can_hold_bars(span, dataset) for span in owed):
            targets[series.symbol] = ranges
    return targets


def _begin_new(targets: Targets, members: Sequence[str], now: datetime) -> None:
    """Add the members that are not stored, if most are: one stock that is stored as days, too, makes no index of days."""
    if targets and 2 * len(targets) >= len(members):
        start = min(ranges[0].start for ranges in targets.values())
        targets.update({symbol: (TimeRange(start, now),) for symbol in members if symbol not in targets})
