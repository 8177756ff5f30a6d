"""Keys are in nothing that is printed, written, raised or shown, however a run ends."""

from __future__ import annotations

import base64
import logging
import pickle
import signal
import sys
import time
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest

from data_engine import AlpacaClient, IngestionPipeline
from data_engine.alpaca.credentials import Credentials, find_credentials
from data_engine.errors import DataEngineError
from data_engine.sandbox import Faults, Sandbox, SimulatedMarket
from hostile import Hostile, Play, http
from running import HASTY, KEY, SECRET, account, here, names_of, run, start

JUNE = ("--start", "2024-06-03", "--end", "2024-06-03")
# As they are, and as they could be wrapped. The key counts as a secret, too: it names the account.
SHAPES = [
    shape
    for text in (KEY, SECRET, f"{KEY}:{SECRET}")
    for shape in (text, quote(text), base64.b64encode(text.encode()).decode(), repr(text.encode())[2:-1])
]


def clean(*texts: str) -> bool:
    return not any(shape in text for text in texts for shape in SHAPES)


def files_are_clean(folder: Path) -> bool:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != ".env"]
    return all(clean(path.read_bytes().decode("latin-1"), str(path)) for path in found)


PATHS = {
    "success": ({}, ("AAPL", *JUNE), 0),
    "success-in-json": ({}, ("AAPL", *JUNE, "--json"), 0),
    "a-symbol-without-bars": ({}, ("ZZZQ", *JUNE), 1),
    "a-symbol-refused": ({}, ("BRK-B", *JUNE), 1),
    "keys-refused": ({"keys": {"other": "pair"}}, ("AAPL", *JUNE), 3),
    "keys-refused-in-json": ({"keys": {"other": "pair"}}, ("AAPL", *JUNE, "--json"), 3),
    "bad-input": ({}, ("AAPL", "--start", "soon"), 2),
    "store-that-is-a-file": ({}, ("AAPL", *JUNE, "--base-path", "file"), 4),
}


@pytest.mark.parametrize("debug", ["", "1"], ids=["", "debug"])
@pytest.mark.parametrize(("options", "words", "code"), PATHS.values(), ids=PATHS)
def test_no_command_shows_or_writes_the_keys(
    tmp_path: Path, options: dict[str, dict[str, str]], words: tuple[str, ...], code: int, debug: str
) -> None:
    (tmp_path / "file").write_text("x")
    with Sandbox(SimulatedMarket(), **options) as server:  # type: ignore[arg-type]
        where = () if "--base-path" in words else ("--base-path", "store")
        ran = here("ingest", *words, *where, env=account(server.url, DATA_ENGINE_DEBUG=debug))

    assert ran.code == code, ran.text
    assert clean(ran.out, ran.err)
    assert files_are_clean(tmp_path)


@pytest.mark.parametrize("debug", ["", "1"], ids=["", "debug"])
def test_a_crash_shows_no_keys(tmp_path: Path, debug: str) -> None:
    """The fault is a broken module that Python finds before the real one."""
    (tmp_path / "filelock.py").write_text(
        "class FileLock:\n    def __init__(self, *a, **k): raise ZeroDivisionError('a fault')\n"
    )
    with (tmp_path / "filelock.py").open("a") as file:
        file.write("class Timeout(Exception): pass\n")
    with Sandbox(SimulatedMarket()) as server:
        env = account(server.url, PYTHONPATH=str(tmp_path), DATA_ENGINE_DEBUG=debug)
        ran = run("ingest", "AAPL", *JUNE, "--base-path", "store", env=env)

    assert ran.code == 1
    assert ("Traceback" in ran.err) == bool(debug)
    assert "ZeroDivisionError" in ran.err
    assert clean(ran.out, ran.err)


def test_keys_of_a_dotenv_file_are_shown_no_more_than_others(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"ALPACA_API_KEY={KEY}\nALPACA_SECRET_KEY='{SECRET}'\n")
    with Sandbox(SimulatedMarket(), keys={KEY: SECRET}) as server:
        ran = run("ingest", "AAPL", *JUNE, "--base-path", "store", env={"APCA_API_DATA_URL": server.url})

    assert ran.code == 0
    assert ".env" in ran.err
    assert clean(ran.out, ran.err)
    assert files_are_clean(tmp_path)


@pytest.mark.parametrize(
    "text",
    [f"ALPACA_API_KEY={KEY}\n", f"ALPACA_API_KEY={KEY}\nALPACA_SECRET_KEY={SECRET}\x01\n", f"[linux]\napi_secret = {SECRET}\n"],
    ids=["half", "a-control-character", "not-such-a-file"],
)
@pytest.mark.parametrize("name", [".env", "settings.ini"])
def test_a_file_with_keys_that_cannot_be_used_is_not_quoted(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)

    ran = here("ingest", "AAPL", *JUNE, "--base-path", "store", env={"APCA_API_DATA_URL": "http://127.0.0.1:9"})

    assert ran.code == 2, ran.text
    assert clean(ran.text)


def test_keys_put_into_the_settings_are_refused_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text(
        "".join(f"[{s}]\nalpaca_secret_key = {SECRET}\n" for s in ("linux", "macos", "windows"))
    )

    ran = here("status", env={})

    assert ran.code == 2
    assert "alpaca_secret_key" in ran.err
    assert ".env" in ran.err
    assert clean(ran.text)


@pytest.mark.parametrize("place", ["http://{}:{}@127.0.0.1:9", "https://{}:{}@data.alpaca.markets"], ids=["local", "far"])
def test_keys_put_into_the_address_are_refused_and_not_shown(place: str) -> None:
    ran = here("ingest", "AAPL", *JUNE, "--base-path", "store", env=account(place.format(KEY, SECRET)))

    assert ran.code == 2, ran.text
    assert clean(ran.text)


def test_reprs_and_reports_hold_no_keys(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket()) as server:
        client = AlpacaClient(KEY, SECRET, base_url=server.url, policy=HASTY)
        pipeline = IngestionPipeline(2, tmp_path, client=client)
        report = pipeline.ingest_symbols(["AAPL", "BRK-B"], "2024-06-03", "2024-06-03")
        found = find_credentials({"ALPACA_API_KEY": KEY, "ALPACA_SECRET_KEY": SECRET})

        session = client._session
        for thing in (client, pipeline, pipeline.settings, pipeline.storage, report, found, session.rate_limiter, session.policy):
            assert clean(repr(thing), str(thing)), type(thing)
        assert clean(repr(vars(pipeline)), repr(session._transport))
        assert clean(str(report.to_json()), report.summary(), report.line(), pickle.dumps(dict(report)).decode("latin-1"))
        assert files_are_clean(tmp_path)


FAULTS = [401, 403, 500, 502, "reset", "cut_gzip"]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_errors_and_their_tracebacks_hold_no_keys(fault: int | str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Sandbox(SimulatedMarket(), faults=Faults(always=fault)) as server:
        client = AlpacaClient(KEY, SECRET, base_url=server.url, policy=HASTY)
        with pytest.raises(DataEngineError) as caught:
            client.fetch_bars("AAPL", "2024-06-03", "2024-06-03")

    whole = "".join(traceback.format_exception(caught.value))
    chain: BaseException | None = caught.value
    while chain is not None:
        assert clean(str(chain), repr(chain), repr(chain.args))
        chain = chain.__cause__ or chain.__context__
    assert clean(whole)
    # urllib3 logs every request at DEBUG: the address, and no header.
    assert clean(*(record.getMessage() for record in caplog.records))


def test_a_server_that_echoes_the_keys_is_not_quoted() -> None:
    body = f'{{"message": "bad request from {KEY} with {SECRET}"}}'.encode()
    with Hostile(Play(http(status=400, body=body))) as server:
        ran = here("ingest", "AAPL", *JUNE, "--base-path", "store", url=server.url)

    assert ran.code == 1, ran.text
    assert clean(ran.text), ran.text


@pytest.mark.parametrize(
    "shape",
    [
        "".join(f"%25{ord(char):02x}" for char in SECRET),
        "".join(f"%2525{ord(char):02X}" for char in SECRET),
        "".join(f"\\{ord(char):03o}" for char in SECRET),
        "".join(f"\\u{{{ord(char):x}}}" for char in SECRET),
        f"{SECRET[:20]}\r\n  {SECRET[20:]}",
        f"{SECRET[:20]}\\n{SECRET[20:]}",
        f"{SECRET[:20]}%0D%0A{SECRET[20:]}",
        "\u200b".join(SECRET),
        "\\u200b".join(SECRET),
        "\u00ad".join(SECRET),
    ],
    ids=[
        "url-twice",
        "url-thrice",
        "octal",
        "braces",
        "wrapped",
        "wrapped-json",
        "wrapped-url",
        "unseen",
        "unseen-json",
        "hyphens",
    ],
)
def test_a_key_is_recognized_in_what_programs_make_of_it(shape: str) -> None:
    pair = Credentials(KEY, SECRET, "a test")

    assert pair.redact(f"no {shape} here") == "no *** here"
    assert pair.occur_in(f"no {shape} here")
    assert pair.redact("no " + shape[:-1].replace("E", "F")) == "no " + shape[:-1].replace("E", "F")


def test_keys_do_not_follow_a_redirect(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket()) as elsewhere:
        away = http(status=302, headers=[("Location", f"{elsewhere.url}/v2/stocks/bars?symbols=AAPL")])
        with Hostile(Play(away)) as server:
            ran = here("ingest", "AAPL", *JUNE, "--base-path", "store", url=server.url)

        assert elsewhere.requests == []
    assert ran.code == 1, ran.text
    assert "redirects" in ran.out
    assert clean(ran.text)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent differently there")
def test_an_interrupted_run_shows_no_keys(tmp_path: Path) -> None:
    words = ("ingest", *names_of(12), "--start", "2024-05-01", "--end", "2024-06-28", "--workers", 2, "--base-path", "cut")
    with (
        Sandbox(SimulatedMarket(), latency=0.05) as server,
        start(*words, env=account(server.url, DATA_ENGINE_DEBUG="1")) as process,
    ):
        while len(server.requests) < 3:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert clean(out, err)
    assert files_are_clean(tmp_path)


def test_an_address_in_a_dotenv_file_is_ignored_and_named(tmp_path: Path) -> None:
    """It would let whoever owns the working directory choose where keys go."""
    (tmp_path / ".env").write_text(
        f"ALPACA_API_KEY={KEY}\nALPACA_SECRET_KEY={SECRET}\nAPCA_API_DATA_URL=https://127.0.0.1:9\n"
        "DATA_ENGINE_BASE_PATH=elsewhere\n"
    )
    with Sandbox(SimulatedMarket(), keys={KEY: SECRET}) as server:
        ran = here("ingest", "AAPL", *JUNE, "--base-path", "store", env={"APCA_API_DATA_URL": server.url})

    assert (ran.code, "APCA_API_DATA_URL" in ran.err, "DATA_ENGINE_BASE_PATH" in ran.err) == (0, True, True), ran.text
    assert clean(ran.text)


@pytest.mark.parametrize("name", ["DATA_ENGINE_FEED", "DATA_ENGINE_THREADS", "DATA_ENGINE_SETTINGS", "DATA_ENGINE_HISTORY_BASES"])
@pytest.mark.parametrize("words", [("status",), ("update", "--json"), ("doctor",), ("doctor", "--json")], ids=" ".join)
def test_a_secret_in_the_place_of_a_setting_is_not_quoted(tmp_path: Path, name: str, words: tuple[str, ...]) -> None:
    ran = here(*words, "--base-path", tmp_path / "store", env=account("http://127.0.0.1:1", **{name: SECRET}))

    assert ran.code != 0
    assert SECRET not in ran.text


@pytest.mark.parametrize("words", [(SECRET,), ("status", "--timeframe", SECRET), ("update", "--wait", SECRET), (f"--{SECRET}",)])
def test_a_secret_in_the_place_of_an_argument_is_not_quoted(words: tuple[str, ...]) -> None:
    ran = here(*words, env=account(None))

    assert ran.code == 2
    assert SECRET not in ran.text
