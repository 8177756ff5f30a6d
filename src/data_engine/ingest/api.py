"""The main job as three functions, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_engine.ingest.outcome import IngestionReport
from data_engine.ingest.pipeline import IngestionPipeline
from data_engine.market.dates import DateLike


def ingest_single_symbol(
    symbol: str, start_date: DateLike, end_date: DateLike | None = None, timeframe: object = "1Min", **options: Any
) -> IngestionReport:
    """Bring one symbol's bars into the store.

    Args:
        symbol: as Alpaca writes it (``BRK.B``).
        start_date: a New York calendar day, or an aware instant.
        end_date: a day (included) or an aware instant (excluded); None is now.
        timeframe: ``1Min`` to ``1Month``, or alpaca-py's ``TimeFrame``.
        **options: of `IngestionPipeline`: ``base_path``, ``max_workers``, ``feed``, ``adjustment``, ``client``, ``progress``, ...

    Returns:
        The report, also where the symbol failed: look at ``report["failed"]``.
    """
    return IngestionPipeline(**options).ingest_symbols([symbol], start_date, end_date, timeframe)


def ingest_symbol_list(
    symbols: Iterable[str],
    start_date: DateLike,
    end_date: DateLike | None = None,
    timeframe: object = "1Min",
    index_name: str | None = None,
    **options: Any,
) -> IngestionReport:
    """Bring the bars of several symbols into the store, and the list under *index_name* if one is given.

    Args:
        symbols: as Alpaca writes them.
        start_date: as `ingest_single_symbol`.
        end_date: as `ingest_single_symbol`.
        timeframe: as `ingest_single_symbol`.
        index_name: under which the list is stored.
        **options: of `IngestionPipeline`.
    """
    return IngestionPipeline(**options).ingest_symbols(symbols, start_date, end_date, timeframe, index_name)


def ingest_from_csv(
    csv_path: Path | str,
    start_date: DateLike,
    end_date: DateLike | None = None,
    timeframe: object = "1Min",
    index_name: str | None = None,
    symbol_column: str | None = None,
    **options: Any,
) -> IngestionReport:
    """Bring the bars of the symbols in a CSV file into the store, and the list with them.

    Args:
        csv_path: of the list.
        start_date: as `ingest_single_symbol`.
        end_date: as `ingest_single_symbol`.
        timeframe: as `ingest_single_symbol`.
        index_name: of the list; None makes it from the file's name.
        symbol_column: the column that holds the symbols; None looks for Symbol, then Ticker.
        **options: of `IngestionPipeline`.
    """
    return IngestionPipeline(**options).ingest_from_csv(csv_path, start_date, end_date, timeframe, symbol_column, index_name)
