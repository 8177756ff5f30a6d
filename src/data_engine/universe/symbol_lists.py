"""Read lists of symbols from Python, from published CSV files, and from plain text.

A list loads completely or not at all: all faults of a file are in one `SymbolListError`, with line numbers. A symbol is trimmed
and converted to upper case, and otherwise left as written; only Alpaca knows whether it exists. ``NA``, ``TRUE`` and ``NAN`` are
tickers here, not missing values.
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
from data_engine.market.symbol import shortened, symbol_fault
from data_engine.market.wording import indented, plural

_MAX_BYTES = 64 * 2**20

MAX_PROBLEMS = 1000

_PREAMBLE_LINES = 50

SEPARATORS = (",", ";", "\t", "|")

_COLUMNS = ("Symbol", "Ticker")

# The first cell of a one-column file without a header is a ticker in capitals, and not a usual name of a column.
_TICKER = re.compile(r"[A-Z][A-Z0-9]{0,4}([./^-][A-Z]{1,3})?")

_HEADINGS = frozenset({
    "SYMBOL", "TICKER", "CODE", "NAME", "ISIN", "CUSIP", "SEDOL", "RIC", "FIGI", "STOCK", "INDEX", "ASSET", "SYM", "TIC", "LIST",
})  # fmt: skip


class SymbolLoader:
    """Read lists of symbols. Every method returns upper-case symbols in the order given, each once.

    Example:
        >>> SymbolLoader.from_list(["msft", "AAPL", "MSFT"])
        ['MSFT', 'AAPL']
    """

    @staticmethod
    def from_list(symbols: Iterable[str]) -> list[str]:
        """Return the symbols of an iterable; a bare string is one symbol.

        Raises:
            SymbolListError: If items cannot be symbols (all are named), or there is none.
        """
        if isinstance(symbols, str):
            symbols = [symbols]
        if isinstance(symbols, bytes | bytearray) or not isinstance(symbols, Iterable):
            raise InputError(f"symbols must be a list of strings, is {shortened(symbols)}")
        return _collect(None, "item", ((n, symbol, None) for n, symbol in enumerate(symbols, 1)))

    @staticmethod
    def from_csv(path: str | Path, symbol_column: str | None = None) -> list[str]:
        """Return the symbols of one column of a CSV file.

        The header may be anywhere in the first 50 lines: it is the first line with the requested column (the exact name first,
        then in any case). If no column is given, that is ``Symbol``, then ``Ticker``, and a file of one column without a header
        is read as symbols if its first line is a ticker in capitals. Cells are separated by commas, else by semicolons, tabs or
        bars. The table ends with its last row that is as wide as the header; other text may follow after an empty line.
        Encodings: UTF-8, UTF-16 with a byte order mark, else Windows-1252.

        Args:
            path: The path of the file.
            symbol_column: The name of the column. If None, the usual ones.

        Raises:
            MissingFileError: If there is no such file.
            SymbolListError: If there is no such column (the message names the columns), rows have no symbol or are not as wide
                as the header (all are named), there is no symbol, or this is not a text file.
        """
        if symbol_column is not None and (not isinstance(symbol_column, str) or not symbol_column.strip()):
            raise InputError(f"the symbol column must be a name, is {symbol_column!r}")
        text = read_text(path)
        names = _COLUMNS if symbol_column is None else (symbol_column.strip(),)
        for separator in SEPARATORS:
            header = _find_header(text, separator, names, path)
            if header is not None:
                return _collect(str(path), "line", _table(_rows(text, separator), header))
        rows = [row for row in _rows(text, ",") if not row.blank]
        if symbol_column is None and _is_headerless(rows):
            return _collect(str(path), "line", ((row.line, row.cells[0], None) for row in rows))
        raise _no_column(text, names, path)

    @staticmethod
    def from_text_file(path: str | Path) -> list[str]:
        """Return the symbols of a text file, one per line; blank lines and text after a ``#`` are ignored.

        Raises:
            MissingFileError: If there is no such file.
            SymbolListError: If lines are not symbols (all are named), there is no symbol, or this is not a text file.
        """
        lines = re.split(r"\r\n|\n|\r", read_text(path))
        return _collect(str(path), "line", _plain(lines))


# The number of a line or item, its text, and a fault that is known already.
_Found = tuple[int, object, str | None]


def _collect(path: str | None, place: str, found: Iterable[_Found]) -> list[str]:
    """Return the checked symbols, each once; all faults become one error. Without a *path*, they are those given."""
    symbols: dict[str, None] = {}
    problems: list[tuple[int, str, str]] = []
    for number, text, known in found:
        fault = known or symbol_fault(text)
        if fault is not None:
            problems.append((number, shortened(text), fault))
        else:
            symbols.setdefault(str(text).strip().upper())
    if problems:
        raise SymbolListError(_located(path, place, problems))
    if not symbols:
        raise SymbolListError(f"{path or 'the list of symbols'}: contains no symbol")
    return list(symbols)


def _located(path: str | None, place: str, problems: Sequence[tuple[int, str, str]]) -> str:
    count = len(problems)
    fault = "are not symbols" if count > 1 else "is not a symbol"
    head = f"{count:,} of the given symbols cannot be used:" if path is None else f"{path}: {plural(count, place)} {fault}"
    if path is None and any("," in text for _, text, _ in problems):
        head = f"{head[:-1]}; separate symbols by spaces:"
    width = max(len(text) for _, text, _ in problems[:MAX_PROBLEMS])
    lines = [f"{place} {number}: {text:<{width}} {fault}" for number, text, fault in problems]
    return f"{head}\n{indented(lines, MAX_PROBLEMS)}"


def read_text(path: str | Path) -> str:
    """Return the text of a file of lists, in any of the known encodings.

    Raises:
        MissingFileError: If there is no such file.
        SymbolListError: If it cannot be read as text.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} does not exist") from error
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
    # Excel writes Windows-1252 by default. That affects only company names: symbols are ASCII.
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
        line: The number of its first line, from 1.
        cells: The trimmed cells; none if the row is broken.
        broken: The reason why it cannot be read, or None.
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
    # strict: else a quotation mark that never closes would hide the rest of the file.
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
    """Yield the symbol cells below the header, and the faults of the rows."""
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
            below = ", or an empty line before text below the table" if row.line > last else ""
            yield row.line, ",".join(row.cells), width_fault(len(cells), header.width) + below


def width_fault(cells: int, width: int) -> str:
    """Return the fault of a row that is not as wide as the header, and a remedy."""
    missing = width - cells
    remedy = (
        f"add the missing {'cell' if missing == 1 else 'cells'}" if missing > 0 else "quote the cell that contains a separator"
    )
    return f"has {plural(cells, 'cell')} instead of {width}; {remedy}"


def _is_headerless(rows: Sequence[_Row]) -> bool:
    if not rows or any(len(row.fit(1)) != 1 for row in rows):
        return False
    first = rows[0].cells[0]
    return _TICKER.fullmatch(first) is not None and first not in _HEADINGS


def _no_column(text: str, names: Sequence[str], path: str | Path) -> SymbolListError:
    """Return the error for a missing column. It names the cells of the widest of the first lines, by any separator."""
    first = [
        row for separator in SEPARATORS for row in takewhile(lambda row: row.line <= _PREAMBLE_LINES, _rows(text, separator))
    ]
    filled = [row for row in first if any(row.cells)]
    if not filled:
        return SymbolListError(f"{path}: contains no symbol")
    columns = ", ".join(shortened(cell) for cell in max(filled, key=lambda row: len(row.cells)).cells)
    wanted = " or ".join(repr(name) for name in names)
    remedy = (
        "pass the one with the symbols (--column, symbol_column=...), or load a list without a header as a text file (--file)"
    )
    return SymbolListError(f"{path}: no column {wanted}; its columns are {columns}; {remedy}")
