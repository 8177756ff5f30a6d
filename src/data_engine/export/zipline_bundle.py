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
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.errors import InputError
from data_engine.export.atomic_file import write_whole
from data_engine.export.format import Bars, Losses, SymbolRecord, Unit
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
        losses.add_values(f"volumes above {_MOST_SHARES:,} are cut to that", symbol, volume, volume > _MOST_SHARES)
        losses.add_values("fractional volumes are rounded to whole shares", symbol, volume, lost_with_decimals(volume, 0))
        for name in _PRICES:
            values = numbers(table.column(name))
            losses.add_values("prices are rounded to a tenth of a cent", symbol, values, lost_with_decimals(values, _DECIMALS))
            if values.max() > _MOST_PRICE:
                raise InputError(
                    f"cannot export {symbol} to zipline: {float(values.max())!r} is above its highest price; leave it out"
                )
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

    def prepare(self, units: Mapping[str, Sequence[Unit]], others: Mapping[str, SymbolRecord]) -> None:
        """Symbols do not depend on each other."""

    def shape(self, symbol: str) -> Mapping[str, Any]:
        """Return nothing: the actions have files of their own."""
        return {}

    def begin(self) -> None:
        """Write the module."""
        write_whole(self._folder / _MODULE, Path(__file__).with_name(_MODULE).read_bytes())

    def forget(self, symbol: str, gone: Sequence[Unit], kept: Unit | None) -> None:
        """Cut the file of a symbol after the unit that stays."""
        if kept is None:
            self.forget_all(symbol)
            return
        with self._path("daily", symbol).open("r+b") as file:
            file.truncate(kept.end)

    def forget_all(self, symbol: str) -> None:
        """Remove the bars of a symbol."""
        self._path("daily", symbol).unlink(missing_ok=True)

    def write(self, symbol: str, unit: Unit, table: pa.Table, before: Unit | None) -> int:
        """Append the bars of a unit; return the length of the file."""
        prices = [np.round(numbers(table.column(name)), _DECIMALS).tolist() for name in _PRICES]
        shares = np.minimum(np.rint(numbers(table.column("volume"))), _MOST_SHARES).astype(np.int64).tolist()
        days = [_day(time) for time in timestamps_us(table).tolist()]
        rows = [row for row in zip(days, *prices, shares, strict=True) if is_session(row[0])]
        path = self._path("daily", symbol)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb" if before is None else "ab") as file:
            file.write(_csv([("date", *self.columns), *rows] if before is None else rows))
            return file.tell()

    def finish(self, records: Mapping[str, Sequence[Unit]]) -> None:
        """Write the corporate actions of the symbols whose actions differ."""
        for symbol, content in self._actions.items():
            write_whole(self._path("actions", symbol), content)

    def _path(self, kind: str, symbol: str) -> Path:
        return self._folder / kind / f"symbol={encode_symbol(symbol)}.csv"


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _day(time: int) -> date:
    return new_york_date(from_micros(time))
