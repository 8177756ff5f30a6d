"""Named lists of symbols ("indices"), and what they were on any day since they were first stored.

A list is two small CSV files, readable without this program::

    metadata/indices/{name}.csv            symbol,added_date          as it is now
    metadata/indices/history/{name}.csv    date,action,symbol         every symbol that came (added) or left (removed)

The history is written first and the list is made from it, so that two writers, or a writer that was killed and run again,
end with files that agree. Readers write nothing.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from data_engine.errors import DamagedFile, InputError, UnknownIndexError
from data_engine.files import FileStore
from data_engine.ranges import new_york_date
from data_engine.symbols import SymbolLoader, check_symbol

if TYPE_CHECKING:
    import pandas as pd

_FOLDER = "metadata/indices"
_LIST_HEADER = ("symbol", "added_date")
_HISTORY_HEADER = ("date", "action", "symbol")
_LIST_SUFFIXES = (".csv", ".txt", ".tsv", ".list")
_MAX_NAME = 64
_RESERVED = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))})

Members = dict[str, date]
"""Symbol to the day it was added, in the order of the list."""


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
class _Event:
    day: date
    action: str
    symbol: str


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
            events = self._events(name, content) if content is not None else _seed(listed)
            before = listed or {}
            if not force:
                _refuse_loss(name, before, wanted)
            new = _changes(_replay(events), wanted, self._effective(name, events, day))
            return _write(_HISTORY_HEADER, _history_rows([*events, *new])) if new or content is None else None

        def relist(content: bytes | None) -> bytes | None:
            # From the history as it is now: another writer may have come between.
            members = _replay(self._history(name) or ())
            listed = self._parse(name, content) if content is not None else {}
            order = wanted if set(wanted) == set(members) else list(members)
            made = _write(_LIST_HEADER, ((symbol, listed.get(symbol, members[symbol]).isoformat()) for symbol in order))
            return None if made == content else made

        self._files.update(_history_key(name), remember)
        self._files.update(_list_key(name), relist)
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
        events = self._history(name)
        if events is None:
            events = _seed(listed)
        if not events or day < events[0].day:
            since = events[0].day if events else "no day"
            raise InputError(f"index {name!r} is known since {since}; what it was on {day} is not known")
        if day >= events[-1].day:
            return listed
        return _replay(event for event in events if event.day <= day)

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
        return sorted(stem for stem in stems if _name_fault(stem) is None)

    def _listed(self, name: str) -> Members | None:
        content = self._files.get(_list_key(name))
        return None if content is None else self._parse(name, content)

    def _history(self, name: str) -> list[_Event] | None:
        content = self._files.get(_history_key(name))
        return None if content is None else self._events(name, content)

    def _parse(self, name: str, content: bytes) -> Members:
        members: Members = {}

        def take(symbol: str, day: str) -> None:
            if check_symbol(symbol) in members:
                raise ValueError(f"{symbol} is listed twice")
            members[check_symbol(symbol)] = date.fromisoformat(day)

        _read(f"{self._files.location}/{_list_key(name)}", content, _LIST_HEADER, take)
        return members

    def _events(self, name: str, content: bytes) -> list[_Event]:
        events: list[_Event] = []

        def take(day: str, action: str, symbol: str) -> None:
            if action not in ("added", "removed"):
                raise ValueError(f"the action is added or removed, was {action!r}")
            event = _Event(date.fromisoformat(day), action, check_symbol(symbol))
            if events and event.day < events[-1].day:
                raise ValueError("the days are not in order")
            events.append(event)

        _read(f"{self._files.location}/{_history_key(name)}", content, _HISTORY_HEADER, take)
        return events

    def _effective(self, name: str, events: Sequence[_Event], on: date | None) -> date:
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


def check_index_name(name: str) -> str:
    """Return *name* if it can name an index, and a file on every system.

    Raises:
        InputError: it cannot; the message says why.
    """
    fault = _name_fault(name)
    if fault is not None:
        raise InputError(f"index name {name!r} {fault}")
    return name


def index_name_of(path: str | Path) -> str:
    """Return the name of the index that a file of symbols makes: ``sp500-2025.csv`` gives ``sp500_2025``.

    Lower case; every run of other characters than letters and digits becomes one ``_``.

    Raises:
        InputError: nothing of the file's name is left.
    """
    file = Path(path).name
    stem, dot, suffix = file.rpartition(".")
    if not dot or f".{suffix.lower()}" not in _LIST_SUFFIXES:
        stem = file
    name = re.sub(r"[^a-z0-9]+", "_", stem.lower())[:_MAX_NAME].strip("_")
    if not name:
        raise InputError(f"{str(path)!r} gives no name for an index; name it (--index, index_name=...)")
    return name if name.upper() not in _RESERVED else f"{name}_list"


def _name_fault(name: object) -> str | None:
    if not isinstance(name, str):
        return "is not a string"
    if not 1 <= len(name) <= _MAX_NAME:
        return f"must have 1 to {_MAX_NAME} characters"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        return "must begin with a letter or digit and hold only letters, digits, '_', '-' and '.'"
    if name.endswith("."):
        return "must not end with '.'"
    if name.split(".")[0].upper() in _RESERVED:
        return "is the name of a device on Windows"
    return None


def _refuse_loss(name: str, before: Members, wanted: Sequence[str]) -> None:
    lost = len(before.keys() - set(wanted))
    if 5 * lost > len(before):
        raise InputError(
            f"storing {len(wanted)} symbols as index {name!r} would drop {lost} of its {len(before)} members, more than 20 %: "
            "use another name, or --force (force=True) if that is meant"
        )


def _seed(listed: Members | None) -> list[_Event]:
    """Make the history of a list that has none: someone wrote it by hand."""
    made = [_Event(day, "added", symbol) for symbol, day in (listed or {}).items()]
    return sorted(made, key=lambda event: event.day)


def _replay(events: Iterable[_Event]) -> Members:
    members: Members = {}
    for event in events:
        if event.action == "added":
            members.setdefault(event.symbol, event.day)
        else:
            members.pop(event.symbol, None)
    return members


def _changes(before: Members, wanted: Sequence[str], day: date) -> list[_Event]:
    now = set(wanted)
    removed = [_Event(day, "removed", symbol) for symbol in before if symbol not in now]
    return removed + [_Event(day, "added", symbol) for symbol in wanted if symbol not in before]


def _history_rows(events: Iterable[_Event]) -> Iterator[tuple[str, ...]]:
    return ((event.day.isoformat(), event.action, event.symbol) for event in events)


def _write(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def _read(file: str, content: bytes, header: tuple[str, ...], take: Callable[..., None]) -> None:
    """Hand each row's cells to *take*; a mark, CRLF and blank lines, as spreadsheets leave them, are tolerated.

    Raises:
        DamagedFile: another header, another number of cells, or *take* refused a row; the message names file and line.
    """
    line = 1
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        if tuple(next(reader, ())) != header:
            raise ValueError(f"must be {','.join(header)}")
        for cells in reader:
            line = reader.line_num
            if cells and len(cells) != len(header):
                raise ValueError(f"has {len(cells)} cells, not {len(header)}")
            if cells:
                take(*cells)
    except (ValueError, csv.Error) as error:
        raise DamagedFile(f"{file} is not what it should be: line {line}: {error}") from error


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
    from data_engine.places import open_files
    from data_engine.settings import load_settings

    return open_files(load_settings(base_path=base_path).base_path)
