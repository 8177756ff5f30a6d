"""Damages that a researcher would see are named, and healthy bars are not: real bars, made-up ones, the simulated market.

The limits were chosen on four of the eight real symbols, and are judged here on the other four, with three damages more.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import duckdb
import numpy as np
import pytest

from data_engine.market.bars import VALUES, make_table, to_micros
from data_engine.market.exchange_calendar import extended_hours, regular_hours
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import new_york_days, new_york_midnight
from data_engine.sandbox import Sandbox, SimulatedMarket
from data_engine.sandbox.symbol_profile import symbol_profile
from data_engine.store.bar_store import BarStore
from data_engine.store.local_files import LocalFiles
from data_engine.store.selection import DatasetFilter
from data_engine.verify.findings import Finding
from data_engine.verify.verify import verify
from real_data import bars_of
from running import Clock, here, names_of, pipeline_of

from .damages import DAMAGES, FIRST, LAST, MINUTE, NEW_DAMAGES, SESSIONS, Bars, hour_of

MINUTES, DAYS = (Dataset(Timeframe.parse(text)) for text in ("1Min", "1Day"))
NOW = datetime(2024, 9, 2, 12, tzinfo=UTC)
CHOSEN_ON, JUDGED_ON = ("AAPL", "ACHR", "MSTR", "SPCX"), ("SPY", "NVDA", "ARM", "INTC")


def stored(base: Path, series: Series, bars: Bars) -> BarStore:
    """Store bars of a series, and cover the whole range."""
    storage = BarStore(LocalFiles(base))
    storage.add(series, make_table(bars.times, [bars.columns[name] for name in VALUES]))
    whole = (new_york_days(FIRST, LAST),)
    storage.coverage.update(series, lambda known: replace(known, wanted=whole, covered=whole))
    return storage


def found(base: Path, bars: Bars, symbol: str = "A") -> list[Finding]:
    storage = stored(base, Series(symbol, MINUTES), bars)
    report = verify(storage, DatasetFilter(), now=NOW)

    assert report.inconsistencies == []
    return report.findings


def codes(base: Path, bars: Bars) -> set[str]:
    return {finding.code for finding in found(base, bars)}


@lru_cache(maxsize=8)
def real_bars(symbol: str) -> Bars:
    query = bars_of("minute/polygon_sip_ext_8sym_20240603_20240816.parquet")
    rows = duckdb.sql(f"SELECT epoch_us(timestamp) t, {', '.join(VALUES)} FROM ({query}) WHERE symbol = '{symbol}' ORDER BY 1")
    columns = rows.fetchnumpy()
    return Bars(np.asarray(columns["t"]), {name: np.asarray(columns[name], float) for name in VALUES})


def made_up(seed: int, *, regular: float = 1.0, extended: float = 0.4, price: float = 80.0) -> Bars:
    """Return a random walk with the volumes of a day: many shares at the open and the close, few outside regular hours."""
    rng = np.random.default_rng(seed)
    times, volumes = [], []
    for day in SESSIONS:
        hours, outside = regular_hours(day), extended_hours(day)
        begin, end = to_micros(outside.start), to_micros(outside.end)
        opened, closed = to_micros(hours.start), to_micros(hours.end)
        every = np.arange(begin, end, MINUTE)
        within = (every >= opened) & (every < closed)
        keep = rng.random(every.size) < np.where(within, regular, extended)
        edge = np.exp(-np.minimum(abs(every - opened), abs(every - closed)) / (20 * MINUTE))
        volume = np.where(within, 4_000 + 40_000 * edge, 150) * rng.lognormal(0, 0.5, every.size)
        times.append(every[keep])
        volumes.append(np.maximum(np.floor(volume[keep]), 1.0))
    at, volume = np.concatenate(times), np.concatenate(volumes)
    close = np.round(price * np.exp(np.cumsum(rng.normal(0, 0.0006, at.size))), 2)
    opens = np.concatenate([[price], np.round(close[:-1] * (1 + rng.normal(0, 0.00005, at.size - 1)), 2)])
    high = np.maximum(opens, close) + np.round(rng.exponential(0.01, at.size), 2)
    low = np.minimum(opens, close) - np.round(rng.exponential(0.01, at.size), 2)
    trades = np.maximum(1.0, np.floor(volume / 90))
    return Bars(at, dict(zip(VALUES, (opens, high, low, close, volume, trades, (high + low) / 2), strict=True)))


# Healthy bars


@pytest.mark.parametrize("symbol", [*CHOSEN_ON, *JUDGED_ON])
def test_no_warning_of_real_bars(tmp_path, symbol):
    assert found(tmp_path, real_bars(symbol)) == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shares", [(1.0, 0.9), (0.97, 0.3), (0.8, 0.1), (0.3, 0.02), (0.02, 0.0)], ids=str)
def test_no_warning_of_made_up_bars(tmp_path, seed, shares):
    assert found(tmp_path, made_up(seed, regular=shares[0], extended=shares[1])) == []


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Minutes and days of the simulated market, many of illiquid symbols and of cheap ones."""
    names = names_of(1000)
    thin = [name for name in names if symbol_profile(name).regular < 0.9]
    cheap = [name for name in names if symbol_profile(name).price < 10]
    base = tmp_path_factory.mktemp("market") / "store"
    with Sandbox(SimulatedMarket(), clock=Clock(NOW), gzip_level=0) as server:
        pipeline = pipeline_of(server, base, Clock(NOW))
        pipeline.ingest_symbols(["AAPL", "SPY", *thin[:6], *cheap[:4], *names[:3]], "2024-05-20", "2024-08-16", "1Min")
        pipeline.ingest_symbols(["AAPL", "SPY", *thin[:20], *cheap[:10], *names[:10]], "2021-01-04", "2024-08-16", "1Day")
    return base


def test_no_warning_of_the_simulated_market(market):
    checked = here("verify", "--base-path", market, "--json").json

    assert (checked["inconsistencies"], checked["warnings"]) == ([], [])
    assert checked["series"] > 40


# Damaged bars


def missed(tmp_path: Path, symbol: str, others: str) -> list[str]:
    """Return the damages of real bars of which no warning names the kind; of new ones, of which no warning says anything."""
    true = real_bars(symbol)
    old = [name for name, (damage, expected) in DAMAGES.items() if not codes(tmp_path / name, damage(true)) & expected]
    new = {**NEW_DAMAGES, "an-hour-of-another": hour_of(real_bars(others))}
    return old + [name for name, damage in new.items() if not codes(tmp_path / name, damage(true))]


@pytest.mark.parametrize(("symbol", "other"), [("SPY", "ARM"), ("NVDA", "SPY"), ("ARM", "INTC"), ("INTC", "NVDA")])
def test_damages_of_the_symbols_that_were_left_aside_are_named(tmp_path, symbol, other):
    assert missed(tmp_path, symbol, other) == []


@pytest.mark.parametrize(("symbol", "other"), [("AAPL", "MSTR"), ("ACHR", "AAPL"), ("MSTR", "ACHR")])
def test_damages_of_the_symbols_that_the_limits_were_chosen_on_are_named(tmp_path, symbol, other):
    assert missed(tmp_path, symbol, other) == []


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("regular", [1.0, 0.93])
def test_damages_of_made_up_bars_are_named(tmp_path, name, regular):
    damage, expected = DAMAGES[name]
    messages = [str(finding) for finding in found(tmp_path, damage(made_up(7, regular=regular))) if finding.code in expected]

    assert len(messages) == 1, "one line, whatever the number of bars"


def test_two_symbols_that_were_swapped_are_named_where_their_days_are_stored(tmp_path):
    one, other = made_up(1), made_up(2, price=31.0)
    for symbol, bars, daily in (("A", other, one), ("B", one, other)):
        stored(tmp_path, Series(symbol, MINUTES), bars)
        stored(tmp_path, Series(symbol, DAYS), days_of(daily))
    warnings = verify(BarStore(LocalFiles(tmp_path)), DatasetFilter(), now=NOW).warnings

    assert [(one.series.symbol, one.code) for one in warnings if one.series] == [
        (symbol, "minutes_differ_from_days") for symbol in "AB"
    ]
    assert all(f"{len(SESSIONS)} of {len(SESSIONS)} sessions" in str(one) for one in warnings)


def days_of(bars: Bars) -> Bars:
    rows = []
    for day in SESSIONS:
        inside = bars.take(bars.regular(day)).columns
        volume = bars.take(bars.days(day, day)).columns["volume"].sum()
        row = [
            inside["open"][0],
            inside["high"].max(),
            inside["low"].min(),
            inside["close"][-1],
            volume,
            9_000.0,
            inside["vwap"][0],
        ]
        rows.append(row)
    times = np.array([to_micros(new_york_midnight(day)) for day in SESSIONS], np.int64)
    return Bars(times, dict(zip(VALUES, np.array(rows).T, strict=True)))


def test_a_third_of_the_minutes_gone_for_three_days_is_named(tmp_path):
    bars = made_up(4)
    gone = bars.days(SESSIONS[30], SESSIONS[32]) & (np.arange(bars.times.size) % 3 == 0)

    assert codes(tmp_path, bars.take(~gone)) == {"session_sparse"}


def test_opens_and_closes_that_changed_places_are_named(tmp_path):
    bars = made_up(5)
    week = bars.days(SESSIONS[30], SESSIONS[34])
    columns = {name: column.copy() for name, column in bars.columns.items()}
    columns["open"][week], columns["close"][week] = bars.columns["close"][week], bars.columns["open"][week]

    assert codes(tmp_path, replace(bars, columns=columns)) == {"bars_disordered"}


def test_one_session_without_its_morning_is_named(tmp_path):
    bars = made_up(6)
    day = SESSIONS[30]
    opened = regular_hours(day).start

    assert codes(tmp_path, bars.take(~bars.within(opened - timedelta(hours=6), opened))) == {"extended_hours_missing"}
