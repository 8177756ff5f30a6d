"""Ranges of time behave as the sets of instants that they stand for."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.market import time_range
from data_engine.market.time_range import (
    NEW_YORK,
    TimeRange,
    difference,
    from_iso,
    intersection,
    iso,
    missing,
    new_york_date,
    new_york_days,
    new_york_midnight,
    union,
)

NOON = datetime(2024, 6, 3, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def at(minute: int) -> datetime:
    return NOON + minute * MINUTE


def between(start: int, end: int) -> TimeRange:
    return TimeRange(at(start), at(end))


def as_set(ranges) -> set[int]:
    """Return the minutes in the ranges, found by asking about each."""
    return {n for n in range(-5, 70) for each in ranges if each.start <= at(n) < each.end}


a_range = (
    st.tuples(st.integers(0, 60), st.integers(0, 60)).filter(lambda pair: pair[0] < pair[1]).map(lambda pair: between(*pair))
)
some_ranges = st.lists(a_range, max_size=8)
an_instant = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))
a_day = st.dates(date(1990, 1, 1), date(2090, 1, 1))


# One range


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [
        pytest.param(NOON.replace(tzinfo=None), at(1), r"TimeRange\.start must be in UTC, was datetime", id="a-naive-start"),
        pytest.param(NOON, at(1).replace(tzinfo=None), r"TimeRange\.end must be in UTC", id="a-naive-end"),
        pytest.param(NOON.astimezone(NEW_YORK), at(1), r"TimeRange\.start must be in UTC", id="new-york"),
        pytest.param(NOON, at(1).astimezone(timezone(timedelta(hours=1))), r"TimeRange\.end must be in UTC", id="an-offset"),
        pytest.param(NOON, NOON, "must be after its start", id="empty"),
        pytest.param(at(1), NOON, "must be after its start", id="reversed"),
    ],
)
def test_a_range_is_in_utc_and_not_empty(start, end, why):
    with pytest.raises(ValueError, match=why):
        TimeRange(start, end)


@pytest.mark.parametrize(
    ("minute", "inside"),
    [
        pytest.param(9, False, id="before"),
        pytest.param(10, True, id="start-is-included"),
        pytest.param(19, True, id="inside"),
        pytest.param(20, False, id="end-is-excluded"),
    ],
)
def test_a_range_is_half_open(minute, inside):
    assert inside is (at(minute) in between(10, 20))


def test_a_range_says_what_it_is():
    assert str(between(0, 1)) == "2024-06-03T12:00:00Z .. 2024-06-03T12:01:00Z"
    assert between(0, 3).length == timedelta(minutes=3)


def test_a_range_survives_a_trip_to_another_process():
    assert pickle.loads(pickle.dumps(between(0, 1))) == between(0, 1)


@given(a_range, a_range)
def test_two_ranges_meet_in_what_both_hold(one, other):
    both = one.intersect(other)

    assert as_set([one]) & as_set([other]) == as_set([both] if both else [])
    assert both == other.intersect(one)


@given(a_range, st.integers(-5, 65))
def test_an_instant_cuts_a_range_in_two(whole, minute):
    early, late = whole.before(at(minute)), whole.after(at(minute))

    assert {n for n in as_set([whole]) if n < minute} == as_set([early] if early else [])
    assert {n for n in as_set([whole]) if n >= minute} == as_set([late] if late else [])


# Many ranges


def is_normal(ranges: tuple[TimeRange, ...]) -> bool:
    """Tell whether ranges are sorted, and apart from each other by at least a gap."""
    return all(left.end < right.start for left, right in pairwise(ranges))


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        pytest.param([], (), id="nothing"),
        pytest.param([between(0, 1), between(1, 2)], (between(0, 2),), id="touching-pieces-are-one"),
        pytest.param([between(0, 1), between(2, 3)], (between(0, 1), between(2, 3)), id="a-gap-stays"),
        pytest.param([between(0, 9), between(2, 3)], (between(0, 9),), id="a-piece-inside-another"),
        pytest.param([between(5, 6), between(0, 1)], (between(0, 1), between(5, 6)), id="order-does-not-matter"),
        pytest.param([between(0, 1), between(0, 1)], (between(0, 1),), id="twice-is-once"),
    ],
)
def test_a_union_is_as_few_ranges_as_possible(ranges, expected):
    assert expected == union(ranges)
    assert expected == union(iter(ranges))


@given(some_ranges)
def test_a_union_holds_the_same_instants(ranges):
    assert as_set(ranges) == as_set(union(ranges))
    assert is_normal(union(ranges))
    assert union(ranges) == union(union(ranges))


@given(some_ranges, some_ranges)
def test_a_difference_is_that_of_sets(wanted, taken):
    assert as_set(wanted) - as_set(taken) == as_set(difference(wanted, taken))
    assert is_normal(difference(wanted, taken))


@given(a_range, some_ranges)
def test_missing_is_the_difference_for_one_range(wanted, covered):
    assert as_set([wanted]) - as_set(covered) == as_set(missing(wanted, covered))


@given(a_range, some_ranges)
def test_filling_the_gaps_leaves_none(wanted, covered):
    assert missing(wanted, [*covered, *missing(wanted, covered)]) == ()


@given(some_ranges, some_ranges)
def test_an_intersection_is_that_of_sets(left, right):
    assert as_set(left) & as_set(right) == as_set(intersection(left, right))
    assert is_normal(intersection(left, right))
    assert intersection(left, right) == intersection(right, left)


@given(some_ranges, some_ranges)
def test_what_is_taken_and_what_is_left_are_the_whole(wanted, taken):
    assert union(wanted) == union([*difference(wanted, taken), *intersection(wanted, taken)])


def test_many_ranges_take_little_time():
    wanted = [between(4 * n, 4 * n + 2) for n in range(2000)]

    assert len(union(wanted)) == 2000
    assert intersection(wanted, wanted) == tuple(wanted)


def test_the_work_of_a_difference_grows_with_the_number_of_ranges_and_not_with_its_square(monkeypatch):
    """Counted, not timed: how often two instants are compared."""
    compared = 0

    class Cut:
        """A range that counts how often its start is looked at."""

        def __init__(self, inner: TimeRange) -> None:
            self._inner = inner

        @property
        def start(self) -> datetime:
            nonlocal compared
            compared += 1
            return self._inner.start

        @property
        def end(self) -> datetime:
            return self._inner.end

    def work(pieces: int) -> int:
        nonlocal compared
        compared = 0
        wanted = [between(4 * n, 4 * n + 3) for n in range(pieces)]
        taken = [between(4 * n + 1, 4 * n + 2) for n in range(pieces)]
        joined = {id(taken): tuple(map(Cut, taken))}
        monkeypatch.setattr(time_range, "union", lambda ranges: joined.get(id(ranges)) or tuple(ranges))
        assert len(difference(wanted, taken)) == 2 * pieces
        return compared

    assert work(1000) <= 4 * 1000
    assert work(2000) <= 4 * 2000


# Writing instants


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (datetime(2024, 6, 3, 4, tzinfo=UTC), "2024-06-03T04:00:00Z"),
        (datetime(2024, 6, 3, 4, 0, 0, 5, tzinfo=UTC), "2024-06-03T04:00:00.000005Z"),
    ],
)
def test_an_instant_is_written_with_a_z(instant, text):
    assert text == iso(instant)
    assert instant == from_iso(text)


@given(an_instant)
def test_writing_an_instant_can_be_undone(instant):
    back = from_iso(iso(instant))

    assert instant == back
    assert back.tzinfo is UTC
    assert pd.Timestamp(iso(instant)) == pd.Timestamp(instant)


@pytest.mark.parametrize(
    "text", ["", "Z", "2024-06-03T04:00:00", "2024-06-03T04:00:00+00:00", "yesterdayZ", "2024-13-01T00:00:00Z"]
)
def test_what_is_no_instant_in_utc_is_refused(text):
    with pytest.raises(ValueError):
        from_iso(text)


# New York


@pytest.mark.parametrize(
    ("first", "last", "start", "end"),
    [
        pytest.param(date(2024, 1, 2), date(2024, 1, 2), "2024-01-02T05:00:00Z", "2024-01-03T05:00:00Z", id="a-day-in-winter"),
        pytest.param(date(2024, 7, 1), date(2024, 7, 2), "2024-07-01T04:00:00Z", "2024-07-03T04:00:00Z", id="two-days-in-summer"),
        pytest.param(
            date(2024, 3, 10), date(2024, 3, 10), "2024-03-10T05:00:00Z", "2024-03-11T04:00:00Z", id="a-day-of-23-hours"
        ),
        pytest.param(
            date(2024, 11, 3), date(2024, 11, 3), "2024-11-03T04:00:00Z", "2024-11-04T05:00:00Z", id="a-day-of-25-hours"
        ),
        pytest.param(date(2023, 12, 31), date(2024, 1, 1), "2023-12-31T05:00:00Z", "2024-01-02T05:00:00Z", id="over-new-year"),
    ],
)
def test_days_are_new_yorks_and_the_last_is_included(first, last, start, end):
    assert str(new_york_days(first, last)) == f"{start} .. {end}"


@given(a_day)
def test_midnight_is_the_one_pandas_knows(day):
    assert pd.Timestamp(day, tz="America/New_York") == pd.Timestamp(new_york_midnight(day))


@given(an_instant)
def test_the_day_of_an_instant_is_the_one_that_holds_it(instant):
    day = new_york_date(instant)

    assert instant in new_york_days(day, day)
    assert day == pd.Timestamp(instant).tz_convert("America/New_York").date()
