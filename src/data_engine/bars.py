"""The table of bars: its one schema, merging, and its forms as Parquet bytes and as a pandas frame.

A table of bars belongs to one series: the symbol is not a column. Functions here are pure; bytes in, bytes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_engine.errors import InputError
from data_engine.ranges import TimeRange

if TYPE_CHECKING:
    import pandas as pd

VALUES = ("open", "high", "low", "close", "volume", "trade_count", "vwap")
"""The columns beside ``timestamp``, in their order: prices in US dollars, volume in shares (fractions exist), trades, dollars."""

TIMESTAMP = pa.timestamp("us", tz="UTC")  # with ns, DuckDB 2.0 refuses year(), date_trunc, time_bucket and intervals

BAR_SCHEMA = pa.schema(
    [pa.field("timestamp", TIMESTAMP, nullable=False), *(pa.field(name, pa.float64(), nullable=False) for name in VALUES)]
)
"""One row per bar, sorted by ``timestamp`` (the start of the bar), no timestamp twice, nothing null, nothing NaN."""

_REPEATING = ("open", "high", "low", "close", "trade_count")

EMPTY = pa.Table.from_batches([], BAR_SCHEMA)

Int64s = np.ndarray[Any, np.dtype[np.int64]]


def micros(instant: datetime) -> int:
    """Return an aware instant as microseconds since 1970, exactly."""
    delta = instant - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def instant(stamp: int) -> datetime:
    """Undo `micros`: return microseconds since 1970 as an aware UTC instant, exactly."""
    return _EPOCH + timedelta(microseconds=int(stamp))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def stamps(table: pa.Table) -> Int64s:
    """Return the timestamps of a table as microseconds since 1970, without copying where it is in one piece."""
    times: Int64s = numbers(table.column("timestamp"), np.int64)
    return times


def numbers(column: pa.ChunkedArray, kind: type[np.generic] = np.float64) -> Any:
    """Return a column without nulls as a numpy array, without copying where it is in one piece.

    pyarrow's own ``to_numpy`` imports pandas, which takes longer than a nightly update needs in all.
    """
    chunks = [_chunk(chunk, kind) for chunk in column.chunks if len(chunk)]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks) if chunks else np.empty(0, kind)


def _chunk(chunk: pa.Array, kind: type[np.generic]) -> Any:
    return np.frombuffer(chunk.buffers()[1], kind, count=len(chunk), offset=chunk.offset * np.dtype(kind).itemsize)


def arrow(array: Any, kind: pa.DataType) -> pa.Array:
    """Return a contiguous numpy array of fixed width as a column of *kind*, without copying (and without pandas)."""
    return pa.Array.from_buffers(kind, array.size, [None, pa.py_buffer(np.ascontiguousarray(array))])


def make_table(times: Int64s, values: Sequence[Any]) -> pa.Table:
    """Return a table by `BAR_SCHEMA` of numpy arrays: microseconds, and the `VALUES` in their order."""
    return pa.Table.from_arrays([arrow(times, TIMESTAMP), *(arrow(column, pa.float64()) for column in values)], schema=BAR_SCHEMA)


def take(table: pa.Table, rows: Any) -> pa.Table:
    """Return some rows of a table, by a numpy array of positions or of truth values."""
    return make_table(stamps(table)[rows], [numbers(table.column(name))[rows] for name in VALUES])


def within(table: pa.Table, span: TimeRange) -> pa.Table:
    """Return the rows of a sorted table that start inside *span*, without copying."""
    times = stamps(table)
    start, stop = np.searchsorted(times, [micros(span.start), micros(span.end)])
    return table.slice(int(start), int(stop - start))


@dataclass(frozen=True, slots=True)
class Merged:
    """What came of a merge.

    Attributes:
        table: the rows, sorted, one per timestamp.
        added: how many timestamps are new.
        revised: how many rows replaced one with other values.
        vanished: how many stored rows the vendor was asked for and no longer returned.
    """

    table: pa.Table
    added: int
    revised: int
    vanished: int

    @property
    def changed(self) -> bool:
        """Whether the table differs from what was stored."""
        return bool(self.added or self.revised)


def merge(stored: pa.Table, fetched: pa.Table, answered: TimeRange | None = None) -> Merged:
    """Return one row per timestamp of either table; where both have a bar, the fetched one wins.

    Args:
        stored: what is there, by `BAR_SCHEMA`.
        fetched: what has come, by `BAR_SCHEMA`.
        answered: the range that *fetched* answers in full; stored rows inside it that *fetched* lacks are kept, and counted.
    """
    if stored.num_rows == 0:
        return Merged(fetched, fetched.num_rows, 0, 0)
    old, new = stamps(stored), stamps(fetched)
    again = np.isin(old, new, assume_unique=True)
    vanished = 0
    if answered is not None:
        asked = (old >= micros(answered.start)) & (old < micros(answered.end))
        vanished = int(np.count_nonzero(asked & ~again))
    if fetched.num_rows == 0:
        return Merged(stored, 0, 0, vanished)
    if not again.any():
        added, revised = fetched.num_rows, 0
        if new[0] > old[-1]:
            return Merged(pa.concat_tables([stored, fetched]), added, revised, vanished)
    else:
        repeated = np.isin(new, old, assume_unique=True)
        added = int(np.count_nonzero(~repeated))
        revised = _differing(stored, again, fetched, repeated)
        if not added and not revised:
            return Merged(stored, 0, 0, vanished)
    both = pa.concat_tables([take(stored, ~again), fetched])
    return Merged(take(both, np.argsort(stamps(both), kind="stable")), added, revised, vanished)


def without(stored: pa.Table, span: TimeRange, kept: pa.Table = EMPTY) -> pa.Table:
    """Return *stored* without its rows inside *span*, except those whose timestamps *kept* has."""
    old = stamps(stored)
    gone = (old >= micros(span.start)) & (old < micros(span.end)) & ~np.isin(old, stamps(kept))
    return take(stored, ~gone)


def _differing(left: pa.Table, left_rows: Any, right: pa.Table, right_rows: Any) -> int:
    """Count the chosen rows, paired by position, that differ in any value."""
    differs = np.zeros(int(np.count_nonzero(left_rows)), dtype=bool)
    for name in VALUES:
        differs |= numbers(left.column(name))[left_rows] != numbers(right.column(name))[right_rows]
    return int(np.count_nonzero(differs))


def to_parquet(table: pa.Table) -> bytes:
    """Write a table as the bytes of one Parquet file. Same rows, same bytes, for one version of pyarrow.

    Measured on real minute bars (benchmarks/about.md): zstd of level 2, delta-packed timestamps, and dictionaries where values
    repeat. Those make prices 3 % larger and a third faster to read; volumes and vwap hardly repeat. (BYTE_STREAM_SPLIT would
    be better still for the counts, but Spark's fast reader refuses it.)
    """
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.combine_chunks(),  # pages follow chunks: the same rows in other pieces must give the same bytes
        sink,
        compression="zstd",
        compression_level=2,
        use_dictionary=list(_REPEATING),
        column_encoding={"timestamp": "DELTA_BINARY_PACKED", "volume": "PLAIN", "vwap": "PLAIN"},
        write_statistics=["timestamp"],  # what readers prune by
        write_batch_size=1 << 16,
        store_schema=False,
        row_group_size=1 << 20,
    )
    written: bytes = sink.getvalue().to_pybytes()
    return written


def from_parquet(
    data: bytes, columns: Sequence[str] | None = None, *, within: TimeRange | None = None, threads: bool = False
) -> pa.Table:
    """Read the bytes of one Parquet file.

    Args:
        data: of the file.
        columns: of `BAR_SCHEMA`; None is all.
        within: where no bar starts inside it by the file's statistics, the table is empty and nothing is decoded.
        threads: decode columns on several cores.

    Raises:
        ValueError: not a Parquet file, or not with our columns.
    """
    wanted = BAR_SCHEMA if columns is None else pa.schema([BAR_SCHEMA.field(name) for name in columns])
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        if within is not None and _lies_outside(file.metadata, within):
            return pa.Table.from_batches([], wanted)
        table = file.read(columns=wanted.names, use_threads=threads)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a readable Parquet file: {error}") from error
    if not table.schema.equals(wanted):
        raise ValueError(f"its columns are {', '.join(map(str, table.schema))}")
    return table


def _lies_outside(metadata: pq.FileMetaData, span: TimeRange) -> bool:
    """Tell whether the statistics of the timestamps prove that no bar starts inside *span*."""
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(0)
        bounds = column.statistics
        if column.path_in_schema != "timestamp" or bounds is None or not bounds.has_min_max:
            return False
        if bounds.min < span.end and bounds.max >= span.start:
            return False
    return True


def problems(table: pa.Table) -> str | None:
    """Return why a table of `BAR_SCHEMA` cannot be bars of one series, or None where it can."""
    times = stamps(table)
    steps = np.diff(times)
    if steps.size and steps.min() <= 0:
        at = int(np.argmax(steps <= 0)) + 1
        return f"row {at} is {'a second bar of' if steps[at - 1] == 0 else 'not after'} {_at(times[at - 1])}"
    for name in VALUES:
        values = numbers(table.column(name))
        if not np.isfinite(values).all():
            return f"{name} at {_at(times[int(np.argmin(np.isfinite(values)))])} is not a number"
    return None


def _at(stamp: Any) -> str:
    return str(np.datetime64(int(stamp), "us")) + "Z"


def to_frame(tables: Iterable[tuple[str, pa.Table]], columns: Sequence[str] = VALUES) -> pd.DataFrame:
    """Make the frame that users get: levels ``symbol`` and ``timestamp`` (``datetime64[ns, UTC]``), float64 columns, sorted.

    Args:
        tables: symbol and its bars, sorted.
        columns: those of `VALUES` that the tables have beside ``timestamp``.
    """
    import pandas as pd

    pieces = [(symbol, table) for symbol, table in sorted(tables, key=lambda item: item[0]) if table.num_rows]
    lengths = [table.num_rows for _, table in pieces]
    times = np.empty(sum(lengths), dtype=np.int64)
    values = np.empty((len(columns), times.size))
    at = 0
    for _, table in pieces:
        _fill(times, at, table.column("timestamp"))
        for row, name in zip(values, columns, strict=True):
            _fill(row, at, table.column(name))
        at += table.num_rows
    times *= 1000  # users get nanoseconds: what pandas, and every tool built on it, takes for granted
    distinct, codes = _factorised(times)
    levels: list[Any] = [  # the stubs know lists of lists alone, though any index will do
        pd.Index([symbol for symbol, _ in pieces], dtype="str"),
        pd.DatetimeIndex(distinct.view("datetime64[ns]"), tz="UTC"),
    ]
    rows: list[Any] = [np.repeat(np.arange(len(pieces)), lengths), codes]
    index = pd.MultiIndex(levels=levels, codes=rows, names=["symbol", "timestamp"], verify_integrity=False)
    return pd.DataFrame(values.T, index=index, columns=list(columns), copy=False)


def _fill(target: Any, at: int, column: pa.ChunkedArray) -> None:
    """Copy a column into *target* from position *at* on: the one copy on the way to a frame."""
    for chunk in column.chunks:
        if len(chunk):
            target[at : at + len(chunk)] = _chunk(chunk, target.dtype.type)
            at += len(chunk)


def _factorised(times: Int64s) -> tuple[Int64s, Int64s]:
    """Return the distinct times, sorted, and each time's position among them."""
    if (np.diff(times) > 0).all():  # one symbol: already both
        return times, np.arange(times.size)
    return np.unique(times, return_inverse=True)


def from_frame(frame: pd.DataFrame, canonical: Callable[[str], str] = str) -> Mapping[str, pa.Table]:
    """Read a user's frame of bars into one table per symbol, sorted.

    Accepts what `to_frame` and alpaca-py's ``.df`` make, and a flat frame with columns ``symbol`` and ``timestamp``. Where a
    frame holds a (symbol, timestamp) twice, the later row wins.

    Args:
        frame: of the user's.
        canonical: makes one symbol of its spellings; what it refuses, it raises.

    Raises:
        InputError: columns are missing, stamps are naive or finer than microseconds, or a value is not a number.
    """
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"store takes a DataFrame of bars, not {type(frame).__name__}")
    index_names = [name for name in ("symbol", "timestamp") if name in frame.index.names]
    twice = [name for name in index_names if name in frame.columns] + list(frame.columns[frame.columns.duplicated()])
    if twice:
        raise InputError(f"bars have {', '.join(map(str, twice))} twice, as columns or as a column and a level")
    flat = frame.reset_index(level=index_names) if index_names else frame
    lacking = [name for name in ("symbol", "timestamp", *VALUES) if name not in flat.columns]
    if lacking:
        if frame.empty and not index_names:  # alpaca-py's empty answer has neither columns nor levels
            return {}
        raise InputError(f"bars lack {', '.join(lacking)}; they have {', '.join(map(str, flat.columns)) or 'no columns'}")
    times = flat["timestamp"]
    if not isinstance(times.dtype, pd.DatetimeTZDtype):
        raise InputError(f"timestamps must be aware (UTC), they are {times.dtype}; use pd.to_datetime(..., utc=True)")
    if times.isna().any():
        raise InputError("a timestamp is missing (NaT)")
    whole = times.dt.tz_convert("UTC").dt.as_unit("us")
    if not (whole == times).all():
        raise InputError("a timestamp is finer than a microsecond")
    tables: dict[str, pa.Table] = {}
    try:
        values = {name: flat[name].to_numpy(dtype="float64", na_value=np.nan) for name in VALUES}
    except (TypeError, ValueError) as error:
        raise InputError(f"a column of bars does not hold numbers: {error}") from error
    if flat["symbol"].isna().any():
        raise InputError("a symbol is missing")
    raw = whole.astype("int64").to_numpy()
    names = {name: _spelled(name, canonical) for name in flat["symbol"].unique()}
    for symbol, rows in flat.groupby(flat["symbol"].map(names), sort=True).indices.items():
        _, last = np.unique(raw[rows][::-1], return_index=True)
        chosen = rows[::-1][last]
        table = make_table(raw[chosen], [values[name][chosen] for name in VALUES])
        trouble = problems(table)
        if trouble:
            raise InputError(f"{symbol}: {trouble}")
        tables[str(symbol)] = table
    return tables


def _spelled(name: object, canonical: Callable[[str], str]) -> str:
    if not isinstance(name, str):
        raise InputError(f"symbol {name} is not text but {type(name).__name__}")
    return canonical(name)
