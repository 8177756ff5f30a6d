"""Which final sessions an audit fetches again."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from data_engine.ingest.audit_plan import AuditPlan, final_sessions, plan_audit
from data_engine.market.series import Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange, new_york_date, new_york_days
from data_engine.store.coverage import Coverage

MINUTES, DAYS, WEEKS = (Dataset(Timeframe.parse(name)) for name in ("1Min", "1Day", "1Week"))
# 16 sessions, from a Monday to a Tuesday; 19 June was a holiday. The clocks stood still.
JUNE = new_york_days(date(2024, 6, 3), date(2024, 6, 25))
SESSIONS = [day.date() for day in pd.bdate_range("2024-06-03", "2024-06-25") if day.date() != date(2024, 6, 19)]
SEEN = datetime(2024, 7, 1, 12, 30, tzinfo=UTC)


def stored(symbol: str, dataset: Dataset = MINUTES, *, covered: tuple[TimeRange, ...] = (JUNE,), bars: int = 6240) -> Coverage:
    first, last = covered[0].start + timedelta(hours=10), covered[-1].end - timedelta(hours=8)
    if not dataset.timeframe.intraday:
        first, last = covered[0].start, covered[-1].end - timedelta(days=1)
    return Coverage(Series(symbol, dataset), covered=covered, first_bar=first, last_bar=last, rows={})


def days(known: Coverage) -> list[date]:
    return [new_york_date(datetime.fromtimestamp(start / 1e6, UTC)) for start in final_sessions(known).tolist()]


def requested(plan: AuditPlan) -> Counter[tuple[str, date]]:
    """Return symbol and session of all that a plan requests."""
    return Counter(
        (symbol, day)
        for task in plan.tasks
        for symbol in task.symbols
        for day in SESSIONS
        if task.range.start <= new_york_days(day, day).start < task.range.end
    )


# ---------------------------------------------------------------------------------------------------------- final sessions


def test_the_sessions_of_a_series_are_those_covered_whole():
    assert days(stored("A")) == SESSIONS


def test_a_session_covered_to_the_end_of_its_hours_is_whole_and_one_minute_less_is_not():
    eight = JUNE.end - timedelta(hours=4)

    assert days(stored("A", covered=(TimeRange(JUNE.start, eight),)))[-1] == SESSIONS[-1]
    assert days(stored("A", covered=(TimeRange(JUNE.start, eight - timedelta(minutes=1)),)))[-1] == SESSIONS[-2]


def test_feeds_with_hours_of_their_own_need_the_whole_day():
    boats = Dataset(Timeframe.parse("1Min"), feed=Feed.BOATS)
    eight = JUNE.end - timedelta(hours=4)

    assert days(stored("A", boats, covered=(TimeRange(JUNE.start, eight),)))[-1] == SESSIONS[-2]


def test_what_lies_before_the_first_bar_or_after_the_last_is_drawn_too():
    made = Coverage(
        Series("A", MINUTES),
        covered=(JUNE,),
        first_bar=datetime(2024, 6, 5, 14, tzinfo=UTC),
        last_bar=datetime(2024, 6, 7, 14, tzinfo=UTC),
    )

    assert days(made) == SESSIONS
    assert days(Coverage(Series("A", MINUTES), covered=(JUNE,))) == SESSIONS
    assert plan_audit([Coverage(Series("A", MINUTES), covered=(JUNE,))], 99, seed=1).requests == 1


def test_bars_of_days_and_weeks_are_sessions_of_their_own():
    assert days(stored("A", DAYS)) == SESSIONS
    assert days(stored("A", WEEKS)) == [date(2024, 6, day) for day in (3, 10, 17, 24)]


# ------------------------------------------------------------------------------------------------------------------ drawing


@given(st.integers(1, 120), st.integers(0, 50), st.integers(1, 12))
def test_a_sample_is_of_the_size_requested_and_requests_nothing_twice_or_beyond(sample, seed, symbols):
    known = [stored(f"S{number:02}") for number in range(symbols)]

    plan = plan_audit(known, sample, seed=seed)

    total = symbols * len(SESSIONS)
    assert (plan.sessions, plan.available) == (min(sample, total), total)
    found = requested(plan)
    assert (len(found), set(found.values())) == (plan.sessions, {1})
    assert plan.series == len({symbol for symbol, _ in found})
    assert all(list(task.symbols) == sorted(task.symbols) for task in plan.tasks)


def test_the_same_seed_draws_the_same_and_another_one_others():
    known = [stored(f"S{number}") for number in range(8)]

    assert plan_audit(known, 10, seed=1) == plan_audit(list(reversed(known)), 10, seed=1)
    assert plan_audit(known, 10, seed=1) != plan_audit(known, 10, seed=2)


def test_a_sample_is_spread_over_sessions_and_series_and_shares_requests():
    known = [stored(f"S{number:03}") for number in range(100)]

    plan = plan_audit(known, 100, seed=5)

    by_day = Counter(day for _, day in requested(plan))
    # Ten symbols of each of ten sessions: ten requests in place of a hundred.
    assert (len(plan.tasks), set(by_day.values())) == (10, {10})
    assert plan.series >= 90


def test_over_many_seeds_every_session_of_every_series_is_drawn_about_as_often():
    known = [stored(f"S{number}") for number in range(4)]
    counts = Counter(unit for seed in range(800) for unit in requested(plan_audit(known, 4, seed=seed)))

    assert len(counts) == 64
    # 3,200 draws over 64 places: 50 each, and hardly one in a thousand beyond 4.5 standard deviations.
    assert max(abs(count - 50) for count in counts.values()) < 4.5 * 50**0.5


def test_all_sessions_are_requested_a_page_at_a_time():
    plan = plan_audit([stored("A"), stored("B")], 1000, seed=1)

    # 960 minutes a session is what nothing is known of; half of them trade: 2 x 480 x 10 fit on a page.
    assert sum(requested(plan).values()) == 32
    assert max(task.estimate for task in plan.tasks) <= 10_000
    assert len(plan.tasks) == -(-sum(task.estimate for task in plan.tasks) // 10_000)


def test_a_gap_in_the_sample_is_not_requested():
    covered = tuple(new_york_days(date(2024, 6, day), date(2024, 6, day)) for day in (3, 4, 6))

    plan = plan_audit([stored("A", DAYS, covered=covered)], 10, seed=1)

    assert [str(task.range)[:10] + str(task.range)[24:34] for task in plan.tasks] == [
        "2024-06-032024-06-05",
        "2024-06-062024-06-07",
    ]


def test_datasets_are_not_mixed():
    plan = plan_audit([stored("A"), stored("A", DAYS)], 100, seed=1)

    assert {task.dataset for task in plan.tasks} == {MINUTES, DAYS}
    assert plan.sessions == 32


def test_of_nothing_nothing_is_drawn():
    assert plan_audit([], 10, seed=1) == AuditPlan((), 0, 0, 0, 1)
