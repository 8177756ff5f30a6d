"""Compute the members of an index on any day from dated changes.

A day is a calendar day in New York. A symbol that is added on a day is a member from that day on; a symbol that is removed on a
day is no member from that day on. Events of one day are applied in their order, so that a symbol can leave and return on it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from data_engine.errors import InputError
from data_engine.market.time_range import TimeRange, intersection, new_york_midnight, union
from data_engine.market.wording import and_more, indented

if TYPE_CHECKING:
    import pyarrow as pa


ADDED, REMOVED = "added", "removed"

FOREVER = datetime(2200, 1, 1, tzinfo=UTC)
"""The end of a membership that still lasts: after every date that data-engine accepts."""

_TOLERATED = 5  # one change in this many may contradict the rest

_SHOWN = 10

_DAY = attrgetter("day")

Members = dict[str, date]
"""Symbol to the day it was added, in the order of the list."""


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """A symbol that was added to an index, or removed from it.

    Attributes:
        day: The New York day.
        action: The word ``added`` or ``removed``.
        symbol: The symbol as stored.
        place: The source, such as ``changes.csv: line 12``; may be empty.
    """

    day: date
    action: str
    symbol: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.place + ': ' if self.place else ''}{self.symbol} {self.action} on {self.day}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The complete list at the end of a day.

    Attributes:
        day: The day; None means after the last known change.
        symbols: The members in the order of the list, each once.
        place: The source.
    """

    day: date | None
    symbols: tuple[str, ...]
    place: str


@dataclass(frozen=True, slots=True)
class History:
    """The past of an index.

    Attributes:
        events: The changes in order; those of the first day are the first list. The index is unknown before it.
        until: The last day in the sources.
        warnings: The contradictions in the sources, with their lines.
    """

    events: tuple[MembershipChange, ...]
    until: date
    warnings: tuple[str, ...] = ()


def seed(listed: Members) -> list[MembershipChange]:
    """Return the history of a list that has none, such as one written by hand.

    It begins on the last of the days: who left before is not known, and the others alone are not the index of then.
    """
    first = max(listed.values(), default=date.min)
    return [MembershipChange(first, ADDED, symbol) for symbol in listed]


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
    """Return the events that turn one list into another."""
    listed, now = list(before), set(wanted)
    there = set(listed)
    removed = [MembershipChange(day, REMOVED, symbol) for symbol in listed if symbol not in now]
    return removed + [MembershipChange(day, ADDED, symbol) for symbol in wanted if symbol not in there]


# ----------------------------------------------------------------------------------------------- a history from other sources


def build_history(
    changes: Iterable[MembershipChange], snapshots: Iterable[Snapshot], *, since: date | None = None, force: bool = False
) -> History:
    """Return a history made from dated changes and from the list at one or several days.

    The earliest list is the anchor: changes up to its day are undone backwards from it, later ones are applied forwards. The
    first list is that of the anchor's day, or, if changes precede it, that of the first change's day: how long it had been valid
    is unknown. A change that does not fit (removed though no member, added though a member) has no effect. A later list that
    differs from the result of the changes is used: the differences become changes of its day. Both give warnings, not errors,
    since published lists usually contain some, and are otherwise right. If more than one in five changes do not fit, the list is
    probably of another index or of another day, which is an error.

    Args:
        changes: The changes; the order matters only within a day.
        snapshots: The lists, at least one.
        since: The day from which on the changes are complete, if that is before the first change.
        force: Whether to accept a history in which more than one in five changes do not fit.

    Raises:
        InputError: If there is no list, too many changes do not fit, or *since* is after the first change or list.
    """
    ordered = sorted(changes, key=_DAY)
    anchor, *later = _dated(snapshots, ordered)
    cut = bisect_right(ordered, anchor.day, key=_DAY)
    warnings: list[str] = []
    before, effective = _fitting(anchor.symbols, ordered[:cut], warnings, backwards=True)
    effective += _fitting(anchor.symbols, ordered[cut:], warnings, backwards=False)[1]
    if not force:
        _refuse_nonsense(warnings, len(ordered))
    first = _first_day(min([anchor.day, *(change.day for change in ordered[:1])]), since)
    events = _opened(first, before, effective)
    for one in later:
        events = _corrected(events, one, warnings)
    until = max([first, anchor.day, *(one.day for one in later), *(change.day for change in ordered)])
    return History(tuple(events), until, tuple(warnings))


def continue_history(made: History, stored: Sequence[MembershipChange]) -> History:
    """Return a history continued by the stored changes after its end.

    Args:
        made: The history from other sources.
        stored: The stored history. Its changes up to ``made.until`` are dropped.
    """
    events, warnings = list(made.events), list(made.warnings)
    for number, day in enumerate(sorted({event.day for event in stored if event.day > made.until})):
        new = differences(replay(events), list(replay(stored, day)), day)
        noted = {(event.action, event.symbol) for event in stored if event.day == day}
        unsaid = [event for event in new if stored[0].day == day or (event.action, event.symbol) not in noted]
        if unsaid and not number:
            warnings.append(f"the list stored on {day} differs from the imported one: {_signed(unsaid)}; no change explains it")
        events += new
    return History(tuple(events), max([made.until, *(event.day for event in stored)]), tuple(warnings))


@dataclass(frozen=True, slots=True)
class _Dated:
    day: date
    symbols: tuple[str, ...]
    place: str


def _dated(snapshots: Iterable[Snapshot], ordered: Sequence[MembershipChange]) -> list[_Dated]:
    """Return the lists, each with its day, in order of time; at least one."""
    lists = []
    for one in snapshots:
        if one.day is None and not ordered:
            raise InputError(f"{one.place}: the day of this list is unknown; name it with --as-of (as_of=...)")
        lists.append(_Dated(one.day or ordered[-1].day, one.symbols, one.place))
    if not lists:
        raise InputError("changes do not tell the members before them; pass a list of any day with --members")
    return sorted(lists, key=_DAY)


def _first_day(first: date, since: date | None) -> date:
    if since is not None and since > first:
        raise InputError(f"since {since} is after the first change or list, of {first}; omit it, or name an earlier day")
    return since or first


def _opened(first: date, before: Sequence[str], effective: Sequence[MembershipChange]) -> list[MembershipChange]:
    """Return the events of a history that begins on a day with the members at its end."""
    opening = replay([*(MembershipChange(first, ADDED, symbol) for symbol in before), *effective], first)
    events = [MembershipChange(first, ADDED, symbol) for symbol in opening]
    return events + [event for event in effective if event.day > first]


def _fitting(
    symbols: Sequence[str], changes: Sequence[MembershipChange], warnings: list[str], *, backwards: bool
) -> tuple[list[str], list[MembershipChange]]:
    """Return the list at the other end of *changes*, and the changes that fit.

    Args:
        symbols: The list before the changes, or, backwards, after them.
        changes: The changes in order of time.
        warnings: The list to which the changes that do not fit are added.
        backwards: Whether to undo the changes, the last one first.
    """
    members = dict.fromkeys(symbols)
    effective: list[MembershipChange] = []
    found: list[str] = []
    step = -1 if backwards else 1
    for change in changes[::step]:
        present = change.symbol in members
        if ((change.action == ADDED) is present) is not backwards:
            which, when = "a" if present else "no", "after" if backwards else "before"
            found.append(f"{change}, though it is {which} member {when} that; ignored")
            continue
        effective.append(change)
        if present:
            del members[change.symbol]
        else:
            members[change.symbol] = None
    warnings += found[::step]
    return list(members), effective[::step]


def _corrected(events: list[MembershipChange], one: _Dated, warnings: list[str]) -> list[MembershipChange]:
    """Return the events with the differences of a later list as changes of its day."""
    past = [event for event in events if event.day <= one.day]
    new = differences(replay(past), one.symbols, one.day)
    if not new:
        return events
    warnings.append(f"{one.place}: the list of {one.day} differs from the result of the changes: {_signed(new)}; it is used")
    corrected = {event.symbol for event in new}
    rest: list[MembershipChange] = []
    members_now = set(one.symbols)
    for event in events[len(past) :]:
        if event.symbol in corrected and (event.action == ADDED) is (event.symbol in members_now):
            continue  # the correction has done this already
        members_now ^= {event.symbol}
        rest.append(event)
    return [*past, *new, *rest]


def _refuse_nonsense(warnings: Sequence[str], changes: int) -> None:
    if _TOLERATED * len(warnings) > changes:
        raise InputError(
            f"{len(warnings)} of {changes} changes do not fit the list, which may be of another index or another day (--as-of); "
            f"use --force (force=True) to apply the changes that fit\n{indented(warnings, _SHOWN)}"
        )


def _signed(events: Sequence[MembershipChange]) -> str:
    return and_more((("+" if event.action == ADDED else "-") + event.symbol for event in events), _SHOWN, separator=" ")


# ------------------------------------------------------------------------------------------------------------- memberships


def memberships(events: Iterable[MembershipChange], symbol: str) -> tuple[TimeRange, ...]:
    """Return the sorted, disjoint ranges in which a symbol was a member; up to `FOREVER` if it still is one."""
    return _ranges(event for event in events if event.symbol == symbol)


def members_within(events: Iterable[MembershipChange], span: TimeRange) -> dict[str, tuple[TimeRange, ...]]:
    """Return the sorted symbols that were members inside *span*, with the ranges in which they were, clipped to *span*."""
    by_symbol: dict[str, list[MembershipChange]] = {}
    for event in events:
        by_symbol.setdefault(event.symbol, []).append(event)
    found = ((symbol, intersection(_ranges(ours), (span,))) for symbol, ours in sorted(by_symbol.items()))
    return {symbol: ranges for symbol, ranges in found if ranges}


def _ranges(events: Iterable[MembershipChange]) -> tuple[TimeRange, ...]:
    """Return the memberships of one symbol. A symbol that leaves and returns on one day never left."""
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
    """Return whether each bar lies in a membership, as a numpy array of booleans.

    Args:
        times: The timestamps of the bars, an array of microseconds since 1970, in any order.
        ranges: The memberships, sorted and disjoint, by `memberships`.
    """
    import numpy as np

    from data_engine.market.bars import to_micros

    edges = np.array([to_micros(at) for piece in ranges for at in (piece.start, piece.end)], np.int64)
    return np.searchsorted(edges, times, side="right") % 2 == 1


def keep_members(ranges: Mapping[str, Sequence[TimeRange]]) -> Callable[[str, pa.Table], pa.Table]:
    """Return a step of reading that filters a symbol's table to its memberships; symbols without any lose all bars."""

    def step(symbol: str, table: pa.Table) -> pa.Table:
        import pyarrow as pa

        from data_engine.market.bars import timestamps_us

        return table.filter(pa.array(member_rows(timestamps_us(table), ranges.get(symbol, ()))))

    return step
