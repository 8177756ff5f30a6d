"""A file that the coverage counts and that is not there: what the vendor has of its bars is fetched again, and that is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_engine import AlpacaClient, IngestionPipeline
from data_engine.sandbox import Sandbox, SimulatedMarket
from running import HASTY, KEY, SECRET, content, coverage, here

WORDS = ("AAPL", "MSFT", "--start", "2024-04-01", "--end", "2024-06-05", "--timeframe", "1Hour")


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    with Sandbox(SimulatedMarket()) as sandbox:
        yield sandbox


def lose(base: Path, symbol: str, month: int, dataset: str = "equities_1hour") -> None:
    (base / dataset / f"symbol={symbol}" / "year=2024" / f"month={month:02}" / "data.parquet").unlink()


@pytest.mark.parametrize("adjustment", ["raw", "split"])
@pytest.mark.parametrize("months", [(4,), (5,), (6,), (4, 5, 6)], ids=str)
def test_a_lost_file_is_brought_back(server: Sandbox, tmp_path: Path, adjustment: str, months: tuple[int, ...]) -> None:
    words = (*WORDS, "--adjustment", adjustment, "--base-path", tmp_path)
    dataset = "equities_1hour" + ("" if adjustment == "raw" else "_split")
    assert here("ingest", *words, url=server.url).code == 0
    whole, counted = content(tmp_path), coverage(tmp_path, "AAPL", dataset)
    for month in months:
        lose(tmp_path, "AAPL", month, dataset)
    seen = len(server.requests)
    ran = here("ingest", *words, url=server.url)

    assert ran.code == 0, ran.text
    assert f"{dataset}/symbol=AAPL/year=2024/month={months[0]:02}/data.parquet" in ran.text
    assert content(tmp_path) == whole
    again = coverage(tmp_path, "AAPL", dataset)
    assert [again[name] for name in ("covered", "bars", "first_bar", "last_bar")] == [
        counted[name] for name in ("covered", "bars", "first_bar", "last_bar")
    ]
    if adjustment == "raw":
        assert {record.query["symbols"] for record in server.requests[seen:]} == {"AAPL"}
    assert here("verify", "--base-path", tmp_path).code == 0


def test_update_and_a_dry_run_see_it_too(server: Sandbox, tmp_path: Path) -> None:
    assert here("ingest", *WORDS, "--base-path", tmp_path, url=server.url).code == 0
    whole = content(tmp_path)
    lose(tmp_path, "MSFT", 5)
    seen = len(server.requests)
    dry = here("ingest", *WORDS, "--dry-run", "--base-path", tmp_path, url=server.url)

    assert (dry.code, len(server.requests)) == (0, seen)
    assert "month=05" in dry.text
    assert here("update", "--timeframe", "1Hour", "--base-path", tmp_path, url=server.url).code == 0
    assert {key: data for key, data in content(tmp_path).items() if "month=06" not in key and key in whole} == {
        key: data for key, data in whole.items() if "month=06" not in key
    }


def test_files_outside_of_the_range_are_not_looked_for(server: Sandbox, tmp_path: Path) -> None:
    assert here("ingest", *WORDS, "--base-path", tmp_path, url=server.url).code == 0
    lose(tmp_path, "AAPL", 4)
    seen = len(server.requests)
    ran = here(
        "ingest", "AAPL", "--start", "2024-05-01", "--end", "2024-05-31", *WORDS[-2:], "--base-path", tmp_path, url=server.url
    )

    assert (ran.code, len(server.requests)) == (0, seen)


def test_when_the_vendor_cannot_be_reached_nothing_of_a_lost_file_is_claimed(server: Sandbox, tmp_path: Path) -> None:
    assert here("ingest", *WORDS, "--base-path", tmp_path, url=server.url).code == 0
    lose(tmp_path, "AAPL", 5)
    with Sandbox(SimulatedMarket()) as gone:
        url = gone.url
    client = AlpacaClient(KEY, SECRET, base_url=url, policy=HASTY)
    report = IngestionPipeline(1, tmp_path, client=client).ingest_symbols(["AAPL", "MSFT"], "2024-04-01", "2024-06-05", "1Hour")

    assert (report["successful"], [symbol for symbol, _ in report["failed"]]) == (["MSFT"], ["AAPL"])
    claims = coverage(tmp_path, "AAPL", "equities_1hour")["covered"]
    assert not any(start < "2024-05-20" < end for start, end in claims)


def test_a_folder_that_cannot_be_looked_into_fails_its_series_alone(server: Sandbox, tmp_path: Path) -> None:
    assert here("ingest", *WORDS, "--base-path", tmp_path, url=server.url).code == 0
    lose(tmp_path, "MSFT", 5)
    year = tmp_path / "equities_1hour" / "symbol=AAPL" / "year=2024"
    year.rename(tmp_path / "aside")
    year.symlink_to(year.name)  # to itself: whatever is below it cannot be read, also by root
    ran = here("ingest", *WORDS, "--json", "--base-path", tmp_path, url=server.url)

    assert (ran.code, ran.json["successful"], [one["symbol"] for one in ran.json["failed"]]) == (1, ["MSFT"], ["AAPL"])
    assert (tmp_path / "equities_1hour" / "symbol=MSFT" / "year=2024" / "month=05" / "data.parquet").exists()


def test_a_damaged_file_beside_a_lost_one_fails_its_series_alone(server: Sandbox, tmp_path: Path) -> None:
    assert here("ingest", *WORDS, "--base-path", tmp_path, url=server.url).code == 0
    lose(tmp_path, "AAPL", 4)
    lose(tmp_path, "MSFT", 5)
    (tmp_path / "equities_1hour" / "symbol=AAPL" / "year=2024" / "month=05" / "data.parquet").write_bytes(b"no bars")
    ran = here("ingest", *WORDS, "--json", "--base-path", tmp_path, url=server.url)

    assert (ran.code, ran.json["successful"]) == (1, ["MSFT"])
    assert [(one["symbol"], one["code"]) for one in ran.json["failed"]] == [("AAPL", "damaged_file")]
