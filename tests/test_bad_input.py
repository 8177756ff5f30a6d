"""Words that cannot be used: each is refused with a message and an exit code, before anything is written or sent."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from data_engine import AlpacaClient, IngestionPipeline, MetadataStore, ParquetStorage, SymbolLoader
from data_engine.errors import DataEngineError, InputError
from data_engine.sandbox import Sandbox, SimulatedMarket
from running import SECRET, Clock, client_of, count, here, pipeline_of, run

JUNE = ("--start", "2024-06-03", "--end", "2024-06-03")
AAPL = ("AAPL", *JUNE)


@pytest.fixture(scope="module")
def market() -> Iterator[Sandbox]:
    with Sandbox(SimulatedMarket()) as server:
        yield server


@pytest.fixture
def server(market: Sandbox) -> Sandbox:
    """A server that nobody has asked anything yet."""
    market.forget()
    return market


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    """The files that the table names."""
    texts = {
        "good.csv": "Symbol,Name\nAAPL,Apple\n",
        "empty.csv": "",
        "header.csv": "Symbol,Name\n",
        "no_column.csv": "Name,Weight\nApple,1.0\n",
        "broken.csv": "Symbol\nAAPL\nA B\n../x\n",
        "blank.txt": "\n# nothing\n\n",
        "broken.txt": "AAPL;MSFT\n",
        "no_section.ini": "local_storage_dir = /x\n",
        "other_system.ini": "[plan9]\napi_threads = 3\n",
        "words.ini": "[linux]\napi_threads = many\n[macos]\napi_threads = many\n[windows]\napi_threads = many\n",
        "zero.ini": "[linux]\napi_threads = 0\n[macos]\napi_threads = 0\n[windows]\napi_threads = 0\n",
        "feed.ini": "[linux]\nfeed = nyse\n[macos]\nfeed = nyse\n[windows]\nfeed = nyse\n",
        "typo.ini": "[linux]\napi_thread = 3\n[macos]\napi_thread = 3\n[windows]\napi_thread = 3\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")


def ingest(*words: object) -> tuple[object, ...]:
    return ("ingest", *words)


# Words after ``data-engine``, the exit code, and the value or the option that the message names.
USAGE: dict[str, tuple[tuple[object, ...], int, str]] = {
    # Dates
    "date-of-words": (ingest("AAPL", "--start", "yesterday"), 2, "'yesterday'"),
    "date-with-slashes": (ingest("AAPL", "--start", "2024/01/02"), 2, "2024/01/02"),
    "date-of-an-american": (ingest("AAPL", "--start", "01/02/2024"), 2, "01/02/2024"),
    "date-without-a-day": (ingest("AAPL", "--start", "2024-01"), 2, "2024-01"),
    "date-of-a-13th-month": (ingest("AAPL", "--start", "2024-13-01"), 2, "2024-13-01"),
    "date-of-a-30th-of-february": (ingest("AAPL", "--start", "2024-02-30"), 2, "2024-02-30"),
    "date-that-is-empty": (ingest("AAPL", "--start", ""), 2, "start ''"),
    "date-that-is-a-number": (ingest("AAPL", "--start", "20240102"), 2, "20240102"),
    "date-of-a-unix-time": (ingest("AAPL", "--start", "1717372800"), 2, "1717372800"),
    "date-with-emoji": (ingest("AAPL", "--start", "2024-01-0\U0001f600"), 2, "2024-01-0"),
    "date-with-full-width-digits": (ingest("AAPL", "--start", "２０２４-01-02"), 2, "-01-02"),
    "date-before-there-were-bars": (ingest("AAPL", "--start", "0001-01-01", "--end", "2024-01-01"), 2, "0001-01-01"),
    "date-after-everything": (ingest("AAPL", "--start", "9999-12-31"), 2, "9999-12-31"),
    "end-after-everything": (ingest("AAPL", "--start", "2024-01-02", "--end", "9999-12-31"), 2, "9999-12-31"),
    "end-of-words": (ingest("AAPL", "--start", "2024-01-02", "--end", "soon"), 2, "'soon'"),
    "time-without-a-zone": (ingest("AAPL", "--start", "2024-01-02T09:30:00"), 2, "2024-01-02T09:30:00"),
    "time-without-a-zone-at-the-end": (ingest("AAPL", "--start", "2024-01-02", "--end", "2024-01-02 16:00"), 2, "16:00"),
    "time-of-a-25th-hour": (ingest("AAPL", "--start", "2024-01-02T25:00:00Z"), 2, "2024-01-02T25:00:00Z"),
    "range-reversed": (ingest("AAPL", "--start", "2024-06-10", "--end", "2024-06-03"), 2, "2024-06-03"),
    "range-reversed-by-a-second": (
        ingest("AAPL", "--start", "2024-06-03T14:00:01Z", "--end", "2024-06-03T14:00:00Z"), 2, "14:00:01"),
    "range-of-nothing": (ingest("AAPL", "--start", "2024-06-03T14:00:00Z", "--end", "2024-06-03T14:00:00Z"), 2, "14:00:00"),
    "range-in-the-future": (ingest("AAPL", "--start", "2150-01-01", "--end", "2150-01-31"), 2, "2150-01-01"),
    "start-in-the-future": (ingest("AAPL", "--start", "2150-01-01"), 2, "2150-01-01"),
    "start-missing": (ingest("AAPL"), 2, "--start"),
    "start-missing-with-an-end": (ingest("AAPL", "--end", "2024-06-03"), 2, "--start"),
    # Timeframes
    "timeframe-of-seconds": (ingest(*AAPL, "--timeframe", "30Sec"), 2, "'30Sec'"),
    "timeframe-of-five-months": (ingest(*AAPL, "--timeframe", "5Month"), 2, "5Month"),
    "timeframe-of-61-minutes": (ingest(*AAPL, "--timeframe", "61Min"), 2, "61Min"),
    "timeframe-of-60-minutes": (ingest(*AAPL, "--timeframe", "60Min"), 2, "60Min"),
    "timeframe-of-24-hours": (ingest(*AAPL, "--timeframe", "24Hour"), 2, "24Hour"),
    "timeframe-of-two-days": (ingest(*AAPL, "--timeframe", "2Day"), 2, "2Day"),
    "timeframe-of-none": (ingest(*AAPL, "--timeframe", "0Min"), 2, "0Min"),
    "timeframe-below-none": (ingest(*AAPL, "--timeframe", "-1Min"), 2, "-1Min"),
    "timeframe-of-a-part": (ingest(*AAPL, "--timeframe", "1.5Min"), 2, "1.5Min"),
    "timeframe-with-an-ambiguous-letter": (ingest(*AAPL, "--timeframe", "1M"), 2, "1M"),
    "timeframe-that-is-empty": (ingest(*AAPL, "--timeframe", ""), 2, "timeframe ''"),
    "timeframe-that-is-a-path": (ingest(*AAPL, "--timeframe", "../../1Min"), 2, "../../1Min"),
    # Feeds and adjustments
    "feed-unknown": (ingest(*AAPL, "--feed", "nyse"), 2, "'nyse'"),
    "feed-that-is-empty": (ingest(*AAPL, "--feed", ""), 2, "feed"),
    "feed-of-overnight": (ingest(*AAPL, "--feed", "overnight"), 2, "overnight"),
    "adjustment-unknown": (ingest(*AAPL, "--adjustment", "inflation"), 2, "'inflation'"),
    "adjustment-both-raw-and-split": (ingest(*AAPL, "--adjustment", "raw,split"), 2, "raw,split"),
    "adjustment-that-is-empty": (ingest(*AAPL, "--adjustment", ""), 2, "adjustment ''"),
    # Symbols
    "symbol-that-leaves-the-store": (ingest("../../x", *JUNE), 2, "'../../x'"),
    "symbol-that-is-absolute": (ingest("/etc/passwd", *JUNE), 2, "/etc/passwd"),
    "symbol-with-a-backslash": (ingest("..\\x", *JUNE), 2, "..\\"),
    "symbol-of-two-words": (ingest("A B", *JUNE), 2, "A.B"),
    "symbol-that-is-empty": (ingest("", *JUNE), 2, "''"),
    "symbol-of-spaces": (ingest("   ", *JUNE), 2, "'   '"),
    "symbol-of-300-characters": (ingest("A" * 300, *JUNE), 2, "32"),
    "symbol-with-a-nul": (ingest("AA\0PL", *JUNE), 2, "\\x00"),
    "symbol-with-a-line-break": (ingest("AA\nPL", *JUNE), 2, "AA"),
    "symbol-with-an-emoji": (ingest("\U0001f600", *JUNE), 2, "symbol"),
    "symbol-in-cyrillic": (ingest("ААРЬ", *JUNE), 2, "symbol"),
    "symbol-with-a-comma": (ingest("AAPL,MSFT", *JUNE), 2, "','"),
    "symbol-with-a-semicolon": (ingest("AAPL;MSFT", *JUNE), 2, "';'"),
    "symbol-of-dots": (ingest("..", *JUNE), 2, "'..'"),
    "symbol-with-a-wildcard": (ingest("%2e%2e", *JUNE), 2, "%2e%2e"),
    "symbols-two-of-which-are-bad": (ingest("AAPL", "A B", "C?D", *JUNE), 2, "C?D"),
    "symbols-none": (ingest(*JUNE), 2, "--csv"),
    # Lists
    "list-in-two-ways": (ingest(*AAPL, "--csv", "good.csv"), 2, "--csv"),
    "list-of-two-files": (ingest("--csv", "good.csv", "--file", "blank.txt", *JUNE), 2, "--file"),
    "csv-missing": (ingest("--csv", "nowhere.csv", *JUNE), 2, "nowhere.csv"),
    "csv-that-is-a-folder": (ingest("--csv", "folder", *JUNE), 2, "folder"),
    "csv-that-is-empty": (ingest("--csv", "empty.csv", *JUNE), 2, "empty.csv"),
    "csv-of-a-header-alone": (ingest("--csv", "header.csv", *JUNE), 2, "header.csv"),
    "csv-that-is-binary": (ingest("--csv", "binary.csv", *JUNE), 2, "binary.csv"),
    "csv-without-the-column": (ingest("--csv", "no_column.csv", *JUNE), 2, "'Name', 'Weight'"),
    "csv-without-that-column": (ingest("--csv", "good.csv", "--column", "Ticket", *JUNE), 2, "'Ticket'"),
    "csv-with-broken-lines": (ingest("--csv", "broken.csv", *JUNE), 2, "../x"),
    "csv-with-a-nul-in-its-name": (ingest("--csv", "nul\0.csv", *JUNE), 2, "nul"),
    "column-without-a-csv": (ingest(*AAPL, "--column", "Symbol"), 2, "--csv"),
    "file-missing": (ingest("--file", "nowhere.txt", *JUNE), 2, "nowhere.txt"),
    "file-that-is-a-folder": (ingest("--file", "folder", *JUNE), 2, "folder"),
    "file-of-comments": (ingest("--file", "blank.txt", *JUNE), 2, "blank.txt"),
    "file-with-broken-lines": (ingest("--file", "broken.txt", *JUNE), 2, "AAPL;MSFT"),
    "file-that-is-binary": (ingest("--file", "binary.csv", *JUNE), 2, "binary.csv"),
    "index-unknown": (ingest("--index", "nobody", *JUNE), 2, "nobody"),
    "index-that-leaves-the-store": (ingest("--index", "../x", *JUNE), 2, "../x"),
    # Numbers
    "workers-none": (ingest(*AAPL, "--workers", "0"), 2, "--workers"),
    "workers-below-none": (ingest(*AAPL, "--workers", "-1"), 2, "--workers"),
    "workers-a-million": (ingest(*AAPL, "--workers", "1000000"), 2, "256"),
    "workers-many": (ingest(*AAPL, "--workers", "many"), 2, "--workers must be a whole number from 1 to 256, not 'many'"),
    "workers-and-a-half": (ingest(*AAPL, "--workers", "1.5"), 2, "--workers must be a whole number from 1 to 256, not '1.5'"),
    "workers-missing": (ingest(*AAPL, "--base-path", "store", "--workers"), 2, "requires an argument"),
    "pace-of-none": (ingest(*AAPL, "--requests-per-minute", "0"), 2, "--requests-per-minute"),
    "pace-of-words": (ingest(*AAPL, "--requests-per-minute", "fast"), 2, "not 'fast'"),
    "wait-below-none": (ingest(*AAPL, "--wait", "-1"), 2, "--wait"),
    "wait-of-words": (ingest(*AAPL, "--wait", "long"), 2, "--wait"),
    # Options and places
    "option-unknown": (ingest(*AAPL, "--speed", "11"), 2, "No such option"),
    "command-unknown": (("injest", "AAPL"), 2, "No such command"),
    "removals-without-a-refetch": (ingest(*AAPL, "--accept-removals"), 2, "--refetch"),
    "base-path-that-is-empty": (ingest(*AAPL, "--base-path", ""), 2, "--base-path"),
    "base-path-with-a-nul": (ingest(*AAPL, "--base-path", "a\0b"), 2, "'a\\x00b'"),
    "base-path-of-a-cloud-we-do-not-know": (ingest(*AAPL, "--base-path", "gs://bucket/x"), 2, "gs://bucket/x"),
    "base-path-that-is-a-file": (ingest(*AAPL, "--base-path", "file"), 4, "file"),
    "base-path-below-a-file": (ingest(*AAPL, "--base-path", "file/store"), 4, "file"),
    "settings-missing": (ingest(*AAPL, "--settings", "nowhere.ini"), 2, "nowhere.ini"),
    "settings-that-are-a-folder": (ingest(*AAPL, "--settings", "folder"), 2, "folder"),
    "settings-without-a-section": (ingest(*AAPL, "--settings", "no_section.ini"), 2, "line 1"),
    "settings-of-another-system": (ingest(*AAPL, "--settings", "other_system.ini"), 2, "[plan9]"),
    "settings-with-many-threads": (ingest(*AAPL, "--settings", "words.ini"), 2, "1 to 256, not 'many'"),
    "settings-with-no-threads": (ingest(*AAPL, "--settings", "zero.ini"), 2, "api_threads must be a whole number"),
    "settings-with-a-strange-feed": (ingest(*AAPL, "--settings", "feed.ini"), 2, "feed = nyse"),
    "settings-with-a-typing-error": (ingest(*AAPL, "--settings", "typo.ini"), 2, "api_threads"),
    "settings-that-are-binary": (ingest(*AAPL, "--settings", "binary.csv"), 2, "binary.csv"),
    # The other commands
    "update-without-a-store": (("update",), 4, "no store at"),
    "update-of-symbols-and-index": (("update", "AAPL", "--index", "x"), 2, "--index"),
    "status-without-a-store": (("status",), 4, "no store at"),
    "query-without-a-store": (("query", "SELECT 1"), 4, "no store at"),
    "query-of-nothing": (("query",), 2, "Missing argument"),
    "remove-without-a-store": (("remove", "AAPL"), 4, "no store at"),
    "remove-of-nothing": (("remove",), 2, "Missing argument"),
    "sandbox-with-a-missing-file": (("sandbox", "--bars", "nowhere.parquet"), 2, "nowhere.parquet"),
    "sandbox-with-a-file-of-something-else": (("sandbox", "--bars", "binary.csv"), 2, "binary.csv"),
    "sandbox-with-a-strange-fault": (("sandbox", "--faults", "flood=0.1"), 2, "flood"),
    "sandbox-with-too-much-fault": (("sandbox", "--faults", "429=1.5"), 2, "429"),
    "sandbox-at-no-port": (("sandbox", "--port", "70000"), 2, "--port"),
    "sandbox-with-half-a-key": (("sandbox", "--key", "abc"), 2, "KEY:SECRET"),
}  # fmt: skip


def with_store(words: tuple[object, ...]) -> tuple[object, ...]:
    return words if {"--base-path", "sandbox", "injest"} & set(words) else (*words, "--base-path", "store")


def nothing_was_written(folder: Path) -> bool:
    """Tell whether only the fixture's files are there, and ``file`` is still one."""
    made = {"store", "a", "stock_data", "gs:"} & {path.name for path in folder.iterdir()}
    return not made and (folder / "file").read_text() == "x"


def test_the_table_is_long_enough() -> None:
    assert len(USAGE) >= 80


@pytest.mark.parametrize(("words", "code", "said"), USAGE.values(), ids=USAGE)
def test_words_that_cannot_be_used(server: Sandbox, tmp_path: Path, words: tuple[object, ...], code: int, said: str) -> None:
    ran = here(*with_store(words), url=server.url)

    assert (ran.code, said in ran.err) == (code, True), ran.text
    assert ran.out == ""
    assert "Traceback" not in ran.text
    assert "internal error" not in ran.text
    assert server.requests == []
    assert nothing_was_written(tmp_path)


def test_a_bad_symbol_does_not_hide_an_impossible_date(server: Sandbox) -> None:
    ran = here("ingest", "br?k", "--start", "2024-02-30", "--base-path", "store", "--json", url=server.url)

    assert (ran.code, ran.json["error"]["code"], server.requests) == (2, "bad_input", [])
    assert {word for word in ("br?k", "2024-02-30") if word in ran.json["error"]["message"]} == {"br?k", "2024-02-30"}


AS_PROCESSES = [
    "date-of-words", "range-reversed", "timeframe-of-seconds", "symbol-that-leaves-the-store", "symbol-with-an-emoji",
    "csv-that-is-binary", "workers-many", "option-unknown", "settings-with-many-threads", "status-without-a-store",
    "base-path-that-is-a-file", "feed-unknown", "symbols-none",
]  # fmt: skip


@pytest.mark.parametrize("name", AS_PROCESSES)
def test_a_process_says_the_same_without_a_traceback(server: Sandbox, tmp_path: Path, name: str) -> None:
    words, code, said = USAGE[name]

    ran = run(*with_store(words), url=server.url)

    assert (ran.code, said in ran.err, ran.out) == (code, True, ""), ran.text
    assert "Traceback" not in ran.text
    assert server.requests == []
    assert nothing_was_written(tmp_path)


@pytest.mark.parametrize("name", ["date-of-words", "csv-missing", "workers-many", "index-unknown", "timeframe-of-seconds"])
def test_with_json_a_refusal_is_an_object_too(server: Sandbox, name: str) -> None:
    words, code, said = USAGE[name]

    ran = here(*with_store(words), "--json", url=server.url)

    assert ran.code == code
    assert said in ran.json["error"]["message"]


@pytest.mark.parametrize("name", ["../x", "a/b", "", "CON", "x" * 65, "a\0b"])
def test_a_bad_index_name_makes_no_store(server: Sandbox, tmp_path: Path, name: str) -> None:
    ran = here("ingest", *AAPL, "--index", name, "--base-path", "store", url=server.url)

    assert ran.code == 2
    assert server.requests == []
    assert not (tmp_path / "store").exists()


# ------------------------------------------------------------------------------------------------------------ the environment

VARIABLES: dict[str, tuple[dict[str, str], str]] = {
    "url-in-the-clear": ({"APCA_API_DATA_URL": "http://data.alpaca.markets"}, "APCA_API_DATA_URL"),
    "url-of-another-kind": ({"APCA_API_DATA_URL": "ftp://localhost"}, "APCA_API_DATA_URL"),
    "url-of-words": ({"APCA_API_DATA_URL": "localhost"}, "APCA_API_DATA_URL"),
    "url-that-looks-local": ({"APCA_API_DATA_URL": "http://127.0.0.1.evil.example"}, "APCA_API_DATA_URL"),
    "url-with-credentials": ({"APCA_API_DATA_URL": "http://me:pw@127.0.0.1"}, "APCA_API_DATA_URL"),
    "threads-of-words": ({"DATA_ENGINE_THREADS": "many"}, "DATA_ENGINE_THREADS"),
    "threads-none": ({"DATA_ENGINE_THREADS": "0"}, "DATA_ENGINE_THREADS"),
    "pace-of-words": ({"DATA_ENGINE_REQUESTS_PER_MINUTE": "fast"}, "DATA_ENGINE_REQUESTS_PER_MINUTE"),
    "feed-unknown": ({"DATA_ENGINE_FEED": "nyse"}, "DATA_ENGINE_FEED"),
    "settings-missing": ({"DATA_ENGINE_SETTINGS": "nowhere.ini"}, "DATA_ENGINE_SETTINGS"),
    "half-a-pair": ({"ALPACA_SECRET_KEY": ""}, "ALPACA_SECRET_KEY"),
    "key-of-two-lines": ({"ALPACA_API_KEY": "PK1\nX-Evil: 1"}, "ALPACA_API_KEY"),
}


@pytest.mark.parametrize(("variables", "said"), VARIABLES.values(), ids=VARIABLES)
def test_an_environment_that_cannot_be_used(server: Sandbox, tmp_path: Path, variables: dict[str, str], said: str) -> None:
    env = {"APCA_API_DATA_URL": server.url, "ALPACA_API_KEY": "PKX", "ALPACA_SECRET_KEY": SECRET, **variables}

    ran = here("ingest", *AAPL, "--base-path", "store", env=env)

    assert (ran.code, said in ran.err) == (2, True), ran.text
    assert SECRET not in ran.text
    assert server.requests == []
    assert not (tmp_path / "store").exists()


# ---------------------------------------------------------------------------------------------------------------- the library

API: dict[str, tuple[dict[str, Any], str]] = {
    "no-symbols": ({"symbols": []}, "symbol"),
    "bytes-for-a-symbol": ({"symbols": [b"AAPL"]}, "AAPL"),
    "none-for-a-symbol": ({"symbols": [None]}, "None"),
    "nan-for-a-symbol": ({"symbols": [float("nan")]}, "nan"),
    "a-number-for-a-date": ({"start_date": 20240603}, "20240603"),
    "nan-for-a-date": ({"start_date": float("nan")}, "nan"),
    "a-naive-time": ({"start_date": datetime(2024, 6, 3, 9, 30)}, "2024-06-03.09:30"),
    "a-naive-end": ({"end_date": datetime(2024, 6, 3, 16)}, "2024-06-03.16:00"),
    "a-reversed-range": ({"start_date": date(2024, 6, 4), "end_date": date(2024, 6, 3)}, "2024-06-03"),
    "a-start-to-come": ({"start_date": datetime(2100, 1, 1, tzinfo=UTC), "end_date": None}, "2100-01-01"),
    "no-start": ({"start_date": None}, "start_date"),
    "a-number-for-a-timeframe": ({"timeframe": 1}, "timeframe 1"),
    "none-for-a-timeframe": ({"timeframe": None}, "timeframe None"),
    "an-asof": ({"asof": "2024-01-02"}, "asof"),
    "a-currency": ({"currency": "EUR"}, "currency"),
}


@pytest.mark.parametrize(("arguments", "said"), API.values(), ids=API)
def test_arguments_that_cannot_be_used(server: Sandbox, tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    good: dict[str, Any] = {"symbols": ["AAPL"], "start_date": "2024-06-03", "end_date": "2024-06-03"}
    clock = Clock(datetime(2024, 8, 1, tzinfo=UTC))

    with pytest.raises(InputError, match=said) as caught:
        pipeline_of(server, tmp_path / "store", clock).ingest_symbols(**{**good, **arguments})

    assert isinstance(caught.value, ValueError)
    assert server.requests == []
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("symbols", [None, 5], ids=["none", "a-number"])
def test_symbols_that_are_no_list_are_an_error_of_ours(server: Sandbox, tmp_path: Path, symbols: Any) -> None:
    with pytest.raises(DataEngineError):
        pipeline_of(server, tmp_path / "store").ingest_symbols(symbols, "2024-06-03", "2024-06-03")


def test_a_bare_string_is_one_symbol_for_a_plan_too(server: Sandbox, tmp_path: Path) -> None:
    assert pipeline_of(server, tmp_path / "store").plan("AAPL", "2024-06-03", "2024-06-03").symbols == ("AAPL",)


@pytest.mark.parametrize("workers", [0, -1, 1_000_000, "many", 1.5, True], ids=str)
def test_workers_that_cannot_be(tmp_path: Path, workers: Any) -> None:
    with pytest.raises(InputError, match="--workers"):
        IngestionPipeline(workers, tmp_path / "store")

    assert not (tmp_path / "store").exists()


MADE: dict[str, tuple[Any, str]] = {
    "a-feed-that-is-none": (lambda server, base: IngestionPipeline(2, base, feed="nyse"), "feed 'nyse'"),
    "an-adjustment-that-is-none": (lambda server, base: IngestionPipeline(2, base, adjustment=7), "adjustment 7"),
    "half-a-pair-of-keys": (lambda server, base: AlpacaClient(api_key="k", base_url=server.url), "api_secret"),
    "keys-in-the-clear": (lambda server, base: AlpacaClient("k", "s", base_url="http://example.com"), "http"),
    "a-client-asked-for-emoji": (lambda server, base: client_of(server).fetch_bars("\U0001f600", "2024-06-03"), "symbol"),
    "a-client-asked-for-an-asof": (
        lambda server, base: client_of(server).fetch_bars("AAPL", "2024-06-03", "2024-06-03", asof="then"), "asof 'then'"),
    "a-client-asked-for-a-currency": (
        lambda server, base: client_of(server).fetch_bars("AAPL", "2024-06-03", currency="Euro"), "currency 'Euro'"),
    "a-load-of-a-bad-day": (lambda server, base: ParquetStorage(base).load("AAPL", "someday"), "someday"),
    "a-load-of-a-path": (lambda server, base: ParquetStorage(base).load("../../x", "2024-06-03"), r"\.\./\.\./x"),
    "an-index-that-leaves": (lambda server, base: MetadataStore(base).store("../x", ["AAPL"]), "../x"),
    "an-index-of-nothing": (lambda server, base: MetadataStore(base).store("x", []), "symbol"),
    "an-index-nobody-knows": (lambda server, base: MetadataStore(base).load("nobody"), "nobody"),
    "a-list-that-is-a-number": (lambda server, base: SymbolLoader.from_list(5), "5"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize(("make", "said"), MADE.values(), ids=MADE)
def test_calls_that_cannot_be_answered(server: Sandbox, tmp_path: Path, make: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make(server, tmp_path / "store")

    assert server.requests == []
    assert not (tmp_path / "store").exists()


def test_a_missing_file_is_a_file_not_found_error(server: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        pipeline_of(server, tmp_path / "store").ingest_from_csv("nowhere.csv", "2024-06-03")

    assert not (tmp_path / "store").exists()


def test_a_missing_column_is_a_value_error_that_names_those_there_are(server: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'Symbol', 'Name'"):
        pipeline_of(server, tmp_path / "store").ingest_from_csv("good.csv", "2024-06-03", symbol_column="Ticket")


# ------------------------------------------------------------------------------------------ what looks bad and is not


@pytest.mark.parametrize("symbol", ["CON", "NA", "TRUE", "NAN", "INF", "BRK.B"])
def test_symbols_that_are_words_elsewhere_are_symbols_here(server: Sandbox, tmp_path: Path, symbol: str) -> None:
    ran = here("ingest", symbol, *JUNE, "--base-path", "store", url=server.url)

    assert ran.code == 0, ran.text
    assert count(tmp_path / "store") == server.counts["rows"] > 0
    loaded = ParquetStorage(tmp_path / "store").load(symbol, "2024-06-03", "2024-06-03")
    assert set(loaded.index.get_level_values("symbol")) == {symbol}


@pytest.mark.parametrize("symbol", ["2330", "BRK-B", "BRK/B", "SPY^", "X" * 32])
def test_what_alpaca_refuses_fails_for_that_symbol_alone(server: Sandbox, tmp_path: Path, symbol: str) -> None:
    ran = here("ingest", "AAPL", symbol, *JUNE, "--base-path", "store", "--json", url=server.url)

    assert ran.code == 1
    assert ran.json["successful"] == ["AAPL"]
    assert [one["symbol"] for one in ran.json["failed"]] == [symbol]
    assert [path.name for path in (tmp_path / "store" / "equities_1min").iterdir()] == ["symbol=AAPL"]


def test_an_end_in_the_future_is_said_and_is_no_failure(server: Sandbox, tmp_path: Path) -> None:
    clock = Clock(datetime(2024, 6, 4, 12, tzinfo=UTC))

    report = pipeline_of(server, tmp_path / "store", clock).ingest_symbols(["AAPL"], "2024-06-03", "2024-12-31")

    assert report.exit_code == 0
    assert any("future" in note for note in report["notes"])


def test_a_relative_store_stays_in_the_working_directory(server: Sandbox, tmp_path: Path) -> None:
    ran = here("ingest", *AAPL, "--base-path", os.path.join("some", "store"), url=server.url)  # noqa: PTH118 - as typed

    assert ran.code == 0
    assert count(tmp_path / "some" / "store") > 0


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid"), reason="permissions are another matter there")
def test_a_folder_that_may_not_be_written_is_named(server: Sandbox, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (tmp_path / "closed").mkdir(mode=0o500)

    ran = here("ingest", *AAPL, "--base-path", "closed/store", url=server.url)

    assert (ran.code, "closed" in ran.err) == (4, True)
    assert server.requests == []
