"""Encode and decode rows of bars that the history keeps, without a loss of any bit. Pure.

A vendor's prices have few digits: as whole numbers of their last digit they are near each other, those of a bar even more. A
column that is not made of such numbers is kept as its bits.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.market.bars import VALUES, make_table, numbers, timestamps_us

_COLUMNS = 1 + len(VALUES)

_DIGITS = (0, 2, 4, 6)  # after the point

BITS = -1  # in the place of a number of digits

_MOST = 1 << 53  # larger whole numbers are not exact as floats

_LAST = "close"  # what the other prices of a bar are near to

_NEAR = ("open", "high", "low", "vwap")


def pack_rows(table: pa.Table) -> tuple[list[int], bytes]:
    """Return the digits of each column, and the rows as bytes.

    Args:
        table: Bars by `BAR_SCHEMA`, sorted, at least one.
    """
    columns = {name: numbers(table.column(name)) for name in VALUES}
    digits, values = {}, {}
    for name, column in columns.items():
        digits[name], values[name] = _whole(column)
    for name in _near(digits):
        values[name] = values[name] - values[_LAST]
    if digits[_LAST] != BITS:
        values[_LAST] = np.diff(values[_LAST], prepend=0)
    kept = [_unsigned(values[name]) if digits[name] != BITS else values[name] for name in VALUES]
    planes = np.stack([np.diff(timestamps_us(table), prepend=0), *kept]).astype("<i8").view(np.uint8)
    # Column by column, and of each the highest bytes together, which hardly differ.
    return [digits[name] for name in VALUES], zlib.compress(planes.reshape(_COLUMNS, -1, 8).transpose(0, 2, 1).tobytes(), 6)


def unpack_rows(packed: bytes, rows: int, digits: Sequence[int]) -> pa.Table:
    """Return the rows that `pack_rows` was given.

    Args:
        packed: The bytes.
        rows: The number of rows.
        digits: The digits of each column.

    Raises:
        ValueError: If there are other numbers of rows, columns or digits.
        zlib.error: If the bytes are damaged.
    """
    if not {*digits} <= {*_DIGITS, BITS}:
        raise ValueError(f"columns of {digits} digits")
    data = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(_COLUMNS, 8, rows)
    columns = np.ascontiguousarray(data.transpose(0, 2, 1)).view("<i8").reshape(_COLUMNS, rows).astype(np.int64)
    known = dict(zip(VALUES, digits, strict=True))
    values = {name: _signed(column) if known[name] != BITS else column for name, column in zip(VALUES, columns[1:], strict=True)}
    if known[_LAST] != BITS:
        values[_LAST] = np.cumsum(values[_LAST])
    for name in _near(known):
        values[name] = values[name] + values[_LAST]
    return make_table(np.cumsum(columns[0]), [_floats(values[name], known[name]) for name in VALUES])


def _near(digits: dict[str, int]) -> list[str]:
    """Return the columns that are kept as their distance from the last price."""
    return [name for name in _NEAR if digits[name] == digits[_LAST] != BITS]


def _whole(column: Any) -> tuple[int, Any]:
    """Return the fewest digits that hold all values of a column, and these as whole numbers; else their bits."""
    bits = column.view(np.int64)
    if np.isfinite(column).all():
        for digits in _DIGITS:
            with np.errstate(over="ignore"):
                scaled = np.rint(column * 10**digits)
            if (np.abs(scaled) < _MOST).all():
                whole = scaled.astype(np.int64)
                if np.array_equal(_floats(whole, digits).view(np.int64), bits):  # not of a negative zero
                    return digits, whole
    return BITS, bits


def _floats(column: Any, digits: int) -> Any:
    return column.view(np.float64) if digits == BITS else column.astype(np.float64) / 10**digits


def _unsigned(values: Any) -> Any:
    """Return numbers of which small ones of either sign are small."""
    return (values << 1) ^ (values >> 63)


def _signed(values: Any) -> Any:
    return ((values >> 1) & 0x7FFFFFFFFFFFFFFF) ^ -(values & 1)
