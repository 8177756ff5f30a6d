"""Tickers that change hands: where a series ends, and under which names its security was known."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from data_engine.corporate_actions.ticker_changes import (
    Tenure,
    TickerChange,
    tenures,
    ticker_change_of,
    ticker_changes_of,
    until_ticker_change,
)
from data_engine.market.corporate_action import decode
from data_engine.market.time_range import TimeRange

FB = TickerChange("FB", "META", date(2022, 6, 9))
METV = TickerChange("META", "METV", date(2022, 1, 31))  # the fund that was META before Facebook
MIDNIGHT = datetime(2022, 6, 9, 4, tzinfo=UTC)


def known(changes):
    """Return a function from a ticker to those of some changes that concern it."""
    return lambda ticker: [one for one in changes if ticker in (one.old, one.new)]


def utc(*words: int) -> datetime:
    return datetime(*words, tzinfo=UTC)


def test_names_changes_are_found_among_actions_and_reverse_splits_may_bring_one():
    change = decode("name_change", {"old_symbol": "FB", "new_symbol": "META", "process_date": "2022-06-09"})
    rates = {"new_rate": 1, "old_rate": 10, "ex_date": "2023-01-03", "process_date": "2023-01-03"}
    split = decode("reverse_split", {"symbol": "A", "new_symbol": "AD", **rates})
    plain = decode("reverse_split", {"symbol": "B", "new_symbol": "", **rates})

    assert ticker_changes_of([split, plain, change, change]) == (FB, TickerChange("A", "AD", date(2023, 1, 3)))
    assert str(FB) == "FB renamed to META on 2022-06-09"
    assert FB.instant == MIDNIGHT


def test_a_series_ends_where_its_security_left_the_ticker():
    assert ticker_change_of("FB", known([FB])) == FB
    assert ticker_change_of("FB", known([FB]), since=utc(2015, 1, 1), begun=utc(2026, 1, 1)) == FB


def test_a_series_that_begins_after_that_is_the_next_owners():
    assert ticker_change_of("FB", known([FB]), since=MIDNIGHT) is None


def test_the_taker_keeps_its_whole_history():
    assert ticker_change_of("META", known([FB])) is None
    assert ticker_change_of("META", known([FB, METV]), since=utc(2015, 1, 1)) is None


def test_a_series_that_was_stored_before_the_ticker_was_taken_is_the_old_owners():
    assert ticker_change_of("META", known([FB, METV]), since=utc(2021, 7, 1), begun=utc(2022, 1, 3)) == METV
    assert ticker_change_of("META", known([FB, METV]), since=utc(2021, 7, 1), begun=utc(2022, 7, 1)) is None


def test_on_the_day_of_a_swap_the_ticker_is_the_takers():
    """2020-02-29: Ingersoll Rand became TT, and Gardner Denver became IR."""
    day = date(2020, 2, 29)

    assert ticker_change_of("IR", known([TickerChange("IR", "TT", day), TickerChange("GDI", "IR", day)])) is None


def test_what_is_wanted_is_cut_at_new_yorks_midnight():
    whole, before, after = (
        TimeRange(utc(*a), utc(*b))
        for a, b in (((2022, 1, 1), (2025, 1, 1)), ((2015, 1, 1), (2016, 1, 1)), ((2023, 1, 1), (2024, 1, 1)))
    )

    assert until_ticker_change([before, whole, after], FB) == (before, TimeRange(whole.start, MIDNIGHT))
    assert until_ticker_change([after], FB) == ()
    assert until_ticker_change([after, before], None) == (before, after)


@pytest.mark.parametrize(
    ("symbol", "left", "expected"),
    [
        ("META", None, [Tenure("FB", None, FB.day), Tenure("META", FB.day)]),
        ("FB", FB, [Tenure("FB", None, FB.day), Tenure("META", FB.day)]),
        ("AAPL", None, [Tenure("AAPL")]),
        (
            "PSKY",
            None,
            [
                Tenure("CBS", None, date(2019, 12, 4)),
                Tenure("VIAC", date(2019, 12, 4), date(2022, 2, 14)),
                Tenure("PARA", date(2022, 2, 14), date(2025, 8, 7)),
                Tenure("PSKY", date(2025, 8, 7)),
            ],
        ),
    ],
)
def test_a_security_is_followed_through_its_names(symbol, left, expected):
    chain = [
        FB,
        METV,
        TickerChange("CBS", "VIAC", date(2019, 12, 4)),
        TickerChange("VIAC", "PARA", date(2022, 2, 14)),
        TickerChange("PARA", "PSKY", date(2025, 8, 7)),
    ]

    assert tenures(symbol, left, known(chain)) == tuple(expected)


def test_names_that_go_round_come_to_an_end():
    there, back = TickerChange("A", "B", date(2020, 1, 2)), TickerChange("B", "A", date(2021, 1, 4))

    assert tenures("A", None, lambda _name: [there, back]) == (
        Tenure("A", None, there.day),
        Tenure("B", there.day, back.day),
        Tenure("A", back.day),
    )


def test_a_series_stays_its_first_owners_whoever_comes_and_goes():
    """A left X in March, B took and left it, C has it: a series that was begun under A ends in March."""
    renames = [
        TickerChange("X", "A", date(2026, 3, 2)),
        TickerChange("BOLD", "X", date(2026, 4, 1)),
        TickerChange("X", "B", date(2027, 5, 3)),
        TickerChange("COLD", "X", date(2027, 6, 1)),
    ]

    assert ticker_change_of("X", known(renames), since=utc(2020, 1, 1), begun=utc(2026, 1, 5)) == renames[0]
    assert (
        ticker_change_of("X", known(renames), since=utc(2020, 1, 1), begun=utc(2026, 3, 20)) == renames[0]
    )  # nobody had it: the last one
    assert ticker_change_of("X", known(renames), since=utc(2020, 1, 1), begun=utc(2026, 9, 1)) == renames[2]
    assert ticker_change_of("X", known(renames), since=utc(2020, 1, 1), begun=utc(2027, 7, 1)) is None
    assert ticker_change_of("X", known(renames), since=utc(2020, 1, 1)) is None
