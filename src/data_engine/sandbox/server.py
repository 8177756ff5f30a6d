"""Serve requests: routes, keys, limits, faults, and a record of each request."""

from __future__ import annotations

import base64
import json
import os
import socket
import socketserver
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from functools import partial
from types import TracebackType
from typing import Literal, Self

from data_engine.sandbox.assets import Assets
from data_engine.sandbox.bar_columns import BarSource
from data_engine.sandbox.connection import Request, Response, read_request, send
from data_engine.sandbox.corporate_actions import NOTHING, ActionsRequest, Announcements
from data_engine.sandbox.faults import REFUSALS, Faults
from data_engine.sandbox.latest import LatestRequest, latest_bars, latest_body
from data_engine.sandbox.listings import Listings
from data_engine.sandbox.market_days import calendar_body, clock_body
from data_engine.sandbox.pages import Pager
from data_engine.sandbox.protocol import BarsRequest, Refusal
from data_engine.sandbox.rate_limit import TokenBucket

_RECORDS_KEPT = 200_000

_Answer = Callable[[Request, str | None], Response]

_RESET_SECONDS = 1  # from a 429 to the reset that it states


@dataclass(frozen=True, slots=True)
class Record:
    """One request and its response.

    Attributes:
        number: The number of the request, from 1.
        path: The path, decoded.
        query: The parameters, decoded.
        status: The HTTP status of the response.
        rows: The number of bars in the response.
        started: The time when the request had been read, in unix seconds.
        seconds: The seconds until the response was ready.
        fault: The fault that was drawn, or None.
        thread: The number of the connection; each has a thread of its own.
    """

    number: int
    path: str
    query: dict[str, str]
    status: int
    rows: int
    started: float
    seconds: float
    fault: str | None
    thread: int


class Sandbox:
    """A server on the loopback interface that responds as Alpaca's hosts do. Safe to share between threads.

    Example:
        >>> with Sandbox(SimulatedMarket()) as server, AlpacaClient("key", "secret", base_url=server.url) as client:
        ...     bars = client.fetch_bars("AAPL", "2024-06-03", "2024-06-07")

    Args:
        source: The source of the bars.
        port: The port. If 0, a free one.
        host: The address to listen at.
        keys: The accepted pairs of key and secret. If None, any that are not empty.
        plan: ``free`` refuses the latest 15 minutes of the consolidated tape, ``paid`` does not.
        rate: The requests per minute. If None, there is no limit.
        burst: The maximum number of requests at once. If None, *rate*.
        limit_headers: Whether responses have the limit headers; without a limit they have none.
        latency: The seconds that each response is delayed.
        gzip_level: The level of compression; 0 never compresses.
        faults: The faults to make on purpose; the attribute may be replaced while the server runs. If None, there are none.
        max_target: The longest path and query that is not answered 414.
        clock: The time, aware; it decides which bars have ended and which are recent.
        monotonic: The seconds for the rate limit.
        on_request: A function that is called with each record, in the thread of its connection. If None, there is none.
        cache_bytes: The maximum number of bytes of written text to keep.
        actions: The corporate actions. If None, the source's own.
        listings: The securities that have the tickers; bars are answered as of the day that a request names. If None, each ticker
            is a security of the source, at all times.
        assets: The list of securities. If None, the source's own, else its symbols under the tickers of *listings*.

    Attributes:
        url: The address, such as ``http://127.0.0.1:40123``.
        counts: The number of requests by status, and ``rows``.
    """

    def __init__(
        self,
        source: BarSource,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        keys: Mapping[str, str] | None = None,
        plan: Literal["free", "paid"] = "paid",
        rate: float | None = None,
        burst: int | None = None,
        limit_headers: bool = True,
        latency: float = 0.0,
        gzip_level: int = 1,
        faults: Faults | None = None,
        max_target: int = 16_000,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        on_request: Callable[[Record], None] | None = None,
        cache_bytes: int = 256 << 20,
        actions: Announcements | None = None,
        listings: Listings | None = None,
        assets: Assets | None = None,
    ) -> None:
        self.source = source
        self.assets = _assets(source, listings) if assets is None else assets
        self.actions = getattr(source, "announcements", NOTHING) if actions is None else actions
        self.faults = faults or Faults()
        self.counts: Counter[int | str] = Counter()
        self.latency = latency
        self.gzip_level = gzip_level
        self._keys = None if keys is None else dict(keys)
        self._free = plan == "free"
        self._bucket = None if rate is None else TokenBucket(rate, int(rate) if burst is None else burst, monotonic=monotonic)
        self._limit_headers = limit_headers
        self._max_target = max_target
        self._clock = clock
        self._on_request = on_request
        # Of the trading host: without pages, and with a rate limit of its own, which is not simulated.
        self._of_trading: dict[str, _Answer] = {
            "/v2/assets": lambda request, _: Response(200, self.assets.page(request.query, self._clock())),
            "/v2/calendar": lambda request, _: Response(200, calendar_body(request.query)),
            "/v2/clock": lambda *_: Response(200, clock_body(self._clock())),
        }
        self._pager = Pager(source, cache_bytes=cache_bytes, listings=listings)
        self._records: deque[Record] = deque(maxlen=_RECORDS_KEPT)
        self._numbers = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server((host, port), self)
        self.port: int = self._server.server_address[1]
        self.url = f"http://{host}:{self.port}"
        self._listener = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="sandbox", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Begin to respond. Connections made since the constructor are waiting already."""
        self._listener.start()

    def close(self) -> None:
        """Stop, and close all connections."""
        self._closing.set()
        if self._listener.is_alive():
            self._server.shutdown()
            self._listener.join()
        self._server.hang_up()
        self._server.server_close()

    @property
    def requests(self) -> list[Record]:
        """The requests so far, in the order of their responses; the latest 200,000."""
        with self._lock:
            return list(self._records)

    def forget(self) -> None:
        """Empty `requests` and `counts`."""
        with self._lock:
            self._records.clear()
            self.counts.clear()

    def answer(self, request: Request, connection_number: int) -> Response:
        """Return the response to a request, and record it."""
        started, begun = time.time(), time.perf_counter()
        with self._lock:
            self._numbers += 1
            number = self._numbers
        response = self._route(request, number)
        response.headers["X-Sandbox"] = self.source.mark
        response.headers["Date"] = formatdate(self._clock().timestamp(), usegmt=True)
        if self.latency:
            self._closing.wait(self.latency)
        seconds = time.perf_counter() - begun
        record = Record(
            number,
            request.path,
            request.query,
            response.status,
            response.rows,
            started,
            seconds,
            response.fault,
            connection_number,
        )
        with self._lock:
            self._records.append(record)
            self.counts[response.status] += 1
            self.counts["rows"] += response.rows
        if self._on_request is not None:
            self._on_request(record)
        return response

    def _route(self, request: Request, number: int) -> Response:
        if len(request.target) > self._max_target:
            return _html(414, "Request-URI Too Large")
        if request.method != "GET":
            return _message(405, "method not allowed")
        if not self._admits(request.headers):
            return _html(401, "Authorization Required")
        if request.path in self._of_trading:
            return self._serve(request, number, [], self._of_trading[request.path])
        if self._bucket is not None and not self._bucket.take():
            return _too_many()
        match request.path.split("/"):
            case ["", "v2", "stocks", "bars"]:
                return self._serve(request, number, _symbols(request), self._bars)
            case ["", "v2", "stocks", "bars", "latest"]:
                return self._serve(request, number, _symbols(request), self._latest)
            case ["", "v2", "stocks", symbol, "bars"]:
                return self._serve(request, number, [symbol], partial(self._bars, symbol=symbol))
            case ["", "v1", "corporate-actions"]:
                return self._serve(request, number, _symbols(request), self._actions)
        return _message(404, "endpoint not found.")

    def _serve(self, request: Request, number: int, symbols: list[str], answer: _Answer) -> Response:
        fault = self.faults.draw(number, symbols)
        if fault in REFUSALS or (fault is not None and fault.isdigit()):
            return self._refusal(fault)
        try:
            response = answer(request, fault)
        except Refusal as refusal:
            return _message(refusal.status, refusal.message)
        response.fault = fault
        if self._limit_headers and self._bucket is not None:
            response.headers.update(self._bucket.headers(time.time()))
        return response

    def _bars(self, request: Request, fault: str | None, symbol: str | None = None) -> Response:
        now = self._clock()
        bars_request = BarsRequest.parse(request.query, now=now, delayed=self._free, symbol=symbol)
        if self._free:
            bars_request.check_recency(now)
        page = self._pager.fill(bars_request, now, budget=_budget(bars_request.limit, fault))
        return Response(200, page.body(bars_request), rows=page.rows)

    def _actions(self, request: Request, fault: str | None) -> Response:
        actions_request = ActionsRequest.parse(request.query, now=self._clock())
        return Response(200, self.actions.page(actions_request, budget=_budget(actions_request.limit, fault)))

    def _latest(self, request: Request, fault: str | None) -> Response:  # noqa: ARG002 - there are no pages to cut short
        latest = LatestRequest.parse(request.query, delayed=self._free)
        page = latest_bars(latest, self._pager, self._clock())
        return Response(200, latest_body(page, latest.currency), rows=page.rows)

    def _refusal(self, fault: str) -> Response:
        status = int(fault[:3])
        if status == 429:
            response = _too_many()
            if fault == "429_reset":
                response.headers["X-RateLimit-Reset"] = str(int(time.time()) + _RESET_SECONDS)
            elif fault == "429_retry_after":
                response.headers["Retry-After"] = str(self.faults.retry_after)
        elif status in (401, 502, 503, 504):
            response = _html(status, {401: "Authorization Required", 503: "Service Temporarily Unavailable"}.get(status))
        else:
            response = _message(status, {403: "forbidden.", 500: "internal server error occurred"}.get(status, "refused"))
        response.fault = fault
        return response

    def _admits(self, headers: Mapping[str, str]) -> bool:
        key, secret = headers.get("apca-api-key-id", ""), headers.get("apca-api-secret-key", "")
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                key, _, secret = base64.b64decode(credentials).decode().partition(":")
            except ValueError:
                return False
        elif scheme.lower() == "bearer" and self._keys is None:
            return bool(credentials)
        if self._keys is None:
            return bool(key and secret)
        return key in self._keys and self._keys[key] == secret


def _assets(source: BarSource, listings: Listings | None) -> Assets:
    """Return the list of a source's securities."""
    own: Assets | None = getattr(source, "assets", None)
    if own is not None and listings is None:
        return own
    return Assets.of(getattr(source, "symbols", ()), () if listings is None else listings.owners())


def _symbols(request: Request) -> list[str]:
    return request.query.get("symbols", "").split(",")


def _budget(limit: int, fault: str | None) -> int:
    """Return the maximum number of rows of a page with a limit and a fault."""
    return {"short": max(1, limit // 3), "empty": 0}.get(fault or "", limit)


def _message(status: int, message: str) -> Response:
    return Response(status, json.dumps({"message": message}, separators=(",", ":"), ensure_ascii=False).encode())


def _too_many() -> Response:
    return Response(429, b'{"message": "too many requests."}')


def _html(status: int, title: str | None = None) -> Response:
    title = f"{status} {title or {502: 'Bad Gateway', 504: 'Gateway Time-out'}[status]}"
    body = f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
    return Response(status, (body + "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n").encode(), "text/html")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = os.name != "nt"  # there it would let another server take the port
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._open: dict[int, tuple[socket.socket, threading.Thread]] = {}
        self._connections = 0
        self._closed = False
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Close without the orderly shutdown of the base class, which would come before a reset and hide it."""
        self.close_request(request)

    def enter(self, connection: socket.socket) -> int:
        """Register an open connection, and return its number."""
        with self._lock:
            self._connections += 1
            self._open[self._connections] = connection, threading.current_thread()
            if self._closed:
                _shut(connection)
            return self._connections

    def leave(self, number: int) -> None:
        """Unregister a connection."""
        with self._lock:
            self._open.pop(number, None)

    def hang_up(self) -> None:
        """End all connections, and wait for their threads."""
        with self._lock:
            self._closed = True
            left = list(self._open.values())
        for connection, _ in left:
            _shut(connection)
        for _, thread in left:
            thread.join(5)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the client was quicker


class _Handler(socketserver.StreamRequestHandler):
    server: _Server
    disable_nagle_algorithm = True
    rbufsize = 1 << 16

    def handle(self) -> None:
        sandbox = self.server.sandbox
        number = self.server.enter(self.connection)
        try:
            while (request := read_request(self.rfile)) is not None:
                response = sandbox.answer(request, number)
                stall = sandbox.faults.stall_seconds
                if not send(self.connection, request, response, level=sandbox.gzip_level, stall_seconds=stall):
                    break
        except OSError:
            return  # the client has gone
        finally:
            self.server.leave(number)
