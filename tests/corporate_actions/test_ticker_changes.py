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
from data_engine.market.corporate_action import CEASED, concerned_symbols, decode
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


@pytest.mark.parametrize(
    "kind", [*CEASED, "name_change", "forward_split", "reverse_split", "cash_dividend", "rights_distribution"]
)
def test_a_record_that_may_tell_of_a_new_ticker_concerns_both_tickers(kind):
    """Also if it cannot be read: then the actions of neither are complete."""
    record = {"symbol": "A", "old_symbol": "A", "new_symbol": "B", "process_date": "2023-01-03", "ex_date": "2023-01-03"}
    made = ticker_changes_of([decode(kind, record)])

    assert {one.new for one in made} == ({"B"} if kind in ("name_change", "reverse_split") else {None} if made else set())
    for broken in (record, {**record, "process_date": "0000-00-00"}):
        concerned = concerned_symbols(kind, broken)
        assert concerned == (("A", "B") if any(one.new for one in made) else ("A",))


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


# Securities that cease to exist


def ends(kind, **record):
    return ticker_changes_of([decode(kind, {"process_date": "2023-07-20", **record})])


@pytest.mark.parametrize(
    ("kind", "record", "said"),
    [
        ("stock_merger", {"acquiree_symbol": "LSI", "acquirer_symbol": "EXR"}, "LSI merged into EXR on 2023-07-20"),
        ("stock_and_cash_merger", {"acquiree_symbol": "LSI", "acquirer_symbol": "EXR"}, "LSI merged into EXR on 2023-07-20"),
        ("cash_merger", {"acquiree_symbol": "LSI"}, "LSI bought on 2023-07-20"),
        ("cash_merger", {"acquiree_symbol": "LSI", "acquirer_symbol": "EXR"}, "LSI bought by EXR on 2023-07-20"),
        ("redemption", {"symbol": "LSI"}, "LSI redeemed on 2023-07-20"),
        ("worthless_removal", {"symbol": "LSI"}, "LSI removed as worthless on 2023-07-20"),
        ("reorganization", {"symbol": "LSI", "stock_movements": [{"symbol": "EXR"}]}, "LSI reorganized, now EXR on 2023-07-20"),
        ("unit_split", {"old_symbol": "LSI", "new_symbol": "EXR"}, "LSI split into its parts, now EXR on 2023-07-20"),
    ],
)
def test_a_security_that_ceases_to_exist_leaves_its_ticker(kind, record, said):
    """It may trade on the day itself; as of the day before, the ticker is its own in any case."""
    (left,) = ends(kind, **record)

    assert (str(left), left.new, left.effective) == (said, None, date(2023, 7, 20))
    assert (left.instant, left.last_day) == (utc(2023, 7, 21, 4), date(2023, 7, 19))
    assert ticker_change_of("LSI", known([left]), since=utc(2020, 1, 1)) == left
    assert ticker_change_of("LSI", known([left]), since=left.instant) is None, "the next owner"
    assert ticker_change_of("EXR", known([left])) is None
    assert tenures("LSI", left, known([left])) == (Tenure("LSI", None, left.day),)


@pytest.mark.parametrize("day", ["2023-07-17", "", None, "0000-00-00"])
def test_the_day_of_an_end_is_the_one_on_which_it_takes_effect(day):
    (left,) = ends("cash_merger", acquiree_symbol="GLOP", effective_date=day)

    assert left.effective == (date(2023, 7, 17) if day == "2023-07-17" else date(2023, 7, 20))


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        ("stock_merger", {"acquiree_symbol": "LSI", "acquirer_symbol": "LSI"}),
        ("reorganization", {"symbol": "LSI", "stock_movements": [{"symbol": "X"}, {"symbol": "LSI"}]}),
        ("unit_split", {"old_symbol": "LSI", "new_symbol": "LSI"}),
        ("partial_call", {"symbol": "LSI"}),
        ("rights_distribution", {"source_symbol": "LSI", "new_symbol": "LSIR"}),
        ("spin_off", {"source_symbol": "LSI", "new_symbol": "EXR", "source_rate": 1, "new_rate": 1, "ex_date": "2023-07-20"}),
    ],
)
def test_where_the_ticker_goes_on_nothing_ends(kind, record):
    assert ends(kind, **record) == ()


def test_a_ticker_that_is_taken_on_the_day_of_the_end_is_the_takers_on_that_day():
    """SBC took T on the day of its merger with the old AT&T."""
    day = {"process_date": "2005-11-21"}
    merger = decode("stock_merger", {"acquiree_symbol": "T", "acquirer_symbol": "SBC", **day})
    rename = decode("name_change", {"old_symbol": "SBC", "new_symbol": "T", **day})
    changes = ticker_changes_of([merger, rename])

    left = ticker_change_of("T", known(changes), since=utc(2000, 1, 1), begun=utc(2005, 1, 1))
    assert (left.new, left.instant, left.last_day) == (None, utc(2005, 11, 21, 5), date(2005, 11, 20))
    assert ticker_change_of("T", known(changes), since=utc(2000, 1, 1)) is None


def test_what_was_begun_after_an_end_and_has_no_bar_of_before_is_the_next_owners():
    """No action tells of a new listing: SentinelOne took S a year after Sprint's merger."""
    (left,) = ends("stock_merger", acquiree_symbol="S", acquirer_symbol="TMUS", effective_date="2020-04-01")
    late = {"since": utc(2016, 1, 4), "begun": utc(2026, 1, 1)}

    assert ticker_change_of("S", known([left]), first_bar=utc(2021, 6, 30), **late) is None
    assert ticker_change_of("S", known([left]), first_bar=utc(2016, 1, 4), **late) == left
    assert ticker_change_of("S", known([left]), since=utc(2016, 1, 4), first_bar=utc(2021, 6, 30), begun=utc(2020, 1, 1)) == left


# Tickers that come back, and former owners


def test_a_security_that_comes_back_to_its_ticker_has_not_left_it():
    """A was renamed to B, to C, and to A again; X had the ticker A meanwhile."""
    out, on, back = (
        TickerChange(*one) for one in (("A", "B", date(2020, 1, 2)), ("B", "C", date(2020, 6, 1)), ("C", "A", date(2021, 1, 4)))
    )
    other = [TickerChange("X", "A", date(2020, 3, 2)), TickerChange("A", "Y", date(2020, 9, 1))]
    changes = known([out, on, back, *other])
    begun = {"since": utc(2019, 1, 2), "begun": utc(2019, 1, 3)}

    assert ticker_change_of("A", known([out, on, *other]), **begun) == out
    assert ticker_change_of("A", changes, **begun) is None
    assert ticker_change_of("A", changes, since=utc(2019, 1, 2)) is None
    assert ticker_change_of("B", changes, **begun) == on
    assert ticker_change_of("C", changes, **begun) == back
    assert ticker_change_of("A", changes, since=utc(2020, 3, 2), begun=utc(2020, 4, 1)) == other[1], "the series of X"
    again = TickerChange("A", "Z", date(2024, 1, 2))
    assert ticker_change_of("A", known([out, on, back, *other, again]), **begun) == again


def test_a_former_owner_ends_where_it_left_after_its_day():
    (merged,) = ends("stock_merger", acquiree_symbol="S", acquirer_symbol="TMUS", effective_date="2020-04-01")

    assert ticker_change_of("S@2020-03-31", known([merged])) == merged
    assert ticker_change_of("S@2018-01-02", known([merged])) == merged
    assert ticker_change_of("FB@2022-06-08", known([FB])) == FB
    assert ticker_change_of("META@2021-01-04", known([FB, METV])) == METV
    assert tenures("FB@2022-06-08", FB, known([FB]))[-1] == Tenure("META", FB.day)
    alone = ticker_change_of("S@2020-03-31", known([]))
    assert (alone.instant, alone.last_day, alone.new) == (utc(2020, 4, 1, 4), date(2020, 3, 31), None)
    assert ticker_change_of("S@2020-05-01", known([merged])).instant == utc(2020, 5, 2, 4)
