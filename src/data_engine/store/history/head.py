"""Compute what a commit is recorded as: its files, its number and its instant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from data_engine.store.disk import Mutex
from data_engine.store.file_count import Fingerprint
from data_engine.store.history.bar_undo import file_undo
from data_engine.store.history.record import Entry, is_recorded
from data_engine.store.history.undo import Edited, Kind, Undo, undo_of

BEGINNING = "beginning"
"""Who made the first record of a store, which lists the files that were there."""

USER = "store"
"""Who stores bars of a DataFrame: a user, beside whatever run holds the store."""

UNNAMED = "data-engine"
"""Who makes a commit if no one says so."""

_TICK = timedelta(microseconds=1)


@dataclass
class Head:
    """The last record that a process knows of, and the lock between its threads.

    Attributes:
        mutex: The lock.
        number: The number of the record; 0 if none is known.
        instant: Its instant.
        read_at: When a bucket was asked for it, by the clock of `s3.lease.elapsed`.
        read_today: The same by the time of day.
        failed: The numbers of records whose requests failed, and may be carried out later.
    """

    mutex: Mutex
    number: int = 0
    instant: datetime | None = None
    read_at: float = 0.0
    read_today: datetime | None = None
    failed: list[int] = field(default_factory=list)

    def asked(self, elapsed: float) -> None:
        """Note that a bucket is now asked for the last record."""
        self.read_at, self.read_today = elapsed, datetime.now(UTC)

    def is_older_than(self, age: timedelta, elapsed: float) -> bool:
        """Tell whether a bucket was asked longer ago, as one of the clocks says: either may stand still in a paused machine."""
        today = self.read_today
        return today is None or elapsed - self.read_at > age.total_seconds() or abs(datetime.now(UTC) - today) > age


@dataclass(frozen=True, slots=True)
class Replaced:
    """A file that a commit replaces or removes.

    Attributes:
        key: The file.
        old: The content that it has; None if there is none.
        new: The content that it gets; empty if it is removed.
        before: The fingerprint of *old* if it is known.
        lost: Whether there is a file whose content is not kept.
    """

    key: str
    old: bytes | None
    new: bytes
    before: Fingerprint | None = None
    lost: bool = False

    @classmethod
    def unread(cls, key: str) -> Replaced:
        """Return a removal of a file that cannot be read."""
        return cls(key, None, b"", Fingerprint(0, ""), lost=True)

    def entry(self) -> Entry:
        """Return what is recorded of it."""
        known = self.new.mark if isinstance(self.new, Edited) else None
        after = None if not self.new else known or Fingerprint.of(self.new)
        if self.lost:
            return Entry(self.key, self.before, after, Undo(Kind.LOST))
        before = None if self.old is None else self.before or Fingerprint.of(self.old)
        return Entry(self.key, before, after, self._undo())

    def _undo(self) -> Undo:
        undo = undo_of(self.old, self.new)
        if undo.kind is not Kind.WHOLE or not self.key.startswith("equities_"):
            return undo
        rows = file_undo(undo.body, self.new)
        return rows if rows is not None and len(rows.body) < len(undo.body) else undo


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes commits.

    Attributes:
        name: Whom the history names.
        forgets: Whether the bars that a commit takes out are not kept.
    """

    name: str = UNNAMED
    forgets: bool = False


def entries_of(replaced: Iterable[Replaced], actor: Actor) -> list[Entry]:
    """Return what is recorded of a commit; nothing if it changes no file whose history is kept."""
    changing = (one for one in replaced if is_recorded(one.key) and (one.lost or (one.old or b"") != one.new))
    return [_forgotten(one.entry()) if actor.forgets else one.entry() for one in changing]


def has_values(key: str) -> bool:
    """Tell whether a file has values of bars: those that are stored, or that other sources had."""
    return key.startswith(("equities_", "metadata/conflicts/"))


def _forgotten(entry: Entry) -> Entry:
    is_kept = not has_values(entry.key) or entry.before is None
    return entry if is_kept else replace(entry, undo=Undo(Kind.LOST))


def found_at_beginning(sizes: Iterable[tuple[str, int]]) -> list[Entry]:
    """Return what the first record lists: the files that were there, by their sizes."""
    marks = ((key, Fingerprint(size, "")) for key, size in sizes if is_recorded(key))
    return [Entry(key, mark, mark, Undo(Kind.SEEN)) for key, mark in marks]


def next_instant(last: datetime | None) -> datetime:
    """Return the instant of the next record: now, or right after the last one if the clock is behind it."""
    now = datetime.now(UTC)
    return now if last is None else max(now, last + _TICK)
