"""Write a data folder of Qlib: a calendar, a list of instruments, and a file of 32-bit floats per instrument and field.

Layout is that of Qlib 0.9: ``calendars/FREQ.txt``; ``instruments/all.txt``; ``features/SYMBOL/FIELD.FREQ.bin``, whose first
number is the place of the first value in the calendar, one value per place, NaN where there is no bar. The calendar has all
places of the sessions from the first bar on, so that more bars only make it longer. Times are those of New York, without a zone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.errors import InputError
from data_engine.export.atomic_file import flush, remove, size_of, write_whole
from data_engine.export.format import Bars, Losses, SymbolRecord, Unit
from data_engine.export.kept_digits import lost_in_float32
from data_engine.market.bars import VALUES, Int64s, from_micros, numbers, timestamps_us, to_micros
from data_engine.market.corporate_action import Action
from data_engine.market.exchange_calendar import sessions, trading_hours
from data_engine.market.session_hours import Hours
from data_engine.market.time_range import NEW_YORK, TimeRange, new_york_date, new_york_midnight

_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{name}{digit}" for name in ("COM", "LPT") for digit in range(10))}
"""The symbols that Qlib gives another folder, since Windows has no files of these names."""

_NOT_TEXT = {"NA", "NAN", "NULL", "NONE", "N/A"}
"""The symbols that Qlib, which reads its list with pandas, takes for missing."""

_MINUTE = timedelta(minutes=1)


class QlibFeatures:
    """The format ``qlib``.

    Args:
        folder: The folder of the data: Qlib's ``provider_uri``.
        bars: The bars.

    Raises:
        InputError: If Qlib has no bars of that length.
    """

    columns = VALUES
    appends = True
    with_actions = False

    def __init__(self, folder: Path, bars: Bars) -> None:
        if bars.minutes is None and not bars.daily:
            raise InputError(f"cannot export {bars} bars to qlib: its calendars have days or minutes; pass 1Day, or minutes")
        self._folder = folder
        self._bars = bars
        self._freq = "day" if bars.minutes is None else f"{bars.minutes}min"
        # Of adjusted bars, the raw price is not known.
        self._fields = (*VALUES, "factor") if bars.dataset.adjustment.is_raw else VALUES
        self._places: Int64s = np.empty(0, np.int64)
        self._grids: dict[tuple[date, date], Int64s] = {}

    def survey(self, symbol: str, unit: Unit, table: pa.Table, losses: Losses) -> None:
        """Count values that 32 bits change, and bars outside the hours of the calendar."""
        if symbol in _NOT_TEXT or not re.fullmatch(r"[A-Z0-9.@_-]+", symbol):
            raise InputError(f"cannot export {symbol!r} to qlib: it would read that as no symbol or another; leave it out")
        for name in self.columns:
            values = numbers(table.column(name))
            kind = f"values of {name} need more digits than a 32-bit float has"
            losses.add_values(kind, symbol, values, lost_in_float32(values))
        times = timestamps_us(table)
        outside = ~np.isin(times, self._grid(_day(unit.first), _day(unit.last)))
        example = f"{from_micros(int(times[int(np.argmax(outside))])):%Y-%m-%dT%H:%MZ} of {symbol}"
        losses.add("bars outside the hours of a session are left out", int(outside.sum()), example)

    def survey_actions(self, symbol: str, first: int, last: int, actions: Sequence[Action], losses: Losses) -> None:
        """The folder has no corporate actions."""

    def confirm(self, symbol: str, record: SymbolRecord) -> bool:
        """Return whether all fields of a symbol have a value for each place from the first bar to the last."""
        end = record.units[-1].end if record.units else 0
        if not end:
            return True
        start = _start(self._path(symbol, "close"))
        files = [self._path(symbol, name) for name in self._fields]
        return 0 <= start < end and all(_start(path) == start and size_of(path) == 4 * (1 + end - start) for path in files)

    def prepare(self, units: Mapping[str, Sequence[Unit]], others: Mapping[str, SymbolRecord]) -> None:
        """Make the calendar."""
        first = min(_day(one[0].first) for one in units.values())
        last = max(_day(one[-1].last) for one in units.values())
        if others:
            began = {symbol: date.fromisoformat(str(one.shape["calendar"])) for symbol, one in others.items()}
            lone = min(began, key=lambda symbol: began[symbol])
            differing = [symbol for symbol, day in began.items() if day != began[lone]]
            if differing:
                raise InputError(
                    f"cannot export to {self._folder}: its symbols are counted by calendars from {began[lone]} ({lone}) and from "
                    f"{began[differing[0]]} ({differing[0]}); pass all symbols of the folder, or another folder"
                )
            if first < began[lone]:
                raise InputError(
                    f"cannot export bars of {first}: the calendar of the folder begins on {began[lone]}, and {len(others):,} "
                    "more symbols in it depend on that; pass these symbols, too, a later --start, or another folder"
                )
            first = began[lone]
            last = max(last, *(_day(one.units[-1].last) for one in others.values() if one.units))
        self._first = first
        self._places = self._grid(first, last)

    def shape(self, symbol: str) -> Mapping[str, Any]:
        """Return the first day of the calendar, from which places are counted."""
        return {"calendar": self._first.isoformat()}

    def list_symbols(self, records: Mapping[str, Sequence[Unit]]) -> None:
        """Write the list of instruments, with their first and last bar: those in the features, not those left out."""
        lines = (self._line(symbol, units[-1].end) for symbol, units in sorted(records.items()) if units and units[-1].end)
        path = self._folder / "instruments" / "all.txt"
        write_whole(path, "".join(lines).encode())
        flush((path,), self._folder)

    def _line(self, symbol: str, end: int) -> str:
        places = (_start(self._path(symbol, "close")), end - 1)
        first, last = (self._text(int(self._places[at])) for at in places)
        return f"{symbol}\t{first}\t{last}\n"

    def begin(self) -> None:
        """Write the calendar."""
        lines = "".join(f"{self._text(time)}\n" for time in self._places.tolist())
        path = self._folder / "calendars" / f"{self._freq}.txt"
        write_whole(path, lines.encode())
        flush((path,), self._folder)

    def forget(self, symbol: str, gone: Sequence[Unit], kept: Unit | None) -> None:
        """Cut the files of a symbol after the unit that stays."""
        if kept is None or not kept.end:
            self.forget_all(symbol)
            return
        for name in self._fields:
            with self._path(symbol, name).open("r+b") as file:
                file.truncate(4 * (1 + kept.end - _place(file.read(4))))

    def forget_all(self, symbol: str) -> None:
        """Remove the folder of a symbol."""
        remove(self._path(symbol, "close").parent)

    def write(self, symbol: str, unit: Unit, table: pa.Table, before: Unit | None) -> int:
        """Append the bars of a unit to the files; return the place after the last."""
        times = timestamps_us(table)
        inside = np.isin(times, self._places)
        at = np.searchsorted(self._places, times[inside])
        if not at.size:
            return 0 if before is None else before.end
        fresh = before is None or before.end == 0
        start = int(at[0]) if fresh or before is None else before.end
        end = int(at[-1]) + 1
        for name in self._fields:
            made = np.full(end - start, np.nan, "<f4")
            made[at - start] = 1.0 if name == "factor" else numbers(table.column(name))[inside]
            path = self._path(symbol, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb" if fresh else "ab") as file:
                file.write(np.array([start], "<f4").tobytes() if fresh else b"")
                file.write(made.tobytes())
        return end

    def flush(self, symbol: str) -> None:
        """Flush the files of a symbol."""
        files = (self._path(symbol, name) for name in self._fields)
        flush([path for path in files if path.is_file()], self._folder, written=True)

    def _path(self, symbol: str, name: str) -> Path:
        folder = f"_qlib_{symbol}" if symbol in _DEVICES else symbol
        return self._folder / "features" / folder.lower() / f"{name}.{self._freq}.bin"

    def _text(self, time: int) -> str:
        at = from_micros(time).astimezone(NEW_YORK)
        return f"{at:%Y-%m-%d}" if self._freq == "day" else f"{at:%Y-%m-%d %H:%M:%S}"

    def _grid(self, first: date, last: date) -> Int64s:
        """Return where bars of the sessions of some days start, in microseconds."""
        if (first, last) not in self._grids:
            self._grids = {(first, last): self._starts(first, last)}
        return self._grids[first, last]

    def _starts(self, first: date, last: date) -> Int64s:
        minutes = self._bars.minutes
        if minutes is None:
            return np.array([to_micros(new_york_midnight(day)) for day in sessions(first, last)], np.int64)
        step = minutes * 60_000_000
        spans = [self._hours(day) for day in sessions(first, last)]
        parts = [np.arange(to_micros(span.start), to_micros(span.end), step, dtype=np.int64) for span in spans]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _hours(self, day: date) -> TimeRange:
        hours = self._bars.hours
        span = trading_hours(day) if hours is Hours.ALL else hours.of(day)
        if self._bars.resampling is not None:
            return span
        return TimeRange(self._bars.dataset.timeframe.floor(span.start), span.end)


def _start(path: Path) -> int:
    """Return the place of the first value of a file; -1 if it has none."""
    try:
        with path.open("rb") as file:
            return _place(file.read(4))
    except FileNotFoundError:
        return -1


def _place(head: bytes) -> int:
    place = float(np.frombuffer(head, "<f4")[0]) if len(head) == 4 else -1.0
    return int(place) if place.is_integer() else -1


def _day(time: int) -> date:
    return new_york_date(from_micros(time))
