"""Never run, only type-checked: the public API as users write it."""

from __future__ import annotations

import pandas as pd

from data_engine import (
    AlpacaClient,
    IngestionPipeline,
    IngestionReport,
    MetadataStore,
    ParquetStorage,
    SymbolLoader,
    ingest_from_csv,
    ingest_single_symbol,
    ingest_symbol_list,
)
from data_engine.alpaca.transport import HttpTransport, Transport
from data_engine.ingest.progress import LogProgress, NoProgress, Progress
from data_engine.store.file_store import FileStore
from data_engine.store.local_files import LocalFiles

report: IngestionReport = ingest_single_symbol("AAPL", "2016-01-01", "2025-01-01", "1Min")
report = ingest_symbol_list(["AAPL", "MSFT"], "2016-01-01", "2025-01-01", "1Day", index_name="tech_stocks")
report = ingest_from_csv("sp500-2025.csv", "2016-01-01", "2025-01-01", "1Min", index_name="s_and_p_500")

pipeline = IngestionPipeline(max_workers=10)
report = pipeline.ingest_symbols(["AAPL"], start_date="2020-01-01", end_date="2024-12-31", timeframe="1Day", index_name="mine")
report = pipeline.ingest_from_csv("sp500-2025.csv", "2024-01-01", "2024-12-31", symbol_column="Symbol")

bars: pd.DataFrame = AlpacaClient().fetch_bars("AAPL", "2024-01-01", "2024-12-31")
storage = ParquetStorage()
storage.store(bars)
bars = storage.load(["AAPL", "MSFT"], "2024-03-01", "2024-03-31")

names: list[str] = SymbolLoader.from_csv("list.csv", symbol_column="Symbol")
names = SymbolLoader.from_list(["AAPL"])
names = SymbolLoader.from_text_file("list.txt")
MetadataStore().store("tech_stocks", names)
members: pd.DataFrame = MetadataStore().load("tech_stocks")

files: FileStore = LocalFiles("somewhere")
progress: Progress = NoProgress()
progress = LogProgress(print)
transport: Transport = HttpTransport("https://data.alpaca.markets", {})
