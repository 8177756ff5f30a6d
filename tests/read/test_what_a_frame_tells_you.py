"""The figures of the page about frames, computed anew from real minutes and another vendor's days."""

from __future__ import annotations

import re
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import pytest

from data_engine import ParquetStorage
from real_data import bars_of, real

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "what-a-frame-tells-you.md"
MINUTES = "minute/polygon_sip_ext_8sym_20240603_20240816.parquet"
DAYS = "daily/tiingo_raw_adj_12sym_20240401_20260331.parquet"


def percents(row: str) -> list[float]:
    return [float(number) for number in re.findall(r"([0-9.]+) %", row)]


ROWS = {
    row.split("|")[1].strip(): percents(row) for row in PAGE.read_text("utf-8").splitlines() if re.match(r"\| [A-Z]+ \|", row)
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory) -> ParquetStorage:
    storage = ParquetStorage(tmp_path_factory.mktemp("page") / "store")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        bars = connection.sql(bars_of(MINUTES)).to_arrow_table().to_pandas()
    storage.store(bars.set_index(["symbol", "timestamp"]), timeframe="1Min")
    return storage


def official(symbol: str) -> pd.DataFrame:
    with duckdb.connect() as connection:
        path = real(DAYS)
        days = connection.execute(f"SELECT date::DATE::VARCHAR AS day, * FROM '{path}' WHERE symbol = ?", [symbol]).df()
    return days.set_index("day")


def sessions_of(storage: ParquetStorage, symbol: str, hours: str) -> pd.DataFrame:
    made = storage.load(symbol, "2024-06-03", "2024-08-16", resample="1Day", session=hours, tz=ZoneInfo("America/New_York"))
    return made.set_index(made.index.get_level_values("timestamp").strftime("%Y-%m-%d"))


@pytest.mark.parametrize("symbol", sorted(ROWS))
def test_the_table_of_minutes_and_official_figures(storage, symbol):
    days = official(symbol)
    regular, extended = (sessions_of(storage, symbol, hours) for hours in ("regular", "extended"))
    if symbol == "NVDA":
        days = days[days.index >= "2024-06-10"]
    days = days[days.index.isin(regular.index)]
    share = 100 * (regular["volume"] / days["volume"]).dropna()
    late = 100 * (extended["volume"] / days["volume"]).dropna()
    close = 100 * (regular["close"] / days["close"] - 1).abs().dropna()

    assert len(share) == (48 if symbol == "NVDA" else 53)
    assert ROWS[symbol] == [
        pytest.approx(share.median(), abs=0.051),
        pytest.approx(share.min(), abs=0.051),
        pytest.approx(share.max(), abs=0.051),
        pytest.approx(late.median(), abs=0.051),
        pytest.approx(close.median(), abs=0.00051),
        pytest.approx(close.max(), abs=0.0051),
    ]
    for name in ("open", "high", "low"):
        assert 100 * (regular[name] / days[name] - 1).abs().max() < 0.006


def test_the_table_has_its_rows():
    assert sorted(ROWS) == ["AAPL", "ARM", "INTC", "NVDA", "SPY"]
