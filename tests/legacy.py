"""The pipeline that data-engine replaces, built from its description: what it leaves in a folder, with alpaca-py and DuckDB."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import duckdb
import pandas as pd

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # alpaca-py imports the old websockets
    from alpaca.data import StockBarsRequest, StockHistoricalDataClient, TimeFrame, TimeFrameUnit
    from alpaca.data.enums import DataFeed

__all__ = ["LegacyPipeline", "TimeFrame", "TimeFrameUnit", "keep", "rows_of", "write"]

COLUMNS = "open, high, low, close, volume, trade_count, vwap"


class LegacyPipeline:
    """Fetch bars with alpaca-py, and write each symbol with one COPY: every timeframe goes to ``equities_1min``.

    Args:
        url: Where Alpaca is.
        base: The folder.
    """

    def __init__(self, url: str, base: Path) -> None:
        self._client = StockHistoricalDataClient("key", "secret", url_override=url)
        self._folder = base / "equities_1min"
        self._lists = base / "metadata/indices"

    def ingest(
        self,
        symbols: Sequence[str],
        start: datetime,
        end: datetime,
        timeframe: TimeFrame = TimeFrame.Minute,
        index: str | None = None,
    ) -> None:
        """Fetch and write bars, and the list as an index."""
        with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
            warnings.simplefilter("ignore")  # what alpaca-py does with pandas is going out of fashion
            list(pool.map(lambda symbol: self._ingest(symbol, start, end, timeframe), symbols))
        if index is not None:
            self._lists.mkdir(parents=True, exist_ok=True)
            added = pd.Timestamp.now(tz="UTC")
            pd.DataFrame({"symbol": symbols, "added_date": added}).to_csv(self._lists / f"{index}.csv", index=False)

    def _ingest(self, symbol: str, start: datetime, end: datetime, timeframe: TimeFrame) -> None:
        request = StockBarsRequest(symbol_or_symbols=symbol, timeframe=timeframe, start=start, end=end, feed=DataFeed.SIP)
        bars = self._client.get_stock_bars(request).df.reset_index()
        bars["timestamp"] = pd.to_datetime(bars["timestamp"], utc=True)
        bars["year"] = bars["timestamp"].dt.year
        bars["month"] = bars["timestamp"].dt.month
        write(bars, self._folder)


def write(bars: pd.DataFrame, folder: Path) -> None:
    """Write a frame with the columns ``symbol``, ``timestamp``, values, ``year`` and ``month`` as the pipeline does."""
    folder.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("bars", bars)
    connection.execute(
        f"COPY bars TO '{folder}' (FORMAT PARQUET, COMPRESSION SNAPPY, PARTITION_BY (symbol, year, month), OVERWRITE_OR_IGNORE)"
    )
    connection.close()


def rows_of(base: Path, dataset: str = "equities_1min") -> str:
    """Return SQL for the bars in a folder, by whoever they were written; to be kept before an import as a file of its own."""
    return (
        f"SELECT symbol, timestamp::TIMESTAMPTZ AS timestamp, {COLUMNS} FROM read_parquet('{base}/{dataset}/**/*.parquet', "
        "hive_partitioning = true, hive_types = {'symbol': VARCHAR}, union_by_name = true)"
    )


def keep(query: str, path: Path) -> str:
    """Write the rows of a query to a file, and return SQL for them."""
    duckdb.sql("SET TimeZone = 'UTC'")
    duckdb.sql(f"COPY ({query}) TO '{path}' (FORMAT PARQUET)")
    return f"SELECT * FROM read_parquet('{path}')"
