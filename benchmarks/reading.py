"""Our own reading, in one process: ``load`` of a month and a year, and a query through a narrowed view and the bare glob.

python benchmarks/reading.py load STORE              a store with SPY, minutes of 2024
python benchmarks/reading.py fill STORE              500 symbols x 12 months, made up
python benchmarks/reading.py query STORE             one day of them
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import duckdb
import numpy as np
from peers import median

from data_engine.market.bars import make_table
from data_engine.market.dates import any_span
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.read.duckdb_views import connect
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Period

MINUTES = Dataset(Timeframe(1, "Min"))


def load(folder: str) -> dict[str, object]:
    storage = ParquetStorage(folder)
    return {
        "month": median(lambda: storage.load("SPY", "2024-03-01", "2024-03-31")),
        "year": median(lambda: storage.load("SPY", "2024-01-01", "2024-12-31")),
        "year_close": median(lambda: storage.load("SPY", "2024-01-01", "2024-12-31", columns=["close"])),
        "year_regular": median(lambda: storage.load("SPY", "2024-01-01", "2024-12-31", session="regular")),
        "year_quarters": median(lambda: storage.load("SPY", "2024-01-01", "2024-12-31", resample="15Min")),
        "year_days": median(lambda: storage.load("SPY", "2024-01-01", "2024-12-31", resample="1Day", session="extended")),
    }


def fill(folder: str) -> dict[str, object]:
    storage = ParquetStorage(folder)
    rng = np.random.default_rng(1)
    for number in range(500):
        series = Series(f"S{number:03d}", MINUTES)
        rows = {}
        for month in range(1, 13):
            period = Period(2024, month)
            first = int(period.start.timestamp()) // 60
            # 2,100 minutes of a month: the first hundred of each of its first days.
            minutes = first + np.concatenate([day * 1440 + 870 + np.arange(100) for day in range(21)])
            values = [np.round(100 + rng.random(minutes.size), 2) for _ in range(7)]
            rows[period] = storage.bars.write(series, period, make_table(minutes * 60_000_000, values)).rows
        storage.bars.coverage.update(series, partial(with_rows, rows))
    return {"files": 6000}


def with_rows(rows: dict[Period, int], known: Coverage) -> Coverage:
    return replace(known, rows=rows)


def query(folder: str) -> dict[str, object]:
    storage = ParquetStorage(folder)
    day = any_span("2024-06-12", "2024-06-12")
    sql = "SELECT count(*), sum(volume), max(high) FROM "

    def view() -> list[tuple[float, ...]]:
        with connect(storage.bars, day) as connection:
            return connection.sql(sql + "bars_1min").fetchall()

    def glob() -> list[tuple[float, ...]]:
        with duckdb.connect() as connection:
            files = f"read_parquet('{folder}/equities_1min/**/*.parquet', hive_partitioning = true, hive_types = {{'symbol': VARCHAR}})"
            return connection.sql(f"{sql}{files} WHERE timestamp >= '{day.start}' AND timestamp < '{day.end}'").fetchall()

    assert [round(value, 3) for value in view()[0]] == [round(value, 3) for value in glob()[0]]
    return {"view": median(view, 7), "glob": median(glob, 7)}


if __name__ == "__main__":
    parts: dict[str, Callable[..., object]] = {"load": load, "fill": fill, "query": query}
    print(json.dumps(parts[sys.argv[1]](*sys.argv[2:])))
