"""Pages of bars as a source sends them, tasks that fetch them, and what a store holds afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from data_engine import ParquetStorage
from data_engine.ingest.plan import FetchTask
from data_engine.market.bars import BAR_SCHEMA, EMPTY, TIMESTAMP, VALUES
from data_engine.market.bars_page import BarsPage
from data_engine.market.series import Adjustment, Dataset, Series, Timeframe
from data_engine.market.time_range import TimeRange
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Period

MINUTES, HOURS, WEEKS = (Dataset(Timeframe.parse(text)) for text in ("1Min", "1Hour", "1Week"))
DAYS = Dataset(Timeframe.parse("1Day"))
SPLIT = Dataset(Timeframe.parse("1Min"), Adjustment.parse("split"))
LONG_AFTER = datetime(2025, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def between(start: str, end: str) -> TimeRange:
    return TimeRange(at(start), at(end))


SPAN = between("2024-06-03", "2024-07-13")
MAY, JUNE, JULY = (Period(2024, month) for month in (5, 6, 7))


def bars(*stamps: datetime | str, price: float = 1.0) -> pa.Table:
    times = [at(stamp) if isinstance(stamp, str) else stamp for stamp in stamps]
    return pa.table(
        [pa.array(times, TIMESTAMP), *[pa.array([price] * len(times), pa.float64())] * len(VALUES)], schema=BAR_SCHEMA
    )


def page(*runs: tuple[str, pa.Table]) -> BarsPage:
    """Make a page of each symbol's bars, in the order given."""
    edges = [0]
    for _, table in runs:
        edges.append(edges[-1] + table.num_rows)
    marked = tuple((symbol, edges[number], edges[number + 1]) for number, (symbol, _) in enumerate(runs))
    return BarsPage(pa.concat_tables([EMPTY, *(table for _, table in runs)]), marked, None, 0)


def task(*symbols: str, span: TimeRange = SPAN, dataset: Dataset = MINUTES, **more: object) -> FetchTask:
    return FetchTask(symbols, span, dataset, estimate=120.0, **more)  # type: ignore[arg-type]


def held(storage: ParquetStorage, symbol: str, dataset: Dataset = MINUTES) -> dict[str, float]:
    """Return the closing prices on disk, by minute, file by file."""
    found: dict[str, float] = {}
    for partition in storage.bars.partitions(dataset, symbol):
        for row in storage.bars.read(partition.series, partition.period).to_pylist():
            assert row["timestamp"] in partition.period.span
            assert f"{row['timestamp']:%Y-%m-%d %H:%M}" not in found
            found[f"{row['timestamp']:%Y-%m-%d %H:%M}"] = row["close"]
    return found


def known(storage: ParquetStorage, symbol: str, dataset: Dataset = MINUTES) -> Coverage:
    return storage.bars.coverage.read(Series(symbol, dataset))
