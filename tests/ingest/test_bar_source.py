"""Simulated bars and Alpaca's never meet in a store, whatever the environment says."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_engine import IngestionPipeline
from data_engine.errors import ConfigError
from data_engine.ingest.bar_source import record_source
from data_engine.sandbox import Sandbox, SimulatedMarket
from data_engine.store.local_files import LocalFiles
from running import Ran, account, content, here
from stores import variables

DAY = ("--start", "2024-06-03", "--end", "2024-06-03")
ALPACA = "https://data.alpaca.markets"


def everything(base: Path) -> dict[str, bytes]:
    """Return all files of a store but the locks, which every command may make."""
    return {str(path): path.read_bytes() for path in base.rglob("*") if path.is_file() and "locks" not in path.parts}


def refused(ran: Ran, *named: str) -> bool:
    """Tell whether a command ended as one that cannot be configured so, with one message that names all of *named*."""
    return ran.code == 2 and ran.err.count("Error:") == 1 and all(text in ran.err for text in named)


def test_a_store_that_a_sandbox_filled_takes_nothing_from_alpaca(tmp_path: Path) -> None:
    base = tmp_path / "rehearsal"
    with Sandbox(SimulatedMarket()) as server:
        assert here("ingest", "AAPL", *DAY, "--base-path", base, url=server.url).code == 0
        before = everything(base)
        away = "https://data.example.invalid"  # a request would end with 6; what is refused before it ends with 2
        commands = (
            ("update",),
            ("update", "--quiet"),
            ("ingest", "MSFT", *DAY),
            ("actions",),
            ("audit", "--sample", "1"),
        )
        for words in commands:
            assert refused(here(*words, "--base-path", base, url=away), server.url, "--base-path", away), words
        assert refused(here("update", "--base-path", base, env={"APCA_API_DATA_URL": ""}), ALPACA)  # before missing credentials
        assert everything(base) == before
        assert here("ingest", "AAPL", *DAY, "--base-path", base, url=server.url.replace("127.0.0.1", "localhost")).code == 0


def test_a_demo_store_of_an_earlier_version_is_known_by_its_mark(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "simulated.txt").write_text("The bars of this store are simulated.\n")

    with variables(account(None)), pytest.raises(ConfigError, match="simulated"):
        IngestionPipeline(base_path=tmp_path, progress=False).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")

    assert not content(tmp_path)


def test_a_store_of_alpacas_bars_takes_nothing_from_a_sandbox(tmp_path: Path) -> None:
    record_source(LocalFiles(tmp_path), ALPACA)
    assert (tmp_path / "metadata" / "source.txt").read_text() == f"{ALPACA}\n"
    with Sandbox(SimulatedMarket()) as server:
        ran = here("ingest", "AAPL", *DAY, "--base-path", tmp_path, url=server.url)

        assert refused(ran, ALPACA, server.url, "APCA_API_DATA_URL")
        assert not server.requests


def test_a_store_of_unknown_source_is_marked_by_the_first_server_of_this_machine_that_fills_it(tmp_path: Path) -> None:
    """From then on it has simulated bars: Alpaca's must not come to lie among them, and the run says so once."""
    (tmp_path / "metadata" / "coverage" / "equities_1min").mkdir(parents=True)
    with Sandbox(SimulatedMarket()) as server:
        first, second = (here("ingest", "AAPL", *DAY, "--base-path", tmp_path, url=server.url) for _ in range(2))
        away = here("update", "--base-path", tmp_path, env={"APCA_API_DATA_URL": ""})

        assert (first.code, second.code) == (0, 0)
        assert ["unknown source" in ran.text and server.url in ran.text for ran in (first, second)] == [True, False]
        assert (tmp_path / "metadata" / "source.txt").read_text() == f"{server.url}\n"
        assert refused(away, ALPACA, server.url, "source.txt")


def test_a_store_of_unknown_source_is_alpacas_once_alpaca_fills_it(tmp_path: Path) -> None:
    (tmp_path / "metadata" / "coverage" / "equities_1min").mkdir(parents=True)

    assert record_source(LocalFiles(tmp_path), ALPACA) is None
    assert (tmp_path / "metadata" / "source.txt").read_text() == f"{ALPACA}\n"
