"""Derive the list of an index from its history: the list file only adds the order and the time of day."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime

from data_engine.market.time_range import new_york_date, new_york_midnight
from data_engine.universe.index_files import ListRows
from data_engine.universe.membership import MembershipChange, replay


def derived_list(
    events: Sequence[MembershipChange],
    listed: ListRows,
    *,
    order: Iterable[str] | None = None,
    until: date | None = None,
    now: datetime | None = None,
) -> ListRows:
    """Return the members, each with the instant at which it was added.

    Args:
        events: The history.
        listed: The rows of the list file, which may be those of another state of the history.
        order: The order of the members; others follow in the order in which they were added. If None, that of *listed*.
        until: The day at whose end they are members. If None, or not before the last change, the present members.
        now: The instant at which members were added that are not in *listed*, if that is on the day of the history.
    """
    known = dict(listed)
    members = replay(events, until)
    place = {symbol: at for at, symbol in enumerate(known if order is None else order)}
    present = until is None or not events or until >= events[-1].day
    ordered = sorted(members, key=lambda symbol: place.get(symbol, len(place))) if present else list(members)
    opening = events[0].day if events else None
    return [(symbol, _added(members[symbol], opening, known.get(symbol), now)) for symbol in ordered]


def _added(day: date, opening: date | None, listed: datetime | None, now: datetime | None) -> datetime:
    """Return the instant at which a member was added on a day of the history.

    A member of the first list may have been one before: nothing contradicts an earlier day in the list file.
    """
    if listed is not None and (new_york_date(listed) == day or (day == opening and new_york_date(listed) < day)):
        return listed
    return now if now is not None and new_york_date(now) == day else new_york_midnight(day)
