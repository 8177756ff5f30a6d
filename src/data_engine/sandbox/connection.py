"""Read requests and send responses: HTTP/1.1 as far as this server needs it, and the faults below HTTP."""

from __future__ import annotations

import os
import socket
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from io import BufferedIOBase
from urllib.parse import parse_qsl, unquote

from isal import isal_zlib

COMPRESSED_ABOVE = 256

_GZIP_WINDOW = 31

_MAX_LINE = 1 << 16

_NO_LINGER = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Request:
    """A request of a client.

    Attributes:
        method: The method; only ``GET`` is served.
        target: The path and query as sent.
        path: The path, decoded.
        query: The parameters, decoded; of a repeated name the first value.
        headers: The headers by lower-case name.
    """

    method: str
    target: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def keep_alive(self) -> bool:
        """Whether the client will send more on this connection."""
        return self.headers.get("connection", "").lower() != "close"

    @property
    def accepts_gzip(self) -> bool:
        """Whether the client accepts gzip."""
        codings = (coding.replace(" ", "") for coding in self.headers.get("accept-encoding", "").lower().split(","))
        return any(name == "gzip" and weight not in ("q=0", "q=0.0") for name, _, weight in (c.partition(";") for c in codings))


@dataclass(slots=True)
class Response:
    """A response of the server.

    Attributes:
        status: The HTTP status.
        body: The body, not yet compressed.
        content_type: The content type of the body.
        headers: The other headers.
        rows: The number of bars in the body.
        fault: The fault to be applied in sending, or the one that made the response.
    """

    status: int
    body: bytes
    content_type: str = "application/json; charset=UTF-8"
    headers: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    fault: str | None = None


def read_request(stream: BufferedIOBase) -> Request | None:
    """Return the next request, or None if the client has gone, or does not speak HTTP."""
    line = stream.readline(_MAX_LINE)
    while line in (b"\r\n", b"\n"):
        line = stream.readline(_MAX_LINE)
    words = line.decode("latin-1").split()
    if len(words) != 3 or not line.endswith(b"\n"):
        return None
    headers: dict[str, str] = {}
    for line in iter(lambda: stream.readline(_MAX_LINE), b""):
        if line in (b"\r\n", b"\n"):
            break
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    else:
        return None
    length = headers.get("content-length", "0")
    if length.isdigit():
        stream.read(int(length))
    path, _, query = words[1].partition("?")
    values: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        values.setdefault(name, value)
    return Request(words[0], words[1], unquote(path), values, headers)


def send(connection: socket.socket, request: Request, response: Response, *, level: int, stall_seconds: float | None) -> bool:
    """Send a response, with its fault if that is one of sending; return whether the connection can go on."""
    body, headers = response.body, dict(response.headers)
    if level and request.accepts_gzip and len(body) > COMPRESSED_ABOVE and response.fault != "identity":
        body = _gzip(body, level)
        headers["Content-Encoding"] = "gzip"
    if response.fault == "cut_gzip":
        body = body[: len(body) // 2]
    head = _head(response, headers, len(body), keep_alive=request.keep_alive)
    if response.fault in ("reset", "stall"):
        connection.sendall(head + body[: len(body) // 2])
        if response.fault == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        else:
            _wait_for_departure(connection, stall_seconds)
        return False
    connection.sendall(head + body)
    return request.keep_alive


def _gzip(body: bytes, level: int) -> bytes:
    # The three quick levels of isal take a third of zlib's time for the same size.
    library: Callable[..., bytes] = isal_zlib.compress if level <= 3 else zlib.compress
    return library(body, level, wbits=_GZIP_WINDOW)


def _head(response: Response, headers: dict[str, str], length: int, *, keep_alive: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {response.status} {_phrase(response.status)}",
        "Server: data-engine-sandbox",
        f"Date: {headers.pop('Date', None) or formatdate(time.time(), usegmt=True)}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {length}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    if not keep_alive:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"


def _wait_for_departure(connection: socket.socket, seconds: float | None) -> None:
    connection.settimeout(seconds)
    try:
        connection.recv(1)
    except TimeoutError:
        return
