"""Who was a member on which day: events, histories made of others' lists, and ranges."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.errors import InputError
from data_engine.market.bars import make_table, timestamps_us
from data_engine.market.time_range import TimeRange
from data_engine.universe.index_files import read_sources
from data_engine.universe.membership import (
    ADDED,
    FOREVER,
    REMOVED,
    MembershipChange,
    Snapshot,
    build_history,
    continue_history,
    differences,
    keep_members,
    member_rows,
    members_within,
    memberships,
    replay,
)
from real_data import real

D = [date(2024, 1, 1) + timedelta(days=number) for number in range(12)]
CHANGES, SEED, CURRENT = (f"universe/pitindex/sp500_{name}.csv" for name in ("changes", "seed", "current"))


def added(day: date, *symbols: str) -> list[MembershipChange]:
    return [MembershipChange(day, ADDED, symbol, "f: line 1") for symbol in symbols]


def removed(day: date, *symbols: str) -> list[MembershipChange]:
    return [MembershipChange(day, REMOVED, symbol, "f: line 2") for symbol in symbols]


def listed(day: date | None, *symbols: str) -> Snapshot:
    return Snapshot(day, symbols, "list")


def plain(events: Iterable[MembershipChange]) -> list[tuple[date, str, str]]:
    return [(event.day, event.action, event.symbol) for event in events]


# -------------------------------------------------------------------------------------------------------------- memberships


def test_a_member_is_one_from_midnight_of_the_day_it_is_added_to_midnight_of_the_day_it_is_removed():
    events = [MembershipChange(date(2024, 3, 8), ADDED, "A"), MembershipChange(date(2024, 3, 11), REMOVED, "A")]

    # The clocks of New York changed on 10 March 2024.
    assert memberships(events, "A") == (TimeRange(datetime(2024, 3, 8, 5, tzinfo=UTC), datetime(2024, 3, 11, 4, tzinfo=UTC)),)


def test_who_is_still_a_member_is_one_for_ever_and_a_stranger_never():
    events = added(D[0], "A")

    assert [piece.end for piece in memberships(events, "A")] == [FOREVER]
    assert memberships(events, "B") == ()


def test_who_leaves_and_returns_has_two_ranges_and_on_one_day_one():
    again = [*added(D[0], "A", "B"), *removed(D[2], "A", "B"), *added(D[2], "B"), *added(D[4], "A")]

    assert len(memberships(again, "A")) == 2
    assert len(memberships(again, "B")) == 1


def test_who_is_removed_on_the_day_it_was_added_never_was_a_member():
    assert memberships([*added(D[1], "A"), *removed(D[1], "A")], "A") == ()


def test_members_within_a_span_are_clipped_to_it_and_sorted():
    events = [*added(D[0], "B", "A", "C"), *removed(D[3], "B"), *removed(D[5], "A")]
    span = TimeRange(datetime(2024, 1, 4, 12, tzinfo=UTC), datetime(2024, 1, 8, tzinfo=UTC))

    found = members_within(events, span)

    assert list(found) == ["A", "C"]  # B left at midnight before the span
    assert found["C"] == (span,)
    assert found["A"] == (TimeRange(span.start, datetime(2024, 1, 6, 5, tzinfo=UTC)),)


events_of_a = st.lists(st.tuples(st.integers(0, 11), st.sampled_from([ADDED, REMOVED])), max_size=10)


@given(events_of_a)
def test_ranges_agree_with_replaying_every_day(made):
    events = [MembershipChange(D[day], action, "A") for day, action in sorted(made, key=lambda one: one[0])]
    noons = [datetime(2024, 1, 1, 17, tzinfo=UTC) + timedelta(days=number) for number in range(12)]

    by_day = ["A" in replay(events, day) for day in D]

    assert [any(noon in piece for piece in memberships(events, "A")) for noon in noons] == by_day
    times = np.array([pd.Timestamp(noon).value // 1000 for noon in noons])
    assert member_rows(times, memberships(events, "A")).tolist() == by_day


def test_a_step_of_reading_keeps_the_bars_of_the_days_as_a_member_of_their_first_instant_and_not_of_their_last():
    span = TimeRange(datetime(2024, 1, 2, 5, tzinfo=UTC), datetime(2024, 1, 3, 5, tzinfo=UTC))
    starts = [span.start - timedelta(minutes=1), span.start, span.end - timedelta(minutes=1), span.end]
    times = np.array([pd.Timestamp(start).value // 1000 for start in starts])
    table = make_table(times, [np.arange(4.0)] * 7)
    step = keep_members({"A": (span,)})

    assert timestamps_us(step("A", table)).tolist() == times[1:3].tolist()
    assert step("A", table).schema == table.schema
    assert step("B", table).num_rows == 0
    assert step("A", pa.Table.from_batches([], table.schema)).num_rows == 0


# ------------------------------------------------------------------------------------------------------ histories of others


def test_a_first_list_and_changes_go_forwards():
    made = build_history([*removed(D[3], "A"), *added(D[3], "C")], [listed(D[0], "A", "B")])

    assert plain(made.events) == [
        (D[0], ADDED, "A"),
        (D[0], ADDED, "B"),
        (D[3], REMOVED, "A"),
        (D[3], ADDED, "C"),
    ]
    assert (made.until, made.warnings) == (D[3], ())


def test_a_last_list_and_changes_go_backwards_to_the_day_of_the_first_change():
    made = build_history(
        [*removed(D[1], "X"), *added(D[1], "A"), *removed(D[3], "B"), *added(D[3], "C")], [listed(None, "C", "A")]
    )

    # What was before the first change had been so for nobody knows how long.
    assert sorted(plain(made.events)[:2]) == [(D[1], ADDED, "A"), (D[1], ADDED, "B")]
    assert plain(made.events)[2:] == [(D[3], REMOVED, "B"), (D[3], ADDED, "C")]


def test_whoever_knows_since_when_the_changes_are_complete_can_say_so():
    made = build_history([*removed(D[2], "X"), *added(D[2], "A")], [listed(None, "A")], since=D[0])

    assert plain(made.events) == [(D[0], ADDED, "X"), (D[2], REMOVED, "X"), (D[2], ADDED, "A")]
    with pytest.raises(InputError, match=r"since 2024-01-04 .* 2024-01-03"):
        build_history([*removed(D[2], "X"), *added(D[2], "A")], [listed(None, "A")], since=D[3])


def test_a_list_in_the_middle_goes_both_ways():
    made = build_history([*added(D[1], "A"), *added(D[5], "B")], [listed(D[3], "A")])

    assert [sorted(replay(made.events, day)) for day in (D[1], D[4], D[5])] == [["A"], ["A"], ["A", "B"]]


FILLING = [event for number in range(5) for event in added(D[5], f"N{number}")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (removed(D[2], "Z"), "f: line 2: Z removed on 2024-01-03, though it is no member before that; ignored"),
        (added(D[2], "A"), "f: line 1: A added on 2024-01-03, though it is a member before that; ignored"),
    ],
    ids=["removed-though-no-member", "added-twice"],
)
def test_a_contradiction_forwards_is_named_with_its_line_and_has_no_effect(change, said):
    made = build_history([*change, *FILLING], [listed(D[0], "A")])

    assert made.warnings == (said,)
    assert sorted(replay(made.events, D[4])) == ["A"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (removed(D[2], "A"), "f: line 2: A removed on 2024-01-03, though it is a member after that; ignored"),
        (added(D[2], "Z"), "f: line 1: Z added on 2024-01-03, though it is no member after that; ignored"),
    ],
    ids=["removed-and-still-there", "added-and-not-there"],
)
def test_a_contradiction_backwards_is_named_with_its_line_and_has_no_effect(change, said):
    made = build_history([*change, *FILLING], [listed(None, "A", *(event.symbol for event in FILLING))])

    assert made.warnings == (said,)
    assert sorted(replay(made.events, D[4])) == ["A"]


def test_where_more_than_a_fifth_contradicts_it_is_an_error_that_names_the_lines_unless_forced():
    changes = [*removed(D[2], "Z"), *added(D[3], "B", "C", "E")]

    with pytest.raises(InputError, match=r"1 of 4 changes(.|\n)*--force(.|\n)*f: line 2: Z removed on 2024-01-03"):
        build_history(changes, [listed(D[0], "A")])

    assert sorted(replay(build_history(changes, [listed(D[0], "A")], force=True).events)) == ["A", "B", "C", "E"]


def test_a_later_list_is_used_and_its_differences_are_named():
    changes = [*added(D[2], "B"), *removed(D[8], "Q"), *removed(D[9], "A")]

    made = build_history(changes, [listed(D[0], "A", "Q"), listed(D[5], "A", "X", "B")], force=True)

    assert made.warnings == ("list: the list of 2024-01-06 differs from the result of the changes: -Q +X; it is used",)
    assert [sorted(replay(made.events, day)) for day in (D[4], D[5], D[8], D[9])] == [
        ["A", "B", "Q"],
        ["A", "B", "X"],
        ["A", "B", "X"],
        ["B", "X"],
    ]


def test_changes_without_any_list_are_refused():
    with pytest.raises(InputError, match="--members"):
        build_history(added(D[0], "A"), [])
    with pytest.raises(InputError, match="--as-of"):
        build_history([], [listed(None, "A")])


def test_what_a_store_has_noted_later_goes_on_and_what_nobody_explains_is_named():
    made = build_history(added(D[2], "B"), [listed(D[0], "A")])
    stored = [*added(D[6], "A", "C"), *added(D[8], "E")]

    both = continue_history(made, stored)

    assert [sorted(replay(both.events, day)) for day in (D[2], D[5], D[6], D[8])] == [
        ["A", "B"],
        ["A", "B"],
        ["A", "C"],
        ["A", "C", "E"],
    ]
    assert both.until == D[8]
    assert both.warnings == ("the list stored on 2024-01-07 differs from the imported one: -B +C; no change explains it",)


def test_what_a_store_says_of_imported_days_is_forgotten():
    made = build_history(added(D[2], "B"), [listed(D[0], "A")])

    assert continue_history(made, [*added(D[1], "Q"), *added(D[2], "A")]) == made


@given(st.lists(st.tuples(st.integers(0, 11), st.sets(st.sampled_from("ABCDE"))), max_size=8), st.integers(0, 11))
def test_from_a_list_of_any_day_the_same_history_comes(steps, at):
    lists: dict[date, set[str]] = {}
    now: set[str] = set("AB")
    events: list[MembershipChange] = []
    for number, day in enumerate(D):
        wanted = next((symbols for step, symbols in steps if step == number), now)
        events += differences(sorted(now), sorted(wanted), day)
        now = wanted
        lists[day] = now

    made = build_history(events, [listed(D[at], *sorted(lists[D[at]]))])

    assert made.warnings == ()
    first = made.events[0].day if made.events else D[at]
    assert [set(replay(made.events, day)) for day in D if day >= first] == [lists[day] for day in D if day >= first]


# ---------------------------------------------------------------------------------------------------------- the S&P 500 itself


def history(members: str):
    sources = read_sources([real(CHANGES)], real(members))
    return build_history(sources.changes, sources.snapshots)


def brute_force(day: str) -> set[str]:
    """Replay the seed's file to *day* with csv alone."""
    with real(SEED).open(newline="") as file:
        members = {row["ticker"] for row in csv.DictReader(file)}
    with real(CHANGES).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["date"] <= day:
                (members.add if row["action"] == "added" else members.discard)(row["ticker"])
    return members


DAYS = [
    "2005-01-03",
    "2008-09-15",
    "2010-06-30",
    "2015-03-22",
    "2019-03-18",
    "2019-03-19",
    "2019-03-20",
    "2024-02-29",
    "2026-06-30",
]


@pytest.mark.parametrize("day", DAYS)
@pytest.mark.parametrize("members", [SEED, CURRENT], ids=["forwards", "backwards"])
def test_the_real_index_has_the_members_that_a_replay_by_hand_gives(members, day):
    made = history(members)

    assert set(replay(made.events, date.fromisoformat(day))) == brute_force(day)


def test_seed_and_1_026_real_changes_lead_to_the_current_list_without_a_contradiction():
    made = history(SEED)
    current = duckdb.sql(f"SELECT ticker FROM read_csv('{real(CURRENT)}')").fetchall()

    assert made.warnings == ()
    assert {(symbol,) for symbol in replay(made.events)} == set(current)
    assert len(current) == 503


def test_day_by_day_the_real_index_counts_as_many_members_as_pandas_sums_up():
    made = history(SEED)
    frame = pd.read_csv(real(CHANGES), parse_dates=["date"], keep_default_na=False)
    steps = frame["action"].map({"added": 1, "removed": -1}).groupby(frame["date"]).sum().cumsum()
    expected = 495 + steps.reindex(pd.date_range("2005-01-01", "2026-06-30"), method="ffill").fillna(0)
    noons = (expected.index.tz_localize("America/New_York") + pd.Timedelta(hours=12)).as_unit("us").asi8

    counted = np.zeros(len(noons), int)
    for symbol in {event.symbol for event in made.events}:
        counted += member_rows(noons, memberships(made.events, symbol))

    assert counted.tolist() == expected.astype(int).tolist()


def test_fox_that_passed_to_another_company_on_one_day_never_left():
    made = history(SEED)
    around = TimeRange(datetime(2019, 3, 1, tzinfo=UTC), datetime(2019, 4, 1, tzinfo=UTC))

    assert members_within(made.events, around)["FOX"] == (around,)


def test_another_list_with_cells_of_several_symbols_leads_back_from_wikipedias():
    sources = read_sources(
        [real("universe/sp500_changes_since_2019.csv")], real("universe/sp500_wikipedia_20251116.csv"), date(2025, 11, 16)
    )
    made = build_history(sources.changes, sources.snapshots)
    theirs = history(SEED)

    assert made.warnings == ()
    assert (made.events[0].day, len(replay(made.events, date(2019, 1, 18)))) == (date(2019, 1, 18), 505)
    # Two sources that know nothing of each other: they name some companies otherwise, no more.
    both = [set(replay(one.events, date(2020, 6, 30))) for one in (made, theirs)]
    assert len(both[0] & both[1]) >= 495


def test_seven_years_of_the_nasdaq_100_agree_with_each_new_years_list():
    folder = Path(real("universe/n100_history/n100-ticker-changes-2015.yaml")).parent
    sources = read_sources(sorted(folder.glob("*.yaml")))
    made = build_history(sources.changes, sources.snapshots)

    assert (len(sources.snapshots), made.warnings) == (7, ())
    for one in sources.snapshots:
        assert set(replay(made.events, one.day)) == set(one.symbols)


def test_the_changes_of_one_index_do_not_fit_another():
    sources = read_sources([real(CHANGES)], real("universe/nasdaq100_Ticker_col_20260125.csv"))

    with pytest.raises(InputError, match=r"changes do not fit(.|\n)*--as-of"):
        build_history(sources.changes, sources.snapshots)
