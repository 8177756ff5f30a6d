"""Write a catalog of NautilusTrader: Parquet files of bars, and an instrument per symbol.

Layout and schemas are those of NautilusTrader 1.231, built with 128-bit values: ``data/bar/BAR_TYPE/FIRST_LAST.parquet`` with
prices and volumes as integers of 16 decimals, 16 bytes, little-endian; ``data/equity/INSTRUMENT/...parquet`` with one row.
Both timestamps of a bar are its end, in nanoseconds, so that a backtest sees no bar before it is over.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_engine.errors import InputError
from data_engine.export.atomic_file import flush, remove, size_of, write_whole
from data_engine.export.format import Bars, Losses, SymbolRecord, Unit, refuse_outside
from data_engine.export.kept_digits import MOST_DECIMALS, decimals_of, lost_with_decimals
from data_engine.market.bars import Int64s, from_micros, numbers, timestamps_us, to_micros
from data_engine.market.corporate_action import Action
from data_engine.market.series import Timeframe

_PRICES = ("open", "high", "low", "close")

_SCALE = 16  # decimals of the integers

_LEAST = 2  # decimals of a price

_MOST_PRICE = 17_014_118_346_046.0  # PRICE_MAX of builds with 128-bit values

_MOST_SHARES = 34_028_236_692_093.0  # their QUANTITY_MAX

_MOST_QUOTED = 2.0**63  # a price times its decimals: `_wide` multiplies 64 bits

_DAY = Timeframe(1, "Day")

_BAR_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.binary(16), nullable=False) for name in (*_PRICES, "volume")),
        *(pa.field(name, pa.uint64(), nullable=False) for name in ("ts_event", "ts_init")),
    ]
)

_WORD = pa.dictionary(pa.int16(), pa.string())

_EQUITY_SCHEMA = pa.schema(
    [
        ("id", pa.dictionary(pa.int64(), pa.string())),
        ("raw_symbol", pa.string()),
        ("currency", _WORD),
        ("price_precision", pa.uint8()),
        *((name, _WORD) for name in ("price_increment", "lot_size", "max_quantity", "min_quantity")),
        *((name, pa.string()) for name in ("isin", "margin_init", "margin_maint", "maker_fee", "taker_fee")),
        ("info", pa.binary()),
        ("ts_event", pa.uint64()),
        ("ts_init", pa.uint64()),
    ],
    metadata={"class": "Equity"},
)


class NautilusCatalog:
    """The format ``nautilus``.

    Args:
        folder: The folder of the catalog.
        bars: The bars.

    Raises:
        InputError: If Nautilus has no bars of that length.
    """

    columns = (*_PRICES, "volume")
    appends = False
    with_actions = False

    def __init__(self, folder: Path, bars: Bars) -> None:
        self._folder = folder / "data"
        self._bars = bars
        self._step = _step(bars)
        self._decimals: dict[str, int] = {}
        self._highest: dict[str, float] = {}
        if not re.fullmatch(r"[A-Z0-9_]{1,32}", bars.venue):
            raise InputError(f"cannot use --venue {bars.venue!r}: pass capital letters and digits, such as XNAS")

    def survey(self, symbol: str, unit: Unit, table: pa.Table, losses: Losses) -> None:
        """Count fractional volumes and prices with too many decimals, and find the decimals of the prices.

        Raises:
            InputError: If the catalog cannot have such a symbol or value.
        """
        if not re.fullmatch(r"[A-Z0-9.@_-]+", symbol):
            raise InputError(f"cannot export {symbol!r} to nautilus: it cannot be a part of an instrument's name; leave it out")
        used = self._decimals.get(symbol, _LEAST)
        for name in _PRICES:
            values = numbers(table.column(name))
            refuse_outside("nautilus", symbol, name, values, _MOST_PRICE)
            self._highest[symbol] = max(self._highest.get(symbol, 0.0), float(values.max()))
            used = max(used, decimals_of(values))
            lost = lost_with_decimals(values, MOST_DECIMALS)
            losses.add_values(f"prices with more than {MOST_DECIMALS} decimals are rounded", symbol, values, lost)
        decimals = self._decimals[symbol] = min(used, MOST_DECIMALS)
        highest = np.array([self._highest[symbol]])
        refuse_outside("nautilus", symbol, f"price (with {decimals} decimals, as others have)", highest, _most(decimals))
        volume = numbers(table.column("volume"))
        refuse_outside("nautilus", symbol, "volume", volume, _MOST_SHARES)
        losses.add_values("fractional volumes are rounded to whole shares", symbol, volume, lost_with_decimals(volume, 0))

    def survey_actions(self, symbol: str, first: int, last: int, actions: Sequence[Action], losses: Losses) -> None:
        """A catalog has no corporate actions."""

    def confirm(self, symbol: str, record: SymbolRecord) -> bool:
        """Return whether the instrument and the files of all units are there, as long as they were written."""
        # Earlier versions recorded the number of bars as the end of a unit.
        files = ((size_of(self._path(symbol, unit)), unit) for unit in record.units)
        return bool(size_of(self._equity(symbol))) and all(size and unit.end in (size, unit.rows) for size, unit in files)

    def prepare(self, units: Mapping[str, Sequence[Unit]], others: Mapping[str, SymbolRecord]) -> None:
        """Symbols do not depend on each other."""

    def shape(self, symbol: str) -> Mapping[str, Any]:
        """Return the decimals of the prices, which all files of a symbol share with its instrument."""
        return {"decimals": self._decimals[symbol]}

    def list_symbols(self, records: Mapping[str, Sequence[Unit]]) -> None:
        """A catalog has no list of its files."""

    def begin(self) -> None:
        """Nothing has to be there first."""

    def forget(self, symbol: str, gone: Sequence[Unit], kept: Unit | None) -> None:
        """Remove the files of some units."""
        for unit in gone:
            remove(self._path(symbol, unit))

    def forget_all(self, symbol: str) -> None:
        """Remove the folders of a symbol."""
        remove(self._bars_of(symbol))
        remove(self._equity(symbol).parent)

    def write(self, symbol: str, unit: Unit, table: pa.Table, before: Unit | None) -> int:
        """Write a file of bars and, before the first, that of the instrument."""
        if before is None:
            self._write_instrument(symbol)
        decimals = self._decimals[symbol]
        ends = (self._ends(timestamps_us(table)) * 1000).astype(np.uint64)
        columns = [_wide(numbers(table.column(name)), decimals) for name in _PRICES]
        columns += [_wide(numbers(table.column("volume")), 0), pa.array(ends), pa.array(ends)]
        schema = _BAR_SCHEMA.with_metadata(
            {
                "bar_type": self._bar_type(symbol),
                "instrument_id": self._instrument(symbol),
                "price_precision": str(decimals),
                "size_precision": "0",
            }
        )
        content = _parquet(pa.Table.from_arrays(columns, schema=schema))
        write_whole(self._path(symbol, unit), content)
        return len(content)

    def flush(self, symbol: str) -> None:
        """Flush the names of the files, whose contents are."""
        flush((self._equity(symbol), self._bars_of(symbol) / "any"), self._folder.parent)

    def _write_instrument(self, symbol: str) -> None:
        name, decimals = self._instrument(symbol), self._decimals[symbol]
        row = {
            "id": name,
            "raw_symbol": symbol,
            "currency": "USD",
            "price_precision": decimals,
            "price_increment": f"{10**-decimals:.{decimals}f}",
            "lot_size": "1",
            **dict.fromkeys(("margin_init", "margin_maint", "maker_fee", "taker_fee"), "0"),
            "info": b"null",
            "ts_event": 0,
            "ts_init": 0,
        }
        write_whole(self._equity(symbol), _parquet(pa.Table.from_pylist([row], _EQUITY_SCHEMA)))

    def _instrument(self, symbol: str) -> str:
        return f"{symbol}.{self._bars.venue}"

    def _bar_type(self, symbol: str) -> str:
        return f"{self._instrument(symbol)}-{self._step}-LAST-EXTERNAL"

    def _equity(self, symbol: str) -> Path:
        return self._folder / "equity" / self._instrument(symbol) / f"{_file_time(0)}_{_file_time(0)}.parquet"

    def _bars_of(self, symbol: str) -> Path:
        return self._folder / "bar" / self._bar_type(symbol)

    def _path(self, symbol: str, unit: Unit) -> Path:
        first, last = self._ends(np.array([unit.first, unit.last], np.int64)).tolist()
        return self._bars_of(symbol) / f"{_file_time(first)}_{_file_time(last)}.parquet"

    def _ends(self, times: Int64s) -> Int64s:
        """Return the ends of bars, in microseconds."""
        minutes = self._bars.minutes
        if minutes is not None:
            return times + minutes * 60_000_000
        following = self._bars.dataset.timeframe.next if self._bars.resampling is None else _DAY.next
        return np.array([to_micros(following(from_micros(time))) for time in times.tolist()], np.int64)


def _step(bars: Bars) -> str:
    """Return the length of a bar as it is named in a bar type.

    Raises:
        InputError: If there is no such length.
    """
    minutes = bars.minutes
    if minutes is None:
        timeframe = _DAY if bars.daily else bars.dataset.timeframe
        return f"{timeframe.amount}-{timeframe.unit.upper()}"
    amount, whole = (minutes, 60) if minutes < 60 else (minutes // 60, 24)
    if (minutes > 60 and minutes % 60) or whole % amount:
        raise InputError(
            f"cannot export {bars} bars to nautilus: its bars divide an hour or a day; pass 1Min, 5Min, 1Hour or 1Day"
        )
    return f"{amount}-{'MINUTE' if minutes < 60 else 'HOUR'}"


def _most(decimals: int) -> float:
    """Return a price below which all prices with so many decimals can be written."""
    return min(_MOST_PRICE, _MOST_QUOTED / 10.0**decimals)


def _wide(values: Any, decimals: int) -> pa.Array:
    """Return values as integers of 16 decimals, in 16 bytes: two numbers of 64 bits, from a product of halves of 32."""
    quoted = np.rint(values * 10.0**decimals).astype(np.uint64)
    factor = 10 ** (_SCALE - decimals)
    low, high = np.uint64(factor & 0xFFFFFFFF), np.uint64(factor >> 32)
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    right, left = quoted & mask, quoted >> half
    product = right * low
    middle = left * low + right * high + (product >> half)
    words = np.empty((quoted.size, 2), dtype="<u8")
    words[:, 0] = (middle << half) | (product & mask)
    words[:, 1] = left * high + (middle >> half)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), quoted.size, [None, pa.py_buffer(words.tobytes())])


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=5000)  # the size by which the engine reads
    return sink.getvalue()


def _file_time(micros: int) -> str:
    """Return an instant as a file name has it: ``2024-06-03T13-31-00-000000000Z``."""
    at = datetime.fromtimestamp(micros // 1_000_000, UTC)
    return f"{at:%Y-%m-%dT%H-%M-%S}-{micros % 1_000_000:06d}000Z"
