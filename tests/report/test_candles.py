"""Candles, and their way into a page: undone here by a reader of its own, made again by DuckDB."""

from __future__ import annotations

import struct
import zlib
from base64 import b64decode
from datetime import UTC, date, datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.market.bars import make_table, to_micros
from data_engine.market.exchange_calendar import regular_hours, sessions
from data_engine.market.time_range import new_york_midnight
from data_engine.report.candles import NOTHING, Candles, merge, of_bars, of_days, of_minutes, pack

WEEK = list(sessions(date(2024, 6, 28), date(2024, 7, 5)))  # with a half day and a holiday


def unpacked(text: str) -> tuple[list[int], list[list[float]]]:
    """Read what `pack` wrote, one number at a time."""
    data = b64decode(text)
    count, scale, step, volume_step = struct.unpack("<IIdd", data[:24])
    planes = zlib.decompress(data[24:], -15)
    assert len(planes) == 6 * 4 * count
    columns = []
    for at in range(6):
        column = []
        for row in range(count):
            four = [planes[(4 * at + plane) * count + row] for plane in range(4)]
            folded = int.from_bytes(bytes(four), "little")
            column.append((folded >> 1) ^ -(folded & 1))
        columns.append(column)
    times, rows = [], []
    time = close = volume = 0
    for dt, do, dc, dh, dl, dv in zip(*columns, strict=True):
        time += dt
        opened = close + do
        close = opened + dc
        volume += dv
        whole = [opened, max(opened, close) + dh, min(opened, close) - dl, close]
        prices = [one / scale if scale else float(np.exp(one * step)) for one in whole]
        times.append(time)
        rows.append([*prices, float(np.expm1(volume * volume_step))])
    return times, rows


def candles(times: list[int], rows: list[list[float]]) -> Candles:
    return Candles(np.array(times, np.int64), np.array(rows, float).T.reshape(5, len(rows)))


def minutes_of_week(seed: int = 1) -> pa.Table:
    """Return minutes from 08:00 to 22:00 UTC of each session, one in three missing."""
    random = np.random.default_rng(seed)
    times = np.concatenate(
        [
            np.arange(
                to_micros(datetime(d.year, d.month, d.day, 8, tzinfo=UTC)),
                to_micros(datetime(d.year, d.month, d.day, 22, tzinfo=UTC)),
                60_000_000,
            )
            for d in WEEK
        ]
    )
    times = times[random.random(times.size) > 1 / 3]
    prices = np.round(100 + random.normal(0, 0.1, (4, times.size)).cumsum(axis=1), 2)
    return make_table(
        times,
        [
            prices[0],
            prices.max(axis=0),
            prices.min(axis=0),
            prices[1],
            random.integers(1, 1000, times.size) * 1.0,
            prices[0],
            prices[0],
        ],
    )


def spans() -> tuple[Any, Any, Any]:
    hours = [regular_hours(day) for day in WEEK]
    return (
        np.array([day.toordinal() for day in WEEK], np.int64),
        np.array([to_micros(span.start) for span in hours], np.int64),
        np.array([to_micros(span.end) for span in hours], np.int64),
    )


def test_a_session_is_made_of_the_minutes_of_its_regular_hours() -> None:
    bars = minutes_of_week()
    made = of_minutes(bars, *spans())

    closes = {day: "17:00" if day == date(2024, 7, 3) else "20:00" for day in WEEK}  # UTC
    expected = []
    for day in WEEK:
        expected.append(
            duckdb.sql(f"""
            SELECT first(open ORDER BY timestamp), max(high), min(low), last(close ORDER BY timestamp), sum(volume) FROM bars
            WHERE timestamp >= '{day} 13:30:00+00' AND timestamp < '{day} {closes[day]}:00+00'""").fetchall()[0]
        )
    assert made.times.tolist() == [day.toordinal() for day in WEEK]
    assert made.values.T.tolist() == [list(row) for row in expected]


def test_a_session_without_a_bar_has_no_candle() -> None:
    bars = minutes_of_week()
    early = bars.slice(0, 5)  # before the first open

    assert len(of_minutes(early, *spans())) == 0
    assert len(of_minutes(bars.slice(0, 0), *spans())) == 0


@pytest.mark.parametrize("day", [date(2024, 1, 2), date(2024, 7, 2)], ids=["winter", "summer"])
def test_a_daily_bar_is_of_its_new_york_day(day: date) -> None:
    bar = make_table(np.array([to_micros(new_york_midnight(day))], np.int64), [np.array([1.0])] * 7)

    assert of_days(bar).times.tolist() == [day.toordinal()]


def test_bars_that_are_no_numbers_are_left_out() -> None:
    values = [np.array([1.0, np.nan, 3.0])] * 7
    bars = make_table(np.array([0, 60_000_000, 120_000_000], np.int64), values)

    assert of_bars(bars).times.tolist() == [0, 2]


def test_of_two_candles_of_one_day_the_first_parts_counts() -> None:
    daily = candles([10, 12], [[1.0] * 5, [2.0] * 5])
    made = candles([11, 12], [[7.0] * 5, [8.0] * 5])

    both = merge([daily, NOTHING, made])

    assert both.times.tolist() == [10, 11, 12]
    assert both.values[0].tolist() == [1.0, 7.0, 2.0]
    assert len(merge([])) == 0


cents = st.integers(-10_000_000, 100_000_000).map(lambda value: value / 100)
a_row = st.tuples(cents, cents, cents, cents, st.floats(0, 1e11)).map(list)
some_times = st.lists(st.integers(0, 40_000_000), unique=True, min_size=1, max_size=30).map(sorted)


@given(st.data(), some_times)
def test_what_is_packed_is_read_again_to_the_cent_whatever_order_the_prices_are_in(data: Any, times: list[int]) -> None:
    rows = data.draw(st.lists(a_row, min_size=len(times), max_size=len(times)))
    read, values = unpacked(pack(candles(times, rows)))

    assert read == times
    assert [row[:4] for row in values] == [row[:4] for row in rows]
    assert all(abs(read[4] - row[4]) <= 1.01e-3 * (row[4] + 1) for read, row in zip(values, rows, strict=True))


@given(st.lists(st.tuples(*[st.floats(0.01, 900_000)] * 4, st.floats(0, 1e11)).map(list), min_size=1, max_size=30))
def test_rounded_prices_are_within_a_fortieth_of_a_percent(rows: list[list[float]]) -> None:
    _, values = unpacked(pack(candles(list(range(len(rows))), rows), rounded=True))

    for read, row in zip(values, rows, strict=True):
        assert read[:4] == pytest.approx(row[:4], rel=2.6e-4)
        assert abs(read[4] - row[4]) <= 2.1e-2 * (row[4] + 1)


@pytest.mark.parametrize(
    ("price", "scale"),
    [(700_000.0, 1), (189.33, 100), (12.345, 1000), (0.0123, 10_000), (1 / 3, 10_000), (600_000.12345, 1000)],
)
def test_prices_keep_as_many_digits_as_they_have_and_fit(price: float, scale: int) -> None:
    text = pack(candles([1], [[price] * 4 + [1.0]]))

    assert struct.unpack("<II", b64decode(text)[:8]) == (1, scale)
    assert unpacked(text)[1][0][0] == pytest.approx(price, abs=0.6 / scale)


def test_no_candles_are_no_text() -> None:
    assert pack(NOTHING) == ""


def test_nine_years_of_a_symbol_take_a_few_bytes_a_candle() -> None:
    random = np.random.default_rng(3)
    closes = 100 * np.exp(random.normal(0, 0.018, 2268).cumsum())
    opens = np.concatenate([[100.0], closes[:-1]]) * np.exp(random.normal(0, 0.006, 2268))
    highs = np.maximum(opens, closes) * np.exp(random.exponential(0.007, 2268))
    lows = np.minimum(opens, closes) * np.exp(-random.exponential(0.007, 2268))
    volumes = np.exp(random.normal(14.5, 0.4, 2268))
    year = Candles(np.arange(2268), np.vstack([np.round(column, 2) for column in (opens, highs, lows, closes, volumes)]))

    exact, rounded = len(pack(year)), len(pack(year, rounded=True))

    # 500 of them have to go into a page of 10 MB.
    assert rounded * 500 < 6_500_000
    assert rounded < exact < 24_000
