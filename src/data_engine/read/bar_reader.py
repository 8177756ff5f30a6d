"""Parse a request for stored bars, and read it as whole symbols, batches, an Arrow table or a DuckDB relation.

Every form of the result comes from the same `BarQuery` and the same `steps`, so the forms cannot differ.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import numpy as np
import pyarrow as pa

from data_engine.corporate_actions.adjusted_bars import dataset_to_read
from data_engine.corporate_actions.adjustment import CONVENTIONS, PREVIOUS_CLOSE
from data_engine.cpu import count
from data_engine.errors import InputError
from data_engine.market.bars import BAR_SCHEMA, VALUES, timestamps_us, to_micros
from data_engine.market.dates import DateLike, parse_day, parse_span
from data_engine.market.resampling import Resampling, resample
from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.session_hours import Hours, in_hours
from data_engine.market.symbol import check_symbol
from data_engine.market.time_range import TimeRange, new_york_date, new_york_midnight
from data_engine.read.duckdb_views import select
from data_engine.store.bar_store import BarStore
from data_engine.store.partitions import Partition, Period
from data_engine.universe.membership import keep_members

if TYPE_CHECKING:
    import duckdb


_CORES = count()

_REQUESTS = 8  # concurrent requests to a bucket; a thread waits for each

_AHEAD = 8  # files that are read ahead if the whole result is needed

_AHEAD_OF_BATCHES = 2  # ... and if batches are needed, since the result may not fit in memory

_DAY = timedelta(days=1)

_SYMBOL = pa.field("symbol", pa.string(), nullable=False)

SessionName = Literal["all", "regular", "extended"]

Incomplete = Literal["warn", "raise", "ignore"]

Step = Callable[[str, pa.Table], pa.Table]
"""A change of a symbol's bars: the symbol and its bars (by time; ``timestamp`` and `BarQuery.needed`) in, bars out.

It must give the same for New York days one by one as for all of them at once, since batches are cut at midnight.
"""


class ReadOptions(TypedDict, total=False):
    """The keyword arguments that all ways of reading share; `ParquetStorage.load` documents them and their defaults."""

    index: str | None
    as_of: date | str | None
    convention: str
    timeframe: object
    feed: object
    adjustment: object
    columns: Sequence[str] | None
    session: SessionName | None
    resample: object
    incomplete: Incomplete


@dataclass(frozen=True, slots=True)
class BarQuery:
    """A request for stored bars, parsed.

    Attributes:
        symbols: The symbols, sorted, as in the result.
        dataset: The dataset to read.
        adjustment: The adjustment of the result; it differs from the dataset's if raw bars are adjusted as they are read.
        span: The range in which the bars of the result start.
        before: The instant before which they start; earlier than the end of *span* if a computed bar has not ended yet.
        columns: The columns of the result, beside symbol and timestamp.
        hours: The hours of the day.
        resampling: The bars to compute from the stored ones. If None, stored bars are returned.
        incomplete: What to do about a missing range.
        index: The index whose members are requested. If None, symbols are.
        members: The ranges in which each symbol was a member of the index. Its other bars are not in the result.
        as_of: The last day whose corporate actions count. If None, Alpaca's adjusted bars if they are stored, else today.
        convention: The convention by which a dividend is measured.
        adjust: The step that applies corporate actions to raw bars. If None, prices are as stored.
    """

    symbols: tuple[str, ...]
    dataset: Dataset
    adjustment: Adjustment
    span: TimeRange
    before: datetime
    columns: tuple[str, ...]
    hours: Hours
    resampling: Resampling | None
    incomplete: str
    index: str | None
    members: Mapping[str, Sequence[TimeRange]]
    as_of: date | None
    convention: str
    adjust: Step | None = field(default=None, compare=False)

    @classmethod
    def parse(
        cls,
        symbols: str | Iterable[str],
        start: DateLike,
        end: DateLike | None,
        *,
        now: datetime,
        members: Mapping[str, Sequence[TimeRange]] | None = None,
        **options: Unpack[ReadOptions],
    ) -> BarQuery:
        """Parse a user's arguments.

        Args:
            symbols: One symbol or several.
            start: A New York day or an aware instant.
            end: A New York day (included) or an aware instant (excluded). If None, *now*.
            now: The current instant, aware.
            members: The ranges of membership by symbol, if an index is given; other symbols are left out.
            **options: The arguments of `ParquetStorage.load`.

        Raises:
            InputError: If an argument cannot be used.
        """
        timeframe = Timeframe.parse(options.get("timeframe", "1Min"))
        dataset = Dataset(timeframe, Adjustment.parse(options.get("adjustment")), Feed.parse(options.get("feed")))
        span = parse_span(start, end, now=now).range
        hours, resampling = _parse_hours(options.get("session"), options.get("resample"), timeframe)
        return cls(
            symbols=_parse_symbols(symbols, members),
            dataset=dataset,
            adjustment=dataset.adjustment,
            span=span,
            before=span.end if resampling is None else min(span.end, resampling.before_forming(now)),
            columns=_parse_columns(options.get("columns")),
            hours=hours,
            resampling=resampling,
            incomplete=_parse_choice("incomplete", options.get("incomplete", "warn"), ("warn", "raise", "ignore")),
            index=options.get("index"),
            members=members or {},
            as_of=_parse_as_of(options.get("as_of"), dataset.adjustment),
            convention=_parse_choice("convention", options.get("convention", PREVIOUS_CLOSE), CONVENTIONS),
        )

    @property
    def series(self) -> tuple[Series, ...]:
        """The series to read, by symbol."""
        return tuple(Series(symbol, self.dataset) for symbol in self.symbols)

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns to read: those of the result, and what they are computed from."""
        return self.columns if self.resampling is None else self.resampling.needs(self.columns)

    @property
    def computed(self) -> str | None:
        """A description of bars that are not stored as Alpaca sent them, or None."""
        words = []
        if self.resampling is not None:
            words.append(f"{self.resampling} bars of {self.hours.value} sessions from {self.dataset.timeframe} bars")
        if self.adjust is not None:
            words.append(f"adjusted ({self.adjustment}) as of {self.as_of}")
        return ", ".join(words) or None

    @property
    def reach(self) -> TimeRange:
        """The range to read: the span, and what the last computed bar needs beyond it."""
        if self.resampling is None:
            return self.span
        return TimeRange(self.span.start, max(self.span.end, self.resampling.end_before(self.before)))


def _parse_symbols(symbols: object, members: Iterable[str] | None) -> tuple[str, ...]:
    if not isinstance(symbols, Iterable):
        raise InputError(f"symbols must be text or several texts, not {symbols!r}")
    names = {check_symbol(name) for name in ([symbols] if isinstance(symbols, str) else symbols)}
    return tuple(sorted(names if members is None else names.intersection(members)))


def _parse_hours(session: object, computed: object, timeframe: Timeframe) -> tuple[Hours, Resampling | None]:
    if session is None:
        session = "all" if computed is None else "regular"
    hours = Hours.parse(session)
    resampling = None if computed is None else Resampling.parse(computed, hours, timeframe)
    if hours is not Hours.ALL and not timeframe.intraday:
        raise InputError(f"session={hours.value!r} has no effect on {timeframe} bars; use session='all' or an intraday timeframe")
    return hours, resampling


def _parse_columns(columns: Sequence[str] | None) -> tuple[str, ...]:
    if columns is None:
        return VALUES
    if isinstance(columns, str) or not set(columns) <= set(VALUES):
        raise InputError(f"columns={columns!r} are not all known; choose from {', '.join(VALUES)}")
    return tuple(dict.fromkeys(columns))


def _parse_choice(name: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise InputError(f"{name}={value!r} does not exist; choose one of {', '.join(choices)}")
    return value


def _parse_as_of(value: date | str | None, adjustment: Adjustment) -> date | None:
    day = None if value is None else parse_day(value, "as_of")
    if day is not None and adjustment.is_raw:
        raise InputError(f"as_of={value!r} has no effect on raw bars; add adjustment='split', 'dividend', 'spin-off' or 'all'")
    return day


def adjusted(store: BarStore, query: BarQuery, *, now: datetime) -> BarQuery:
    """Return the query for Alpaca's adjusted dataset, or for the raw dataset with the step that adjusts it.

    Args:
        store: The store of the bars and the corporate actions.
        query: The query as parsed.
        now: The current instant, aware.

    Raises:
        InputError: If *as_of* lies in the future, or bars of this dataset cannot be adjusted.
    """
    dataset, step = dataset_to_read(store, query.dataset, query.as_of, now=now, convention=query.convention)
    if step is None:
        return query
    return replace(query, dataset=dataset, as_of=query.as_of or new_york_date(now), adjust=step)


def steps(query: BarQuery) -> tuple[Step, ...]:
    """Return the steps from a symbol's stored bars to the result, in order."""
    hours, resampling = query.hours, query.resampling
    made: list[Step] = []
    if hours is not Hours.ALL:
        made.append(lambda _, table: in_hours(table, hours))
    if query.adjust is not None:
        made.append(query.adjust)  # before resampling: a computed bar may lie on both sides of an event
    if resampling is not None:
        made.append(lambda _, table: resample(table, resampling))
        made.append(lambda _, table: _between(table, query.span.start, query.before))
    if query.index is not None:
        made.append(keep_members(query.members))
    if query.needed != query.columns:
        made.append(lambda _, table: table.select(["timestamp", *query.columns]))
    return tuple(made)


def whole_symbols(store: BarStore, query: BarQuery) -> Iterator[tuple[str, pa.Table]]:
    """Yield each symbol and all its bars, by symbol; a symbol without a file is left out.

    Raises:
        DamagedFile: If a file cannot be read as bars.
    """
    through = steps(query)
    for symbol, files in groupby(_files(store, query, _AHEAD), key=itemgetter(0)):
        yield symbol, _apply(through, symbol, pa.concat_tables([table for _, _, table in files]))


def batches(store: BarStore, query: BarQuery) -> Iterator[tuple[str, pa.Table]]:
    """Yield a symbol and some of its bars, by symbol and time, about a file at a time, never none; few are in memory at once.

    Raises:
        DamagedFile: If a file cannot be read as bars.
    """
    through = steps(query)
    for symbol, files in groupby(_files(store, query, _AHEAD_OF_BATCHES), key=itemgetter(0)):
        for table in _cut_at_midnight(files):
            if table.num_rows and (batch := _apply(through, symbol, table)).num_rows:
                yield symbol, batch


def _cut_at_midnight(files: Iterable[tuple[str, Period, pa.Table]]) -> Iterator[pa.Table]:
    """Yield the bars of a symbol's files, cut at midnight in New York, so that a session is never in two tables.

    Files end at midnight UTC, which is in the evening in New York.
    """
    rest: list[pa.Table] = []
    for _, period, table in files:
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
    if folder is not None and not steps(query):
        keys = [Partition(series, period).key for series, period in _stored_files(store, query)]
        if keys:
            # DuckDB may take a part of the path for a partition, or fail to open the first file: the stream reads it or says why.
            with suppress(InputError, duckdb.Error):
                columns = ("symbol", "timestamp", *query.columns)
                return connection.sql(select(query.dataset, folder, keys, query.span, columns))
    return connection.from_arrow(Stream(store, query))


def _stored_files(store: BarStore, query: BarQuery) -> Iterator[tuple[Series, Period]]:
    reach = query.reach
    return ((series, period) for series in query.series for period in store.periods(series, reach))


def _files(store: BarStore, query: BarQuery, ahead: int) -> Iterator[tuple[str, Period, pa.Table]]:
    """Yield the needed bars of each file, by symbol and time; threads read up to *ahead* files in advance."""
    reach = query.reach
    columns = ["timestamp", *query.needed]

    def read(series: Series, period: Period, *, threads: bool = False) -> tuple[str, Period, pa.Table]:
        # A file inside the range need not be cut, and its statistics not be read.
        within = None if reach.start <= period.span.start and period.span.end <= reach.end else reach
        return series.symbol, period, store.read(series, period, columns, within=within, threads=threads)

    stored = _stored_files(store, query)
    first = list(islice(stored, 3))
    if len(first) < 3:
        yield from (read(*file, threads=True) for file in first)
        return
    waiting: deque[Future[tuple[str, Period, pa.Table]]] = deque()
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
