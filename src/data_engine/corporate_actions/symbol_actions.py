"""What is held of one symbol's corporate actions, and since when nothing of it can be missing: `SymbolActions`.

People ask for ex-dates; the endpoint answers by process date, which for a dividend is the day it is paid. So for the ex-dates
of a range, process dates are asked from a month before it (a due-bill dividend goes ex after it was paid) to a year after it.
Process dates that were a month old when they were answered are settled: they are not asked for again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from data_engine.market.corporate_action import Action, NameChange, encode, restore
from data_engine.market.time_range import TimeRange, from_iso, intersection, iso, missing, new_york_date, new_york_days, union
from data_engine.store.partitions import encode_symbol

FOLDER = "metadata/actions"
"""Where the books of a store lie, one file per symbol."""

EARLY, LATE = timedelta(days=31), timedelta(days=366)
"""How far the process dates of a range's ex-dates may lie before and after it."""

SETTLES = timedelta(days=31)
"""How old a process date is when the vendor has it for good: records come late, and change."""

_FORMAT = 1

HEAD, TAIL = b'{\n "format": 1,\n', b"]\n}\n"
"""How the bytes of a whole book begin and end."""

_BEGIN = date(1970, 1, 2)


@dataclass(frozen=True, slots=True)
class SymbolActions:
    """The corporate actions of one symbol.

    Attributes:
        symbol: whose.
        actions: sorted by day.
        covered: ranges of whole New York days: every action whose ex-date lies inside is held, as it was known when asked.
        settled: ranges of process dates that need not be asked again.
        fetched: when the vendor last answered; None before.
        by: who wrote it.
    """

    symbol: str
    actions: tuple[Action, ...] = ()
    covered: tuple[TimeRange, ...] = ()
    settled: tuple[TimeRange, ...] = ()
    fetched: datetime | None = None
    by: str | None = None

    def to_ask(self, wanted: TimeRange) -> tuple[TimeRange, ...]:
        """Return which process dates to ask for, so that every ex-date inside *wanted* (whole days) is held."""
        return missing(process_days(wanted), self.settled)

    def lacking(self, wanted: TimeRange) -> tuple[TimeRange, ...]:
        """Return the days of *wanted* whose ex-dates are not known."""
        return missing(wanted, self.covered)

    def answered(
        self, wanted: TimeRange, asked: Sequence[TimeRange], found: Iterable[Action], *, now: datetime
    ) -> tuple[SymbolActions, tuple[Action, ...], tuple[Action, ...]]:
        """Return the book after an answer, what is new in it, and what was in it and is no longer so.

        Args:
            wanted: the days that were asked about.
            asked: the process dates that were asked for, together with what is settled all of `process_days` (*wanted*).
            found: all actions that name the symbol, of those process dates.
            now: when it was asked.
        """
        came = {action.key: action for action in found}
        kept = {
            action.key: action
            for action in self.actions
            if action.key not in came and not any(_noon(action.process_date) in span for span in asked)
        }
        before = {action.key: action for action in self.actions}
        new = tuple(action for action in came.values() if before.get(action.key) != action)
        gone = tuple(action for key, action in before.items() if key not in came and key not in kept)
        today = new_york_date(now)
        past, old = new_york_days(_BEGIN, today), new_york_days(_BEGIN, today - SETTLES)
        book = replace(
            self,
            actions=tuple(sorted((*kept.values(), *came.values()), key=lambda action: action.order)),
            covered=union((*self.covered, *intersection((wanted,), (past,)))),
            settled=union((*self.settled, *intersection(asked, (old,)))),
            fetched=now.replace(microsecond=0),
        )
        return book, new, gone

    def mentioned(self, found: Iterable[Action]) -> SymbolActions:
        """Return the book with actions that came unasked, in an answer about others; nothing more is covered."""
        known = {action.key for action in self.actions}
        more = [action for action in found if action.key not in known]
        return replace(self, actions=tuple(sorted((*self.actions, *more), key=lambda one: one.order))) if more else self

    @property
    def name_changes(self) -> tuple[Action, ...]:
        """The name changes, in order of time."""
        return tuple(action for action in self.actions if isinstance(action.event, NameChange))


def process_days(wanted: TimeRange) -> TimeRange:
    """Return the process dates that the actions of a range of ex-dates may have."""
    first, last = days(wanted)
    return new_york_days(first - EARLY, last + LATE)


def days(span: TimeRange) -> tuple[date, date]:
    """Return the first and the last New York day of a range, both included."""
    return new_york_date(span.start), new_york_date(span.end - timedelta(microseconds=1))


def key(symbol: str) -> str:
    """Return where a symbol's book lies below the store."""
    return f"{FOLDER}/symbol={encode_symbol(symbol)}.json"


def dump(book: SymbolActions) -> bytes:
    """Write a book: JSON, one action a line; days are pairs, both included."""
    head = {
        "format": _FORMAT,
        "symbol": book.symbol,
        "covered": _pairs(book.covered),
        "settled": _pairs(book.settled),
        "fetched": None if book.fetched is None else iso(book.fetched),
        "by": book.by,
    }
    lines = [f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items()]
    kept = ",".join(f"\n  {json.dumps(encode(action), ensure_ascii=False)}" for action in book.actions)
    return ("{\n" + ",\n".join([*lines, f' "actions": [{kept}]']) + "\n}\n").encode()


def load(data: bytes, symbol: str) -> SymbolActions:
    """Undo `dump`.

    Raises:
        ValueError: not the book of that symbol.
    """
    made = json.loads(data)
    if not isinstance(made, dict) or made.get("format") != _FORMAT:
        raise ValueError(f"its format is not {_FORMAT}; was it written by a newer version?")
    if made.get("symbol") != symbol:
        raise ValueError(f"it is about {made.get('symbol')!r}")
    try:
        return SymbolActions(
            symbol,
            tuple(sorted((restore(kept) for kept in made["actions"]), key=lambda action: action.order)),
            _ranges(made["covered"]),
            _ranges(made["settled"]),
            None if made["fetched"] is None else from_iso(made["fetched"]),
            made.get("by"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"something in it is missing or of another kind: {error!r}") from error


def _pairs(ranges: Iterable[TimeRange]) -> list[list[str]]:
    return [[day.isoformat() for day in days(span)] for span in ranges]


def _ranges(pairs: Iterable[Sequence[str]]) -> tuple[TimeRange, ...]:
    return union(new_york_days(date.fromisoformat(first), date.fromisoformat(last)) for first, last in pairs)


def _noon(day: date) -> datetime:
    return new_york_days(day, day).start + timedelta(hours=12)
