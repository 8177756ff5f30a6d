"""Find which records of a file happened, and which of them are to be undone: `Chain`. Pure.

A record happened if it lies on the chain of fingerprints that ends in the present file. The others are those of writers that were
killed, or that another writer was faster than: they never happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile

from data_engine.market.time_range import iso
from data_engine.store.file_count import Fingerprint
from data_engine.store.history.record import Entry
from data_engine.store.history.undo import Kind

NEVER = datetime.max.replace(tzinfo=UTC)
"""The end of a time that lasts until the next change of a file."""


@dataclass(frozen=True, slots=True)
class Link:
    """What one record does to one file.

    Attributes:
        number: The number of the record.
        instant: When it was made.
        actor: Who made it.
        base: The number of a record that was there when its writer read the file.
        entry: What it does.
    """

    number: int
    instant: datetime
    actor: str
    base: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Chain:
    """The history of one file.

    Attributes:
        present: The fingerprint of the file as it is; None if there is none.
        links: What happened to it, the latest first.
        begins: The instant from which its content is known; None if it is known as long as the store's history lasts. If the
            present file is not explained by any record, `unknown` is set instead.
        unknown: Whether nothing is known but the present content.
        gaps: When it is not known which of two contents it had, from and until: two writers made the same of it.
    """

    present: Fingerprint | None
    links: tuple[Link, ...]
    begins: datetime | None = None
    unknown: bool = False
    gaps: tuple[tuple[datetime, datetime], ...] = ()

    def later_than(self, instant: datetime) -> tuple[Link, ...]:
        """Return what is to be undone for the state at an instant, the latest first."""
        return tuple(link for link in self.links if link.instant > instant)

    def known_at(self, instant: datetime) -> bool:
        """Tell whether the content at an instant is known."""
        begun = not self.unknown and (self.begins is None or instant >= self.begins)
        return begun and not any(start <= instant < end for start, end in self.gaps)

    def why_unknown(self, instant: datetime) -> str:
        """Say why the content at an instant is not known."""
        if self.unknown:
            return "no record explains what it is now"
        if self.begins is not None and instant < self.begins:
            return f"its history begins at {iso(self.begins)}"
        end = next(end for start, end in self.gaps if start <= instant < end)
        return f"two processes changed it at the same time, {'and nobody since' if end == NEVER else f'until {iso(end)}'}"


def walk(present: Fingerprint | None, links: Sequence[Link], since: datetime | None = None) -> Chain:
    """Return the history of a file.

    A record that is not live tells what its writer read. If the file never was that, as far as the live records say, something
    changed it that made no record, and what it was before the earliest live record after that is not known.

    Args:
        present: The fingerprint of the file as it is; None if there is none.
        links: All records of it, the latest first; those since an instant if that is given.
        since: The instant before which records cannot be read. If None, all can be.
    """
    live = live_numbers(present, links)
    walked = _Walk(present, [link for link in links if link.number not in live])
    for place, link in enumerate(links):
        if link.entry.undo.kind is Kind.SEEN:
            return walked.chain(known=_is(walked.state, link.entry.after), first=link.entry.after, since=since)
        if link.entry.after == walked.state:
            walked.undo(link, links[place + 1 :])
            if link.entry.undo.kind is Kind.LOST:
                return walked.chain(known=False)
        else:
            walked.pass_over(link)
        if not walked.explains(link):
            return walked.chain(known=False)
    return walked.chain(known=walked.state is None or since is not None, since=since)


def live_numbers(present: Fingerprint | None, links: Sequence[Link]) -> set[int]:
    """Return the numbers of the records on the chain that ends in the present file."""
    found, state = set(), present
    for link in links:
        if link.entry.after == state and link.entry.undo.kind is not Kind.SEEN:
            found.add(link.number)
            state = link.entry.before
    return found


class _Walk:
    """How far the records of a file were followed.

    Args:
        state: The fingerprint of the file as it is.
        lost: The records that are not live, the latest first.
    """

    def __init__(self, state: Fingerprint | None, lost: Sequence[Link]) -> None:
        self.state = self._present = state
        self._lost = lost
        self._live: list[Link] = []
        self._gaps: list[tuple[datetime, datetime]] = []
        self._read: list[tuple[Fingerprint | None, int]] = []  # what writers read that is no state yet, and the live ones by then
        self._passed: list[Link] = []  # records that are not live, since the latest that is
        self._beside: tuple[Link, ...] = ()  # the records of writers that worked at the same time, the latest first
        self._sure = 0  # the live ones before them

    def undo(self, link: Link, older: Sequence[Link]) -> None:
        """Go back before a record.

        Two writers that work without a lock at the same time may make the same content. Which of them was faster is not known.
        """
        during = takewhile(lambda one: one.number > link.base, older)
        if not self._beside and any(one.entry.after == self.state for one in during):
            self._beside = tuple(_at_the_same_time(link, older))
            self._gaps.append((self._beside[-1].instant, link.instant))
            self._sure = len(self._live) + 1
        if self._passed and self._is_late(link):
            self._gaps.append((min(one.instant for one in (link, *self._passed)), self._until(len(self._live))))
        self._passed.clear()
        self._live.append(link)
        self.state = link.entry.before
        self._read = [(read, count) for read, count in self._read if read != self.state]

    def _is_late(self, link: Link) -> bool:
        """Tell whether a live record, or one that made the same, may have been carried out after later records were made.

        It was if the writer of a later one, who knew of it, has read something else. It may have been if a later one has read
        what it made: that one has then changed the file, and the writer of an earlier record has made the same again.
        """
        made = link.entry.after
        same = [one.number for one in self._lost if one.entry.after == made]
        return any(
            one.base >= link.number if one.entry.before != made else any(number < one.number for number in same)
            for one in self._passed
        )

    def _until(self, count: int) -> datetime:
        """Return the instant of the earliest of so many live records: its writer has read what was made before it."""
        return self._live[count - 1].instant if count else NEVER

    def pass_over(self, link: Link) -> None:
        """Pass over a record that is not live, whose writer has read something.

        If the writer of a later one has read what this one makes, the file was that for a while, and then again what it had been
        before: a bucket takes a write that comes late if the file has the content again that its writer read.
        """
        made, read = link.entry.after, link.entry.before
        self._passed.append(link)
        if counts := [count for seen, count in self._read if seen == made and count]:
            self._gaps.append((link.instant, self._until(min(counts))))
            self._read = [(seen, count) for seen, count in self._read if seen != made or not count]
        if read != self.state:
            self._read.append((read, len(self._live)))

    def explains(self, link: Link) -> bool:
        """Tell whether the records until one explain what the file was before it.

        What it was before several writers worked at the same time is what the first of them has read.
        """
        if not self._beside or link is not self._beside[-1]:
            return True
        been = {one.entry.after for one in self._beside}
        self._read = [(read, count) for read, count in self._read if read not in been]
        self._beside = ()
        if self.state == link.entry.before:
            return True
        del self._live[self._sure :]
        return False

    def chain(self, *, known: bool, first: Fingerprint | None = None, since: datetime | None = None) -> Chain:
        """Return the history.

        Args:
            known: Whether the state before all records is known.
            first: What the file was when the history began, if there was one.
            since: The instant before which records cannot be read, if there is one.
        """
        unread = [count for read, count in self._read if not _is(read, first)]
        live = self._live[: unread[0]] if unread else self._live
        if known and not unread:
            return Chain(self._present, tuple(live), since, gaps=tuple(self._gaps))
        return Chain(self._present, tuple(live), live[-1].instant if live else None, unknown=not live, gaps=tuple(self._gaps))


def _at_the_same_time(link: Link, older: Sequence[Link]) -> Iterator[Link]:
    """Yield the records of all writers that worked at the same time as that of one, or as that of one of them."""
    base = link.base
    for one in older:
        if one.number <= base:
            return
        base = min(base, one.base)
        yield one


def _is(mark: Fingerprint | None, listed: Fingerprint | None) -> bool:
    """Tell whether a file is the one that was listed: by its size alone if no more is known of it."""
    return mark is not None and listed is not None and mark.size == listed.size and listed.digest in ("", mark.digest)
