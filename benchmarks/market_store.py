"""A store of the whole market, made in seconds, and what planning, updating and reading it take, each in one process.

python benchmarks/market_store.py days STORE [SERIES]      daily bars of 11 years: 11 files a series, hard links to one written series
python benchmarks/market_store.py minutes STORE [SERIES]   one month of minutes of 500 series: real bars if there are any, one file each
python benchmarks/market_store.py coverage STORE [SERIES]  the coverage of 120 months of minutes, without bar files
python benchmarks/market_store.py plan [SYMBOLS]           a plan of ten years of minutes, nothing held
python benchmarks/market_store.py update STORE             `update --quiet` after one new session, without the fetch
python benchmarks/market_store.py load STORE               the month of minutes, and one day of it, to pandas; and Polars' scan

The coverage is written by the code that writes it in a run, without flushes.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data_engine.market.bar_parquet import to_parquet
from data_engine.market.bars import make_table, to_micros
from data_engine.market.exchange_calendar import next_session, session_starts, sessions
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import TimeRange, new_york_days, new_york_midnight
from data_engine.store import coverage_file
from data_engine.store.coverage import Coverage
from data_engine.store.file_count import Fingerprint
from data_engine.store.partitions import Partition, Period, periods

DAYS, MINUTES = Dataset(Timeframe(1, "Day")), Dataset(Timeframe(1, "Min"))

FIRST, LAST = date(2016, 1, 4), date(2026, 11, 18)

NIGHT = datetime(2026, 11, 20, 16, tzinfo=UTC)
"""When the session after `LAST` is final."""

BEGUN = datetime(2026, 11, 1, tzinfo=UTC)


def names(count: int) -> list[str]:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return ["".join(four) for four, _ in zip(product(letters, repeat=4), range(count), strict=False)]


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def held(
    series: Series, span: TimeRange, files: Mapping[Period, tuple[int, Fingerprint]], first: datetime, last: datetime
) -> bytes:
    """Return the coverage file of a series that holds a range whole."""
    return coverage_file.dump(
        Coverage(
            series,
            wanted=(span,),
            covered=(span,),
            rows={period: rows for period, (rows, _) in files.items()},
            files={period: mark for period, (_, mark) in files.items()},
            first_bar=first,
            last_bar=last,
            begun=BEGUN,
            updated=BEGUN,
            by="benchmark",
        )
    )


def day_files() -> Iterator[tuple[Period, bytes, int]]:
    """Yield the files of one series of daily bars."""
    rng = np.random.default_rng(1)
    for period in periods(new_york_days(FIRST, LAST), DAYS):
        within = period.span.intersect(new_york_days(FIRST, LAST))
        assert within is not None
        times = np.array([to_micros(start) for start in session_starts(within)], np.int64)
        values = [np.round(100 + rng.random(times.size), 2) for _ in range(4)]
        table = make_table(times, [*values, *(np.round(1e6 * rng.random(times.size)) for _ in range(2)), values[0]])
        yield period, to_parquet(table), times.size


def days(folder: str, count: str = "10000") -> dict[str, object]:
    base, span = Path(folder), new_york_days(FIRST, LAST)
    made = list(day_files())
    marks = {period: (rows, Fingerprint.of(content)) for period, content, rows in made}
    written: dict[Period, Path] = {}
    for symbol in names(int(count)):
        series = Series(symbol, DAYS)
        for period, content, _ in made:
            path = base / Partition(series, period).key
            if period in written:
                path.parent.mkdir(parents=True)
                os.link(written[period], path)
            else:
                write(path, content)
                written[period] = path
        write(base / coverage_file.key(series), held(series, span, marks, new_york_midnight(FIRST), new_york_midnight(LAST)))
    return {"series": int(count), "files": int(count) * len(made)}


def coverage(folder: str, count: str = "10000") -> dict[str, object]:
    base, span = Path(folder), new_york_days(date(2016, 1, 1), date(2025, 12, 31))
    rng = np.random.default_rng(1)
    for symbol in names(int(count)):
        series = Series(symbol, MINUTES)
        numbers = [(int(rows), Fingerprint(18 * int(rows), f"{int(mark):016x}")) for rows, mark in zip(
            rng.integers(5_000, 20_000, 120), rng.integers(0, 1 << 62, 120), strict=True)]  # fmt: skip
        files = dict(zip(list(periods(span, MINUTES))[:120], numbers, strict=True))
        write(base / coverage_file.key(series), held(series, span, files, span.start, span.end - timedelta(hours=5)))
    return {"series": int(count), "files": 0}


def minutes(folder: str, count: str = "500") -> dict[str, object]:
    """One month of minutes of 500 series, each with its own share of the minutes, like prices and counts that repeat."""
    base, rng = Path(folder), np.random.default_rng(1)
    days_of = list(sessions(date(2024, 7, 1), date(2024, 7, 31)))
    every = np.concatenate([to_micros(new_york_midnight(day)) // 60_000_000 + 240 + np.arange(960) for day in days_of])
    period, span, bars = Period(2024, 7), new_york_days(date(2024, 7, 1), date(2024, 7, 31)), 0
    for number, symbol in enumerate(names(int(count))):
        series = Series(symbol, MINUTES)
        chosen = every[rng.random(every.size) < 0.4 + 0.5 * number / int(count)]
        close = np.round(100 + np.cumsum(rng.integers(-6, 7, chosen.size)) / 100, 2)
        around = [np.round(close + rng.integers(-9, 10, chosen.size) / 100, 2) for _ in range(3)]
        volume = rng.integers(100, 90_000, chosen.size).astype(float)
        vwap = np.round(close + rng.integers(-900, 900, chosen.size) / 10_000, 4)
        high, low = np.maximum.reduce([close, *around]), np.minimum.reduce([close, *around])
        table = make_table(chosen * 60_000_000, [around[0], high, low, close, volume, np.round(volume / 90), vwap])
        content = to_parquet(table)
        write(base / Partition(series, period).key, content)
        files = {period: (table.num_rows, Fingerprint.of(content))}
        first, last = (datetime.fromtimestamp(int(at) * 60, UTC) for at in chosen[[0, -1]])
        write(base / coverage_file.key(series), held(series, span, files, first, last))
        bars += table.num_rows
    return {"series": int(count), "bars": bars}


# ------------------------------------------------------------------------------------------------------------- measured


_Found = TypeVar("_Found")


def cpu(work: Callable[[], _Found]) -> tuple[float, _Found]:
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def peak() -> float:
    """Return the peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def plan(count: str = "11000") -> dict[str, object]:
    from data_engine.ingest.run_plan import plan_run
    from data_engine.store.bar_store import BarStore
    from data_engine.store.local_files import LocalFiles

    now = datetime(2026, 1, 2, 12, tzinfo=UTC)
    wanted = dict.fromkeys(names(int(count)), (new_york_days(date(2016, 1, 1), date(2025, 12, 31)),))
    store = BarStore(LocalFiles("/nonexistent"))
    seconds, made = cpu(lambda: plan_run(store.coverage, {MINUTES: wanted}, now=now, workers=16, files=store.files))
    one = made.plans[0]
    return {"seconds": seconds, "memory": peak(), "tasks": len(one.tasks), "bars": one.bars, "requests": one.requests}


def update(folder: str) -> dict[str, object]:
    """All that ``update --quiet`` does after one new session but the fetch, in whose place the coverage is written."""
    from data_engine.alpaca.client import AlpacaClient
    from data_engine.ingest.dispatcher import Dispatcher
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.store.selection import DatasetFilter

    base, fetching = Path(folder), 0.0

    def fetch(_: Dispatcher, plans: object, __: int) -> None:
        nonlocal fetching
        began = time.process_time()
        for one in plans:  # type: ignore[attr-defined]
            for task in one.tasks:
                for symbol in task.symbols:
                    path = base / coverage_file.key(Series(symbol, DAYS))
                    known = coverage_file.load(path.read_bytes(), Series(symbol, DAYS))
                    span = TimeRange(known.covered[0].start, new_york_midnight(next_session(LAST) + timedelta(days=1)))
                    rest = TimeRange(span.end, task.range.end)
                    rows = {**known.rows, Period(2026, None): known.rows[Period(2026, None)] + 1}
                    last = new_york_midnight(next_session(LAST))
                    made = replace(known, wanted=(span, rest), covered=(span,), provisional=(rest,), rows=rows, last_bar=last)
                    path.write_bytes(coverage_file.dump(replace(made, wanted=(TimeRange(span.start, rest.end),))))
        fetching += time.process_time() - began

    Dispatcher.work = fetch  # type: ignore[method-assign,assignment]
    client = AlpacaClient("key", "secret", base_url="http://127.0.0.1:9")
    pipeline = IngestionPipeline(4, base, client=client, progress=False, actions=False, now=lambda: NIGHT)

    def work() -> tuple[Any, str]:
        return pipeline.update(), quiet(pipeline, DatasetFilter())

    seconds, (report, told) = cpu(work)
    assert not report["failed"], report["failed"][:3]
    return {"seconds": seconds - fetching, "memory": peak(), "requests": report.requests, "told": told}


def quiet(pipeline: object, choice: object) -> str:
    """Return what ``update --quiet`` says of the store after a run, as `data_engine.cli.update` makes it."""
    from data_engine.verify.reach import ReachCount
    from data_engine.verify.session_gate import LatestSession
    from data_engine.verify.status import stored_series

    bars = pipeline.storage.bars  # type: ignore[attr-defined]
    reaches, gate = ReachCount(), LatestSession(bars, NIGHT)
    for one in stored_series(bars, choice, now=NIGHT):  # type: ignore[arg-type]
        reaches.add(one)
        gate.add(one)
    return f"{', '.join(map(str, reaches.result()))}; {gate.result()}"


def load(folder: str) -> dict[str, object]:
    import polars as pl

    from data_engine.read.parquet_storage import ParquetStorage

    storage = ParquetStorage(folder)
    symbols = names(len(list((Path(folder) / "equities_1min").iterdir())))
    paths = [f"{folder}/{Partition(Series(symbol, MINUTES), Period(2024, 7)).key}" for symbol in symbols]

    def ours(*days: str) -> Callable[[], object]:
        return lambda: storage.load(symbols, *days)

    def polars(first: datetime | None = None, end: datetime | None = None) -> object:
        scan = pl.scan_parquet(
            paths, hive_partitioning=True, hive_schema={"symbol": pl.String, "year": pl.Int32, "month": pl.Int32}
        )
        chosen = scan if first is None else scan.filter(pl.col("timestamp").is_between(first, end, closed="left"))
        return chosen.collect()

    one = new_york_days(date(2024, 7, 16), date(2024, 7, 16))
    month, day = ours("2024-07-01", "2024-07-31"), ours("2024-07-16", "2024-07-16")
    both: dict[str, list[float]] = {"month": [], "polars_month": [], "day": [], "polars_day": []}
    rows: dict[str, int] = {}
    for number in range(4):  # the first round warms up
        works = {"month": month, "polars_month": polars, "day": day, "polars_day": lambda: polars(one.start, one.end)}
        for name, work in works.items():
            seconds, found = cpu(work)
            rows[name] = len(found)  # type: ignore[arg-type]
            if number:
                both[name].append(seconds)
    assert (rows["month"], rows["day"]) == (rows["polars_month"], rows["polars_day"]), rows
    return {**{name: sorted(found)[1] for name, found in both.items()}, "rows": rows["month"]}


if __name__ == "__main__":
    parts: dict[str, Callable[..., object]] = {
        "days": days,
        "minutes": minutes,
        "coverage": coverage,
        "plan": plan,
        "update": update,
        "load": load,
    }
    print(json.dumps(parts[sys.argv[1]](*sys.argv[2:])))
