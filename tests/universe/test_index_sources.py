"""The files from which the past of an index is made."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from data_engine import MetadataStore
from data_engine.errors import InputError, MissingFileError, SymbolListError
from data_engine.universe.index_files import read_sources


@pytest.fixture
def changes(tmp_path: Path) -> Path:
    path = tmp_path / "changes.csv"
    path.write_text("date,action,symbol\n2024-01-02,added,A\n")
    return path


def test_several_files_of_changes_are_one_after_the_other(changes: Path, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("date,add,remove\n2024-02-01,B,A\n")

    made = read_sources([changes, tmp_path / "more.csv"])

    assert [event.place for event in made.changes] == ["changes.csv: line 2", "more.csv: line 2", "more.csv: line 2"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("list.csv", "Company,Ticker\nx,A\ny,B\n"), ("list.txt", "A  # first\nB\n")],
    ids=["csv", "text"],
)
def test_a_list_without_days_is_of_the_day_that_is_said(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)

    made = read_sources([], tmp_path / name, date(2024, 1, 2)).snapshots

    assert [(one.day, one.symbols, one.place) for one in made] == [(date(2024, 1, 2), ("A", "B"), name)]


def test_a_list_says_its_day_itself_unless_another_is_said(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("effective_date,ticker\n2004-12-30,A\n")

    assert [one.day for one in read_sources([], tmp_path / "list.csv").snapshots] == [date(2004, 12, 30)]
    assert [one.day for one in read_sources([], tmp_path / "list.csv", date(2005, 1, 1)).snapshots] == [date(2005, 1, 1)]


def test_what_cannot_be_read_is_an_error_of_ours(changes: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="nowhere"):
        read_sources([tmp_path / "nowhere.csv"])
    (tmp_path / "book.csv").write_bytes(b"PK\x03\x04")
    with pytest.raises(SymbolListError, match="Excel"):
        read_sources([tmp_path / "book.csv"])
    with pytest.raises(InputError, match=r"--changes.*--members"):
        read_sources([])
    with pytest.raises(InputError, match="--as-of and --column"):
        read_sources([changes], as_of=date(2024, 1, 1))


def test_changes_after_the_stored_list_go_on_from_it_import_by_import(tmp_path: Path) -> None:
    """A file of changes that grows is imported each month; the list was stored once. The truth is kept day by day."""
    swaps = [(date(2024, month, 5), f"X{month}", f"S{month}") for month in range(1, 11)] + [
        (date(2025, 3, 3), "S9", "NEW"),
        (date(2025, 5, 2), "NEW", "LAST"),
    ]
    first_list, first = {f"X{month}" for month in range(1, 11)}, date(2024, 1, 4)
    truth, inside, day = {}, set(first_list), first
    while day <= date(2025, 6, 30):
        for at, left, came in swaps:
            if at == day:
                inside = inside - {left} | {came}
        truth[day], day = inside, day + timedelta(days=1)
    MetadataStore(tmp_path / "store").store("idx", sorted(truth[date(2025, 1, 2)]), on="2025-01-02")
    path = tmp_path / "grows.csv"
    for today in (date(2025, 1, 31), date(2025, 3, 31), date(2025, 4, 30), date(2025, 6, 30), date(2025, 6, 30)):
        said = [(at, word, who) for at, left, came in swaps if at <= today for word, who in (("removed", left), ("added", came))]
        path.write_text("date,action,symbol\n" + "".join(f"{at},{word},{who}\n" for at, word, who in said))
        lists = MetadataStore(tmp_path / "store", today=lambda today=today: today)
        assert lists.import_history("idx", path, since=first).warnings == ()
        for day, members in truth.items():
            if day <= today:
                assert set(lists.members("idx", as_of=day)) == members, day
        assert set(lists.members("idx")) == truth[today]
