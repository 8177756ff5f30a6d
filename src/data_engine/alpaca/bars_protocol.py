"""Alpaca's bars protocol as values: a request becomes a query, a page of JSON becomes columns.

The usual page is read by a decoder that knows nothing else (`compiled_page`, or `plain_page` where that is missing) and never
makes a Python object of a bar. What it does not take on (another number format, a missing field, white space) the general
decoder reads as any JSON, and says what is wrong with it. All three give the same table.

Sources: the OpenAPI file of Alpaca's market data API, and recorded answers (docs/explanation/protocol.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np

from data_engine.alpaca.page_decoder import read_plain
from data_engine.alpaca.page_decoder_native import library, read_compiled
from data_engine.alpaca.page_format import KEYS, PAGE_LIMIT
from data_engine.errors import BadAnswer
from data_engine.market.bars import VALUES, make_table, numbers, problems, to_micros
from data_engine.market.bars_page import BarsPage
from data_engine.market.series import Dataset
from data_engine.market.time_range import TimeRange


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


def read_page(body: bytes, request: BarsRequest) -> BarsPage:
    """Read one answer to *request*.

    Raises:
        BadAnswer: not JSON of the documented shape; a value missing, null or not finite; bars unsorted, twice, of a symbol
            that was not asked for, or outside the range that was.
    """
    code = library()
    page = read_plain(body) if code is None else read_compiled(body, code)
    if page is None:
        page = read_any(body, request)
    _check(page, request)
    return replace(page, until=request.span.end)


# -------------------------------------------------------------------------------------------------- the general decoder


def read_any(body: bytes, request: BarsRequest | None = None) -> BarsPage:
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
    columns: dict[str, list[Any]] = {key: [] for key in KEYS}
    runs, start = [], 0
    for symbol, rows in sorted(answer["bars"].items()):
        if not isinstance(rows, list):
            raise refuse(f"the bars of {symbol} are {type(rows).__name__}, not a list")
        for row in rows:
            if not isinstance(row, dict) or row.keys() != KEYS.keys():
                found = ", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__
                raise refuse(f"a bar of {symbol} has the fields {found}")
            for key, value in row.items():
                if key == "t":
                    columns[key].append(_instant(value, refuse))
                elif isinstance(value, (int, float)) and not isinstance(value, bool):
                    columns[key].append(value)
                else:
                    raise refuse(f"{KEYS[key]} of a bar of {symbol} is {value!r}")
        if rows:
            runs.append((symbol, start, start + len(rows)))
        start += len(rows)
    try:
        values = [np.array(columns[key], dtype=np.float64) for key in list(KEYS)[1:]]
    except OverflowError as error:
        raise refuse(f"a number is too large: {error}") from error
    return BarsPage(make_table(np.array(columns["t"], dtype=np.int64), values), tuple(runs), token, len(body))


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
    return to_micros(whole) + nanos // 1000


# ------------------------------------------------------------------------------------------------------------- the judge


def _check(page: BarsPage, request: BarsRequest) -> None:
    """Judge all bars of a page at once; only a page that is refused is looked at row by row."""

    def refuse(reason: str) -> BadAnswer:
        return BadAnswer(f"{reason} (answer to: {request})")

    if page.table.num_rows > request.limit:
        raise refuse(f"{page.table.num_rows} bars came, {request.limit} at most were asked for")
    asked = set(request.symbols)
    for symbol, _, _ in page.slices:
        if symbol not in asked:
            raise refuse(f"bars of {symbol!r} came, which was not asked for")
    times = page.times
    if not times.size:
        return
    forward = np.diff(times) > 0
    forward[[start - 1 for _, start, _ in page.slices if start]] = True
    if not (forward.all() and all(np.isfinite(numbers(page.table.column(name))).all() for name in VALUES)):
        found = ((symbol, problems(bars)) for symbol, bars in page.bars())
        raise refuse("; ".join(f"{symbol}: {trouble}" for symbol, trouble in found if trouble))
    outside = np.flatnonzero((times < to_micros(request.span.start)) | (times >= to_micros(request.span.end)))
    if outside.size:
        symbol = next(symbol for symbol, start, stop in page.slices if start <= outside[0] < stop)
        raise refuse(
            f"{symbol}: a bar at {np.datetime64(int(times[outside[0]]), 'us')}Z lies outside the range that was asked for"
        )


def error_message(body: bytes, content_type: str) -> str:
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
