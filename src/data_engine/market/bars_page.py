"""Define a page of bars: the bars of one response, of one or several symbols."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from data_engine.market.bars import Int64s, timestamps_us


@dataclass(frozen=True, slots=True)
class BarsPage:
    """The bars of one response.

    Attributes:
        table: All bars, by `BAR_SCHEMA`, but sorted only within a slice.
        slices: The rows of each symbol, as ``(symbol, start, stop)``, in order of symbol.
        token: The token that requests the next page; None on the last one.
        size: The size of the JSON in bytes.
        until: The end of the range that was really requested, which a plan without recent data truncates; None if it is unknown.
        unknown: The names of fields of the bars that were passed over, sorted.
    """

    table: pa.Table
    slices: tuple[tuple[str, int, int], ...]
    token: str | None
    size: int
    until: datetime | None = None
    unknown: tuple[str, ...] = ()

    @property
    def times(self) -> Int64s:
        """The timestamps of all bars, in microseconds since 1970."""
        return timestamps_us(self.table)

    def bars(self) -> list[tuple[str, pa.Table]]:
        """Return each symbol's bars, in order of symbol, without copying."""
        return [(symbol, self.table.slice(start, stop - start)) for symbol, start, stop in self.slices]
