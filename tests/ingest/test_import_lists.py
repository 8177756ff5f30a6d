"""Lists of another folder are imported with their past, and none is made up."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from data_engine import MetadataStore
from data_engine.errors import InputError
from data_engine.ingest.file_import import ImportReport
from data_engine.ingest.import_lists import import_lists
from data_engine.market.time_range import new_york_days
from data_engine.store.local_files import LocalFiles

LISTS = {"2022-01-03": ["AAPL", "MSFT", "XYZ"], "2022-01-10": ["AAPL", "MSFT"], "2022-01-18": ["NEW", "AAPL", "MSFT"]}


@pytest.fixture
def source(tmp_path: Path) -> MetadataStore:
    lists = MetadataStore(tmp_path / "source")
    for day, symbols in LISTS.items():
        lists.store("big", symbols, on=day, force=True)
    return lists


def imported(tmp_path: Path) -> ImportReport:
    report = ImportReport()
    import_lists(LocalFiles(tmp_path / "store"), tmp_path / "source", report)
    return report


def test_a_list_is_imported_with_its_past_day_by_day(tmp_path: Path, source: MetadataStore) -> None:
    assert imported(tmp_path).lists == ["big"]

    ours = MetadataStore(tmp_path / "store")
    day = date(2022, 1, 3)
    while day <= date(2022, 1, 25):
        stored = LISTS[max(since for since in LISTS if since <= day.isoformat())]
        assert set(ours.members("big", as_of=day)) == set(ours.memberships("big", new_york_days(day, day))) == set(stored)
        day += timedelta(days=1)
    assert list(ours.members("big")) == LISTS["2022-01-18"]
    assert set(ours.former_members("big")) == {"XYZ"}
    again = imported(tmp_path)
    assert (again.lists, again.lists_kept, again.failed) == ([], [], [])


def test_a_list_without_a_history_is_not_known_before_its_last_day(tmp_path: Path) -> None:
    folder = tmp_path / "source/metadata/indices"
    folder.mkdir(parents=True)
    (folder / "big.csv").write_text(
        "symbol,added_date\nAAPL,2022-01-04 00:30:00+00:00\nMSFT,2022-01-03\nNEW,2022-01-18 14:30:00.5+00:00\n"
    )
    assert imported(tmp_path).lists == ["big"]

    ours = MetadataStore(tmp_path / "store")
    assert ours.load("big").equals(MetadataStore(tmp_path / "source").load("big"))
    assert [str(added) for added in ours.load("big", as_of="2022-01-18").added_date] == [
        "2022-01-04 00:30:00+00:00", "2022-01-03 05:00:00+00:00", "2022-01-18 14:30:00.500000+00:00",
    ]  # fmt: skip
    for day in (date(2022, 1, 3) + timedelta(days=n) for n in range(15)):
        with pytest.raises(InputError, match="known since 2022-01-18"):
            ours.members("big", as_of=day)
    assert imported(tmp_path).lists_kept == []


def test_a_list_with_another_past_is_kept_and_named(tmp_path: Path, source: MetadataStore) -> None:
    MetadataStore(tmp_path / "store").store("big", LISTS["2022-01-18"], on="2022-01-03")

    assert imported(tmp_path).lists_kept == ["big"]
    assert list(MetadataStore(tmp_path / "store").members("big", as_of="2022-01-03")) == LISTS["2022-01-18"]
