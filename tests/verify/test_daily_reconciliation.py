"""Minutes against daily bars: equal to DuckDB's sums, silent about what is real, and loud about the rest."""

from __future__ import annotations

from datetime import date

import duckdb
import numpy as np
import pytest

from data_engine.market.bars import VALUES, make_table, to_micros, within
from data_engine.market.exchange_calendar import regular_hours, sessions
from data_engine.market.series import Dataset, Timeframe
from data_engine.market.time_range import TimeRange, new_york_days, new_york_midnight
from data_engine.verify.daily_reconciliation import Difference, SessionSums
from data_engine.verify.file_bars import FileBars
from real_data import bars_of, real

MINUTES = Dataset(Timeframe.parse("1Min"))
DAY = date(2024, 7, 3)  # a half day
WHOLE = new_york_days(DAY, DAY)


def minutes():
    """Return a day: one bar before the open, three within, one after the close."""
    hours = regular_hours(DAY)
    starts = [to_micros(hours.start) + 60_000_000 * number for number in (-5, 0, 1, 200, 215)]
    prices = [9.0, 10.0, 12.0, 11.0, 20.0]
    column = np.array(prices)
    values = {"open": column, "high": column + 1, "low": column - 1, "close": column + 0.5, "volume": np.full(5, 100.0)}
    return make_table(np.array(starts), [values.get(name, column) for name in VALUES])


def day(**changed: float):
    values = {"open": 10.0, "high": 13.0, "low": 9.0, "close": 11.5, "volume": 500.0, "trade_count": 5.0, "vwap": 11.0, **changed}
    return make_table(np.array([to_micros(new_york_midnight(DAY))]), [np.array([values[name]]) for name in VALUES])


def differences(days, *, covered=(WHOLE,), cut: bool = False) -> list[Difference]:
    sums = SessionSums(covered)
    whole = minutes()
    for piece in (whole.slice(0, 4), whole.slice(4)) if cut else (whole,):
        sums.add(FileBars.of(piece, MINUTES))
    return sums.compare(days)


@pytest.mark.parametrize("cut", [False, True])
def test_prices_are_of_regular_hours_and_volume_of_all(cut):
    assert differences(day(), cut=cut) == []
    assert differences(day(open=9.0), cut=cut) == [Difference(DAY, "open", 10.0, 9.0)]
    assert differences(day(high=21.0), cut=cut) == [Difference(DAY, "high", 13.0, 21.0)]
    assert differences(day(low=8.0), cut=cut) == [Difference(DAY, "low", 9.0, 8.0)]
    assert differences(day(close=20.5), cut=cut) == [Difference(DAY, "close", 11.5, 20.5)]
    assert differences(day(volume=400.0), cut=cut) == [Difference(DAY, "volume", 500.0, 400.0)]


def volumes(*ratios: float) -> list[str]:
    """Return what is found if the minutes of some days have these volumes relative to the days."""
    first = date(2024, 6, 3)
    made = list(sessions(first, date(2024, 6, 14)))[: len(ratios)]
    sums = SessionSums([new_york_days(first, date(2024, 6, 14))])
    for each, ratio in zip(made, ratios, strict=True):
        values = [np.array([100.0 * ratio if name == "volume" else 10.0]) for name in VALUES]
        sums.add(FileBars.of(make_table(np.array([to_micros(regular_hours(each).start)]), values), MINUTES))
    starts = np.array([to_micros(new_york_midnight(each)) for each in made])
    daily = make_table(starts, [np.full(len(made), 100.0 if name == "volume" else 10.0) for name in VALUES])
    return [str(one.day) for one in sums.compare(daily)]


def test_more_volume_than_the_day_in_a_session_or_two_is_no_difference():
    assert volumes(0.9, 0.95, 1.3, 0.9, 0.95) == []
    assert volumes(1.05, 1.05, 1.05, 1.05, 1.05) == []
    assert volumes(0.9, 0.95, 1.6, 0.9, 0.95) == ["2024-06-05"], "as if its bars were there twice"
    assert volumes(1.15, 1.15, 1.15, 0.9, 1.15) == ["2024-06-03", "2024-06-04", "2024-06-05", "2024-06-07"]


@pytest.mark.parametrize(
    "changed", [{"open": 10.04}, {"high": 12.95}, {"low": 9.04}, {"close": 11.6}, {"volume": 491.0}, {"volume": 5e9}], ids=str
)
def test_a_little_is_no_difference(changed):
    """The day has trades that the minutes leave out; the closing auction comes after the last minute."""
    assert differences(day(**changed)) == []


def test_only_sessions_that_both_cover_are_compared():
    half = TimeRange(WHOLE.start, regular_hours(DAY).end)

    assert differences(day(open=1.0), covered=(half,)) == []
    assert differences(within(day(open=1.0), new_york_days(date(2024, 7, 5), date(2024, 7, 5)))) == []
    assert "2024-07-03 open 10 by the minutes, 1 by the daily bar" in str(differences(day(open=1.0))[0])


@pytest.mark.parametrize("symbol", ["AAPL", "SPY", "ARM", "INTC"])
def test_two_real_vendors_agree(symbol):
    """Consolidated minutes of one, daily bars of another: 53 sessions, and not one difference beyond the tolerances."""
    query = bars_of("minute/polygon_sip_ext_8sym_20240603_20240816.parquet")
    rows = duckdb.sql(
        f"SELECT epoch_us(timestamp) t, {', '.join(VALUES)} FROM ({query}) WHERE symbol = '{symbol}' ORDER BY t"
    ).fetchnumpy()
    table = make_table(np.asarray(rows["t"]), [np.asarray(rows[name]) for name in VALUES])
    path = real("daily/tiingo_raw_adj_12sym_20240401_20260331.parquet")
    rows = duckdb.sql(
        "SELECT epoch_us(date::TIMESTAMP AT TIME ZONE 'America/New_York') t, open, high, low, close, volume::DOUBLE AS volume, "
        f"1.0 AS trade_count, close AS vwap FROM '{path}' WHERE symbol = '{symbol}' ORDER BY t"
    ).fetchnumpy()
    days = make_table(np.asarray(rows["t"]), [np.asarray(rows[name], float) for name in VALUES])
    sums = SessionSums([new_york_days(date(2024, 6, 3), date(2024, 8, 16))])
    sums.add(FileBars.of(table, MINUTES))

    assert sums.compare(days) == []
    assert len(sums._sums) == 53
