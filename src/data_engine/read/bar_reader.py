"""What is wanted of a store's bars, as a value, and the walks that bring it: whole symbols, pieces, Arrow, a DuckDB relation.

Every form of an answer comes of the same `BarQuery` and passes the same `steps`, so they cannot differ.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import chain, groupby, islice
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np
import pyarrow as pa

from data_engine.corporate_actions.adjusted_bars import reading_of
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

_LINES = 8  # requests at once to a bucket, whose answers are waited for

_AHEAD = 8  # files read before they are asked for, where the answer is wanted whole

_AHEAD_OF_PIECES = 2  # ... and where it is wanted in pieces, since it may not fit memory

_DAY = timedelta(days=1)

SessionName = Literal["all", "regular", "extended"]

Incomplete = Literal["warn", "raise", "ignore"]

Step = Callable[[str, pa.Table], pa.Table]
"""What a symbol's table passes on its way: the symbol and its bars (by time; ``timestamp`` and `BarQuery.needed`) in, bars out.

It must give the same for whole days of New York one by one as for all at once: pieces are cut at midnights.
"""


class ReadOptions(TypedDict, total=False):
    """The arguments, by keyword, that all ways of reading share; `ParquetStorage.load` says what they mean."""

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
    """What is wanted.

    Attributes:
        series: whose bars, in the order of the answer: by symbol.
        dataset: all of theirs.
        adjustment: of the answer; another than the dataset's where raw bars are adjusted here.
        span: the bars of the answer start inside it.
        before: the bars of the answer start before it; earlier than the span's end where a computed bar is still under way.
        columns: of the answer, beside symbol and timestamp.
        hours: of the day.
        resampling: which bars are computed of those that are stored; None is none.
        incomplete: what to do about a range that is not held whole.
        index: whose members are wanted; None where symbols are.
        members: of the index: by symbol, the ranges in which it was one. Its other bars are not in the answer.
        as_of: the last day whose corporate actions count; None is the vendor's own adjustment where it is held, else today.
        convention: what payouts are measured by.
        adjust: works the actions into raw bars; None where bars are as stored.
    """

    series: tuple[Series, ...]
    dataset: Dataset
    adjustment: Adjustment
    span: TimeRange
    before: datetime
    columns: tuple[str, ...]
    hours: Hours
    resampling: Resampling | None
    incomplete: Incomplete
    index: str | None = None
    members: Mapping[str, Sequence[TimeRange]] = field(default_factory=dict)
    as_of: date | None = None
    convention: str = PREVIOUS_CLOSE
    adjust: Step | None = field(default=None, compare=False)

    @classmethod
    def parse(
        cls,
        symbols: str | Iterable[str],
        start: DateLike,
        end: DateLike | None,
        *,
        now: datetime,
        timeframe: object = "1Min",
        feed: object = None,
        adjustment: object = None,
        columns: Sequence[str] | None = None,
        session: SessionName | None = None,
        resample: object = None,
        incomplete: Incomplete = "warn",
        index: str | None = None,
        members: Mapping[str, Sequence[TimeRange]] | None = None,
        as_of: date | str | None = None,
        convention: str = PREVIOUS_CLOSE,
    ) -> BarQuery:
        """Read people's arguments; `ParquetStorage.load` says what they mean.

        Args:
            symbols: one or several.
            start: a day or an instant.
            end: a day (included) or an instant (excluded); None is *now*.
            now: an aware instant.
            timeframe: of the stored bars.
            feed: of the stored bars.
            adjustment: of the stored bars.
            columns: of the answer.
            session: hours; None is all, and regular where bars are computed.
            resample: which bars to compute.
            incomplete: warn, raise or ignore.
            index: whose members are wanted; other symbols are left out.
            members: of the index: who was in it when.
            as_of: the last day whose corporate actions count; goes with an adjustment.
            convention: of `data_engine.corporate_actions.adjustment.CONVENTIONS`.

        Raises:
            InputError: an argument cannot be used.
        """
        if not isinstance(symbols, Iterable):
            raise InputError(f"symbols are text, one or several, was {symbols!r}")
        names = [symbols] if isinstance(symbols, str) else list(symbols)
        dataset = Dataset(Timeframe.parse(timeframe), Adjustment.parse(adjustment), Feed.parse(feed))
        span = parse_span(start, end, now=now).range
        chosen = {check_symbol(name) for name in names}
        if index is not None:
            chosen &= set(members or ())
        if incomplete not in ("warn", "raise", "ignore"):
            raise InputError(f"incomplete={incomplete!r} is not one of warn, raise, ignore")
        hours = Hours.parse(session if session is not None else "all" if resample is None else "regular")
        computed = None if resample is None else Resampling.parse(resample, hours, dataset.timeframe)
        if hours is not Hours.ALL and not dataset.timeframe.intraday:
            raise InputError(
                f"session={hours.value!r} chooses among the bars of a day; {dataset.timeframe} bars have none of their own"
            )
        day = None if as_of is None else parse_day(as_of, "as_of")
        if day is not None and dataset.adjustment.is_raw:
            raise InputError(f"as_of={as_of!r} goes with an adjustment (split, dividend, spin-off, all): raw bars never change")
        if convention not in CONVENTIONS:
            raise InputError(f"convention {convention!r} is not one of {', '.join(CONVENTIONS)}")
        return cls(
            tuple(Series(name, dataset) for name in sorted(chosen)),
            dataset,
            dataset.adjustment,
            span,
            span.end if computed is None else min(span.end, computed.before_forming(now)),
            VALUES if columns is None else _chosen(columns),
            hours,
            computed,
            incomplete,
            index,
            members or {},
            day,
            convention,
        )

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that are read: those of the answer, and what they are computed from."""
        return self.columns if self.resampling is None else self.resampling.needs(self.columns)

    @property
    def computed(self) -> str | None:
        """What the answer is, in words, where it is not bars of the vendor's; else None."""
        words = []
        if self.resampling is not None:
            words.append(f"{self.resampling} bars of {self.hours.value} sessions from {self.dataset.timeframe} bars")
        if self.adjust is not None:
            words.append(f"adjusted ({self.adjustment}) as of {self.as_of}")
        return ", ".join(words) or None

    @property
    def reach(self) -> TimeRange:
        """The range that is read: the span, and for computed bars what the last of them needs beyond it."""
        if self.resampling is None:
            return self.span
        return TimeRange(self.span.start, max(self.span.end, self.resampling.end_before(self.before)))


def adjusted(store: BarStore, reading: BarQuery, *, now: datetime) -> BarQuery:
    """Return the reading of the dataset that answers it: the vendor's adjusted one, or the raw one and the step that adjusts it.

    Args:
        store: of the bars and of the corporate actions.
        reading: as it was asked for.
        now: the current instant.

    Raises:
        InputError: its day lies in the future, or bars of its dataset cannot be adjusted.
    """
    dataset, step = reading_of(store, reading.dataset, reading.as_of, now=now, convention=reading.convention)
    if step is None:
        return reading
    series = tuple(Series(one.symbol, dataset) for one in reading.series)
    return replace(reading, series=series, dataset=dataset, as_of=reading.as_of or new_york_date(now), adjust=step)


def steps(reading: BarQuery) -> tuple[Step, ...]:
    """Return what a symbol's table passes on its way, in this order."""
    hours, computed = reading.hours, reading.resampling
    made: list[Step] = []
    if hours is not Hours.ALL:
        made.append(lambda _, table: in_hours(table, hours))
    if reading.adjust is not None:
        made.append(reading.adjust)  # before one bar is made of several, which may lie on both sides of an event
    if computed is not None:
        made.append(lambda _, table: resample(table, computed))
        made.append(lambda _, table: _between(table, reading.span.start, reading.before))
    if reading.index is not None:
        made.append(keep_members(reading.members))
    if reading.needed != reading.columns:
        made.append(lambda _, table: table.select(["timestamp", *reading.columns]))
    return tuple(made)


def whole_symbols(store: BarStore, reading: BarQuery) -> Iterator[tuple[str, pa.Table]]:
    """Yield the answer, a symbol at a time and each whole; a symbol without a file is left out.

    Raises:
        DamagedFile: a file cannot be read as bars.
    """
    passed = steps(reading)
    for symbol, parts in groupby(_files(store, reading, _AHEAD), key=lambda part: part[0]):
        yield symbol, _passed(passed, symbol, pa.concat_tables([table for _, _, table in parts]))


def batches(store: BarStore, reading: BarQuery) -> Iterator[tuple[str, pa.Table]]:
    """Yield the answer by symbol and time in pieces of about a file each, without empty ones; few are in memory at once.

    Files end at midnight UTC, in the middle of a winter evening in New York; pieces end at midnight in New York, so that a
    session is never in two of them.
    """
    passed = steps(reading)
    for symbol, parts in groupby(_files(store, reading, _AHEAD_OF_PIECES), key=lambda part: part[0]):
        kept = None
        for _, period, table in parts:
            morning = new_york_midnight(new_york_date(period.start) + _DAY)
            at = int(np.searchsorted(timestamps_us(table), to_micros(morning)))
            evening = table.slice(0, at)
            whole = evening if kept is None else pa.concat_tables([kept, evening])
            kept = table.slice(at)
            if whole.num_rows and (piece := _passed(passed, symbol, whole)).num_rows:
                yield symbol, piece
        if kept is not None and kept.num_rows and (piece := _passed(passed, symbol, kept)).num_rows:
            yield symbol, piece


def in_arrow(parts: Iterable[tuple[str, pa.Table]], reading: BarQuery) -> pa.Table:
    """Return parts of an answer as one table: ``symbol`` (text), ``timestamp`` (microseconds, UTC) and the columns chosen."""
    named = [named_table(symbol, table) for symbol, table in parts]
    return pa.concat_tables(named) if named else schema_of(reading).empty_table()


def schema_of(reading: BarQuery) -> pa.Schema:
    """Return the schema of an answer."""
    return pa.schema([_SYMBOL, *(BAR_SCHEMA.field(name) for name in ("timestamp", *reading.columns))])


_SYMBOL = pa.field("symbol", pa.string(), nullable=False)


def named_table(symbol: str, table: pa.Table) -> pa.Table:
    """Return a table of bars with a column of its symbol in front."""
    text = symbol.encode()
    offsets = np.arange(table.num_rows + 1, dtype=np.int32) * np.int32(len(text))
    names = pa.StringArray.from_buffers(table.num_rows, pa.py_buffer(offsets), pa.py_buffer(text * table.num_rows))
    return pa.Table.from_arrays([names, *table.columns], schema=pa.schema([_SYMBOL, *table.schema]))


class Stream:
    """An answer that DuckDB (and whatever knows Arrow's C stream) reads piece by piece, from the files anew each time."""

    def __init__(self, store: BarStore, reading: BarQuery) -> None:
        self._store, self._reading = store, reading

    def __arrow_c_schema__(self) -> object:
        return schema_of(self._reading).__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        parts = batches(self._store, self._reading)
        made = chain.from_iterable(named_table(symbol, table).to_batches() for symbol, table in parts)
        return pa.RecordBatchReader.from_batches(schema_of(self._reading), made).__arrow_c_stream__(requested_schema)


def relation(store: BarStore, reading: BarQuery, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    """Return an answer as a relation of a connection; no bar is read before the relation is asked for some.

    Bars as they are stored, in a folder, DuckDB reads from the files itself: the columns that a query uses, on all cores.
    What passes steps reaches it as a stream.
    """
    import duckdb

    folder = store.files.folder
    if folder is not None and not steps(reading):
        parts = (Partition(one, period).key for one in reading.series for period in store.periods(one, reading.reach))
        if keys := list(parts):
            # A path that it takes for a partition, or a first file that it cannot open: the stream can, or says why when asked.
            with suppress(InputError, duckdb.Error):
                columns = ("symbol", "timestamp", *reading.columns)
                return connection.sql(select(reading.dataset, folder, keys, reading.span, columns))
    return connection.from_arrow(Stream(store, reading))


def _files(store: BarStore, reading: BarQuery, ahead: int) -> Iterator[tuple[str, Period, pa.Table]]:
    """Yield what is needed of each file, in order of symbol and time; *ahead* of them are read beforehand, in threads."""
    reach = reading.reach
    columns = ["timestamp", *reading.needed]

    def read(one: Series, period: Period, *, threads: bool = False) -> tuple[str, Period, pa.Table]:
        # A file that lies in the range whole need not be cut, nor its statistics be looked at.
        cut = None if reach.start <= period.span.start and period.span.end <= reach.end else reach
        return one.symbol, period, store.read(one, period, columns, within=cut, threads=threads)

    jobs = ((one, period) for one in reading.series for period in store.periods(one, reach))
    first = list(islice(jobs, 3))
    if len(first) < 3:
        for job in first:
            yield read(*job, threads=True)
        return
    waiting: deque[Future[tuple[str, Period, pa.Table]]] = deque()
    with ThreadPoolExecutor(_LINES if store.files.folder is None else _CORES) as pool:
        try:
            for job in chain(first, jobs):
                waiting.append(pool.submit(read, *job))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # nobody wants the rest
                future.cancel()


def _passed(passed: Sequence[Step], symbol: str, table: pa.Table) -> pa.Table:
    for step in passed:
        table = step(symbol, table)
    return table


def _between(table: pa.Table, start: datetime, end: datetime) -> pa.Table:
    first, stop = np.searchsorted(timestamps_us(table), [to_micros(start), to_micros(end)])
    return table.slice(int(first), max(0, int(stop - first)))


def _chosen(columns: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in columns if name not in VALUES]
    if isinstance(columns, str) or unknown:
        raise InputError(f"columns {columns!r}: choose from {', '.join(VALUES)}")
    return tuple(dict.fromkeys(columns))
