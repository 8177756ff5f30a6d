"""Read and write named lists of symbols ("indices"), and their members on any day since they were first stored.

A list is two small CSV files, readable without data-engine::

    metadata/indices/{name}.csv            symbol,added_date          the present list
    metadata/indices/history/{name}.csv    date,action,symbol         every symbol that was added or removed

The history is written first and the list is derived from it, so that the files agree after two concurrent writers, and after a
writer that was killed and run again. Readers write nothing, and take the members from the history, so that they agree meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data_engine.errors import InputError, UnknownIndexError
from data_engine.market.symbol import check_symbol
from data_engine.market.time_range import TimeRange, intersection, new_york_date, new_york_midnight
from data_engine.store.document import Document
from data_engine.store.file_store import FileStore
from data_engine.universe.derived_list import derived_list
from data_engine.universe.index_changes import IndexChange, IndexImport, not_known, parse_index_day, refuse_loss
from data_engine.universe.index_files import ListRows, dump_history, dump_list, load_history, load_list, read_sources
from data_engine.universe.index_names import check_index_name, name_fault
from data_engine.universe.member_series import MemberSeries
from data_engine.universe.membership import (
    FOREVER,
    Members,
    MembershipChange,
    build_history,
    continue_history,
    differences,
    members_within,
    replay,
    seed,
)
from data_engine.universe.symbol_lists import SymbolLoader

if TYPE_CHECKING:
    import pandas as pd


_FOLDER = "metadata/indices"

_DERIVED = f"{_FOLDER}/derived.txt"

_REMEDY = "correct that file, or restore it from a backup"


class MetadataStore:
    """Read and write named lists of symbols in a store. Threads and processes may share a store.

    Args:
        base_path: The directory or ``s3://...`` URL of the store. If None, read from settings.
        files: The file backend to use instead of *base_path*.
        today: A function that returns the current day in New York.
        now: A function that returns the current instant, at which symbols are added today.

    Example:
        >>> MetadataStore().store("tech_stocks", ["AAPL", "MSFT"])  # doctest: +SKIP
    """

    def __init__(
        self,
        base_path: str | Path | None = None,
        *,
        files: FileStore | None = None,
        today: Callable[[], date] = lambda: new_york_date(datetime.now(UTC)),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._files: FileStore = _open(base_path) if files is None else files
        self._today = today
        self._now = now

    def store(
        self,
        index_name: str,
        symbols: Iterable[str],
        *,
        on: date | str | None = None,
        force: bool = True,
        derived: bool = False,
    ) -> IndexChange:
        """Set the members of an index, and return the changes; storing the same list again changes nothing.

        A symbol that is already listed keeps its ``added_date``. A removed symbol stays in the history, and gets a new date if it
        returns.

        Args:
            index_name: The name: at most 64 letters, digits, ``_``, ``-`` and ``.``.
            symbols: The complete list.
            on: The first day of the list, neither in the future nor before the last change. If None, today.
            force: Whether to accept the removal of more than 20 % of the members. An ingestion passes False.
            derived: Whether the name was derived from that of a file. Such a list never replaces an index that was stored by
                name or has an imported past, and is never refused.

        Raises:
            InputError: If a name or day cannot be used, or more than 20 % of the members would be removed.
            SymbolListError: If there is no symbol, or some cannot be symbols.
            DamagedFile: If a file of the index cannot be read.
            StoreError: If the store cannot be written.
        """
        name = check_index_name(index_name)
        wanted = SymbolLoader.from_list(symbols)
        day = parse_index_day(on, "on") if on is not None else None
        if derived and any(other.lower() == name for other in self.names() if other != name):
            return IndexChange(name, 0, (), (), kept=True)  # one file on Windows and macOS
        self._refuse_twin(name)
        of_file = self._derived_names()
        if derived and name not in of_file.read() and (known := self._changes(name)) is not None:
            return IndexChange(name, len(members := replay(known)), (), (), kept=set(members) != set(wanted))
        of_file.update(lambda names: names | {name} if derived else names - {name})
        force = force or derived
        before: Members = {}

        def change(stored: list[MembershipChange] | None) -> list[MembershipChange]:
            nonlocal before
            seeded = self._seed(name) or []  # also where there is a history: a list that cannot be read is told before one writes
            events = seeded if stored is None else stored
            before = replay(events)
            if not force:
                refuse_loss(name, before, wanted)
            return [*events, *differences(before, wanted, self._effective(name, events, day))]

        self._history(name).update(change)
        self._relist(name, wanted)
        now = set(wanted)
        added = tuple(symbol for symbol in wanted if symbol not in before)
        return IndexChange(name, len(wanted), added, tuple(symbol for symbol in before if symbol not in now))

    def members(self, index_name: str, as_of: date | str | None = None) -> Members:
        """Return the symbols of an index, each with the day on which it was added; see `load`."""
        return {symbol: new_york_date(added) for symbol, added in self.rows(index_name, as_of)}

    def import_history(
        self,
        index_name: str,
        changes: str | Path | Sequence[str | Path] = (),
        *,
        members: str | Path | None = None,
        as_of: date | str | None = None,
        since: date | str | None = None,
        column: str | None = None,
        force: bool = False,
    ) -> IndexImport:
        """Import the past of an index from published changes, and return the result; the same import again changes nothing.

        Stored changes after the last imported day stay; those of earlier days are replaced by the import.

        Args:
            index_name: The name of the index. If there is none of that name, it is created.
            changes: The files of changes (`data_engine.universe.index_files` has the forms); each may contain lists, too.
            members: A file with the list on one day. If None, the stored list, unless *changes* contain one.
            as_of: The day at whose end *members* is valid. If None, the day in the file, else after the last change.
            since: The day from which on the changes are complete, if that is before the first change.
            column: The column of *members* with the symbols. If None, the usual ones.
            force: Whether to drop stored changes of later days, to remove more than 20 % of the members, and to accept a history
                with many contradictions.

        Raises:
            InputError: If an argument cannot be used, or too many changes do not fit (`build_history`).
            SymbolListError: If a file cannot be read; all its faults are named, with line numbers.
            DamagedFile: If a file of the index cannot be read.
            StoreError: If the store cannot be written.
        """
        name = check_index_name(index_name)
        self._refuse_twin(name)
        paths = [changes] if isinstance(changes, (str, Path)) else list(changes)
        day = None if as_of is None else parse_index_day(as_of, "as_of")
        sources = read_sources(paths, members, day, column)
        first = None if since is None else parse_index_day(since, "since")
        if day is not None and day > self._today():
            raise InputError(f"as_of {day} is a day to come; name the day of the list")
        past, to_come = sources.known_by(self._today())
        made: list[IndexImport] = []

        def change(stored: list[MembershipChange] | None) -> list[MembershipChange]:
            seeded = self._seed(name) or []  # also where there is a history: a list that cannot be read is told before one writes
            events = seeded if stored is None else stored
            history = build_history(past.changes, past.anchored(events), since=first, force=force)
            history = history if force else continue_history(history, events)
            now = replay(history.events)
            if not force:
                refuse_loss(name, replay(events), list(now))
            first_day, last_day = history.events[0].day, history.events[-1].day
            made.append(IndexImport(name, first_day, last_day, len(now), history.warnings, to_come))
            return [replace(event, place="") for event in history.events]  # a file has no places

        self._derived_names().update(lambda names: names - {name})
        self._history(name).update(change)
        self._relist(name, anew=True)
        return made[-1]

    def memberships(self, index_name: str, span: TimeRange) -> dict[str, tuple[TimeRange, ...]]:
        """Return the sorted symbols that were members inside *span*, with the ranges in which they were, clipped to *span*.

        Raises:
            UnknownIndexError: If there is no such index.
            InputError: If the span begins before the first list: the members are unknown then.
            DamagedFile: If a file of the index cannot be read.
        """
        events = self.history(index_name)
        if not events or span.start < new_york_midnight(events[0].day):
            raise not_known(index_name, events, new_york_date(span.start))
        return members_within(events, span)

    def member_series(self, index_name: str, span: TimeRange, series: MemberSeries) -> dict[str, tuple[TimeRange, ...]]:
        """Return what `memberships` does for the series that the members are, which are the companies of then.

        Args:
            index_name: The name of the index.
            span: The range.
            series: What finds the series of members.

        Raises:
            UnknownIndexError: If there is no such index.
            InputError: If the span begins before the first list.
            DamagedFile: If a file of the index cannot be read.
        """
        inside = self.memberships(index_name, span)
        events = self.history(index_name)
        ever = members_within(events, TimeRange(new_york_midnight(events[0].day), FOREVER))
        found = series.of({symbol: ever[symbol] for symbol in inside}, ever)
        clipped = ((name, intersection(ranges, (span,))) for name, ranges in found.items())
        return {name: ranges for name, ranges in clipped if ranges}

    def former_members(self, index_name: str) -> dict[str, datetime]:
        """Return the symbols that have left an index, each with the instant when it did, UTC.

        Raises:
            UnknownIndexError: If there is no such index.
            DamagedFile: If a file of the index cannot be read.
        """
        events = self.history(index_name)
        members = replay(events)
        return {event.symbol: new_york_midnight(event.day) for event in events if event.symbol not in members}

    def history(self, index_name: str) -> list[MembershipChange]:
        """Return all changes in order; those of the first day are the first list.

        Raises:
            UnknownIndexError: If there is no such index.
            DamagedFile: If a file of the index cannot be read.
        """
        name = check_index_name(index_name)
        events = self._changes(name)
        if events is None:
            raise self._unknown(name)
        return events

    def load(self, index_name: str, as_of: date | str | None = None) -> pd.DataFrame:
        """Return an index as a DataFrame with the columns ``symbol`` (text) and ``added_date`` (``datetime64[ns, UTC]``).

        ``added_date`` is the instant at which a symbol was added; if only the day is known, its midnight in New York.

        Args:
            index_name: The name of the index.
            as_of: A day. The list at the end of that day is returned, in the order in which symbols were added. If None, the
                present list, in the order in which it was stored.

        Raises:
            UnknownIndexError: If there is no such index; the message names those there are.
            InputError: If *as_of* is not a date, or is before the first list: the members are unknown then, not absent.
            DamagedFile: If a file of the index cannot be read.
        """
        import pandas as pd

        rows = self.rows(index_name, as_of)
        stamps = pd.DatetimeIndex([added for _, added in rows], tz="UTC").as_unit("ns")
        return pd.DataFrame({"symbol": pd.Series([symbol for symbol, _ in rows], dtype=str), "added_date": stamps})

    def rows(self, index_name: str, as_of: date | str | None = None) -> ListRows:
        """Return the symbols of an index, each with the instant (UTC) at which it was added; see `load`."""
        day = None if as_of is None else parse_index_day(as_of, "as_of")
        name = check_index_name(index_name)
        listed = self._list(name).read()
        if listed is None:
            raise self._unknown(name)
        events = self.history(name)
        if day is not None and (not events or day < events[0].day):
            raise not_known(name, events, day)
        return derived_list(events, listed, until=day)

    def outdated(self, index_name: str) -> list[str]:
        """Return the symbols, sorted, of which the file of the list says something else than the history: `store` corrects it.

        Raises:
            UnknownIndexError: If there is no such index.
            DamagedFile: If a file of the index cannot be read.
        """
        listed = self._list(check_index_name(index_name)).read() or []
        return sorted({symbol for symbol, _ in set(listed) ^ set(derived_list(self.history(index_name), listed))})

    def adopt(self, index_name: str, source: MetadataStore) -> None:
        """Store an index of another store under a name that is not in use, with its past and the instants of its list."""
        name = check_index_name(index_name)
        self._refuse_twin(name)
        events, rows = source.history(name), source.rows(name)
        self._history(name).update(lambda stored: events if stored is None else stored)
        self._list(name).update(lambda stored: rows if stored is None else stored)

    def names(self) -> list[str]:
        """Return the names of the stored indices, sorted."""
        keys = (key.removeprefix(f"{_FOLDER}/") for key in self._files.list(_FOLDER))
        stems = (key.removesuffix(".csv") for key in keys if key.endswith(".csv") and "/" not in key)
        return sorted(stem for stem in stems if name_fault(stem) is None)

    def _relist(self, name: str, wanted: Sequence[str] = (), *, anew: bool = False) -> None:
        """Derive the list from the present history, which another writer may have changed.

        Args:
            name: The name of the index.
            wanted: The order of the list; other members follow.
            anew: Whether to take the days of the history instead of the listed ones.
        """

        def relist(rows: ListRows | None) -> ListRows:
            listed, now = ([], None) if anew else (rows or [], self._now())
            return derived_list(self._history(name).read() or (), listed, order=wanted, now=now)

        self._list(name).update(relist)

    def _changes(self, name: str) -> list[MembershipChange] | None:
        events = self._history(name).read()
        return self._seed(name) if events is None else events

    def _seed(self, name: str) -> list[MembershipChange] | None:
        rows = self._list(name).read()
        return None if rows is None else seed({symbol: new_york_date(added) for symbol, added in rows})

    def _derived_names(self) -> Document[frozenset[str]]:
        """Return the names that were derived from those of files."""
        what = "the names of lists that were derived"
        return Document(self._files, _DERIVED, what, _REMEDY, frozenset(), load=_load_names, dump=_dump_names)

    def _list(self, name: str) -> Document[ListRows | None]:
        key, what = f"{_FOLDER}/{name}.csv", f"the list of index {name!r}"
        return Document(self._files, key, what, _REMEDY, None, load=load_list, dump=lambda rows: dump_list(rows or ()))

    def _history(self, name: str) -> Document[list[MembershipChange] | None]:
        key, what = f"{_FOLDER}/history/{name}.csv", f"the history of index {name!r}"
        load = partial(load_history, canonical=check_symbol)
        return Document(self._files, key, what, _REMEDY, None, load=load, dump=lambda events: dump_history(events or ()))

    def _effective(self, name: str, events: Sequence[MembershipChange], on: date | None) -> date:
        """Return the day of a change: never before the last one, even if the clock went back."""
        last = events[-1].day if events else date.min
        if on is None:
            return max(self._today(), last)
        if on > self._today() + timedelta(days=1):  # it may be tomorrow already in the caller's time zone
            raise InputError(f"cannot store a list for {on}, a day to come")
        if on < last:
            raise InputError(f"cannot store a list for {on}: index {name!r} last changed on {last}; name that day or a later one")
        return on

    def _refuse_twin(self, name: str) -> None:
        for other in self.names():
            if other != name and other.lower() == name.lower():
                raise InputError(f"cannot store index {name!r}: {other!r} is the same file on Windows and macOS; use that name")

    def _unknown(self, name: str) -> UnknownIndexError:
        names = self.names()
        there = f"there are: {', '.join(names)}" if names else f"none is stored yet in {self._files.location}"
        return UnknownIndexError(f"no index {name!r}; {there}")


def _load_names(content: bytes) -> frozenset[str]:
    return frozenset(content.decode().split())


def _dump_names(names: frozenset[str]) -> bytes:
    return "".join(f"{name}\n" for name in sorted(names)).encode()


def _open(base_path: str | Path | None) -> FileStore:
    from data_engine.settings import load_settings
    from data_engine.store.location import open_file_store

    return open_file_store(load_settings(base_path=base_path).base_path)
