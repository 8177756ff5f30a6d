"""The table of bars: its one schema, merging, and its forms as Parquet bytes and as a pandas frame.

A table of bars belongs to one series: the symbol is not a column. Functions here are pure; bytes in, bytes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.market.time_range import TimeRange

VALUES = ("open", "high", "low", "close", "volume", "trade_count", "vwap")
"""The columns beside ``timestamp``, in their order: prices in US dollars, volume in shares (fractions exist), trades, dollars."""

TIMESTAMP = pa.timestamp("us", tz="UTC")  # with ns, DuckDB 2.0 refuses year(), date_trunc, time_bucket and intervals

BAR_SCHEMA = pa.schema(
    [pa.field("timestamp", TIMESTAMP, nullable=False), *(pa.field(name, pa.float64(), nullable=False) for name in VALUES)]
)
"""One row per bar, sorted by ``timestamp`` (the start of the bar), no timestamp twice, nothing null, nothing NaN."""

EMPTY = pa.Table.from_batches([], BAR_SCHEMA)

Int64s = np.ndarray[Any, np.dtype[np.int64]]


def to_micros(instant: datetime) -> int:
    """Return an aware instant as microseconds since 1970, exactly."""
    delta = instant - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def from_micros(stamp: int) -> datetime:
    """Undo `to_micros`: return microseconds since 1970 as an aware UTC instant, exactly."""
    return _EPOCH + timedelta(microseconds=int(stamp))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamps_us(table: pa.Table) -> Int64s:
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
    return make_table(timestamps_us(table)[rows], [numbers(table.column(name))[rows] for name in VALUES])


def within(table: pa.Table, span: TimeRange) -> pa.Table:
    """Return the rows of a sorted table that start inside *span*, without copying."""
    times = timestamps_us(table)
    start, stop = np.searchsorted(times, [to_micros(span.start), to_micros(span.end)])
    return table.slice(int(start), int(stop - start))


@dataclass(frozen=True, slots=True)
class Changes:
    """How many bars a merge, a file or a run changed. Sums add up.

    Attributes:
        added: Bars with a new timestamp.
        revised: Bars that replaced one with other values.
        vanished: Stored bars that a complete response lacked, and that were kept.
        removed: Stored bars that a complete response lacked, and that were removed.
    """

    added: int = 0
    revised: int = 0
    vanished: int = 0
    removed: int = 0

    @property
    def written(self) -> int:
        """The bars that were written: added or revised."""
        return self.added + self.revised

    def __add__(self, other: Changes) -> Changes:
        return Changes(
            self.added + other.added,
            self.revised + other.revised,
            self.vanished + other.vanished,
            self.removed + other.removed,
        )


NO_CHANGES = Changes()


@dataclass(frozen=True, slots=True)
class Merged:
    """The result of a merge.

    Attributes:
        table: The rows, sorted, one per timestamp.
        changes: How they differ from what was stored.
    """

    table: pa.Table
    changes: Changes


def merge(stored: pa.Table, fetched: pa.Table, answered: TimeRange | None = None) -> Merged:
    """Return one row per timestamp of either table; where both have a bar, the fetched one wins.

    Args:
        stored: what is there, by `BAR_SCHEMA`.
        fetched: what has come, by `BAR_SCHEMA`.
        answered: the range that *fetched* answers in full; stored rows inside it that *fetched* lacks are kept, and counted.
    """
    _check_order(stored)
    _check_order(fetched)
    if stored.num_rows == 0:
        return Merged(fetched, Changes(fetched.num_rows))
    old, new = timestamps_us(stored), timestamps_us(fetched)
    again = np.isin(old, new, assume_unique=True)
    vanished = 0
    if answered is not None:
        asked = (old >= to_micros(answered.start)) & (old < to_micros(answered.end))
        vanished = int(np.count_nonzero(asked & ~again))
    if fetched.num_rows == 0:
        return Merged(stored, Changes(vanished=vanished))
    if not again.any():
        added, revised = fetched.num_rows, 0
        if new[0] > old[-1]:
            return Merged(pa.concat_tables([stored, fetched]), Changes(added, revised, vanished))
    else:
        repeated = np.isin(new, old, assume_unique=True)
        added = int(np.count_nonzero(~repeated))
        revised = _differing(stored, again, fetched, repeated)
        if not added and not revised:
            return Merged(stored, Changes(vanished=vanished))
    both = pa.concat_tables([take(stored, ~again), fetched])
    return Merged(take(both, np.argsort(timestamps_us(both), kind="stable")), Changes(added, revised, vanished))


def _check_order(table: pa.Table) -> None:
    """Raise `ValueError` if timestamps repeat or are not sorted: a merge of such tables would invent or lose bars."""
    steps = np.diff(timestamps_us(table))
    if steps.size and steps.min() <= 0:
        raise ValueError(f"cannot merge bars: {problems(table)}")


def without(stored: pa.Table, span: TimeRange, kept: pa.Table = EMPTY) -> pa.Table:
    """Return *stored* without its rows inside *span*, except those whose timestamps *kept* has."""
    old = timestamps_us(stored)
    gone = (old >= to_micros(span.start)) & (old < to_micros(span.end)) & ~np.isin(old, timestamps_us(kept))
    return take(stored, ~gone)


def _differing(left: pa.Table, left_rows: Any, right: pa.Table, right_rows: Any) -> int:
    """Count the chosen rows, paired by position, that differ in any value."""
    differs = np.zeros(int(np.count_nonzero(left_rows)), dtype=bool)
    for name in VALUES:
        differs |= numbers(left.column(name))[left_rows] != numbers(right.column(name))[right_rows]
    return int(np.count_nonzero(differs))


def problems(table: pa.Table) -> str | None:
    """Return why a table of `BAR_SCHEMA` cannot be bars of one series, or None where it can."""
    times = timestamps_us(table)
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
