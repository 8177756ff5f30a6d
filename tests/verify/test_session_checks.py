"""Bars where there can be none, against a minute-by-minute walk and against real vendors' habits."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.market.bar_grid import in_future, off_grid
from data_engine.market.bars import from_micros, to_micros
from data_engine.market.exchange_calendar import extended_hours, is_session
from data_engine.market.series import Dataset, Feed, Timeframe
from data_engine.verify.session_checks import days_of, describe_days, outside_sessions
from real_data import real

MINUTES, FIVE, HOURS, DAYS, WEEKS = (Dataset(Timeframe.parse(text)) for text in ("1Min", "5Min", "1Hour", "1Day", "1Week"))
NEW_YORK = ZoneInfo("America/New_York")


def timestamps(*instants: datetime) -> np.ndarray:
    return np.array([to_micros(one) for one in instants], np.int64)


def new_york(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).astimezone(UTC)


@pytest.mark.parametrize(
    ("dataset", "start", "outside"),
    [
        (MINUTES, "2024-06-03T04:00", False),
        (MINUTES, "2024-06-03T03:59", True),
        (MINUTES, "2024-06-03T19:59", False),
        (MINUTES, "2024-06-03T20:00", False),  # a print at the stroke of the close
        (MINUTES, "2024-06-03T20:01", True),
        (MINUTES, "2024-07-03T17:00", False),  # a half day
        (MINUTES, "2024-07-03T17:01", True),
        (MINUTES, "2024-06-19T12:00", True),  # Juneteenth
        (MINUTES, "2024-06-22T12:00", True),  # a Saturday
        (FIVE, "2024-06-03T03:55", True),
        (HOURS, "2024-06-03T03:00", True),
        (HOURS, "2024-06-03T04:00", False),
        (DAYS, "2024-06-19T00:00", True),
        (DAYS, "2024-06-20T00:00", False),
        (WEEKS, "2024-06-17T00:00", False),
    ],
)
def test_a_bar_is_outside_where_no_session_has_a_moment_of_it(dataset, start, outside):
    assert (outside_sessions(timestamps(new_york(start)), dataset).size == 1) == outside


@given(st.sampled_from(["1Min", "7Min", "30Min", "1Hour", "4Hour"]), st.integers(0, 60 * 24 * 40))
def test_it_is_what_a_walk_over_the_minutes_of_the_bar_says(name, minute):
    dataset = Dataset(Timeframe.parse(name))
    start = dataset.timeframe.floor(datetime(2024, 6, 10, tzinfo=UTC) + timedelta(minutes=minute))
    inside = False
    moment = start
    while moment < dataset.timeframe.next(start):
        day = moment.astimezone(NEW_YORK).date()
        inside |= is_session(day) and extended_hours(day).start <= moment <= extended_hours(day).end
        moment += timedelta(minutes=1)

    assert (outside_sessions(timestamps(start), dataset).size == 0) == inside


def test_other_feeds_have_hours_of_their_own():
    night = timestamps(new_york("2024-06-23T22:00"))

    for feed in (Feed.BOATS, Feed.OTC, Feed.ACCOUNT):
        assert outside_sessions(night, Dataset(MINUTES.timeframe, feed=feed)).size == 0
    assert outside_sessions(night, Dataset(MINUTES.timeframe, feed=Feed.IEX)).size == 1


@given(st.sampled_from(["1Min", "7Min", "1Hour", "7Hour", "1Day", "1Week", "3Month"]), st.integers(0, 10**15))
def test_a_timestamp_is_off_the_grid_where_it_is_not_its_own_floor(name, timestamp):
    timeframe = Timeframe.parse(name)
    on = to_micros(timeframe.floor(from_micros(timestamp)))

    assert off_grid(np.array([on], np.int64), timeframe).size == 0
    assert (off_grid(np.array([timestamp], np.int64), timeframe).size == 0) == (timestamp == on)


def test_what_has_not_begun_by_now_is_in_the_future():
    times = timestamps(*(datetime(2024, 6, 3, hour, tzinfo=UTC) for hour in (13, 14, 15)))

    assert in_future(times, datetime(2024, 6, 3, 14, tzinfo=UTC)).tolist() == times[2:].tolist()
    assert in_future(times[:0], datetime(2024, 6, 3, tzinfo=UTC)).size == 0


def test_days_are_named_with_the_reason():
    times = timestamps(*(new_york(f"2024-06-{day}T12:00") for day in (19, 22, 23)), new_york("2024-06-24T23:00"))
    text = "2024-06-19 (exchange closed), 2024-06-22 (Saturday), 2024-06-23 (Sunday), 2024-06-24 (outside hours)"

    assert describe_days(times, MINUTES.timeframe) == text
    assert days_of(times) == [date(2024, 6, day) for day in (19, 22, 23, 24)]


def test_two_false_sessions_in_real_data_are_named():
    """Copies of the Friday, in nearly all of 60 symbols."""
    path = real("daily/yahoo_splitadj_60sym_2018_2023.parquet")
    query = f"SELECT symbol, epoch_us(date::TIMESTAMP AT TIME ZONE 'America/New_York') FROM '{path}' ORDER BY ALL"
    by_symbol: dict[str, list[int]] = {}
    for symbol, timestamp in duckdb.sql(query).fetchall():
        by_symbol.setdefault(symbol, []).append(timestamp)
    strays = {symbol: days_of(outside_sessions(np.array(times), DAYS)) for symbol, times in by_symbol.items()}

    assert {day for days in strays.values() for day in days} == {date(2022, 6, 20), date(2023, 6, 19)}
    assert sum(map(len, strays.values())) == 119


@pytest.mark.parametrize("name", ["polygon_sip_ext_8sym_20240603_20240816", "polygon_sip_ext_SPY_2024", "alpaca_iex_SPY_202506"])
def test_no_bar_of_the_real_tape_is_outside(name):
    path = real(f"minute/{name}.parquet")
    times = np.array([one for (one,) in duckdb.sql(f"SELECT DISTINCT epoch_us(timestamp) FROM '{path}' ORDER BY 1").fetchall()])

    assert outside_sessions(times, MINUTES).size == 0
