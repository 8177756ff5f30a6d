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

    Args:
        present: The fingerprint of the file as it is; None if there is none.
        links: All records of it, the latest first.
    """
    state, live = present, list[Link]()
    for link in links:
        if link.entry.undo.kind is Kind.SEEN:
            if state is not None and link.entry.after is not None and state.size == link.entry.after.size:
                return Chain(tuple(live))
        elif link.entry.after == state:
            live.append(link)
            state = link.entry.before
    if state is None:
        return Chain(tuple(live))
    return Chain(tuple(live), live[-1].instant if live else None, unknown=not live)
