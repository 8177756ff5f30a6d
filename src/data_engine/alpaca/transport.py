"""One request in, one answer out: the seam to the network.

Connections are pooled and kept alive by urllib3; TLS certificates are verified; redirects are never followed, since they
would carry the keys to another host; a body is bounded while it is inflated.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from data_engine.cpu import CPU_SLOTS
from data_engine.errors import SourceError

_CONNECT_SECONDS = 10.0

_READ_SECONDS = 30.0

_ANSWER_SECONDS = 120.0  # for a whole answer: a server that drips a byte now and then stays below the read time-out

_MOST_BYTES = 64 << 20  # 10,000 bars are about 1 MB of JSON


@dataclass(frozen=True, slots=True)
class Response:
    """What the server said.

    Attributes:
        status: of HTTP.
        headers: by lower-case name.
        body: inflated.
        wire_bytes: length of the body as it came.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    wire_bytes: int


class TransportFailed(SourceError):
    """No whole answer came: refused, reset, timed out or cut off. Asking again may help."""

    code = "unavailable"


class Transport(Protocol):
    """Whatever can ask the vendor something."""

    def get(self, path_and_query: str) -> Response:
        """Send one GET request and return the whole answer.

        Raises:
            TransportFailed: there was none.
        """

    def close(self) -> None:
        """Let go of the connections."""


class HttpTransport:
    """Transport over urllib3, safe to share between threads.

    Args:
        base_url: scheme and host (and port), without a trailing slash.
        headers: sent with every request; the credentials are among them, so they are shown nowhere.
        connections: how many are kept open at most.
        read_seconds: how long a silent server is waited for.
    """

    def __init__(
        self, base_url: str, headers: Mapping[str, str], *, connections: int = 16, read_seconds: float = _READ_SECONDS
    ) -> None:
        import urllib3

        self._base_url = base_url.rstrip("/")
        self._pool = urllib3.PoolManager(
            num_pools=1,
            maxsize=connections,
            headers={"Accept-Encoding": "gzip", "Accept": "application/json", **headers},
            retries=False,
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds),
        )

    def __repr__(self) -> str:
        return f"HttpTransport({self._base_url!r})"

    def get(self, path_and_query: str) -> Response:
        """Send one GET request and return the whole answer."""
        from urllib3.exceptions import HTTPError

        deadline = time.monotonic() + _ANSWER_SECONDS
        try:
            response = self._pool.request(
                "GET", self._base_url + path_and_query, preload_content=False, decode_content=False, redirect=False
            )
            whole = False
            try:
                parts, size = [], 0
                while part := response.read1(1 << 18, decode_content=False):
                    parts.append(part)
                    size += len(part)
                    if size > _MOST_BYTES:
                        raise TransportFailed(f"the answer is longer than {_MOST_BYTES >> 20} MB")
                    if time.monotonic() > deadline:
                        raise TransportFailed(f"the answer took longer than {_ANSWER_SECONDS:g} s")
                whole = True
            finally:
                # A connection with half an answer in it must not serve the next request.
                if whole:
                    response.release_conn()
                else:
                    response.close()
        except (HTTPError, OSError) as error:
            raise TransportFailed(_reason(error)) from error
        raw = b"".join(parts)
        headers = {name.lower(): text for name, text in response.headers.items()}
        if headers.get("content-encoding", "").lower() not in ("gzip", "x-gzip"):
            return Response(response.status, headers, raw, len(raw))
        with CPU_SLOTS:
            body = _inflate(raw)
        return Response(response.status, headers, body, len(raw))

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.clear()


def _inflate(raw: bytes) -> bytes:
    from isal import isal_zlib

    inflater = isal_zlib.decompressobj(wbits=31)
    try:
        body: bytes = inflater.decompress(raw, _MOST_BYTES)
    except isal_zlib.error as error:  # type: ignore[misc]
        raise TransportFailed(f"the compressed answer is damaged: {error}") from error
    if not inflater.eof:
        if len(body) >= _MOST_BYTES:
            raise TransportFailed(f"the answer inflates to more than {_MOST_BYTES >> 20} MB")
        raise TransportFailed("the compressed answer was cut off")
    return body


def _reason(error: Exception) -> str:
    """Say in few words what urllib3 says in many; its texts hold the whole URL."""
    from urllib3 import exceptions as said

    # The special ones first: the others are their bases.
    if isinstance(error, said.NameResolutionError):
        return "the host name cannot be resolved"
    if isinstance(error, said.NewConnectionError):
        return "the connection was refused"
    if isinstance(error, said.ConnectTimeoutError):
        return f"no connection within {_CONNECT_SECONDS:g} s"
    if isinstance(error, (said.ReadTimeoutError, TimeoutError)):
        return "the server fell silent"
    if isinstance(error, said.SSLError):
        return "the server's certificate or encryption is not acceptable"
    if isinstance(error, said.IncompleteRead):
        return "the answer was cut off"
    return f"the connection broke ({type(error).__name__})"
