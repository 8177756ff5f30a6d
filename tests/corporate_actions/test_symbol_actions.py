"""What is held of a symbol's actions: what has to be asked, what an answer changes, and the file."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.corporate_actions.symbol_actions import SymbolActions, dump, key, load, process_days
from data_engine.market.corporate_action import Action, decode
from data_engine.market.time_range import new_york_days

NOW = datetime(2024, 6, 28, 20, tzinfo=UTC)
TODAY = date(2024, 6, 28)
YEARS = new_york_days(date(2015, 1, 1), TODAY)


def dividend(ex: str, paid: str, rate: float = 0.25, **more: Any) -> Action:
    return decode("cash_dividend", {"symbol": "A", "ex_date": ex, "process_date": paid, "rate": rate, **more})


def answered(known: SymbolActions, wanted: Any = YEARS, found: list[Action] | None = None, now: datetime = NOW) -> Any:
    return known.answered(wanted, known.to_fetch(wanted), found or [], now=now)


def test_process_dates_are_requested_from_a_month_before_to_a_year_after_the_ex_dates():
    """A dividend is processed when it is paid, weeks after its ex-date; with due bills it goes ex after it was paid."""
    assert process_days(YEARS) == new_york_days(date(2014, 12, 1), date(2025, 6, 29))
    assert SymbolActions("A").to_fetch(YEARS) == (process_days(YEARS),)


def test_what_was_answered_is_covered_up_to_the_day_of_the_question():
    known, _, _ = answered(SymbolActions("A"), new_york_days(date(2024, 1, 1), date(2024, 12, 31)))

    assert known.covered == (new_york_days(date(2024, 1, 1), TODAY),)
    assert known.missing(new_york_days(date(2024, 1, 1), TODAY)) == ()
    tomorrow = new_york_days(TODAY, TODAY + timedelta(days=1))
    assert known.missing(tomorrow) == (new_york_days(TODAY + timedelta(days=1), TODAY + timedelta(days=1)),)


def test_only_what_may_still_change_is_requested_again():
    known, _, _ = answered(SymbolActions("A"))

    later = new_york_days(date(2015, 1, 1), TODAY + timedelta(days=1))
    assert known.to_fetch(later) == (new_york_days(TODAY - timedelta(days=30), TODAY + timedelta(days=367)),)
    assert known.to_fetch(new_york_days(date(2016, 1, 1), date(2022, 12, 31))) == ()


def test_an_earlier_start_asks_for_the_years_before_alone():
    known, _, _ = answered(SymbolActions("A"))

    assert known.to_fetch(new_york_days(date(2010, 1, 1), date(2016, 1, 1))) == (
        new_york_days(date(2009, 12, 1), date(2014, 11, 30)),
    )


def test_a_response_adds_changes_and_removes_what_was_withdrawn():
    old, moved, gone = (
        dividend("2020-05-08", "2020-05-14", id="old"),
        dividend("2024-06-20", "2024-07-01", id="moved"),
        dividend("2024-06-21", "2024-07-02", id="gone"),
    )
    known, new, lost = answered(SymbolActions("A"), found=[gone, moved, old])
    assert (known.actions, new, lost) == ((old, moved, gone), (gone, moved, old), ())

    changed = dividend("2024-06-25", "2024-07-05", 0.3, id="moved")
    known, new, lost = answered(known, found=[changed], now=NOW + timedelta(days=1))

    assert (known.actions, new, lost) == ((old, changed), (changed,), (gone,))


def test_what_comes_unasked_is_kept_and_covers_nothing():
    known = SymbolActions("A").mentioned([dividend("2020-05-08", "2020-05-14")])

    assert (len(known.actions), known.covered, known.settled) == (1, (), ())
    assert known.mentioned(known.actions) is known


def test_the_file_is_json_that_reads_without_this_program():
    known, _, _ = answered(SymbolActions("A"), found=[dividend("2020-05-08", "2020-05-14", 0.205, id="x", foreign=False)])
    said = json.loads(dump(known))

    assert said == {
        "format": 1,
        "symbol": "A",
        "covered": [["2015-01-01", "2024-06-28"]],
        "settled": [["2014-12-01", "2024-05-28"]],
        "fetched": "2024-06-28T20:00:00Z",
        "checked": "2024-06-28T20:00:00Z",
        "by": None,
        "actions": [
            {
                "type": "cash_dividend", "symbol": "A", "ex_date": "2020-05-08", "process_date": "2020-05-14", "rate": 0.205,
                "id": "x", "foreign": False,
            }
        ],
    }  # fmt: skip


def test_a_symbol_that_cannot_be_a_file_name_is_encoded():
    assert key("BRK.B") == "metadata/actions/symbol=BRK.B.json"
    assert key("A/B.") == "metadata/actions/symbol=A%2FB%2E.json"


@given(
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 60), st.floats(0, 100)), max_size=10),
    st.integers(0, 3000),
    st.integers(0, 3000),
)
def test_the_file_gives_the_book_back(dividends, first, length):
    begin = date(2012, 1, 1)
    wanted = new_york_days(begin + timedelta(days=first), begin + timedelta(days=first + length))
    found = [
        dividend((begin + timedelta(days=ex)).isoformat(), (begin + timedelta(days=ex + lag)).isoformat(), rate)
        for ex, lag, rate in dividends
    ]
    known, _, _ = answered(SymbolActions("A"), wanted, found)

    assert load(dump(known), "A") == known
    assert load(dump(SymbolActions("A")), "A") == SymbolActions("A")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "Expecting"),
        (b"[]", "format is not 1"),
        (b'{"format": 2}', "format is not 1"),
        (b'{"format": 1, "symbol": "B"}', "'B'"),
        (b'{"format": 1, "symbol": "A"}', "missing"),
        (b'{"format": 1, "symbol": "A", "actions": [{}], "covered": [], "settled": [], "fetched": null}', "without a type"),
        (b'{"format": 1, "symbol": "A", "actions": [], "covered": [["x", "y"]], "settled": [], "fetched": null}', "isoformat"),
    ],
)
def test_another_file_is_refused(data, said):
    with pytest.raises(ValueError, match=said):
        load(data, "A")
