"""The simulated market: deterministic, on the real calendar, and shaped like one."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from data_engine.market.exchange_calendar import extended_hours, regular_hours, sessions
from data_engine.market.series import Adjustment, Timeframe
from data_engine.market.time_range import TimeRange, new_york_days
from data_engine.sandbox import SimulatedMarket
from data_engine.sandbox.aggregation import to_days, to_periods

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MARKET = SimulatedMarket()
FIVE_KINDS = ("AAPL", "KO", "MMM", "NVDA", "XQZ")


def bars(symbol, timeframe, first, last, *, adjustment="raw", feed="sip", now=NOW):
    span = first if isinstance(first, TimeRange) else new_york_days(date.fromisoformat(first), date.fromisoformat(last))
    chosen = Adjustment.parse(adjustment)
    return MARKET.bars(symbol, Timeframe.parse(timeframe), span, adjustment=chosen, feed=feed, now=now)


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip((left.start, *left.values), (right.start, *right.values), strict=True))


def test_another_process_sees_the_same_market():
    program = (
        "from datetime import UTC, date, datetime; from data_engine.sandbox import SimulatedMarket;"
        "from data_engine.market.time_range import new_york_days; from data_engine.market.series import RAW, Timeframe;"
        "b = SimulatedMarket().bars('KO', Timeframe(1, 'Min'), new_york_days(date(2024, 6, 3), date(2024, 6, 3)),"
        " adjustment=RAW, feed='sip', now=datetime(2026, 1, 1, tzinfo=UTC));"
        "print(len(b), b.close.sum().item(), b.volume.sum().item())"
    )
    theirs = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "7"}
    )
    ours = bars("KO", "1Min", "2024-06-03", "2024-06-03")

    assert f"{len(ours)} {ours.close.sum().item()} {ours.volume.sum().item()}" == theirs.stdout.strip()


@pytest.mark.parametrize("symbol", FIVE_KINDS)
def test_a_bar_does_not_depend_on_the_range_asked(symbol):
    month = bars(symbol, "1Min", "2024-11-01", "2024-11-30")
    day = bars(symbol, "1Min", "2024-11-14", "2024-11-14")

    assert len(day)
    assert same(day, month.inside(new_york_days(date(2024, 11, 14), date(2024, 11, 14))))


@pytest.mark.parametrize("symbol", FIVE_KINDS)
def test_bars_are_consistent(symbol):
    found = bars(symbol, "1Min", "2024-05-01", "2024-07-31")

    assert (np.diff(found.start) > 0).all()
    assert (found.low > 0).all()
    assert (found.low <= np.minimum(found.open, found.close)).all()
    assert (found.high >= np.maximum(found.open, found.close)).all()
    assert ((found.low <= found.vwap) & (found.vwap <= found.high)).all()
    assert ((found.trade_count >= 1) & (found.trade_count <= found.volume)).all()
    assert np.array_equal(np.floor(found.volume), found.volume)
    assert np.array_equal(np.round(found.vwap, 6), found.vwap)


def test_prices_are_in_cents_and_under_a_dollar_in_hundredths():
    names = [a + b for a in "ABCDEFGHIJ" for b in "ABCDEFGHIJ"]
    days = [bars(name, "1Day", "2024-01-01", "2024-12-31") for name in names]
    close = np.concatenate([found.close for found in days])

    assert (close < 1).any()
    assert np.array_equal(np.where(close < 1, np.round(close, 4), np.round(close, 2)), close)


@pytest.mark.parametrize("symbol", FIVE_KINDS)
def test_days_agree_with_their_minutes(symbol):
    days = bars(symbol, "1Day", "2024-05-01", "2024-12-31")
    summed = to_days(bars(symbol, "1Min", "2024-05-01", "2024-12-31"))

    assert np.array_equal(days.start, summed.start)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(days.values[:4], summed.values[:4], strict=True))
    assert (np.abs(summed.volume / days.volume - 1) < 0.25).all()


def test_bars_lie_in_the_extended_hours_of_sessions_alone():
    first, last = date(2024, 11, 18), date(2024, 12, 31)
    found = bars("AAPL", "1Min", new_york_days(first, last), None)
    hours = [extended_hours(day) for day in sessions(first, last)]
    inside = [found.inside(span) for span in hours]

    assert len(found) == sum(map(len, inside))
    assert all(len(piece) for piece in inside)


def test_a_liquid_symbol_has_a_bar_in_every_regular_minute_also_on_half_days():
    counts = [len(bars("AAPL", "1Min", regular_hours(day), None)) for day in (date(2024, 11, 27), date(2024, 11, 29))]

    assert counts == [390, 210]


def test_symbols_differ_in_liquidity():
    names = [a + b + "Q" for a in "ABCDEFGHIJKL" for b in "ABCDEFGHIJ"]
    counts = np.array([len(bars(name, "1Min", "2024-06-03", "2024-06-03")) for name in names])

    assert 440 <= counts.mean() <= 560
    assert counts.min() < 300
    assert 750 < len(bars("AAPL", "1Min", "2024-06-03", "2024-06-03")) <= 960


def test_volume_is_highest_at_the_open_and_the_close():
    month = bars("AAPL", "1Min", "2024-06-03", "2024-06-28")
    minute = (month.start // 60_000_000_000) % 1440 - (13 * 60 + 30)
    by_minute = np.array([month.volume[minute == number].mean() for number in range(390)])

    assert min(by_minute[0], by_minute[-1]) > 2 * by_minute[150:240].max()


def test_prices_go_on_from_day_to_day():
    found = bars("KO", "1Day", "2016-01-04", "2025-12-31")
    changes = np.diff(np.log(found.close))

    assert 0.004 < changes.std() < 0.03
    assert np.abs(changes).max() < 0.15
    assert np.abs(np.log(found.open[1:] / found.close[:-1])).max() < 0.06


def test_a_split_makes_raw_prices_jump_and_adjusted_ones_not():
    raw = bars("NVDA", "1Day", "2024-06-03", "2024-06-14")
    split = bars("NVDA", "1Day", "2024-06-03", "2024-06-14", adjustment="split")
    everything = bars("NVDA", "1Day", "2024-06-03", "2024-06-14", adjustment="all")

    assert 8 < raw.close[4] / raw.close[5] < 12
    assert 0.8 < split.close[4] / split.close[5] < 1.2
    assert np.array_equal(raw.volume[:5] * 10, split.volume[:5])
    assert np.array_equal(raw.close[5:], split.close[5:])
    assert np.array_equal(np.round(split.vwap[:5], 2), split.vwap[:5])
    assert same(split, everything)


def test_a_reverse_split_multiplies_the_price():
    raw = bars("GE", "1Day", "2021-07-30", "2021-08-02")
    split = bars("GE", "1Day", "2021-07-30", "2021-08-02", adjustment="split")

    assert 6 < raw.close[1] / raw.close[0] < 10
    assert np.round(raw.close[0] * 8, 2) == split.close[0]
    assert split.volume[0] == np.floor(split.volume[0])


def test_nothing_trades_before_2016_and_unknown_symbols_never():
    assert len(bars("AAPL", "1Min", "2015-12-28", "2016-01-03")) == 0
    assert len(bars("AAPL", "1Min", "2016-01-04", "2016-01-04")) > 0
    assert MARKET.reach("ZZZQQXNOTAREALTICKER", "sip", NOW) is None
    assert len(bars("ZZZA", "1Day", "2016-01-04", "2025-12-31")) == 0


def test_the_smaller_feed_has_fewer_bars_of_the_same_prices():
    tape = bars("KO", "1Min", "2024-06-03", "2024-06-28")
    smaller = bars("KO", "1Min", "2024-06-03", "2024-06-28", feed="iex")
    both = np.isin(tape.start, smaller.start)

    assert 0.4 < len(smaller) / len(tape) < 0.95
    assert len(smaller) == both.sum()
    assert 0.01 < smaller.volume.sum() / tape.volume.sum() < 0.03
    assert np.array_equal(tape.close[both], smaller.close)
    assert len(bars("KO", "1Day", "2024-06-03", "2024-06-28", feed="otc")) == 0


def test_weeks_and_months_are_made_of_days():
    days = bars("KO", "1Day", "2024-01-01", "2024-12-31")

    for timeframe in ("1Month", "3Month"):
        found = bars("KO", timeframe, "2024-01-01", "2024-12-31")
        assert same(found, to_periods(days, Timeframe.parse(timeframe)))
    weeks = bars("KO", "1Week", "2024-01-01", "2024-12-31")
    assert len(weeks) == 53
    assert {0} == {datetime.fromtimestamp(start / 1e9, UTC).weekday() for start in weeks.start.tolist()}


def test_hours_lie_on_whole_utc_hours():
    hours = bars("AAPL", "1Hour", "2024-06-03", "2024-06-03")

    assert [str(stamp)[11:13] for stamp in hours.start.astype("datetime64[ns]")] == [
        "08",
        "09",
        "10",
        "11",
        "12",
        "13",
        "14",
        "15",
        "16",
        "17",
        "18",
        "19",
        "20",
        "21",
        "22",
        "23",
    ]


def test_a_minute_is_served_once_it_has_ended():
    noon = datetime(2024, 6, 3, 16, 0, tzinfo=UTC)
    before = bars("AAPL", "1Min", "2024-06-03", "2024-06-03", now=noon + timedelta(seconds=59))
    after = bars("AAPL", "1Min", "2024-06-03", "2024-06-03", now=noon + timedelta(seconds=60))

    assert len(before) + 1 == len(after)
    assert after.start[-1] == int(noon.timestamp()) * 1_000_000_000


def test_the_current_day_is_a_bar_of_the_minutes_so_far():
    noon = datetime(2024, 6, 3, 16, 0, tzinfo=UTC)
    days = bars("AAPL", "1Day", "2024-05-31", "2024-06-05", now=noon)
    so_far = to_days(bars("AAPL", "1Min", "2024-06-03", "2024-06-03", now=noon))

    assert len(days) == 2
    assert (days.open[1], days.close[1], days.volume[1]) == (so_far.open[0], so_far.close[0], so_far.volume[0])
    assert len(bars("AAPL", "1Day", "2024-05-31", "2024-06-05", now=datetime(2024, 6, 3, 12, tzinfo=UTC))) == 1
