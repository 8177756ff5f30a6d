"""``update --notify``: a webhook is told how a nightly run ended, and the run does not depend on it."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.cli import notify
from data_engine.errors import Failure, StoreBusy, StoreError
from data_engine.ingest.outcome import IngestionReport, Outcome
from data_engine.ingest.recheck import RecheckReport
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.sandbox import Faults, Sandbox, SimulatedMarket
from hostile import Hostile, Play, http
from running import KEY, SECRET, account, here

WORDS = ("ingest", "AAPL", "MSFT", "--timeframe", "1Day", "--start", "2024-06-03", "--end", "2024-06-04", "--no-actions")
TOKEN = "t0kenOfTheWebhook"


class Receiver:
    """A webhook that keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.headers.append({name.lower(): text for name, text in self.headers.items()})
                outer.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/{TOKEN}?key={TOKEN}"
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def webhook() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture
def market() -> Iterator[Sandbox]:
    with Sandbox(SimulatedMarket()) as server:
        yield server


@pytest.fixture
def base(tmp_path: Path, market: Sandbox) -> Path:
    assert here(*WORDS, "--base-path", tmp_path / "store", url=market.url).code == 0
    return tmp_path / "store"


def update(base: Path, *words: object, url: str) -> Any:
    return here("update", "--no-actions", "--base-path", base, *words, url=url)


def test_a_failed_run_is_told_of_and_a_good_one_if_asked_for(base: Path, market: Sandbox, webhook: Receiver) -> None:
    assert update(base, "--notify", webhook.url, url=market.url).code == 0
    assert webhook.messages == []
    good = update(base, "--notify", webhook.url, "--notify-when", "always", "--json", url=market.url)
    market.faults = Faults(fail_symbols=["MSFT"])
    bad = update(base, "--notify", webhook.url, "--quiet", "--json", url=market.url)

    assert (good.code, bad.code) == (0, 1)
    first, second = webhook.messages
    assert (first["exit_code"], first["successful"], first["failed"], first["store"]) == (0, 2, 0, str(base))
    assert first["bars_written"] == good.json["bars_written"]
    assert (second["exit_code"], second["successful"], second["failed"]) == (1, 1, 1)
    assert second["failures"] == bad.json["failed"]
    assert second["requests"] == bad.json["requests"]
    assert second["text"].startswith("data-engine update ended with 1: ")
    assert "MSFT" in second["text"]
    assert webhook.headers[0]["content-type"] == "application/json"
    for shown in (good, bad):
        assert TOKEN not in shown.text


def test_what_ends_a_run_before_it_begins_is_told_of(tmp_path: Path, market: Sandbox, webhook: Receiver) -> None:
    lacking = update(tmp_path / "none", "--notify", webhook.url, url=market.url)
    here(*WORDS, "--base-path", tmp_path / "store", url=market.url)
    words = ("update", "--base-path", tmp_path / "store", "--json")
    variable = {"DATA_ENGINE_NOTIFY": webhook.url}
    keyless = here(*words, env={"APCA_API_DATA_URL": market.url, **variable})
    settings = here(*words, env=account(market.url, DATA_ENGINE_THREADS="many", **variable))
    with Sandbox(SimulatedMarket(), keys={"PKRIGHT": "right"}) as strict:
        refused = here(*words, env=account(strict.url, **variable))

    assert [ran.code for ran in (lacking, keyless, settings, refused)] == [4, 2, 2, 3]
    assert [one["exit_code"] for one in webhook.messages] == [4, 2, 2, 3]
    assert [one["error"]["code"] for one in webhook.messages][:3] == ["store_error", "bad_configuration", "bad_configuration"]
    assert webhook.messages[3]["error"] == refused.json["error"]
    for one in webhook.messages:
        assert KEY not in json.dumps(one)
        assert SECRET not in json.dumps(one)


def test_an_error_of_the_program_is_told_of(base: Path, market: Sandbox, webhook: Receiver, monkeypatch: Any) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"a secret: {SECRET}")

    monkeypatch.setattr("data_engine.ingest.pipeline.IngestionPipeline.update", broken)
    assert update(base, "--notify", webhook.url, url=market.url).code == 1
    (told,) = webhook.messages
    assert (told["exit_code"], told["error"]["code"], SECRET in json.dumps(told)) == (1, "internal", False)


@pytest.mark.parametrize(
    "play",
    [
        http(500, b"no"),
        http(302, headers=[("Location", "http://127.0.0.1:9/")]),
        Play(b"", "close"),
        Play(b"SSH-2.0\r\n", "close"),
    ],
    ids=["500", "redirect", "closed", "no-http"],
)
def test_a_webhook_that_fails_is_a_warning(base: Path, market: Sandbox, play: Any) -> None:
    with Hostile(play) as receiver:
        ran = update(base, "--notify", f"{receiver.url}/{TOKEN}", "--notify-when", "always", "--quiet", url=market.url)
        assert len(receiver.requests) == 1
    assert (ran.code, TOKEN in ran.text, "Traceback" in ran.text) == (0, False, False)
    (warning,) = [line for line in ran.err.splitlines() if line.startswith("Warning: ")]
    assert receiver.url.removeprefix("http://") in warning


@pytest.mark.parametrize("play", [Play(b"", "stall"), Play(b"", drip=b"HTTP/1.1 200 " + b"O" * 60_000)], ids=["silent", "drips"])
def test_a_webhook_that_is_slow_is_not_waited_for(base: Path, market: Sandbox, play: Play, monkeypatch: Any) -> None:
    monkeypatch.setattr(notify, "_SECONDS", 0.3)
    with Hostile(play) as receiver:
        begun = time.monotonic()
        ran = update(base, "--notify", receiver.url, "--notify-when", "always", url=market.url)
        assert time.monotonic() - begun < 60  # the server would drip for ten minutes
    assert (ran.code, "Warning: " in ran.err) == (0, True)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/T0K",
        "ftp://127.0.0.1/T0K",
        "T0K",
        "https://me:T0K@example.com",
        "https://exa mple.com/T0K",
        "https://[/T0K",
    ],
)
def test_an_address_in_the_clear_is_refused_and_not_shown(base: Path, market: Sandbox, url: str) -> None:
    market.forget()
    ran = update(base, "--notify", url, url=market.url)
    assert (ran.code, "--notify" in ran.err, "T0K" in ran.text, market.requests) == (2, True, False, [])


def test_a_long_list_of_failures_is_cut() -> None:
    report = IngestionReport(tuple(Outcome(f"S{number}", Failure("no_data", "x" * 400)) for number in range(20_000)))
    told = notify.message("update", notify.Ending("/store", report.line(), report, whole=True), 1, "2024-06-03T00:00:00Z")

    assert (told["failed"], len(told["failures"])) == (20_000, 100)
    assert len(json.dumps(told)) < 60_000


# -------------------------------------------------------------------------------------------------------- all that can fail


class Full(io.StringIO):
    """A stdout on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def broken(kind: type[BaseException]) -> Callable[..., None]:
    def act(*_: object, **__: object) -> None:
        raise kind("it broke")

    return act


UPDATE, RECHECK = "data_engine.ingest.pipeline.IngestionPipeline.update", "data_engine.ingest.recheck.recheck"
ACCEPTED = "data_engine.ingest.recheck._finish"  # after bars were fetched and compared

WAYS: dict[str, tuple[int, Callable[[Path, Sandbox, pytest.MonkeyPatch], object]]] = {
    "nothing": (0, lambda base, market, patch: None),
    "a symbol": (1, lambda base, market, patch: setattr(market, "faults", Faults(fail_symbols=["MSFT"]))),
    "a file that the recheck reads": (1, lambda base, market, patch: truncate(base, market)),
    "a file and another symbol": (
        1,
        lambda base, market, patch: (truncate(base, market), setattr(market, "faults", Faults(fail_symbols=["MSFT"]))),
    ),
    "no store": (4, lambda base, market, patch: base.rename(base.with_name("moved"))),
    "no keys": (2, lambda base, market, patch: patch.setattr("running.account", lambda url, **more: more)),
    "a locked store": (7, lambda base, market, patch: patch.setattr(UPDATE, broken(StoreBusy))),
    "a mistake of the update": (1, lambda base, market, patch: patch.setattr(UPDATE, broken(RuntimeError))),
    "Ctrl-C in the update": (130, lambda base, market, patch: patch.setattr(UPDATE, broken(KeyboardInterrupt))),
    "a store that another run took before the recheck": (
        7,
        lambda base, market, patch: patch.setattr(RECHECK, broken(StoreBusy)),
    ),
    "a mistake of the recheck": (1, lambda base, market, patch: patch.setattr(RECHECK, broken(RuntimeError))),
    "a full disk in the recheck": (4, lambda base, market, patch: patch.setattr(ACCEPTED, broken(StoreError))),
    "Ctrl-C in the recheck": (130, lambda base, market, patch: patch.setattr(ACCEPTED, broken(KeyboardInterrupt))),
    "the output": (2, lambda base, market, patch: patch.setattr("running.io.StringIO", Full)),
    "the output and a symbol": (
        2,
        lambda base, market, patch: (
            patch.setattr("running.io.StringIO", Full),
            setattr(market, "faults", Faults(fail_symbols=["MSFT"])),
        ),
    ),
}


def truncate(base: Path, market: Sandbox) -> None:
    """Cut a file of AAPL that the next update does not read, and a recheck does."""
    assert update(base, url=market.url).code == 0
    path = next(base.glob("equities_1day/symbol=AAPL/year=2024/*.parquet"))
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("way", WAYS)
def test_the_webhook_is_told_the_exit_code_of_the_process_and_of_a_failure_why(
    base: Path, market: Sandbox, webhook: Receiver, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    code, prepare = WAYS[way]
    prepare(base, market, monkeypatch)
    words = ("--recheck", "5", "--json", "--notify-when", "always", "--notify", webhook.url)
    with monkeypatch.context() as kept:
        kept.setattr("contextlib.redirect_stderr", contextlib.nullcontext)  # whose stream may be the broken one
        ran = update(base, *words, url=market.url)

    (told,) = webhook.messages
    assert (ran.code, told["exit_code"]) == (code, code)
    assert bool(code) == bool("error" in told or told["failures"])
    assert told["text"].startswith(f"data-engine update ended with {code}: ")


def test_a_failure_is_told_of_without_being_asked_whatever_fails_first_or_last(
    base: Path, market: Sandbox, webhook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("running.io.StringIO", Full)
    with monkeypatch.context() as kept:
        kept.setattr("contextlib.redirect_stderr", contextlib.nullcontext)
        ran = update(base, "--json", "--notify", webhook.url, url=market.url)

    (told,) = webhook.messages
    assert (ran.code, told["exit_code"], told["error"]["code"], told["successful"]) == (2, 2, "output_failed", 2)


def test_what_a_recheck_did_and_where_it_failed_is_told(base: Path, market: Sandbox, webhook: Receiver) -> None:
    truncate(base, market)
    ran = update(base, "--recheck", "5", "--json", "--notify", webhook.url, url=market.url)

    (told,) = webhook.messages
    again = ran.json["recheck"]
    assert (ran.code, ran.json["failed"], told["exit_code"]) == (1, [], 1)
    assert (told["successful"], told["failed"], told["failures"]) == (1, 1, again["failed"])
    assert told["failures"][0]["code"] == "damaged_file"
    assert told["requests"] == ran.json["requests"] + again["requests"]
    assert told["bars_written"] == ran.json["bars_written"] + again["bars_written"]
    assert again["failed"][0]["message"] in told["text"]


CODES = st.sampled_from(["no_data", "unavailable", "store_busy", "damaged_file", "interrupted", None])
SERIES = [Series(name, Dataset(Timeframe.parse("1Day"))) for name in ("AAA", "BBB")]


@given(st.lists(CODES, min_size=1, max_size=4), st.none() | st.lists(CODES, max_size=2), st.booleans())
def test_an_exit_code_that_is_made_of_its_parts_is_told_with_their_failures(
    run: list[str | None], again: list[str | None] | None, unreachable: bool
) -> None:
    """What counts as failed, and what the exit code is, comes from the same parts."""
    outcomes = (Outcome(f"S{number}", None if code is None else Failure(code, "why")) for number, code in enumerate(run))
    ending = notify.Ending(report=IngestionReport(tuple(outcomes), unreachable=unreachable and set(run) == {"unavailable"}))
    if again is not None:
        failed = {one: Failure(code, "why") for one, code in zip(SERIES, again, strict=False) if code is not None}
        ending.recheck = RecheckReport(added=3, failed=failed)
    code = ending.finish()
    told = notify.message("update", ending, code, "2024-06-03T00:00:00Z")

    assert (code != 0) == bool(told["failures"]) == bool(told["failed"])
    assert told["bars_written"] == (0 if again is None else 3)
