"""Download historical US stock bars from Alpaca to Parquet and track which ranges are complete.

The names below are loaded at first use, so that ``import data_engine`` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_engine.alpaca.client import AlpacaClient
    from data_engine.ingest.api import ingest_from_csv, ingest_single_symbol, ingest_symbol_list
    from data_engine.ingest.outcome import IngestionReport
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.read.parquet_storage import ParquetStorage
    from data_engine.read.read_warnings import AdjustmentWarning, FrameWarning, IncompleteWarning
    from data_engine.store.waiting import StoreBusyWarning
    from data_engine.universe.index_store import MetadataStore
    from data_engine.universe.symbol_lists import SymbolLoader
    from data_engine.version import __version__


_MODULES = {
    "AdjustmentWarning": "read.read_warnings",
    "AlpacaClient": "alpaca.client",
    "FrameWarning": "read.read_warnings",
    "IncompleteWarning": "read.read_warnings",
    "IngestionPipeline": "ingest.pipeline",
    "IngestionReport": "ingest.outcome",
    "MetadataStore": "universe.index_store",
    "ParquetStorage": "read.parquet_storage",
    "StoreBusyWarning": "store.waiting",
    "SymbolLoader": "universe.symbol_lists",
    "__version__": "version",
    "ingest_from_csv": "ingest.api",
    "ingest_single_symbol": "ingest.api",
    "ingest_symbol_list": "ingest.api",
}

__all__ = [
    "AdjustmentWarning",
    "AlpacaClient",
    "FrameWarning",
    "IncompleteWarning",
    "IngestionPipeline",
    "IngestionReport",
    "MetadataStore",
    "ParquetStorage",
    "StoreBusyWarning",
    "SymbolLoader",
    "__version__",
    "ingest_from_csv",
    "ingest_single_symbol",
    "ingest_symbol_list",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"data_engine.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'data_engine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
