"""Serve real bars from Parquet files as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_engine.errors import InputError, MissingFileError
from data_engine.market.bars import from_micros
from data_engine.market.series import Adjustment, Timeframe
from data_engine.market.time_range import TimeRange
from data_engine.sandbox.aggregation import MINUTE, midnights, to_days, to_intraday, to_periods
from data_engine.sandbox.bar_columns import NO_BARS, Bars, Floats, Ints
from data_engine.sandbox.corporate_actions import Announcements
from data_engine.sandbox.protocol import nanoseconds
from data_engine.sandbox.splits import Split, adjusted

_PRICES = ("open", "high", "low", "close")

_REQUIRED = ("symbol", *_PRICES, "volume")

_OPTIONAL = ("timestamp", "date", "trade_count", "vwap")


class Replay:
    """A source that serves the bars of Parquet files: ``symbol``, ``timestamp`` or ``date``, ``open high low close volume``.

    A ``date`` is a day in New York. If ``trade_count`` or ``vwap`` are missing, the count is one trade per hundred shares (at
    least one) and the average is that of high, low and close, to 4 decimals. Of two rows with the same symbol and start the
    later one is served; rows without a price are not; a missing volume is a volume of 0.

    Files of minutes also serve coarser timeframes, files of days weeks and months. The bars are the same for every feed, and
    raw: adjustments need *splits*.

    Args:
        paths: One file or several.
        timeframe: The timeframe of the files. If None, days for a ``date`` column, else minutes.
        end_label: Whether a timestamp of the files is the end of its minute.
        splits: The splits by symbol. If None, there are none.

    Raises:
        MissingFileError: If a file is missing.
        InputError: If a file lacks columns.
    """

    def __init__(
        self,
        paths: str | PathLike[str] | Iterable[str | PathLike[str]],
        *,
        timeframe: Timeframe | str | None = None,
        end_label: bool = False,
        splits: Mapping[str, Sequence[Split]] | None = None,
    ) -> None:
        files = [Path(path) for path in ([paths] if isinstance(paths, (str, PathLike)) else paths)]
        tables = [_read(file) for file in files]
        dated = all("date" in table.column_names for table in tables)
        self.timeframe = Timeframe.parse(("1Day" if dated else "1Min") if timeframe is None else timeframe)
        self.mark = "replay " + ", ".join(file.name.encode("ascii", "replace").decode() for file in files)
        self._splits = splits or {}
        self.announcements = Announcements.of(self._splits)
        self._bars = _by_symbol(tables, shift=MINUTE if end_label else 0)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols with bars, ascending."""
        return tuple(self._bars)

    def reach(self, symbol: str, feed: str, now: datetime) -> TimeRange | None:  # noqa: ARG002 - files know no feed
        """Return the range from a symbol's first bar to the end of its last."""
        bars = self._bars.get(symbol)
        if bars is None:
            return None
        first, last = (from_micros(bars.start[row] // 1000) for row in (0, -1))
        return TimeRange(first, last + self.timeframe.length)

    def bars(
        self,
        symbol: str,
        timeframe: Timeframe,
        span: TimeRange,
        *,
        adjustment: Adjustment,
        feed: str,  # noqa: ARG002
        now: datetime,
    ) -> Bars:
        """Return the bars that start inside *span*, made of the bars of the files that had ended at *now*."""
        bars = _ended(self._bars.get(symbol, NO_BARS), self.timeframe, now).inside(timeframe.widen(span))
        bars = adjusted(bars, self._splits.get(symbol, ()), adjustment)
        return (bars if timeframe == self.timeframe else self._coarser(bars, timeframe)).inside(span)

    def _coarser(self, bars: Bars, timeframe: Timeframe) -> Bars:
        if self.timeframe.intraday and not timeframe.intraday:
            return to_periods(to_days(bars), timeframe)
        # A 15-minute bar cannot be made of 10-minute ones.
        if self.timeframe.intraday and not timeframe.length % self.timeframe.length:
            return to_intraday(bars, timeframe)
        if self.timeframe.unit == "Day" and timeframe.unit in ("Week", "Month"):
            return to_periods(bars, timeframe)
        return NO_BARS


def _ended(bars: Bars, timeframe: Timeframe, now: datetime) -> Bars:
    """Return the bars whose interval had ended at *now*."""
    forming = timeframe.floor(now)
    return bars.take(slice(0, int(np.searchsorted(bars.start, nanoseconds(forming)))))


def _read(file: Path) -> Any:
    if not file.is_file():
        raise MissingFileError(f"cannot read bars: no such file of bars: {file}")
    try:
        with pq.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            if not {*_REQUIRED} <= {*names} or not {"timestamp", "date"} & {*names}:
                raise InputError(
                    f"cannot read bars: {file} has the columns {', '.join(names)}; symbol, timestamp or date, open, high, low, "
                    "close and volume are needed"
                )
            return parquet.read(columns=[name for name in (*_REQUIRED, *_OPTIONAL) if name in names])
    except pa.ArrowInvalid as error:
        raise InputError(f"cannot read bars: {file} is not a Parquet file: {error}") from error


def _by_symbol(tables: Sequence[Any], *, shift: int) -> dict[str, Bars]:
    symbols = np.concatenate([np.asarray(table["symbol"].cast(pa.string()).to_pylist(), object) for table in tables])
    starts = np.concatenate([_starts(table) for table in tables]) - shift
    values = [np.concatenate(columns) for columns in zip(*(_values(table) for table in tables), strict=True)]
    names, codes = np.unique(symbols.astype(str), return_inverse=True)
    priced = np.flatnonzero(np.isfinite(np.stack(values[:4])).all(axis=0))
    order = priced[np.lexsort((starts[priced], codes[priced]))]
    starts, codes = starts[order], codes[order]
    # The sort is stable, so the later of two equal rows comes last.
    kept = np.append((starts[1:] != starts[:-1]) | (codes[1:] != codes[:-1]), True) if len(order) else np.empty(0, bool)
    starts, codes, order = starts[kept], codes[kept], order[kept]
    bounds = np.searchsorted(codes, np.arange(len(names) + 1))
    columns = [value[order] for value in values]
    cuts = [slice(int(bounds[i]), int(bounds[i + 1])) for i in range(len(names))]
    return {
        str(name): Bars(starts[cut], *(column[cut] for column in columns))
        for name, cut in zip(names, cuts, strict=True)
        if cut.start < cut.stop
    }


def _starts(table: Any) -> Ints:
    if "timestamp" in table.column_names:
        starts = table["timestamp"].cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64())
        return np.asarray(starts.to_numpy(), np.int64)
    days = table["date"].cast(pa.date32()).to_numpy()
    return midnights(days.astype("datetime64[D]"))


def _values(table: Any) -> list[Floats]:
    def column(name: str) -> Floats:
        return np.asarray(pc.cast(table[name], pa.float64()).to_numpy(), np.float64)

    def given(name: str, default: Floats) -> Floats:
        if name not in table.column_names:
            return default
        values = column(name)
        return np.where(np.isfinite(values), values, default)

    opened, high, low, close = (column(name) for name in _PRICES)
    volume = np.nan_to_num(column("volume"), nan=0.0)
    count = given("trade_count", np.maximum(1.0, np.floor(volume / 100)))
    vwap = given("vwap", np.round((high + low + close) / 3, 4))
    return [opened, high, low, close, volume, count, vwap]
