"""Tickers change hands: which security a stored series is of, and where its bars end.

A ticker is a name that securities pass on: Facebook was FB until 2022-06-08, and META since; META had been a fund's; FB is
another fund's today. Alpaca answers for a ticker with the whole history of who has it now, earlier names included. So a series
whose security has left the ticker must not be asked for beyond that day: what came would be the next owner's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from data_engine.market.corporate_action import Action, NameChange
from data_engine.market.time_range import TimeRange, new_york_midnight, union


@dataclass(frozen=True, slots=True)
class TickerChange:
    """A security that left a ticker.

    Attributes:
        old: the ticker it left.
        new: the one it took.
        day: the first New York day under the new one.
    """

    old: str
    new: str
    day: date

    @property
    def last_day(self) -> date:
        """The last day under the old one; asked as of it, the vendor answers for the security that left."""
        return self.day - timedelta(days=1)

    @property
    def instant(self) -> datetime:
        """When the old ticker was free again, in UTC."""
        return new_york_midnight(self.day)

    def __str__(self) -> str:
        return f"{self.old} renamed to {self.new} on {self.day}"


@dataclass(frozen=True, slots=True)
class TickerChanges:
    """What a store knows of renames.

    Attributes:
        by_symbol: by each symbol that takes part in one, in order of time.
        unreadable: symbols whose actions cannot be read, and why: what became of them is not known.
    """

    by_symbol: Mapping[str, tuple[TickerChange, ...]] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def of(self, symbol: str) -> tuple[TickerChange, ...]:
        """Return the renames that a symbol takes part in."""
        return self.by_symbol.get(symbol, ())


def renames_of(actions: Iterable[Action]) -> tuple[TickerChange, ...]:
    """Return the name changes among *actions*, in order of time; a reverse split may bring a new ticker, too."""
    made = set()
    for action in actions:
        new = action.record.get("new_symbol") if action.kind == "reverse_split" else None
        if isinstance(action.event, NameChange):
            made.add(TickerChange(action.event.old, action.event.new, action.day))
        elif isinstance(new, str) and new:
            made.add(TickerChange(action.symbol, new, action.day))
    return tuple(sorted((one for one in made if one.old != one.new), key=lambda one: (one.day, one.old, one.new)))


def ticker_change_of(
    symbol: str, renames: Iterable[TickerChange], *, since: datetime | None = None, begun: datetime | None = None
) -> TickerChange | None:
    """Return the rename at which the security of a series left its ticker, or None where it has not.

    Args:
        symbol: of the series.
        renames: that are known.
        since: from when on the series' bars are wanted; None is from the beginning. A series that begins after the rename is the
            next owner's, and is nobody's business here.
        begun: when the series was first stored; None is not yet. It is of whoever had the ticker then, or, where nobody did,
            of the last one who had: that is whom the vendor answers for. What is written later changes nothing of that.
    """
    known = tuple(renames)
    left = sorted((one for one in known if one.old == symbol), key=lambda one: one.day)
    before = [one for one in left if begun is None or one.instant <= begun]
    taken = max((one.day for one in known if one.new == symbol and (begun is None or one.instant <= begun)), default=None)
    last = before[-1] if before and (taken is None or before[-1].day > taken) else None
    if last is not None and (since is None or since < last.instant):
        return last
    later = [one for one in left if begun is not None and one.instant > begun and (since is None or since < one.instant)]
    return later[0] if later else None


def until_parting(ranges: Iterable[TimeRange], rename: TickerChange | None) -> tuple[TimeRange, ...]:
    """Return what is wanted of a series without what comes after its security left the ticker."""
    pieces = (span if rename is None else span.before(rename.instant) for span in ranges)
    return union(piece for piece in pieces if piece is not None)


@dataclass(frozen=True, slots=True)
class Tenure:
    """The days that a security had a ticker.

    Attributes:
        symbol: the ticker.
        first: the first day; None where no earlier ticker is known.
        after: the first day under the next ticker; None where it has this one still.
    """

    symbol: str
    first: date | None = None
    after: date | None = None


def tenures(symbol: str, left: TickerChange | None, renames: Callable[[str], Iterable[TickerChange]]) -> tuple[Tenure, ...]:
    """Return under which tickers the security of a series has been known, in order of time.

    Args:
        symbol: of the series.
        left: where its security left the ticker, as `ticker_change_of` says.
        renames: the renames that are known of a ticker.
    """
    end = None if left is None else left.day
    begin = _taken(renames(symbol), symbol, before=end)
    found = [Tenure(symbol, None if begin is None else begin.day, end)]
    seen = {(symbol, end)}
    while begin is not None and (begin.old, begin.day) not in seen:
        seen.add((begin.old, begin.day))
        earlier = _taken(renames(begin.old), begin.old, before=begin.day)
        found.insert(0, Tenure(begin.old, None if earlier is None else earlier.day, begin.day))
        begin = earlier
    while left is not None and (left.new, left.day) not in seen:
        seen.add((left.new, left.day))
        name, day = left.new, left.day
        next_ = min((one for one in renames(name) if one.old == name and one.day > day), key=lambda one: one.day, default=None)
        found.append(Tenure(name, day, None if next_ is None else next_.day))
        left = next_
    return tuple(found)


def _taken(renames: Iterable[TickerChange], symbol: str, *, before: date | None) -> TickerChange | None:
    """Return the last rename by which a security took *symbol*, before a day."""
    candidates = [one for one in renames if one.new == symbol and (before is None or one.day < before)]
    return max(candidates, key=lambda one: one.day, default=None)
