"""Write responses of ``/v2/stocks/bars/latest``: the last minute bar of each symbol that has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from data_engine.market.series import Timeframe
from data_engine.sandbox.pages import Page, Pager
from data_engine.sandbox.protocol import DELAY, BarsRequest, Refusal, check_symbols, currency_code, nanoseconds, one_of, required

LATEST_FEEDS = ("sip", "iex", "delayed_sip", "otc", "boats", "overnight")

_MINUTE = Timeframe.parse("1Min")

_A_WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class LatestRequest:
    """A request that the server accepts.

    Attributes:
        symbols: The symbols, ascending, each once.
        feed: The feed whose bars are meant.
        delay: The age of the latest bars that are served.
        currency: The currency as sent; None if it was not.
    """

    symbols: tuple[str, ...]
    feed: str
    delay: timedelta = timedelta(0)
    currency: str | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str], *, delayed: bool) -> LatestRequest:
        """Return the request that the parameters make.

        Args:
            query: The names and decoded values of the parameters.
            delayed: Whether the plan lacks the latest 15 minutes of the consolidated tape. Its default feed is then ``iex``.

        Raises:
            Refusal: If a parameter is wrong (400), or the plan does not permit the feed (403).
        """
        listed = query.get("symbols")
        if not listed:
            raise Refusal(400, required("symbols"))
        symbols = check_symbols(listed.split(","))
        feed = one_of("feed", query, LATEST_FEEDS) or ("iex" if delayed else "sip")
        currency = currency_code(query.get("currency", ""))
        if delayed and feed == "sip":
            raise Refusal(403, "subscription does not permit querying recent SIP data")
        if feed == "delayed_sip":
            return cls(symbols, "sip", DELAY, currency)
        return cls(symbols, feed, currency=currency)


def latest_bars(request: LatestRequest, pager: Pager, now: datetime) -> Page:
    """Return the requested bars as a page; a symbol without any bar is not on it.

    Args:
        request: The request.
        pager: The pages of the same bars.
        now: The current instant.
    """
    found = Page()
    as_of = now - request.delay
    end = nanoseconds(as_of)
    for symbol in request.symbols:
        last = BarsRequest((symbol,), _MINUTE, nanoseconds(as_of - _A_WEEK), end, 1, feed=request.feed, descending=True)
        # The last week is written day by day. Only a symbol that did not trade then costs a search by month.
        for one in (last, replace(last, start=0)):
            page = pager.fill(one, as_of, budget=1)
            if page.rows:
                found.pieces += page.pieces
                found.rows += page.rows
                break
    return found


def latest_body(page: Page, currency: str | None) -> bytes:
    """Return the response as JSON: one bar per symbol, and no token."""
    rows = b",".join(f'"{symbol}":'.encode() + bytes(bars[0][:-1]) for symbol, bars in page.pieces)
    tail = b"" if currency is None else f',"currency":"{currency}"'.encode()
    return b'{"bars":{' + rows + b"}" + tail + b"}"
