"""The reference's runner: ``python run_ingestion.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from data_engine.sandbox import Replay, Sandbox
from real_data import PROJECT
from running import Ran, account, count, write_minutes

RUNNER = PROJECT / "run_ingestion.py"


def runner(*words: str, url: str | None = None, env: dict[str, str] | None = None) -> Ran:
    variables = {**os.environ, **(account(url) if env is None else env)}
    done = subprocess.run([sys.executable, str(RUNNER), *words], env=variables, capture_output=True, text=True, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "sp500-2025.csv"
    path.write_text("Ranking,Company Name,Symbol\n1,Apple Inc.,AAPL\n2,Microsoft,MSFT\n3,Nobody,ZZZQ\n")
    return path


def test_without_the_list_it_explains_itself(tmp_path: Path) -> None:
    ran = runner(env={})

    assert ran.code == 2
    assert ran.err.startswith("Error: ")
    assert f"{tmp_path}" in ran.err
    assert "sp500-2025.csv" in ran.err
    assert "Symbol" in ran.err
    assert "data-engine demo" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_without_keys_it_explains_itself(listed: Path, tmp_path: Path) -> None:
    ran = runner(env={})

    assert ran.code == 2
    assert "ALPACA_API_KEY" in ran.err
    assert "data-engine demo" in ran.err
    assert list(tmp_path.iterdir()) == [listed]


def test_with_no_argument_it_ingests_the_list_from_2016_to_2025_in_minutes(listed: Path, tmp_path: Path) -> None:
    days = [date(2015, 12, 31), date(2016, 1, 4), date(2020, 6, 3), date(2024, 12, 31), date(2025, 1, 2)]
    source = Replay(write_minutes(tmp_path / "bars.parquet", ["AAPL", "MSFT"], days, opens=15))
    with Sandbox(source) as server:
        ran = runner(url=server.url)

        queries = [record.query for record in server.requests if record.path == "/v2/stocks/bars"]
    assert ran.code == 1, ran.text
    assert "  Successful: 2/3" in ran.out
    assert "  - ZZZQ: No data available" in ran.out
    assert {query["timeframe"] for query in queries} == {"1Min"}
    assert min(query["start"] for query in queries) == "2016-01-01T05:00:00Z"
    assert max(query["end"] for query in queries).startswith("2025-01-02T04:59:59")
    # The years between, and neither 2015 nor 2 January 2025.
    assert count(tmp_path / "stock_data") == 2 * 3 * 20
    assert (tmp_path / "stock_data" / "metadata" / "indices" / "sp500_2025.csv").is_file()


def test_its_arguments_are_those_of_ingest(tmp_path: Path) -> None:
    source = Replay(write_minutes(tmp_path / "bars.parquet", ["AAPL"], [date(2024, 6, 3)]))
    with Sandbox(source) as server:
        ran = runner("AAPL", "--start", "2024-06-03", "--end", "2024-06-03", "--base-path", "store", url=server.url)

    assert ran.code == 0, ran.text
    assert count(tmp_path / "store") == 20


def test_from_a_checkout_without_its_dependencies_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError(\"No module named 'click'\", name='click')\n")

    ran = runner(env={"PYTHONPATH": str(tmp_path)})

    assert ran.code == 2
    assert "click" in ran.err
    assert "`pip install .`" in ran.err
    assert "Traceback" not in ran.text
