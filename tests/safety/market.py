"""A market small enough to be ingested in a quarter of a second, in two versions: as it was, and as the vendor revised it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_engine.sandbox import Replay
from data_engine.sandbox.splits import Split

NOW = datetime(2024, 6, 12, 15, 0, tzinfo=UTC)
"""A Wednesday, an hour and a half after the opening: the day's bars are provisional."""

SYMBOLS = ("AAPL", "BRK.B", "CON", "LATE", "NA", "ZZZ")
"""`LATE` has its first bar in May; `ZZZ` has none, ever."""

FIRST, LAST = date(2024, 4, 10), date(2024, 6, 12)
START, MIDDLE = "2024-04-10", "2024-05-08"
PER_DAY = 12
_SPLIT = {"AAPL": (Split(date(2024, 6, 10), 4),)}


def write_market(folder: Path) -> tuple[Path, Path]:
    """Write the two versions as files for `Replay`.

    The revised one has other values in one bar of ten, lacks one in twenty, and the whole April of ``CON``.
    """
    table = _table()
    rng = np.random.default_rng(7)
    close = table["close"].to_numpy().copy()
    revised = rng.random(len(close)) < 0.1
    close[revised] += 0.01
    april = np.array([symbol == "CON" for symbol in table["symbol"].to_pylist()]) & (
        table["timestamp"].cast(pa.int64()).to_numpy() < datetime(2024, 5, 1, tzinfo=UTC).timestamp() * 1e6
    )
    kept = (rng.random(len(close)) >= 0.05) & ~april
    other = table.set_column(table.schema.get_field_index("close"), "close", pa.array(close)).filter(pa.array(kept))
    paths = folder / "as_it_was.parquet", folder / "revised.parquet"
    for path, content in zip(paths, (table, other), strict=True):
        pq.write_table(content, path)
    return paths


def original(paths: tuple[Path, Path]) -> Replay:
    return Replay(paths[0], timeframe="1Min")


def revised(paths: tuple[Path, Path]) -> Replay:
    return Replay(paths[1], timeframe="1Min")


def split(paths: tuple[Path, Path]) -> Replay:
    """As it was, with a split of ``AAPL``: every adjusted price before 10 June is another one."""
    return Replay(paths[0], timeframe="1Min", splits=_SPLIT)


def _table() -> pa.Table:
    parts = [_bars(symbol, number) for number, symbol in enumerate(SYMBOLS) if symbol != "ZZZ"]
    return pa.concat_tables(parts)


def _bars(symbol: str, number: int) -> pa.Table:
    rng = np.random.default_rng(number)
    first = date(2024, 5, 13) if symbol == "LATE" else FIRST
    days = [first + timedelta(days=n) for n in range((LAST - first).days + 1)]
    starts: list[datetime] = []
    for day in days:
        if day.weekday() < 5 and day != date(2024, 5, 27):
            opened = datetime(day.year, day.month, day.day, 8, 0, tzinfo=UTC)  # 04:00 New York, in summer
            minutes = np.sort(rng.choice(960, PER_DAY, replace=False))
            starts += [opened + timedelta(minutes=int(minute)) for minute in minutes]
    count = len(starts)
    opens = np.round(100 + np.cumsum(rng.normal(0, 0.2, count)), 2)
    closes = np.round(opens + rng.normal(0, 0.1, count), 2)
    columns: dict[str, Any] = {
        "symbol": pa.array([symbol] * count),
        "timestamp": pa.array(starts, pa.timestamp("us", tz="UTC")),
        "open": opens,
        "high": np.round(np.maximum(opens, closes) + 0.05, 2),
        "low": np.round(np.minimum(opens, closes) - 0.05, 2),
        "close": closes,
        "volume": np.floor(rng.uniform(100, 10_000, count)),
        "trade_count": np.floor(rng.uniform(1, 100, count)),
        "vwap": np.round((opens + closes) / 2, 4),
    }
    return pa.table(columns)
