"""What a page shows, gathered; the numbers by hand, or by `verify` and the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_engine.errors import InputError
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.report import contents as overview
from data_engine.report.contents import Overview, look
from data_engine.report.coverage_months import STATES
from data_engine.store.selection import DatasetFilter
from data_engine.verify import verify as verification
from pages import ATTACK, NOW, make_store
from stores import place_in_memory


@pytest.fixture
def storage(tmp_path: Path) -> ParquetStorage:
    return make_store(tmp_path / "store")


def seen(storage: ParquetStorage, *names: str, **named: object) -> Overview:
    return look(storage.bars, DatasetFilter(), list(names) or None, now=NOW, **named)  # type: ignore[arg-type]


def test_coverage_by_month_is_there_for_every_series(storage: ParquetStorage) -> None:
    days, minutes = seen(storage).head()["datasets"]

    assert (days["name"], days["first"], minutes["name"], minutes["first"]) == (
        "equities_1day",
        [2024, 4],
        "equities_1min",
        [2024, 4],
    )
    assert minutes["sessions"] == [22, 22, 19, 5]  # to the 8th of July, of which the 4th is a holiday
    states = {one["symbol"]: [STATES[int(number)] for number in one["states"]] for one in minutes["series"]}
    assert states == {
        "<I>&": ["never", "never", "never", "asked"],
        "AAPL": ["whole", "whole", "whole", "asked"],
        "MSFT": ["whole", "partly", "missing", "missing"],
    }
    msft = minutes["series"][2]
    assert (msft["held"], msft["lack"]) == ([22, 11, 0, 0], [0, 11, 19, 3])
    assert msft["failure"] == ATTACK
    assert "".join(one["states"] for one in days["series"]) == "".join(
        str(STATES.index(one)) for one in ("partly", "missing", "missing", "missing")
    )


def test_findings_are_those_of_verify_contradictions_first(storage: ParquetStorage) -> None:
    head = seen(storage).head()
    verdict = verification.verify(storage.bars, DatasetFilter(), now=NOW)

    assert (head["contradictions"], head["warnings"]) == (len(verdict.contradictions), len(verdict.warnings))
    assert head["holes"] == verdict.holes
    assert sorted(one["message"] for one in head["findings"]) == sorted(
        finding.message[:597] + "..." if len(finding.message) > 600 else finding.message for finding in verdict.findings
    )
    assert [one["grave"] for one in head["findings"]] == sorted((one["grave"] for one in head["findings"]), reverse=True)
    assert head["findings"][0]["code"] == "index_damaged"


def test_a_quick_look_judges_no_hole(storage: ParquetStorage) -> None:
    head = seen(storage, quick=True).head()

    assert (head["quick"], head["holes"]) == (True, None)


def test_of_very_many_findings_the_first_are_listed_and_all_are_counted(
    storage: ParquetStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "FINDINGS", 1)
    head = seen(storage).head()

    assert len(head["findings"]) == 1
    assert head["contradictions"] + head["warnings"] > 1


def test_runs_are_there_the_latest_first(storage: ParquetStorage) -> None:
    runs = seen(storage).head()["runs"]

    assert [(run["command"], run["state"], run["added"], run["revised"]) for run in runs] == [
        ("update", "stopped", 5, 6),
        ("ingest", "done", 30_000, 0),
    ]
    assert runs[0]["failures"][0]["named"] == ("MSFT",)


def test_symbols_are_chosen_and_a_strange_one_is_refused(storage: ParquetStorage) -> None:
    head = seen(storage, "MSFT").head()

    assert [one["symbol"] for dataset in head["datasets"] for one in dataset["series"]] == ["MSFT"]
    assert head["charts"][0]["symbols"] == ["MSFT"]
    with pytest.raises(InputError, match="NVDA: not in the store"):
        seen(storage, "NVDA")


def test_coverage_that_cannot_be_read_is_said_in_its_place(storage: ParquetStorage, tmp_path: Path) -> None:
    (tmp_path / "store/metadata/coverage/equities_1min/symbol=MSFT.json").write_text("not json")
    made = {one["symbol"]: one["problem"] for one in seen(storage).head()["datasets"][1]["series"]}

    assert made["AAPL"] is None
    assert "is not readable" in made["MSFT"]


def test_candles_have_a_place_for_every_symbol(storage: ParquetStorage) -> None:
    made = seen(storage)
    daily, minutes = made.candles()

    assert made.head()["charts"][0]["symbols"] == ["<I>&", "AAPL", "MSFT"]
    assert [bool(text) for text in daily] == [True, True, True]
    assert [bool(text) for text in minutes] == [True, True, True]


def test_a_store_in_a_bucket_is_seen_as_one_on_a_disk(storage: ParquetStorage) -> None:
    place = place_in_memory(iter(()))
    for folder in ("equities_1min", "equities_1day", "metadata/coverage", "metadata/indices", "metadata/history"):
        for key in storage.files.list(folder):
            place.put(key, storage.files.get(key) or b"")

    here, there = seen(storage), seen(ParquetStorage(files=place.files))

    assert there.candles() == here.candles()
    assert there.head()["datasets"] == here.head()["datasets"]
    assert there.head()["runs"] == here.head()["runs"]
