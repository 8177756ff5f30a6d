"""Gaps and their kinds: synthetic markets with known gaps, brute force, and real bars."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.market.bars import to_micros
from data_engine.market.exchange_calendar import regular_hours, sessions
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import TimeRange, new_york_days, new_york_midnight
from data_engine.store.coverage import Coverage, Failure
from data_engine.verify.gaps import Gap, Presence, find_gaps, missing_ranges, presence
from real_data import real

MINUTES, DAYS, HOURS = (Dataset(Timeframe.parse(text)) for text in ("1Min", "1Day", "1Hour"))
FIRST, LAST = date(2024, 6, 3), date(2024, 7, 12)
SESSIONS = list(sessions(FIRST, LAST))  # with a holiday and a half day among them
WHOLE = new_york_days(FIRST, LAST)
DAY = SESSIONS[12]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def minutes(rng: np.random.Generator, density: float) -> list[datetime]:
    """Return the minutes of a made-up symbol that trades in each with a chance."""
    made = []
    for day in SESSIONS:
        hours = regular_hours(day)
        count = int(hours.length.total_seconds()) // 60
        made += [hours.start + timedelta(minutes=int(minute)) for minute in np.flatnonzero(rng.random(count) < density)]
    return made


def filled(symbol: str, times: list[datetime], dataset: Dataset = MINUTES, covered: TimeRange = WHOLE) -> Presence:
    timestamps = np.array([to_micros(one) for one in times], np.int64)
    half = len(timestamps) // 2
    return presence(Series(symbol, dataset), [timestamps[:half], timestamps[half:]], (covered,))


def without(times: list[datetime], *spans: TimeRange) -> list[datetime]:
    return [one for one in times if not any(one in span for span in spans)]


def found(*series: Presence, dataset: Dataset = MINUTES) -> list[Gap]:
    return find_gaps(dataset, series)[0]


LUNCH = TimeRange(at("2024-06-20T16:00"), at("2024-06-20T16:20"))
WHOLE_DAY = regular_hours(DAY)


# What a series fills


@given(st.integers(0, 2**32), st.floats(0, 1))
def test_empty_places_are_counted_as_a_loop_counts_them(seed, density):
    times = minutes(np.random.default_rng(seed), density)
    one = filled("AAPL", times)
    places = sum(int(regular_hours(day).length.total_seconds()) // 60 for day in SESSIONS)
    surprising, quiet = find_gaps(MINUTES, [one])

    assert one.days.tolist() == [day.toordinal() for day in SESSIONS]
    assert quiet[one.series] + sum(gap.places for gap in surprising) == places - len(times)


def test_extended_hours_and_partly_covered_sessions_do_not_count():
    times = minutes(np.random.default_rng(1), 1.0)
    early = [one - timedelta(hours=4) for one in times]
    part = TimeRange(WHOLE.start, regular_hours(SESSIONS[5]).end - timedelta(minutes=1))

    assert find_gaps(MINUTES, [filled("AAPL", early + times)])[1] == {Series("AAPL", MINUTES): 0}
    assert filled("AAPL", times, covered=part).days.tolist() == [day.toordinal() for day in SESSIONS[:5]]
    assert filled("AAPL", [], covered=TimeRange(at("2024-06-08T00:00"), at("2024-06-09T00:00"))).days.size == 0
    assert presence(Series("AAPL", MINUTES), [], ()).days.size == 0


# Quiet, single-symbol, shared


@pytest.mark.parametrize("density", [0.01, 0.1, 0.3, 0.5, 0.8, 0.95, 1.0])
def test_a_symbols_own_habit_is_no_surprise(density):
    rng = np.random.default_rng(int(density * 100))

    assert found(*(filled(name, minutes(rng, density)) for name in ("A", "B", "C", "D"))) == []


@pytest.mark.parametrize("density", [0.95, 1.0])
def test_a_gap_of_only_one_symbol_is_single_symbol(density):
    rng = np.random.default_rng(5)
    others = [filled(name, minutes(rng, density)) for name in ("B", "C", "D")]
    (gap,) = found(filled("A", without(minutes(rng, density), LUNCH)), *others)

    assert (gap.series.symbol, gap.kind, gap.others, gap.lacking) == ("A", "single_symbol", 3, 0)
    assert gap.span.start <= LUNCH.start
    assert LUNCH.end <= gap.span.end
    assert 20 <= gap.places <= 25


@pytest.mark.parametrize("gap", [LUNCH, WHOLE_DAY], ids=["twenty-minutes", "a-whole-session"])
def test_a_gap_of_all_symbols_that_usually_trade_then_is_shared(gap):
    rng = np.random.default_rng(6)
    dense = [filled(name, without(minutes(rng, 1.0), gap)) for name in ("A", "B", "C", "D")]
    found_gaps = found(*dense, filled("THIN", minutes(rng, 0.01)))

    assert {(gap.series.symbol, gap.kind, gap.span) for gap in found_gaps} == {(name, "shared", gap) for name in "ABCD"}
    assert {(gap.others, gap.lacking) for gap in found_gaps} == {(3, 3)}, "an illiquid symbol does not count"


def test_with_too_few_other_symbols_no_gap_is_shared():
    rng = np.random.default_rng(7)

    assert {gap.kind for gap in found(*(filled(name, without(minutes(rng, 1.0), LUNCH)) for name in ("A", "B")))} == {
        "single_symbol"
    }


def test_before_the_first_bar_and_after_the_last_there_is_no_gap():
    """Not yet listed, or no longer."""
    times = [one for one in minutes(np.random.default_rng(8), 1.0) if SESSIONS[8] <= one.date() <= SESSIONS[20]]

    assert found(filled("A", times)) == []


def test_a_new_listing_opens_late_on_its_first_day():
    times = [one for one in minutes(np.random.default_rng(8), 1.0) if one.date() >= SESSIONS[8]]
    opening = [one for one in times if one >= regular_hours(SESSIONS[8]).start + timedelta(hours=1)]
    later = TimeRange(regular_hours(SESSIONS[9]).start, regular_hours(SESSIONS[9]).start + timedelta(hours=1))

    assert found(filled("A", opening)) == []
    assert [gap.span for gap in found(filled("A", without(opening, later)))] == [later]


def test_a_few_sessions_are_no_habit():
    times = without([one for one in minutes(np.random.default_rng(9), 1.0) if one.date() <= SESSIONS[4]], LUNCH)

    assert found(filled("A", times, covered=new_york_days(FIRST, SESSIONS[4]))) == []


def test_a_halt_in_hours_is_seen_too():
    rng = np.random.default_rng(10)
    hourly = sorted({one.replace(minute=0) for one in minutes(rng, 1.0)})
    (gap,) = found(filled("A", without(hourly, WHOLE_DAY), HOURS), dataset=HOURS)

    assert (gap.kind, gap.places) == ("single_symbol", 6)  # the bar of the opening starts before it, and is there


@pytest.mark.parametrize(("lacking", "kind"), [(1, "single_symbol"), (4, "shared")])
def test_a_missing_daily_bar_is_a_surprise_where_there_is_one_before_and_after(lacking, kind):
    days = [new_york_midnight(day) for day in SESSIONS]
    gap = new_york_days(DAY, DAY)
    series = [filled(name, without(days, gap) if number < lacking else days, DAYS) for number, name in enumerate("ABCD")]

    assert {(gap.kind, gap.span, gap.places) for gap in found(*series, dataset=DAYS)} == {(kind, gap, 1)}


def test_a_symbol_that_often_lacks_its_daily_bar_is_quiet():
    days = [new_york_midnight(day) for number, day in enumerate(SESSIONS) if number % 3]

    assert find_gaps(DAYS, [filled("A", days, DAYS)]) == ([], {Series("A", DAYS): len(SESSIONS) - len(days)})


# Days: the habit of years, and the trades of the days around

YEARS = list(sessions(date(2021, 1, 4), date(2024, 6, 28)))
ALL_YEARS = new_york_days(YEARS[0], YEARS[-1])


def daily(symbol: str, days: list[date], trades: float | list[float] | None = None, covered: TimeRange = ALL_YEARS) -> Presence:
    times = np.array([to_micros(new_york_midnight(day)) for day in days], np.int64)
    counts = None if trades is None else [np.broadcast_to(np.array(trades, float), times.shape)]
    return presence(Series(symbol, DAYS), [times], (covered,), counts)


@pytest.mark.parametrize("trades", [None, 5.0, 200.0])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.93, 0.96, 0.99])
def test_healthy_series_that_skip_days_have_no_gap(share, trades):
    rng = np.random.default_rng(int(share * 1000))
    series = [
        daily(f"S{number}", [day for day in YEARS if rng.random() < share or day in (YEARS[0], YEARS[-1])], trades)
        for number in range(20)
    ]

    assert found(*series, dataset=DAYS) == []


def test_a_day_that_a_busy_series_lacks_is_a_gap():
    hole = YEARS[400]
    present = [day for day in YEARS if day != hole]
    (gap,) = found(daily("A", present, 500.0), dataset=DAYS)

    assert (gap.span, gap.places) == (new_york_days(hole, hole), 1)
    assert found(daily("A", present, 12.0), dataset=DAYS) == [], "with 12 trades a day, one day without is nothing"
    quiet = [12.0 if day == YEARS[405] else 500.0 for day in present]
    assert found(daily("A", present, quiet), dataset=DAYS) == [], "one of the days around nearly had none"


def test_two_days_that_a_very_busy_series_lacks_are_gaps():
    holes = {YEARS[300], YEARS[500]}
    present = [day for day in YEARS if day not in holes]

    assert {gap.span.start for gap in found(daily("A", present, 5e4), dataset=DAYS)} == {new_york_midnight(day) for day in holes}
    assert found(daily("A", present, 500.0), dataset=DAYS) == []


def test_a_long_absence_is_a_gap_of_a_series_that_skips_days():
    rng = np.random.default_rng(3)
    present = [day for day in YEARS if rng.random() < 0.95 and not YEARS[400] <= day <= YEARS[419]]
    gaps = found(daily("A", present, 3.0), dataset=DAYS)

    assert len(gaps) >= 20
    assert all(YEARS[398] <= gap.span.start.date() <= YEARS[421] for gap in gaps)


# Neighbors by the calendar


def test_sessions_that_are_not_covered_tell_nothing_about_the_habit():
    """A symbol that was busy in June, and had grown quiet by October: of the months between, nothing is held."""
    rng = np.random.default_rng(11)
    june, october = (list(sessions(date(2024, month, 1), date(2024, month, 12))) for month in (6, 10))
    made = []
    for day, density in [(day, 1.0) for day in june] + [(day, 0.02) for day in october]:
        hours = regular_hours(day)
        made += [hours.start + timedelta(minutes=int(minute)) for minute in np.flatnonzero(rng.random(390) < density)]
    times = np.array([to_micros(one) for one in made], np.int64)
    covered = [new_york_days(days[0], days[-1]) for days in (june, october)]

    assert found(presence(Series("A", MINUTES), [times], covered)) == []


# Not requested, failed, no session

A = Series("AAPL", MINUTES)
NOW = at("2024-07-20T00:00")


def kinds(known: Coverage) -> list[tuple[str, TimeRange]]:
    return [(gap.kind, gap.span) for gap in missing_ranges(known, NOW)]


def test_a_missing_range_is_not_fetched_or_failed():
    week = new_york_days(date(2024, 6, 3), date(2024, 6, 7))
    known = Coverage(A, wanted=(WHOLE,), covered=(week,))
    rest = WHOLE.after(week.end)

    assert kinds(known) == [("not_fetched", rest)]
    assert kinds(known.failed("unavailable", "503", NOW)) == [("failed", rest)]
    assert kinds(known.failed("interrupted", "Ctrl-C", NOW)) == [("not_fetched", rest)]
    assert kinds(Coverage(A, wanted=(WHOLE,), covered=(week,), provisional=(rest,), failure=Failure("a", "b", NOW))) == []
    assert kinds(Coverage(A)) == []


def test_a_range_without_a_session_is_no_session():
    weekend = new_york_days(date(2024, 6, 8), date(2024, 6, 9))
    before, after = WHOLE.before(weekend.start), WHOLE.after(weekend.end)

    assert kinds(Coverage(A, wanted=(WHOLE,), covered=(before, after))) == [("no_session", weekend)]


def test_what_lies_between_two_requested_ranges_nobody_requested():
    first, last = new_york_days(date(2024, 6, 3), date(2024, 6, 3)), new_york_days(date(2024, 7, 1), date(2024, 7, 1))

    assert kinds(Coverage(A, wanted=(first, last), covered=(first, last))) == [
        ("not_requested", TimeRange(first.end, last.start))
    ]


def test_a_future_range_is_not_missing():
    requested = TimeRange(NOW - timedelta(days=3), NOW + timedelta(days=30))

    assert kinds(Coverage(A, wanted=(requested,))) == [("not_fetched", TimeRange(requested.start, NOW))]
    assert kinds(Coverage(A, wanted=(TimeRange(NOW, requested.end),))) == []


def test_a_bar_under_way_is_not_missing_until_it_has_ended():
    """Of Friday's daily bar nothing is missing on Friday evening (New York)."""
    friday = TimeRange(at("2024-07-19T04:00"), NOW)
    known = Coverage(Series("AAPL", Dataset(Timeframe.parse("1Day"))), wanted=(friday,))

    assert missing_ranges(known, NOW) == []
    assert [(gap.kind, gap.span) for gap in missing_ranges(known, at("2024-07-20T04:00"))] == [("not_fetched", friday)]


# The real tape


def real_presences(name: str, drop: TimeRange | None = None) -> list[Presence]:
    query = f"SELECT symbol, epoch_us(timestamp) FROM '{real(name)}' ORDER BY ALL"
    by_symbol: dict[str, list[int]] = {}
    for symbol, timestamp in duckdb.sql(query).fetchall():
        if drop is None or not to_micros(drop.start) <= timestamp < to_micros(drop.end):
            by_symbol.setdefault(symbol, []).append(timestamp)
    first, last = min(times[0] for times in by_symbol.values()), max(times[-1] for times in by_symbol.values())
    reach = [datetime.fromtimestamp(timestamp / 1e6, UTC) for timestamp in (first, last)]
    covered = TimeRange(reach[0] - timedelta(days=1), reach[1] + timedelta(days=1))
    return [presence(Series(symbol, MINUTES), [np.array(times)], (covered,)) for symbol, times in by_symbol.items()]


EIGHT = "minute/polygon_sip_ext_8sym_20240603_20240816.parquet"


@pytest.mark.parametrize(
    "name",
    [
        EIGHT,
        "minute/polygon_sip_ext_SPY_2024.parquet",
        "minute/polygon_sip_ext_halfday_3sym_20241125_20241231.parquet",
        "minute/unknownvendor_ext_DBB_20230710_20240630.parquet",  # illiquid
        "minute/unknownvendor_rth_10sym_2018_ENDLABEL.parquet",  # one of them delisted midway
    ],
)
def test_real_bars_have_no_surprising_gap(name):
    assert find_gaps(MINUTES, real_presences(name))[0] == []


def test_a_gap_cut_into_the_real_tape_is_the_vendors():
    gap = TimeRange(at("2024-07-10T17:00"), at("2024-07-10T17:30"))
    found_gaps, _ = find_gaps(MINUTES, real_presences(EIGHT, gap))

    assert {gap.kind for gap in found_gaps} == {"shared"}
    assert {"AAPL", "NVDA", "SPY", "INTC"} <= {gap.series.symbol for gap in found_gaps}
    assert "SPCX" not in {gap.series.symbol for gap in found_gaps}, "it has 1 to 5 bars a day"


def test_the_end_of_a_download_in_the_middle_of_a_session_is_seen():
    """A real file whose last day was fetched before the session's end."""
    found_gaps, _ = find_gaps(MINUTES, real_presences("minute/ibkr_rth_3sym_20251106_20251218.parquet"))

    assert {gap.span.start.date() for gap in found_gaps} == {date(2025, 12, 18)}
    assert len(found_gaps) == 3
