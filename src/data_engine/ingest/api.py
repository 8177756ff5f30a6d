"""Ingest bars with one call, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from data_engine.ingest.outcome import IngestionReport
from data_engine.ingest.pipeline import IngestionPipeline
from data_engine.market.dates import DateLike


def ingest_single_symbol(
    symbol: str,
    start_date: DateLike,
    end_date: DateLike | None = None,
    timeframe: object = "1Min",
    *,
    asof: date | str | None = None,
    **options: Any,
) -> IngestionReport:
    """Fetch the missing bars of one symbol, store them, and return the report.

    Args:
        symbol: The symbol, as Alpaca writes it (``BRK.B``).
        start_date: The first New York day, or an aware datetime.
        end_date: The last New York day, or an aware datetime (excluded). If None, now.
        timeframe: The timeframe, ``1Min`` to ``1Month``, or alpaca-py's ``TimeFrame``.
        asof: The last day of a former owner of the ticker, whose bars are then stored as ``SYMBOL@YYYY-MM-DD``. If None, the
            present owner.
        **options: Arguments for `IngestionPipeline`, such as ``base_path``, ``max_workers``, ``feed``, ``adjustment``, ``client``
            and ``progress``.

    Returns:
        The report. If the symbol failed, ``report["failed"]`` has the reason.

    Raises:
        DataEngineError: If an argument or setting cannot be used, or the run cannot go on, as in `IngestionPipeline`.
    """
    return IngestionPipeline(**options).ingest_symbols([symbol], start_date, end_date, timeframe, asof=asof)


def ingest_symbol_list(
    symbols: Iterable[str],
    start_date: DateLike,
    end_date: DateLike | None = None,
    timeframe: object = "1Min",
    index_name: str | None = None,
    *,
    asof: date | str | None = None,
    **options: Any,
) -> IngestionReport:
    """Fetch the missing bars of several symbols, store them, and return the report.

    Args:
        symbols: The symbols, as Alpaca writes them.
        start_date: The first New York day, or an aware datetime.
        end_date: The last New York day, or an aware datetime (excluded). If None, now.
        timeframe: The timeframe, ``1Min`` to ``1Month``, or alpaca-py's ``TimeFrame``.
        index_name: The name of the index to store the symbols as. If None, none is stored.
        asof: The last day of a former owner of the ticker, whose bars are then stored as ``SYMBOL@YYYY-MM-DD``. If None, the
            present owner.
        **options: Arguments for `IngestionPipeline`.

    Returns:
        The report, with the symbols in the order given.

    Raises:
        DataEngineError: If an argument or setting cannot be used, or the run cannot go on, as in `IngestionPipeline`.
    """
    return IngestionPipeline(**options).ingest_symbols(symbols, start_date, end_date, timeframe, index_name, asof=asof)


def ingest_from_csv(
    csv_path: Path | str,
    start_date: DateLike,
    end_date: DateLike | None = None,
    timeframe: object = "1Min",
    index_name: str | None = None,
    *,
    symbol_column: str | None = None,
    **options: Any,
) -> IngestionReport:
    """Fetch the missing bars of the symbols in a CSV file, store them and the list, and return the report.

    Args:
        csv_path: The path of the CSV file.
        start_date: The first New York day, or an aware datetime.
        end_date: The last New York day, or an aware datetime (excluded). If None, now.
        timeframe: The timeframe, ``1Min`` to ``1Month``, or alpaca-py's ``TimeFrame``.
        index_name: The name of the index to store the symbols as. If None, it is derived from the file's name.
        symbol_column: The column of the symbols. If None, Symbol, else Ticker.
        **options: Arguments for `IngestionPipeline`.

    Returns:
        The report, with the symbols in the order of the file.

    Raises:
        DataEngineError: If an argument or setting cannot be used, or the run cannot go on, as in `IngestionPipeline`.
    """
    return IngestionPipeline(**options).ingest_from_csv(
        csv_path, start_date, end_date, timeframe, index_name, symbol_column=symbol_column
    )
