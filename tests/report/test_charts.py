"""The candles of a report: daily bars if there are any, else sessions made of minutes; and as many as fit."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from test_candles import unpacked

from data_engine.market.exchange_calendar import sessions
from data_engine.market.series import Series
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.report import charts as module
from data_engine.report.candles import Candles
from data_engine.report.charts import Chart, charts, fit
from pages import DAYS, FIRST, LAST, MINUTES, NOW, make_store
from real_data import bars_of

SYMBOLS = ("AAPL", "MSFT", "<I>&")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> ParquetStorage:
    return make_store(tmp_path_factory.mktemp("charts") / "store")


def drawn(storage: ParquetStorage, notes: list[str] | None = None, **named: Any) -> Chart:
    known = [Series("AAPL", DAYS), *(Series(symbol, MINUTES) for symbol in SYMBOLS)]
    (chart,) = charts(
        storage.bars, known, **{"now": NOW, "quick": False, "minutes": 2, "notes": [] if notes is None else notes, **named}
    )
    return chart


def test_candles_are_daily_bars_or_else_made_from_minutes(storage: ParquetStorage) -> None:
    chart = drawn(storage)
    times, values = unpacked(chart.daily["AAPL"])
    days = list(sessions(FIRST, LAST))

    assert [date.fromordinal(chart.days[time]) for time in times] == days
    from_days = [[500.0 + n, 502.0 + n, 498.0 + n, 501.0 + n] for n in range(20)]
    assert [row[:4] for row in values[:20]] == from_days
    folder = storage.files.folder
    made = duckdb.sql(f"""
        SELECT first(open ORDER BY timestamp), max(high), min(low), last(close ORDER BY timestamp)
        FROM (SELECT *, timezone('America/New_York', timestamp) AS here
              FROM read_parquet('{folder}/equities_1min/symbol=AAPL/**/*.parquet'))
        WHERE here::TIME >= '09:30' AND here::TIME < (CASE here::DATE WHEN '2024-07-03' THEN TIME '13:00' ELSE TIME '16:00' END)
        GROUP BY here::DATE ORDER BY here::DATE""").fetchall()
    assert np.allclose([row[:4] for row in values[20:]], made[20:], atol=1e-4)
    assert chart.from_minutes == (len(days) - 20) + 33 + 3


def test_minutes_are_those_of_the_last_sessions_as_they_are(storage: ParquetStorage) -> None:
    chart = drawn(storage)
    times, values = unpacked(chart.minutes["AAPL"])

    expected = duckdb.sql(f"""
        SELECT epoch(timestamp)::BIGINT // 60, open, high, low, close
        FROM read_parquet('{storage.files.folder}/equities_1min/symbol=AAPL/**/*.parquet')
        WHERE timestamp >= '2024-07-02 04:00:00+00' ORDER BY timestamp""").fetchall()
    assert times == [row[0] for row in expected]
    assert np.allclose([row[:4] for row in values], [row[1:] for row in expected], atol=1e-9)
    # The last sessions of MSFT, in May, and of the others: 09:30 to 16:00, and to 13:00 on the half day before the holiday.
    assert [end - start for start, end in chart.hours] == [390, 390, 390, 210]
    assert [date.fromordinal(719_163 + start // 1440).isoformat() for start, _ in chart.hours[::2]] == [
        "2024-05-14",
        "2024-07-02",
    ]


def test_without_minutes_there_are_none(storage: ParquetStorage) -> None:
    chart = drawn(storage, minutes=0)

    assert (chart.minutes, chart.hours, chart.left_out) == ({}, [], [])


def test_symbols_whose_minutes_do_not_fit_are_named(storage: ParquetStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    one = drawn(storage).minutes
    monkeypatch.setattr(module, "MINUTE_CHARACTERS", len(one["<I>&"]) + len(one["AAPL"]) - 1)

    chart = drawn(storage)

    assert list(chart.minutes) == ["<I>&"]
    assert chart.left_out == ["AAPL", "MSFT"]


def test_a_quick_report_reads_the_last_months_of_minutes(storage: ParquetStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUICK_MONTHS", 1)
    chart = drawn(storage, quick=True)

    times, _ = unpacked(chart.daily["AAPL"])
    days = [*sessions(FIRST, LAST)][:20]
    assert [date.fromordinal(chart.days[time]) for time in times] == [*days, *sessions(date(2024, 7, 1), LAST)]


def test_a_damaged_file_is_a_note_and_the_rest_is_drawn(tmp_path: Path) -> None:
    storage = make_store(tmp_path / "store")
    (tmp_path / "store/equities_1min/symbol=MSFT/year=2024/month=04/data.parquet").write_bytes(b"no bars")
    notes: list[str] = []

    chart = drawn(storage, notes)

    assert len(notes) == 1
    assert "equities_1min/symbol=MSFT/year=2024/month=04/data.parquet" in notes[0]
    assert {date.fromordinal(chart.days[time]).month for time in unpacked(chart.daily["MSFT"])[0]} == {5}


def walk(seed: int, count: int = 500) -> Candles:
    random = np.random.default_rng(seed)
    closes = 100 * np.exp(random.normal(0, 0.02, count).cumsum())
    opens, highs, lows = (closes * np.exp(random.normal(0, 0.005, count) + 0.01 * at) for at in (0, 1, -1))
    return Candles(np.arange(count), np.vstack([*np.round([opens, highs, lows, closes], 2), random.lognormal(14, 0.4, count)]))


def test_what_does_not_fit_is_rounded_first_and_then_the_oldest_go() -> None:
    ours = {str(seed): walk(seed) for seed in range(5)}
    exact = sum(map(len, fit(ours, 10**9)[0].values()))

    packed, rounded, kept = fit(ours, exact)
    assert (rounded, kept) == (False, 500)
    packed, rounded, kept = fit(ours, exact - 1)
    assert (rounded, kept) == (True, 500)
    packed, rounded, kept = fit(ours, exact // 4)
    assert rounded
    assert 20 < kept < 300
    assert sum(map(len, packed.values())) <= exact // 4
    assert unpacked(packed["0"])[0] == list(range(500 - kept, 500))
    assert fit({}, 0) == ({}, False, 0)


def test_real_minutes_make_the_sessions_that_sql_makes(tmp_path: Path) -> None:
    """Eight symbols in eleven weeks, with a half day, two splits, and one of a few bars a day."""
    bars = bars_of("minute/polygon_sip_ext_8sym_20240603_20240816.parquet")
    storage = ParquetStorage(tmp_path)
    storage.store(duckdb.sql(bars).df())
    known = [Series(symbol, MINUTES) for symbol in storage.bars.symbols(MINUTES)]

    (chart,) = charts(storage.bars, known, now=datetime(2024, 8, 20, tzinfo=UTC), quick=False, minutes=0, notes=[])

    expected = duckdb.sql(f"""
        SELECT symbol, here::DATE,
               first(open ORDER BY timestamp), max(high), min(low), last(close ORDER BY timestamp), sum(volume)
        FROM (SELECT *, timezone('America/New_York', timestamp) AS here FROM ({bars}))
        WHERE here::TIME >= '09:30' AND here::TIME < (CASE here::DATE WHEN '2024-07-03' THEN TIME '13:00' ELSE TIME '16:00' END)
        GROUP BY ALL ORDER BY ALL""").fetchall()
    made = []
    for symbol, text in chart.daily.items():
        times, values = unpacked(text)
        made += [(symbol, date.fromordinal(chart.days[time]), *row) for time, row in zip(times, values, strict=True)]
    assert [row[:2] for row in made] == [row[:2] for row in expected]
    assert np.allclose([row[2:6] for row in made], [row[2:6] for row in expected], rtol=0, atol=5.1e-5)
    assert np.allclose([row[6] for row in made], [row[6] for row in expected], rtol=1.1e-3, atol=0.01)
