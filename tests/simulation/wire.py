"""The vendor behind HTTP: the client that is shipped, with its retries, rate limit and decoder, over a model of the network.

Each request is a seam. Responses can be refused for a while (429), fail (5xx, no response), be cut, or be no JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from data_engine.alpaca.client import AlpacaClient
from data_engine.alpaca.retry import RetryPolicy
from data_engine.alpaca.transport import Call, Response, TransportFailed
from data_engine.market.bars_page import BarsPage
from data_engine.market.series import Adjustment, Dataset, Timeframe
from data_engine.market.time_range import TimeRange

from .market import Market, Values, instant, micros
from .vendor import Ask, Bars, Vendor, _reached, with_values

KEYS = ("o", "h", "l", "c", "v", "n", "vw")

Row = tuple[str, int, Values]


@dataclass(eq=False)
class Cut:
    """The pages of one response, which stay the same however often one is requested, but for what they are adjusted by."""

    now: int
    bars: dict[str, Bars]
    pages: list[list[Row]]


class WireVendor(Vendor):
    """Answers through the client and the network.

    Args:
        market: The truth.
    """

    def __init__(self, market: Market) -> None:
        super().__init__(market)
        self._client: AlpacaClient | None = None
        self._network = Network(self)

    def begin(self) -> WireVendor:
        told = self._told
        run = copy(self)
        client = AlpacaClient(
            "key",
            "secret",
            base_url="http://127.0.0.1:9",
            transport=self._network,
            policy=RetryPolicy(tries=3, give_up_after=120.0),
            now=lambda: instant(self.now),
        )
        client._session.recent_refused = told.refused
        run._client = client.begin()
        told.runs.append(run)
        return run

    @property
    def client(self) -> AlpacaClient:
        assert self._client is not None
        return self._client

    @property  # type: ignore[override]
    def requests(self) -> int:
        return self._client.requests if self._client is not None else 0

    @requests.setter
    def requests(self, value: int) -> None:
        """The client counts them."""

    @property
    def server_time(self) -> datetime | None:
        return self._client.server_time if self._client is not None else None

    def stop(self, *, at_once: bool = False) -> None:
        if self._client is not None:
            self._client.stop(at_once=at_once)

    def request(
        self,
        symbols: Sequence[str],
        dataset: Dataset,
        span: TimeRange,
        *,
        delayed: bool = False,
        now: datetime | None = None,
        asof: date | None = None,
    ) -> Ask | None:
        request = self.client.request(symbols, dataset, span, delayed=delayed, now=now, asof=asof)
        if request is None:
            return None
        end = micros(now or instant(self._told.clock))
        return Ask(tuple(symbols), dataset, span, request.span, end, asof, wire=request)

    def pages(self, request: Ask) -> Iterator[BarsPage]:
        told = self._told
        assert told.scheduler is not None
        thread = told.scheduler.current
        request.run, request.thread = thread.process.name if thread else None, thread
        request.dated = told.faults.dated
        told.asks.append(request)
        for page in self.client.pages(request.wire):
            told.refused |= self.client.recent_refused
            if page.until is not None and page.until < request.wide.end:
                request.wide = request.wide.before(page.until) or request.wide
            self._say(request, page.slices[-1][0] if page.slices else "", page, more=page.token is not None)
            yield page
        told.refused |= self.client.recent_refused


class Network:
    """The network, and the server at its end: `Transport`.

    Args:
        vendor: Whose truth is served.
    """

    def __init__(self, vendor: WireVendor) -> None:
        self._vendor = vendor
        self._step: object = None
        self._cuts: dict[str, Cut] = {}
        self._limited_until = 0.0

    def close(self) -> None:
        """Nothing is open."""

    def get(self, path_and_query: str, call: Call | None = None) -> Response:
        told = self._vendor._told
        assert told.scheduler is not None
        if self._step is not told:
            self._step, self._limited_until = told, 0.0
            self._cuts.clear()
        told.scheduler.seam()
        if call is not None:
            call.check()
        told.sent += 1
        query = {name: values[0] for name, values in parse_qs(urlsplit(path_and_query).query).items()}
        response = self._refusal(query) or self._answer(query)
        told.scheduler.seam()
        if call is not None:
            call.check()
        return response

    def _refusal(self, query: dict[str, str]) -> Response | None:
        """Return what is responded in place of a page; None if nothing is."""
        told = self._vendor._told
        faults, sent, draw = told.faults, told.sent, told.random
        assert told.scheduler is not None
        symbols = query["symbols"].split(",")
        if faults.lands_at is not None and sent >= faults.lands_at:
            told.base = None
        if faults.stop_at is not None and sent >= faults.stop_at:
            self._vendor.stop_all()
            raise TransportFailed("the request was broken off")
        if _reached(faults.credentials_at, sent):
            return self._response(401, {"message": "forbidden."})
        if faults.outage or _reached(faults.outage_at, sent) or _reached(faults.down_at, sent):
            return self._response(503, {"message": "unavailable"})
        for symbol in symbols:
            if symbol in faults.bad_symbols:
                return self._response(400, {"message": f"invalid symbol: {symbol}"})
            if symbol in faults.broken_symbols:
                return self._response(500, {"message": "internal error"})
        end = datetime.fromisoformat(query["end"][:19]).replace(tzinfo=UTC)
        if faults.free_plan and micros(end) > self._vendor.now - 15 * 60_000_000:
            return self._response(403, {"message": "subscription does not permit querying recent SIP data"})
        if told.scheduler.elapsed < self._limited_until:
            return self._limited()
        if draw.random() >= faults.page:
            return None
        kind = draw.choice(("429", "500", "cut", "reset", "page"))
        if kind == "429":
            self._limited_until = told.scheduler.elapsed + draw.choice((0.5, 2.0, 20.0))
            return self._limited()
        if kind == "reset":
            raise TransportFailed("the connection was reset")
        if kind == "500":
            return self._response(draw.choice((500, 502, 504)), {"message": "no"})
        whole = self._answer(query)
        if kind == "cut":
            return Response(200, whole.headers, whole.body[: draw.randrange(len(whole.body))], 1)
        return Response(200, {**whole.headers, "content-type": "text/html"}, b"<title>a proxy</title>", 1)

    def _limited(self) -> Response:
        response = self._response(429, {"message": "too many requests."})
        headers = {**response.headers, "x-ratelimit-limit": "200", "x-ratelimit-remaining": "0"}
        assert self._vendor.scheduler is not None
        headers["retry-after"] = str(int(self._limited_until - self._vendor.scheduler.elapsed) + 1)
        return Response(429, headers, response.body, 1)

    def _response(self, status: int, content: Any) -> Response:
        told = self._vendor._told
        headers = {"content-type": "application/json; charset=UTF-8"}
        if told.faults.dated:
            headers["date"] = format_datetime(instant(self._vendor.now), usegmt=True)
        body = json.dumps(content, separators=(",", ":")).encode()
        return Response(status, headers, body, len(body))

    def _answer(self, query: dict[str, str]) -> Response:
        token = query.pop("page_token", None)
        name, number = token.split("/") if token else (f"{len(self._cuts)}", "0")
        if token is None:
            self._cuts[name] = self._cut(query)
        cut = self._cuts[name]
        cut.bars = self._bars(query, cut.now)  # adjusted as it is done by now
        self._remember(cut)
        rows = with_values(cut.pages[int(number)], cut.bars)
        more = int(number) + 1 < len(cut.pages)
        content: dict[str, list[dict[str, Any]]] = {}
        for symbol, stamp, values in rows:
            bar = {"t": instant(stamp).strftime("%Y-%m-%dT%H:%M:%SZ"), **dict(zip(KEYS, values, strict=True))}
            bar["n"] = int(bar["n"])
            content.setdefault(symbol, []).append(bar)
        symbols = list(content)
        self._vendor._told.random.shuffle(symbols)  # keys of an object have no order
        page = {"bars": {symbol: content[symbol] for symbol in symbols}}
        return self._response(200, {**page, "next_page_token": f"{name}/{int(number) + 1}" if more else None})

    def _remember(self, cut: Cut) -> None:
        """Let the request that is being answered know by what actions its bars are adjusted."""
        told = self._vendor._told
        assert told.scheduler is not None
        for ask in reversed(told.asks):
            if ask.thread is told.scheduler.current:
                ask.bars = cut.bars
                return

    def _cut(self, query: dict[str, str]) -> Cut:
        now = self._vendor.now
        bars = self._bars(query, now)
        return Cut(now, bars, [rows for _, rows in self._vendor.cuts(bars)])

    def _bars(self, query: dict[str, str], now: int) -> dict[str, Bars]:
        vendor, told = self._vendor, self._vendor._told
        start = micros(datetime.fromisoformat(query["start"]))
        last = datetime.fromisoformat(query["end"][:19]).replace(tzinfo=UTC)
        end = micros(last + timedelta(seconds=1))
        timeframe, adjustment = Timeframe.parse(query["timeframe"]), Adjustment.parse(query["adjustment"])
        return {
            symbol: vendor.market.bars(symbol, timeframe, adjustment, start, end, now, told.base)
            for symbol in query["symbols"].split(",")
        }
