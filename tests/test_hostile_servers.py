"""Servers of evil will through the ordinary commands: an exit code, no control character, no key, nothing stored, no hang."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from data_engine.alpaca import http_client, transport
from data_engine.alpaca.retry import RetryPolicy
from hostile import Hostile, Play, bar, gzipped, http, page
from running import KEY, SECRET, Ran, here, rows

WORDS = ("ingest", "AAPL", "--start", "2024-06-03", "--end", "2024-06-03", "--no-actions", "--base-path", "store")
ODD = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
# Of JSON: what reads the file gets the character. Behind an even number of backslashes it is text that a server sent as such.
ESCAPED = re.compile(r"(?<!\\)(?:\\\\)*\\u(?:001b|d800)")
GOOD = bar("2024-06-03T13:30:00Z")
ESC = "\x1b[2J\x1b]0;owned\x07\r\nIngestion Summary: Successful: 500/500\u202e\u2028\x9b31m"


def encodings(secret: str) -> dict[str, str]:
    """Return a secret in the encodings in which a server may repeat it, as text inside a JSON string."""
    escaped = "".join(f"\\u{ord(char):04x}" for char in secret)
    return {
        "plain": secret,
        "json": escaped,
        "upper-json": escaped.upper().replace("\\U", "\\u"),
        "twice": escaped.replace("\\", "\\\\"),
        "slashed": "".join(f"\\u005c{char}" for char in secret),
        "url": "".join(f"%{ord(char):02X}" for char in secret),
        "html": "".join(f"&#{ord(char)};" for char in secret),
        "html-hex": "".join(f"&#x{ord(char):x};" for char in secret),
        "hex": secret.encode().hex(),
        "base64": base64.b64encode(f"x:{secret}".encode()).decode(),
        "url-base64": base64.urlsafe_b64encode(f"xy{secret}?".encode()).decode(),
        "utf-16": "".join(f"{char}\\u0000" for char in secret),
        "far-behind": "x" * 390 + secret,
    }


def said(message: str, status: int = 400) -> bytes:
    return http(status, f'{{"message":"{message}"}}'.encode())


def answer(text: str) -> bytes:
    return http(body=text.encode("utf-8", "surrogatepass"))


def one(**changed: Any) -> bytes:
    """Write a page of one bar in which something is another."""
    return page({"AAPL": [{**GOOD, **changed}]})


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

# What the server sends to every request, and the exit codes that are right.
SERVERS: dict[str, tuple[Play | bytes, int]] = {
    # Keys are repeated.
    **{f"key-{name}": (said(f"no {text} here"), 1) for name, text in encodings(KEY).items()},
    **{f"secret-{name}": (said(f"no {text} here"), 1) for name, text in encodings(SECRET).items()},
    "secret-in-401": (said(f"{KEY}:{SECRET}", 401), 3),
    "secret-in-403": (said(f"forbidden {SECRET}", 403), 1),
    "secret-in-a-symbol": (page({SECRET: [GOOD]}), 1),
    "secret-in-a-field": (one(**{SECRET: 1}), 1),
    "secret-in-a-price": (one(c=SECRET), 1),
    "secret-in-a-time": (one(t=SECRET), 1),
    "secret-in-a-token": (answer(f'{{"bars":{{}},"next_page_token":["{SECRET}"]}}'), 1),
    "secret-in-a-content-type": (http(body=b"{}", kind=f"text/{SECRET}"), 1),
    "secret-in-a-title": (http(403, f"<title>{SECRET}</title>".encode(), "text/html"), 3),
    "secret-in-utf-16": (http(400, f'{{"message":"{SECRET}"}}'.encode("utf-16")), 1),
    "secret-in-utf-16-le": (http(400, SECRET.encode("utf-16-le"), "text/plain"), 1),
    "secret-in-utf-32": (http(400, SECRET.encode("utf-32-be"), "text/plain"), 1),
    "secret-in-a-currency": (answer(f'{{"bars":{{"AAPL":[]}},"currency":"{SECRET}","next_page_token":null}}'), 1),
    # Text that is not only text.
    "escape-sequences": (said(json.dumps(ESC)[1:-1]), 1),
    "escape-sequences-raw": (http(400, ESC.encode(), "text/plain"), 1),
    "escape-sequences-in-a-symbol": (page({ESC: [GOOD]}), 1),
    "escape-sequences-in-a-price": (one(c=ESC), 1),
    "escape-sequences-in-a-field": (one(**{ESC: 1}), 1),
    "escape-sequences-in-a-content-type": (http(body=b"{}", kind="text/\x1b[31mred"), 1),
    "escape-sequences-in-401": (said(json.dumps(ESC)[1:-1], 401), 3),
    "a-lone-surrogate": (said("\\ud800"), 1),
    "a-lone-surrogate-in-a-symbol": (answer('{"bars":{"\\udfff":[1]},"next_page_token":null}'), 1),
    "a-lone-surrogate-in-bytes": (http(400, b'{"message":"\xed\xa0\x80"}'), 1),
    "a-long-message": (said("x" * 5_000_000), 1),
    "a-long-line": (http(400, b"y" * 5_000_000, "text/plain"), 1),
    "a-long-price": (one(c="9" * 3_000_000), 1),
    "a-long-symbol": (page({"A" * 3_000_000: [GOOD]}), 1),
    "many-fields": (one(**{f"f{number}": 1 for number in range(20_000)}), 1),
    "right-to-left": (said("\\u202egnp.exe"), 1),
    # Not JSON, or not this JSON.
    "nested-for-ever": (http(400, b'{"message":' + b"[" * 200_000), 1),
    "nested-for-ever-in-200": (http(body=b"[" * 200_000), 1),
    "nested-bars": (http(body=b'{"bars":' + b'{"A":' * 50_000), 1),
    "nothing": (http(body=b""), 1),
    "half": (http(body=b'{"bars":{"AAPL":['), 1),
    "a-list": (http(body=b"[]"), 1),
    "null": (http(body=b"null"), 1),
    "a-number": (http(body=b"1" * 10_000), 1),
    "a-web-page": (http(body=b"<html>", kind="text/html"), 1),
    "no-kind": (http(body=b"{}", kind=None), 1),
    "bytes": (http(body=bytes(range(256))), 1),
    "no-bars": (answer('{"next_page_token":null}'), 1),
    "null-bars": (answer('{"bars":null,"next_page_token":null}'), 1),
    "bars-of-a-list": (answer('{"bars":[],"next_page_token":null}'), 1),
    "key-twice": (answer('{"bars":{"AAPL":[],"AAPL":[]},"next_page_token":null}'), 1),
    "not-a-number": (answer(json.dumps({"bars": {"AAPL": [{**GOOD, "c": float("nan")}]}, "next_page_token": None})), 1),
    "infinite": (one(c=float("inf")), 1),
    "huge": (answer(json.dumps({"bars": {"AAPL": [{**GOOD, "c": 10**400}]}, "next_page_token": None})), 1),
    "negative-time": (one(t="-001-01-01T00:00:00Z"), 1),
    "another-year": (one(t="2025-06-03T13:30:00Z"), 1),
    "another-symbol": (page({"MSFT": [GOOD]}), 1),
    "unsorted": (page({"AAPL": [bar("2024-06-03T13:31:00Z"), GOOD]}), 1),
    "repeated": (page({"AAPL": [GOOD, GOOD]}), 1),
    "number-of-none": (http(body=page({"AAPL": [GOOD]}).partition(b"\r\n\r\n")[2].replace(b"12.5", b"012.5")), 1),
    "same-token-for-ever": (page({"AAPL": []}, "again"), 1),
    "another-currency": (answer(json.dumps({"bars": {"AAPL": [GOOD]}, "currency": "EUR", "next_page_token": None})), 1),
    "token-of-nothing": (answer('{"bars":{},"next_page_token":""}'), 1),
    # Broken HTTP.
    "gzip-cut-off": (gzipped(b'{"bars":{}}', 12), 6),
    "gzip-that-is-none": (http(body=b"no", headers=[("Content-Encoding", "gzip")]), 6),
    "gzip-and-junk": (http(body=__import__("gzip").compress(b"{}") + b"junk", headers=[("Content-Encoding", "gzip")]), 6),
    "gzip-bomb": (gzipped(b" " * (9 << 20)), 6),
    "too-long": (http(body=b" " * (9 << 20)), 6),
    "cut-off": (Play(HEAD + b"Content-Length: 100\r\n\r\n{}", "close"), 6),
    "reset": (Play(b"HTTP/1.1 200", "reset"), 6),
    "silent": (Play(b"", "stall"), 6),
    "closed": (Play(b"", "close"), 6),
    "no-http": (Play(b"SSH-2.0-OpenSSH\r\n", "close"), 6),
    "redirect": (http(302, headers=[("Location", "http://127.0.0.1:9/")]), 1),
    "redirect-with-a-key": (http(302, headers=[("Location", f"http://127.0.0.1:9/{SECRET}")]), 1),
    "bad-gateway": (http(502, ESC.encode()), 6),
    "two-lengths": (Play(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "close"), 6),
    "negative-length": (Play(HEAD + b"Content-Length: -5\r\n\r\n{}", "close"), 1),
    "bad-chunk": (Play(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "close"), 6),
    "many-headers": (Play(HEAD + b"X: 1\r\n" * 5000 + b"\r\n", "close"), 6),
    "a-long-header": (Play(HEAD + b"X: " + b"1" * 100_000 + b"\r\n\r\n", "close"), 6),
    "date-of-words": (http(400, b'{"message":"x"}', headers=[("Date", "\x1b[31m" + "9" * 5000)]), 1),
    # Slow on purpose.
    "drips-a-status": (Play(b"", drip=b"HTTP/1.1 200 " + b"O" * 60_000), 6),
    "drips-continue": (Play(b"", drip=b"HTTP/1.1 100 Continue\r\n\r\n" * 3000), 6),
    "drips-a-header": (Play(HEAD, drip=b"X: " + b"a" * 60_000), 6),
    "drips-chunk-sizes": (Play(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", drip=b"0" * 60_000), 6),
    "drips-trailers": (Play(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", drip=b"X: 1\r\n" * 10_000), 6),
    "drips-a-body": (Play(HEAD + b"Content-Length: 60000\r\n\r\n", drip=b" " * 60_000), 6),
}  # fmt: skip


def test_the_table_is_long():
    assert len(SERVERS) >= 60


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tries, hardly any wait, and short limits: what is tested is that there are limits."""
    policy = RetryPolicy(tries=2, base=0.001, cap=0.002, give_up_after=5.0)
    monkeypatch.setattr(http_client, "RetryPolicy", lambda: policy)
    monkeypatch.setattr(http_client, "_BAD_PAGE_TRIES", 1)
    monkeypatch.setattr(transport, "_RESPONSE_SECONDS", 0.3)
    monkeypatch.setattr(transport, "_MOST_BYTES", 8 << 20)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def check(ran: Ran, code: int | None = None) -> None:
    """Check what no output may have, whatever happened."""
    assert code is None or ran.code == code, ran.text[:2000]
    for shape in (*encodings(KEY).values(), *encodings(SECRET).values()):
        assert shape not in ran.text
    assert ODD.search(ran.text) is None, ODD.search(ran.text)
    assert len(ran.text) < 5000
    assert "Traceback" not in ran.text
    assert "internal error" not in ran.text
    assert not re.search(r"^Ingestion Summary: Successful", ran.text, re.MULTILINE)


def files_are_clean(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_bytes().decode("latin-1")
            assert not any(shape in text for secret in (KEY, SECRET) for shape in encodings(secret).values()), path
            assert len(text) < 20_000, path
            assert ESCAPED.search(text) is None, path


@pytest.mark.parametrize(("play", "code"), SERVERS.values(), ids=SERVERS)
def test_a_server_cannot_hurt(store, play, code):
    before = time.monotonic()
    with Hostile(play) as server:
        ran = here(*WORDS, "--workers", 1, url=server.url)
    assert time.monotonic() - before < 15

    check(ran, code)
    assert rows(store) == []
    files_are_clean(store)
    # One bad answer disables nothing afterwards.
    for words, codes in ((("status",), {0}), (("verify",), {0, 5}), (("status", "--json"), {0})):
        later = here(*words, "--base-path", store, env={})
        check(later)
        assert later.code in codes or (later.code == 4 and not store.exists()), later.text
