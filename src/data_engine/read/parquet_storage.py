"""The bars of a store as people use them: `ParquetStorage`, frames in and frames out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Unpack

import pyarrow as pa

from data_engine.corporate_actions.adjustment import PREVIOUS_CLOSE
from data_engine.errors import ConfigError, InputError, StoreError
from data_engine.market.bar_frame import ATTRS_KEY, dataset_of_frame, frame_identity, from_frame, to_frame
from data_engine.market.bar_grid import check_stamps
from data_engine.market.dates import DateLike, parse_span
from data_engine.market.series import Series
from data_engine.market.symbol import check_symbol
from data_engine.market.time_range import TimeRange
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
    """A range that was asked to be ingested is not held whole."""


class ParquetStorage:
    """Bars in plain Parquet files. Safe between threads and processes.

    Args:
        base_path: of the store, a folder or ``s3://bucket/prefix``; None takes it from the settings (``DATA_ENGINE_BASE_PATH``,
            ``settings.ini``, ``~/stock_data``).
        files: in place of those at *base_path*.
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
        """The place of the store's files."""
        return self.bars.files

    def store(
        self, bars: pd.DataFrame, *, timeframe: object = None, feed: object = None, adjustment: object = None
    ) -> WriteResult:
        """Merge a frame of bars into the store: one row per (symbol, timestamp), the new one wins.

        Storing twice is storing once, and the other bars of a month stay. No coverage is claimed: that these bars are all
        there are in some range is more than a frame can say.

        Args:
            bars: as `AlpacaClient.fetch_bars` or alpaca-py's ``.df`` makes them: index levels ``symbol`` and ``timestamp``
                (aware) or columns of those names, and ``open high low close volume trade_count vwap``.
            timeframe: None is what the frame is marked with, else minutes.
            feed: None is what the frame is marked with, else the consolidated tape.
            adjustment: None is what the frame is marked with, else raw.

        Raises:
            InputError: a column is missing, a value is not a number, stamps cannot be of that timeframe, or an argument
                contradicts the frame's mark.
            StoreError: the store cannot be written.
        """
        tables = from_frame(bars, canonical=check_symbol)
        dataset = dataset_of_frame(bars, timeframe, feed, adjustment)
        check_stamps(tables, dataset)
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
            symbols: one or several; those without bars have no rows. None goes with *index*: all of its members.
            start: a New York calendar day, or an aware instant.
            end: a day (included) or an aware instant (excluded); None is now.
            index: a stored list: each day has the bars of those who were its members on that day, and of nobody else.
            timeframe: of the stored bars.
            feed: of the bars.
            adjustment: of the bars. Raw ones are adjusted as they are read, by the corporate actions that `data-engine actions`
                has brought; where *as_of* is None and the store holds the dataset that the vendor has adjusted, that is read.
            as_of: a day: no action with a later ex-date is worked in. None is today in New York.
            convention: what a payout is measured by: ``previous close``, or ``tiingo`` (the close of the ex-date).
            columns: some of ``open high low close volume trade_count vwap``; only what these need is read.
            session: ``regular`` is bars that start within the regular hours of a session (09:30 to 16:00 New York, half days to
                13:00), ``extended`` within 04:00 to 20:00 (17:00), ``all`` every bar. None is all, and regular with *resample*.
            resample: compute longer bars of the minutes: ``5Min``, ``15Min``, ``1Hour`` ..., counted from the session's open, or
                ``1Day``. Those that start inside the range are given, each made of all its minutes, also of minutes after the
                range; one that is still under way is left out.
            incomplete: what to do about a range that was asked to be ingested but is not held whole, and about computed bars
                that lack minutes: name it in an `IncompleteWarning`, raise a `StoreError`, or nothing.

        Raises:
            StoreError: there is no store, or a file of it cannot be read.
            InputError: an argument cannot be used.
        """
        which = ReadOptions(
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
        )
        wanted = self._wanted(symbols, start, end, which)
        frame = to_frame(whole_symbols(self.bars, wanted), wanted.columns)
        frame.attrs[ATTRS_KEY] = frame_identity(replace(wanted.dataset, adjustment=wanted.adjustment), computed=wanted.computed)
        return frame

    def load_arrow(
        self,
        symbols: str | Iterable[str] | None = None,
        start: DateLike | None = None,
        end: DateLike | None = None,
        **which: Unpack[ReadOptions],
    ) -> pa.Table:
        """Return the bars of `load`, with the same arguments, as an Arrow table.

        Its columns are ``symbol`` (text), ``timestamp`` (microseconds, UTC) and the values; its rows are sorted by the first two.
        """
        wanted = self._wanted(symbols, start, end, which)
        return in_arrow(whole_symbols(self.bars, wanted), wanted)

    def load_polars(
        self,
        symbols: str | Iterable[str] | None = None,
        start: DateLike | None = None,
        end: DateLike | None = None,
        **which: Unpack[ReadOptions],
    ) -> pl.DataFrame:
        """Return the bars of `load`, with the same arguments, as a Polars frame with the columns of `load_arrow`.

        Raises:
            ConfigError: Polars is not installed.
        """
        try:
            import polars as pl
        except ImportError:
            raise ConfigError("load_polars needs Polars, which is not installed: pip install 'data-engine[polars]'") from None
        wanted = self._wanted(symbols, start, end, which)
        frame = pl.from_arrow(in_arrow(whole_symbols(self.bars, wanted), wanted))
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - of a table; a series is made of an array
        return frame

    def relation(
        self,
        symbols: str | Iterable[str] | None = None,
        start: DateLike | None = None,
        end: DateLike | None = None,
        *,
        connection: duckdb.DuckDBPyConnection | None = None,
        **which: Unpack[ReadOptions],
    ) -> duckdb.DuckDBPyRelation:
        """Return the bars of `load`, with the same arguments, as a DuckDB relation with the columns of `load_arrow`.

        It is lazy: which files there are is looked up now, and bars are read each time the relation is asked for some. Rows have
        an order where the query gives them one.

        Args:
            symbols: as for `load`.
            start: as for `load`.
            end: as for `load`.
            connection: the relation lives in it and as long as it. None is DuckDB's default connection, that of ``duckdb.sql``,
                which lives as long as the process: a relation can be named in SQL of its own connection alone.
            **which: as for `load`.
        """
        import duckdb

        wanted = self._wanted(symbols, start, end, which)
        return relation(self.bars, wanted, duckdb.default_connection() if connection is None else connection)

    def batches(
        self,
        symbols: str | Iterable[str] | None = None,
        start: DateLike | None = None,
        end: DateLike | None = None,
        **which: Unpack[ReadOptions],
    ) -> Iterator[tuple[str, pa.Table]]:
        """Iterate over the bars of `load`, with the same arguments, where they do not fit memory.

        Yields a symbol and an Arrow table with the columns of `load_arrow`, in order of symbol, then time. A piece is about a
        month of minutes, or a year of days, none is empty, and a few files at most are in memory, whatever the range. Put
        together, the pieces are the table of `load_arrow`.
        """
        wanted = self._wanted(symbols, start, end, which)
        return ((symbol, named_table(symbol, table)) for symbol, table in batches(self.bars, wanted))

    def _wanted(
        self, symbols: str | Iterable[str] | None, start: DateLike | None, end: DateLike | None, which: ReadOptions
    ) -> BarQuery:
        """Read the arguments of a user's call, and do about ranges that are not whole as they say."""
        if start is None:
            raise InputError("start is missing: say from which day on, such as 2024-01-31")
        now, index = datetime.now(UTC), which.get("index")
        members: Mapping[str, Sequence[TimeRange]] = {}
        if index is not None:
            self.bars.check_exists()
            members = MetadataStore(files=self.files).memberships(index, parse_span(start, end, now=now).range)
            symbols = list(members) if symbols is None else symbols
        if symbols is None:
            raise InputError("nobody is asked for: name symbols, or an index")
        wanted = BarQuery.parse(symbols, start, end, now=now, members=members, **which)
        self.bars.check_exists()
        wanted = adjusted(self.bars, wanted, now=now)
        if wanted.incomplete != "ignore":
            for text in incomplete_messages(self.bars, wanted):
                if wanted.incomplete == "raise":
                    raise StoreError(text)
                warnings.warn(text, IncompleteWarning, stacklevel=3)
        return wanted
