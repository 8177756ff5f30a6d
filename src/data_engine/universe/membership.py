"""Who was a member of an index on which day: events, and what follows from them. Pure.

A day is a calendar day in New York. Who is added on a day is a member from that day on; who is removed on a day is no member
from that day on. Events of one day are applied in their order, so that a symbol can leave and return on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from data_engine.errors import InputError
from data_engine.market.time_range import TimeRange, intersection, new_york_midnight, union

if TYPE_CHECKING:
    import pyarrow as pa


ADDED, REMOVED = "added", "removed"

FOREVER = datetime(2200, 1, 1, tzinfo=UTC)
"""Where the membership of who is still a member ends: after every date that is understood."""

_TOLERATED = 5  # one change in so many may contradict the rest

_SHOWN = 10

Members = dict[str, date]
"""Symbol to the day it was added, in the order of the list."""


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """A symbol that came or left.

    Attributes:
        day: of New York.
        action: ``added`` or ``removed``.
        symbol: canonical.
        place: where it was read, as ``changes.csv: line 12``; empty where that does not matter.
    """

    day: date
    action: str
    symbol: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.place + ': ' if self.place else ''}{self.symbol} {self.action} on {self.day}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole list as it was at the end of a day.

    Attributes:
        day: None is after the last change that is known.
        symbols: in the order of the list, each once.
        place: where it was read.
    """

    day: date | None
    symbols: tuple[str, ...]
    place: str


@dataclass(frozen=True, slots=True)
class History:
    """The past of an index.

    Attributes:
        events: in order; those of the first day make the first list. Before it, nothing is known.
        until: the last day that the sources speak of.
        warnings: sentences on what contradicts itself in the sources, with the lines.
    """

    events: tuple[MembershipChange, ...]
    until: date
    warnings: tuple[str, ...] = ()


def seed(listed: Members | None) -> list[MembershipChange]:
    """Make the history of a list that has none: someone wrote it by hand."""
    made = [MembershipChange(day, ADDED, symbol) for symbol, day in (listed or {}).items()]
    return sorted(made, key=lambda event: event.day)


def replay(events: Iterable[MembershipChange], until: date | None = None) -> Members:
    """Return the members after *events*, or at the end of the day *until*."""
    members: Members = {}
    for event in events:
        if until is not None and event.day > until:
            break
        if event.action == ADDED:
            members.setdefault(event.symbol, event.day)
        else:
            members.pop(event.symbol, None)
    return members


def differences(before: Iterable[str], wanted: Sequence[str], day: date) -> list[MembershipChange]:
    """Return the events that make one list of another."""
    listed, now = list(before), set(wanted)
    there = set(listed)
    removed = [MembershipChange(day, REMOVED, symbol) for symbol in listed if symbol not in now]
    return removed + [MembershipChange(day, ADDED, symbol) for symbol in wanted if symbol not in there]


# ----------------------------------------------------------------------------------------------- a history from other sources


def build_history(
    changes: Iterable[MembershipChange], snapshots: Iterable[Snapshot], *, since: date | None = None, force: bool = False
) -> History:
    """Make a history of dated changes and of the list at one or several days.

    The earliest list is the anchor: changes up to its day are undone backwards from it, later ones are applied forwards. The
    first list is that of the anchor's day, or, where changes lie before it, that of the first change's day: nothing says for
    how long it had been so. A change that does not fit (removed though no member, added though a member) has no effect. A later
    list that the changes do not lead to is believed: what it has otherwise becomes a change of its day. Both are warnings and no
    errors, since every list of this kind that people keep has some, and the rest of it is right. Where more than one in five
    changes do not fit, it is another index's list, or another day's, and an error.

    Args:
        changes: in any order of days, those of one day in theirs.
        snapshots: at least one.
        since: the day from which on the changes are complete, where that is before the first of them.
        force: take a history in which more than one in five changes do not fit.

    Raises:
        InputError: no list, too many contradictions, or a *since* after the first change or list.
    """
    ordered = sorted(changes, key=lambda change: change.day)
    lists = sorted(_dated(snapshots, ordered), key=lambda one: one.day or date.min)
    if not lists:
        raise InputError("changes alone do not say who was a member before them: a list is needed, of any day (--members)")
    anchor, day = lists[0], lists[0].day or date.min
    earlier = [change for change in ordered if change.day <= day]
    later = [change for change in ordered if change.day > day]
    warnings: list[str] = []
    before, effective = _undone(anchor.symbols, earlier, warnings)
    effective += _applied(anchor.symbols, later, warnings)
    _refuse_nonsense(len(warnings), len(ordered), warnings, force=force)
    first = min(day, ordered[0].day) if ordered else day
    if since is not None and since > first:
        raise InputError(
            f"since {since}: the first change or list is of {first}, which is earlier; leave it out, or name an earlier day"
        )
    first = since or first
    events = [*(MembershipChange(first, ADDED, symbol) for symbol in before), *effective]
    opening = replay(events, first)
    events = [MembershipChange(first, ADDED, symbol) for symbol in opening] + [event for event in effective if event.day > first]
    for one in lists[1:]:
        events = _believed(events, one, warnings)
    until = max(*(one.day for one in lists if one.day), *(change.day for change in ordered), first)
    return History(tuple(events), until, tuple(warnings))


def continue_history(made: History, stored: Sequence[MembershipChange]) -> History:
    """Return a history that goes on with what a store has noted after its end.

    Args:
        made: of other sources.
        stored: the history that is there. What it says of days up to ``made.until`` is forgotten.
    """
    events, warnings = list(made.events), list(made.warnings)
    for number, day in enumerate(sorted({event.day for event in stored if event.day > made.until})):
        new = differences(replay(events), list(replay(stored, day)), day)
        noted = {(event.action, event.symbol) for event in stored if event.day == day}
        unsaid = [event for event in new if stored[0].day == day or (event.action, event.symbol) not in noted]
        if unsaid and not number:
            warnings.append(f"the list stored on {day} differs from the imported one: {_listed(unsaid)}; no change says when")
        events += new
    return History(tuple(events), max([made.until, *(event.day for event in stored)]), tuple(warnings))


def _dated(snapshots: Iterable[Snapshot], ordered: Sequence[MembershipChange]) -> Iterator[Snapshot]:
    for one in snapshots:
        if one.day is None and not ordered:
            raise InputError(f"{one.place}: of which day is this list? Say so with --as-of (as_of=...)")
        yield one if one.day is not None else Snapshot(ordered[-1].day, one.symbols, one.place)


def _undone(
    symbols: Sequence[str], changes: Sequence[MembershipChange], warnings: list[str]
) -> tuple[list[str], list[MembershipChange]]:
    """Return the list before *changes*, which lead to *symbols*, and those of them that fit."""
    members = dict.fromkeys(symbols)
    effective: list[MembershipChange] = []
    found: list[str] = []
    for change in reversed(changes):
        present = change.symbol in members
        if (change.action == ADDED) is not present:
            found.append(f"{change}, though it {'is still a' if present else 'is no'} member after that; passed over")
        elif present:
            del members[change.symbol]
            effective.append(change)
        else:
            members[change.symbol] = None
            effective.append(change)
    warnings.extend(reversed(found))
    return list(members), effective[::-1]


def _applied(symbols: Sequence[str], changes: Sequence[MembershipChange], warnings: list[str]) -> list[MembershipChange]:
    """Return those of *changes* that fit a list which *symbols* was before."""
    members = set(symbols)
    effective: list[MembershipChange] = []
    for change in changes:
        present = change.symbol in members
        if (change.action == ADDED) is present:
            warnings.append(f"{change}, though it was {'a' if present else 'no'} member; passed over")
            continue
        members ^= {change.symbol}
        effective.append(change)
    return effective


def _believed(events: list[MembershipChange], one: Snapshot, warnings: list[str]) -> list[MembershipChange]:
    """Return the events with what a later list has otherwise as changes of its day."""
    day = one.day or date.min
    past = [event for event in events if event.day <= day]
    members = replay(past)
    new = differences(members, one.symbols, day)
    if not new:
        return events
    warnings.append(f"{one.place}: the list of {day} differs from what the changes lead to: {_listed(new)}; the list is believed")
    corrected = {event.symbol for event in new}
    rest: list[MembershipChange] = []
    members_now = set(one.symbols)
    for event in events[len(past) :]:
        if event.symbol in corrected and (event.action == ADDED) is (event.symbol in members_now):
            continue  # what it would do has been done
        members_now ^= {event.symbol}
        rest.append(event)
    return [*past, *new, *rest]


def _refuse_nonsense(wrong: int, changes: int, warnings: Sequence[str], *, force: bool) -> None:
    if not force and _TOLERATED * wrong > changes:
        lines = "\n".join(f"  {text}" for text in warnings[:_SHOWN])
        more = f"\n  and {wrong - _SHOWN} more" if wrong > _SHOWN else ""
        raise InputError(
            f"{wrong} of {changes} changes do not fit the list: is it another index, or another day (--as-of)? "
            f"--force (force=True) takes what fits\n{lines}{more}"
        )


def _listed(events: Sequence[MembershipChange]) -> str:
    said = [("+" if event.action == ADDED else "-") + event.symbol for event in events]
    return " ".join(said[:_SHOWN]) + (f" and {len(said) - _SHOWN} more" if len(said) > _SHOWN else "")


# ------------------------------------------------------------------------------------------------------------- memberships


def memberships(events: Iterable[MembershipChange], symbol: str) -> tuple[TimeRange, ...]:
    """Return when a symbol was a member: sorted, disjoint; up to `FOREVER` where it still is one, empty where it never was."""
    return _ranges(event for event in events if event.symbol == symbol)


def members_within(events: Iterable[MembershipChange], span: TimeRange) -> dict[str, tuple[TimeRange, ...]]:
    """Return every symbol that was a member at any time inside *span*, sorted, and when it was; clipped to *span*."""
    by_symbol: dict[str, list[MembershipChange]] = {}
    for event in events:
        by_symbol.setdefault(event.symbol, []).append(event)
    found = ((symbol, intersection(_ranges(ours), (span,))) for symbol, ours in sorted(by_symbol.items()))
    return {symbol: ranges for symbol, ranges in found if ranges}


def _ranges(events: Iterable[MembershipChange]) -> tuple[TimeRange, ...]:
    """Return the memberships of one symbol. Who leaves and returns on one day never left."""
    pieces: list[TimeRange] = []
    since: date | None = None
    for event in events:
        if event.action == ADDED:
            since = since or event.day
        elif since is not None:
            if since < event.day:
                pieces.append(TimeRange(new_york_midnight(since), new_york_midnight(event.day)))
            since = None
    if since is not None:
        pieces.append(TimeRange(new_york_midnight(since), FOREVER))
    return union(pieces)


def member_rows(times: Any, ranges: Sequence[TimeRange]) -> Any:
    """Return which bars belong to a member, as a numpy array of truth values.

    Args:
        times: starts of bars, an array of microseconds since 1970, in any order.
        ranges: sorted and disjoint, as `memberships` makes them.
    """
    import numpy as np

    from data_engine.market.bars import to_micros

    edges = np.array([to_micros(at) for piece in ranges for at in (piece.start, piece.end)], np.int64)
    return np.searchsorted(edges, times, side="right") % 2 == 1


def keep_members(ranges: Mapping[str, Sequence[TimeRange]]) -> Callable[[str, pa.Table], pa.Table]:
    """Return a step of reading that keeps of a symbol's table the bars of its days as a member; of others, none."""

    def step(symbol: str, table: pa.Table) -> pa.Table:
        import pyarrow as pa

        from data_engine.market.bars import timestamps_us

        return table.filter(pa.array(member_rows(timestamps_us(table), ranges.get(symbol, ()))))

    return step
