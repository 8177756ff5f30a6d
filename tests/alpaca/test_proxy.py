"""The proxy of the usual variables: a tunnel for https, TLS end to end, and the keys never to the proxy."""

from __future__ import annotations

import socket
import threading

import pytest

from data_engine.alpaca.proxy import proxy_for
from data_engine.alpaca.transport import HttpTransport, TransportFailed
from data_engine.errors import ConfigError
from hostile import Hostile, page

ALPACA = "https://data.alpaca.markets"


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTP_PROXY": "http://p:1"}, None),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ({"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:2"}, "http://p:1"),
        ({"ALL_PROXY": "https://p"}, "https://p"),
        ({"HTTPS_PROXY": "p:3128"}, "http://p:3128"),
        ({"HTTPS_PROXY": "http://[::1]:8"}, "http://[::1]:8"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "alpaca.markets"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "x, .alpaca.markets:443"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "paca.markets"}, "http://p:1"),
    ],
)
def test_the_proxy_is_that_of_the_variables(environ, url):
    found = proxy_for(ALPACA, environ)

    assert (found.url if found else None) == url


def test_plain_http_to_this_machine_goes_to_no_proxy():
    environ = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"), "http://p:1")

    assert proxy_for("http://127.0.0.1:8", environ) is None


@pytest.mark.parametrize("value", ["socks5://p:1", "http://", "http://p:x", "ftp://p", "http://[::1", "http://u:sEcReT@"])
def test_a_proxy_that_cannot_be_used_is_refused_without_its_password(value):
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        proxy_for(ALPACA, {"HTTPS_PROXY": value})
    assert "sEcReT" not in str(caught.value)


def test_a_proxy_gets_its_own_password_and_never_the_keys(monkeypatch):
    heard = []
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        connection, _ = listener.accept()
        with connection:
            heard.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=refuse, daemon=True)
    thread.start()
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:pass%21@{address}")
    client = HttpTransport("https://data.alpaca.invalid", {"APCA-API-SECRET-KEY": "sEcReT"})
    with pytest.raises(TransportFailed, match=address) as caught:
        client.get("/v2/stocks/bars")
    thread.join(5)
    listener.close()

    assert heard[0].startswith(b"CONNECT data.alpaca.invalid:443 HTTP/1.")
    assert b"proxy-authorization: basic dxnlcjpwyxnzIQ==".lower() in heard[0].lower()
    assert b"sEcReT" not in heard[0]
    assert b"/v2/stocks" not in heard[0]
    assert "pass" not in str(caught.value)


def test_a_server_on_this_machine_is_reached_beside_a_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Hostile(page({})) as server:
        client = HttpTransport(server.url, {})
        assert client.get("/x").status == 200
        client.close()
