"""Rows as the bytes of a small CSV file of the store, and back; spreadsheets may have touched it. Pure."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable


def dump_rows(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> bytes:
    """Write one of our own files."""
    made = _Written()
    writer = csv.writer(made, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return "".join(made.lines).encode()


def load_rows(content: bytes, header: tuple[str, ...], take: Callable[..., None]) -> None:
    """Hand each row's cells to *take*; a mark, CRLF and blank lines, as spreadsheets leave them, are tolerated.

    Raises:
        ValueError: another header, another number of cells, or *take* refused a row; the message names the line.
    """
    line = 1
    try:
        reader = csv.reader(_lines(content.decode("utf-8-sig")), strict=True)
        if tuple(next(reader, ())) != header:
            raise ValueError(f"must be {','.join(header)}")
        for cells in reader:
            line = reader.line_num
            if cells and len(cells) != len(header):
                raise ValueError(f"has {len(cells)} cells, not {len(header)}")
            if cells:
                take(*cells)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"line {line}: {error}") from error


class _Written:
    """What a csv writer writes to."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> int:
        self.lines.append(line)
        return len(line)


def _lines(text: str) -> list[str]:
    """Return the lines of a text with their ends; `str.splitlines` knows ends that no table has."""
    return re.findall(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+", text)
