"""Write requests for bars and read their pages. Pure.

The usual page is read by a decoder that knows nothing else (`read_compiled`, or `read_plain` where that is missing) and never
makes a Python object per bar. What it does not take on (another number format, a missing field, white space) the general
decoder reads as any JSON, and says what is wrong with it. All three return the same table.

Sources: the OpenAPI file of Alpaca's market data API, and recorded responses (docs/explanation/protocol.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np

from data_engine.alpaca.page_decoder import read_plain
from data_engine.alpaca.page_decoder_native import library, read_compiled
from data_engine.alpaca.page_format import KEYS, PAGE_LIMIT, check_currency, frame, query_string, read_object, slices_of, unusable
from data_engine.errors import BadAnswer
from data_engine.market.bar_grid import off_grid
from data_engine.market.bars import VALUES, make_table, numbers, problems, to_micros
from data_engine.market.bars_page import BarsPage
from data_engine.market.series import Dataset
from data_engine.market.symbol import ticker_of
from data_engine.market.time_range import TimeRange
from data_engine.market.wording import and_more


@dataclass(frozen=True, slots=True)
class BarsRequest:
    """A request to the multi-symbol endpoint; its pages together are the response.

    Attributes:
        symbols: The symbols, at least one; of former owners of tickers (``S@DATE``), all with the day *asof*.
        dataset: Their timeframe, adjustment and feed.
        span: The half-open range that the bars start in. (The end that is sent is inclusive, so it is one nanosecond less.)
        asof: The day whose owners of the symbols are meant, ``-`` for no symbol mapping. If None, Alpaca's default (today).
        currency: The currency of the prices. If None, Alpaca's default (US dollars).
        limit: The maximum number of bars per page.
    """

    symbols: tuple[str, ...]
    dataset: Dataset
    span: TimeRange
    asof: date | str | None = None
    currency: str | None = None
    limit: int = PAGE_LIMIT
    carries_text: ClassVar[bool] = False

    @property
    def former(self) -> bool:
        """Whether former owners of tickers are among the symbols."""
        return any("@" in symbol for symbol in self.symbols)

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The symbols that are meant by each ticker of the request."""
        names: dict[str, tuple[str, ...]] = {}
        for symbol in self.symbols:
            ticker = ticker_of(symbol)
            names[ticker] = (*names.get(ticker, ()), symbol)
        return names

    def query(self, token: str | None = None) -> str:
        """Return the query string of the first page, or of the page that *token* names."""
        return query_string(
            {
                "symbols": ",".join(sorted(self.names) if self.former else self.symbols),
                "timeframe": self.dataset.timeframe,
                "start": rfc3339(self.span.start),
                "end": rfc3339(self.span.end - timedelta(microseconds=1), "999"),
                "limit": self.limit,
                "adjustment": self.dataset.adjustment,
                "feed": self.dataset.feed.wire,
                "asof": self.asof,
                "currency": self.currency,
                "sort": "asc",
                "page_token": token,
            }
        )

    def target(self, token: str | None = None) -> str:
        """Return path and query of the first page, or of the page that *token* names."""
        return f"/v2/stocks/bars?{self.query(token)}"

    def __str__(self) -> str:
        return f"{self.dataset.timeframe} bars of {and_more(self.symbols, 3)}, {self.span}"


def rfc3339(instant: datetime, below: str = "") -> str:
    """Return an aware UTC instant as the API wants it; *below* are the three digits below the microsecond."""
    text = instant.strftime("%Y-%m-%dT%H:%M:%S")
    if below or instant.microsecond:
        text += f".{instant.microsecond:06d}{below}"
    return text + "Z"


def read_page(body: bytes, request: BarsRequest) -> BarsPage:
    """Return the bars of one page of the response to a request.

    Raises:
        BadAnswer: If the page is not JSON of the documented shape; a value is missing, null or not finite; or bars are
            unsorted, repeated, of a symbol that was not requested, outside the requested range, or do not start where bars of the
            timeframe can (`off_grid`).
    """
    code = library()
    page = read_plain(body) if code is None else read_compiled(body, code)
    try:
        if page is None:
            page = read_any(body, request.currency)
        elif (framed := frame(body)) is not None:
            check_currency(framed.currency, request.currency)
        _check_contents(page, request)
        _check_times(page, request)
    except BadAnswer as error:
        raise unusable(request, str(error)) from error
    return replace(page, until=request.span.end, slices=_named(page.slices, request))


def _named(slices: tuple[tuple[str, int, int], ...], request: BarsRequest) -> tuple[tuple[str, int, int], ...]:
    """Return the rows of each symbol of a request, of which a response has the tickers."""
    if not request.former:
        return slices
    return tuple((symbol, start, stop) for ticker, start, stop in slices for symbol in request.names[ticker])


# -------------------------------------------------------------------------------------------------- the general decoder


def read_any(body: bytes, currency: str | None = None) -> BarsPage:
    """Return the bars of a page of any JSON form that the API documents.

    Args:
        body: The page.
        currency: The currency that was requested. If None, US dollars.

    Raises:
        BadAnswer: If it is no such page, or names another currency.
    """
    envelope = read_object(body, "bars")
    content, token = envelope["bars"], envelope["next_page_token"]
    check_currency(envelope.get("currency"), currency)
    if not isinstance(content, dict):
        raise BadAnswer("bars is not an object")
    lists = {symbol: _checked_rows(symbol, rows) for symbol, rows in sorted(content.items()) if rows != []}
    rows = [row for listed in lists.values() for row in listed]
    unknown = set().union(*rows) - KEYS.keys() if rows else set()
    times = np.array([_micros(row["t"]) for row in rows], np.int64)
    try:
        values = [np.array([row[key] for row in rows], np.float64) for key in KEYS if key != "t"]
    except OverflowError as error:
        raise BadAnswer(f"a number is too large: {error}") from error
    slices = slices_of(list(lists), list(accumulate(map(len, lists.values()))))
    return BarsPage(make_table(times, values), slices or (), token, len(body), unknown=tuple(sorted(unknown)))


def _checked_rows(symbol: str, rows: object) -> list[dict[str, Any]]:
    if not isinstance(rows, list):
        raise BadAnswer(f"the bars of {symbol} are {type(rows).__name__}, not a list")
    for row in rows:
        if not isinstance(row, dict) or not row.keys() >= KEYS.keys():
            fields = ", ".join(sorted(row)) if isinstance(row, dict) else row
            raise BadAnswer(f"a bar of {symbol} has the fields {fields}")
        for key in KEYS:
            if key != "t" and type(value := row[key]) not in (int, float):  # a truth value would count as an int
                raise BadAnswer(f"{KEYS[key]} of a bar of {symbol} is {value!r}")
    return rows


_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


def _micros(value: object) -> int:
    """Return an RFC-3339 time as microseconds since 1970."""
    match = _INSTANT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise BadAnswer(f"the time of a bar is {value!r}")
    seconds, fraction, zone = match.groups()
    try:
        whole = datetime.fromisoformat(seconds + zone).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadAnswer(f"the time of a bar is {value!r}: {error}") from error
    nanos = int((fraction or "").ljust(9, "0"))
    if nanos % 1000:
        raise BadAnswer(f"the time of a bar is {value!r}, finer than a microsecond")
    return to_micros(whole) + nanos // 1000


# ------------------------------------------------------------------------------------------------------------ the checks


def _check_contents(page: BarsPage, request: BarsRequest) -> None:
    if page.table.num_rows > request.limit:
        raise BadAnswer(f"it has {page.table.num_rows} bars, more than the {request.limit} per page that were requested")
    requested = request.names if request.former else set(request.symbols)
    for symbol, _, _ in page.slices:
        if symbol not in requested:
            raise BadAnswer(f"it has bars of {symbol!r}, which was not requested")


def _check_times(page: BarsPage, request: BarsRequest) -> None:
    """Check values and times of all bars of a page at once; only a page that fails is examined row by row."""
    times, span, timeframe = page.times, request.span, request.dataset.timeframe
    if not times.size:
        return
    forward = np.diff(times) > 0
    forward[[start - 1 for _, start, _ in page.slices if start]] = True
    if not (forward.all() and all(np.isfinite(numbers(page.table.column(name))).all() for name in VALUES)):
        found = ((symbol, problems(bars)) for symbol, bars in page.bars())
        raise BadAnswer("; ".join(f"{symbol}: {problem}" for symbol, problem in found if problem))
    outside = np.flatnonzero((times < to_micros(span.start)) | (times >= to_micros(span.end)))
    if outside.size:
        raise BadAnswer(f"{_bar(page, times[outside[0]])} lies outside the requested range")
    if (off := off_grid(times, timeframe)).size:
        raise BadAnswer(f"{_bar(page, off[0])} does not start where a {timeframe} bar can ({off.size:,} such bars)")


def _bar(page: BarsPage, time: np.int64) -> str:
    """Return the symbol and the timestamp of the first bar of a page that starts at a time, as text."""
    at = int(np.argmax(page.times == time))
    symbol = next(symbol for symbol, start, stop in page.slices if start <= at < stop)
    return f"{symbol}: the bar at {np.datetime64(int(time), 'us')}Z"
