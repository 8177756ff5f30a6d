"""Write what a bundle of zipline-reloaded ingests: daily bars and corporate actions as CSV, and the module that registers it.

zipline keeps what it ingests in files of its own, whole, one set per ingestion. So the export is what its ingestion reads:
``daily/SYMBOL.csv`` and ``actions/SYMBOL.csv``, which grow, and ``data_engine_bundle.py``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.errors import InputError
from data_engine.export.atomic_file import flush, remove, size_of, write_whole
from data_engine.export.format import Bars, Losses, SymbolRecord, Unit, refuse_outside
from data_engine.export.kept_digits import lost_with_decimals
from data_engine.market.bars import from_micros, numbers, timestamps_us
from data_engine.market.corporate_action import Action, CashDividend, Split, StockDividend
from data_engine.market.exchange_calendar import is_session
from data_engine.market.time_range import new_york_date
from data_engine.store.partitions import encode_symbol

_PRICES = ("open", "high", "low", "close")

_DECIMALS = 3  # zipline stores thousandths of a dollar, in 32 bits

_MOST_SHARES = 2**32 - 2

_MOST_PRICE = _MOST_SHARES / 1000

_ACTIONS = ("kind", "ex_date", "value", "record_date", "pay_date")

_MODULE = "data_engine_bundle.py"


class ZiplineBundle:
    """The format ``zipline``.

    Args:
        folder: The folder of the export.
        bars: The bars.

    Raises:
        InputError: If the bars are no raw daily bars.
    """

    columns = (*_PRICES, "volume")
    appends = True
    with_actions = True

    def __init__(self, folder: Path, bars: Bars) -> None:
        if not bars.daily:
            raise InputError(
                f"cannot export {bars} bars to zipline: the bundle has daily bars; pass --timeframe 1Day, or --resample 1Day"
            )
        if not bars.dataset.adjustment.is_raw:
            raise InputError(
                f"cannot export bars with --adjustment {bars.dataset.adjustment} to zipline: it adjusts raw bars itself, by the "
                "splits and dividends of the bundle; leave it out"
            )
        self._folder = folder
        self._actions: dict[str, bytes] = {}

    def survey(self, symbol: str, unit: Unit, table: pa.Table, losses: Losses) -> None:
        """Count prices with more than three decimals, fractional volumes, what exceeds 32 bits, and days without a session."""
        if not re.fullmatch(r"[A-Z0-9.@_/-]+", symbol):
            raise InputError(f"cannot export {symbol!r} to zipline: it is no symbol there; leave it out")
        volume = numbers(table.column("volume"))
        refuse_outside("zipline", symbol, "volume", volume)
        losses.add_values(f"volumes above {_MOST_SHARES:,} are cut to that", symbol, volume, volume > _MOST_SHARES)
        losses.add_values("fractional volumes are rounded to whole shares", symbol, volume, lost_with_decimals(volume, 0))
        for name in _PRICES:
            values = numbers(table.column(name))
            losses.add_values("prices are rounded to a tenth of a cent", symbol, values, lost_with_decimals(values, _DECIMALS))
            refuse_outside("zipline", symbol, name, values, _MOST_PRICE)
        days = [_day(time) for time in timestamps_us(table).tolist()]
        closed = np.array([not is_session(day) for day in days])
        losses.add(
            "bars of days without a session are left out", int(closed.sum()), f"{days[int(np.argmax(closed))]} of {symbol}"
        )

    def survey_actions(self, symbol: str, first: int, last: int, actions: Sequence[Action], losses: Losses) -> None:
        """Make the splits and dividends of a symbol, and count the actions that a bundle cannot have."""
        rows: list[tuple[object, ...]] = []
        for action in actions:
            if not _day(first) < action.day <= _day(last):
                continue
            event, record = action.event, action.record
            if isinstance(event, (Split, StockDividend)):
                rows.append(("split", action.day, repr(1 / event.ratio), "", ""))
            elif isinstance(event, CashDividend):
                dates = (str(record.get(name) or "")[:10] for name in ("record_date", "payable_date"))
                rows.append(("dividend", action.day, repr(event.rate), *dates))
            elif event is not None:
                losses.add("corporate actions of other kinds are left out", 1, str(action))
        self._actions[symbol] = _csv([_ACTIONS, *rows])

    def confirm(self, symbol: str, record: SymbolRecord) -> bool:
        """Return whether the bars end where they did, and the corporate actions are those that were written."""
        end = record.units[-1].end if record.units else 0
        if size_of(self._path("daily", symbol)) != end or not (path := self._path("actions", symbol)).is_file():
            return False
        written = record.shape.get("actions")  # earlier versions did not record them
        return written is None or written == _digest(path.read_bytes())

    def prepare(self, units: Mapping[str, Sequence[Unit]], others: Mapping[str, SymbolRecord]) -> None:
        """Symbols do not depend on each other."""

    def shape(self, symbol: str) -> Mapping[str, Any]:
        """Return the digest of the corporate actions, which must be those of the bars."""
        return {"actions": _digest(self._actions[symbol])}

    def list_symbols(self, records: Mapping[str, Sequence[Unit]]) -> None:
        """The module lists the files."""

    def begin(self) -> None:
        """Write the module."""
        path = self._folder / _MODULE
        write_whole(path, Path(__file__).with_name(_MODULE).read_bytes())
        flush((path,), self._folder)

    def forget(self, symbol: str, gone: Sequence[Unit], kept: Unit | None) -> None:
        """Cut the file of a symbol after the unit that stays."""
        if kept is None:
            self.forget_all(symbol)
            return
        with self._path("daily", symbol).open("r+b") as file:
            file.truncate(kept.end)

    def forget_all(self, symbol: str) -> None:
        """Remove the bars of a symbol, then its corporate actions."""
        remove(self._path("daily", symbol))
        remove(self._path("actions", symbol))

    def write(self, symbol: str, unit: Unit, table: pa.Table, before: Unit | None) -> int:
        """Append the bars of a unit, after the corporate actions if it is the first; return the length of the file."""
        if before is None:
            write_whole(self._path("actions", symbol), self._actions[symbol])
        prices = [np.round(numbers(table.column(name)), _DECIMALS).tolist() for name in _PRICES]
        shares = np.minimum(np.rint(numbers(table.column("volume"))), _MOST_SHARES).astype(np.int64).tolist()
        days = [_day(time) for time in timestamps_us(table).tolist()]
        rows = [row for row in zip(days, *prices, shares, strict=True) if is_session(row[0])]
        path = self._path("daily", symbol)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb" if before is None else "ab") as file:
            file.write(_csv([("date", *self.columns), *rows] if before is None else rows))
            return file.tell()

    def flush(self, symbol: str) -> None:
        """Flush the files of a symbol."""
        flush([self._path(kind, symbol) for kind in ("daily", "actions")], self._folder, written=True)

    def _path(self, kind: str, symbol: str) -> Path:
        return self._folder / kind / f"symbol={encode_symbol(symbol)}.csv"


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _day(time: int) -> date:
    return new_york_date(from_micros(time))
