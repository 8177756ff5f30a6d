"""Export bars to a folder in the format of an engine: plan what differs, then write it.

All bars are read twice: first to say, before anything is written, what the format cannot hold and which units differ from what
the folder has; then to write those. At most a few units are in memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.corporate_actions.adjusted_bars import COMPUTED, VENDOR
from data_engine.errors import InputError, StoreError
from data_engine.export.export_record import ExportRecord
from data_engine.export.format import Format, Losses, SymbolRecord, Unit
from data_engine.market.bars import from_micros, numbers, timestamps_us
from data_engine.market.corporate_action import Action
from data_engine.market.time_range import new_york_date
from data_engine.market.wording import and_more

_PRICES = "prices"

_ORIGINS = {COMPUTED: "computed from raw bars", VENDOR: "that Alpaca has adjusted"}

_NAMED = 3

Actions = Callable[[str, int, int], Sequence[Action]]
"""Return the corporate actions of a symbol between its first and its last bar, in microseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Source:
    """The bars of an export.

    Attributes:
        read: What yields a symbol and some of its bars, by symbol and time, a New York month or year at a time, as
            `ParquetStorage.batches` does. It is called twice.
        actions: The corporate actions of a symbol.
        symbols: The symbols that the call asks for.
        monthly: Whether a batch is a month; else it is a year.
        whole: Whether the folder is to have these symbols alone.
        prices: Where adjusted prices come from, as `Road.prices` says; None for raw prices.
    """

    read: Callable[[], Iterator[tuple[str, pa.Table]]]
    actions: Actions
    symbols: Sequence[str]
    monthly: bool
    whole: bool
    prices: str | None

    def shape(self, symbol: str, made: Format) -> dict[str, Any]:
        """Return on what, beside its bars, the files of a symbol depend."""
        return {**made.shape(symbol), **({} if self.prices is None else {_PRICES: self.prices})}

    def units(self) -> Iterator[tuple[str, Unit, pa.Table]]:
        """Yield the bars, unit by unit."""
        for symbol, table in self.read():
            times = timestamps_us(table)
            day = new_york_date(from_micros(int(times[0])))
            label = f"{day:%Y-%m}" if self.monthly else f"{day:%Y}"
            yield symbol, Unit(label, int(times[0]), int(times[-1]), table.num_rows, _digest(table)), table


@dataclass(slots=True)
class ExportPlan:
    """What an export will write.

    Attributes:
        units: The units of each symbol, as they will be.
        losses: What the format cannot hold of them.
        kept: The units that stay as they are, by symbol and label; the others are written.
        known: What the folder has of the symbols whose files are not all written again.
        others: The symbols of the folder that this call does not ask for. They stay.
        ended: The symbols of the folder that are removed: this call asks for them and has no bars of them, or they are broken.
        broken: Those of them that this call does not ask for, and whose files are not as they were written: an export was
            interrupted, or somebody changed them.
        recorded: What the folder has, as it was recorded.
    """

    units: dict[str, list[Unit]] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)
    kept: dict[str, dict[str, Unit]] = field(default_factory=dict)
    known: dict[str, SymbolRecord] = field(default_factory=dict)
    others: dict[str, SymbolRecord] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    recorded: dict[str, SymbolRecord | None] = field(default_factory=dict)

    def writes(self, symbol: str) -> list[Unit]:
        """Return the units of a symbol that are written."""
        return [unit for unit in self.units[symbol] if unit.label not in self.kept[symbol]]

    def gone(self, symbol: str) -> list[Unit]:
        """Return the units of the folder that are removed or written again."""
        return [unit for unit in self.known[symbol].units if unit.label not in self.kept[symbol]] if symbol in self.known else []

    def changes(self, symbol: str) -> bool:
        """Return whether anything of a symbol is written or removed."""
        return bool(self.writes(symbol) or self.gone(symbol))

    def stays(self) -> dict[str, Sequence[Unit]]:
        """Return the units of the folder that are there before, during and after the export."""
        kept = {symbol: tuple(units.values()) for symbol, units in self.kept.items() if units}
        return {**{symbol: one.units for symbol, one in self.others.items()}, **kept}

    def to_json(self) -> dict[str, object]:
        """Return the counts, the symbols that are removed, and the losses."""
        written = [unit for symbol in self.units for unit in self.writes(symbol)]
        every = [unit for units in self.units.values() for unit in units]
        return {
            "symbols": len(self.units),
            "bars": sum(unit.rows for unit in every),
            "units": len(every),
            "written_bars": sum(unit.rows for unit in written),
            "written_units": len(written),
            "removed": self.ended,
            "losses": [{"kind": kind, "count": count, "example": one} for kind, (count, one) in self.losses.found.items()],
        }


def plan_export(source: Source, made: Format, record: ExportRecord) -> ExportPlan:
    """Read all bars, and return what an export will write; nothing is written.

    Args:
        source: The bars.
        made: The format.
        record: What the folder has.

    Raises:
        InputError: If the format cannot have a symbol, or there is no bar.
    """
    plan = ExportPlan()
    for symbol, unit, table in source.units():
        plan.units.setdefault(symbol, []).append(unit)
        made.survey(symbol, unit, table, plan.losses)
    if not plan.units:
        raise InputError("cannot export: no bar of these symbols is stored in the range; run `data-engine status`")
    if made.with_actions:
        for symbol, units in plan.units.items():
            first, last = units[0].first, units[-1].last
            made.survey_actions(symbol, first, last, source.actions(symbol, first, last), plan.losses)
    plan.recorded = record.symbols()
    written = _confirmed(plan.recorded, made)
    asked = {*source.symbols, *plan.units, *(plan.recorded if source.whole else ())}
    plan.others = {symbol: one for symbol, one in written.items() if symbol not in asked}
    plan.broken = [symbol for symbol in plan.recorded if symbol not in written and symbol not in asked]
    plan.ended = [symbol for symbol in plan.recorded if symbol not in plan.units and symbol not in plan.others]
    _refuse_mixed(source, plan.others)
    made.prepare(plan.units, plan.others)
    for symbol, units in plan.units.items():
        known = written.get(symbol)
        if known is not None and dict(known.shape) == source.shape(symbol, made):
            plan.known[symbol] = known
            plan.kept[symbol] = {unit.label: unit for unit in _kept(known.units, units, appends=made.appends)}
        else:
            plan.kept[symbol] = {}
    return plan


def _confirmed(recorded: Mapping[str, SymbolRecord | None], made: Format) -> dict[str, SymbolRecord]:
    """Return the symbols of the folder whose files are as they were written."""
    try:
        return {symbol: one for symbol, one in recorded.items() if one is not None and made.confirm(symbol, one)}
    except OSError as error:
        raise StoreError(f"cannot read {error.filename}: {error.strerror or error}; run the export again") from error


def _refuse_mixed(source: Source, others: Mapping[str, SymbolRecord]) -> None:
    """Refuse adjusted prices of two origins in one folder.

    Raises:
        InputError: If the folder has prices of another origin.
    """
    if source.prices is None:
        return
    differing = {symbol: str(one.shape.get(_PRICES)) for symbol, one in others.items() if one.shape.get(_PRICES) != source.prices}
    if differing:
        origin = _ORIGINS.get(next(iter(differing.values())), "of unknown origin")
        raise InputError(
            f"cannot export prices {_ORIGINS[source.prices]}: the folder has prices {origin} of {and_more(differing, _NAMED)}; "
            "pass all symbols of the folder, or another folder"
        )


def _kept(written: Sequence[Unit], wanted: Sequence[Unit], *, appends: bool) -> Iterator[Unit]:
    """Yield the written units that stay."""
    if appends:
        for old, new in zip(written, wanted, strict=False):
            if not old.same_bars(new):
                return
            yield old
        return
    there = {unit.label: unit for unit in wanted}
    yield from (old for old in written if old.label in there and old.same_bars(there[old.label]))


def run_export(plan: ExportPlan, source: Source, made: Format, record: ExportRecord, folder: Path) -> None:
    """Write what a plan says.

    Args:
        plan: The plan.
        source: The bars.
        made: The format.
        record: What the folder has.
        folder: The folder.

    Raises:
        StoreBusy: If another export writes to the folder, or has since the plan was made.
        StoreError: If the bars are no longer those of the plan, or a file cannot be written. The next export writes again what
            this one began.
    """
    try:
        with record.locked():
            record.begin(plan.recorded)
            _clear(plan, made, record)
            made.begin()
            written = _write_all(plan, source, made, record)
            made.list_symbols({**{symbol: one.units for symbol, one in plan.others.items()}, **written})
    except OSError as error:
        raise StoreError(f"cannot write {error.filename or folder}: {error.strerror or error}; run the export again") from error


def _clear(plan: ExportPlan, made: Format, record: ExportRecord) -> None:
    """Remove the symbols that go, and what those had that are written whole; before, nothing names them any longer."""
    whole = [symbol for symbol in plan.units if symbol not in plan.known]
    for symbol in (*plan.ended, *whole):
        if symbol in plan.recorded:
            record.suspend(symbol)
    made.list_symbols(plan.stays())
    for symbol in (*plan.ended, *whole):
        made.forget_all(symbol)
    for symbol in plan.ended:
        record.forget(symbol)


def _write_all(plan: ExportPlan, source: Source, made: Format, record: ExportRecord) -> dict[str, list[Unit]]:
    """Write the units that differ, and return all of them with their ends."""
    made_units: dict[str, list[Unit]] = {}
    for symbol, unit, table in source.units():
        done = made_units.setdefault(symbol, [])
        planned = plan.units.get(symbol, [])
        if len(done) == len(planned) or not planned[len(done)].same_bars(unit):
            raise StoreError(f"the bars of {symbol} changed while they were exported; run the export again")
        changes = plan.changes(symbol)
        if changes and not done:
            _open(plan, made, record, symbol)
        kept = plan.kept[symbol].get(unit.label)
        done.append(kept or replace(unit, end=made.write(symbol, unit, table, done[-1] if done else None)))
        if changes and len(done) == len(planned):
            made.flush(symbol)
            record.write(symbol, source.shape(symbol, made), done)
    if any(len(made_units.get(symbol, ())) != len(units) for symbol, units in plan.units.items()):
        raise StoreError("stored bars were removed while they were exported; run the export again")
    return made_units


def _open(plan: ExportPlan, made: Format, record: ExportRecord, symbol: str) -> None:
    """Remove what the new bars of a symbol replace; its files are unfinished from now on."""
    record.suspend(symbol)
    if symbol in plan.known:
        kept = list(plan.kept[symbol].values())
        made.forget(symbol, plan.gone(symbol), kept[-1] if made.appends and kept else None)


def _digest(table: pa.Table) -> str:
    """Return the digest of bars: of the timestamps and the columns that there are."""
    rows = np.empty((table.num_rows, table.num_columns - 1), dtype="<i8")
    rows[:, 0] = timestamps_us(table)
    for at, name in enumerate(table.column_names[2:], start=1):
        rows[:, at] = (numbers(table.column(name)) + 0.0).view("<i8")  # -0.0 is 0.0
    return blake2b(rows.tobytes(), digest_size=16).hexdigest()
