"""Timestamps tell minutes, hours, days, weeks and months apart. Expected: the bars that Alpaca has of each, day by day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from data_engine.market.bar_length import lengths_of, midnights, settle
from data_engine.market.exchange_calendar import is_session
from data_engine.market.series import Timeframe

NEW_YORK = ZoneInfo("America/New_York")
DAYS = [day for day in (date(2024, 2, 26) + timedelta(days=n) for n in range(40)) if is_session(day)]  # a change of clocks inside


def micros(instants: list[datetime]) -> np.ndarray:
    return np.array(sorted(int(instant.timestamp()) * 1_000_000 for instant in instants), np.int64)


def at(day: date, minute: int) -> datetime:
    return (datetime(day.year, day.month, day.day, tzinfo=NEW_YORK) + timedelta(minutes=minute)).astimezone(UTC)


def intraday(step: int, days: list[date]) -> np.ndarray:
    """Return the starts of the bars of 04:00 to 20:00, which are counted from midnight UTC."""
    found = {at(day, minute) for day in days for minute in range(4 * 60, 20 * 60)}
    return micros([instant for instant in found if (instant.hour * 60 + instant.minute) % step == 0])


@pytest.mark.parametrize("text", ["1Min", "2Min", "5Min", "10Min", "15Min", "30Min", "1Hour", "2Hour", "4Hour"])
def test_a_month_of_intraday_bars_has_one_timeframe(text):
    timeframe = Timeframe.parse(text)

    assert lengths_of(intraday(int(timeframe.length.total_seconds()) // 60, DAYS)) == {timeframe}


def test_the_hours_of_one_day_are_hours():
    assert lengths_of(micros([at(DAYS[0], 60 * hour) for hour in range(9, 16)])) == {Timeframe(1, "Hour")}


def test_a_stock_that_trades_in_closing_auctions_only_can_have_many_timeframes():
    found = lengths_of(micros([at(day, 16 * 60) for day in DAYS]))

    assert {Timeframe(1, "Min"), Timeframe(1, "Hour")} <= found
    assert settle(found, [frozenset({Timeframe(1, "Min")})]) == Timeframe(1, "Min")
    assert settle(found, [frozenset({Timeframe(1, "Min")}), frozenset({Timeframe(1, "Hour")})]) is None


def test_thin_minutes_are_minutes_whatever_else_there_is():
    assert lengths_of(micros([at(DAYS[0], 601), at(DAYS[3], 660)])) == {Timeframe(1, "Min")}


def days_of(text: str) -> list[date]:
    every = [date(2024, 1, 1) + timedelta(days=n) for n in range(366)]
    if text == "1Week":
        return [day for day in every if day.weekday() == 0]
    return [day for day in every if day.day == 1] if text == "1Month" else [day for day in every if is_session(day)]


@pytest.mark.parametrize("text", ["1Day", "1Week", "1Month"])
def test_a_year_of_longer_bars_has_one_timeframe(text):
    times = micros([at(day, 0) for day in days_of(text)])

    assert midnights(times).all()
    assert lengths_of(times) == {Timeframe.parse(text)}


def test_a_single_bar_on_a_monday_that_is_the_first_can_be_all_of_them():
    assert lengths_of(micros([at(date(2024, 4, 1), 0)])) == {Timeframe(1, unit) for unit in ("Day", "Week", "Month")}


def test_no_midnight_of_utc_is_one_of_new_york():
    times = micros([datetime(2024, 3, day, tzinfo=UTC) for day in range(1, 29)])

    assert not midnights(times).any()


def test_no_bars_have_no_timeframe():
    assert lengths_of(np.empty(0, np.int64)) == frozenset()
