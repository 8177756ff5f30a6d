"""Decode a page of JSON to columns without compiled code of our own, and without a Python object per bar.

The text is made into character-separated values, which Arrow reads. That is sound only for pages of one shape, so the shape is
*proved* first; `read_plain` says how.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.csv

from data_engine.alpaca.page_format import KEYS, LISTS_BEGIN, MOST_UNKNOWN, frame, slices_of
from data_engine.market.bars import BAR_SCHEMA, EMPTY, TIMESTAMP, VALUES, arrow, numbers
from data_engine.market.bars_page import BarsPage

_SYMBOL = re.compile(rb',?"([A-Za-z0-9./^_=+$*-]+)":\[')

_VALUE_BYTES = b"0123456789."

_KNOWN = {key.encode() for key in KEYS}

_TO_CELLS = bytes.maketrans(b"}[],", b"\n\n\n ")

_NOT_CELLS = b'{"chlnotvwZ'  # the keys' letters, too: a row of the proven shape has no others but the T of its time


def read_plain(body: bytes) -> BarsPage | None:
    """Return the bars of a page whose rows all have the same keys in the same order and only digits for values, else None.

    Unknown fields with plain values are cut out before.

    The proof: with digits and points deleted, the rows must equal the first row repeated; and digits and points must stand
    where a number or a time has them, in the form that JSON gives a number (`_well_written`). What remains to be read is then
    numbers and timestamps such as ``2024-06-03T08:00:00Z``, and Arrow refuses what is not a date.
    """
    framed = frame(body)
    if framed is None:
        return None
    names = _unknown_names(body)
    if not names:
        return _read_framed(body, framed.end, framed.token)
    lists = _without(names, body[: framed.end])
    page = None if lists is None else _read_framed(lists + body[framed.end :], len(lists), framed.token)
    return page and replace(page, size=len(body), unknown=tuple(sorted(name.decode() for name in names)))


_FIRST_ROW = re.compile(rb'\{"bars":\{"[^"]*":\[(\{[^{}]*\})')

_NAME = re.compile(rb'[{,]"([A-Za-z0-9_]+)":')

# What a text may hold so that nothing else in a page can be taken for its end, or it for a row.
_VALUE = rb'(?:-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,4})?|true|false|null|"[ !#-Z^-z|~]*")'


def _unknown_names(body: bytes) -> set[bytes]:
    """Return the names of the fields of a page's first row that are unknown."""
    row = _FIRST_ROW.match(body)
    return set(_NAME.findall(row[1])) - _KNOWN if row else set()


def _without(names: set[bytes], lists: bytes) -> bytes | None:
    """Return the lists of a page without some fields with plain values; None if one is twice in a row, or there are too many.

    A field is cut out with its comma where it follows a value or opens a row. What is left is proved as any page: if it is one,
    then every cut was made inside a row, so that the page was JSON before.
    """
    keys = [b'"%b":' % name for name in sorted(names)]
    if len(keys) > MOST_UNKNOWN or any(row.count(key) > 1 for row in lists.split(b"}") for key in keys):
        return None
    for _ in keys:  # a field that follows one that opens the row opens it in turn
        before, fields = lists, b"|".join(keys)
        lists = re.sub(rb"\{(?<=[\[,]\{)(?:%b)%b," % (fields, _VALUE), b"{", lists)
        if lists == before:
            break
    for key in keys:
        lists = re.sub(rb',(?<=[0-9"el],)%b%b(?=[,}])' % (key, _VALUE), b"", lists)
    return lists


def _read_framed(body: bytes, cut: int, token: str | None) -> BarsPage | None:
    """Return the bars of a page whose lists end at *cut*, as `read_plain`."""
    symbols: list[str] = []
    heads: list[tuple[int, int]] = []
    at = LISTS_BEGIN
    while at < cut:
        head = _SYMBOL.match(body, at)
        at = body.find(b"]", head.end(), cut) + 1 if head else 0
        if head is None or not at or (head[0][:1] == b",") != bool(symbols):
            return None
        symbols.append(head[1].decode())
        heads.append(head.span())
    if not symbols:
        return BarsPage(EMPTY, (), token, len(body))
    counts = _count_rows(body.translate(None, _VALUE_BYTES), len(symbols))
    if counts is None:
        return None
    first, rows = counts
    if not _well_written(body, cut, heads, sum(rows)):
        return None
    table = _read_rows(body, first, lists=len(symbols))
    slices = slices_of(symbols, list(accumulate(rows)))
    if table is None or slices is None or table.num_rows != sum(rows):
        return None
    return BarsPage(table, slices, token, len(body))


def _count_rows(skeleton: bytes, lists: int) -> tuple[bytes, list[int]] | None:
    """Return the shape of a row and the length of each list of a page whose values were deleted; None if rows differ."""
    at = skeleton.find(b"[") + 1
    first = skeleton[at : skeleton.find(b"}", at) + 1]
    counts = []
    for _ in range(lists):
        end = skeleton.find(b"]", at)
        count, rest = divmod(end - at + 1, len(first) + 1)
        # The comma after the last row is the bracket's place.
        if rest or not count or skeleton[at:end] != ((first + b",") * count)[:-1]:
            return None
        counts.append(count)
        at = skeleton.find(b"[", end) + 1
    return first, counts


_ALIKE = bytes.maketrans(b"123456789", b"000000000")

_TIME = b'"t":"0000-00-00T00:00:00Z"'

_PADDED = re.compile(rb'":0[0-9]')


def _well_written(body: bytes, cut: int, heads: list[tuple[int, int]], rows: int) -> bool:
    """Tell whether all digits and points of the rows are those of times and of numbers, seven in a row, as JSON has them.

    Args:
        body: A page of proven shape.
        cut: The end of its lists.
        heads: Where each symbol begins and ends with its signs; it may have digits and points of its own.
        rows: The number of rows.
    """
    if _PADDED.search(body, 0, cut):
        return False
    bare = bytearray(body[:cut].translate(_ALIKE))
    for begin, end in heads:
        bare[begin:end] = b"[" * (end - begin)
    timeless = bare.replace(_TIME, b"T")
    if len(bare) - len(timeless) != rows * (len(_TIME) - 1):
        return False
    text = np.frombuffer(timeless, np.uint8)
    digit = text == ord("0")
    part = digit | (text == ord("."))
    edges = np.flatnonzero(part[1:] != part[:-1]) + 1
    begins, ends = edges[::2], edges[1::2]
    if begins.size != ends.size or begins.size != rows * (len(KEYS) - 1):
        return False
    opened = (text[begins - 1] == ord(":")) & (text[begins - 2] == ord('"'))
    return bool((opened & digit[begins] & digit[ends - 1]).all())


def _read_rows(body: bytes, first: bytes, lists: int) -> pa.Table | None:
    """Return all rows of a page of proven shape, in the order of the page; None if one is not what it seemed."""
    names = _cells(first)
    if names is None:
        return None
    text = body.translate(_TO_CELLS, _NOT_CELLS)
    types = {name: _CELL_TYPES.get(name, pa.float64()) for name in names}
    try:
        cells = pyarrow.csv.read_csv(
            pa.BufferReader(text),
            # One block: the pieces of several would have to be put together again.
            read_options=pyarrow.csv.ReadOptions(column_names=names, use_threads=False, block_size=len(text) + 1),
            # What stands between the lists (a symbol, the token) is a line of too few cells.
            parse_options=pyarrow.csv.ParseOptions(delimiter=":", quote_char=False, invalid_row_handler=_skip),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=[], strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    # Before each row but the first of a list stands the blank that was its comma, and nothing else.
    if not cells.num_rows or _text_bytes(cells.column("none")) != cells.num_rows - lists:
        return None
    minutes, seconds = (numbers(cells.column(name), np.int16) for name in ("minute", "second"))
    if minutes.min() < 0 or minutes.max() > 59 or seconds.min() < 0 or seconds.max() > 59:
        return None
    times = numbers(cells.column("hour"), np.int64) + (minutes.astype(np.int64) * 60 + seconds) * 1_000_000
    return pa.Table.from_arrays([arrow(times, TIMESTAMP), *(cells.column(name) for name in VALUES)], schema=BAR_SCHEMA)


def _text_bytes(column: pa.ChunkedArray) -> int:
    """Return the number of bytes of all texts of a column."""
    offsets = (np.frombuffer(chunk.buffers()[1], np.int32)[[chunk.offset, chunk.offset + len(chunk)]] for chunk in column.chunks)
    return sum(int(stop) - int(start) for start, stop in offsets)


def _skip(_row: object) -> str:
    return "skip"


_CELL_TYPES = {"none": pa.string(), "hour": pa.timestamp("us"), "minute": pa.int16(), "second": pa.int16()}


@lru_cache(maxsize=64)
def _cells(first: bytes) -> list[str] | None:
    """Return the names of the cells of a row whose values were deleted, or None if it is not eight bare numbers and a time.

    Cells are separated by the colons of the JSON: ``:153.7:154.1:…:2026-09-01T08:00:00``, so the first is always empty and
    the time makes three.
    """
    keys = [match.decode() for match in re.findall(rb'"([a-z]+)":(?:"--T::Z")?[,}]', first)]
    text = ",".join(f'"{key}":' + ('"--T::Z"' if key == "t" else "") for key in keys)
    if set(keys) != set(KEYS) or len(keys) != len(KEYS) or first != f"{{{text}}}".encode():
        return None
    names = ["none"]
    for key in keys:
        names += ["hour", "minute", "second"] if key == "t" else [KEYS[key]]
    return names
