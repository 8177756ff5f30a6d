"""Historical US stock bars from Alpaca in a plain Parquet store that always knows what it holds.

The names below are loaded at first use, so that ``import data_engine`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_engine.indices.metadata import MetadataStore
    from data_engine.pipeline import IngestionPipeline
    from data_engine.report import IngestionReport
    from data_engine.run_ingestion import ingest_from_csv, ingest_single_symbol, ingest_symbol_list
    from data_engine.source.alpaca import AlpacaClient
    from data_engine.storage import IncompleteWarning, ParquetStorage
    from data_engine.symbols import SymbolLoader
    from data_engine.version import __version__

_HOMES = {
    "AlpacaClient": "source.alpaca",
    "IncompleteWarning": "storage",
    "IngestionPipeline": "pipeline",
    "IngestionReport": "report",
    "MetadataStore": "indices.metadata",
    "ParquetStorage": "storage",
    "SymbolLoader": "symbols",
    "__version__": "version",
    "ingest_from_csv": "run_ingestion",
    "ingest_single_symbol": "run_ingestion",
    "ingest_symbol_list": "run_ingestion",
}

__all__ = [
    "AlpacaClient",
    "IncompleteWarning",
    "IngestionPipeline",
    "IngestionReport",
    "MetadataStore",
    "ParquetStorage",
    "SymbolLoader",
    "__version__",
    "ingest_from_csv",
    "ingest_single_symbol",
    "ingest_symbol_list",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"data_engine.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'data_engine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
