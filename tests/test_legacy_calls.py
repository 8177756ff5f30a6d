"""The calls of the legacy pipeline, word for word and by position."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from data_engine import (
    AlpacaClient,
    IngestionPipeline,
    MetadataStore,
    ParquetStorage,
    SymbolLoader,
    ingest_from_csv,
    ingest_single_symbol,
    ingest_symbol_list,
)
from data_engine.sandbox import Replay, Sandbox
from legacy import TimeFrame
from real_data import PROJECT
from running import account, count, here, write_minutes
from stores import variables

DAYS = [date(2024, 1, 2), date(2024, 1, 3)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    path = write_minutes(tmp_path_factory.mktemp("market") / "bars.parquet", ["AAPL", "MSFT", "GOOGL"], DAYS)
    with Sandbox(Replay(path)) as sandbox:
        yield sandbox


@pytest.fixture
def base(server: Sandbox, tmp_path: Path) -> Iterator[Path]:
    """A user's environment, in whose working directory a list is."""
    (tmp_path / "sp500-2025.csv").write_text("Ranking,Company Name,Symbol\n1,Apple,AAPL\n2,Microsoft,MSFT\n")
    with variables({**account(server.url), "DATA_ENGINE_BASE_PATH": str(tmp_path / "store")}):
        yield tmp_path / "store"


def test_functions_and_methods_by_position(base):
    assert ingest_single_symbol("AAPL", "2024-01-02", "2024-01-03", TimeFrame.Minute)["successful"] == ["AAPL"]
    ingest_symbol_list(["AAPL", "GOOGL"], "2024-01-02", "2024-01-03", TimeFrame.Minute, "tech_stocks")
    ingest_from_csv("sp500-2025.csv", "2024-01-02", "2024-01-03", TimeFrame.Minute, "s_and_p_500")
    pipeline = IngestionPipeline(max_workers=2)
    pipeline.ingest_from_csv("sp500-2025.csv", "2024-01-02", "2024-01-03", TimeFrame.Minute, "by_method")
    pipeline.ingest_symbols(["AAPL"], "2024-01-02", "2024-01-03", TimeFrame.Minute, "my_portfolio")

    assert count(base) == 3 * 40
    lists = MetadataStore()
    assert lists.names() == ["by_method", "my_portfolio", "s_and_p_500", "tech_stocks"]
    assert list(lists.load("s_and_p_500")["symbol"]) == ["AAPL", "MSFT"]
    assert SymbolLoader.from_csv("sp500-2025.csv", "Symbol") == ["AAPL", "MSFT"]
    bars = AlpacaClient().fetch_bars("AAPL", "2024-01-02", "2024-01-03", TimeFrame.Minute)
    storage = ParquetStorage()
    storage.store(bars, TimeFrame.Minute)
    pd.testing.assert_frame_equal(storage.load("AAPL", "2024-01-02", "2024-01-03"), bars)


def test_the_result_is_a_dict_that_json_takes(base):
    result = ingest_symbol_list(["AAPL", "ZZZQ"], "2024-01-02", "2024-01-03", TimeFrame.Minute)

    assert isinstance(result, dict)
    assert json.loads(json.dumps(result))["successful"] == ["AAPL"]
    assert result["failed"] == [("ZZZQ", "No data available")]


def test_progress_goes_to_stderr_unless_it_is_switched_off(base, capfd):
    ingest_single_symbol("AAPL", "2024-01-02", "2024-01-03")
    out, err = capfd.readouterr()
    assert out == ""
    assert "Ingestion Summary:\n  Successful: 1/1\n  Failed: 0/1\n" in err

    ingest_single_symbol("MSFT", "2024-01-02", "2024-01-03", progress=False)
    assert capfd.readouterr() == ("", "")


def test_the_functions_can_be_imported_from_the_runner(base, tmp_path):
    code = (
        "from run_ingestion import ingest_from_csv, ingest_single_symbol, ingest_symbol_list\n"
        "print(ingest_from_csv('sp500-2025.csv', '2024-01-02', '2024-01-03')['successful'])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(PROJECT), os.environ.get("PYTHONPATH", "")))}
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)

    assert ran.stdout == "['AAPL', 'MSFT']\n"
    assert list(MetadataStore().load("sp500_2025").symbol) == ["AAPL", "MSFT"]


def members(name: str) -> list[str]:
    return list(MetadataStore().members(name))


def test_the_command_stores_the_list_of_a_csv_file_as_the_function_does(base, server, tmp_path):
    words = ("ingest", "--start", "2024-01-02", "--end", "2024-01-03", "--csv")
    env = {**account(server.url), "DATA_ENGINE_BASE_PATH": str(base)}
    assert here(*words, "sp500-2025.csv", "--no-index", env=env).code == 0
    assert MetadataStore().names() == []
    assert here(*words, "sp500-2025.csv", env=env).code == 0
    assert members("sp500_2025") == ["AAPL", "MSFT"]

    (tmp_path / "sp500-2025.csv").write_text("Symbol\nGOOGL\n")
    assert here(*words, "sp500-2025.csv", env=env).code == 0
    assert members("sp500_2025") == ["GOOGL"], "a derived name never refuses"
    assert here(*words, "sp500-2025.csv", "--index", "sp500_2025", env=env).code == 0
    (tmp_path / "sp500-2025.csv").write_text("Symbol\nAAPL\nMSFT\n")
    ran = here(*words, "sp500-2025.csv", env=env)
    assert (ran.code, "sp500_2025" in ran.out, members("sp500_2025")) == (0, True, ["GOOGL"]), "stored by name since"
    assert here(*words[:-1], "AAPL", "--no-index", env=env).code == 2
