"""Named lists of symbols ("indices"), and what they were on any day since they were first stored.

A list is two small CSV files, readable without this program::

    metadata/indices/{name}.csv            symbol,added_date          as it is now
    metadata/indices/history/{name}.csv    date,action,symbol         every symbol that came (added) or left (removed)

The history is written first and the list is made from it, so that two writers, or a writer that was killed and run again,
end with files that agree. Readers write nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from data_engine.errors import DamagedFile, InputError, UnknownIndexError
from data_engine.market.symbol import check_symbol
from data_engine.market.time_range import TimeRange, new_york_date, new_york_midnight
from data_engine.store.csv_document import dump_rows, load_rows
from data_engine.store.file_store import FileStore
from data_engine.universe.index_files import LIST_HEADER, dump_history, load_history, read_sources
from data_engine.universe.index_names import check_index_name, name_fault
from data_engine.universe.membership import (
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


@dataclass(frozen=True, slots=True)
class IndexChange:
    """What storing a list changed.

    Attributes:
        name: of the index.
        members: how many symbols it has now.
        added: symbols that were not in it before, in the order given.
        removed: symbols that were in it and are no longer.
    """

    name: str
    members: int
    added: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IndexImport:
    """What importing the past of an index made.

    Attributes:
        name: of the index.
        since: the first day of which its members are known.
        last_change: the last day on which somebody came or left.
        members: how many it has now.
        warnings: what contradicts itself in the sources, with the lines.
        to_come: how many changes were left out because their day is still to come.
    """

    name: str
    since: date
    last_change: date
    members: int
    warnings: tuple[str, ...] = ()
    to_come: int = 0


class MetadataStore:
    """Keep named lists of symbols beside the bars.

    Args:
        base_path: of the store; None takes it from the settings.
        files: where files are kept, instead of *base_path*.
        today: answers the current day in New York.
    """

    def __init__(
        self,
        base_path: str | Path | None = None,
        *,
        files: FileStore | None = None,
        today: Callable[[], date] = lambda: new_york_date(datetime.now(UTC)),
    ) -> None:
        self._files: FileStore = _open(base_path) if files is None else files
        self._today = today

    def store(self, index_name: str, symbols: Iterable[str], *, on: date | str | None = None, force: bool = True) -> IndexChange:
        """Make *symbols* the members of an index; storing the same list again changes nothing.

        A symbol that is already listed keeps its ``added_date``; one that left is remembered in the history, and gets a new
        date when it returns.

        Args:
            index_name: letters, digits, ``_``, ``-`` and ``.``, at most 64.
            symbols: the whole list, not a change to it.
            on: the day since which the list is so; today where None. Neither a day to come nor one before the last change.
            force: accept that more than 20 % of the members leave; False, as an ingestion has it, refuses that.

        Raises:
            InputError: a name or day that cannot be used, or more than 20 % of the members would leave.
            SymbolListError: no symbol, or some that cannot be symbols.
            DamagedFile: a file of the index was changed by hand into something else.
            StoreError: the store cannot be written.
        """
        name = check_index_name(index_name)
        wanted = SymbolLoader.from_list(symbols)
        day = _day(on, "on") if on is not None else None
        self._refuse_twin(name)
        before: Members = {}

        def remember(content: bytes | None) -> bytes | None:
            nonlocal before
            listed = self._listed(name)
            events = self._events(name, content) if content is not None else seed(listed)
            before = listed or {}
            if not force:
                _refuse_loss(name, before, wanted)
            new = differences(replay(events), wanted, self._effective(name, events, day))
            return dump_history([*events, *new]) if new or content is None else None

        self._files.update(_history_key(name), remember)
        self._relist(name, wanted)
        now = set(wanted)
        added = tuple(symbol for symbol in wanted if symbol not in before)
        return IndexChange(name, len(wanted), added, tuple(symbol for symbol in before if symbol not in now))

    def members(self, index_name: str, as_of: date | str | None = None) -> Members:
        """Return the symbols of an index with the day each was added; see `load`."""
        day = None if as_of is None else _day(as_of, "as_of")
        name = check_index_name(index_name)
        listed = self._listed(name)
        if listed is None:
            raise self._unknown(name)
        if day is None:
            return listed
        events = self.history(name)
        if not events or day < events[0].day:
            raise _not_known(name, events, day)
        if day >= events[-1].day:
            return listed
        return replay(events, day)

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
        """Make the past of an index of dated changes that others have collected; the same again changes nothing.

        What is stored already stays where it is later than all that is imported; of earlier days, the import is believed.

        Args:
            index_name: as `store`; a new one is made.
            changes: files of changes (`data_engine.universe.index_files` has the forms), of which each may hold lists, too.
            members: a file with the list as it was on one day; None takes the stored one, if *changes* hold none.
            as_of: the day of *members*, at whose end the list was so; None is what the file says, else after the last change.
            since: the day from which on the changes are complete, where that is before the first of them.
            column: of *members*, with the symbols; None tries the usual ones.
            force: forget what is stored of later days, drop more than 20 % of the members, and take a history that contradicts
                itself in many places.

        Raises:
            InputError: an argument cannot be used, or the sources contradict each other too often (`build_history`).
            SymbolListError: a file cannot be read; all that is wrong with it is named, with line numbers.
            DamagedFile: a file of the index was changed by hand into something else.
            StoreError: the store cannot be written.
        """
        name = check_index_name(index_name)
        self._refuse_twin(name)
        paths = [changes] if isinstance(changes, (str, Path)) else list(changes)
        sources = read_sources(paths, members, None if as_of is None else _day(as_of, "as_of"), column)
        first = None if since is None else _day(since, "since")
        if as_of is not None and _day(as_of, "as_of") > self._today():
            raise InputError(f"as_of {as_of}: a list cannot be of a day to come")
        past, to_come = sources.known_by(self._today())
        made: list[IndexImport] = []

        def remember(content: bytes | None) -> bytes | None:
            listed = self._listed(name)
            events = self._events(name, content) if content is not None else seed(listed)
            history = build_history(past.changes, past.anchored(events), since=first, force=force)
            history = history if force else continue_history(history, events)
            now = replay(history.events)
            if not force:
                _refuse_loss(name, listed or {}, list(now))
            first_day, last_day = history.events[0].day, history.events[-1].day
            made.append(IndexImport(name, first_day, last_day, len(now), history.warnings, to_come))
            written = dump_history(history.events)
            return None if written == content else written

        self._files.update(_history_key(name), remember)
        self._relist(name, anew=True)
        return made[-1]

    def memberships(self, index_name: str, span: TimeRange) -> dict[str, tuple[TimeRange, ...]]:
        """Return every symbol that was a member at any time inside *span*, sorted, with the ranges in which it was, clipped.

        Raises:
            UnknownIndexError: no such index.
            InputError: the span begins before the first list: who was a member then is not known.
            DamagedFile: a file of the index was changed by hand into something else.
        """
        events = self.history(index_name)
        if not events or span.start < new_york_midnight(events[0].day):
            raise _not_known(index_name, events, new_york_date(span.start))
        return members_within(events, span)

    def history(self, index_name: str) -> list[MembershipChange]:
        """Return all that came and left, in order; those of the first day make the first list.

        Raises:
            UnknownIndexError: no such index.
            DamagedFile: a file of the index was changed by hand into something else.
        """
        name = check_index_name(index_name)
        events = self._history(name)
        if events is None:
            listed = self._listed(name)
            if listed is None:
                raise self._unknown(name)
            return seed(listed)
        return events

    def load(self, index_name: str, as_of: date | str | None = None) -> pd.DataFrame:
        """Return an index as a DataFrame with the text columns ``symbol`` and ``added_date`` (ISO dates).

        Args:
            index_name: as it was stored.
            as_of: a day: the list as it was at the end of that day, in the order in which symbols were added. None: as it is
                now, in the order in which it was stored.

        Raises:
            UnknownIndexError: no such index; the message names those there are.
            InputError: *as_of* is not a date, or is earlier than the first list: what the index was then is not known,
                which is not the same as empty.
            DamagedFile: a file of the index was changed by hand into something else.
        """
        import pandas as pd

        members = self.members(index_name, as_of)
        columns = {"symbol": list(members), "added_date": [day.isoformat() for day in members.values()]}
        return pd.DataFrame(columns, dtype=str)

    def names(self) -> list[str]:
        """Return the names of the indices there are, sorted."""
        keys = (key.removeprefix(f"{_FOLDER}/") for key in self._files.list(_FOLDER))
        stems = (key.removesuffix(".csv") for key in keys if key.endswith(".csv") and "/" not in key)
        return sorted(stem for stem in stems if name_fault(stem) is None)

    def _relist(self, name: str, wanted: Sequence[str] = (), *, anew: bool = False) -> None:
        """Make the list of the history as it is now: another writer may have come between.

        Args:
            name: of the index.
            wanted: the order of the list, where these are its members.
            anew: take the days of the history in place of those that are listed.
        """

        def relist(content: bytes | None) -> bytes | None:
            members = replay(self._history(name) or ())
            listed = self._parse(name, content) if content is not None and not anew else {}
            order = wanted if set(wanted) == set(members) else list(members)
            made = dump_rows(LIST_HEADER, ((symbol, listed.get(symbol, members[symbol]).isoformat()) for symbol in order))
            return None if made == content else made

        self._files.update(_list_key(name), relist)

    def _listed(self, name: str) -> Members | None:
        content = self._files.get(_list_key(name))
        return None if content is None else self._parse(name, content)

    def _history(self, name: str) -> list[MembershipChange] | None:
        content = self._files.get(_history_key(name))
        return None if content is None else self._events(name, content)

    def _parse(self, name: str, content: bytes) -> Members:
        members: Members = {}

        def take(symbol: str, day: str) -> None:
            if check_symbol(symbol) in members:
                raise ValueError(f"{symbol} is listed twice")
            members[check_symbol(symbol)] = date.fromisoformat(day)

        try:
            load_rows(content, LIST_HEADER, take)
        except ValueError as error:
            raise self._damaged(_list_key(name), error) from error
        return members

    def _events(self, name: str, content: bytes) -> list[MembershipChange]:
        try:
            return load_history(content, check_symbol)
        except ValueError as error:
            raise self._damaged(_history_key(name), error) from error

    def _damaged(self, key: str, error: ValueError) -> DamagedFile:
        return DamagedFile(f"{self._files.location}/{key} is not what it should be: {error}")

    def _effective(self, name: str, events: Sequence[MembershipChange], on: date | None) -> date:
        """Return the day of a change: never before the last one, also when the clock went back."""
        last = events[-1].day if events else date.min
        if on is None:
            return max(self._today(), last)
        if on > self._today() + timedelta(days=1):  # it may be tomorrow already where the caller lives
            raise InputError(f"a list cannot be stored for {on}, a day to come")
        if on < last:
            raise InputError(f"index {name!r} last changed on {last}; a list cannot be stored for {on}, an earlier day")
        return on

    def _refuse_twin(self, name: str) -> None:
        for other in self.names():
            if other != name and other.lower() == name.lower():
                raise InputError(f"index {other!r} exists: {name!r} would be the same file on Windows and macOS; use that name")

    def _unknown(self, name: str) -> UnknownIndexError:
        names = self.names()
        there = f"there are: {', '.join(names)}" if names else f"none is stored yet in {self._files.location}"
        return UnknownIndexError(f"no index {name!r}; {there}")


def _not_known(name: str, events: Sequence[MembershipChange], day: date) -> InputError:
    since = events[0].day if events else "no day"
    return InputError(
        f"index {name!r} is known since {since}; what it was on {day} is not known "
        f"(`data-engine index import {name} --changes FILE` brings the past of an index in)"
    )


def _refuse_loss(name: str, before: Members, wanted: Sequence[str]) -> None:
    lost = len(before.keys() - set(wanted))
    if 5 * lost > len(before):
        raise InputError(
            f"storing {len(wanted)} symbols as index {name!r} would drop {lost} of its {len(before)} members, more than 20 %: "
            "use another name, or --force (force=True) if that is meant"
        )


def _day(value: object, parameter: str) -> date:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value.strip())
        except ValueError as error:
            raise InputError(f"{parameter} must be a date such as 2024-01-31, was {value!r}") from error
    if isinstance(value, datetime):  # a pandas Timestamp is one, too
        if value.tzinfo is not None or value.time() != time():
            raise InputError(f"{parameter} must be a date, was {value!r}")
        return value.date()
    if not isinstance(value, date):
        raise InputError(f"{parameter} must be a date, was {value!r}")
    return value


def _list_key(name: str) -> str:
    return f"{_FOLDER}/{name}.csv"


def _history_key(name: str) -> str:
    return f"{_FOLDER}/history/{name}.csv"


def _open(base_path: str | Path | None) -> FileStore:
    from data_engine.settings import load_settings
    from data_engine.store.location import open_file_store

    return open_file_store(load_settings(base_path=base_path).base_path)
