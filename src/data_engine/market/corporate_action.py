"""Define corporate actions, and read the vendor's records of them.

Every record is stored as received. Splits, cash and stock dividends, spin-offs and name changes are read, too; mergers,
redemptions, rights and the like change no price by a known amount, and are only stored. Dates are New York days.
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
"""The keys of symbols in a record: first the one whose shares the action concerns, then those that result from it."""


CEASED = {
    "cash_merger": "bought",
    "stock_merger": "merged",
    "stock_and_cash_merger": "merged",
    "redemption": "redeemed",
    "worthless_removal": "removed as worthless",
    "reorganization": "reorganized",
    "unit_split": "split into its parts",
}
"""The kinds of actions with which a security ceases to exist, and what is said of it."""

_NEW_TICKERS = {"name_change": ("old_symbol", "new_symbol"), "reverse_split": ("symbol", "new_symbol")}
"""The kinds of records that may say that a security has a new ticker, with the keys of the ticker before and of the new one."""


@dataclass(frozen=True, slots=True)
class Split:
    """A change of the number of shares, forward or reverse.

    Attributes:
        new: The number of shares afterwards ...
        old: ... for this number of shares before.
    """

    new: float
    old: float

    @property
    def ratio(self) -> float:
        """The shares afterwards per share before: 10 if the price becomes a tenth."""
        return self.new / self.old

    def __str__(self) -> str:
        return f"{self.new:g}-for-{self.old:g} split"


@dataclass(frozen=True, slots=True)
class StockDividend:
    """New shares for old ones, at no price.

    Attributes:
        rate: The new shares per share, such as 0.05.
    """

    rate: float

    @property
    def ratio(self) -> float:
        """The shares afterwards per share before."""
        return 1 + self.rate

    def __str__(self) -> str:
        return f"stock dividend of {self.rate:g}"


@dataclass(frozen=True, slots=True)
class CashDividend:
    """Money for each share.

    Attributes:
        rate: The amount per share, in *currency*.
        currency: The code by ISO 4217.
    """

    rate: float
    currency: str = "USD"

    def __str__(self) -> str:
        return f"dividend of {self.rate:g} {self.currency}"


@dataclass(frozen=True, slots=True)
class SpinOff:
    """Shares of another company, in addition to the old ones.

    Attributes:
        new_symbol: The symbol of that company.
        ratio: The number of its shares per share.
    """

    new_symbol: str
    ratio: float

    def __str__(self) -> str:
        return f"spin-off of {self.new_symbol}"


@dataclass(frozen=True, slots=True)
class NameChange:
    """A new ticker of a security.

    Attributes:
        old: The symbol until the day before.
        new: The symbol from the day on.
    """

    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.old} renamed to {self.new}"


Event = Split | StockDividend | CashDividend | SpinOff | NameChange


@dataclass(frozen=True, slots=True)
class Action:
    """One corporate action.

    Attributes:
        kind: The vendor's word, singular: ``forward_split``, ``cash_dividend``, ``stock_merger`` ...
        symbols: The symbols in the record, first the one whose shares the action concerns.
        process_date: The day on which the vendor books it; for a dividend, the day of payment, weeks after the ex-date.
        ex_date: The first day at the new price, or under the new name; of an action with which a security ends, the day on which
            it takes effect; None if there is none.
        event: The effect on prices or names; None if there is none, or it is unknown.
        flaw: The value that a record of a kind that changes prices lacks; None if it lacks none.
        record: The record as the vendor sent it.
        local: Whether a user recorded it in the store, in place of what the vendor has.
        keeps_ticker: Whether a user has taken out what the record says of the ticker: that it is a new one, or free.
    """

    kind: str
    symbols: tuple[str, ...]
    process_date: date
    ex_date: date | None
    event: Event | None
    flaw: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict, hash=False)
    local: bool = False
    keeps_ticker: bool = False

    @property
    def symbol(self) -> str:
        """The symbol whose shares the action concerns."""
        return self.symbols[0]

    @property
    def day(self) -> date:
        """The ex-date, or the process date if there is none."""
        return self.ex_date or self.process_date

    @property
    def key(self) -> str:
        """The identity of the action across responses: the vendor's id, or the whole record if there is none."""
        made = self.record.get("id")
        return made if isinstance(made, str) and made else f"{self.kind} {json.dumps(self.record, sort_keys=True)}"

    @property
    def order(self) -> tuple[date, str, str]:
        """The sort key of actions."""
        return self.day, self.kind, self.key

    def __str__(self) -> str:
        what = str(self.event or self.kind.replace("_", " "))
        return f"{what if isinstance(self.event, NameChange) else f'{self.symbol}: {what}'} on {self.day}"


_TELLING = math.log(1.3)
"""The least ratio that prices can tell from none, as a logarithm: on any day a price may move by less."""


def contradicts(ratio: float, before: float, after: float) -> bool:
    """Return whether two prices say that a split of a ratio did not happen between them, or happened the other way round.

    A price may move on the day of a split, too: it contradicts the ratio if it is more than half of the way off (as a
    logarithm), and by more than a factor of 1.3. Ratios below 1.3 are not judged.

    Args:
        ratio: The shares afterwards per share before.
        before: The last price before.
        after: The first price afterwards.
    """
    if abs(math.log(ratio)) < _TELLING or before <= 0 or after <= 0:
        return False
    return not fits(ratio, before, after)


def fits(ratio: float, before: float, after: float) -> bool:
    """Return whether two prices agree with a split of any ratio between them, by the rule of `contradicts`.

    Args:
        ratio: The shares afterwards per share before.
        before: The last price before, above 0.
        after: The first price afterwards, above 0.
    """
    expected = math.log(ratio)
    return abs(math.log(before / after) - expected) <= max(_TELLING, abs(expected) / 2)


def decode(kind: str, record: object) -> Action:
    """Return the action in a record of a kind (singular). A record of an unknown kind has no event.

    Raises:
        ValueError: If the record names no symbol, or has no process date.
    """
    if not isinstance(record, dict):
        raise ValueError(f"a record of kind {kind} is {type(record).__name__}, not an object")  # noqa: TRY004 - callers expect one class
    symbols = tuple(dict.fromkeys(record[key] for key in _SYMBOL_KEYS if isinstance(record.get(key), str) and record[key]))
    if not symbols:
        raise ValueError(f"a record of kind {kind} names no symbol")
    processed = _day(record, "process_date")
    if processed is None:
        raise ValueError(f"{kind} of {symbols[0]} has no process date")
    read = _READERS.get(kind)
    if read is None:
        return Action(kind, symbols, processed, _day_or_none(record, "effective_date"), None, record=record)
    event = None
    try:
        day = processed if kind == "name_change" else _day(record, _EX_DATES.get(kind, "ex_date"))
        flaw = "no ex-date" if day is None else None
        event = read(record)
    except ValueError as error:
        day, flaw = _day_or_none(record, "ex_date"), str(error)
    return Action(kind, symbols, processed, day, None if flaw else event, flaw, record)


def new_ticker(kind: str, record: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the tickers of a security before and after a record of a kind (singular), or None if it tells of no new ticker."""
    old, new = (record.get(key) for key in _NEW_TICKERS.get(kind, ("", "")))
    if not isinstance(old, str) or not isinstance(new, str) or not old or not new or old == new:
        return None
    return old, new


def concerned_symbols(kind: str, record: object) -> tuple[str, ...]:
    """Return the symbols whose actions are incomplete without a record: that of its shares, or both tickers of a change."""
    if not isinstance(record, dict):
        return ()
    named = tuple(dict.fromkeys(record[key] for key in _SYMBOL_KEYS if isinstance(record.get(key), str) and record[key]))
    return tuple(dict.fromkeys((*named[:1], *(new_ticker(kind, record) or ()))))


def encode(action: Action) -> dict[str, Any]:
    """Return an action as it is stored: the vendor's record, preceded by its kind."""
    return {"type": action.kind, **action.record}


def restore(kept: object) -> Action:
    """Undo `encode`.

    Raises:
        ValueError: If this is not such a record.
    """
    if not isinstance(kept, dict) or not isinstance(kept.get("type"), str):
        raise ValueError("an action without a type")  # noqa: TRY004 - as above
    return decode(kept["type"], {key: value for key, value in kept.items() if key != "type"})


def _split(record: Mapping[str, Any]) -> Event:
    return Split(_number(record, "new_rate"), _number(record, "old_rate"))


def _unit_split(record: Mapping[str, Any]) -> Event | None:
    """Return the split of the price, if the units continue and nothing else results from them."""
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
    """Return a positive number (with *zero*, 0, too), given as a number or as text."""
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


def _day_or_none(record: Mapping[str, Any], name: str) -> date | None:
    try:
        return _day(record, name)
    except ValueError:
        return None
