"""Environments that are odd or hostile, as processes of their own: closed streams, odd variables, foreign working directories."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_engine.sandbox import Sandbox, SimulatedMarket
from running import KEY, SECRET, account, here, rows
from test_hostile_stores import bounded, sparse

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shells and devices of POSIX")

JUNE = ("AAPL", "--start", "2024-06-03", "--end", "2024-06-03")


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    with Sandbox(SimulatedMarket()) as running:
        yield running


@pytest.fixture(scope="module")
def filled(server: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("filled") / "store"
    assert here("ingest", *JUNE, "--base-path", base, url=server.url).code == 0
    return base


def shell(line: str, *words: object, url: str | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which ``RUN`` stands for the command."""
    command = " ".join(f"'{word}'" for word in (sys.executable, "-m", "data_engine", *words))
    env = {**os.environ, **account(url), **more}
    return subprocess.run(
        ["bash", "-c", line.replace("RUN", command)], env=env, capture_output=True, text=True, timeout=60, check=False
    )


# The line of shell, the words, and the exit code.
QUERY = ("query", "SELECT range FROM range(200000)", "--format", "csv")
STREAMS = {
    "ingest-stdout-closed": ("RUN >&-", ("ingest", *JUNE), 0),
    "ingest-stderr-closed": ("RUN 2>&-", ("ingest", *JUNE), 0),
    "ingest-all-closed": ("RUN <&- >&- 2>&-", ("ingest", *JUNE), 0),
    "ingest-stdout-full": ("RUN >/dev/full", ("ingest", *JUNE), 0),
    "ingest-stderr-full": ("RUN 2>/dev/full", ("ingest", *JUNE), 0),
    "ingest-json-full": ("RUN >/dev/full", ("ingest", *JUNE, "--json"), 2),
    "ingest-reader-gone": ("RUN | true; exit ${PIPESTATUS[0]}", ("ingest", *JUNE), 0),
    "query-stdout-closed": ("RUN >&-", QUERY, 2),
    "query-stdout-full": ("RUN >/dev/full", QUERY, 2),
    "query-stderr-closed": ("RUN 2>&- >/dev/null", QUERY, 0),
    "query-reader-gone": ("RUN | head -1 >/dev/null; exit ${PIPESTATUS[0]}", QUERY, 0),
    "status-full": ("RUN >/dev/full", ("status",), 2),
    "status-json-full": ("RUN >/dev/full", ("status", "--json"), 2),
    "status-reader-gone": ("RUN | true; exit ${PIPESTATUS[0]}", ("status",), 0),
    "verify-stderr-full": ("RUN 2>/dev/full", ("verify",), 0),
}  # fmt: skip


@pytest.mark.parametrize(("line", "words", "code"), STREAMS.values(), ids=STREAMS)
def test_streams_that_cannot_be_written(server, filled, tmp_path, line, words, code):
    if "/dev/full" in line and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    base = tmp_path / "store" if words[0] == "ingest" else filled
    ran = shell(line, *words, "--base-path", base, url=server.url)

    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "Exception ignored" not in ran.stderr
    assert "internal error" not in ran.stderr
    if code and "2>" not in line:
        assert "Error: cannot write to stdout" in ran.stderr
    if words[0] == "ingest":
        assert rows(base) != []


# Variables of the environment, the words, and the exit code.
VARIABLES: dict[str, tuple[dict[str, str], int]] = {
    "ascii": ({"PYTHONIOENCODING": "ascii"}, 0),
    "latin-1": ({"PYTHONIOENCODING": "latin-1"}, 0),
    "no-locale": ({"LC_ALL": "C", "LANG": "C"}, 0),
    "odd-time-zone": ({"TZ": "Mars/Olympus"}, 0),
    "far-time-zone": ({"TZ": "Pacific/Kiritimati"}, 0),
    "dumb-terminal": ({"TERM": "dumb", "COLUMNS": "0", "LINES": "-1"}, 0),
    "wide-terminal": ({"COLUMNS": "99999999"}, 0),
    "proxies-of-nowhere": ({"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "x://x"}, 0),
    "threads-of-words": ({"DATA_ENGINE_THREADS": "many"}, 2),
    "threads-with-escapes": ({"DATA_ENGINE_THREADS": "\x1b[31m4"}, 2),
    "rate-of-nothing": ({"DATA_ENGINE_REQUESTS_PER_MINUTE": "0"}, 2),
    "feed-unknown": ({"DATA_ENGINE_FEED": "nyse"}, 2),
    "settings-missing": ({"DATA_ENGINE_SETTINGS": "/nowhere/settings.ini"}, 2),
    "settings-a-device": ({"DATA_ENGINE_SETTINGS": "/dev/null"}, 2),
    "address-plain": ({"APCA_API_DATA_URL": "http://example.com"}, 2),
    "address-with-keys": ({"APCA_API_DATA_URL": f"https://{KEY}:{SECRET}@example.com"}, 2),
    "address-with-escapes": ({"APCA_API_DATA_URL": "http://127.0.0.1:1/\x1b[31m"}, 2),
    "key-with-a-line-break": ({"ALPACA_SECRET_KEY": f"{SECRET}\r\nX-Evil: 1"}, 2),
    "key-with-escapes": ({"ALPACA_SECRET_KEY": f"{SECRET}\x1b[31m"}, 2),
    "half-a-pair": ({"ALPACA_SECRET_KEY": ""}, 2),
    "debug": ({"DATA_ENGINE_DEBUG": "1"}, 0),
}  # fmt: skip


@pytest.mark.parametrize(("more", "code"), VARIABLES.values(), ids=VARIABLES)
def test_variables_that_are_odd(server, tmp_path, more, code):
    ran = here("ingest", *JUNE, "--base-path", tmp_path / "store", env={**account(server.url), **more})

    assert ran.code == code, ran.text
    assert SECRET not in ran.text
    assert "\x1b" not in ran.text
    assert "Traceback" not in ran.text
    assert (tmp_path / "store").exists() == (code == 0)


# Files of a working directory that somebody else prepared, and the exit code.
FILES: dict[str, tuple[str, Callable[[Path], object], int]] = {
    f"{name}-{kind}": (name, make, code)
    for name in (".env", "settings.ini")
    for kind, make, code in (
        ("pipe", os.mkfifo, 0),
        ("device", lambda path: path.symlink_to("/dev/zero"), 0),
        ("folder", Path.mkdir, 0),
        # A settings file that is gone would choose another store in silence; keys that are gone are missed by every run.
        ("dangling", lambda path: path.symlink_to("nowhere"), 2 if name == "settings.ini" else 0),
        ("sparse", sparse, 2),
        ("binary", lambda path: path.write_bytes(bytes(range(256))), 2),
    )
}


@pytest.mark.parametrize(("name", "make", "code"), FILES.values(), ids=FILES)
def test_files_of_a_foreign_working_directory(server, tmp_path, monkeypatch, name, make, code):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    with bounded(20):
        ran = here("ingest", *JUNE, "--base-path", "store", url=server.url)

    assert ran.code == code, ran.text
    assert code == 0 or name in ran.err
    assert "internal error" not in ran.text
    assert not any(ord(char) < 32 and char != "\n" for char in ran.text)
    assert (tmp_path / "store").exists() == (code == 0)


def test_the_tables_together_are_long():
    assert len(STREAMS) + len(VARIABLES) + len(FILES) >= 25


def test_a_closed_stderr_gives_its_number_to_no_file(server, tmp_path):
    """With descriptor 2 free, the next file that is opened gets it, and with it every line for stderr."""
    ran = shell("RUN 2>&- >&-", "ingest", *JUNE, "--base-path", tmp_path / "store", url=server.url)

    assert ran.returncode == 0
    text = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert b"Store: " not in text
    assert here("verify", "--base-path", tmp_path / "store").code == 0
