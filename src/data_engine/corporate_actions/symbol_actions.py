"""Read and write the corporate actions of one symbol, with the ranges in which they are complete: `SymbolActions`.

Users request ex-dates; the endpoint selects by process date, which for a dividend is the day it is paid. So for the ex-dates of a
range, process dates are requested from a month before it (a due-bill dividend goes ex after it was paid) to a year after it.
Process dates that were a month old at the response are settled: they are not requested again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta

from data_engine.corporate_actions import local_actions
from data_engine.corporate_actions.ex_dates import EARLY, LATE
from data_engine.corporate_actions.local_actions import LocalChange, counted
from data_engine.market.corporate_action import Action, encode, restore
from data_engine.market.time_range import TimeRange, from_iso, intersection, iso, missing, new_york_date, new_york_days, union
from data_engine.store.partitions import encode_symbol

FOLDER = "metadata/actions"
"""The folder of the corporate actions in a store, one file per symbol."""

SETTLES = timedelta(days=31)
"""The age from which on the records of a process date no longer change: some come late."""

RECHECKED = timedelta(days=30)
"""The age from which on all records are requested again: Alpaca corrects some long after their process date."""

_FORMAT = 1

HEAD, TAIL = b'{\n "format": 1,\n', b"]\n}\n"
"""The first and the last bytes of a complete file."""

LOCAL = b'\n "local": ['
"""What every file with local changes has."""

_ACTIONS = b'\n "actions": ['

_BEGIN = date(1970, 1, 2)


@dataclass(frozen=True, slots=True)
class Response:
    """What Alpaca has now, of some symbols and process dates. A record has one truth, whatever files it is in.

    Attributes:
        symbols: The symbols whose actions are all in it.
        requested: The requested process dates.
        found: The actions, by key.
    """

    symbols: frozenset[str]
    requested: tuple[TimeRange, ...]
    found: Mapping[str, Action]

    def latest(self, stored: Action) -> Action | None:
        """Return a stored action as Alpaca has it now, or None if Alpaca has withdrawn it.

        Whether it still exists is judged by the response for the symbol whose shares it concerns.
        """
        return self.found.get(stored.key) or (None if stored.symbol in self.symbols and self._reaches(stored) else stored)

    def lacks(self, stored: Action) -> bool:
        """Return whether a stored action should be in it, as it names one of the symbols, and is not."""
        return stored.key not in self.found and not self.symbols.isdisjoint(stored.symbols) and self._reaches(stored)

    def _reaches(self, stored: Action) -> bool:
        return is_processed_in(stored, self.requested)


@dataclass(frozen=True, slots=True)
class SymbolActions:
    """The corporate actions of one symbol.

    Attributes:
        symbol: The symbol.
        actions: The actions that Alpaca has, sorted by day.
        covered: The ranges of New York days for whose ex-dates the actions are complete, as known when they were fetched.
        settled: The ranges of process dates that need not be requested again.
        fetched: The instant of the last response; None before the first.
        by: The program that wrote the file.
        local: The local changes of them.
        checked: The instant of the last response with all records of the covered days at once; None if there was none.
        elsewhere: The local changes of the other symbols that the actions name, by symbol; not in this symbol's file.
    """

    symbol: str
    actions: tuple[Action, ...] = ()
    covered: tuple[TimeRange, ...] = ()
    settled: tuple[TimeRange, ...] = ()
    fetched: datetime | None = None
    by: str | None = None
    local: tuple[LocalChange, ...] = ()
    checked: datetime | None = None
    elsewhere: Mapping[str, tuple[LocalChange, ...]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def counted(self) -> tuple[Action, ...]:
        """The actions that count: Alpaca's, as the local changes leave them."""
        return counted(self.actions, {**self.elsewhere, self.symbol: self.local}, self.symbol)

    @property
    def shared(self) -> tuple[Action, ...]:
        """The actions that name further symbols, too."""
        return tuple(action for action in self.actions if len(action.symbols) > 1)

    def to_fetch(self, wanted: TimeRange, now: datetime | None = None) -> tuple[TimeRange, ...]:
        """Return the process dates to request, so that every ex-date inside *wanted* (whole days) is covered.

        Args:
            wanted: The days.
            now: The current instant. If all records were requested more than `RECHECKED` ago, they are requested again; if None,
                they are not.
        """
        if now is not None and self.covered and (self.checked is None or now - self.checked > RECHECKED):
            return (self._all_process_days(wanted),)
        return missing(process_days(wanted), self.settled)

    def _all_process_days(self, wanted: TimeRange) -> TimeRange:
        known = union((*self.covered, wanted))
        return process_days(TimeRange(known[0].start, known[-1].end))

    def missing(self, wanted: TimeRange) -> tuple[TimeRange, ...]:
        """Return the days of *wanted* whose ex-dates are not covered."""
        return missing(wanted, self.covered)

    def answered(
        self, wanted: TimeRange, requested: Sequence[TimeRange], found: Iterable[Action], *, now: datetime
    ) -> tuple[SymbolActions, tuple[Action, ...], tuple[Action, ...]]:
        """Return the actions after a response, the new ones, and the ones that the response withdrew.

        Args:
            wanted: The requested days.
            requested: The requested process dates; with the settled ones, all of `process_days` (*wanted*).
            found: All actions that name the symbol, of those process dates.
            now: The instant of the request.
        """
        received = {action.key: action for action in found}
        kept = {
            action.key: action for action in self.actions if action.key not in received and not is_processed_in(action, requested)
        }
        before = {action.key: action for action in self.actions}
        new = tuple(action for action in received.values() if before.get(action.key) != action)
        gone = tuple(action for key, action in before.items() if key not in received and key not in kept)
        today = new_york_date(now)
        past, old = new_york_days(_BEGIN, today), new_york_days(_BEGIN, today - SETTLES)
        made = replace(
            self,
            actions=tuple(sorted((*kept.values(), *received.values()), key=lambda action: action.order)),
            covered=union((*self.covered, *intersection((wanted,), (past,)))),
            settled=union((*self.settled, *intersection(requested, (old,)))),
            fetched=now.replace(microsecond=0),
            checked=self.checked if missing(self._all_process_days(wanted), requested) else now.replace(microsecond=0),
        )
        return made, new, gone

    def revised(self, response: Response) -> SymbolActions:
        """Return the actions as a response for any symbols leaves them: what it withdraws is out, what it revises is replaced."""
        left = [response.latest(action) for action in self.actions]
        made = [action for action in left if action is not None and self.symbol in action.symbols]
        return self if made == [*self.actions] else replace(self, actions=tuple(sorted(made, key=lambda action: action.order)))

    def mentioned(self, found: Iterable[Action]) -> SymbolActions:
        """Return the actions with further ones from a response for other symbols; nothing more is covered."""
        known = {action.key for action in self.actions}
        more = [action for action in found if action.key not in known]
        return replace(self, actions=tuple(sorted((*self.actions, *more), key=lambda one: one.order))) if more else self


def process_days(wanted: TimeRange) -> TimeRange:
    """Return the process dates that may belong to a range of ex-dates."""
    first, last = days(wanted)
    return new_york_days(first - EARLY, last + LATE)


def days(span: TimeRange) -> tuple[date, date]:
    """Return the first and the last New York day of a range, both included."""
    return new_york_date(span.start), new_york_date(span.end - timedelta(microseconds=1))


def key(symbol: str) -> str:
    """Return the path of a symbol's file in the store."""
    return f"{FOLDER}/symbol={encode_symbol(symbol)}.json"


def dump(known: SymbolActions) -> bytes:
    """Return the content of a file: JSON, one action per line; days are pairs, both included."""
    head = {
        "format": _FORMAT,
        "symbol": known.symbol,
        "covered": _pairs(known.covered),
        "settled": _pairs(known.settled),
        "fetched": None if known.fetched is None else iso(known.fetched),
        **({"checked": iso(known.checked)} if known.checked else {}),
        "by": known.by,
        **({"local": local_actions.dump(known.local)} if known.local else {}),
    }
    lines = [f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items()]
    kept = ",".join(f"\n  {json.dumps(encode(action), ensure_ascii=False)}" for action in known.actions)
    return ("{\n" + ",\n".join([*lines, f' "actions": [{kept}]']) + "\n}\n").encode()


def without_actions(data: bytes) -> bytes:
    """Return the content of a complete file without its actions, which are most of it; another file as it is."""
    head, mark, _ = data.partition(_ACTIONS)
    return head + mark + b"]\n}\n" if mark and data.endswith(TAIL) else data


def load(data: bytes, symbol: str) -> SymbolActions:
    """Undo `dump`.

    Raises:
        ValueError: If it is not the file of that symbol.
    """
    try:
        content = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"its format is not {_FORMAT}, a newer version may have written it")
    if content.get("symbol") != symbol:
        raise ValueError(f"its symbol is {content.get('symbol')!r}")
    try:
        return SymbolActions(
            symbol,
            tuple(sorted((restore(kept) for kept in content["actions"]), key=lambda action: action.order)),
            _ranges(content["covered"]),
            _ranges(content["settled"]),
            None if content["fetched"] is None else from_iso(content["fetched"]),
            content.get("by"),
            local_actions.load(content.get("local", ())),
            from_iso(content["checked"]) if content.get("checked") else None,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a value is missing or of another type: {error!r}") from error


def _pairs(ranges: Iterable[TimeRange]) -> list[list[str]]:
    return [[day.isoformat() for day in days(span)] for span in ranges]


def _ranges(pairs: Iterable[Sequence[str]]) -> tuple[TimeRange, ...]:
    return union(new_york_days(date.fromisoformat(first), date.fromisoformat(last)) for first, last in pairs)


def is_processed_in(action: Action, ranges: Iterable[TimeRange]) -> bool:
    """Return whether the process date of an action lies in some ranges of whole days."""
    noon = new_york_days(action.process_date, action.process_date).start + timedelta(hours=12)
    return any(noon in span for span in ranges)
