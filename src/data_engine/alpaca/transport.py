"""Send one HTTP request and return its response: the seam to the network.

Connections are pooled and kept alive by urllib3; TLS certificates are verified; redirects are never followed, since they
would carry the credentials to another host; a body is bounded while it is inflated.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from data_engine.alpaca.proxy import proxy_for
from data_engine.alpaca.time_limit import WATCH
from data_engine.cpu import CPU_SLOTS
from data_engine.errors import SourceError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_CONNECT_SECONDS = 10.0

_READ_SECONDS = 30.0

_RESPONSE_SECONDS = 120.0  # for a whole request: a server that drips a byte now and then stays below the read time-out

_SILENT = "the server stopped responding"

_MOST_BYTES = 64 << 20  # 10,000 bars are about 1 MB of JSON


@dataclass(frozen=True, slots=True)
class Response:
    """A response of the server.

    Attributes:
        status: The HTTP status.
        headers: The headers by lower-case name.
        body: The body, inflated.
        wire_bytes: The length of the body as received.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    wire_bytes: int


class TransportFailed(SourceError):
    """No whole response came: refused, reset, timed out or cut off. A repetition may help."""

    code = "unavailable"


class Call:
    """One request under way, which another thread can break off.

    Attributes:
        broken: Whether it was broken off; what came of it is no whole response then.
        late: Whether it was broken off since it took too long.
    """

    def __init__(self) -> None:
        self.broken = False
        self.late = False
        self._socket: socket.socket | None = None

    def use(self, connected: socket.socket | None) -> None:
        """Remember the socket that the request is sent over.

        Raises:
            TransportFailed: If the request was broken off before.
        """
        # This writes before it reads, and `break_off` too, in the other order: one of them sees what the other wrote.
        self._socket = connected
        self.check()

    def check(self) -> None:
        """Raise `TransportFailed` if the request was broken off."""
        if self.broken:
            raise TransportFailed("the request was broken off")

    def break_off(self) -> None:
        """End the request at once: whoever waits for its response waits no longer."""
        self.broken = True
        if self._socket is not None:
            with suppress(OSError):  # it is closed already
                # Not the method of an SSL socket, which would forget its encryption while another thread reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


_call: ContextVar[Call | None] = ContextVar("call", default=None)
"""The call that the present thread makes; connections tell it their socket."""


class Transport(Protocol):
    """A way to send requests to Alpaca."""

    def get(self, path_and_query: str, call: Call | None = None) -> Response:
        """Send one GET request and return the whole response.

        Args:
            path_and_query: The path and query of the request.
            call: What another thread can break the request off with. If None, it cannot be.

        Raises:
            TransportFailed: If there was none.
        """

    def close(self) -> None:
        """Close the connections."""


class HttpTransport:
    """Transport over urllib3. Safe to share between threads.

    Args:
        base_url: The scheme and host (and port), without a trailing slash.
        headers: The headers of every request; the credentials are among them, so they are never shown.
        connections: The maximum number of open connections.
        read_seconds: The seconds until a silent server counts as failed.
    """

    def __init__(
        self, base_url: str, headers: Mapping[str, str], *, connections: int = 16, read_seconds: float = _READ_SECONDS
    ) -> None:
        import urllib3

        self._base_url = base_url.rstrip("/")
        proxy = proxy_for(self._base_url, os.environ)
        options: dict[str, Any] = {
            "num_pools": 1,
            "maxsize": connections,
            "headers": {"Accept-Encoding": "gzip", "Accept": "application/json", **headers},
            "retries": False,
            "timeout": urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds),
        }
        if proxy is None:
            self._pool = urllib3.PoolManager(**options)
        else:
            # A tunnel: the proxy sees the name of the host, and TLS ends at the host.
            self._pool = urllib3.ProxyManager(proxy.url, proxy_headers=dict(proxy.headers), **options)
        self._through = "" if proxy is None else f" through the proxy {proxy.name}"
        self._pool.pool_classes_by_scheme = _pool_classes()

    def __repr__(self) -> str:
        return f"HttpTransport({self._base_url!r})"

    def get(self, path_and_query: str, call: Call | None = None) -> Response:
        """Send one GET request and return the whole response."""
        call = call or Call()
        with WATCH.limit(call, _RESPONSE_SECONDS):
            status, headers, raw = self._exchange(path_and_query, call)
        if headers.get("content-encoding", "").lower() not in ("gzip", "x-gzip"):
            return Response(status, headers, raw, len(raw))
        with CPU_SLOTS:
            body = _inflate(raw)
        return Response(status, headers, body, len(raw))

    def _exchange(self, path_and_query: str, call: Call) -> tuple[int, dict[str, str], bytes]:
        """Send one GET request, and return status, headers by lower-case name and the body as it came."""
        from urllib3.exceptions import HTTPError

        before = _call.set(call)
        try:
            response = self._pool.request(
                "GET", self._base_url + path_and_query, preload_content=False, decode_content=False, redirect=False
            )
            try:
                raw = _read_whole(response)
            except BaseException:
                response.close()  # a connection with half a response in it must not serve the next request
                raise
            response.release_conn()
            call.check()  # a response without a length looks whole wherever it ends
        except (HTTPError, OSError, TransportFailed) as error:
            if call.late:
                raise TransportFailed(f"the response took longer than {_RESPONSE_SECONDS:g} s") from error
            raise TransportFailed(
                (str(error) if isinstance(error, TransportFailed) else _reason(error)) + self._through
            ) from error
        finally:
            _call.reset(before)
        return response.status, {name.lower(): text for name, text in response.headers.items()}, raw

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()


def _tell(connected: socket.socket | None) -> None:
    call = _call.get()
    if call is not None:
        call.use(connected)


@cache
def _pool_classes() -> dict[str, Any]:
    """Return the connection pools of urllib3 by scheme, with connections that tell the present `Call` their socket."""
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    def telling(connection: Any) -> Any:
        class Telling(connection):  # type: ignore[misc]
            def connect(self) -> None:
                super().connect()  # agreement upon TLS included, which ends with the time to connect
                _tell(self.sock)

            def request(self, *arguments: Any, **options: Any) -> None:
                _tell(self.sock)
                super().request(*arguments, **options)

        return Telling

    class Plain(HTTPConnectionPool):
        ConnectionCls = telling(HTTPConnection)

    class Secure(HTTPSConnectionPool):
        ConnectionCls = telling(HTTPSConnection)

    return {"http": Plain, "https": Secure}


def _read_whole(response: BaseHTTPResponse) -> bytes:
    parts, size = [], 0
    while part := response.read1(1 << 18, decode_content=False):
        parts.append(part)
        size += len(part)
        if size > _MOST_BYTES:
            raise TransportFailed(f"the response is longer than {_MOST_BYTES >> 20} MB")
    return b"".join(parts)


def _inflate(raw: bytes) -> bytes:
    """Return what a gzip file holds, in all of its members."""
    from isal import isal_zlib

    parts: list[bytes] = []
    left, room = raw, _MOST_BYTES
    while left or not parts:
        inflater = isal_zlib.decompressobj(wbits=31)
        try:
            part: bytes = inflater.decompress(left, room)
        except isal_zlib.error as error:  # type: ignore[misc]
            raise TransportFailed(f"the compressed response is damaged: {error}") from error
        room -= len(part)
        if not inflater.eof:
            if room <= 0:
                raise TransportFailed(f"the response inflates to more than {_MOST_BYTES >> 20} MB")
            raise TransportFailed("the compressed response was cut off")
        parts.append(part)
        left = inflater.unused_data
        if left and room <= 0:
            raise TransportFailed(f"the response inflates to more than {_MOST_BYTES >> 20} MB")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _reason(error: Exception) -> str:
    """Return a short reason without the URL, which the texts of urllib3 hold."""
    from urllib3 import exceptions

    reasons = {  # the special ones first: the others are their bases
        exceptions.ProxyError: "the proxy cannot be reached, or refuses the connection",
        exceptions.NameResolutionError: "the host name cannot be resolved",
        exceptions.NewConnectionError: "the connection was refused",
        exceptions.ConnectTimeoutError: f"no connection within {_CONNECT_SECONDS:g} s",
        exceptions.ReadTimeoutError: _SILENT,
        TimeoutError: _SILENT,
        exceptions.SSLError: "the server's certificate or encryption is not acceptable",
        exceptions.IncompleteRead: "the response was cut off",
    }
    broken = f"the connection broke ({type(error).__name__})"
    return next((reason for kind, reason in reasons.items() if isinstance(error, kind)), broken)
