"""States by month, compared with a loop over single days."""

from __future__ import annotations

import warnings
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, new_york_days, union
from data_engine.report.coverage_months import STATES, calendar_of, months_of, reach_of
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Period

MINUTES, DAYS = Dataset.from_name("equities_1min"), Dataset.from_name("equities_1day")
NOW = datetime(2024, 8, 1, 2, tzinfo=UTC)
FIRST, LAST = date(2024, 5, 1), date(2024, 7, 31)
FULL = {Period(2024, month): 1000 for month in (5, 6, 7)}


def days(first: str, last: str) -> TimeRange:
    return new_york_days(date.fromisoformat(first), date.fromisoformat(last))


def states(known: Coverage, now: datetime = NOW) -> list[str]:
    made = months_of(known, calendar_of(known.series.dataset, FIRST, LAST, now))
    return [STATES[number] for number in made.states]


def minutes(**named: object) -> Coverage:
    return Coverage(Series("AAPL", MINUTES), **{"rows": FULL, **named})  # type: ignore[arg-type]


@cache
def exchange(first: date, last: date) -> list[date]:
    """Return the sessions by another calendar than ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from exchange_calendars import get_calendar

        return [day.date() for day in get_calendar("XNYS").sessions_in_range(str(first), str(last))]


ALL = days("2024-05-01", "2024-07-31")


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        pytest.param(minutes(), ["not_requested"] * 3, id="nothing-requested"),
        pytest.param(
            minutes(first_bar=ALL.start, last_bar=datetime(2024, 6, 13, tzinfo=UTC)),
            ["unverified", "unverified", "not_requested"],
            id="stored-and-nothing-requested",
        ),
        pytest.param(
            # The last evening of June is in the file of July.
            minutes(
                first_bar=ALL.start,
                last_bar=datetime(2024, 7, 1, tzinfo=UTC),
                wanted=(days("2024-06-01", "2024-06-30"),),
                covered=(days("2024-06-01", "2024-06-30"),),
            ),
            ["unverified", "complete", "not_requested"],
            id="stored-and-requested-in-part",
        ),
        pytest.param(minutes(wanted=(ALL,)), ["missing"] * 3, id="requested-and-not-fetched"),
        pytest.param(minutes(wanted=(ALL,), covered=(ALL,)), ["complete"] * 3, id="fetched"),
        pytest.param(
            minutes(wanted=(ALL,), covered=(ALL,), rows={Period(2024, 6): 1}), ["empty", "complete", "empty"], id="no-bars"
        ),
        pytest.param(
            minutes(wanted=(ALL,), covered=(days("2024-05-01", "2024-06-13"),)),
            ["complete", "partial", "missing"],
            id="broken-off",
        ),
        pytest.param(
            minutes(wanted=(days("2024-06-10", "2024-06-14"),), covered=(days("2024-06-10", "2024-06-14"),)),
            ["not_requested", "requested", "not_requested"],
            id="only-a-week-requested",
        ),
        pytest.param(
            minutes(wanted=(ALL,), covered=(days("2024-05-01", "2024-07-30"),), provisional=(days("2024-07-31", "2024-07-31"),)),
            ["complete", "complete", "provisional"],
            id="last-day-provisional",
        ),
        pytest.param(
            # Memorial Day, and the weekend before it.
            minutes(wanted=(ALL,), covered=(days("2024-05-01", "2024-05-24"), days("2024-05-28", "2024-07-31"))),
            ["complete"] * 3,
            id="a-range-without-a-session",
        ),
        pytest.param(
            minutes(wanted=(ALL,), covered=(TimeRange(ALL.start, datetime(2024, 6, 28, 18, tzinfo=UTC)),)),
            ["complete", "partial", "missing"],
            id="half-a-session-missing",
        ),
        pytest.param(
            minutes(wanted=(ALL,), covered=(TimeRange(ALL.start, datetime(2024, 8, 1, tzinfo=UTC)),)),
            ["complete", "complete", "partial"],
            id="the-minute-at-eight-missing",
        ),
    ],
)
def test_the_state_of_a_month(known: Coverage, expected: list[str]) -> None:
    assert states(known) == expected


def test_today_is_provisional_though_the_rest_of_it_is_not_requested() -> None:
    noon = datetime(2024, 7, 31, 16, tzinfo=UTC)
    begun = TimeRange(days("2024-07-31", "2024-07-31").start, noon)
    known = minutes(
        wanted=(union((days("2024-05-01", "2024-07-30"), begun))),
        covered=(days("2024-05-01", "2024-07-30"),),
        provisional=(begun,),
    )

    assert states(known, noon + timedelta(hours=2)) == ["complete", "complete", "provisional"]


def test_a_daily_bar_under_way_is_no_session_yet_and_missing_once_it_has_ended() -> None:
    evening = datetime(2024, 7, 31, 23, tzinfo=UTC)
    known = Coverage(
        Series("AAPL", DAYS),
        wanted=(TimeRange(ALL.start, evening),),
        covered=(days("2024-05-01", "2024-07-29"),),
        provisional=(days("2024-07-30", "2024-07-30"),),
        rows={Period(2024, None): 62},
        first_bar=ALL.start,
    )

    assert states(known, evening) == ["complete", "complete", "provisional"]
    assert states(known, evening + timedelta(hours=6)) == ["complete", "complete", "partial"]


def test_a_month_that_has_not_begun_has_no_session() -> None:
    # 2024-06-30 is a Sunday.
    assert states(minutes(wanted=(ALL,), covered=(ALL,)), datetime(2024, 6, 30, 12, tzinfo=UTC)) == [
        "complete",
        "complete",
        "no_session",
    ]


def test_daily_bars_before_the_first_are_empty() -> None:
    known = Coverage(
        Series("NEW", DAYS),
        wanted=(ALL,),
        covered=(ALL,),
        rows={Period(2024, None): 40},
        first_bar=datetime(2024, 6, 5, 4, tzinfo=UTC),
    )

    assert states(known) == ["empty", "complete", "complete"]


def test_daily_bars_after_the_last_are_empty() -> None:
    """A delisted symbol that stays covered: the month after its end is not complete."""
    known = Coverage(
        Series("OLD", DAYS),
        wanted=(ALL,),
        covered=(ALL,),
        rows={Period(2024, None): 40},
        first_bar=datetime(2020, 1, 2, 5, tzinfo=UTC),
        last_bar=datetime(2024, 6, 5, 4, tzinfo=UTC),
    )

    assert states(known) == ["complete", "complete", "empty"]
    assert states(replace(known, rows={Period(2020, None): 40})) == ["empty"] * 3, "a year without a file"


def test_the_sessions_are_those_of_the_exchange() -> None:
    theirs = exchange(date(2016, 1, 1), date(2024, 12, 31))
    calendar = calendar_of(MINUTES, date(2016, 1, 1), date(2024, 12, 31), datetime(2025, 6, 1, tzinfo=UTC))

    by_month: dict[tuple[int, int], int] = {}
    for day in theirs:
        by_month[day.year, day.month] = by_month.get((day.year, day.month), 0) + 1
    assert dict(zip(calendar.months, calendar.counts.tolist(), strict=True)) == by_month


def test_the_reach_spans_requested_and_stored_days() -> None:
    requested = minutes(wanted=(days("2024-05-06", "2024-05-10"),), rows={Period(2024, 7): 5})

    assert reach_of([requested], NOW) == (date(2024, 5, 6), date(2024, 7, 1))
    assert reach_of([minutes(wanted=(days("2024-05-06", "2024-12-31"),))], NOW) == (date(2024, 5, 1), date(2024, 7, 31))
    assert reach_of([], NOW) == (date(2024, 7, 31), date(2024, 7, 31))


a_day = st.dates(FIRST, LAST)
some_days = st.lists(st.tuples(a_day, a_day).map(lambda pair: new_york_days(min(pair), max(pair))), max_size=4).map(union)


@given(some_days, some_days, some_days)
def test_sessions_are_counted_as_a_loop_over_days_counts_them(
    wanted: tuple[TimeRange, ...], covered: tuple[TimeRange, ...], provisional: tuple[TimeRange, ...]
) -> None:
    known = minutes(wanted=wanted, covered=covered, provisional=provisional)
    made = months_of(known, calendar_of(MINUTES, FIRST, LAST, NOW))

    def holds(ranges: tuple[TimeRange, ...], noon: datetime) -> bool:
        return any(noon in piece for piece in ranges)

    expected = {month: [0, 0, 0] for month in (5, 6, 7)}
    for day in exchange(FIRST, LAST):
        noon = datetime(day.year, day.month, day.day, 16, tzinfo=UTC)  # only whole days are requested and covered here
        if holds(covered, noon):
            expected[day.month][0] += 1
        elif holds(provisional, noon):
            expected[day.month][1] += 1
        elif holds(wanted, noon):
            expected[day.month][2] += 1
    counts = zip(made.final.tolist(), made.provisional.tolist(), made.missing.tolist(), strict=True)
    assert [list(one) for one in counts] == list(expected.values())
