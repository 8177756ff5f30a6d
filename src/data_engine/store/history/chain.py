"""Find which records of a file happened, and which of them are to be undone: `Chain`. Pure.

A record happened if it lies on the chain of fingerprints that ends in the present file. The others are those of writers that were
killed, or that another writer was faster than: they never happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from data_engine.store.coverage import Fingerprint
from data_engine.store.history.record import Entry
from data_engine.store.history.undo import Kind


@dataclass(frozen=True, slots=True)
class Link:
    """What one record does to one file.

    Attributes:
        instant: When the record was made.
        actor: Who made it.
        entry: What it does.
    """

    instant: datetime
    actor: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class Chain:
    """The history of one file.

    Attributes:
        links: What happened to it, the latest first.
        begins: The instant from which its content is known; None if it is known as long as the store's history lasts. If the
            present file is not explained by any record, `unknown` is set instead.
        unknown: Whether nothing is known but the present content.
    """

    links: tuple[Link, ...]
    begins: datetime | None = None
    unknown: bool = False

    def later_than(self, instant: datetime) -> tuple[Link, ...]:
        """Return what is to be undone for the state at an instant, the latest first."""
        return tuple(link for link in self.links if link.instant > instant)

    def known_at(self, instant: datetime) -> bool:
        """Tell whether the content at an instant is known."""
        return not self.unknown and (self.begins is None or instant >= self.begins)


def walk(present: Fingerprint | None, links: Sequence[Link]) -> Chain:
    """Return the history of a file.

    A record that is not live tells what its writer read. If the file never was that, as far as the live records say, something
    changed it that made no record, and what it was before the earliest live record after that is not known.

    Args:
        present: The fingerprint of the file as it is; None if there is none.
        links: All records of it, the latest first.
    """
    state, live = present, list[Link]()
    pending: list[
        tuple[Fingerprint | None, int]
    ] = []  # what writers have read that is no state yet, and the live records by then
    for link in links:
        entry = link.entry
        if entry.undo.kind is Kind.SEEN:
            if not _is(state, entry.after):
                return _unexplained(live)
            pending = [(read, count) for read, count in pending if not _is(read, entry.after)]
            return _unexplained(live[: pending[0][1]]) if pending else Chain(tuple(live))
        if entry.after == state:
            live.append(link)
            state = entry.before
            pending = [(read, count) for read, count in pending if read != state]
            if entry.undo.kind is Kind.LOST:
                return _unexplained(live[: pending[0][1]] if pending else live)
        elif entry.before != state:
            pending.append((entry.before, len(live)))
    if pending:
        return _unexplained(live[: pending[0][1]])
    return Chain(tuple(live)) if state is None else _unexplained(live)


def _is(mark: Fingerprint | None, listed: Fingerprint | None) -> bool:
    """Tell whether a file is the one of which the size was listed."""
    return mark is not None and listed is not None and mark.size == listed.size


def _unexplained(live: Sequence[Link]) -> Chain:
    return Chain(tuple(live), live[-1].instant if live else None, unknown=not live)
