"""Lists of symbols: from Python, from CSV files as vendors publish them, from plain text.

A list loads whole or not at all: everything that is wrong with a file is in one `SymbolListError`, with line numbers. A
symbol is trimmed and upper-cased and otherwise left as it was written; whether it exists is for Alpaca to say. ``NA``,
``TRUE`` and ``NAN`` are tickers here, not missing values.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from data_engine.errors import InputError, MissingFileError, SymbolListError
from data_engine.market.symbol import _fault, _shown

_MAX_BYTES = 64 * 2**20

_MAX_PROBLEMS = 1000

_PREAMBLE_LINES = 50

_SEPARATORS = (",", ";", "\t", "|")

_COLUMNS = ("Symbol", "Ticker")

# The first cell of a one-column file without a header is a ticker in capitals, and none of the words that head a column.
_TICKER = re.compile(r"[A-Z][A-Z0-9]{0,4}([./^-][A-Z]{1,3})?")

_HEADINGS = frozenset({
    "SYMBOL", "TICKER", "CODE", "NAME", "ISIN", "CUSIP", "SEDOL", "RIC", "FIGI", "STOCK", "INDEX", "ASSET", "SYM", "TIC", "LIST",
})  # fmt: skip


class SymbolLoader:
    """Read lists of symbols. Every method returns upper-case symbols in the order given, each once."""

    @staticmethod
    def from_list(symbols: Iterable[str]) -> list[str]:
        """Return the symbols of an iterable; a bare string is one symbol.

        Raises:
            SymbolListError: items that cannot be symbols (all of them are named), or no item at all.
        """
        if isinstance(symbols, str):
            symbols = [symbols]
        if isinstance(symbols, bytes | bytearray) or not isinstance(symbols, Iterable):
            raise InputError(f"symbols must be a list of strings, was {_shown(symbols)}")
        return _collect("the list of symbols", "item", ((n, symbol, None) for n, symbol in enumerate(symbols, 1)))

    @staticmethod
    def from_csv(path: str | Path, symbol_column: str | None = None) -> list[str]:
        """Return the symbols of one column of a CSV file.

        The header may stand anywhere in the first 50 lines: it is the first line with the wanted column (its exact name
        first, then in any case). With no column named that is ``Symbol``, then ``Ticker``, and a file of one column
        without a header is read as symbols if its first line is a ticker in capitals. Cells are separated by commas,
        else by semicolons, tabs or bars. The table ends with its last row as wide as the header; other text may follow
        after an empty line. Encodings: UTF-8, UTF-16 with its mark, else Windows-1252.

        Args:
            path: of the file.
            symbol_column: name of the column; None tries the usual ones.

        Raises:
            MissingFileError: there is no such file.
            SymbolListError: no such column (the message names those there are), rows that hold no symbol or are not as
                wide as the header (all of them are named), no symbol at all, or not a text file.
        """
        if symbol_column is not None and (not isinstance(symbol_column, str) or not symbol_column.strip()):
            raise InputError(f"the symbol column must be a name, was {symbol_column!r}")
        text = read_text(path)
        names = _COLUMNS if symbol_column is None else (symbol_column.strip(),)
        for separator in _SEPARATORS:
            header = _find_header(text, separator, names, path)
            if header is not None:
                return _collect(str(path), "line", _table(_rows(text, separator), header))
        rows = [row for row in _rows(text, ",") if not row.blank]
        if symbol_column is None and _is_headerless(rows):
            return _collect(str(path), "line", ((row.line, row.cells[0], None) for row in rows))
        raise _no_column(text, names, path)

    @staticmethod
    def from_text_file(path: str | Path) -> list[str]:
        """Return the symbols of a text file: one a line, blank lines and what follows a ``#`` left out.

        Raises:
            MissingFileError: there is no such file.
            SymbolListError: lines that are not symbols (all of them are named), no symbol at all, or not a text file.
        """
        lines = re.split(r"\r\n|\n|\r", read_text(path))
        return _collect(str(path), "line", _plain(lines))


# What a reader found in one place: its number, the text, and a fault that is known already.
_Found = tuple[int, object, str | None]


def _collect(name: str, place: str, found: Iterable[_Found]) -> list[str]:
    """Check and fold what was found; all faults become one error."""
    symbols: dict[str, None] = {}
    problems: list[tuple[int, str, str]] = []
    for number, text, known in found:
        fault = known or _fault(text)
        if fault is not None:
            problems.append((number, _shown(text), fault))
        else:
            symbols.setdefault(str(text).strip().upper())
    if problems:
        raise SymbolListError(_located(name, place, problems))
    if not symbols:
        raise SymbolListError(f"{name}: holds no symbol")
    return list(symbols)


def _located(name: str, place: str, problems: Sequence[tuple[int, str, str]]) -> str:
    head = f"{len(problems)} {place}s are not symbols" if len(problems) > 1 else f"1 {place} is not a symbol"
    shown = problems[:_MAX_PROBLEMS]
    width = max(len(text) for _, text, _ in shown)
    lines = [f"  {place} {number}: {text:<{width}}  {fault}" for number, text, fault in shown]
    if len(problems) > len(shown):
        lines.append(f"  and {len(problems) - len(shown)} more")
    return "\n".join([f"{name}: {head}", *lines])


def read_text(path: str | Path) -> str:
    """Return the text of a file of lists, in whichever encoding it is.

    Raises:
        MissingFileError: there is no such file.
        SymbolListError: it cannot be read as text.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: there is no such file") from error
    except IsADirectoryError as error:
        raise SymbolListError(f"{path}: is a folder, not a list of symbols") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        folder = Path(path).is_dir() if isinstance(error, OSError) else False  # Windows: permission denied
        reason = "is a folder, not a list of symbols" if folder else f"cannot be read: {getattr(error, 'strerror', error)}"
        raise SymbolListError(f"{str(path)!r}: {reason}") from error
    if len(data) > _MAX_BYTES:
        raise SymbolListError(f"{path}: is larger than {_MAX_BYTES // 2**20} MB, which no list of symbols is")
    return _decode(data, path)


def _decode(data: bytes, path: str | Path) -> str:
    if data.startswith(b"PK\x03\x04"):
        raise SymbolListError(f"{path}: is an Excel workbook or another zip file; save the list as CSV")
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    # Excel writes Windows-1252 unless told otherwise. It can only touch company names: symbols are ASCII.
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "cp1252"):
        try:
            text = data.decode(encoding).rstrip("\x1a")
        except UnicodeDecodeError:
            continue
        strange = re.search(r"[\x00-\x08\x0e-\x1f]", text)
        if strange:
            raise SymbolListError(f"{path}: is not a text file (it contains {strange[0]!r})")
        return text
    raise SymbolListError(f"{path}: is not a text file in UTF-8, UTF-16 or Windows-1252")


def _plain(lines: Sequence[str]) -> Iterator[_Found]:
    first = True
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        heading = first and text.casefold() in ("symbol", "symbols", "ticker", "tickers")
        yield number, text, "is the name of a column: load the file as CSV" if heading else None
        first = False


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of a CSV file.

    Attributes:
        line: the number of its first line, from 1.
        cells: trimmed; none where the row is broken.
        broken: why it cannot be read, or None.
    """

    line: int
    cells: tuple[str, ...]
    broken: str | None = None

    @property
    def blank(self) -> bool:
        return not self.broken and not any(self.cells)

    def fit(self, width: int) -> tuple[str, ...]:
        """Return the cells without empty ones beyond *width*, which some writers add."""
        return self.cells if any(self.cells[width:]) else self.cells[:width]


@dataclass(frozen=True, slots=True)
class _Header:
    line: int
    width: int
    column: int
    name: str


def _rows(text: str, separator: str) -> Iterator[_Row]:
    # strict: a quotation mark that never closes would swallow the rest of the file without a word.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    while True:
        line = reader.line_num + 1
        try:
            yield _Row(line, tuple(cell.strip() for cell in next(reader)))
        except StopIteration:
            return
        except csv.Error as error:
            said = str(error)
            reason = "opens a quotation mark that never closes" if "end of data" in said else f"is broken: {said}"
            yield _Row(line, (), reason)


def _find_header(text: str, separator: str, names: Sequence[str], path: str | Path) -> _Header | None:
    for row in takewhile(lambda row: row.line <= _PREAMBLE_LINES, _rows(text, separator)):
        for name in names:
            exact = [i for i, cell in enumerate(row.cells) if cell == name]
            columns = exact or [i for i, cell in enumerate(row.cells) if cell.casefold() == name.casefold()]
            if len(columns) > 1:
                found = ", ".join(repr(row.cells[i]) for i in columns)
                raise SymbolListError(f"{path}: line {row.line} has {len(columns)} columns for {name!r}: {found}")
            if columns:
                return _Header(row.line, len(row.cells), columns[0], row.cells[columns[0]])
    return None


def _table(rows: Iterable[_Row], header: _Header) -> Iterator[_Found]:
    """Yield the symbol cells below the header, and whatever is wrong with the rows."""
    body = [row for row in rows if row.line > header.line]
    last = max((row.line for row in body if not row.blank and len(row.fit(header.width)) == header.width), default=header.line)
    in_footer = False
    for row in body:
        cells = row.fit(header.width)
        if row.blank:
            in_footer = row.line > last
        elif row.broken:
            yield row.line, "", row.broken
        elif len(cells) == header.width:
            cell = cells[header.column]
            yield row.line, cell, "is the header again" if cell == header.name else None
        elif not in_footer:
            fault = f"has {len(cells)} cell{'s' * (len(cells) > 1)}, the header has {header.width}"
            yield row.line, ",".join(row.cells), fault + (", and follows no empty line" if row.line > last else "")


def _is_headerless(rows: Sequence[_Row]) -> bool:
    if not rows or any(len(row.fit(1)) != 1 for row in rows):
        return False
    first = rows[0].cells[0]
    return _TICKER.fullmatch(first) is not None and first not in _HEADINGS


def _no_column(text: str, names: Sequence[str], path: str | Path) -> SymbolListError:
    """Name the columns there are: the widest of the first lines, by whichever separator makes it widest."""
    first = [
        row for separator in _SEPARATORS for row in takewhile(lambda row: row.line <= _PREAMBLE_LINES, _rows(text, separator))
    ]
    filled = [row for row in first if any(row.cells)]
    if not filled:
        return SymbolListError(f"{path}: holds no symbol")
    columns = ", ".join(_shown(cell) for cell in max(filled, key=lambda row: len(row.cells)).cells)
    wanted = " or ".join(repr(name) for name in names)
    remedy = (
        "name the one with the symbols (--column, symbol_column=...), or load a list without a header as a text file (--file)"
    )
    return SymbolListError(f"{path}: no column {wanted}; its columns are {columns}; {remedy}")
