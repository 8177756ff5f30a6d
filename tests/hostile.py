"""A real HTTP server on the loopback interface that plays a script of raw responses, byte for byte."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, Self

_TICK = 0.01
_TLS_HELLO = b"\x16"


@dataclass(frozen=True, slots=True)
class Play:
    """One response.

    Attributes:
        data: The bytes to send.
        then: What happens to the connection afterwards; ``stall`` waits for the client to go.
        drip: The bytes to send afterwards, one per hundredth of a second, until the client goes.
    """

    data: bytes
    then: Literal["keep", "close", "reset", "stall"] = "keep"
    drip: bytes = b""


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request, and the number of its connection."""

    target: str
    headers: dict[str, str]
    connection: int


@dataclass(slots=True)
class _Script:
    plays: list[Play]
    at: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> Play:
        with self.lock:
            play = self.plays[min(self.at, len(self.plays) - 1)]
            self.at += 1
            return play


class Hostile:
    """Answers the n-th request with the n-th of *plays*, and every later one with the last. Use it in a ``with`` statement.

    Attributes:
        url: The address, such as ``http://127.0.0.1:40123``.
        requests: The requests so far.
        dripped: The number of bytes dripped before the client went.
    """

    def __init__(self, *plays: Play | bytes) -> None:
        self.requests: list[ReceivedRequest] = []
        self.dripped = 0
        self._script = _Script([play if isinstance(play, Play) else Play(play) for play in plays])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        # Wakes the listener out of accept(), which closing alone does not on every system.
        socket.create_connection(self._listener.getsockname()).close()
        self._threads[0].join(5)
        self._listener.close()
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it is closed already
        for thread in self._threads:
            thread.join(5)

    @property
    def connections(self) -> int:
        """The number of connections with requests."""
        return len({request.connection for request in self.requests})

    def _accept(self) -> None:
        number = 0
        while True:
            connection, _ = self._listener.accept()
            if self._closing.is_set():
                connection.close()
                return
            number += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                while request := self._read(stream, number):
                    self.requests.append(request)
                    if not self._play(connection, self._script.next()):
                        return
            except OSError:
                return  # the client has gone

    def _play(self, connection: socket.socket, play: Play) -> bool:
        connection.sendall(play.data)
        for byte in play.drip:
            if self._closing.wait(_TICK):
                return False
            connection.sendall(bytes([byte]))
            self.dripped += 1
        if play.then == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif play.then == "stall":
            connection.recv(1)
        return play.then == "keep"

    def _read(self, stream: Any, number: int) -> ReceivedRequest | None:
        if stream.peek(1)[:1] == _TLS_HELLO:
            return None
        words = stream.readline().decode("latin-1").split()
        headers: dict[str, str] = {}
        while (line := stream.readline().decode("latin-1")).strip():
            name, _, text = line.partition(":")
            headers[name.strip().lower()] = text.strip()
        return ReceivedRequest(words[1], headers, number) if len(words) == 3 else None


def http(
    status: int = 200, body: bytes = b"", kind: str | None = "application/json", headers: Iterable[tuple[str, str]] = ()
) -> bytes:
    """Write an HTTP response, with the length of its body unless *headers* state one or say that it is chunked."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {text}" for name, text in headers)]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    if not {"content-length", "transfer-encoding"} & {name.lower() for name, _ in headers}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def gzipped(body: bytes, keep: int | None = None) -> bytes:
    """Write a response with a compressed body, cut off after *keep* bytes."""
    return http(body=gzip.compress(body, 1)[:keep], headers=[("Content-Encoding", "gzip")])


def page(bars: dict[str, list[dict[str, Any]]], token: str | None = None) -> bytes:
    """Write a response with a page of bars."""
    return http(body=json.dumps({"bars": bars, "next_page_token": token}, separators=(",", ":")).encode())


def asset(symbol: str, /, **changed: Any) -> dict[str, Any]:
    """Return a row of the list of securities as Alpaca sends it; a field that is changed to `...` is left out."""
    row = {
        "id": "904837e3",
        "class": "us_equity",
        "exchange": "NYSE",
        "symbol": symbol,
        "name": "x",
        "status": "active",
        **changed,
    }
    return {name: value for name, value in row.items() if value is not ...}


def bar(time: str, close: float = 10.0) -> dict[str, Any]:
    """Return a bar as Alpaca sends it; everything but the time and the close is the same in each."""
    return {"c": close, "h": 12.5, "l": 9, "n": 7, "o": 10.25, "t": time, "v": 1200, "vw": 10.125}
