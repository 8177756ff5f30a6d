"""Shared by the tests of the report: a store with something of everything, and a reader of reports that runs no script."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from base64 import b64decode
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from data_engine.ingest.run_log import FailureGroup, RequestedDataset, RunLog, RunRecord
from data_engine.market.bars import make_table, to_micros
from data_engine.market.exchange_calendar import extended_hours, sessions
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, new_york_days, new_york_midnight
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.store.conflicts import Conflict, conflict_file
from data_engine.store.coverage import Coverage, Failure
from data_engine.store.filled import Filled
from data_engine.store.partitions import Period

MINUTES, DAYS = Dataset.from_name("equities_1min"), Dataset.from_name("equities_1day")
NOW = datetime(2024, 7, 8, 15, tzinfo=UTC)  # a Monday, 11:00 in New York
ATTACK = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>&lt;\u2028"
SOURCE = "<img src=x onerror='hacked = 3'>"
FIRST, LAST = date(2024, 4, 1), date(2024, 7, 3)


def minutes_of(days: list[date], base: float) -> Any:
    """Return bars of every second minute of extended hours, with prices that identify day and minute."""
    times, opens = [], []
    for number, day in enumerate(days):
        span = extended_hours(day)
        timestamps = np.arange(to_micros(span.start), to_micros(span.end), 120_000_000)
        times.append(timestamps)
        opens.append(base + number + np.arange(timestamps.size) / 1000)
    opened = np.concatenate(opens)
    closed = opened + 0.01 * np.where(np.arange(opened.size) % 2, 1, -1)
    columns = [opened, opened + 0.05, opened - 0.05, closed, np.full(opened.size, 100.0), np.full(opened.size, 3.0), opened]
    return make_table(np.concatenate(times), columns)


def days_of(days: list[date], base: float) -> Any:
    """Return daily bars."""
    opened = base + np.arange(len(days)) * 1.0
    timestamps = np.array([to_micros(new_york_midnight(day)) for day in days], np.int64)
    return make_table(timestamps, [opened, opened + 2, opened - 2, opened + 1, opened * 1000, opened, opened])


def put(storage: ParquetStorage, symbol: str, dataset: Dataset, days: list[date], base: float, **known: Any) -> None:
    """Write bars and their coverage as a run does."""
    series = Series(symbol, dataset)
    rows, files, timestamps = {}, {}, []
    for period in sorted({Period(day.year, day.month if dataset.timeframe.intraday else None) for day in days}):
        ours = [day for day in days if day.year == period.year and period.month in (None, day.month)]
        table = minutes_of(ours, base) if dataset.timeframe.intraday else days_of(ours, base)
        written = storage.bars.write(series, period, table)
        rows[period], files[period] = written.rows, written.count.fingerprint
        timestamps += table.column("timestamp").to_pylist()
    ends = {"first_bar": min(timestamps), "last_bar": max(timestamps)} if timestamps else {}

    def change(before: Coverage) -> Coverage:
        return replace(before, rows=rows, files=files, **ends, **known)

    storage.bars.coverage.update(series, change)


@lru_cache
def _made() -> TemporaryDirectory[str]:
    """Return the store of `make_store`, written once a process, which takes longer than to copy it."""
    folder = TemporaryDirectory(prefix="pages-")
    _write_store(Path(folder.name) / "store")
    return folder


def make_store(base: Path) -> ParquetStorage:
    """Return a store: a complete series with daily bars, one that failed, one with a hostile name, and a run log."""
    shutil.copytree(Path(_made().name) / "store", base)
    return ParquetStorage(base)


def _write_store(base: Path) -> None:
    storage = ParquetStorage(base)
    whole = new_york_days(FIRST, LAST)
    days = list(sessions(FIRST, LAST))
    put(storage, "AAPL", MINUTES, days, 100.0, wanted=(whole,), covered=(whole,))
    put(storage, "AAPL", DAYS, days[:20], 500.0, wanted=(whole,), covered=(new_york_days(FIRST, days[19]),))
    half = TimeRange(whole.start, new_york_midnight(date(2024, 5, 16)))
    failure = Failure("refused", ATTACK, NOW)
    put(
        storage,
        "MSFT",
        MINUTES,
        [d for d in days if d < date(2024, 5, 16)],
        300.0,
        wanted=(whole,),
        covered=(half,),
        failure=failure,
    )
    put(
        storage,
        "<I>&",
        MINUTES,
        days[-3:],
        5.0,
        wanted=(new_york_days(days[-3], LAST),),
        provisional=(new_york_days(days[-3], LAST),),
    )
    storage.files.update("metadata/indices/odd.csv", lambda _: f"symbol,{ATTACK}\n".encode())
    log = RunLog(storage.files)
    requested = RequestedDataset("equities_1min", 2, ("AAPL", "MSFT"), whole.start, whole.end, 1, 1000)
    log.add(
        RunRecord(
            datetime(2024, 7, 1, tzinfo=UTC), 3.2, "ingest", ATTACK, "data-engine 0", (requested,), 9, 9, 30_000, succeeded=2
        )
    )
    refused = (FailureGroup("refused", ATTACK, 1, ("MSFT",)),)
    log.add(
        RunRecord(
            datetime(2024, 7, 2, tzinfo=UTC),
            75.0,
            "update",
            None,
            "data-engine 0",
            (requested,),
            4,
            3,
            5,
            6,
            7,
            succeeded=1,
            failures=refused,
            notes=(ATTACK,),
            error=("refused", ATTACK),
        )
    )


def blocks_of(page: str) -> list[str]:
    """Return the data blocks of a report."""
    return re.findall(r'<script type="text/plain" class="data">(.*?)</script>', page)


def head_of(page: str) -> dict[str, Any]:
    """Return the data of a report without candles."""
    made: dict[str, Any] = json.loads(zlib.decompress(b64decode(blocks_of(page)[0]), -15))
    return made


def make_changed_store(base: Path, symbol: str = "<I>&") -> ParquetStorage:
    """Write days of a series, covered whole without the sixth; then, by a hostile actor, that one, and other values of two.

    Of two more days, the vendor has another close, and nothing. A hostile source fills the sixth day, and one after the last.
    """
    storage = ParquetStorage(base)
    whole, days = new_york_days(date(2024, 6, 3), date(2024, 6, 28)), list(sessions(date(2024, 6, 3), date(2024, 6, 28)))
    put(storage, symbol, DAYS, [day for day in days if day != days[5]], 100.0, wanted=(whole,), covered=(whole,))
    series, year = Series(symbol, DAYS), Period(2024, None)
    other = storage.bars.acting(f"import of {ATTACK}")
    other.write(series, year, days_of(days[5:6], 7.0))
    written = other.write(series, year, days_of(days[2:4], 900.0))
    theirs = Conflict(new_york_midnight(days[8]), (107.0, 109.0, 105.0, 108.25, 107_000.0, 107.0, 107.0), NOW)
    gone = Conflict(new_york_midnight(days[9]), None, NOW)
    conflict_file(storage.files, series).update(lambda _: (theirs, gone))
    counted = {"rows": {year: written.rows}, "files": {year: written.count.fingerprint}, "conflicting": 2}
    storage.bars.coverage.update(series, lambda known: replace(known, **counted))
    gaps = [days[5], date(2024, 7, 1)]
    filled = tuple(Filled(new_york_days(day, day), SOURCE) for day in gaps)
    put(storage, symbol, replace(DAYS, fill=True), gaps, 50.0, filled=filled)
    return storage
