"""The files from which the past of an index is made."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from data_engine.errors import InputError
from data_engine.indices.dated_lists import Dated, names_days, read_dated
from data_engine.indices.universes import Snapshot
from data_engine.symbols import SymbolLoader, check_symbol, read_text


def read_sources(
    changes: Sequence[str | Path], members: str | Path | None = None, as_of: date | None = None, column: str | None = None
) -> Dated:
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
    found = Dated()
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
