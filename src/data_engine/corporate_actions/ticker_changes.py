"""Find the security of a stored series, and the day on which it left its ticker.

Tickers are reassigned: Facebook was FB until 2022-06-08 and has been META since; META had been a fund's ticker, and FB is another
fund's today. For a ticker, Alpaca sends the whole history of the security that has it now, under earlier tickers too. So a series
whose security has left the ticker must not be requested beyond that day: the bars would be those of another security. A security
leaves its ticker when it is renamed, and when it ceases to exist: merged, redeemed, worthless or reorganized. If it comes back to
the ticker, its series goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from data_engine.corporate_actions.ex_dates import possible_ex_dates
from data_engine.market.corporate_action import CEASED, Action, new_ticker
from data_engine.market.symbol import asof_day, ticker_of
from data_engine.market.time_range import TimeRange, new_york_midnight, union
from data_engine.store.coverage import Coverage

_DAY = timedelta(days=1)

AS_OF = "asof"
"""The kind of the change at which ``S@DATE`` ends by its name, since no action is known that ended it later."""

DELISTED = "delisted"
"""The kind of the end of a series that Alpaca lists as inactive and has had no bar of for long (`universe.delisted`)."""

_MARKS = (b'"new_symbol"', *(f'"type": "{kind}"'.encode() for kind in CEASED))
"""One of these is in every file of actions with a ticker change."""


@dataclass(frozen=True, slots=True)
class TickerChange:
    """The end of a security's time under a ticker.

    Attributes:
        old: The ticker.
        new: The next ticker of the security. If None, it ceased to exist.
        day: The first New York day on which the ticker is no longer the security's. One that ceased to exist may trade on the
            day of the action, if no other security takes the ticker then.
        kind: The kind of the action, as Alpaca names it, or `AS_OF` or `DELISTED`.
        on: The day of the action. If None, *day*.
        into: The symbol of the shares that replaced the security. If None, there is none.
    """

    old: str
    new: str | None
    day: date
    kind: str = "name_change"
    on: date | None = None
    into: str | None = None

    @property
    def effective(self) -> date:
        """The day of the action."""
        return self.on or self.day

    @property
    def last_day(self) -> date:
        """The last whole day under the old ticker. As of this day, Alpaca answers for the security that left."""
        return self.effective - _DAY

    @property
    def instant(self) -> datetime:
        """The instant from which on the old ticker is free, in UTC."""
        return new_york_midnight(self.day)

    def to_json(self) -> dict[str, str | None]:
        """Return the fields that ``status --json`` prints as ``ended``."""
        return {"date": self.effective.isoformat(), "reason": self.kind, "new": self.new, "into": self.into}

    def __str__(self) -> str:
        if self.new is not None:
            return f"{self.old} renamed to {self.new} on {self.effective}"
        if self.kind == DELISTED:
            return f"{self.old} delisted: inactive at Alpaca, and no bar after {self.last_day}"
        if self.kind == AS_OF:
            return f"{self.old}@{self.last_day} ends on {self.last_day} by its name"
        what = CEASED.get(self.kind, self.kind.replace("_", " "))
        into = {"bought": " by ", "merged": " into "}.get(what, ", now ") + self.into if self.into else ""
        return f"{self.old} {what}{into} on {self.effective}"


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
        """Return the changes from or to a ticker."""
        return self.by_symbol.get(symbol, ())

    def until(self, now: datetime) -> TickerChanges:
        """Return those that have happened; others are announced, and may change."""
        past = {symbol: tuple(one for one in made if one.instant <= now) for symbol, made in self.by_symbol.items()}
        return TickerChanges(past, self.unreadable)

    def problem_of(self, symbol: str) -> str | None:
        """Return why the changes of a series' ticker cannot be read, or None."""
        return self.unreadable.get(ticker_of(symbol))


def ticker_changes_of(actions: Iterable[Action]) -> tuple[TickerChange, ...]:
    """Return the ticker changes among the actions of a symbol, in order of time; a reverse split may bring a new ticker, too."""
    made: set[TickerChange] = set()
    ceased: list[Action] = []
    for action in actions:
        if action.keeps_ticker:
            continue
        tickers = new_ticker(action.kind, action.record)
        if tickers is not None:
            made.add(TickerChange(*tickers, action.day))
        elif action.kind in CEASED and action.symbol not in _shares_after(action):
            ceased.append(action)
    taken = {(one.new, one.day) for one in made}
    ends = {_end_of(action, taken) for action in ceased}
    return tuple(sorted((*made, *ends), key=change_order))


def change_order(change: TickerChange) -> tuple[date, str, str]:
    """Return the sort key of ticker changes: by day."""
    return change.day, change.old, change.new or ""


def _shares_after(action: Action) -> tuple[str, ...]:
    """Return the symbols of the shares that replace those of an action."""
    record = action.record
    moved = record.get("stock_movements")
    legs = [one.get("symbol") for one in moved if isinstance(one, dict)] if isinstance(moved, list) else []
    return tuple(one for one in (record.get("acquirer_symbol"), record.get("new_symbol"), *legs) if isinstance(one, str) and one)


def _end_of(action: Action, taken: set[tuple[str | None, date]]) -> TickerChange:
    """Return the change with which a security ceased to exist; it may have traded on that day, unless its ticker was *taken*."""
    free = action.day if (action.symbol, action.day) in taken else action.day + _DAY
    return TickerChange(action.symbol, None, free, action.kind, action.day, next(iter(_shares_after(action)), None))


def may_hold_changes(data: bytes) -> bool:
    """Return whether the content of a file of actions can have a ticker change; most have none, and need not be decoded."""
    return any(mark in data for mark in _MARKS)


ChangesOf = Callable[[str], Iterable[TickerChange]]
"""Return the ticker changes from or to a ticker that are known."""


def ticker_change_of(
    symbol: str,
    changes: ChangesOf,
    *,
    since: datetime | None = None,
    begun: datetime | None = None,
    first_bar: datetime | None = None,
) -> TickerChange | None:
    """Return the change with which the security of a series left its ticker, or None if it has not left, or has come back.

    Args:
        symbol: The symbol of the series, ``S`` or ``S@DATE``. Of the latter, the security is the one that had S on that day; if
            no change after that day is known, that day is its last.
        changes: The ticker changes that are known.
        since: The instant from which on bars are requested. If None, from the beginning. A series that begins after a change
            is the next owner's, and does not end with it.
        begun: The instant when the series was first stored. If None, it is not stored yet. The series is of the security that had
            the ticker then, else of the last one that had it: Alpaca answers for that one. Later changes do not alter this.
        first_bar: The first stored bar. A series that was begun after a change, and has no bar of before, is the next owner's.
    """
    ticker, asof = ticker_of(symbol), asof_day(symbol)
    # On the day of a swap the ticker is the taker's: of one day, who takes it comes last.
    ours = sorted((one for one in changes(ticker) if ticker in (one.old, one.new)), key=lambda one: (one.day, one.new == ticker))
    if not ours and asof is None:  # most symbols: `status` asks for each of a store
        return None
    if asof is not None:
        left = next((one for one in ours if one.old == ticker and one.day > asof), None)
        left = left or TickerChange(ticker, None, asof + _DAY, AS_OF)
    else:
        before = [one for one in ours if begun is None or one.instant <= begun]
        starts = [since, first_bar if begun is not None else None]
        # What was begun under an owner that no action tells of has no bar of before it.
        late = [max(filter(None, starts), default=None)] * len(before[-1:]) + [since] * (len(ours) - len(before))
        candidates = zip(before[-1:] + ours[len(before) :], late, strict=True)
        left = next((one for one, start in candidates if one.old == ticker and (start is None or start < one.instant)), None)
    while left is not None and (back := _return_of(left, changes)) is not None:
        left = next((one for one in ours if one.old == ticker and one.day > back.day), None)
    return left


def end_of_series(known: Coverage, changes: ChangesOf, *, since: datetime | None = None) -> TickerChange | None:
    """Return the change with which the security of a series left its ticker; None if it has it still.

    Args:
        known: The coverage of the series: when it was begun, and its first bar, tell whose it is.
        changes: The ticker changes that are known.
        since: The instant from which on its bars are meant. If None, the start of what is requested, claimed or stored.
    """
    start = known.since if since is None else since
    return ticker_change_of(known.series.symbol, changes, since=start, begun=known.begun, first_bar=known.first_bar)


def left_by_name(symbol: str, changes: ChangesOf) -> TickerChange | None:
    """Return the change with which the security that ``S@DATE`` names left its ticker; None if none is known.

    Args:
        symbol: The symbol, with a day.
        changes: The ticker changes that are known.
    """
    left = ticker_change_of(symbol, changes)
    return None if left is not None and left.kind == AS_OF else left


def change_after(known: Coverage, changes: ChangesOf, start: datetime) -> TickerChange | None:
    """Return the first change after *start* with which a security left the ticker of a series, whose ever its stored bars are.

    Unlike `end_of_series` it leaves the first bar aside: where that is of the next owner, what is requested of the time before
    the change is not.

    Args:
        known: The coverage of the series.
        changes: The ticker changes that are known.
        start: The instant from which on bars are requested.
    """
    return ticker_change_of(known.series.symbol, changes, since=start, begun=known.begun)


def _return_of(left: TickerChange, changes: ChangesOf) -> TickerChange | None:
    """Return the change with which the security that left a ticker came back to it, or None."""
    return next((one for one in _followed(left, changes) if one.new == left.old), None)


def _followed(left: TickerChange, changes: ChangesOf) -> Iterator[TickerChange]:
    """Yield the later changes of a security that left a ticker, in order of time."""
    while (name := left.new) is not None:
        later = [one for one in changes(name) if one.old == name and one.day > left.day]
        if not later:
            return
        left = min(later, key=lambda one: one.day)
        yield left


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
        changes: The changes from or to the ticker, by which others are known to have had it.
    """

    symbol: str
    first: date | None = None
    after: date | None = None
    handed_on: bool = False
    changes: tuple[TickerChange, ...] = field(default=(), compare=False, repr=False)

    def actions(self, stored: Iterable[Action]) -> list[Action]:
        """Return those of the actions that are stored for the ticker which are of the security."""
        return [action for action in stored if action.symbol == self.symbol and self.may_have(action)]

    def may_have(self, action: Action) -> bool:
        """Return whether an action that is recorded under this ticker is of the security, or may be if its day is unknown.

        On the day of a change it may be recorded under either ticker; but where another security takes the ticker on that day,
        it is that one's. One that is booked while the security has the ticker, with an ex-date when it had another one, is of the
        security unless another one is known to have had this ticker then.
        """
        if self._spans(*possible_ex_dates(action)):
            return True
        return self._books(action) and not self._was_anothers(action.day)

    def disputed(self, action: Action) -> bool:
        """Return whether an action is counted as another security's though it is booked while this one has the ticker."""
        return action.symbol == self.symbol and not self.may_have(action) and self._books(action)

    def has(self, day: date) -> bool:
        """Return whether the security has the ticker on a day."""
        return self._spans(day, day)

    def _books(self, action: Action) -> bool:
        return self.has(action.process_date)

    def _was_anothers(self, day: date) -> bool:
        """Return whether another security is known to have had the ticker on a day outside of this tenure."""
        before = [one for one in self.changes if one.day <= day]
        later = [one for one in self.changes if one.day > day]
        if before and max(before, key=self._order).new == self.symbol:
            return True
        return bool(later) and min(later, key=self._order).old == self.symbol

    def _order(self, change: TickerChange) -> tuple[date, bool]:
        return change.day, change.new == self.symbol

    def _spans(self, first: date, last: date) -> bool:
        """Return whether one of some days is of the tenure."""
        if self.first is not None and last < self.first:
            return False
        return self.after is None or first < self.after or (first == self.after and not self.handed_on)


def tenures(symbol: str, left: TickerChange | None, changes: ChangesOf) -> tuple[Tenure, ...]:
    """Return the tickers that the security of a series has had, in order of time.

    Args:
        symbol: The symbol of the series.
        left: The change with which its security left the ticker, by `ticker_change_of`.
        changes: The ticker changes that are known.
    """
    ticker = ticker_of(symbol)
    end = None if left is None else left.day
    begin = _taken(changes(ticker), ticker, before=end)
    found = [_tenure(ticker, begin, end, changes)]
    seen = {(ticker, end)}
    while begin is not None and (begin.old, begin.day) not in seen:
        seen.add((begin.old, begin.day))
        earlier = _taken(changes(begin.old), begin.old, before=begin.day)
        found.insert(0, _tenure(begin.old, earlier, begin.day, changes))
        begin = earlier
    taken = left
    for later in (*_followed(left, changes), None) if left is not None and left.new is not None else ():
        if taken is not None and taken.new is not None:
            found.append(_tenure(taken.new, taken, None if later is None else later.day, changes))
        taken = later
    return tuple(found)


def _tenure(symbol: str, begin: TickerChange | None, after: date | None, changes: ChangesOf) -> Tenure:
    ours = tuple(one for one in changes(symbol) if symbol in (one.old, one.new))
    handed_on = after is not None and any(one.new == symbol and one.day == after for one in ours)
    return Tenure(symbol, None if begin is None else begin.day, after, handed_on, ours)


def _taken(changes: Iterable[TickerChange], symbol: str, *, before: date | None) -> TickerChange | None:
    """Return the last change to *symbol* before a day."""
    candidates = [one for one in changes if one.new == symbol and (before is None or one.day < before)]
    return max(candidates, key=lambda one: one.day, default=None)
