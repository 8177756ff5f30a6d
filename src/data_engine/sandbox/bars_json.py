"""Write bars as JSON. Rows are written once for whole columns and then only sliced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.sandbox.bar_columns import Bars, Floats, Ints

_SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Rows:
    """Bars written as JSON, each followed by a comma.

    Attributes:
        start: The start of each bar, in nanoseconds since 1970.
        text: The text of all rows.
        offsets: The place in *text* where each row begins, and where the last one ends.
    """

    start: Ints
    text: memoryview
    offsets: Ints

    def __len__(self) -> int:
        return len(self.start)

    def slice(self, first: int, last: int, *, descending: bool = False) -> list[memoryview]:
        """Return the rows from *first* up to *last*, each still with its comma."""
        if not descending:
            return [self.text[self.offsets[first] : self.offsets[last]]]
        return [self.text[self.offsets[row] : self.offsets[row + 1]] for row in range(last - 1, first - 1, -1)]


def write_rows(bars: Bars) -> Rows:
    """Return bars as JSON: keys in alphabetical order, whole numbers without a decimal point, all digits of a float."""
    if not len(bars):
        return Rows(bars.start, memoryview(b""), np.zeros(1, np.int64))
    joined = pc.binary_join_element_wise(*_pieces(bars), "")
    offsets = np.frombuffer(joined.buffers()[1], np.int32, len(bars) + 1, joined.offset * 4).astype(np.int64)
    return Rows(bars.start, memoryview(joined.buffers()[2]), offsets)


def _pieces(bars: Bars) -> Iterator[object]:
    yield '{"c":'
    yield _number(bars.close)
    yield ',"h":'
    yield _number(bars.high)
    yield ',"l":'
    yield _number(bars.low)
    yield ',"n":'
    yield _number(bars.trade_count)
    yield ',"o":'
    yield _number(bars.open)
    yield ',"t":"'
    days, seconds = np.divmod(bars.start // 1_000_000_000, _SECONDS_PER_DAY)
    yield _text(pa.array(days.astype(np.int32)).cast(pa.date32()))
    yield "T"
    yield _text(pa.array(seconds.astype(np.int32)).cast(pa.time32("s")))
    yield 'Z","v":'
    yield _number(bars.volume)
    yield ',"vw":'
    yield _number(bars.vwap)
    yield "},"


def _number(column: Floats) -> object:
    whole = column.astype(np.int64)
    if np.array_equal(whole, column):
        return _text(pa.array(whole))
    return _text(pa.array(column))


def _text(column: object) -> object:
    return pc.cast(column, pa.string())
