"""The reference pipeline, written from its description: what this project replaces.

In a thread pool, for each symbol: alpaca-py's ``get_stock_bars(...).df``, the index reset, times in UTC, a year and a month column, an
in-memory DuckDB connection, and one ``COPY ... PARTITION_BY (symbol, year, month), OVERWRITE_OR_IGNORE``.

    python benchmarks/reference.py URL FOLDER START END WORKERS SYMBOL ...
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import duckdb
import pandas as pd
from alpaca.data import StockBarsRequest, StockHistoricalDataClient, TimeFrame
from alpaca.data.enums import DataFeed
from alpaca.data.models import BarSet


def main() -> None:
    url, folder, start, end, workers, *symbols = sys.argv[1:]
    client = StockHistoricalDataClient("key", "secret", url_override=url)

    def ingest(symbol: str) -> int:
        request = StockBarsRequest(
            symbol_or_symbols=symbol,
            timeframe=TimeFrame.Minute,
            start=datetime.fromisoformat(start),
            end=datetime.fromisoformat(end),
            feed=DataFeed.SIP,
        )
        found = client.get_stock_bars(request)
        assert isinstance(found, BarSet)
        bars = found.df.reset_index()
        bars["timestamp"] = pd.to_datetime(bars["timestamp"], utc=True)
        bars["year"] = bars["timestamp"].dt.year
        bars["month"] = bars["timestamp"].dt.month
        connection = duckdb.connect(":memory:")
        connection.register("bars", bars)
        connection.execute(f"COPY bars TO '{folder}' (FORMAT parquet, PARTITION_BY (symbol, year, month), OVERWRITE_OR_IGNORE)")
        connection.close()
        return len(bars)

    with ThreadPoolExecutor(int(workers)) as pool:
        print(sum(pool.map(ingest, symbols)))


if __name__ == "__main__":
    main()
