"""Read an export by the engine's own reader, in the engine's own environment, and write what it has as Parquet.

python read_back.py ENGINE FOLDER OUT.parquet: the columns are symbol, timestamp (the start of the bar, UTC), open, high, low,
close, volume and, where the engine has them, trade_count and vwap; sorted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd


def nautilus(folder: str) -> Iterator[pd.DataFrame]:
    """A bar type at a time; values by their decimal text, since ``as_double`` divides."""
    from nautilus_trader.persistence.catalog import ParquetDataCatalog

    catalog = ParquetDataCatalog(folder)
    for instrument in catalog.instruments():
        bars = catalog.bars(instrument_ids=[str(instrument.id)])
        assert all(bar.ts_event == bar.ts_init and bar.open.precision == instrument.price_precision for bar in bars)
        frame = pd.DataFrame(
            {name: [float(str(getattr(bar, name))) for bar in bars] for name in ("open", "high", "low", "close", "volume")}
        )
        ends = pd.DatetimeIndex([bar.ts_event for bar in bars], tz="UTC")
        frame["timestamp"] = ends - bars[0].bar_type.spec.timedelta
        yield frame.assign(symbol=instrument.raw_symbol.value)


def qlib(folder: str) -> Iterator[pd.DataFrame]:
    import qlib as engine
    from qlib.constant import REG_US
    from qlib.data import D

    engine.init(provider_uri=folder, region=REG_US, kernels=1)
    freq = next(Path(folder, "calendars").iterdir()).stem
    names = ["open", "high", "low", "close", "volume", "trade_count", "vwap"]
    for symbol in D.list_instruments(D.instruments("all"), freq=freq, as_list=True):
        frame = D.features([symbol], [f"${name}" for name in names], freq=freq).dropna(how="all")
        frame.columns = names
        frame = frame.reset_index().rename(columns={"instrument": "symbol", "datetime": "timestamp"})
        yield frame.assign(timestamp=frame["timestamp"].dt.tz_localize("America/New_York").dt.tz_convert("UTC"))


def zipline(folder: str) -> Iterator[pd.DataFrame]:
    sys.path.insert(0, folder)
    import data_engine_bundle
    from zipline.data import bundles

    data_engine_bundle.register()
    bundles.ingest("data-engine", os.environ)
    data = bundles.load("data-engine", os.environ)
    reader = data.equity_daily_bar_reader
    columns = ["open", "high", "low", "close", "volume"]
    for asset in data.asset_finder.retrieve_all(data.asset_finder.sids):
        arrays = reader.load_raw_arrays(columns, asset.start_date, asset.end_date, [asset.sid])
        frame = pd.DataFrame({name: array[:, 0] for name, array in zip(columns, arrays, strict=True)})
        frame[columns[:4]] = frame[columns[:4]].round(3)  # thousandths times 0.001
        days = reader.trading_calendar.sessions_in_range(asset.start_date, asset.end_date)
        frame["timestamp"] = days.tz_localize("America/New_York").tz_convert("UTC")
        yield frame[frame["close"].notna()].assign(symbol=asset.symbol)
    adjustments = data.adjustment_reader.unpack_db_to_component_dfs(convert_dates=True)
    for name in ("splits", "dividend_payouts"):
        adjustments[name].to_csv(f"{sys.argv[3]}.{name}.csv", index=False)


if __name__ == "__main__":
    made = pd.concat({"nautilus": nautilus, "qlib": qlib, "zipline": zipline}[sys.argv[1]](sys.argv[2]), ignore_index=True)
    made.sort_values(["symbol", "timestamp"]).astype({"volume": "float64"}).to_parquet(sys.argv[3], index=False)
