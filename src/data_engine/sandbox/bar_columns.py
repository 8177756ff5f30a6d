"""Hold bars as columns of numbers, and define what the server needs of a source of bars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt

from data_engine.market.series import Adjustment, Timeframe
from data_engine.market.time_range import TimeRange
from data_engine.sandbox.protocol import nanoseconds

Ints = npt.NDArray[np.int64]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars of one symbol, in the order of time.

    Attributes:
        start: The start of each bar: nanoseconds since 1970, ascending, no value twice.
        open: The price of the first trade.
        high: The highest price.
        low: The lowest price.
        close: The price of the last trade.
        volume: The number of shares; whole, except in some replayed files.
        trade_count: The number of trades, whole.
        vwap: The volume-weighted average price.
    """

    start: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    trade_count: Floats
    vwap: Floats

    def __len__(self) -> int:
        return len(self.start)

    @property
    def values(self) -> tuple[Floats, ...]:
        """The columns after *start*, in the order of the attributes."""
        return self.open, self.high, self.low, self.close, self.volume, self.trade_count, self.vwap

    def take(self, rows: slice | npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Bars:
        """Return some of the bars; *rows* must keep them ascending."""
        return Bars(self.start[rows], *(column[rows] for column in self.values))

    def inside(self, span: TimeRange) -> Bars:
        """Return the bars that start inside *span*."""
        first, last = np.searchsorted(self.start, (nanoseconds(span.start), nanoseconds(span.end)))
        return self.take(slice(int(first), int(last)))


NO_BARS = Bars(np.empty(0, np.int64), *(np.empty(0) for _ in range(7)))


def concatenate(pieces: Iterable[Bars]) -> Bars:
    """Return bars in one piece; *pieces* must be in the order of time."""
    full = [piece for piece in pieces if len(piece)] or [NO_BARS]
    columns = zip(*(piece.values for piece in full), strict=True)
    return Bars(np.concatenate([piece.start for piece in full]), *(np.concatenate(column) for column in columns))


class BarSource(Protocol):
    """A source of the server's bars. Methods are called from several threads at once."""

    @property
    def mark(self) -> str:
        """The description of the source in the header ``X-Sandbox``: one line of ASCII."""

    def reach(self, symbol: str, feed: str, now: datetime) -> TimeRange | None:
        """Return a range that contains all bars of *symbol* at *now*, or None if there are none. Must be cheap."""

    def bars(
        self, symbol: str, timeframe: Timeframe, span: TimeRange, *, adjustment: Adjustment, feed: str, now: datetime
    ) -> Bars:
        """Return the bars that start inside *span*, each whole wherever *span* cuts it, as they were at *now*."""
