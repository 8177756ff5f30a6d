"""Read and write the rows of a small CSV file of the store, which a spreadsheet may have changed."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable


def dump_rows(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> bytes:
    """Return a header and rows as the content of a file."""
    lines = _Lines()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return "".join(lines).encode()


def load_rows(content: bytes, header: tuple[str, ...], take: Callable[..., None]) -> None:
    """Call *take* with the cells of each row; a byte order mark, CRLF and blank lines, as spreadsheets write them, are accepted.

    Raises:
        ValueError: If the header or a number of cells differs, or *take* raises it; the message has the line.
    """
    line = 1
    try:
        reader = csv.reader(split_lines(content.decode("utf-8-sig")), strict=True)
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


class _Lines(list[str]):
    """Lines for a csv writer to write to."""

    def write(self, line: str) -> None:
        self.append(line)


def split_lines(text: str) -> list[str]:
    """Return the lines of a text with their ends; `str.splitlines` also splits at characters that are data in a CSV file."""
    return re.findall(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+", text)
