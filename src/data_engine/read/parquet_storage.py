"""Store and load bars as pandas, Arrow, Polars and DuckDB objects: `ParquetStorage`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Unpack

import pyarrow as pa

from data_engine.corporate_actions.adjustment import PREVIOUS_CLOSE
from data_engine.errors import ConfigError, InputError, StoreError
from data_engine.market.bar_frame import ATTRS_KEY, dataset_of_frame, frame_identity, from_frame, to_frame
from data_engine.market.bar_grid import check_timestamps
from data_engine.market.dates import DateLike, parse_span
from data_engine.market.series import Series
from data_engine.market.symbol import check_symbol
from data_engine.read.bar_reader import (
    BarQuery,
    Incomplete,
    ReadOptions,
    SessionName,
    adjusted,
    batches,
    in_arrow,
    named_table,
    relation,
    whole_symbols,
)
from data_engine.read.completeness import incomplete_messages
from data_engine.store.bar_store import BarStore, WriteResult
from data_engine.universe.index_store import MetadataStore

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb
    import pandas as pd
    import polars as pl

    from data_engine.store.file_store import FileStore


class IncompleteWarning(UserWarning):
    """A requested range is missing."""


class ParquetStorage:
    """Bars in plain Parquet files. Safe between threads and processes.

    Example:
        >>> storage = ParquetStorage("~/stock_data")
        >>> storage.load("AAPL", "2024-03-01", "2024-03-31", session="regular")

    Args:
        base_path: Directory or ``s3://bucket/prefix`` URL of the store. If None, read from settings (``DATA_ENGINE_BASE_PATH``,
            ``settings.ini``, ``~/stock_data``).
        files: File backend to use instead.
    """

    def __init__(self, base_path: Path | str | None = None, *, files: FileStore | None = None) -> None:
        if files is None:
            from data_engine.settings import load_settings
            from data_engine.store.location import open_file_store

            files = open_file_store(load_settings(base_path=base_path).base_path)
        self.bars = BarStore(files)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.files.location!r})"

    @property
    def files(self) -> FileStore:
        """The file backend of the store."""
        return self.bars.files

    def store(
        self, bars: pd.DataFrame, *, timeframe: object = None, feed: object = None, adjustment: object = None
    ) -> WriteResult:
        """Merge a DataFrame of bars into the store: one row per (symbol, timestamp), the new one wins.

        Storing twice has the effect of storing once, and the other bars of a month stay. The coverage gains no range: a
        DataFrame cannot tell whether its bars are all there are.

        Args:
            bars: The bars as `AlpacaClient.fetch_bars` or alpaca-py's ``.df`` returns them: index levels ``symbol`` and
                ``timestamp`` (aware) or columns of those names, and ``open high low close volume trade_count vwap``.
            timeframe: The timeframe of the bars. If None, read from the frame metadata, else minutes.
            feed: The feed of the bars. If None, read from the frame metadata, else the consolidated tape.
            adjustment: The adjustment of the bars. If None, read from the frame metadata, else raw.

        Returns:
            The number of bars in the files that were written, and how many were added or revised.

        Raises:
            InputError: If a column is missing, a value is not a number, timestamps cannot be of that timeframe, or an argument
                contradicts the frame metadata.
            StoreError: If the store cannot be written.
        """
        tables = from_frame(bars, canonical=check_symbol)
        dataset = dataset_of_frame(bars, timeframe, feed, adjustment)
        check_timestamps(tables, dataset)
        return sum((self.bars.add(Series(symbol, dataset), table) for symbol, table in tables.items()), WriteResult())

    def load(
        self,
        symbols: str | Iterable[str] | None = None,
        start: DateLike | None = None,
        end: DateLike | None = None,
        *,
        index: str | None = None,
        timeframe: object = "1Min",
        feed: object = None,
        adjustment: object = None,
        as_of: date | str | None = None,
        convention: str = PREVIOUS_CLOSE,
        columns: Sequence[str] | None = None,
        session: SessionName | None = None,
        resample: object = None,
        incomplete: Incomplete = "warn",
    ) -> pd.DataFrame:
        """Return stored bars that start inside a range, in the shape of `AlpacaClient.fetch_bars`.

        Args:
            symbols: One symbol or several; those without bars have no rows. If None, all members of *index*.
            start: A New York calendar day, or an aware instant.
            end: A day (included) or an aware instant (excluded). If None, now.
            index: The name of a stored index: each day has the bars of the symbols that were members on that day.
            timeframe: The timeframe of the stored bars.
            feed: The feed of the bars. If None, the consolidated tape.
            adjustment: The adjustment of the bars. If None, raw. Raw bars are adjusted as they are read, by the corporate actions
                that `data-engine actions` fetched. If *as_of* is None and the store has the dataset that Alpaca adjusted, that
                dataset is read.
            as_of: A day: no action with a later ex-date is applied. If None, today in New York.
            convention: The price that a dividend is measured by: ``previous close``, or ``tiingo`` (the close of the ex-date).
            columns: Some of ``open high low close volume trade_count vwap``; only what these need is read. If None, all.
            session: The hours: ``regular`` for bars that start within the regular hours of a session (09:30 to 16:00 New York,
                half days to 13:00), ``extended`` within 04:00 to 20:00 (17:00), ``all`` for every bar. If None, all, but regular
                with *resample*.
            resample: The longer bars to compute from minutes: ``5Min``, ``15Min``, ``1Hour`` ..., counted from the session's
                open, or ``1Day``. Those that start inside the range are returned, each computed from all its minutes, also from
                minutes after the range. A bar that has not ended is left out.
            incomplete: What to do about a requested range that is missing, and about computed bars that lack minutes: ``warn``
                with an `IncompleteWarning`, ``raise`` a `StoreError`, or ``ignore``.

        Returns:
            The index levels ``symbol`` and ``timestamp`` (``datetime64[ns, UTC]``), sorted, and *columns* as float64; without
            bars, the same columns and no row.

        Raises:
            StoreError: If there is no store, or one of its files cannot be read.
            InputError: If an argument cannot be used.
        """
        query = self._query(
            symbols,
            start,
            end,
            ReadOptions(
                index=index,
                as_of=as_of,
                convention=convention,
                timeframe=timeframe,
                feed=feed,
                adjustment=adjustment,
                columns=columns,
                session=session,
                resample=resample,
                incomplete=incomplete,
            ),
        )
        frame = to_frame(whole_symbols(self.bars, query), query.columns)
        frame.attrs[ATTRS_KEY] = frame_identity(replace(query.dataset, adjustment=query.adjustment), computed=query.computed)
        return frame

    def load_arrow(
        self,
        symbols: str | Iterable[str] | None = None,
        start: DateLike | None = None,
        end: DateLike | None = None,
        **options: Unpack[ReadOptions],
    ) -> pa.Table:
        """Return the bars of `load`, which documents the arguments, as an Arrow table.

        Returns:
            The columns ``symbol`` (text), ``timestamp`` (microseconds, UTC) and the values, sorted by the first two.
        """
        query = self._query(symbols, start, end, options)
        return in_arrow(whole_symbols(self.bars, query), query)

    def load_polars(
        self,
        symbols: str | Iterable[str] | None = None,
        start: DateLike | None = None,
        end: DateLike | None = None,
        **options: Unpack[ReadOptions],
    ) -> pl.DataFrame:
        """Return the bars of `load`, which documents the arguments, as a Polars DataFrame with the columns of `load_arrow`.

        Raises:
            ConfigError: If Polars is not installed.
        """
        try:
            import polars as pl
        except ImportError:
            raise ConfigError("cannot load a Polars DataFrame: polars is not installed; run `pip install polars`") from None
        query = self._query(symbols, start, end, options)
        frame = pl.from_arrow(in_arrow(whole_symbols(self.bars, query), query))
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table makes a DataFrame; only an array makes a Series
        return frame

    def relation(
        self,
        symbols: str | Iterable[str] | None = None,
        start: DateLike | None = None,
        end: DateLike | None = None,
        *,
        connection: duckdb.DuckDBPyConnection | None = None,
        **options: Unpack[ReadOptions],
    ) -> duckdb.DuckDBPyRelation:
        """Return the bars of `load` as a DuckDB relation with the columns of `load_arrow`.

        Lazy: files are listed now; bars are read on each execution. Row order is undefined without ORDER BY.

        Args:
            symbols: One symbol or several. If None, all members of the index.
            start: A New York calendar day, or an aware instant.
            end: A day (included) or an aware instant (excluded). If None, now.
            connection: The connection that the relation belongs to; only its SQL can name the relation. If None, DuckDB's
                default connection, that of ``duckdb.sql``.
            **options: The other arguments of `load`.
        """
        import duckdb

        query = self._query(symbols, start, end, options)
        return relation(self.bars, query, duckdb.default_connection() if connection is None else connection)

    def batches(
        self,
        symbols: str | Iterable[str] | None = None,
        start: DateLike | None = None,
        end: DateLike | None = None,
        **options: Unpack[ReadOptions],
    ) -> Iterator[tuple[str, pa.Table]]:
        """Iterate over the bars of `load`, which documents the arguments, if they do not fit in memory.

        Yields:
            A symbol and an Arrow table with the columns of `load_arrow`, by symbol, then time. A table has about a month of
            minutes, or a year of days, and at least one row; at most a few files are in memory. Together the tables are that
            of `load_arrow`.
        """
        query = self._query(symbols, start, end, options)
        return ((symbol, named_table(symbol, table)) for symbol, table in batches(self.bars, query))

    def _query(
        self, symbols: str | Iterable[str] | None, start: DateLike | None, end: DateLike | None, options: ReadOptions
    ) -> BarQuery:
        """Parse the arguments of a user's call, and warn or raise if ranges are missing, as *incomplete* says."""
        if start is None:
            raise InputError("start is missing; pass the first day, such as start='2024-01-31'")
        now, index, members = datetime.now(UTC), options.get("index"), None
        if index is not None:
            self.bars.check_exists()
            members = MetadataStore(files=self.files).memberships(index, parse_span(start, end, now=now).range)
            symbols = list(members) if symbols is None else symbols
        if symbols is None:
            raise InputError("no symbols given; pass symbols=... or index=...")
        query = BarQuery.parse(symbols, start, end, now=now, members=members, **options)
        self.bars.check_exists()
        query = adjusted(self.bars, query, now=now)
        if query.incomplete != "ignore":
            self.bars.coverage.requested.refresh()
            for message in incomplete_messages(self.bars, query, now=now):
                if query.incomplete == "raise":
                    raise StoreError(message)
                warnings.warn(message, IncompleteWarning, stacklevel=3)
        return query
