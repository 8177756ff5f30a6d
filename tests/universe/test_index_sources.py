"""The files from which the past of an index is made."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

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
