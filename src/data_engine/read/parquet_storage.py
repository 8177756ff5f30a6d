"""Store and load bars as pandas, Arrow, Polars and DuckDB objects: `ParquetStorage`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, tzinfo
from typing import TYPE_CHECKING, Unpack

import pyarrow as pa

from data_engine.corporate_actions.adjustment import PRIOR_CLOSE
from data_engine.errors import ConfigError
from data_engine.market.bar_frame import ATTRS_KEY, Folded, dataset_of_frame, frame_identity, from_frame, is_marked, to_frame
from data_engine.market.bar_grid import check_timestamps
from data_engine.market.dates import DateLike, parse_zone
from data_engine.market.series import Series
from data_engine.market.symbol import check_symbol
from data_engine.market.time_range import iso
from data_engine.read.bar_query import (
    Conflicting,
    Incomplete,
    Prices,
    ReadOptions,
    SessionName,
    Source,
    Unadjustable,
)
from data_engine.read.bar_reader import batches, in_arrow, named_table, relation, whole_symbols
from data_engine.read.frame_warnings import FrameWarning, differing, unmarked
from data_engine.read.holdings import Holdings
from data_engine.read.open_query import open_query, parse_call
from data_engine.read.session_report import FrameRecord, session_frame
from data_engine.store.bar_store import BarStore
from data_engine.store.file_edit import WriteResult
from data_engine.store.history.head import USER
from data_engine.store.history.past import stored_on
from data_engine.store.legacy_files import refuse_foreign, refuse_legacy_store
from data_engine.store.waiting import check_wait, warn_waiting

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb
    import pandas as pd
    import polars as pl

    from data_engine.store.file_store import FileStore


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
        self._told_of_unmarked = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.files.location!r})"

    @property
    def files(self) -> FileStore:
        """The file backend of the store."""
        return self.bars.files

    def store(
        self,
        bars: pd.DataFrame,
        timeframe: object = None,
        *,
        feed: object = None,
        adjustment: object = None,
        wait: float = 600.0,
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
            wait: The maximum number of seconds to wait for a file that another process has locked. A `StoreBusyWarning` says
                when the call has waited for a second.

        Returns:
            The number of bars in the files that were written, how many were added or revised, and the number of rows that a
            later row of the DataFrame repeated. If such rows differ, or nothing says which bars these are, a `FrameWarning` does.

        Raises:
            InputError: If a column is missing, a value is not a number, timestamps cannot be of that timeframe, an argument
                contradicts the frame metadata, or *wait* is no number from 0 to a year.
            ForeignFiles: If the folder of a series, or the whole store, was written by the legacy pipeline; nothing was written.
            StoreBusy: If another process kept a file locked; earlier files of the DataFrame are stored, and a repetition is safe.
            StoreError: If the store cannot be written.
        """
        patient = self.files.waiting(check_wait(wait), warn_waiting(self.files.location, wait)).acting(USER)
        folded = Folded()
        tables = from_frame(bars, canonical=check_symbol, folded=folded)
        dataset = dataset_of_frame(bars, timeframe, feed, adjustment)
        assumed = bool(tables) and timeframe is None and not is_marked(bars)
        check_timestamps(tables, dataset, assumed=assumed)
        if assumed and not self._told_of_unmarked:
            self._told_of_unmarked = True
            warnings.warn(unmarked(dataset), FrameWarning, stacklevel=2)
        if folded.differing:
            warnings.warn(differing(folded), FrameWarning, stacklevel=2)
        refuse_legacy_store(self.files)
        for symbol in tables:
            refuse_foreign(self.files, Series(symbol, dataset))
        bar_store = self.bars.writing_to(patient)
        result = sum((bar_store.add(Series(symbol, dataset), table) for symbol, table in tables.items()), WriteResult())
        return replace(result, folded=folded.repeated)

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
        convention: str = PRIOR_CLOSE,
        prices: Prices | None = None,
        unadjustable: Unadjustable = "raise",
        columns: str | Sequence[str] | None = None,
        session: SessionName | None = None,
        resample: object = None,
        incomplete: Incomplete = "warn",
        final: bool = False,
        source: Source = "any",
        conflicting: Conflicting = "stored",
        fill: bool = False,
        as_stored_on: DateLike | None = None,
        tz: str | tzinfo | None = None,
    ) -> pd.DataFrame:
        """Return stored bars that start inside a range, in the shape of `AlpacaClient.fetch_bars`.

        Args:
            symbols: One symbol or several; those without bars have no rows. If None, all members of *index*.
            start: A New York calendar day, or an aware instant.
            end: A day (included) or an aware instant (excluded). If None, now; what no symbol of the dataset has yet is not
                missing then.
            index: The name of a stored index: each day has the bars of the companies that were members on that day; one whose
                ticker another company has today is the symbol ``S@DATE``.
            timeframe: The timeframe of the stored bars.
            feed: The feed of the bars. If None, the consolidated tape.
            adjustment: The adjustment of the bars. If None, raw.
            as_of: A day: no action with a later ex-date is applied. If None, today in New York.
            convention: The close that a dividend is measured by: ``prior_close`` of the session before the ex-date, or
                ``ex_close`` of the ex-date (``tiingo``).
            prices: Where adjusted prices come from, for all symbols: ``computed`` from raw bars by the corporate actions that
                `data-engine actions` fetched, or ``vendor`` for the dataset that Alpaca adjusted. If None, computed if *as_of*
                is given or raw bars of any of the symbols are stored.
            unadjustable: What to do about symbols whose prices cannot be computed: ``raise`` one error for all of them, or
                ``drop`` them, with an `AdjustmentWarning`.
            columns: One or some of ``open high low close volume trade_count vwap``; only what these need is read. If None, all.
            session: The hours: ``regular`` for bars that start within the regular hours of a session (09:30 to 16:00 New York,
                half days to 13:00), ``extended`` within 04:00 to 20:00 (17:00), ``all`` for every bar. If None, all, but regular
                with *resample*.
            resample: The longer bars to compute from minutes: ``5Min``, ``15Min``, ``1Hour`` ..., counted from the session's
                open, or ``1Day``. Those that start inside the range are returned, each computed from all its minutes, also from
                minutes after the range. A bar that has not ended is left out.
            incomplete: What to do about what this call asks for and the store does not hold, requested or not: ``warn`` with one
                `IncompleteWarning`, ``raise`` a `StoreError`, or ``ignore``. Bars that were stored without coverage are
                unverified: what is absent between the first and the last is an error with ``raise`` only.
            final: Whether to leave out provisional bars, which Alpaca may still revise.
            source: Whose bars to return: ``any``, or only those in ranges that Alpaca answered (``vendor``), not what was
                imported or stored from elsewhere.
            conflicting: Which values bars have that Alpaca has revised or dropped since, as `data-engine recheck` found:
                ``stored`` returns what is stored, with a `ConflictWarning`, ``vendor`` Alpaca's values, without dropped bars, and
                ``raise`` is an error.
            fill: Whether to join bars of other sources, which `data-engine import --fill` stored, into gaps of Alpaca's. A range
                is left out once Alpaca has a bar in it. What *incomplete* and the states of sessions say is of Alpaca's bars.
            as_stored_on: An aware instant, a day (its end in New York) or the name of a snapshot: what the store held then,
                judged as it was then, with the corporate actions and lists of then. If None, now.
            tz: The time zone of the timestamps in the result, such as ``America/New_York``. If None, UTC.

        Returns:
            The index levels ``symbol`` and ``timestamp`` (``datetime64[ns, UTC]``, or *tz*), sorted, and *columns* as float64;
            without bars, the same columns and no row. ``attrs["data_engine"]`` has the dataset, the road of adjusted prices,
            the number of sessions by state (see `sessions`), the number of conflicting bars, the instant, and the number and a
            digest of the files. With *fill*, its ``filled`` has the number of ``bars`` of other sources, the first three
            ``ranges`` (``symbol``, ``start``, ``end``, ``source``) and the number of ``more_ranges``.

        Raises:
            StoreError: If there is no store, or one of its files cannot be read.
            InputError: If an argument cannot be used, or *as_stored_on* is in the future or before the store's history.
        """
        zone = None if tz is None else parse_zone(tz)
        opened = open_query(
            self.bars,
            symbols,
            start,
            end,
            ReadOptions(
                index=index,
                as_of=as_of,
                convention=convention,
                prices=prices,
                unadjustable=unadjustable,
                timeframe=timeframe,
                feed=feed,
                adjustment=adjustment,
                columns=columns,
                session=session,
                resample=resample,
                incomplete=incomplete,
                final=final,
                source=source,
                conflicting=conflicting,
                fill=fill,
                as_stored_on=as_stored_on,
            ),
        )
        query, holdings = opened.query, opened.holdings
        record = FrameRecord(query, opened.held, opened.now)
        rows = holdings.rows(query)
        frame = to_frame(whole_symbols(opened.bars, query, record, holdings.files), query.columns, zone, rows=rows)
        identity = frame_identity(replace(query.dataset, adjustment=query.adjustment), computed=query.computed)
        more = {
            **({"prices": query.prices} if query.prices else {}),
            **({"as_stored_on": iso(opened.now)} if as_stored_on else {}),
        }
        frame.attrs[ATTRS_KEY] = {**identity, **more, **record.metadata()}
        frame.attrs[ATTRS_KEY]["conflicting"] = sum(map(len, query.conflicts.values()))
        return frame

    def sessions(
        self,
        symbols: str | Iterable[str] | None = None,
        start: DateLike | None = None,
        end: DateLike | None = None,
        *,
        index: str | None = None,
        timeframe: object = "1Min",
        feed: object = None,
        adjustment: object = None,
        as_stored_on: DateLike | None = None,
    ) -> pd.DataFrame:
        """Return what the store knows of each session: one row per symbol and session that has begun.

        Args:
            symbols: One symbol or several. If None, all members of *index*.
            start: A New York calendar day, or an aware instant.
            end: A day (included) or an aware instant (excluded). If None, now.
            index: The name of a stored index: each symbol has the sessions of its membership.
            timeframe: The timeframe of the stored bars.
            feed: The feed of the bars. If None, the consolidated tape.
            adjustment: The adjustment of the stored bars. If None, raw.
            as_stored_on: As for `load`.

        Returns:
            The columns ``symbol``, ``session`` (the day in New York), ``state``, ``bars`` (their number) and ``answered``,
            sorted by the first two. ``answered`` is when the coverage of the series was last written: the session was answered
            then or before. Before the first bar, where Alpaca is asked once more, it is when the response came. It is NaT if the
            session is missing or unverified. A state is ``final``, ``provisional`` (Alpaca may still revise it), ``missing``
            (at least in part), ``suspect`` (answered, with far fewer bars than the sessions around it) or ``unverified`` (stored
            without coverage). Sessions after the end of a security have no row.

        Raises:
            StoreError: If there is no store, or one of its files cannot be read.
            InputError: If an argument cannot be used.
        """
        bars = stored_on(self.bars, as_stored_on, now=datetime.now(UTC))
        options = ReadOptions(index=index, timeframe=timeframe, feed=feed, adjustment=adjustment)
        query, now = parse_call(bars, symbols, start, end, options)
        held = Holdings(bars).of(replace(query, open_end=False), now)
        return session_frame(bars, query, held, now)

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
        opened = open_query(self.bars, symbols, start, end, options, only_bars=True)
        return in_arrow(whole_symbols(opened.bars, opened.query), opened.query)

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
        opened = open_query(self.bars, symbols, start, end, options, only_bars=True)
        frame = pl.from_arrow(in_arrow(whole_symbols(opened.bars, opened.query), opened.query))
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

        opened = open_query(self.bars, symbols, start, end, options, only_bars=True)
        return relation(opened.bars, opened.query, duckdb.default_connection() if connection is None else connection)

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
        opened = open_query(self.bars, symbols, start, end, options, only_bars=True)
        return ((symbol, named_table(symbol, table)) for symbol, table in batches(opened.bars, opened.query))
