"""Read a request for stored bars as whole symbols, batches, an Arrow table or a DuckDB relation.

Every form of the result comes from the same `BarQuery` and the same `steps`, so the forms cannot differ.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from data_engine.cpu import count
from data_engine.errors import InputError
from data_engine.market.bars import BAR_SCHEMA, timestamps_us, to_micros
from data_engine.market.resampling import resample
from data_engine.market.series import Series
from data_engine.market.session_hours import Hours, in_hours
from data_engine.market.time_range import TimeRange, new_york_date, new_york_midnight
from data_engine.read.bar_query import BarQuery, Step
from data_engine.read.duckdb_views import select
from data_engine.read.fill_bars import joined
from data_engine.store.bar_store import BarStore
from data_engine.store.conflicts import with_theirs
from data_engine.store.filled import Filled
from data_engine.store.live_fills import fill_of
from data_engine.store.partitions import Partition, Period, periods
from data_engine.universe.membership import keep_members

if TYPE_CHECKING:
    import duckdb


_CORES = count()

_REQUESTS = 8  # concurrent requests to a bucket; a thread waits for each

_AHEAD = 8  # files that are read ahead if the whole result is needed

_AHEAD_OF_BATCHES = 2  # ... and if batches are needed, since the result may not fit in memory

_DAY = timedelta(days=1)

_SYMBOL = pa.field("symbol", pa.string(), nullable=False)


def steps(query: BarQuery) -> tuple[Step, ...]:
    """Return the steps from a symbol's stored bars to the result, in order."""
    hours, resampling = query.hours, query.resampling
    made: list[Step] = []
    if query.conflicts and query.conflicting == "vendor":
        conflicts, columns = query.conflicts, query.needed
        made.append(lambda symbol, table: with_theirs(table, conflicts.get(symbol, ()), columns))
    if hours is not Hours.ALL:
        made.append(lambda _, table: in_hours(table, hours))
    if query.adjust is not None:
        made.append(query.adjust)  # before resampling: a computed bar may lie on both sides of an event
    if resampling is not None:
        made.append(lambda _, table: resample(table, resampling))
        made.append(lambda _, table: _between(table, query.span.start, query.before))
    if any(query.left_out.values()):
        made.append(_leave_out(query))
    if query.index is not None:
        made.append(keep_members(query.members))
    if query.needed != query.columns:
        made.append(lambda _, table: table.select(["timestamp", *query.columns]))
    return tuple(made)


def _leave_out(query: BarQuery) -> Step:
    """Return the step that leaves out bars that start in some ranges, or are computed from minutes of them."""
    bars = query.resampling

    def step(symbol: str, table: pa.Table) -> pa.Table:
        for span in query.left_out.get(symbol, ()):
            start = span.start if bars is None else bars.first_touched(span.start)
            first, stop = np.searchsorted(timestamps_us(table), [to_micros(start), to_micros(span.end)])
            if first < stop:
                table = pa.concat_tables([table.slice(0, int(first)), table.slice(int(stop))])
        return table

    return step


class Watch:
    """What is told of the files and bars that are read. This one ignores it."""

    def file(self, key: str, content: bytes) -> None:
        """Take the content of a file, in any thread."""

    def symbol(self, symbol: str, table: pa.Table) -> None:
        """Take all stored bars of a symbol inside the range, as they are read: no step has changed them, none was filled in."""

    def filled(self, symbol: str, used: Sequence[tuple[Filled, int]]) -> None:
        """Take the ranges of a symbol into which bars of other sources were joined, and their numbers."""


Files = Callable[[Series, TimeRange], Iterable[Period]]
"""A function that finds the files of a series that a range touches."""


def whole_symbols(
    store: BarStore, query: BarQuery, watch: Watch | None = None, files: Files | None = None
) -> Iterator[tuple[str, pa.Table]]:
    """Yield each symbol and all its bars, by symbol; a symbol without a file is left out.

    Args:
        store: The store of the bars.
        query: The request.
        watch: What is told of the files and bars that are read.
        files: What finds the files. If None, the store is searched.

    Raises:
        DamagedFile: If a file cannot be read as bars.
    """
    through = steps(query)
    for symbol, parts in groupby(_files(store, query, _AHEAD, watch, files), key=attrgetter("symbol")):
        read = list(parts)
        stored = pa.concat_tables([part.table for part in read])
        if watch is not None:
            watch.symbol(symbol, stored)
        if fill := [part.fill for part in read if part.fill is not None]:
            stored, used = joined(stored, pa.concat_tables(fill), query.fills[symbol])
            if watch is not None:
                watch.filled(symbol, used)
        yield symbol, _apply(through, symbol, stored)


def batches(store: BarStore, query: BarQuery) -> Iterator[tuple[str, pa.Table]]:
    """Yield a symbol and some of its bars, by symbol and time, about a file at a time, never none; few are in memory at once.

    Raises:
        DamagedFile: If a file cannot be read as bars.
    """
    through = steps(query)
    for symbol, files in groupby(_files(store, query, _AHEAD_OF_BATCHES), key=attrgetter("symbol")):
        for table in _cut_at_midnight((part.period, _filled(part, query)) for part in files):
            if table.num_rows and (batch := _apply(through, symbol, table)).num_rows:
                yield symbol, batch


def _filled(part: _FileBars, query: BarQuery) -> pa.Table:
    """Return the bars of a file, with those of other sources that are joined."""
    return part.table if part.fill is None else joined(part.table, part.fill, query.fills[part.symbol])[0]


def _cut_at_midnight(files: Iterable[tuple[Period, pa.Table]]) -> Iterator[pa.Table]:
    """Yield the bars of a symbol's files, cut at midnight in New York, so that a session is never in two tables.

    Files end at midnight UTC, which is in the evening in New York.
    """
    rest: list[pa.Table] = []
    for period, table in files:
        midnight = new_york_midnight(new_york_date(period.start) + _DAY)
        at = int(np.searchsorted(timestamps_us(table), to_micros(midnight)))
        yield pa.concat_tables([*rest, table.slice(0, at)])
        rest = [table.slice(at)]
    yield from rest


def in_arrow(tables: Iterable[tuple[str, pa.Table]], query: BarQuery) -> pa.Table:
    """Return bars as one table: ``symbol`` (text), ``timestamp`` (microseconds, UTC) and the columns of the query."""
    return pa.concat_tables([schema_of(query).empty_table(), *(named_table(symbol, table) for symbol, table in tables)])


def schema_of(query: BarQuery) -> pa.Schema:
    """Return the schema of a result."""
    return pa.schema([_SYMBOL, *(BAR_SCHEMA.field(name) for name in ("timestamp", *query.columns))])


def named_table(symbol: str, table: pa.Table) -> pa.Table:
    """Return a table of bars with its symbol as the first column."""
    text = symbol.encode()
    offsets = np.arange(table.num_rows + 1, dtype=np.int32) * np.int32(len(text))
    names = pa.StringArray.from_buffers(table.num_rows, pa.py_buffer(offsets), pa.py_buffer(text * table.num_rows))
    return pa.Table.from_arrays([names, *table.columns], schema=pa.schema([_SYMBOL, *table.schema]))


class Stream:
    """A result that DuckDB (and any reader of Arrow's C stream) reads batch by batch, from the files again on each execution."""

    def __init__(self, store: BarStore, query: BarQuery) -> None:
        self._store, self._query = store, query

    def __arrow_c_schema__(self) -> object:
        return schema_of(self._query).__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        tables = batches(self._store, self._query)
        made = chain.from_iterable(named_table(symbol, table).to_batches() for symbol, table in tables)
        return pa.RecordBatchReader.from_batches(schema_of(self._query), made).__arrow_c_stream__(requested_schema)


def relation(store: BarStore, query: BarQuery, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    """Return a result as a relation of a connection; bars are read on each execution.

    DuckDB itself reads bars that a folder stores and no step changes: only the columns that the SQL uses, on all cores. Other
    bars reach it as a stream.
    """
    import duckdb

    folder = store.files.folder
    if folder is not None and not steps(query) and not query.fills:
        keys = [Partition(series, period).key for series, period in _stored_files(store, query)]
        if keys:
            # DuckDB may take a part of the path for a partition, or fail to open the first file: the stream reads it or says why.
            with suppress(InputError, duckdb.Error):
                columns = ("symbol", "timestamp", *query.columns)
                return connection.sql(select(query.dataset, folder, keys, query.span, columns))
    return connection.from_arrow(Stream(store, query))


def _stored_files(store: BarStore, query: BarQuery, files: Files | None = None) -> Iterator[tuple[Series, Period]]:
    reach, found = query.reach, files or store.periods
    for series in query.series:
        there = found(series, reach)
        for period in sorted({*there, *_filled_periods(query, series)}) if series.symbol in query.fills else there:
            yield series, period


def _filled_periods(query: BarQuery, series: Series) -> Iterator[Period]:
    """Yield the files that have bars of other sources inside the range to read; Alpaca may have no bar in such a month."""
    shared = (part for one in query.fills[series.symbol] if (part := one.range.intersect(query.reach)))
    return (period for part in shared for period in periods(part, series.dataset))


class _FileBars(NamedTuple):
    """The needed bars of one file of a symbol, and those of other sources for the same period, if they are joined."""

    symbol: str
    period: Period
    table: pa.Table
    fill: pa.Table | None


def _files(
    store: BarStore, query: BarQuery, ahead: int, watch: Watch | None = None, files: Files | None = None
) -> Iterator[_FileBars]:
    """Yield the needed bars of each file, by symbol and time; threads read up to *ahead* files in advance."""
    reach = query.reach
    columns = ["timestamp", *query.needed]

    def read(series: Series, period: Period, *, threads: bool = False) -> _FileBars:
        # A file inside the range need not be cut, and its statistics not be read.
        within = None if reach.start <= period.span.start and period.span.end <= reach.end else reach
        seen = None if watch is None else watch.file
        bars = partial(store.read, period=period, columns=columns, within=within, threads=threads, seen=seen)
        return _FileBars(series.symbol, period, bars(series), bars(fill_of(series)) if series.symbol in query.fills else None)

    stored = _stored_files(store, query, files)
    first = list(islice(stored, 3))
    if len(first) < 3:
        yield from (read(*file, threads=True) for file in first)
        return
    waiting: deque[Future[_FileBars]] = deque()
    with ThreadPoolExecutor(_REQUESTS if store.files.folder is None else _CORES) as pool:
        try:
            for file in chain(first, stored):
                waiting.append(pool.submit(read, *file))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # the caller has closed the generator, or a file failed
                future.cancel()


def _apply(through: Sequence[Step], symbol: str, table: pa.Table) -> pa.Table:
    for step in through:
        table = step(symbol, table)
    return table


def _between(table: pa.Table, start: datetime, end: datetime) -> pa.Table:
    first, stop = np.searchsorted(timestamps_us(table), [to_micros(start), to_micros(end)])
    return table.slice(int(first), max(0, int(stop - first)))
