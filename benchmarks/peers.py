"""What a user would pick instead, in an environment of its own: alpaca-py with raw_data, and ArcticDB.

python benchmarks/peers.py raw URL START END WORKERS SYMBOL ...     fetch, and keep the dicts
python benchmarks/peers.py arctic BARS.parquet FOLDER               write a symbol-year, read a month and the year
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path


def raw(url: str, start: str, end: str, workers: str, *symbols: str) -> dict[str, object]:
    from alpaca.data import StockBarsRequest, StockHistoricalDataClient, TimeFrame
    from alpaca.data.enums import DataFeed

    client = StockHistoricalDataClient("key", "secret", url_override=url, raw_data=True)

    def fetch(symbol: str) -> int:
        request = StockBarsRequest(
            symbol_or_symbols=symbol,
            timeframe=TimeFrame.Minute,
            start=datetime.fromisoformat(start),
            end=datetime.fromisoformat(end),
            feed=DataFeed.SIP,
        )
        return len(client.get_stock_bars(request)[symbol])

    with ThreadPoolExecutor(int(workers)) as pool:
        return {"bars": sum(pool.map(fetch, symbols))}


def arctic(bars: str, folder: str) -> dict[str, object]:
    import arcticdb
    import pandas as pd

    frame = pd.read_parquet(bars).set_index("timestamp")
    library = arcticdb.Arctic(f"lmdb://{folder}").get_library("bars", create_if_missing=True)
    started = time.perf_counter()
    library.write("SPY", frame)
    written = time.perf_counter() - started
    month = tuple(pd.Timestamp(day, tz="America/New_York") for day in ("2024-03-01", "2024-04-01"))
    return {
        "write": written,
        "bytes": sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()),
        "month": median(lambda: library.read("SPY", date_range=month).data),
        "year": median(lambda: library.read("SPY").data),
    }


def median(call: object, times: int = 41) -> float:
    assert callable(call)
    call()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    parts: dict[str, Callable[..., dict[str, object]]] = {"raw": raw, "arctic": arctic}
    print(json.dumps(parts[sys.argv[1]](*sys.argv[2:])))
