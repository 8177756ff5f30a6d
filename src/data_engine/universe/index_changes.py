"""Define what storing or importing an index changes, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time

from data_engine.errors import InputError
from data_engine.universe.membership import Members, MembershipChange


@dataclass(frozen=True, slots=True)
class IndexChange:
    """The changes made by storing a list.

    Attributes:
        name: The name of the index.
        members: The number of symbols that it has now.
        added: The new symbols, in the order given.
        removed: The symbols that are no longer members.
        kept: Whether the index was left as it was: it was stored by name, and the name of the new list was only derived.
    """

    name: str
    members: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    kept: bool = False


@dataclass(frozen=True, slots=True)
class IndexImport:
    """The result of importing the past of an index.

    Attributes:
        name: The name of the index.
        since: The first day on which its members are known.
        last_change: The day of the last change.
        members: The number of symbols that it has now.
        warnings: The contradictions in the sources, with their lines.
        to_come: The number of changes that were ignored because their day is in the future.
    """

    name: str
    since: date
    last_change: date
    members: int
    warnings: tuple[str, ...] = ()
    to_come: int = 0


def not_known(name: str, events: Sequence[MembershipChange], day: date) -> InputError:
    """Return the error of a day before the first list of an index: its members are unknown then, not absent."""
    since = events[0].day if events else "no day"
    return InputError(
        f"index {name!r} is known since {since}, not on {day}; run `data-engine index import {name} --changes FILE`"
    )


def refuse_loss(name: str, before: Members, wanted: Sequence[str]) -> None:
    """Raise `InputError` if a list drops more than 20 % of the members of an index."""
    lost = len(before.keys() - set(wanted))
    if 5 * lost > len(before):
        raise InputError(
            f"cannot store {len(wanted)} symbols as index {name!r}: that would drop {lost} of its {len(before)} members, "
            "more than 20 %; use another name, or --force (force=True)"
        )


def parse_index_day(value: object, parameter: str) -> date:
    """Return the day in an argument.

    Raises:
        InputError: If it is none; the message names the argument.
    """
    if isinstance(value, str):
        try:
            return date.fromisoformat(value.strip())
        except ValueError as error:
            raise InputError(f"{parameter} {value!r} is not a date such as 2024-01-31") from error
    if isinstance(value, datetime):  # a pandas Timestamp is one, too
        if value.tzinfo is not None or value.time() != time():
            raise InputError(f"{parameter} {value!r} is not a date such as 2024-01-31")
        return value.date()
    if not isinstance(value, date):
        raise InputError(f"{parameter} {value!r} is not a date such as 2024-01-31")
    return value
