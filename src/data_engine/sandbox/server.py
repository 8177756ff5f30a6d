"""The server: routes, keys, limits, faults, and a record of what was asked."""

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
from types import TracebackType
from typing import Literal, Self

from data_engine.sandbox.bar_columns import BarSource
from data_engine.sandbox.connection import Answer, Request, read_request, send
from data_engine.sandbox.corporate_actions import NOTHING, ActionsRequest, Announcements
from data_engine.sandbox.faults import REFUSALS, Faults
from data_engine.sandbox.pages import Pager
from data_engine.sandbox.protocol import BarsRequest, Refusal
from data_engine.sandbox.rate_limit import TokenBucket

_REMEMBERED = 200_000

_RESET_SECONDS = 1  # a 429 that states a reset asks for this long


@dataclass(frozen=True, slots=True)
class Record:
    """One request and its answer.

    Attributes:
        number: the first request has 1.
        path: decoded.
        query: decoded.
        status: of the answer.
        rows: how many bars the answer held.
        started: when the request had been read, in unix seconds.
        seconds: until the answer was ready.
        fault: the fault it met, or None.
        thread: the number of the connection it came over; each has a thread of its own.
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
    """A server on the loopback interface that answers as Alpaca's data host does. Use it in a ``with`` statement.

    Args:
        source: where the bars come from.
        port: 0 takes a free one.
        host: where to listen.
        keys: the pairs of key and secret that are accepted; None accepts any that are not empty.
        plan: ``free`` refuses the latest 15 minutes of the consolidated tape, ``paid`` does not.
        rate: requests a minute; None sets no limit.
        burst: how many may come at once; *rate* when None.
        limit_headers: whether answers carry the limit headers; without a limit there are none.
        latency: seconds that each answer is held back.
        gzip_level: 0 never compresses.
        faults: what goes wrong on purpose. It may be replaced while the server runs.
        max_target: a longer path and query is answered 414.
        clock: what time it is, aware; it decides which bars have ended and what is recent.
        monotonic: seconds, for the rate limit.
        on_request: called with each record, in the thread of its connection.
        cache_bytes: how much written text is kept.
        actions: the corporate actions; the source's own when None.

    Attributes:
        url: such as ``http://127.0.0.1:40123``.
        counts: how many requests ended with each status, and ``rows``.
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
    ) -> None:
        self.source = source
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
        self._pager = Pager(source, cache_bytes=cache_bytes)
        self._records: deque[Record] = deque(maxlen=_REMEMBERED)
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
        """Begin to answer. Connections made since the constructor are waiting already."""
        self._listener.start()

    def close(self) -> None:
        """Stop, and hang up on everyone."""
        self._closing.set()
        if self._listener.is_alive():
            self._server.shutdown()
            self._listener.join()
        self._server.hang_up()
        self._server.server_close()

    @property
    def requests(self) -> list[Record]:
        """The requests answered so far, in the order of their answers; the latest 200,000."""
        with self._lock:
            return list(self._records)

    def forget(self) -> None:
        """Empty `requests` and `counts`."""
        with self._lock:
            self._records.clear()
            self.counts.clear()

    def answer(self, request: Request, connection_number: int) -> Answer:
        """Return the answer to *request*, and record it."""
        started, begun = time.time(), time.perf_counter()
        with self._lock:
            self._numbers += 1
            number = self._numbers
        answer = self._decide(request, number)
        answer.headers["X-Sandbox"] = self.source.mark
        answer.headers["Date"] = formatdate(self._clock().timestamp(), usegmt=True)
        if self.latency:
            self._closing.wait(self.latency)
        seconds = time.perf_counter() - begun
        record = Record(
            number, request.path, request.query, answer.status, answer.rows, started, seconds, answer.fault, connection_number
        )
        with self._lock:
            self._records.append(record)
            self.counts[answer.status] += 1
            self.counts["rows"] += answer.rows
        if self._on_request is not None:
            self._on_request(record)
        return answer

    def _decide(self, request: Request, number: int) -> Answer:
        if len(request.target) > self._max_target:
            return _html(414, "Request-URI Too Large")
        if request.method != "GET":
            return _message(405, "method not allowed")
        if not self._admits(request.headers):
            return _html(401, "Authorization Required")
        if self._bucket is not None and not self._bucket.take():
            return _too_many()
        path = request.path.split("/")
        match path:
            case ["", "v2", "stocks", "bars"]:
                return self._guarded(request, number, None)
            case ["", "v2", "stocks", symbol, "bars"]:
                return self._guarded(request, number, symbol)
            case ["", "v1", "corporate-actions"]:
                return self._guarded(request, number, None, actions=True)
        return _message(404, "endpoint not found.")

    def _guarded(self, request: Request, number: int, symbol: str | None, *, actions: bool = False) -> Answer:
        listed = request.query.get("symbols", "").split(",") if symbol is None else [symbol]
        fault = self.faults.draw(number, listed)
        if fault in REFUSALS or (fault is not None and fault.isdigit()):
            return self._refusal(fault)
        try:
            answer = self._actions(request, fault) if actions else self._bars(request, symbol, fault)
        except Refusal as refusal:
            return _message(refusal.status, refusal.message)
        answer.fault = fault
        if self._limit_headers and self._bucket is not None:
            answer.headers.update(self._bucket.headers(time.time()))
        return answer

    def _bars(self, request: Request, symbol: str | None, fault: str | None) -> Answer:
        now = self._clock()
        asked = BarsRequest.parse(request.query, now=now, delayed=self._free, symbol=symbol)
        if self._free:
            asked.check_recency(now)
        budget = {"short": max(1, asked.limit // 3), "empty": 0}.get(fault or "")
        page = self._pager.fill(asked, now, budget=budget)
        return Answer(200, page.body(asked), rows=page.rows)

    def _actions(self, request: Request, fault: str | None) -> Answer:
        asked = ActionsRequest.parse(request.query, now=self._clock())
        budget = {"short": max(1, asked.limit // 3), "empty": 0}.get(fault or "")
        return Answer(200, self.actions.page(asked, budget=budget))

    def _refusal(self, fault: str) -> Answer:
        status = int(fault[:3])
        if status == 429:
            answer = _too_many()
            if fault == "429_reset":
                answer.headers["X-RateLimit-Reset"] = str(int(time.time()) + _RESET_SECONDS)
            elif fault == "429_retry_after":
                answer.headers["Retry-After"] = str(self.faults.retry_after)
        elif status in (401, 502, 503, 504):
            answer = _html(status, {401: "Authorization Required", 503: "Service Temporarily Unavailable"}.get(status))
        else:
            answer = _message(status, {403: "forbidden.", 500: "internal server error occurred"}.get(status, "refused"))
        answer.fault = fault
        return answer

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


def _message(status: int, message: str) -> Answer:
    return Answer(status, json.dumps({"message": message}, separators=(",", ":"), ensure_ascii=False).encode())


def _too_many() -> Answer:
    return Answer(429, b'{"message": "too many requests."}')


def _html(status: int, title: str | None = None) -> Answer:
    words = f"{status} {title or {502: 'Bad Gateway', 504: 'Gateway Time-out'}[status]}"
    body = f"<html>\r\n<head><title>{words}</title></head>\r\n<body>\r\n<center><h1>{words}</h1></center>\r\n"
    return Answer(status, (body + "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n").encode(), "text/html")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = os.name != "nt"  # there it would let another server take the port
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._open: dict[int, tuple[socket.socket, threading.Thread]] = {}
        self._connections = 0
        self._hung_up = False
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Close without the orderly goodbye of the base class, which would come before a reset and hide it."""
        self.close_request(request)

    def enter(self, connection: socket.socket) -> int:
        """Remember an open connection, and return its number."""
        with self._lock:
            self._connections += 1
            self._open[self._connections] = connection, threading.current_thread()
            if self._hung_up:
                _shut(connection)
            return self._connections

    def leave(self, number: int) -> None:
        """Forget a connection."""
        with self._lock:
            self._open.pop(number, None)

    def hang_up(self) -> None:
        """End all connections, and wait until their threads have noticed."""
        with self._lock:
            self._hung_up = True
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
                answer = sandbox.answer(request, number)
                stall = sandbox.faults.stall_seconds
                if not send(self.connection, request, answer, level=sandbox.gzip_level, stall_seconds=stall):
                    break
        except OSError:
            return  # the client has gone
        finally:
            self.server.leave(number)
