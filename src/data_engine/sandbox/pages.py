"""Fill the pages of a response: symbols in ascending order, up to a maximum number of rows over all of them."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from data_engine.market.bars import from_micros
from data_engine.market.time_range import TimeRange
from data_engine.sandbox.bar_columns import BarSource
from data_engine.sandbox.bars_json import Rows, write_rows
from data_engine.sandbox.listings import Listings
from data_engine.sandbox.protocol import BarsRequest, Token, nanoseconds

_FEW_DAYS = timedelta(days=8)


@dataclass(slots=True)
class Page:
    """The content of one page.

    Attributes:
        pieces: The symbols with bars on the page, each with its rows as written.
        rows: The number of bars.
        token: The place where the next page begins; None on the last.
    """

    pieces: list[tuple[str, list[memoryview]]] = field(default_factory=list)
    rows: int = 0
    token: Token | None = None

    def body(self, request: BarsRequest) -> bytes:
        """Return the page as JSON."""
        tail = f',"next_page_token":{json.dumps(None if self.token is None else str(self.token))}'
        if request.single:
            tail += f',"symbol":"{request.symbols[0]}"'
        if request.currency is not None:
            tail = f',"currency":"{request.currency}"' + tail
        parts: list[bytes | memoryview] = [b'{"bars":']
        if request.single:
            parts += _array(self.pieces[0][1]) if self.pieces else [b"null"]
        else:
            for number, (symbol, rows) in enumerate(self.pieces):
                parts.append(f'{"," if number else "{"}"{symbol}":'.encode())
                parts += _array(rows)
            parts.append(b"}" if self.pieces else b"{}")
        parts.append(tail.encode() + b"}")
        return b"".join(parts)


def _array(rows: list[memoryview]) -> list[bytes | memoryview]:
    return [b"[", *rows[:-1], rows[-1][:-1], b"]"]


class Pager:
    """Fills pages from a source, and caches written rows for the pages that follow.

    Args:
        source: The source of the bars.
        cache_bytes: The maximum number of bytes of written text to keep.
        listings: The securities that have the tickers. If None, each ticker is one of the source's.
    """

    def __init__(self, source: BarSource, *, cache_bytes: int = 256 << 20, listings: Listings | None = None) -> None:
        self._source = source
        self._listings = listings or Listings()
        self._cache_bytes = cache_bytes
        self._cache: OrderedDict[tuple[object, ...], Rows] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()

    def fill(self, request: BarsRequest, now: datetime, *, budget: int) -> Page:
        """Return the requested page.

        Args:
            request: The request.
            now: The instant by which bars have ended.
            budget: The maximum number of bars; 0 gives an empty page whose token says where the bars begin.
        """
        page = Page()
        left = budget
        for symbol in request.symbols:
            if request.token is not None and symbol < request.token.symbol:
                continue
            filled: list[memoryview] = []
            for rows, first, last in self._windows(symbol, request, now):
                taken = min(left, last - first)
                if taken:
                    cut = (last - taken, last) if request.descending else (first, first + taken)
                    filled += rows.slice(*cut, descending=request.descending)
                    left -= taken
                    page.rows += taken
                if taken < last - first:
                    following = last - taken - 1 if request.descending else first + taken
                    page.token = Token(symbol, request.store, int(rows.start[following]))
                    break
            if filled:
                page.pieces.append((symbol, filled))
            if page.token is not None:
                break
        return page

    def _windows(self, symbol: str, request: BarsRequest, now: datetime) -> Iterator[tuple[Rows, int, int]]:
        """Yield the requested rows of *symbol*, piece by piece in the requested order, never an empty piece."""
        start, end = request.start, request.end
        if request.token is not None and request.token.symbol == symbol:
            start, end = (start, min(end, request.token.start)) if request.descending else (max(start, request.token.start), end)
        feed = request.feed or "sip"
        answered = self._listings.find(symbol, request.asof, now)
        reach = None if answered is None else self._source.reach(answered.security, feed, now)
        if answered is not None and answered.since is not None and reach is not None:
            reach = reach.after(answered.since)
        if answered is None or reach is None:
            return
        # A bar of a month may start long before the first minute that it holds.
        whole = request.timeframe.widen(reach)
        first, beyond = max(start, nanoseconds(whole.start)), min(end + 1, nanoseconds(whole.end))
        if first >= beyond:
            return
        span = TimeRange(from_micros(first // 1000), from_micros((beyond + 999) // 1000))
        cuts = list(_cuts(span, daily=not request.timeframe.intraday))
        for piece in reversed(cuts) if request.descending else cuts:
            rows = self._rows(answered.security, request, piece, feed, now)
            low = int(np.searchsorted(rows.start, start, "left"))
            high = int(np.searchsorted(rows.start, end, "right"))
            if low < high:
                yield rows, low, high

    def _rows(self, symbol: str, request: BarsRequest, piece: TimeRange, feed: str, now: datetime) -> Rows:
        # A bar that starts just before the end of the piece may still be forming: such a piece is good for a minute.
        complete = piece.end + request.timeframe.length <= now
        horizon = None if complete else now.replace(second=0, microsecond=0)
        key = (symbol, str(request.timeframe), request.adjustment.value, feed, piece, horizon)
        with self._lock:
            rows = self._cache.get(key)
            if rows is not None:
                self._cache.move_to_end(key)
                return rows
        bars = self._source.bars(symbol, request.timeframe, piece, adjustment=request.adjustment, feed=feed, now=now)
        rows = write_rows(bars)
        with self._lock:
            if key not in self._cache:
                self._cache[key] = rows
                self._cached_bytes += rows.text.nbytes
            while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].text.nbytes
        return rows


def _cuts(span: TimeRange, *, daily: bool) -> Iterator[TimeRange]:
    """Yield the whole UTC days (of a short *span*), months or, for daily bars, years that *span* meets, in order."""
    months = 12 if daily else 1
    start = span.start.replace(hour=0, minute=0, second=0, microsecond=0)
    by_day = span.length <= _FEW_DAYS and not daily
    if not by_day:
        start = start.replace(day=1, month=1 if daily else start.month)
    while start < span.end:
        if by_day:
            end = start + timedelta(days=1)
        else:
            number = start.year * 12 + start.month - 1 + months
            end = start.replace(year=number // 12, month=number % 12 + 1)
        yield TimeRange(start, end)
        start = end
