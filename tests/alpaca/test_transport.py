"""The transport against servers that misbehave: every failure has one short reason, and no credentials go to another server."""

from __future__ import annotations

import gzip
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from data_engine.alpaca import transport
from data_engine.alpaca.transport import Call, HttpTransport, Response, TransportFailed
from hostile import Hostile, Play, gzipped, http

KEY, SECRET = "PKTESTKEY0123456789", "s3cretSECRETs3cretSECRET"
KEYS = {"APCA-API-KEY-ID": KEY, "APCA-API-SECRET-KEY": SECRET}
PATH = "/v2/stocks/bars?symbols=AAPL"
BODY = b'{"bars":{},"next_page_token":null}' * 20


@pytest.fixture
def connect():
    """Transports that are closed at the end of the test."""
    made: list[HttpTransport] = []

    def transport_to(url: str, **options: object) -> HttpTransport:
        made.append(HttpTransport(url, KEYS, **options))
        return made[-1]

    yield transport_to
    for one in made:
        one.close()


def failure_of(server: Hostile, connect, **options: object) -> str:
    with server, pytest.raises(TransportFailed) as caught:
        connect(server.url, **{"read_seconds": 5.0, **options}).get(PATH)
    return str(caught.value)


# Responses


def test_a_response_is_what_the_server_sent(connect):
    with Hostile(http(404, b"gone", "text/plain", [("X-RateLimit-Limit", "200")])) as server:
        response = connect(server.url + "/").get(PATH)

    assert response == Response(
        404, {"x-ratelimit-limit": "200", "content-type": "text/plain", "content-length": "4"}, b"gone", 4
    )


def test_a_request_carries_the_keys_and_asks_for_gzip(connect):
    with Hostile(http(body=b"{}")) as server:
        connect(server.url).get(PATH)

    (request,) = server.requests
    assert request.target == PATH
    assert (request.headers["apca-api-key-id"], request.headers["apca-api-secret-key"]) == (KEY, SECRET)
    assert request.headers["accept-encoding"] == "gzip"


def test_a_compressed_body_is_inflated(connect):
    with Hostile(gzipped(BODY)) as server:
        response = connect(server.url).get(PATH)

    assert (response.body, response.wire_bytes) == (BODY, len(gzip.compress(BODY, 1)))


def test_a_chunked_body_is_put_together(connect):
    chunks = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    with Hostile(http(body=chunks, headers=[("Transfer-Encoding", "chunked")])) as server:
        assert connect(server.url).get(PATH).body == b"hello world"


def test_a_body_without_length_ends_with_the_connection(connect):
    with Hostile(Play(b"HTTP/1.1 200 OK\r\n\r\nall of it", "close")) as server:
        assert connect(server.url).get(PATH).body == b"all of it"


def test_an_empty_response_is_a_response(connect):
    with Hostile(http(503)) as server:
        assert connect(server.url).get(PATH).body == b""


# Connections


def test_one_connection_serves_many_requests(connect):
    with Hostile(http(body=b"1"), gzipped(BODY), http(500, b"no"), http(429), http(body=b"2")) as server:
        client = connect(server.url)
        statuses = [client.get(PATH).status for _ in range(5)]

    assert (statuses, server.connections) == ([200, 200, 500, 429, 200], 1)


@pytest.mark.parametrize(
    "broken",
    [
        Play(http(body=b"half", headers=[("Content-Length", "9")]), "reset"),
        gzipped(BODY, 30),
        Play(http(body=b"half", headers=[("Content-Length", "9")]), "close"),
    ],
    ids=["reset", "cut-gzip", "cut"],
)
def test_after_a_broken_response_the_next_one_is_whole(connect, broken):
    """What is left of one response is never read as the beginning of the next."""
    with Hostile(broken, http(body=b"whole")) as server:
        client = connect(server.url)
        with pytest.raises(TransportFailed):
            client.get(PATH)

        assert client.get(PATH).body == b"whole"


def test_threads_share_a_transport(connect):
    with Hostile(gzipped(BODY)) as server, ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(connect(server.url, connections=8).get, [PATH] * 100))
        assert {response.body for response in bodies} == {BODY}

    assert server.connections <= 8


# Failures

CUT = [("Content-Length", "1000")]
BOMB = gzip.compress(b"\0" * ((64 << 20) + 1), 9)

FAILURES = {
    "reset-in-mid-body": (Play(http(body=b"half", headers=CUT), "reset"), r"broke \("),
    "closed-in-mid-body": (Play(http(body=b"half", headers=CUT), "close"), r"broke \(|cut off"),
    "closed-in-mid-chunk": (
        Play(http(body=b"9\r\nhal", headers=[("Transfer-Encoding", "chunked")]), "close"),
        r"broke \(|cut off",
    ),
    "no-length-of-a-chunk": (
        http(body=b"zz\r\nhal\r\n0\r\n\r\n", headers=[("Transfer-Encoding", "chunked")]),
        r"broke \(|cut off",
    ),
    "closed-before-the-response": (Play(b"", "close"), r"broke \("),
    "closed-in-the-headers": (Play(b"HTTP/1.1 200 OK\r\nContent-Le", "close"), None),
    "no-http": (Play(b"SSH-2.0-OpenSSH_9.6\r\n", "close"), r"broke \("),
    "a-hundred-headers-too-many": (
        http(headers=[(f"X-{number}", "y") for number in range(200)]),
        r"broke \(",
    ),
    "an-endless-header": (http(headers=[("X", "y" * 70_000)]), r"broke \("),
    "cut-gzip": (gzipped(BODY, 30), "compressed .* cut off"),
    "empty-gzip": (gzipped(BODY, 0), "compressed .* cut off"),
    "no-gzip": (http(body=BODY, headers=[("Content-Encoding", "gzip")]), "compressed .* damaged"),
    "wrong-checksum": (
        http(body=gzip.compress(BODY)[:-8] + bytes(8), headers=[("Content-Encoding", "gzip")]),
        "compressed .* damaged",
    ),
    "bomb": (http(body=BOMB, headers=[("Content-Encoding", "gzip")]), "inflates .* 64 MB"),
}  # fmt: skip


@pytest.mark.parametrize(("play", "reason"), FAILURES.values(), ids=FAILURES)
def test_a_broken_response_is_one_short_reason(connect, play, reason):
    server = Hostile(play)
    said = ""
    if reason is None:  # what came before the end may pass for a response without a body
        with server:
            try:
                assert connect(server.url).get(PATH).body == b""
            except TransportFailed as error:
                said = str(error)
    else:
        said = failure_of(server, connect)
        assert re.search(reason, said)
    assert len(said) < 120
    assert not any(word in said for word in (KEY, SECRET, server.url, "127.0.0.1", "/v2", "AAPL"))


def test_a_silent_server_is_left(connect):
    server = Hostile(Play(http(body=b"half", headers=CUT), "stall"))

    assert failure_of(server, connect, read_seconds=0.2) == transport._SILENT


def test_a_server_that_says_nothing_at_all_is_left(connect):
    assert failure_of(Hostile(Play(b"", "stall")), connect, read_seconds=0.2) == transport._SILENT


def test_a_refused_connection_is_said_so(connect):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TransportFailed, match="refused"):
        connect(f"http://127.0.0.1:{port}").get(PATH)


def test_a_name_without_address_is_said_so(connect):
    with pytest.raises(TransportFailed, match="host name"):
        connect("http://no.such.host.invalid").get(PATH)


def test_a_server_without_tls_is_no_https_server(connect):
    with Hostile(http(400)) as server, pytest.raises(TransportFailed, match=r"encryption|broke"):
        connect(server.url.replace("http://", "https://")).get(PATH)

    assert server.requests == []


def test_a_body_without_end_is_left(connect, monkeypatch):
    monkeypatch.setattr(transport, "_MOST_BYTES", 1 << 20)
    endless = Play(http(body=b"x" * (2 << 20), headers=[("Content-Length", str(1 << 40))]), "stall")

    assert "longer than 1 MB" in failure_of(Hostile(endless), connect)


def test_a_server_that_drips_is_left_before_the_end(connect, monkeypatch):
    """Each byte comes within the read time-out; the whole response never would. 120 seconds, here a fifth of one."""
    monkeypatch.setattr(transport, "_RESPONSE_SECONDS", 0.2)
    total = 150
    server = Hostile(Play(http(headers=[("Content-Length", str(total))]), "close", drip=b"x" * total))
    said = failure_of(server, connect)

    assert "longer than 0.2 s" in said
    assert server.dripped < total


# Broken off


@pytest.mark.parametrize(
    "play",
    [Play(b"", "stall"), Play(http(body=b"half", headers=CUT), "stall"), Play(b"HTTP/1.1 200 OK\r\n\r\nhalf of it", "stall")],
    ids=["nothing-came", "half-came", "without-length"],
)
def test_a_request_that_is_broken_off_ends_at_once_and_is_no_response(connect, play):
    """A thread that waits for a silent server would wait for half a minute; a body without length would look whole."""
    call = Call()
    with Hostile(play) as server, ThreadPoolExecutor(1) as pool:
        future = pool.submit(connect(server.url, read_seconds=60.0).get, PATH, call)
        while not server.requests:
            time.sleep(0.01)
        time.sleep(0.1)
        started = time.monotonic()
        call.break_off()
        with pytest.raises(TransportFailed):
            future.result(20)

    assert time.monotonic() - started < 5


@pytest.mark.parametrize("used_before", [False, True], ids=["new-connection", "kept-connection"])
def test_what_was_broken_off_before_it_was_sent_is_not_sent(connect, used_before):
    call = Call()
    call.break_off()
    with Hostile(http(body=b"1")) as server:
        client = connect(server.url)
        if used_before:
            client.get(PATH)
        with pytest.raises(TransportFailed):
            client.get(PATH, call)
        assert client.get(PATH).body == b"1"

    assert len(server.requests) == 1 + used_before


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_response_and_the_keys_stay_here(connect, status):
    with Hostile(http(body=b"{}")) as elsewhere, Hostile(http(status, headers=[("Location", elsewhere.url + "/take")])) as server:
        response = connect(server.url).get(PATH)

    assert (response.status, len(server.requests), elsewhere.requests) == (status, 1, [])


# Secrets


def test_a_transport_does_not_show_its_keys(connect):
    client = connect("http://127.0.0.1:9")

    assert repr(client) == str(client) == "HttpTransport('http://127.0.0.1:9')"


def test_closing_twice_and_from_another_thread_is_fine(connect):
    with Hostile(http(body=b"{}")) as server:
        client = connect(server.url)
        client.get(PATH)
        thread = threading.Thread(target=client.close)
        thread.start()
        thread.join()
        client.close()


def _members(*texts: bytes) -> bytes:
    return b"".join(gzip.compress(text) for text in texts)


def test_all_members_of_a_gzip_body_are_read():
    with Hostile(http(body=_members(b'{"a', b'":', b"", b"1}"), headers=[("Content-Encoding", "gzip")])) as server:
        assert HttpTransport(server.url, {}).get("/x").body == b'{"a":1}'


@pytest.mark.parametrize("tail", [b"junk", b"\0" * 8, gzip.compress(b"more")[:-3]], ids=["junk", "zeros", "half-a-member"])
def test_what_follows_a_gzip_member_and_is_none_is_refused(tail):
    with (
        Hostile(http(body=_members(b"{}") + tail, headers=[("Content-Encoding", "gzip")])) as server,
        pytest.raises(TransportFailed, match="compressed"),
    ):
        HttpTransport(server.url, {}).get("/x")


def test_members_together_are_bounded(monkeypatch):
    monkeypatch.setattr(transport, "_MOST_BYTES", 1 << 20)
    body = _members(*[b" " * (1 << 19)] * 3)
    with (
        Hostile(http(body=body, headers=[("Content-Encoding", "gzip")])) as server,
        pytest.raises(TransportFailed, match="inflates to more"),
    ):
        HttpTransport(server.url, {}).get("/x")
