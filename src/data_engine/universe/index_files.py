"""Read and write the two files of an index, and read the published forms of its past.

The published forms are recognized by their columns::

    date,action,symbol          a symbol was added or removed; our own history has this form, too
    date,add,remove             the symbols that were added and removed on a day, several in one cell
    date,symbol                 the members on a day: one list for each date
    year: / tickers_on_Jan_1:   YAML: the list on January 1, and changes with ``union`` and ``difference``

All faults of a file are in one `SymbolListError`, with line numbers.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from data_engine.errors import InputError, SymbolListError
from data_engine.market.symbol import check_symbol
from data_engine.market.time_range import iso, new_york_date, new_york_midnight
from data_engine.market.wording import indented, plural
from data_engine.store.csv_document import dump_rows, load_rows, split_lines
from data_engine.universe.membership import ADDED, REMOVED, MembershipChange, Snapshot, replay
from data_engine.universe.symbol_lists import MAX_PROBLEMS, SEPARATORS, SymbolLoader, read_text, width_fault

_LIST_HEADER = ("symbol", "added_date")

HISTORY_HEADER = ("date", "action", "symbol")

_DAYS = ("date", "effective_date", "as_of")

_SYMBOLS = ("symbol", "ticker")

_CAME = ("add", "added", "union")

_LEFT = ("remove", "removed", "difference")

_ACTIONS = {**dict.fromkeys(_CAME, ADDED), **dict.fromkeys(_LEFT, REMOVED)}

_FORMS = "date,action,symbol or date,add,remove or date,symbol (ticker and effective_date are known, too)"

_YEAR = re.compile(r"year: (\d{4})")

_YAML_DAY = re.compile(r"  (['\"]?)(\d{4}-\d\d-\d\d)\1:")

_YAML_ACTION = re.compile(r"    (union|difference):( \[\])?")

_YAML_ITEM = re.compile(r"(  |      )- (['\"]?)(\S+?)\2")

Canonical = Callable[[str], str]
"""A function from a symbol as written to the symbol as stored; raises `InputError` if it cannot be a symbol."""


ListRows = list[tuple[str, datetime]]
"""The rows of our file of an index: a symbol and the instant (UTC) at which it was added; a day is its midnight in New York."""


def dump_list(rows: Iterable[tuple[str, datetime]]) -> bytes:
    """Return the content of the file of an index."""
    return dump_rows(_LIST_HEADER, ((symbol, _added_text(instant)) for symbol, instant in rows))


def _added_text(instant: datetime) -> str:
    day = new_york_date(instant)
    return day.isoformat() if instant == new_york_midnight(day) else iso(instant)


def _added(text: str) -> datetime:
    """Return the instant of a day, or of a time as pandas writes it (``2025-01-15 14:30:00.123+00:00``; UTC without a zone)."""
    if len(text) == len("2025-01-15"):
        return new_york_midnight(date.fromisoformat(text))
    instant = datetime.fromisoformat(text)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def load_list(content: bytes) -> ListRows:
    """Undo `dump_list`.

    Raises:
        ValueError: If the file was changed into something else; the message names the line.
    """
    members: dict[str, datetime] = {}

    def take(*cells: str) -> None:
        symbol, added = cells[-2:]
        if check_symbol(symbol) in members:
            raise ValueError(f"{symbol} is listed twice")
        members[check_symbol(symbol)] = _added(added)

    numbered = content.startswith(f",{','.join(_LIST_HEADER)}".encode())  # pandas wrote its index, too
    load_rows(content, ("", *_LIST_HEADER) if numbered else _LIST_HEADER, take)
    return list(members.items())


def dump_history(events: Iterable[MembershipChange]) -> bytes:
    """Return the content of the file of a history."""
    return dump_rows(HISTORY_HEADER, ((event.day.isoformat(), event.action, event.symbol) for event in events))


def load_history(content: bytes, canonical: Canonical) -> list[MembershipChange]:
    """Undo `dump_history`.

    Raises:
        ValueError: If the file was changed into something else; the message names the line.
    """
    events: list[MembershipChange] = []

    def take(day: str, action: str, symbol: str) -> None:
        if action not in (ADDED, REMOVED):
            raise ValueError(f"the action must be added or removed, is {action!r}")
        event = MembershipChange(date.fromisoformat(day), action, canonical(symbol))
        if events and event.day < events[-1].day:
            raise ValueError("the days are not in order")
        events.append(event)

    load_rows(content, HISTORY_HEADER, take)
    return events


# ------------------------------------------------------------------------------------------------------- published forms


@dataclass(slots=True)
class IndexSources:
    """The content of published files.

    Attributes:
        changes: The changes, in the order in which they happened, as far as the file tells.
        snapshots: The complete lists, each of a day.
    """

    changes: list[MembershipChange] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    def add(self, other: IndexSources) -> None:
        """Add the content of another file."""
        self.changes += other.changes
        self.snapshots += other.snapshots

    def known_by(self, day: date) -> tuple[IndexSources, int]:
        """Return the content up to *day*, and the number of later changes."""
        past = [change for change in self.changes if change.day <= day]
        lists = [one for one in self.snapshots if one.day is None or one.day <= day]
        return IndexSources(past, lists), len(self.changes) - len(past)

    def anchored(self, stored: Sequence[MembershipChange]) -> list[Snapshot]:
        """Return the lists; if there are none, the one of a stored history that is closest to the last change.

        It is not later than the last change of the stored history, which does not tell whether the list lasted beyond that.
        """
        if self.snapshots or not stored:
            return self.snapshots
        day = max([stored[0].day, *(min(change.day, stored[-1].day) for change in self.changes)])
        return [Snapshot(day, tuple(replay(stored, day)), "the stored list")]


def read_dated(text: str, name: str, canonical: Canonical) -> IndexSources:
    """Return the content of a file of changes, or of lists with their days.

    Args:
        text: The content of the file.
        name: The name of the file, for messages.
        canonical: A function from a symbol as written to the symbol as stored.

    Raises:
        SymbolListError: If the form is unknown (the message names the first line), or rows cannot be read (all are named).
    """
    lines = split_lines(text)
    head = next((line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
    reader = _Reader(name, canonical)
    if head in ("---", "tickers_on_Jan_1:", "changes:") or _YEAR.fullmatch(head):
        reader.read_yaml(lines)
    else:
        reader.read_table(text)
    return reader.concluded()


def names_days(text: str) -> bool:
    """Return whether a table of symbols has a column of days besides that of the symbols."""
    first = next((line for line in text.lstrip("\ufeff").splitlines() if line.strip()), "")
    for separator in SEPARATORS:
        header = [cell.strip().strip('"').casefold() for cell in first.split(separator)]
        if _column(header, _DAYS) is not None and _column(header, _SYMBOLS) is not None:
            return True
    return False


class _Reader:
    """Read one file, and collect its faults."""

    def __init__(self, name: str, canonical: Canonical) -> None:
        self._name = name
        self._canonical = canonical
        self._changes: list[MembershipChange] = []
        self._lists: dict[date, dict[str, int]] = {}
        self._problems: list[str] = []

    def concluded(self) -> IndexSources:
        if self._problems:
            count = plural(len(self._problems), "line")
            raise SymbolListError(f"{self._name}: {count} cannot be read\n{indented(self._problems, MAX_PROBLEMS)}")
        if not self._changes and not self._lists:
            raise SymbolListError(f"{self._name}: contains neither a change nor a list")
        days = [event.day for event in self._changes]
        if len(set(days)) > 1 and days == sorted(days, reverse=True):
            self._changes.reverse()  # newest first, as in encyclopedias
        lists = [
            Snapshot(day, tuple(symbols), f"{self._name}: line {min(symbols.values())}") for day, symbols in self._lists.items()
        ]
        return IndexSources(self._changes, lists)

    def read_table(self, text: str) -> None:
        for separator in SEPARATORS:
            rows = csv.reader(split_lines(text.lstrip("\ufeff")), delimiter=separator, strict=True)
            header = [cell.strip().casefold() for cell in next((row for row in _until_broken(rows) if any(row)), [])]
            take = self._form(header)
            if take is not None:
                break
        else:
            first = next((line.strip() for line in text.splitlines() if line.strip()), "nothing")
            raise SymbolListError(f"{self._name}: its first line is {first[:80]!r}; a file of changes has the columns {_FORMS}")
        try:
            for row in rows:
                cells = [cell.strip() for cell in row]
                if any(cells) and len(cells) != len(header):
                    self._note(rows.line_num, width_fault(len(cells), len(header)))
                elif any(cells):
                    take(rows.line_num, cells)
        except csv.Error as error:
            self._note(rows.line_num, f"is broken: {error}")

    def read_yaml(self, lines: Iterable[str]) -> None:
        """Read the one known layout, line by line: a YAML parser reads the ticker ON as a boolean."""
        year: int | None = None
        day: date | None = None
        action: str | None = None
        for number, raw in enumerate(lines, 1):
            line = raw.partition("#")[0].rstrip()
            if line in ("", "---", "...", "changes:", "tickers_on_Jan_1:"):
                continue
            if match := _YEAR.fullmatch(line):
                year = int(match[1])
            elif match := _YAML_DAY.fullmatch(line):
                day, action = self._day(number, match[2]), None
            elif match := _YAML_ACTION.fullmatch(line):
                action = _ACTIONS[match[1]]
            elif (match := _YAML_ITEM.fullmatch(line)) is None:
                self._note(number, f"{line.strip()!r} is not part of the list of an index")
            elif len(match[1]) == 2 and year is not None and day is None:
                self._member(number, date(year, 1, 1), match[3])
            elif len(match[1]) == 6 and day is not None and action is not None:
                self._change(number, day, action, match[3])
            else:
                self._note(number, f"{match[3]!r} is not below a year, or not below a day with union or difference")

    def _form(self, header: list[str]) -> Callable[[int, list[str]], None] | None:
        """Return the function that reads a row below *header*, or None if the form is unknown."""
        when, who = _column(header, _DAYS), _column(header, _SYMBOLS)
        came, left = _column(header, _CAME), _column(header, _LEFT)
        action = _column(header, ("action",))
        if when is None:
            return None
        if who is not None and action is not None:
            return lambda line, cells: self._one(line, cells[when], cells[action], cells[who])
        if came is not None and left is not None:
            return lambda line, cells: self._several(line, cells[when], cells[left], cells[came])
        if who is not None and came is None and left is None:
            return lambda line, cells: self._listed(line, cells[when], cells[who])
        return None

    def _one(self, line: int, when: str, action: str, who: str) -> None:
        day, known = self._day(line, when), _ACTIONS.get(action.casefold())
        if known is None:
            self._note(line, f"the action must be added or removed, is {action!r}")
        elif day is not None:
            self._change(line, day, known, who)

    def _several(self, line: int, when: str, left: str, came: str) -> None:
        day = self._day(line, when)
        if not left and not came:
            self._note(line, "adds and removes nothing")
        # Removals first: a symbol can pass to another company on one day.
        for action, cell in ((REMOVED, left), (ADDED, came)):
            for who in (part.strip() for part in re.split(r"[,;\s]+", cell) if part.strip()):
                if day is not None:
                    self._change(line, day, action, who)

    def _listed(self, line: int, when: str, who: str) -> None:
        day = self._day(line, when)
        if day is not None:
            self._member(line, day, who)

    def _change(self, line: int, day: date, action: str, who: str) -> None:
        symbol = self._symbol(line, who)
        if symbol is not None:
            self._changes.append(MembershipChange(day, action, symbol, f"{self._name}: line {line}"))

    def _member(self, line: int, day: date, who: str) -> None:
        symbol = self._symbol(line, who)
        if symbol is not None:
            self._lists.setdefault(day, {}).setdefault(symbol, line)

    def _day(self, line: int, text: str) -> date | None:
        try:
            if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
                return date.fromisoformat(text)
            self._note(line, f"{text!r} is not a day such as 2024-01-31")
        except ValueError as error:
            self._note(line, f"{text!r} is not a day ({error})")
        return None

    def _symbol(self, line: int, text: str) -> str | None:
        try:
            return self._canonical(text)
        except InputError as error:
            self._note(line, str(error))
            return None

    def _note(self, line: int, text: str) -> None:
        self._problems.append(f"line {line}: {text}")


def _until_broken(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    """Yield rows until one is broken."""
    try:
        yield from rows
    except csv.Error:
        return


def _column(header: list[str], names: Iterable[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def read_sources(
    changes: Sequence[str | Path], members: str | Path | None = None, as_of: date | None = None, column: str | None = None
) -> IndexSources:
    """Return the content of files of changes, and of a list of the members on one day.

    Args:
        changes: The files of changes, each of which may contain lists, too.
        members: A file with a list that `SymbolLoader` can read, or with a column of days.
        as_of: The day of *members*. If None, the day in the file, else after the last change.
        column: The column of *members* with the symbols.

    Raises:
        MissingFileError: If a file does not exist.
        SymbolListError: If a file cannot be read; all its faults are named.
        InputError: If there is no file, or *as_of* or *column* is given without *members*.
    """
    if not changes and members is None:
        raise InputError("no file given; pass a file of changes (--changes), or a list with its day (--members, --as-of)")
    if members is None and (as_of is not None or column is not None):
        raise InputError("--as-of and --column need a file of members; pass --members FILE")
    found = IndexSources()
    for path in changes:
        found.add(read_dated(read_text(path), Path(path).name, check_symbol))
    if members is not None:
        name, text = Path(members).name, read_text(members)
        if as_of is None and column is None and names_days(text):
            found.add(read_dated(text, name, check_symbol))
        else:
            found.snapshots.append(Snapshot(as_of, tuple(_symbols(members, column)), name))
    return found


def _symbols(path: str | Path, column: str | None) -> list[str]:
    if column is None and Path(path).suffix.lower() == ".txt":
        return SymbolLoader.from_text_file(path)
    return SymbolLoader.from_csv(path, symbol_column=column)
