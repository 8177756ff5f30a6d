"""Find the security of a stored series, and the day on which it left its ticker.

Tickers are reassigned: Facebook was FB until 2022-06-08 and has been META since; META had been a fund's ticker, and FB is another
fund's today. For a ticker, Alpaca sends the whole history of the security that has it now, under earlier tickers too. So a series
whose security has left the ticker must not be requested beyond that day: the bars would be those of another security.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from data_engine.market.corporate_action import Action, NameChange
from data_engine.market.time_range import TimeRange, new_york_midnight, union


@dataclass(frozen=True, slots=True)
class TickerChange:
    """The change of a security from one ticker to another.

    Attributes:
        old: The ticker before.
        new: The ticker afterwards.
        day: The first New York day under the new ticker.
    """

    old: str
    new: str
    day: date

    @property
    def last_day(self) -> date:
        """The last day under the old ticker. As of this day, Alpaca answers for the security that left."""
        return self.day - timedelta(days=1)

    @property
    def instant(self) -> datetime:
        """The instant from which on the old ticker is free, in UTC."""
        return new_york_midnight(self.day)

    def __str__(self) -> str:
        return f"{self.old} renamed to {self.new} on {self.day}"


@dataclass(frozen=True, slots=True)
class TickerChanges:
    """The ticker changes that a store knows.

    Attributes:
        by_symbol: The changes from or to each symbol, in order of time.
        unreadable: The symbols whose actions cannot be read, and why: their ticker changes are unknown.
    """

    by_symbol: Mapping[str, tuple[TickerChange, ...]] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def of(self, symbol: str) -> tuple[TickerChange, ...]:
        """Return the changes from or to a symbol."""
        return self.by_symbol.get(symbol, ())


def renames_of(actions: Iterable[Action]) -> tuple[TickerChange, ...]:
    """Return the ticker changes among *actions*, in order of time; a reverse split may bring a new ticker, too."""
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
    """Return the change with which the security of a series left its ticker, or None if it has not left.

    Args:
        symbol: The symbol of the series.
        renames: The ticker changes that are known.
        since: The instant from which on bars are requested. If None, from the beginning. A series that begins after a change
            is the next owner's, and does not end with it.
        begun: The instant when the series was first stored. If None, it is not stored yet. The series is of the security that had
            the ticker then, else of the last one that had it: Alpaca answers for that one. Later changes do not alter this.
    """
    # On the day of a swap the ticker is the taker's: of one day, who takes it comes last.
    ours = sorted((one for one in renames if symbol in (one.old, one.new)), key=lambda one: (one.day, one.new == symbol))
    before = [one for one in ours if begun is None or one.instant <= begun]
    candidates = before[-1:] + ours[len(before) :]
    return next((one for one in candidates if one.new != symbol and (since is None or since < one.instant)), None)


def until_ticker_change(ranges: Iterable[TimeRange], change: TickerChange | None) -> tuple[TimeRange, ...]:
    """Return the ranges of a series without what follows after its security left the ticker."""
    pieces = (span if change is None else span.before(change.instant) for span in ranges)
    return union(piece for piece in pieces if piece is not None)


@dataclass(frozen=True, slots=True)
class Tenure:
    """The days on which a security had a ticker.

    Attributes:
        symbol: The ticker.
        first: The first day; None if no earlier ticker is known.
        after: The first day under the next ticker; None if the security still has this one.
        handed_on: Whether another security takes this ticker on that day.
    """

    symbol: str
    first: date | None = None
    after: date | None = None
    handed_on: bool = False

    def has(self, day: date) -> bool:
        """Return whether an action of a day, recorded under this ticker, is of the security.

        On the day of a change it may be recorded under either ticker; but where another security takes the ticker on that day,
        it is that one's.
        """
        if self.first is not None and day < self.first:
            return False
        return self.after is None or day < self.after or (day == self.after and not self.handed_on)


def tenures(symbol: str, left: TickerChange | None, renames: Callable[[str], Iterable[TickerChange]]) -> tuple[Tenure, ...]:
    """Return the tickers that the security of a series has had, in order of time.

    Args:
        symbol: The symbol of the series.
        left: The change with which its security left the ticker, by `ticker_change_of`.
        renames: A function from a ticker to the changes from or to it that are known.
    """
    end = None if left is None else left.day
    begin = _taken(renames(symbol), symbol, before=end)
    found = [_tenure(symbol, begin, end, renames)]
    seen = {(symbol, end)}
    while begin is not None and (begin.old, begin.day) not in seen:
        seen.add((begin.old, begin.day))
        earlier = _taken(renames(begin.old), begin.old, before=begin.day)
        found.insert(0, _tenure(begin.old, earlier, begin.day, renames))
        begin = earlier
    while left is not None and (left.new, left.day) not in seen:
        seen.add((left.new, left.day))
        name, taken = left.new, left
        later = (one for one in renames(name) if one.old == name and one.day > taken.day)
        left = min(later, key=lambda one: one.day, default=None)
        found.append(_tenure(name, taken, None if left is None else left.day, renames))
    return tuple(found)


def _tenure(
    symbol: str, begin: TickerChange | None, after: date | None, renames: Callable[[str], Iterable[TickerChange]]
) -> Tenure:
    handed_on = after is not None and any(one.new == symbol and one.day == after for one in renames(symbol))
    return Tenure(symbol, None if begin is None else begin.day, after, handed_on)


def _taken(renames: Iterable[TickerChange], symbol: str, *, before: date | None) -> TickerChange | None:
    """Return the last change to *symbol* before a day."""
    candidates = [one for one in renames if one.new == symbol and (before is None or one.day < before)]
    return max(candidates, key=lambda one: one.day, default=None)
