"""Lists of symbols with days, as text: our own two files, and the forms in which others publish what an index was. Pure.

Forms of others are told apart by their columns::

    date,action,symbol          a symbol came (added) or left (removed); our own history has this form, too
    date,add,remove             symbols that came and that left on a day, several in one cell
    date,symbol                 who was a member on that day: one list for each date
    year: / tickers_on_Jan_1:   YAML: the list of New Year, and changes with ``union`` and ``difference``

Everything that is wrong with a file is in one `SymbolListError`, with line numbers.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from data_engine.errors import InputError, SymbolListError
from data_engine.market.symbol import check_symbol
from data_engine.store.csv_document import _lines, dump_rows, load_rows
from data_engine.universe.membership import ADDED, REMOVED, MembershipChange, Snapshot, replay
from data_engine.universe.symbol_lists import SymbolLoader, read_text

LIST_HEADER = ("symbol", "added_date")

HISTORY_HEADER = ("date", "action", "symbol")

_SEPARATORS = (",", ";", "\t", "|")

_DAYS = ("date", "effective_date", "as_of")

_SYMBOLS = ("symbol", "ticker")

_CAME = ("add", "added", "union")

_LEFT = ("remove", "removed", "difference")

_ACTIONS = {**dict.fromkeys(_CAME, ADDED), **dict.fromkeys(_LEFT, REMOVED)}

_FORMS = "date,action,symbol or date,add,remove or date,symbol (ticker and effective_date are known, too)"

_MAX_PROBLEMS = 1000

_YEAR = re.compile(r"year: (\d{4})")

_YAML_DAY = re.compile(r"  (['\"]?)(\d{4}-\d\d-\d\d)\1:")

_YAML_ACTION = re.compile(r"    (union|difference):( \[\])?")

_YAML_ITEM = re.compile(r"(  |      )- (['\"]?)(\S+?)\2")

Canonical = Callable[[str], str]
"""Makes one symbol of its spellings; raises `InputError` for what cannot be a symbol."""


def dump_history(events: Iterable[MembershipChange]) -> bytes:
    """Write a history as the bytes of its file."""
    return dump_rows(HISTORY_HEADER, ((event.day.isoformat(), event.action, event.symbol) for event in events))


def load_history(content: bytes, canonical: Canonical) -> list[MembershipChange]:
    """Undo `dump_history`.

    Raises:
        ValueError: somebody made something else of the file; the message names the line.
    """
    events: list[MembershipChange] = []

    def take(day: str, action: str, symbol: str) -> None:
        if action not in (ADDED, REMOVED):
            raise ValueError(f"the action is added or removed, was {action!r}")
        event = MembershipChange(date.fromisoformat(day), action, canonical(symbol))
        if events and event.day < events[-1].day:
            raise ValueError("the days are not in order")
        events.append(event)

    load_rows(content, HISTORY_HEADER, take)
    return events


# ------------------------------------------------------------------------------------------------------- the forms of others


@dataclass(slots=True)
class IndexSources:
    """What the files say.

    Attributes:
        changes: in the order in which they happened, as far as the file tells.
        snapshots: whole lists, each of a day.
    """

    changes: list[MembershipChange] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    def add(self, other: IndexSources) -> None:
        """Take in what another file says."""
        self.changes += other.changes
        self.snapshots += other.snapshots

    def known_by(self, day: date) -> tuple[IndexSources, int]:
        """Return what is of *day* or earlier, and how many changes are still to come."""
        past = [change for change in self.changes if change.day <= day]
        return IndexSources(past, [one for one in self.snapshots if one.day is None or one.day <= day]), len(self.changes) - len(
            past
        )

    def anchored(self, stored: Sequence[MembershipChange]) -> list[Snapshot]:
        """Return the lists; where there are none, that of a stored history, as near to the last change as it reaches back."""
        if self.snapshots or not stored:
            return self.snapshots
        day = max([stored[0].day, *(change.day for change in self.changes)])
        return [Snapshot(day, tuple(replay(stored, day)), "the stored list")]


def read_dated(text: str, name: str, canonical: Canonical) -> IndexSources:
    """Read a file of changes, or of lists with their days.

    Args:
        text: of the file.
        name: of the file, for messages.
        canonical: makes one symbol of its spellings.

    Raises:
        SymbolListError: none of the known forms (the message names the columns there are), or rows that cannot be read (all
            of them are named).
    """
    lines = _lines(text)
    head = next((line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
    reader = _Reader(name, canonical)
    if head in ("---", "tickers_on_Jan_1:", "changes:") or _YEAR.fullmatch(head):
        reader.read_yaml(lines)
    else:
        reader.read_table(text)
    return reader.concluded()


def names_days(text: str) -> bool:
    """Tell whether a table of symbols says of which day it is: a column of days beside that of the symbols."""
    first = next((line for line in text.lstrip("\ufeff").splitlines() if line.strip()), "")
    for separator in _SEPARATORS:
        header = [cell.strip().strip('"').casefold() for cell in first.split(separator)]
        if _column(header, _DAYS) is not None and _column(header, _SYMBOLS) is not None:
            return True
    return False


class _Reader:
    """Reads one file, and gathers what is wrong with it."""

    def __init__(self, name: str, canonical: Canonical) -> None:
        self._name = name
        self._canonical = canonical
        self._changes: list[MembershipChange] = []
        self._lists: dict[date, dict[str, int]] = {}
        self._problems: list[str] = []

    def concluded(self) -> IndexSources:
        if self._problems:
            count = len(self._problems)
            shown = "\n".join(f"  {text}" for text in self._problems[:_MAX_PROBLEMS])
            raise SymbolListError(f"{self._name}: {count} line{'s' * (count > 1)} cannot be read\n{shown}")
        if not self._changes and not self._lists:
            raise SymbolListError(f"{self._name}: holds neither a change nor a list")
        days = [event.day for event in self._changes]
        if len(set(days)) > 1 and days == sorted(days, reverse=True):
            self._changes.reverse()  # newest first, as encyclopedias have it
        lists = [
            Snapshot(day, tuple(symbols), f"{self._name}: line {min(symbols.values())}") for day, symbols in self._lists.items()
        ]
        return IndexSources(self._changes, lists)

    def read_table(self, text: str) -> None:
        for separator in _SEPARATORS:
            rows = csv.reader(_lines(text.lstrip("\ufeff")), delimiter=separator, strict=True)
            header = [cell.strip().casefold() for cell in next((row for row in _cells(rows) if any(row)), [])]
            take = self._form(header)
            if take is not None:
                break
        else:
            first = next((line.strip() for line in text.splitlines() if line.strip()), "nothing")
            raise SymbolListError(f"{self._name}: its first line is {first[:80]!r}; a file of changes has the columns {_FORMS}")
        try:
            for cells in rows:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    self._note(rows.line_num, f"has {len(cells)} cell{'s' * (len(cells) > 1)}, the header has {len(header)}")
                    continue
                take(rows.line_num, [cell.strip() for cell in cells])
        except csv.Error as error:
            self._note(rows.line_num, f"is broken: {error}")

    def read_yaml(self, lines: Iterable[str]) -> None:
        """Read the one layout that is known, line by line: to YAML itself, the ticker ON is a truth value."""
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
                self._note(number, f"{line.strip()!r} has no place in a list of an index")
            elif len(match[1]) == 2 and year is not None and day is None:
                self._member(number, date(year, 1, 1), match[3])
            elif len(match[1]) == 6 and day is not None and action is not None:
                self._change(number, day, action, match[3])
            else:
                self._note(number, f"{match[3]!r} stands below no year, or below no day with union or difference")

    def _form(self, header: list[str]) -> Callable[[int, list[str]], None] | None:
        """Return what reads a row below *header*, or None where that is no known form."""
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
            self._note(line, f"the action is added or removed, was {action!r}")
        elif day is not None:
            self._change(line, day, known, who)

    def _several(self, line: int, when: str, left: str, came: str) -> None:
        day = self._day(line, when)
        if not left and not came:
            self._note(line, "adds and removes nothing")
        # Who leaves does so first: a symbol can pass to another company on one day.
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


def _cells(rows: Iterator[list[str]]) -> Iterator[list[str]]:
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
    """Read files of changes, and a list of the members on one day.

    Args:
        changes: files of changes, of which each may hold lists, too.
        members: a list as `SymbolLoader` reads them, or with a column of days.
        as_of: the day of *members*; None is what the file says, else after the last change.
        column: of *members*, with the symbols.

    Raises:
        MissingFileError: a file is not there.
        SymbolListError: a file cannot be read; all that is wrong with it is named.
        InputError: no file, or *as_of* or *column* without *members*.
    """
    if not changes and members is None:
        raise InputError("name a file of changes (--changes), or a list with its day (--members, --as-of)")
    if members is None and (as_of is not None or column is not None):
        raise InputError("--as-of and --column are about the file that --members names")
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
