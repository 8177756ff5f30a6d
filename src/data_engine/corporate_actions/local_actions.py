"""Define local changes of corporate actions: what a user records in place of what Alpaca has wrong.

A local change belongs to one symbol, one day and some kinds of actions. It replaces what Alpaca's records of that day say of
these kinds, or takes it out, whatever Alpaca answers later, and in whatever file a record is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from data_engine.corporate_actions.adjustment import WORDS
from data_engine.corporate_actions.ticker_changes import ticker_changes_of
from data_engine.errors import InputError
from data_engine.market.corporate_action import Action, concerned_symbols, decode, encode, restore
from data_engine.market.time_range import from_iso, iso

KINDS = ("split", "dividend", "spin-off", "name-change", "end")
"""The kinds of actions that a change can replace."""


@dataclass(frozen=True, slots=True)
class LocalChange:
    """A change of the actions of one symbol on one day.

    Attributes:
        ex_date: The day.
        kinds: Some of `KINDS`: Alpaca's actions of these kinds on that day do not count.
        action: The action that counts instead; None if none does.
        because: Why, for the reader.
        at: When it was recorded, UTC.
    """

    ex_date: date
    kinds: tuple[str, ...]
    action: Action | None
    because: str
    at: datetime

    def takes(self, action: Action, symbol: str) -> frozenset[str]:
        """Return the effects of an action of Alpaca's that this replaces, as recorded for a symbol: some of `KINDS`."""
        if action.day != self.ex_date:
            return frozenset()
        return frozenset(kind for kind, names in effects_of(action).items() if kind in self.kinds and symbol in names)

    def text(self, symbol: str) -> str:
        """Return the change in words."""
        what = str(self.action) if self.action else f"{symbol}: no {', '.join(self.kinds)} on {self.ex_date}"
        return f"{what} (local since {self.at:%Y-%m-%d}: {self.because})"


def effects_of(action: Action) -> dict[str, tuple[str, ...]]:
    """Return the effects of an action, some of `KINDS`, each with its symbols: both tickers if there is a new one.

    A reverse split with a new ticker has two effects, and each can be replaced without the other.
    """
    made: dict[str, tuple[str, ...]] = {}
    if action.event is not None or action.flaw is not None:
        made.update({word: concerned_symbols(action.kind, action.record) for word in [WORDS.get(action.kind)] if word})
    for change in ticker_changes_of((action,)):
        made["end" if change.new is None else "name-change"] = tuple(filter(None, (change.old, change.new)))
    return made


def counted(actions: Sequence[Action], changes: Mapping[str, Sequence[LocalChange]], symbol: str) -> tuple[Action, ...]:
    """Return the actions that count for a symbol: Alpaca's, as the local changes leave them.

    Args:
        actions: The actions that Alpaca has.
        changes: The local changes by symbol: those of the symbol, and of the others that the actions name.
        symbol: The symbol.
    """
    if not any(changes.values()):
        return tuple(actions)
    kept = [left for left in (_left_of(one, changes) for one in actions) if left is not None]
    made = [change.action for change in changes.get(symbol, ()) if change.action is not None]
    return tuple(sorted((*kept, *made), key=lambda one: one.order))


def _left_of(action: Action, changes: Mapping[str, Sequence[LocalChange]]) -> Action | None:
    """Return what local changes leave of an action, or None if that is nothing."""
    taken = {kind for name in action.symbols for change in changes.get(name, ()) for kind in change.takes(action, name)}
    if not taken:
        return action
    left = effects_of(action).keys() - taken
    if not left:
        return None
    if left <= {"name-change", "end"}:
        return replace(action, event=None, flaw=None)
    return replace(action, keeps_ticker=True)


def replaced(actions: Iterable[Action], changes: Iterable[LocalChange], change: LocalChange, symbol: str) -> list[Action]:
    """Return the actions that a new local change of a symbol replaces, or parts of them: Alpaca's, and those of other changes."""
    own = [one.action for one in changes if one.ex_date == change.ex_date and not set(one.kinds).isdisjoint(change.kinds)]
    return [*(one for one in actions if change.takes(one, symbol)), *(one for one in own if one is not None)]


def with_change(changes: Iterable[LocalChange], change: LocalChange) -> tuple[LocalChange, ...]:
    """Return the changes with one more, which replaces what earlier ones say of its day and kinds."""
    return tuple(sorted((*without(changes, change.ex_date, change.kinds), change), key=lambda one: (one.ex_date, one.kinds)))


def without(changes: Iterable[LocalChange], ex_date: date, kinds: Sequence[str] = KINDS) -> tuple[LocalChange, ...]:
    """Return the changes without what they say of a day and some kinds: Alpaca's actions count there again."""
    left = []
    for one in changes:
        rest = tuple(kind for kind in one.kinds if kind not in kinds) if one.ex_date == ex_date else one.kinds
        if rest:
            left.append(replace(one, kinds=rest))
    return tuple(left)


def local_action(kind: str, symbol: str, ex_date: date, values: Mapping[str, Any]) -> Action:
    """Return the action that a user records.

    Args:
        kind: The kind as Alpaca writes it, such as ``forward_split``.
        symbol: The symbol whose shares it concerns.
        ex_date: The first day at the new price.
        values: The other fields of a record of this kind.

    Raises:
        InputError: If a value cannot be used.
    """
    day = ex_date.isoformat()
    owner = {"source_symbol": symbol} if kind == "spin_off" else {"symbol": symbol}
    record = {"id": f"local {kind} {symbol} {day}", **owner, "ex_date": day, "process_date": day, **values}
    action = decode(kind, record)
    if action.flaw is not None:
        raise InputError(f"cannot record the {kind.replace('_', ' ')} of {symbol} on {day}: {action.flaw}")
    return replace(action, local=True)


def dump(changes: Iterable[LocalChange]) -> list[dict[str, Any]]:
    """Return changes as objects for JSON."""
    return [
        {
            "ex_date": one.ex_date.isoformat(),
            "kinds": list(one.kinds),
            "action": None if one.action is None else encode(one.action),
            "because": one.because,
            "at": iso(one.at),
        }
        for one in changes
    ]


def load(rows: Iterable[Mapping[str, Any]]) -> tuple[LocalChange, ...]:
    """Undo `dump`.

    Raises:
        ValueError: If an object is no change.
    """
    return tuple(
        LocalChange(
            date.fromisoformat(row["ex_date"]),
            tuple(map(str, row["kinds"])),
            None if row["action"] is None else replace(restore(row["action"]), local=True),
            str(row["because"]),
            from_iso(row["at"]),
        )
        for row in rows
    )
