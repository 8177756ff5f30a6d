"""Corporate actions as values: a question to ``/v1/corporate-actions``, its pages, and what of them changes prices.

Every record that comes is kept as it came. Splits, cash and stock dividends, spin-offs and name changes are read besides;
mergers, redemptions, rights and the like change no price by a known amount, and are only kept. Dates are New York days.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

_SYMBOL_KEYS = (
    "symbol", "source_symbol", "old_symbol", "acquiree_symbol", "new_symbol", "acquirer_symbol", "alternate_symbol",
)  # fmt: skip
"""Where a record names symbols: first the one whose shares it is about, then those that come out of it."""


@dataclass(frozen=True, slots=True)
class Split:
    """A change of the number of shares, forward or reverse.

    Attributes:
        new: how many shares there are afterwards...
        old: ...for so many before.
    """

    new: float
    old: float

    @property
    def ratio(self) -> float:
        """Shares afterwards for one before: 10 where the price becomes a tenth."""
        return self.new / self.old


@dataclass(frozen=True, slots=True)
class StockDividend:
    """New shares for old ones, at no price.

    Attributes:
        rate: new shares for one held: 0.05.
    """

    rate: float

    @property
    def ratio(self) -> float:
        """Shares afterwards for one before."""
        return 1 + self.rate


@dataclass(frozen=True, slots=True)
class CashDividend:
    """Money for each share.

    Attributes:
        rate: per share, in *currency*.
        currency: ISO 4217.
    """

    rate: float
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class SpinOff:
    """Shares of another company for those held.

    Attributes:
        new_symbol: of that company.
        ratio: its shares for one share held.
    """

    new_symbol: str
    ratio: float


@dataclass(frozen=True, slots=True)
class NameChange:
    """One security, another ticker.

    Attributes:
        old: the symbol until the day before.
        new: the symbol from the day on.
    """

    old: str
    new: str


Event = Split | StockDividend | CashDividend | SpinOff | NameChange


@dataclass(frozen=True, slots=True)
class Action:
    """One corporate action.

    Attributes:
        kind: the vendor's word, singular: ``forward_split``, ``cash_dividend``, ``stock_merger`` ...
        symbols: that it names, first the one whose shares it is about.
        process_date: when the vendor books it; for a dividend that is when it is paid, weeks after the ex-date.
        ex_date: the first day at the new price; of a name change, the first day under the new name; None where there is none.
        event: what it does to prices or names; None where that is nothing, or not known.
        flaw: what a record of a kind that changes prices lacks; None where it lacks nothing.
        record: as the vendor sent it.
    """

    kind: str
    symbols: tuple[str, ...]
    process_date: date
    ex_date: date | None
    event: Event | None
    flaw: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def symbol(self) -> str:
        """Whose shares it is about."""
        return self.symbols[0]

    @property
    def day(self) -> date:
        """The ex-date, or the process date where there is none."""
        return self.ex_date or self.process_date

    @property
    def key(self) -> str:
        """What makes it the same action in another answer: the vendor's id, or all it says where it has none."""
        made = self.record.get("id")
        return made if isinstance(made, str) and made else f"{self.kind} {json.dumps(self.record, sort_keys=True)}"

    @property
    def order(self) -> tuple[date, str, str]:
        """What actions are sorted by."""
        return self.day, self.kind, self.key

    def __str__(self) -> str:
        event = self.event
        if isinstance(event, NameChange):
            return f"{event.old} renamed to {event.new} on {self.day}"
        what = self.kind.replace("_", " ")
        if isinstance(event, Split):
            what = f"{event.new:g}-for-{event.old:g} split"
        elif isinstance(event, CashDividend):
            what = f"dividend of {event.rate:g} {event.currency}"
        elif isinstance(event, StockDividend):
            what = f"stock dividend of {event.rate:g}"
        elif isinstance(event, SpinOff):
            what = f"spin-off of {event.new_symbol}"
        return f"{self.symbol}: {what} on {self.day}"


def decode(kind: str, record: object) -> Action:
    """Read one record of a kind (singular); kinds that are not known are kept as they are.

    Raises:
        ValueError: it names no symbol, or has no process date.
    """
    if not isinstance(record, dict):
        raise ValueError(f"a record of kind {kind} is {type(record).__name__}, not an object")  # noqa: TRY004 - one kind of refusal
    symbols = tuple(dict.fromkeys(record[key] for key in _SYMBOL_KEYS if isinstance(record.get(key), str) and record[key]))
    if not symbols:
        raise ValueError(f"a record of kind {kind} names no symbol")
    processed = _day(record, "process_date")
    if processed is None:
        raise ValueError(f"{kind} of {symbols[0]} has no process date")
    read = _READERS.get(kind)
    if read is None:
        return Action(kind, symbols, processed, None, None, record=record)
    event = None
    try:
        day = processed if kind == "name_change" else _day(record, _EX_DATES.get(kind, "ex_date"))
        flaw = "no ex-date" if day is None else None
        event = read(record)
    except ValueError as error:
        day, flaw = _day_or_none(record), str(error)
    return Action(kind, symbols, processed, day, None if flaw else event, flaw, record)


def encode(action: Action) -> dict[str, Any]:
    """Return an action as the store keeps it: the vendor's record, its kind before it."""
    return {"type": action.kind, **action.record}


def restore(kept: object) -> Action:
    """Undo `encode`.

    Raises:
        ValueError: it is no such record.
    """
    if not isinstance(kept, dict) or not isinstance(kept.get("type"), str):
        raise ValueError("an action without a type")  # noqa: TRY004 - as above
    return decode(kept["type"], {key: value for key, value in kept.items() if key != "type"})


def _split(record: Mapping[str, Any]) -> Event:
    return Split(_number(record, "new_rate"), _number(record, "old_rate"))


def _unit_split(record: Mapping[str, Any]) -> Event | None:
    """Read a split of units: a split of the price only where the units go on, and nothing else comes out of them."""
    if record.get("old_symbol") == record.get("new_symbol") and not record.get("alternate_rate"):
        return _split(record)
    return None


def _cash(record: Mapping[str, Any]) -> Event:
    currency = record.get("currency")
    return CashDividend(_number(record, "rate", zero=True), currency if isinstance(currency, str) and currency else "USD")


def _stock(record: Mapping[str, Any]) -> Event:
    return StockDividend(_number(record, "rate"))


def _spin_off(record: Mapping[str, Any]) -> Event:
    new = record.get("new_symbol")
    if not isinstance(new, str) or not new:
        raise ValueError("no new_symbol")
    return SpinOff(new, _number(record, "new_rate") / _number(record, "source_rate"))


def _name_change(record: Mapping[str, Any]) -> Event:
    old, new = record.get("old_symbol"), record.get("new_symbol")
    if not isinstance(old, str) or not isinstance(new, str) or not old or not new:
        raise ValueError("no old_symbol or no new_symbol")
    return NameChange(old, new)


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Event | None]] = {
    "forward_split": _split,
    "reverse_split": _split,
    "unit_split": _unit_split,
    "cash_dividend": _cash,
    "capital_gains_distribution": _cash,
    "stock_dividend": _stock,
    "spin_off": _spin_off,
    "name_change": _name_change,
}

_EX_DATES = {"unit_split": "effective_date"}


def _number(record: Mapping[str, Any], name: str, *, zero: bool = False) -> float:
    """Return a positive number (or *zero*), written as one or as text."""
    value = record.get(name)
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name} is {value!r}")
    return number


def _day(record: Mapping[str, Any], name: str) -> date | None:
    value = record.get(name)
    if value is None or value == "":
        return None
    try:
        return date.fromisoformat(str(value)[:10])
    except ValueError:
        raise ValueError(f"{name} is {value!r}") from None


def _day_or_none(record: Mapping[str, Any]) -> date | None:
    try:
        return _day(record, "ex_date")
    except ValueError:
        return None
