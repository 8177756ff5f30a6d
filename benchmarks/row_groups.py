"""What smaller row groups cost and bring: bytes a bar, and CPU seconds to read one day, and the month, of 500 files.

python benchmarks/row_groups.py          one month of eight real symbols, each read as if it were many
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_engine.market.bars import BAR_SCHEMA, make_table, to_micros, within
from data_engine.market.exchange_calendar import sessions
from data_engine.market.time_range import TimeRange, new_york_days

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "minute" / "polygon_sip_ext_8sym_20240603_20240816.parquet"

FIRST, LAST, DAY, FILES = date(2024, 7, 1), date(2024, 7, 31), date(2024, 7, 16), 500


def tables() -> list[pa.Table]:
    """Return a month of each symbol. The file has no trades and no vwap: they are computed as in benchmarks/market_store.py."""
    span, made = new_york_days(FIRST, LAST), []
    sql = "SELECT epoch_us(timestamp), open, high, low, close, volume FROM read_parquet(?) WHERE symbol = ? ORDER BY 1"
    with duckdb.connect() as connection:
        for (symbol,) in connection.execute("SELECT DISTINCT symbol FROM read_parquet(?) ORDER BY 1", [str(REAL)]).fetchall():
            columns: list[Any] = list(connection.execute(sql, [str(REAL), symbol]).fetchnumpy().values())
            times, (opens, highs, lows, closes, volumes) = columns[0].astype(np.int64), columns[1:]
            trades, vwap = np.maximum(1, np.round(volumes / 90)), np.round((highs + lows + closes) / 3, 4)
            made.append(within(make_table(times, [opens, highs, lows, closes, volumes, trades, vwap]), span))
    return [table for table in made if table.num_rows > 1000]


def cuts(table: pa.Table, each: int | None) -> list[pa.Table]:
    """Return the rows of so many sessions each."""
    if each is None:
        return [table]
    days = list(sessions(FIRST, LAST))
    spans = [new_york_days(days[at], days[min(at + each, len(days)) - 1]) for at in range(0, len(days), each)]
    return [part for span in spans if (part := within(table, span)).num_rows]


def encode(parts: Sequence[pa.Table], **options: object) -> bytes:
    sink = pa.BufferOutputStream()
    settings = {
        "compression": "zstd",
        "compression_level": 2,
        "use_dictionary": ["open", "high", "low", "close", "trade_count"],
        "column_encoding": {"timestamp": "DELTA_BINARY_PACKED", "volume": "PLAIN", "vwap": "PLAIN"},
        "write_statistics": ["timestamp"],
        "write_batch_size": 1 << 16,
        "store_schema": False,
    }
    with pq.ParquetWriter(sink, BAR_SCHEMA, **{**settings, **options}) as writer:
        for part in parts:
            writer.write_table(part.combine_chunks(), row_group_size=1 << 20)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read(content: bytes, span: TimeRange | None) -> pa.Table:
    """Read as `BarStore.read` does, but only the row groups of a range."""
    file = pq.ParquetFile(pa.BufferReader(content))
    if span is None:
        return file.read(use_threads=False)
    low, high, chosen = to_micros(span.start), to_micros(span.end), []
    for group in range(file.metadata.num_row_groups):
        bounds = file.metadata.row_group(group).column(0).statistics
        if bounds.min_raw < high and bounds.max_raw >= low:
            chosen.append(group)
    return within(file.read_row_groups(chosen, use_threads=False), span)


def cpu(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    months, day = tables(), new_york_days(DAY, DAY)
    bars = sum(table.num_rows for table in months)
    variants = {
        "one row group (as it is)": [encode(cuts(table, None)) for table in months],
        "a row group per five sessions": [encode(cuts(table, 5)) for table in months],
        "a row group per two sessions": [encode(cuts(table, 2)) for table in months],
        "a row group per session": [encode(cuts(table, 1)) for table in months],
        "one row group, pages of 8 kB, page index": [
            encode(cuts(table, None), data_page_size=8192, write_batch_size=1024, write_page_index=True) for table in months
        ],
    }
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in variants}
    for _ in range(3):
        for name, contents in variants.items():
            many = [contents[number % len(contents)] for number in range(FILES)]
            seconds[name][0].append(cpu(lambda many=many: [read(content, day) for content in many]))  # type: ignore[misc]
            seconds[name][1].append(cpu(lambda many=many: [read(content, None) for content in many]))  # type: ignore[misc]
    whole = sum(map(len, next(iter(variants.values()))))
    print(f"{len(months)} symbols, {bars:,} bars\n")
    print("| file | bytes a bar | size | one day of 500, CPU s | the month of 500, CPU s |\n|---|---|---|---|---|")
    for name, contents in variants.items():
        size, (one, month) = sum(map(len, contents)), (statistics.median(found) for found in seconds[name])
        print(f"| {name} | {size / bars:.2f} | {size / whole:.3f} | {one:.2f} | {month:.2f} |")


if __name__ == "__main__":
    main()
