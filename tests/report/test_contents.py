"""The contents of a report: numbers by hand, or by `verify` and the files."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from data_engine.errors import InputError
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.report import contents
from data_engine.report.contents import Overview, overview_of
from data_engine.report.coverage_months import STATES
from data_engine.store.selection import DatasetFilter
from data_engine.verify import verify as verification
from pages import ATTACK, NOW, make_store
from running import write_minutes
from stores import place_in_memory


@pytest.fixture
def storage(tmp_path: Path) -> ParquetStorage:
    return make_store(tmp_path / "store")


def overview(storage: ParquetStorage, *names: str, **named: object) -> Overview:
    return overview_of(storage.bars, DatasetFilter(), list(names) or None, now=NOW, **named)  # type: ignore[arg-type]


def test_coverage_by_month_is_there_for_every_series(storage: ParquetStorage) -> None:
    days, minutes = overview(storage).head()["datasets"]

    assert (days["name"], days["first"], minutes["name"], minutes["first"]) == (
        "equities_1day",
        [2024, 4],
        "equities_1min",
        [2024, 4],
    )
    assert minutes["sessions"] == [22, 22, 19, 5]  # to the 8th of July, of which the 4th is a holiday
    states = {one["symbol"]: [STATES[int(number)] for number in one["states"]] for one in minutes["series"]}
    assert states == {
        "<I>&": ["not_requested", "not_requested", "not_requested", "requested"],
        "AAPL": ["complete", "complete", "complete", "requested"],
        "MSFT": ["complete", "partial", "missing", "missing"],
    }
    msft = minutes["series"][2]
    assert (msft["final"], msft["missing"]) == ([22, 11, 0, 0], [0, 11, 19, 3])
    assert msft["failure"] == ATTACK
    assert "".join(one["states"] for one in days["series"]) == "".join(
        str(STATES.index(one)) for one in ("partial", "missing", "missing", "missing")
    )


def test_findings_are_those_of_verify_inconsistencies_first(storage: ParquetStorage) -> None:
    head = overview(storage).head()
    report = verification.verify(storage.bars, DatasetFilter(), now=NOW)

    assert (head["inconsistencies"], head["warnings"]) == (len(report.inconsistencies), len(report.warnings))
    assert head["gaps"] == report.gaps
    assert sorted(one["message"] for one in head["findings"]) == sorted(
        finding.message[:597] + "..." if len(finding.message) > 600 else finding.message for finding in report.findings
    )
    assert [one["inconsistency"] for one in head["findings"]] == sorted(
        (one["inconsistency"] for one in head["findings"]), reverse=True
    )
    assert head["findings"][0]["code"] == "index_damaged"


def test_after_the_demo_it_names_the_first_real_fetch_and_no_update(storage: ParquetStorage) -> None:
    assert "real" not in overview(storage, quick=True).head()["commands"]
    storage.files.update("metadata/simulated.txt", lambda _: b"simulated")

    assert overview(storage, quick=True).head()["commands"]["real"].startswith("data-engine ingest ")


def test_after_an_import_it_names_what_unites_both_layouts_and_then_what_covers_the_bars(tmp_path: Path) -> None:
    write_minutes(tmp_path / "bars.parquet", ["KO", "NA"], [date(2024, 6, 3), date(2024, 6, 4)], per_day=2)
    frame = (
        pd.read_parquet(tmp_path / "bars.parquet")
        .assign(trade_count=1.0, vwap=lambda one: one.open)
        .set_index(["symbol", "timestamp"])
    )
    storage = ParquetStorage(tmp_path / "store")
    storage.store(frame)
    commands = overview(storage, quick=True).head()["commands"]
    assert commands["cover"].startswith("data-engine ingest KO NA --start 2024-06-03 --end 2024-06-04 --base-path ")
    assert "unite" not in commands

    legacy = tmp_path / "store/equities_1min/symbol=KO/year=2024/month=6"
    legacy.mkdir()
    shutil.copy(tmp_path / "bars.parquet", legacy / "data_0.parquet")
    assert overview(storage, quick=True).head()["commands"]["unite"].startswith("data-engine import --in-place --base-path ")


def test_a_quick_report_has_no_gaps(storage: ParquetStorage) -> None:
    head = overview(storage, quick=True).head()

    assert (head["quick"], head["gaps"]) == (True, None)


def test_of_very_many_findings_the_first_are_listed_and_all_are_counted(
    storage: ParquetStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "FINDINGS", 1)
    head = overview(storage).head()

    assert len(head["findings"]) == 1
    assert head["inconsistencies"] + head["warnings"] > 1


def test_runs_are_there_the_latest_first(storage: ParquetStorage) -> None:
    runs = overview(storage).head()["runs"]

    assert [(run["command"], run["state"], run["added"], run["revised"]) for run in runs] == [
        ("update", "stopped", 5, 6),
        ("ingest", "done", 30_000, 0),
    ]
    assert runs[0]["failures"][0]["named"] == ["MSFT"]


def test_symbols_are_selected_and_an_unknown_one_is_refused(storage: ParquetStorage) -> None:
    head = overview(storage, "MSFT").head()

    assert [one["symbol"] for dataset in head["datasets"] for one in dataset["series"]] == ["MSFT"]
    assert head["charts"][0]["symbols"] == ["MSFT"]
    with pytest.raises(InputError, match=r"NVDA.*`data-engine status`"):
        overview(storage, "NVDA")


def test_coverage_that_cannot_be_read_is_a_problem_of_its_series(storage: ParquetStorage, tmp_path: Path) -> None:
    (tmp_path / "store/metadata/coverage/equities_1min/symbol=MSFT.json").write_text("not json")
    problems = {one["symbol"]: one["problem"] for one in overview(storage).head()["datasets"][1]["series"]}

    assert problems["AAPL"] is None
    assert "symbol=MSFT.json" in problems["MSFT"]
    assert "`data-engine verify --repair`" in problems["MSFT"]


def test_candles_have_a_place_for_every_symbol(storage: ParquetStorage) -> None:
    made = overview(storage)
    daily, minutes = made.candles()

    assert made.head()["charts"][0]["symbols"] == ["<I>&", "AAPL", "MSFT"]
    assert [bool(text) for text in daily] == [True, True, True]
    assert [bool(text) for text in minutes] == [True, True, True]


def test_a_store_in_a_bucket_has_the_same_report(storage: ParquetStorage) -> None:
    place = place_in_memory(iter(()))
    for folder in ("equities_1min", "equities_1day", "metadata/coverage", "metadata/indices", "metadata/log"):
        for key in storage.files.list(folder):
            place.put(key, storage.files.get(key) or b"")

    here, there = overview(storage), overview(ParquetStorage(files=place.files))

    assert there.candles() == here.candles()
    assert there.head()["datasets"] == here.head()["datasets"]
    assert there.head()["runs"] == here.head()["runs"]
