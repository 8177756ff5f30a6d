"""A page of bars: the bars of one response, of one or several symbols. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from data_engine.market.bars import Int64s, timestamps_us


@dataclass(frozen=True, slots=True)
class BarsPage:
    """The bars of one answer.

    Attributes:
        table: all bars, by `BAR_SCHEMA` but sorted only within a run.
        runs: ``(symbol, start, stop)`` rows of the table, in order of symbol.
        token: what to ask for the next page with; None on the last one.
        size: bytes of JSON.
        until: the end of what was really asked for, which a plan without recent data clamps; None where nobody says.
    """

    table: pa.Table
    slices: tuple[tuple[str, int, int], ...]
    token: str | None
    size: int
    until: datetime | None = None

    @property
    def times(self) -> Int64s:
        """The timestamps of all bars, in microseconds since 1970."""
        return timestamps_us(self.table)

    def bars(self) -> list[tuple[str, pa.Table]]:
        """Return each symbol's bars, in order of symbol, without copying."""
        return [(symbol, self.table.slice(start, stop - start)) for symbol, start, stop in self.slices]
