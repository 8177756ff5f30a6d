"""Describe how a table of bars gets its earlier rows back: row ranges that were added, and old rows. Pure."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.market.bar_parquet import from_parquet, to_parquet
from data_engine.market.bars import EMPTY, VALUES, Int64s, numbers, take, timestamps_us
from data_engine.store.history.old_rows import BITS, pack_rows, unpack_rows
from data_engine.store.history.undo import Kind, Undo


def bars_undo(old: pa.Table, new: pa.Table) -> Undo:
    """Return how the sorted rows *new* become the sorted rows *old* again; both have one row per timestamp."""
    count, before, after = old.num_rows, timestamps_us(old), timestamps_us(new)
    everywhere = np.ones(count, bool)
    grown = after.size > count and np.array_equal(before, after[:count])
    if grown and not differing(old, everywhere, new.slice(0, count), everywhere).any():
        return _undo([[count, new.num_rows]], None)
    added = ~np.isin(after, before, assume_unique=True)
    stays = np.isin(before, after, assume_unique=True)
    differs = ~stays
    differs[stays] = differing(old, stays, new, ~added)
    return _undo(_ranges(added), take(old, differs) if differs.any() else None, count)


def file_undo(old: bytes, new: bytes) -> Undo | None:
    """Return how a file of bars becomes what it was, by its rows; None if these do not make the same bytes again.

    Args:
        old: The content that is replaced or removed.
        new: The new content; empty if the file is removed.
    """
    try:
        before, after = from_parquet(old), from_parquet(new) if new else EMPTY
        if to_parquet(before) != old:
            return None
    except (ValueError, pa.ArrowException):
        return None
    return bars_undo(before, after) if _is_sorted(before) and _is_sorted(after) else None


def old_bars(body: bytes, new: pa.Table) -> pa.Table:
    """Return the earlier rows of a table.

    Raises:
        ValueError: If the body is damaged, or of another table.
    """
    kept, old = _opened(body, new.num_rows)
    if old is None:
        return take(new, kept)
    kept &= ~np.isin(timestamps_us(new), timestamps_us(old), assume_unique=True)
    both = pa.concat_tables([take(new, kept), old])
    return take(both, np.argsort(timestamps_us(both), kind="stable"))


def times_before(body: bytes, times: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """Return the timestamps of the rows that were added, of the old rows that are kept, and of all rows of the earlier table.

    Args:
        body: The difference.
        times: The timestamps of the new table.

    Raises:
        ValueError: If the body is damaged, or of another table.
    """
    kept, rows = _opened(body, times.size)
    if rows is None:
        return times[~kept], np.empty(0, np.int64), times[kept]
    old = timestamps_us(rows)
    return times[~kept], old, np.union1d(times[kept], old)


def _opened(body: bytes, rows: int) -> tuple[Any, pa.Table | None]:
    """Return which rows of the new table are no added ones, and the old rows that are kept; None if there are none.

    Raises:
        ValueError: If the body is damaged, or of a table of another size.
    """
    try:
        ranges, old = _parts(body)
        kept = np.ones(rows, bool)
        for start, stop in ranges:
            if stop > rows:
                raise ValueError("the rows of another table")
            kept[start:stop] = False
    except (ValueError, TypeError, zlib.error) as error:
        raise ValueError(f"damaged difference of bars: {error}") from error
    return kept, old


def _is_sorted(table: pa.Table) -> bool:
    return bool((np.diff(timestamps_us(table)) > 0).all())


def replaces_most(body: bytes) -> bool | None:
    """Tell whether at least half of the earlier rows are kept; None if that was not written down."""
    _, rows, *more = json.loads(body.split(b"\n", 1)[0])
    return None if len(more) < 2 else 2 * rows >= more[1]


def counts_of(body: bytes) -> tuple[int, int]:
    """Return how many rows were added, and how many old rows are kept."""
    ranges, rows, *_ = json.loads(body.split(b"\n", 1)[0])
    return sum(stop - start for start, stop in ranges), rows


def kept_rows(body: bytes) -> pa.Table | None:
    """Return the old rows that are kept, or None if there are none.

    Raises:
        ValueError: If the body is damaged.
    """
    return _parts(body)[1]


def differing(old: pa.Table, old_rows: Any, new: pa.Table, new_rows: Any) -> Any:
    """Return which of the rows that both tables have, in order, differ in any value, bit by bit."""
    differs = np.zeros(int(np.count_nonzero(old_rows)), bool)
    for name in VALUES:
        left, right = numbers(old.column(name))[old_rows], numbers(new.column(name))[new_rows]
        differs |= left.view(np.int64) != right.view(np.int64)
    return differs


def _ranges(rows: Any) -> list[list[int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], rows, [False]]).astype(np.int8)))
    return [[int(start), int(stop)] for start, stop in edges.reshape(-1, 2)]


def _undo(ranges: list[list[int]], old: pa.Table | None, count: int = 0) -> Undo:
    digits, packed = ([], b"") if old is None else pack_rows(old)
    head = [ranges, 0] if old is None else [ranges, old.num_rows, digits, count]
    return Undo(Kind.BARS, json.dumps(head, separators=(",", ":")).encode() + b"\n" + packed)


def _parts(body: bytes) -> tuple[list[list[int]], pa.Table | None]:
    """Return the added ranges, and the old rows."""
    head, packed = body.split(b"\n", 1)
    ranges, rows, *more = json.loads(head)
    if not rows:
        return ranges, None
    return ranges, unpack_rows(packed, rows, more[0] if more else [BITS] * len(VALUES))  # the first format has bits alone
