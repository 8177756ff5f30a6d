"""`verify` tells of a list that differs from its history, and of one whose history is gone."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from data_engine import MetadataStore
from data_engine.store.bar_store import BarStore
from data_engine.store.local_files import LocalFiles
from data_engine.store.selection import DatasetFilter
from data_engine.verify.verify import verify

LIST, HISTORY = "metadata/indices/big.csv", "metadata/indices/history/big.csv"
DIFFERS, GONE = ("index_differs", LIST), ("index_history_missing", HISTORY)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    lists = MetadataStore(tmp_path, now=lambda: datetime(2022, 1, 3, 15, tzinfo=UTC))
    lists.store("big", ["AAPL", "XYZ"], on="2020-01-02")
    lists.store("big", ["AAPL", "NEW"], on="2022-01-03", force=True)
    return tmp_path


def found(base: Path) -> list[tuple[str, str]]:
    report = verify(BarStore(LocalFiles(base)), DatasetFilter.parse(None), None, now=datetime(2024, 6, 3, tzinfo=UTC))
    return [(one.code, one.key) for one in report.findings if one.code != "history_ends" or one.key == HISTORY]


@pytest.mark.parametrize(
    ("listed", "symbols"),
    [
        ("AAPL,2020-01-02\nNEW,2022-01-03T15:00:00Z\n", None),
        ("NEW,2022-01-03\nAAPL,2020-01-02\n", None),  # another order, and no time of day
        ("AAPL,2019-06-03\nNEW,2022-01-03\n", None),  # a member of the first list may have been one before
        ("AAPL,2020-01-02\nXYZ,2020-01-02\n", "NEW XYZ"),
        ("AAPL,2020-01-02\n", "NEW"),
        ("AAPL,2020-01-02\nNEW,2020-01-02\n", "NEW"),
        ("AAPL,2020-01-03\nNEW,2022-01-03\n", "AAPL"),
        (None, "AAPL NEW"),
    ],
    ids=["as-stored", "sorted-by-hand", "an-earlier-day", "of-before", "one-lacks", "day-of-before", "a-later-day", "no-list"],
)
def test_a_list_that_differs_from_its_history_is_named_with_the_symbols(
    base: Path, listed: str | None, symbols: str | None
) -> None:
    if listed is None:
        (base / LIST).unlink()
    else:
        (base / LIST).write_text("symbol,added_date\n" + listed)

    assert found(base) == ([] if symbols is None else [DIFFERS])
    assert MetadataStore(base).outdated("big") == (symbols or "").split()
    MetadataStore(base).store("big", ["AAPL", "NEW"])
    assert found(base) == []


def test_a_list_whose_history_is_gone_is_named(base: Path) -> None:
    (base / HISTORY).unlink()
    assert found(base) == [GONE]


def test_a_list_that_never_had_a_history_is_sound(tmp_path: Path) -> None:
    (tmp_path / LIST).parent.mkdir(parents=True)
    (tmp_path / LIST).write_text("symbol,added_date\nAAPL,2019-01-02\nNEW,2022-01-03\n")
    assert found(tmp_path) == []
    assert MetadataStore(tmp_path).members("big") == {"AAPL": date(2019, 1, 2), "NEW": date(2022, 1, 3)}
