"""Whatever a server does, a request ends: the limit is enforced from outside of what reads."""

from __future__ import annotations

import threading
import time

import pytest

from data_engine.alpaca import transport
from data_engine.alpaca.time_limit import Watch
from data_engine.alpaca.transport import HttpTransport, TransportFailed
from hostile import Hostile, Play

LIMIT = 0.4
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

# What a server sends first, and then a byte at a time, each of which resets the time-out of a read.
DRIPS = {
    "status": (b"", b"HTTP/1.1 200 " + b"O" * 60_000),
    "header": (HEAD, b"X-Long: " + b"a" * 60_000),
    "headers": (HEAD, b"X: 1\r\n" * 90),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "early-hints": (b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, b"HTTP/1.1 100 Continue\r\nX: 1\r\n\r\n" * 1000),
    "body": (HEAD + b"Content-Length: 60000\r\n\r\n", b" " * 60_000),
    "body-without-a-length": (HEAD + b"\r\n", b" " * 60_000),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 10_000),
    "chunk-size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 60_000),
    "chunk-extension": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 60_000),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n", b"X: 1\r\n" * 10_000),
    "gzip": (HEAD + b"Content-Encoding: gzip\r\n\r\n", b"\x1f\x8b\x08" + b"\0" * 60_000),
}


@pytest.mark.parametrize(("data", "drip"), DRIPS.values(), ids=DRIPS)
def test_a_server_that_drips_is_left(monkeypatch, data, drip):
    monkeypatch.setattr(transport, "_RESPONSE_SECONDS", LIMIT)
    with Hostile(Play(data, drip=drip)) as server:
        client = HttpTransport(server.url, {})
        before = time.monotonic()
        with pytest.raises(TransportFailed, match="took longer than"):
            client.get("/x")
        assert LIMIT <= time.monotonic() - before < LIMIT + 1.5
        client.close()


def test_tls_that_is_never_agreed_upon_is_left(monkeypatch):
    """A byte of a record that is announced as long, now and then."""
    import socket

    monkeypatch.setattr(transport, "_CONNECT_SECONDS", LIMIT)
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                connection.sendall(b"\x16\x03\x03\x40\x00")
                while True:
                    connection.sendall(b"\x02")
                    time.sleep(0.02)
            except OSError:
                return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    client = HttpTransport(f"https://127.0.0.1:{listener.getsockname()[1]}", {})
    before = time.monotonic()
    with pytest.raises(TransportFailed, match=r"no connection|stopped responding|encryption"):
        client.get("/x")
    assert time.monotonic() - before < LIMIT + 1.5
    thread.join(5)
    listener.close()


class Slow:
    def __init__(self) -> None:
        self.late = False
        self.ended = threading.Event()

    def break_off(self) -> None:
        self.ended.set()


def test_each_call_has_its_own_time():
    watch, calls = Watch(), [Slow() for _ in range(3)]
    with watch.limit(calls[0], 60), watch.limit(calls[1], 0.05):
        assert calls[1].ended.wait(5)
        with watch.limit(calls[2], 0.05):
            assert calls[2].ended.wait(5)
    assert [call.late for call in calls] == [False, True, True]


def test_what_ends_in_time_is_left_alone():
    watch, call = Watch(), Slow()
    for _ in range(100):
        with watch.limit(call, 0.05):
            pass
    time.sleep(0.1)
    assert not call.late
