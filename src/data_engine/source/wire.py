"""Alpaca's bars protocol as values: a request becomes a query, a page of JSON becomes columns.

Two decoders give the same table. `read_page` first tries to *prove* that the page is plain rows of the one usual shape;
then the text is turned into character-separated values without a Python object per bar and Arrow reads it. Where the proof
fails (another number format, a missing field, white space), the general decoder reads the JSON and judges it.

Sources: the OpenAPI file of Alpaca's market data API, and recorded answers (docs/explanation/protocol.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import accumulate
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import pyarrow as pa
import pyarrow.csv

from data_engine.bars import BAR_SCHEMA, EMPTY, TIMESTAMP, VALUES, Int64s, arrow, make_table, micros, numbers, problems, stamps
from data_engine.errors import BadAnswer
from data_engine.ranges import TimeRange
from data_engine.series import Dataset

PAGE_LIMIT = 10_000
"""The most bars that one answer carries, over all symbols together."""

_FIELDS = {"t": "timestamp", "o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "n": "trade_count", "vw": "vwap"}


@dataclass(frozen=True, slots=True)
class BarsRequest:
    """One question to the multi-symbol endpoint; its pages together are the answer.

    Attributes:
        symbols: whose bars, at least one.
        dataset: which bars of theirs.
        span: the bars' starts lie inside, half-open. (The wire's end is inclusive: it is sent as one nanosecond less.)
        asof: the day whose symbol mapping is used, ``-`` for none; None leaves it to the vendor (today).
        currency: of the prices; None leaves it to the vendor (US dollars).
        limit: bars per page.
    """

    symbols: tuple[str, ...]
    dataset: Dataset
    span: TimeRange
    asof: date | str | None = None
    currency: str | None = None
    limit: int = PAGE_LIMIT

    def query(self, token: str | None = None) -> str:
        """Return the query string of the first page, or of the page that *token* names."""
        feed = self.dataset.feed.wire
        asof = self.asof.isoformat() if isinstance(self.asof, date) else self.asof
        fields = {
            "symbols": ",".join(self.symbols),
            "timeframe": str(self.dataset.timeframe),
            "start": rfc3339(self.span.start),
            "end": rfc3339(self.span.end - timedelta(microseconds=1), "999"),
            "limit": str(self.limit),
            "adjustment": str(self.dataset.adjustment),
            "feed": feed,
            "asof": asof,
            "currency": self.currency,
            "sort": "asc",
            "page_token": token,
        }
        return urlencode({name: text for name, text in fields.items() if text is not None}, safe=",:", quote_via=quote)

    def target(self, token: str | None = None) -> str:
        """Return path and query of the first page, or of the page that *token* names."""
        return f"/v2/stocks/bars?{self.query(token)}"

    def __str__(self) -> str:
        names = ", ".join(self.symbols[:3]) + (f" and {len(self.symbols) - 3} more" if len(self.symbols) > 3 else "")
        return f"{self.dataset.timeframe} bars of {names}, {self.span}"


def rfc3339(instant: datetime, below: str = "") -> str:
    """Write an aware UTC instant as the wire wants it; *below* are the three digits below the microsecond."""
    text = instant.strftime("%Y-%m-%dT%H:%M:%S")
    if below or instant.microsecond:
        text += f".{instant.microsecond:06d}{below}"
    return text + "Z"


@dataclass(frozen=True, slots=True)
class Page:
    """The bars of one answer.

    Attributes:
        table: all bars, by `BAR_SCHEMA` but sorted only within a run.
        runs: ``(symbol, start, stop)`` rows of the table, in order of symbol.
        token: what to ask for the next page with; None on the last one.
        size: bytes of JSON.
        until: the end of what was really asked for, which a plan without recent data clamps; None where nobody says.
    """

    table: pa.Table
    runs: tuple[tuple[str, int, int], ...]
    token: str | None
    size: int
    until: datetime | None = None

    @property
    def times(self) -> Int64s:
        """The timestamps of all bars, in microseconds since 1970."""
        return stamps(self.table)

    def bars(self) -> list[tuple[str, pa.Table]]:
        """Return each symbol's bars, in order of symbol, without copying."""
        return [(symbol, self.table.slice(start, stop - start)) for symbol, start, stop in self.runs]


def read_page(body: bytes, request: BarsRequest) -> Page:
    """Read one answer to *request*.

    Raises:
        BadAnswer: not JSON of the documented shape; a value missing, null or not finite; bars unsorted, twice, of a symbol
            that was not asked for, or outside the range that was.
    """
    page = read_plain(body)
    if page is None:
        page = read_any(body, request)
    _check(page, request)
    return replace(page, until=request.span.end)


# ---------------------------------------------------------------------------------------------------- the plain decoder

_SYMBOL = re.compile(rb',?"([A-Za-z0-9./^_=+$*-]+)":\[')
_TAIL = re.compile(rb'\},"next_page_token":(?:null|"([!#-\[\]-~]+)")\}\s*')
_HEAD = b'{"bars":{'
_VALUE_BYTES = b"0123456789."
_TO_CELLS = bytes.maketrans(b"}[],", b"\n\n\n ")
_NOT_CELLS = b'{"chlnotvwZ'  # the keys' letters, too: a row of the proven shape has no others but the T of its time


def read_plain(body: bytes) -> Page | None:
    """Read a page whose every row has the same keys in the same order and only digits for values; None for any other.

    The proof: with digits and points deleted, the rows must equal the first row repeated. What remains to be read is then
    numbers and ``2024-06-03T08:00:00Z`` stamps, and Arrow refuses what is not a number or not a date. Digits that stood in a
    key are left beside a number, a blank between them, and refused with it; or in the empty first cell, which is measured.
    """
    cut = body.rfind(b'},"next_page_token":')
    tail = _TAIL.fullmatch(body, cut) if cut > 0 else None
    if tail is None or not body.startswith(_HEAD):
        return None
    token = tail[1].decode() if tail[1] is not None else None
    symbols: list[str] = []
    at = len(_HEAD)
    while at < cut:
        head = _SYMBOL.match(body, at)
        at = body.find(b"]", head.end(), cut) + 1 if head else 0
        if head is None or not at or (head[0][:1] == b",") != bool(symbols):
            return None
        symbols.append(head[1].decode())
    if not symbols:
        return Page(EMPTY, (), token, len(body))
    counts = _count_rows(body.translate(None, _VALUE_BYTES), len(symbols))
    if counts is None or len(set(symbols)) < len(symbols):
        return None
    first, rows = counts
    table = _read_rows(body, first, lists=len(symbols))
    if table is None or table.num_rows != sum(rows):
        return None
    stops = list(accumulate(rows))
    runs = ((symbol, stop - count, stop) for symbol, count, stop in zip(symbols, rows, stops, strict=True))
    return Page(table, tuple(sorted(runs)), token, len(body))


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


def _read_rows(body: bytes, first: bytes, lists: int) -> pa.Table | None:
    """Read all rows of a page of proven shape, in the order of the page; None where one is not what it seemed."""
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
    """Return how many bytes the texts of a column have together."""
    offsets = (np.frombuffer(chunk.buffers()[1], np.int32)[[chunk.offset, chunk.offset + len(chunk)]] for chunk in column.chunks)
    return sum(int(stop) - int(start) for start, stop in offsets)


def _skip(_row: object) -> str:
    return "skip"


_CELL_TYPES = {"none": pa.string(), "hour": pa.timestamp("us"), "minute": pa.int16(), "second": pa.int16()}


@lru_cache(maxsize=64)
def _cells(first: bytes) -> list[str] | None:
    """Return the names of the cells of a row whose values were deleted, or None where it is not eight bare numbers and a time.

    Cells are separated by the colons of the JSON: ``:153.7:154.1:…:2026-09-01T08:00:00``, so the first is always empty and
    the time makes three.
    """
    keys = [match.decode() for match in re.findall(rb'"([a-z]+)":(?:"--T::Z")?[,}]', first)]
    text = ",".join(f'"{key}":' + ('"--T::Z"' if key == "t" else "") for key in keys)
    if set(keys) != set(_FIELDS) or len(keys) != len(_FIELDS) or first != f"{{{text}}}".encode():
        return None
    names = ["none"]
    for key in keys:
        names += ["hour", "minute", "second"] if key == "t" else [_FIELDS[key]]
    return names


# -------------------------------------------------------------------------------------------------- the general decoder


def read_any(body: bytes, request: BarsRequest | None = None) -> Page:
    """Read a page of any JSON form that the API documents.

    Raises:
        BadAnswer: it is not one.
    """

    def refuse(reason: str) -> BadAnswer:
        return BadAnswer(f"{reason} (answer to: {request})" if request else reason)

    def no_constant(name: str) -> float:
        raise refuse(f"a value is {name}")

    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise refuse("a key stands twice in one object")
        return made

    try:
        answer = json.loads(body, parse_constant=no_constant, object_pairs_hook=no_repeats)
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, or an integer of thousands of digits
        raise refuse(f"the body is not JSON: {error}") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("bars"), dict) or "next_page_token" not in answer:
        raise refuse("the body is not an object with bars and next_page_token")
    token = answer["next_page_token"]
    if token is not None and (not isinstance(token, str) or not token):
        raise refuse(f"next_page_token is {token!r}")
    columns: dict[str, list[Any]] = {key: [] for key in _FIELDS}
    runs, start = [], 0
    for symbol, rows in sorted(answer["bars"].items()):
        if not isinstance(rows, list):
            raise refuse(f"the bars of {symbol} are {type(rows).__name__}, not a list")
        for row in rows:
            if not isinstance(row, dict) or row.keys() != _FIELDS.keys():
                found = ", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__
                raise refuse(f"a bar of {symbol} has the fields {found}")
            for key, value in row.items():
                if key == "t":
                    columns[key].append(_instant(value, refuse))
                elif isinstance(value, (int, float)) and not isinstance(value, bool):
                    columns[key].append(value)
                else:
                    raise refuse(f"{_FIELDS[key]} of a bar of {symbol} is {value!r}")
        if rows:
            runs.append((symbol, start, start + len(rows)))
        start += len(rows)
    try:
        values = [np.array(columns[key], dtype=np.float64) for key in list(_FIELDS)[1:]]
    except OverflowError as error:
        raise refuse(f"a number is too large: {error}") from error
    return Page(make_table(np.array(columns["t"], dtype=np.int64), values), tuple(runs), token, len(body))


_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


def _instant(value: object, refuse: Any) -> int:
    """Read an RFC-3339 time as microseconds since 1970."""
    match = _INSTANT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise refuse(f"a bar's time is {value!r}")
    try:
        whole = datetime.fromisoformat(match[1] + ("+00:00" if match[3] == "Z" else match[3])).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise refuse(f"a bar's time is {value!r}: {error}") from error
    nanos = int((match[2] or "").ljust(9, "0"))
    if nanos % 1000:
        raise refuse(f"a bar's time is {value!r}, finer than a microsecond")
    return micros(whole) + nanos // 1000


# ------------------------------------------------------------------------------------------------------------- the judge


def _check(page: Page, request: BarsRequest) -> None:
    """Judge all bars of a page at once; only a page that is refused is looked at row by row."""

    def refuse(reason: str) -> BadAnswer:
        return BadAnswer(f"{reason} (answer to: {request})")

    if page.table.num_rows > request.limit:
        raise refuse(f"{page.table.num_rows} bars came, {request.limit} at most were asked for")
    asked = set(request.symbols)
    for symbol, _, _ in page.runs:
        if symbol not in asked:
            raise refuse(f"bars of {symbol!r} came, which was not asked for")
    times = page.times
    if not times.size:
        return
    forward = np.diff(times) > 0
    forward[[start - 1 for _, start, _ in page.runs if start]] = True
    if not (forward.all() and all(np.isfinite(numbers(page.table.column(name))).all() for name in VALUES)):
        found = ((symbol, problems(bars)) for symbol, bars in page.bars())
        raise refuse("; ".join(f"{symbol}: {trouble}" for symbol, trouble in found if trouble))
    outside = np.flatnonzero((times < micros(request.span.start)) | (times >= micros(request.span.end)))
    if outside.size:
        symbol = next(symbol for symbol, start, stop in page.runs if start <= outside[0] < stop)
        raise refuse(
            f"{symbol}: a bar at {np.datetime64(int(times[outside[0]]), 'us')}Z lies outside the range that was asked for"
        )


def complaint(body: bytes, content_type: str) -> str:
    """Return what an error answer says for people: its JSON message, or its title where it is a web page."""
    text = body[:4096].decode("utf-8", "replace")
    if "json" in content_type.lower():
        try:
            message = json.loads(body)
        except ValueError:
            message = None
        if isinstance(message, dict) and isinstance(message.get("message"), str):
            return str(message["message"])
    title = re.search(r"<title>([^<]{1,200})</title>", text, re.IGNORECASE)
    return " ".join((title[1] if title else text).split())[:200]


_REFUSED_SYMBOL = re.compile(r"(?:code=400, message=)?invalid symbol: (.*)")


def refused_symbol(message: str, symbols: Sequence[str]) -> str | None:
    """Return which of *symbols* a 400 answer's message names as malformed, or None where it names none of them."""
    match = _REFUSED_SYMBOL.fullmatch(message.strip())
    return match[1] if match and match[1] in symbols else None
