"""The plan: every missing bar is asked for once, nothing that is held is asked for, and in as few requests as the issue allows.

The properties are held against sets of days, and the figures against counts of bars that the plan does not know.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.ingest.plan import IngestionPlan, Target, plan_ingestion
from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange, union
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Period, periods

NOW = datetime(2024, 8, 19, 12, tzinfo=UTC)
MINUTES, DAYS = Dataset(Timeframe.parse("1Min")), Dataset(Timeframe.parse("1Day"))
ORIGIN = datetime(2021, 1, 1, tzinfo=UTC)
ONE_DAY = timedelta(days=1)


def span(first: str, last: str) -> TimeRange:
    """Return from 08:00 UTC of a day to 00:00 UTC after another: extended hours, in summer."""
    return TimeRange(
        datetime.fromisoformat(first + "T08:00+00:00").astimezone(UTC),
        datetime.fromisoformat(last + "T00:00+00:00").astimezone(UTC) + ONE_DAY,
    )


def nothing_held(symbols: Iterable[str], dataset: Dataset, *ranges: TimeRange) -> list[Target]:
    return [Target(symbol, ranges, Coverage(Series(symbol, dataset))) for symbol in symbols]


def universe(count: int) -> list[str]:
    """Return *count* names of one to four letters, in no order."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    names = [a + b + c for a in letters for b in letters for c in ("", "X", "YZ")]
    random.Random(7).shuffle(names)
    return names[:count]


# Properties, in whole days since ORIGIN

HORIZON = 1200  # days; a little more than three years
a_stretch = st.tuples(st.integers(0, HORIZON), st.integers(1, 500)).map(lambda pair: (pair[0], min(sum(pair), HORIZON + 1)))
stretches = st.lists(a_stretch.filter(lambda pair: pair[0] < pair[1]), max_size=5)


def as_ranges(pieces: Iterable[tuple[int, int]]) -> tuple[TimeRange, ...]:
    return tuple(TimeRange(ORIGIN + first * ONE_DAY, ORIGIN + last * ONE_DAY) for first, last in pieces)


def as_days(pieces: Iterable[tuple[int, int]]) -> set[int]:
    return {day for first, last in pieces for day in range(first, last)}


def days_of(part: TimeRange) -> range:
    assert not (part.start - ORIGIN) % ONE_DAY
    assert not (part.end - ORIGIN) % ONE_DAY
    return range((part.start - ORIGIN) // ONE_DAY, (part.end - ORIGIN) // ONE_DAY)


def weekday(part: TimeRange, dataset: Dataset) -> bool:
    """A calendar simple enough to see through: every weekday can hold bars."""
    return any((ORIGIN + day * ONE_DAY).weekday() < 5 for day in days_of(part))


@st.composite
def wishes_of(draw, dataset):
    """Up to a dozen symbols, most of them with one of three histories; the day sets they stand for."""
    histories = draw(st.lists(st.tuples(stretches, stretches), min_size=1, max_size=3))
    targets, wanted, held = [], {}, {}
    for symbol in draw(st.lists(st.sampled_from(universe(40)), min_size=1, max_size=12, unique=True)):
        asked, covered = draw(st.sampled_from(histories) | st.tuples(stretches, stretches))
        wanted[symbol], held[symbol] = as_days(asked), as_days(covered)
        bars = draw(st.sampled_from([0, 100, 500_000]))
        known = Coverage(
            Series(symbol, dataset),
            covered=as_ranges(covered),
            rows={Period(2019, 1): bars},
            first_bar=datetime(2019, 1, 2, tzinfo=UTC),  # long ago: emptiness is final
            last_bar=datetime(2020, 6, 1, tzinfo=UTC),
        )
        targets.append(Target(symbol, as_ranges(asked), known))
    return targets, wanted, held


@settings(max_examples=100, deadline=None)
@given(data=st.data(), workers=st.integers(1, 32), dataset=st.sampled_from([MINUTES, DAYS]), horizon=st.integers(1, HORIZON))
def test_each_missing_day_with_bars_is_asked_for_once_and_nothing_that_is_held(data, workers, dataset, horizon):
    targets, wanted, held = data.draw(wishes_of(dataset))
    now = ORIGIN + horizon * ONE_DAY

    plan = plan_ingestion(targets, dataset, now=now, workers=workers, can_hold=weekday)
    asked: dict[str, list[int]] = {symbol: [] for symbol in wanted}
    for task in plan.tasks:
        for symbol in task.symbols:
            asked[symbol] += days_of(task.range)
    for symbol, days in asked.items():
        missing = {day for day in wanted[symbol] - held[symbol] if day < horizon}
        with_bars = {day for day in missing if (ORIGIN + day * ONE_DAY).weekday() < 5}
        assert len(days) == len(set(days))
        assert with_bars <= set(days) <= missing


def runs(days: set[int]) -> set[int]:
    """Return the days at which stretches of consecutive days begin, and those after which they end."""
    return {day for day in days if day - 1 not in days} | {day + 1 for day in days if day + 1 not in days}


@settings(max_examples=100, deadline=None)
@given(data=st.data(), workers=st.integers(1, 32), dataset=st.sampled_from([MINUTES, DAYS]))
def test_ranges_are_cut_at_the_edges_of_files_alone(data, workers, dataset):
    targets, wanted, held = data.draw(wishes_of(dataset))

    plan = plan_ingestion(targets, dataset, now=NOW, workers=workers, can_hold=weekday)
    for task in plan.tasks:
        for symbol in task.symbols:
            natural = runs(wanted[symbol] - held[symbol])
            for edge in (task.range.start, task.range.end):
                begins_a_file = edge.day == 1 and (dataset is MINUTES or edge.month == 1)
                assert begins_a_file or (edge - ORIGIN) // ONE_DAY in natural


@settings(max_examples=60, deadline=None)
@given(data=st.data(), workers=st.integers(1, 32))
def test_tasks_are_whole_values(data, workers):
    """Symbols ascend as the server fills pages, tasks are counted per symbol, and the order given decides who is first."""
    targets, wanted, _ = data.draw(wishes_of(MINUTES))

    plan = plan_ingestion(targets, MINUTES, now=NOW, workers=workers, can_hold=weekday)
    order = {wish.symbol: number for number, wish in enumerate(targets)}
    firsts = [min(order[symbol] for symbol in task.symbols) for task in plan.tasks]
    assert all(list(task.symbols) == sorted(set(task.symbols)) and task.dataset == MINUTES for task in plan.tasks)
    assert plan.symbols == tuple(wanted)
    assert firsts == sorted(firsts)
    assert dict(plan.outstanding) == {
        symbol: count for symbol in wanted if (count := sum(symbol in task.symbols for task in plan.tasks))
    }
    assert plan.complete == sum(symbol not in plan.outstanding for symbol in wanted)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), workers=st.integers(1, 32), dataset=st.sampled_from([MINUTES, DAYS]))
def test_a_task_owns_the_files_that_no_other_task_changes(data, workers, dataset):
    """None that another touches, and if it is the only task of its symbols, all that it touches."""
    targets, _, _ = data.draw(wishes_of(dataset))

    plan = plan_ingestion(targets, dataset, now=NOW, workers=workers, can_hold=weekday)
    touched = {task: set(periods(task.range, dataset)) for task in plan.tasks}
    for task in plan.tasks:
        others = {
            one for other in plan.tasks if other is not task and {*other.symbols} & {*task.symbols} for one in touched[other]
        }
        owned = {one for one in touched[task] if task.owns(one)}
        assert not owned & others
        assert others or owned == touched[task]


@given(
    length=st.integers(1, 32), count=st.integers(1, 1500), workers=st.integers(1, 64), dataset=st.sampled_from([MINUTES, DAYS])
)
@settings(max_examples=25, deadline=None)
def test_a_task_names_no_more_symbols_than_a_request_may(length, count, workers, dataset):
    """518 symbols in a query of 3,209 characters are known to be accepted; the sandbox takes 16,000."""
    names = [
        str(number).zfill(5)[-5:].translate(str.maketrans("0123456789", "ABCDEFGHIJ")).ljust(length, "Z")
        for number in range(count)
    ]

    plan = plan_ingestion(nothing_held(names, dataset, span("2024-06-03", "2024-06-07")), dataset, now=NOW, workers=workers)
    assert sorted(symbol for task in plan.tasks for symbol in task.symbols) == sorted(names)
    assert all(len(task.symbols) <= 500 and len(",".join(task.symbols)) <= 3500 + 32 for task in plan.tasks)


# What is not asked


def covered(symbol: str, dataset: Dataset, *ranges: TimeRange, bars: int = 100_000) -> Coverage:
    first = datetime(2016, 1, 4, 9, tzinfo=UTC)
    return Coverage(
        Series(symbol, dataset), covered=ranges, rows={Period(2024, 6): bars}, first_bar=first, last_bar=ranges[-1].end
    )


def ranges_of(plan: IngestionPlan) -> list[TimeRange]:
    return [task.range for task in plan.tasks]


def test_what_is_held_whole_needs_no_request():
    week = span("2024-06-03", "2024-06-07")
    plan = plan_ingestion([Target("AAPL", (week,), covered("AAPL", MINUTES, week))], MINUTES, now=NOW, workers=8)

    assert (plan.tasks, plan.requests, plan.bars, plan.complete) == ((), 0, 0, 1)


def test_refetching_asks_for_what_is_held():
    week = span("2024-06-03", "2024-06-07")
    plan = plan_ingestion([Target("AAPL", (week,), covered("AAPL", MINUTES, week), refetch=True)], MINUTES, now=NOW, workers=8)

    assert ranges_of(plan) == [week]


def test_a_range_extended_on_both_sides_is_asked_for_on_both_sides():
    held, wide = span("2024-06-10", "2024-06-14"), span("2024-06-03", "2024-06-21")
    plan = plan_ingestion([Target("AAPL", (wide,), covered("AAPL", MINUTES, held))], MINUTES, now=NOW, workers=1)

    assert ranges_of(plan) == [TimeRange(wide.start, held.start), TimeRange(held.end, wide.end)]


@pytest.mark.parametrize(
    ("first", "last"),
    [("2024-06-08", "2024-06-09"), ("2024-06-19", "2024-06-19"), ("2024-07-04", "2024-07-04")],
    ids=["weekend", "juneteenth", "independence-day"],
)
def test_days_without_a_session_are_not_asked_for(first, last):
    targets = nothing_held(["AAPL"], MINUTES, span(first, last))

    assert plan_ingestion(targets, MINUTES, now=NOW, workers=8).tasks == ()


def test_feeds_with_hours_of_their_own_are_asked_for_at_any_hour():
    dataset = Dataset(Timeframe.parse("1Min"), feed=Feed.BOATS)
    weekend = span("2024-06-08", "2024-06-09")

    assert ranges_of(plan_ingestion(nothing_held(["AAPL"], dataset, weekend), dataset, now=NOW, workers=8)) == [weekend]


def test_nothing_after_now_is_asked_for():
    targets = nothing_held(["AAPL"], MINUTES, span("2024-08-19", "2024-08-30"), span("2024-09-02", "2024-09-06"))
    plan = plan_ingestion(targets, MINUTES, now=NOW, workers=8)

    assert ranges_of(plan) == [TimeRange(datetime(2024, 8, 19, 8, tzinfo=UTC), NOW)]


def test_symbols_that_miss_the_same_share_a_request():
    """A nightly update of 500 symbols costs tens of requests, not 500."""
    held = span("2024-01-02", "2024-08-15")
    night = TimeRange(held.start, datetime(2024, 8, 17, tzinfo=UTC))
    names = universe(500)
    targets = [Target(name, (night,), covered(name, MINUTES, held, bars=2169 * 500)) for name in names]

    plan = plan_ingestion(targets, MINUTES, now=NOW, workers=8)
    assert set(ranges_of(plan)) == {TimeRange(held.end, night.end)}
    assert len(plan.tasks) == 8
    assert plan.requests <= 40


# The order


def test_half_a_run_is_half_the_symbols_whole():
    names = universe(400)
    targets = nothing_held(names, MINUTES, span("2022-01-03", "2023-12-29"))
    plan = plan_ingestion(targets, MINUTES, now=NOW, workers=8)
    left = dict(plan.outstanding)
    for task in plan.tasks[: len(plan.tasks) // 2]:
        for symbol in task.symbols:
            left[symbol] -= 1

    whole = [symbol for symbol in names if not left[symbol]]
    begun = [symbol for symbol in names if 0 < left[symbol] < plan.outstanding[symbol]]
    assert len(whole) >= 195
    assert whole == names[: len(whole)]
    assert len(begun) <= 8


def test_two_missing_ranges_of_many_symbols_are_finished_group_by_group():
    names = universe(300)
    targets = nothing_held(names, MINUTES, span("2024-06-03", "2024-06-07"), span("2024-06-24", "2024-06-28"))
    plan = plan_ingestion(targets, MINUTES, now=NOW, workers=4)
    left = dict(plan.outstanding)
    for task in plan.tasks[: len(plan.tasks) // 2]:
        for symbol in task.symbols:
            left[symbol] -= 1

    assert sum(not count for count in left.values()) >= 0.4 * len(names)


def test_holes_come_first_where_that_is_asked_for():
    held = [span("2024-06-03", "2024-06-07"), span("2024-06-17", "2024-08-14")]
    wanted = TimeRange(held[0].start, NOW)
    targets = [Target(name, (wanted,), covered(name, MINUTES, *held)) for name in ("AAPL", "MSFT")]
    plan = plan_ingestion(targets, MINUTES, now=NOW, workers=1, gaps_first=True)

    assert ranges_of(plan) == [TimeRange(held[0].end, held[1].start), TimeRange(held[1].end, NOW)]


def test_an_adjusted_series_is_asked_for_with_a_session_that_is_held():
    dataset = Dataset(Timeframe.parse("1Day"), Adjustment.parse("split"))
    held = TimeRange(datetime(2024, 6, 3, 4, tzinfo=UTC), datetime(2024, 6, 8, 4, tzinfo=UTC))
    friday = datetime(2024, 6, 7, 4, tzinfo=UTC)
    known = Coverage(
        Series("AAPL", dataset), covered=(held,), rows={Period(2024, None): 5}, first_bar=held.start, last_bar=friday
    )
    wanted = TimeRange(held.start, datetime(2024, 6, 15, 4, tzinfo=UTC))
    (task,) = plan_ingestion([Target("AAPL", (wanted,), known)], dataset, now=NOW, workers=8).tasks

    assert (task.range, task.overlap) == (TimeRange(held.end, wanted.end), TimeRange(friday, held.end))


# The figures of the issue: requests at the server against the fewest that could carry the bars


def sent(plan: IngestionPlan, bars_in: object) -> tuple[int, int]:
    """Count the requests that the plan costs where each symbol brings so many bars a session, and the fewest possible."""
    requests = total = 0
    for task in plan.tasks:
        bars = sum(bars_in(symbol, task.range) for symbol in task.symbols)
        requests += max(1, math.ceil(bars / plan.page_limit))
        total += bars
    return requests, math.ceil(total / plan.page_limit)


def sessions_in(part: TimeRange) -> int:
    """Count weekdays that begin inside a range: near enough to sessions for these figures."""
    first = part.start.date() if part.start.hour <= 8 else part.start.date() + ONE_DAY
    days = ((part.end - timedelta(hours=8)).date() - first).days + 1
    return sum((first + number * ONE_DAY).weekday() < 5 for number in range(days))


def liquidity(symbol: str) -> int:
    """Bars a session with extended hours: thin members 390, AAPL 850."""
    return random.Random(symbol).choice([380, 390, 410, 440, 480, 520, 600, 700, 850])


CREWS = [1, 4, 6, 8, 10, 16]


@pytest.mark.parametrize("workers", CREWS)
def test_500_symbols_of_one_session_of_minutes(workers):
    plan = plan_ingestion(
        nothing_held(universe(500), MINUTES, span("2024-06-03", "2024-06-03")), MINUTES, now=NOW, workers=workers
    )
    requests, least = sent(plan, lambda symbol, part: liquidity(symbol))

    assert requests <= 1.15 * least + workers
    assert len(plan.tasks) >= workers


@pytest.mark.parametrize("workers", CREWS)
def test_500_symbols_of_nine_years_of_days(workers):
    plan = plan_ingestion(nothing_held(universe(500), DAYS, span("2015-06-01", "2024-05-31")), DAYS, now=NOW, workers=workers)
    requests, least = sent(plan, lambda symbol, part: sessions_in(part))

    assert requests <= 1.05 * least + workers
    assert len(plan.tasks) >= workers


REAL_FILE = {
    "NVDA": 50_144, "SPY": 41_248, "AAPL": 41_049, "INTC": 40_748, "ARM": 33_519, "ACHR": 28_161, "MSTR": 23_793, "SPCX": 162,
}  # fmt: skip


@pytest.mark.parametrize("workers", CREWS)
def test_8_symbols_of_eleven_weeks_of_minutes(workers):
    """The real file's counts of bars, spread evenly over its sessions."""
    whole = span("2024-06-03", "2024-08-16")
    plan = plan_ingestion(nothing_held(REAL_FILE, MINUTES, whole), MINUTES, now=NOW, workers=workers)
    requests, least = sent(plan, lambda symbol, part: REAL_FILE[symbol] * sessions_in(part) / sessions_in(whole))

    assert least == 26
    assert requests <= 1.10 * least + workers
    assert len(plan.tasks) >= min(workers, 8)


@pytest.mark.parametrize("workers", [1, 4, 6, 8, 10])
@pytest.mark.parametrize("a_session", [400, 600, 852])
def test_1_symbol_of_a_year_of_minutes(workers, a_session):
    plan = plan_ingestion(nothing_held(["AAPL"], MINUTES, span("2023-01-03", "2023-12-29")), MINUTES, now=NOW, workers=workers)
    requests, least = sent(plan, lambda symbol, part: a_session * sessions_in(part))

    assert requests <= 1.25 * least + workers
    assert len(plan.tasks) >= workers


@pytest.mark.parametrize("workers", [1, 8])
def test_the_whole_main_job_wastes_little(workers):
    """500 symbols x 9 years of minutes: the half-empty last pages do not add up."""
    plan = plan_ingestion(
        nothing_held(universe(500), MINUTES, span("2016-01-04", "2024-12-31")), MINUTES, now=NOW, workers=workers
    )
    requests, least = sent(plan, lambda symbol, part: liquidity(symbol) * sessions_in(part))

    assert least > 50_000
    assert requests <= 1.05 * least


# The estimate


def test_a_plan_is_counted():
    plan = plan_ingestion(nothing_held(["AAPL", "MSFT"], DAYS, span("2024-06-03", "2024-06-28")), DAYS, now=NOW, workers=8)

    assert (plan.bars, plan.requests, plan.least_requests, plan.complete) == (38, 1, 1, 0)  # 19 sessions: one holiday
    assert plan.span == span("2024-06-03", "2024-06-28")


def test_what_a_series_brought_so_far_is_expected_to_go_on():
    held, wanted = span("2024-06-03", "2024-06-14"), span("2024-06-03", "2024-06-28")
    known = Coverage(
        Series("THIN", MINUTES),
        covered=(held,),
        rows={Period(2024, 6): 1000},
        first_bar=held.start,
        last_bar=held.end - ONE_DAY / 4,
    )
    plan = plan_ingestion([Target("THIN", (wanted,), known)], MINUTES, now=NOW, workers=8)

    assert plan.bars == 900  # nine more sessions, of a hundred bars each as in the ten before
    assert plan.held == 1000


# The whole market


@settings(max_examples=30, deadline=None)
@given(data=st.data(), workers=st.integers(1, 32), dataset=st.sampled_from([MINUTES, DAYS]), refetch=st.booleans())
def test_symbols_planned_together_are_asked_for_what_each_is_asked_for_alone(data, workers, dataset, refetch):
    targets, _, _ = data.draw(wishes_of(dataset))
    targets = [replace(target, refetch=refetch and number % 2 == 0) for number, target in enumerate(targets)]
    together = plan_ingestion(targets, dataset, now=NOW, workers=workers)

    for target in targets:
        alone = plan_ingestion([target], dataset, now=NOW, workers=workers)
        asked = union(task.range for task in together.tasks if target.symbol in task.symbols)
        assert asked == union(task.range for task in alone.tasks)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), workers=st.integers(1, 8))
def test_adjusted_symbols_planned_together_are_compared_where_each_is_compared_alone(data, workers):
    dataset = Dataset(Timeframe.parse("1Day"), Adjustment.parse("split"))
    targets, _, _ = data.draw(wishes_of(dataset))

    def compared(plan: IngestionPlan, symbol: str) -> tuple[object, set[tuple[datetime, TimeRange]]]:
        """The ranges, however they are cut, and each held session with the edge of the part that lies beside it."""
        tasks = [task for task in plan.tasks if symbol in task.symbols]
        found = ((task.range, overlap) for task in tasks if (overlap := task.overlap_of(symbol)))
        beside = {(part.end if overlap.start >= part.end else part.start, overlap) for part, overlap in found}
        return union(task.range for task in tasks), beside

    together = plan_ingestion(targets, dataset, now=NOW, workers=workers)
    for target in targets:
        alone = plan_ingestion([target], dataset, now=NOW, workers=workers)
        assert compared(together, target.symbol) == compared(alone, target.symbol)


def test_what_equal_symbols_lack_is_computed_once():
    asked = []

    def can_hold(part: TimeRange, dataset: Dataset) -> bool:
        asked.append(part)
        return True

    week, held = span("2024-06-03", "2024-06-14"), span("2024-06-03", "2024-06-07")
    targets = [Target(name, (week,), covered(name, MINUTES, held)) for name in universe(500)]
    plan = plan_ingestion(targets, MINUTES, now=NOW, workers=8, can_hold=can_hold)

    assert asked == [TimeRange(held.end, week.end)]
    assert len(plan.outstanding) == 500


def test_a_long_list_of_unknown_symbols_is_not_500_large_companies_over_and_over():
    """The market has 1.6 to 1.8 million bars of minutes a session, over about 11,000 symbols."""
    wanted = span("2024-06-03", "2024-06-03")
    few, all_of_them = (
        plan_ingestion(nothing_held([f"S{n}" for n in range(count)], MINUTES, wanted), MINUTES, now=NOW, workers=8).bars
        for count in (500, 11_000)
    )

    assert few == 500 * 480
    assert 1_500_000 < all_of_them < 1_800_000


@pytest.mark.parametrize(("known", "expected"), [(19, 480), (20, (20 * 100 + 20 * 480) / 40), (39, (39 * 100 + 480) / 40)])
def test_the_known_series_of_a_run_tell_of_the_others(known, expected):
    names = [f"S{n}" for n in range(40)]
    stored, wanted = span("2024-05-06", "2024-05-17"), span("2024-06-03", "2024-06-03")
    thin = [
        Coverage(Series(name, MINUTES), rows={Period(2024, 5): 1000}, first_bar=stored.start, last_bar=stored.end - ONE_DAY / 4)
        for name in names[:known]
    ]
    targets = [Target(one.series.symbol, (wanted,), one) for one in thin] + nothing_held(names[known:], MINUTES, wanted)

    plan = plan_ingestion(targets, MINUTES, now=NOW, workers=1)
    assert plan.bars == pytest.approx(known * 100 + (40 - known) * expected, abs=1)
