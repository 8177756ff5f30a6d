"""The forms in which others publish what an index was."""

from __future__ import annotations

from datetime import date

import pytest
import yaml

from data_engine.errors import SymbolListError
from data_engine.market.symbol import check_symbol
from data_engine.store.csv_document import load_rows
from data_engine.universe.index_files import dump_history, load_history, names_days, read_dated
from data_engine.universe.membership import MembershipChange
from real_data import real


def read(text: str):
    return read_dated(text, "f.csv", check_symbol)


def changes(text: str) -> list[tuple[str, str, str]]:
    return [(event.day.isoformat(), event.action, event.symbol) for event in read(text).changes]


def test_one_change_a_line_with_other_columns_beside_it():
    text = (
        'date,action,ticker,name,reason\r\n2024-01-02,Added,brk.b,"Berkshire, Inc","two\r\nlines"\r\n2024-01-03,removed,A,,\r\n'
    )

    assert changes(text) == [("2024-01-02", "added", "BRK.B"), ("2024-01-03", "removed", "A")]
    assert [event.place for event in read(text).changes] == ["f.csv: line 3", "f.csv: line 4"]


def test_several_symbols_in_a_cell_and_who_leaves_does_so_first():
    text = 'date,add,remove\n2024-01-02,"C, D","A"\n2024-01-03,"",B\n2024-01-04,E,\n'

    assert changes(text) == [
        ("2024-01-02", "removed", "A"),
        ("2024-01-02", "added", "C"),
        ("2024-01-02", "added", "D"),
        ("2024-01-03", "removed", "B"),
        ("2024-01-04", "added", "E"),
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_cells_are_separated_as_spreadsheets_do(separator):
    assert changes("\ufeffDate,Action,Symbol\n2024-01-02,added,A\n".replace(",", separator)) == [("2024-01-02", "added", "A")]


def test_newest_first_is_turned_round():
    text = "date,action,symbol\n2024-01-03,removed,A\n2024-01-03,added,B\n2024-01-02,added,A\n"

    assert changes(text) == [("2024-01-02", "added", "A"), ("2024-01-03", "added", "B"), ("2024-01-03", "removed", "A")]


def test_a_list_with_days_is_one_list_a_day():
    made = read("effective_date,ticker\n2024-01-02,A\n2024-01-02,B\n2025-01-02,A\n")

    assert [(one.day, one.symbols, one.place) for one in made.snapshots] == [
        (date(2024, 1, 2), ("A", "B"), "f.csv: line 2"),
        (date(2025, 1, 2), ("A",), "f.csv: line 4"),
    ]
    assert made.changes == []


def test_our_own_history_is_such_a_file():
    events = [MembershipChange(date(2024, 1, 2), "added", "NA"), MembershipChange(date(2024, 1, 3), "removed", "NA")]

    assert changes(dump_history(events).decode()) == [("2024-01-02", "added", "NA"), ("2024-01-03", "removed", "NA")]
    assert load_history(dump_history(events), check_symbol) == events


def test_everything_that_is_wrong_is_named_with_line_and_value():
    text = "date,action,symbol\n2024-01-32,added,A\n05/01/2024,added,A\n2024-01-02,left,A\n2024-01-02,added,\n2024-01-02,added\n"

    with pytest.raises(SymbolListError) as caught:
        read(text)

    lines = str(caught.value).splitlines()
    assert lines[0] == "f.csv: 5 lines cannot be read"
    assert lines[1].startswith("  line 2: '2024-01-32' is not a day (")
    assert lines[2:] == [
        "  line 3: '05/01/2024' is not a day such as 2024-01-31",
        "  line 4: the action must be added or removed, is 'left'",
        "  line 5: not a symbol: '' is empty",
        "  line 6: has 2 cells instead of 3; add the missing cell",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("date,old_symbol,new_symbol\n2024-01-02,A,B\n", "its first line is 'date,old_symbol,new_symbol'"),
        ("", "its first line is 'nothing'"),
        ("date,action,symbol\n", "neither a change nor a list"),
        ("date,add,remove\n2024-01-02,,\n", "line 2: "),
        ('date,action,symbol\n2024-01-02,added,"A\n', "is broken"),
        ("year: 2024\nchanges:\n  '2024-01-02':\n      - A\n", "line 4: 'A' "),
        ("year: 2024\ntickers:\n", "line 2: 'tickers:' "),
    ],
    ids=["renames", "empty", "no-row", "no-symbol", "quote", "yaml-without-action", "yaml-unknown"],
)
def test_what_is_no_such_file_is_refused_by_name(text, said):
    with pytest.raises(SymbolListError, match=r"^f\.csv: ") as caught:
        read(text)

    assert said in str(caught.value)


def test_a_year_in_yaml_where_the_ticker_on_is_a_ticker():
    text = (
        "---\n# comment\nyear: 2024\ntickers_on_Jan_1:\n  - ON\n  - 'A'  # quoted\n\nchanges:\n  '2024-02-01':\n    difference:\n"
        '      - ON\n    union:\n      - "NO"\n  2024-03-01:\n    union: []\n'
    )
    made = read(text)

    assert [(one.day, one.symbols) for one in made.snapshots] == [(date(2024, 1, 1), ("ON", "A"))]
    assert changes(text) == [("2024-02-01", "removed", "ON"), ("2024-02-01", "added", "NO")]


@pytest.mark.parametrize("year", range(2015, 2022))
def test_the_real_yaml_says_what_a_yaml_library_reads(year):
    path = real(f"universe/n100_history/n100-ticker-changes-{year}.yaml")
    theirs = yaml.safe_load(path.read_text())
    expected = {
        (str(day), action, symbol)
        for day, of_day in theirs["changes"].items()
        for word, action in (("difference", "removed"), ("union", "added"))
        for symbol in of_day.get(word, [])
    }

    made = read(path.read_text())

    assert {(event.day.isoformat(), event.action, event.symbol) for event in made.changes} == expected
    assert [list(one.symbols) for one in made.snapshots] == [theirs["tickers_on_Jan_1"]]


@pytest.mark.parametrize(
    ("header", "answer"), [("effective_date,ticker", True), ('"Date";"Symbol"', True), ("symbol,added_date", False), ("A", False)]
)
def test_a_list_says_of_which_day_it_is_or_not(header, answer):
    assert names_days(f"\ufeff\n{header}\n2024-01-02,A\n") is answer


def test_a_damaged_file_of_ours_is_named_by_its_line():
    with pytest.raises(ValueError, match=r"line 3: .*1 .*2"):
        load_rows(b"a,b\r\n1,2\r\n3\r\n", ("a", "b"), lambda *_: None)
