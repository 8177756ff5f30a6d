"""Define what a format of an export does: `Format`; and what it cannot hold: `Losses`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.errors import InputError
from data_engine.market.corporate_action import Action
from data_engine.market.resampling import Resampling
from data_engine.market.series import Dataset
from data_engine.market.session_hours import Hours


@dataclass(frozen=True, slots=True)
class Unit:
    """Bars that are written together: of one symbol, a New York month of minutes or hours, or a year of longer bars.

    Attributes:
        label: The month or the year, such as ``2024-06`` or ``2024``.
        first: The timestamp of the first bar, microseconds since 1970.
        last: The timestamp of the last bar.
        rows: The number of bars, at least 1.
        digest: The digest of the bars.
        end: Where the bars end in what was written, as the format counts it.
    """

    label: str
    first: int
    last: int
    rows: int
    digest: str
    end: int = 0

    def same_bars(self, other: Unit) -> bool:
        """Return whether both have the same bars."""
        return (self.first, self.last, self.rows, self.digest) == (other.first, other.last, other.rows, other.digest)


@dataclass(frozen=True, slots=True)
class SymbolRecord:
    """What was written of one symbol.

    Attributes:
        shape: On what its files depend, beside its bars.
        units: The units, in order of time.
    """

    shape: Mapping[str, Any]
    units: tuple[Unit, ...]


@dataclass(slots=True)
class Losses:
    """What a format cannot hold of some bars.

    Attributes:
        found: For each kind of loss, the number of values (or bars, or actions) and an example.
    """

    found: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, kind: str, count: int, example: str) -> None:
        """Count values that would change or go."""
        if count:
            before, first = self.found.get(kind, (0, example))
            self.found[kind] = (before + count, first)

    def add_values(self, kind: str, symbol: str, values: Any, lost: Any) -> None:
        """Count values of a symbol that would change; *lost* is a truth value per value, and the first such one the example."""
        self.add(kind, int(lost.sum()), f"{float(values[int(lost.argmax())])!r} of {symbol}")

    def lines(self) -> list[str]:
        """Return a line per kind of loss."""
        return [f"{count:,} {kind}, such as {example}" for kind, (count, example) in self.found.items()]


def refuse_outside(to: str, symbol: str, name: str, values: Any, most: float = np.inf) -> None:
    """Refuse values of a column that a format would take for others: those below 0, and those above its highest.

    Raises:
        InputError: If there is one.
    """
    outside = ~((values >= 0) & (values <= most))
    if outside.any():
        value = float(values[int(outside.argmax())])
        limit = "below 0" if value < 0 else f"above {most:,.0f}, the highest that it holds"
        remedy = f"correct that bar in the store, or leave {symbol} out"
        raise InputError(f"cannot export {symbol} to {to}: its {name} {value!r} is {limit}; {remedy}")


@dataclass(frozen=True, slots=True)
class Bars:
    """The bars of an export.

    Attributes:
        dataset: The stored dataset that they come from, with the adjustment of the result.
        hours: The hours of the day.
        resampling: How they are computed from stored bars. If None, they are stored.
        venue: The name of the venue, for engines that need one.
        actions: The corporate actions of the store.
    """

    dataset: Dataset
    hours: Hours
    resampling: Resampling | None
    venue: str
    actions: ActionStore

    @property
    def minutes(self) -> int | None:
        """The length of a bar in minutes; None for bars of a day or longer."""
        if self.resampling is not None:
            return self.resampling.minutes
        timeframe = self.dataset.timeframe
        return timeframe.amount * (60 if timeframe.unit == "Hour" else 1) if timeframe.intraday else None

    @property
    def daily(self) -> bool:
        """Whether a bar is a day long."""
        return self.minutes is None and (self.resampling is not None or self.dataset.timeframe.unit == "Day")

    def __str__(self) -> str:
        return str(self.resampling or self.dataset.timeframe)


class Format(Protocol):
    """Write bars in one format below one folder.

    An export calls: `survey` for each unit of each symbol, `survey_actions` for each symbol, `confirm` for each symbol of the
    folder, `prepare`; then `list_symbols` with what stays; `forget_all` for each symbol that goes or is written whole; `begin`;
    for each symbol that changes, `forget`, `write` and `flush`; `list_symbols` with all. Until the first `list_symbols`, nothing
    is written.
    """

    columns: Sequence[str]
    """The columns of bars that the format has, beside the timestamp."""

    appends: bool
    """Whether the units of a symbol lie in one file, so that those after a changed one are written again."""

    with_actions: bool
    """Whether the format has corporate actions."""

    def survey(self, symbol: str, unit: Unit, table: pa.Table, losses: Losses) -> None:
        """See the bars of a unit, and count what cannot be held.

        Raises:
            InputError: If the format cannot have such a symbol.
        """

    def survey_actions(self, symbol: str, first: int, last: int, actions: Sequence[Action], losses: Losses) -> None:
        """See the corporate actions of a symbol that took effect between its first and its last bar, in microseconds."""

    def confirm(self, symbol: str, record: SymbolRecord) -> bool:
        """Return whether the files of a symbol are as long as its record says; else they are not relied on."""

    def prepare(self, units: Mapping[str, Sequence[Unit]], others: Mapping[str, SymbolRecord]) -> None:
        """See all units of the export, and the symbols of the folder that stay as they are.

        Raises:
            InputError: If both cannot be in one folder.
        """

    def shape(self, symbol: str) -> Mapping[str, Any]:
        """Return on what, beside its bars, the files of a symbol depend: if it differs, all of them are written again."""

    def list_symbols(self, records: Mapping[str, Sequence[Unit]]) -> None:
        """Write what depends on all symbols: *records* has the units that are there. It survives a power failure."""

    def begin(self) -> None:
        """Write what must exist before the bars do."""

    def forget(self, symbol: str, gone: Sequence[Unit], kept: Unit | None) -> None:
        """Remove some units of a symbol.

        Args:
            symbol: The symbol.
            gone: The units.
            kept: If the format appends, the last unit that stays, else None. If None, nothing of the symbol stays in its files.
        """

    def forget_all(self, symbol: str) -> None:
        """Remove all files of a symbol, whatever they are. That they are gone survives a power failure."""

    def write(self, symbol: str, unit: Unit, table: pa.Table, before: Unit | None) -> int:
        """Write the bars of a unit, and return where they end.

        Args:
            symbol: The symbol.
            unit: The unit.
            table: Its bars, sorted by ``timestamp``.
            before: The unit before it, as written. If None, it is the first.
        """

    def flush(self, symbol: str) -> None:
        """Have what was written of a symbol survive a power failure."""


class FormatMaker(Protocol):
    """Make a format of a folder."""

    def __call__(self, folder: Path, bars: Bars) -> Format:
        """Return the format.

        Raises:
            InputError: If the format cannot have such bars.
        """
