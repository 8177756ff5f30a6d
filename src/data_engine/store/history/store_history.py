"""Read the history of a store: `StoreHistory`, all records by file. Reading the present needs none of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime

from data_engine.errors import InputError
from data_engine.market.time_range import iso
from data_engine.store.coverage import Fingerprint
from data_engine.store.file_store import FileStore
from data_engine.store.history.chain import Chain, Link, walk
from data_engine.store.history.pack import Pack, live_packs, pack_numbers
from data_engine.store.history.record import FOLDER, Record, key_of, load, number_of


class StoreHistory:
    """The records of a store, as they were when this was made.

    Args:
        files: The files of the store.

    Attributes:
        packs: The packs, by the numbers that they stand for, the earliest first.
        records: The complete records that are in no pack, the earliest first.
        incomplete: The keys of those that cannot be read: of killed writers, or damaged.
    """

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self.packs: dict[tuple[int, int], Pack] = {}
        self.records: list[Record] = []
        self.incomplete: list[str] = []
        while not self._read():
            pass
        self.links: Mapping[str, tuple[Link, ...]] = _Links(self)

    def _read(self) -> bool:
        """Read all records; return whether none of them was moved to a pack meanwhile."""
        self.packs, self.records, self.incomplete = {}, [], []
        keys = list(self._files.list(FOLDER))
        for span in live_packs(keys):
            content = self._files.get(key := next(key for key in keys if pack_numbers(key) == span))
            if content is None:
                return False
            try:
                self.packs[span] = Pack(content)
            except ValueError:
                self.incomplete.append(key)
        for key in keys:
            number = number_of(key)
            if number is None or any(first <= number <= last for first, last in self.packs):
                continue
            content = self._files.get(key)
            if content is None:
                return False
            try:
                self.records.append(load(number, content))
            except ValueError:
                self.incomplete.append(key)
        return True

    def catch_up(self) -> list[Record]:
        """Read the records that were made since this was read or last caught up, and return them.

        What can be seen of the files before this call is explained after it: a record is written before its files move, and
        moves to a pack an hour after that at the earliest.
        """
        number = self.last_number
        found: list[Record] = []
        while (content := self._files.get(key_of(number := number + 1))) is not None:
            with suppress(ValueError):
                found.append(load(number, content))
        if found:
            self.records = [*self.records, *found]
            self.links = _Links(self)
        return found

    @property
    def last_number(self) -> int:
        """The number of the last record; 0 if there is none."""
        return self.records[-1].number if self.records else max((last for _, last in self.packs), default=0)

    @staticmethod
    def is_before(key: str, number: int) -> bool:
        """Tell whether a file of the history is of records before one."""
        span = pack_numbers(key)
        own = span[0] if span is not None else number_of(key)
        return own is not None and own < number

    @property
    def last_instant(self) -> datetime | None:
        """The instant of the last record; None if there is none."""
        lasts = [pack.last for pack in self.packs.values()] + [record.instant for record in self.records[-1:]]
        return max(lasts, default=None)

    @property
    def begins(self) -> datetime | None:
        """The instant of the first record; None if there is none."""
        firsts = [pack.first for pack in self.packs.values()] + [record.instant for record in self.records[:1]]
        return min(firsts, default=None)

    def changed_after(self, instant: datetime) -> set[str]:
        """Return the files that a record after an instant is about."""
        changed = {key for pack in self.packs.values() for key in pack.changed_after(instant)}
        return changed | {entry.key for record in self.records if record.instant > instant for entry in record.entries}

    def chain(self, key: str, present: bytes | None) -> Chain:
        """Return the history of one file.

        Args:
            key: The file.
            present: Its content now; None if there is none.
        """
        return self.chain_of(key, None if present is None else Fingerprint.of(present))

    def chain_of(self, key: str, present: Fingerprint | None) -> Chain:
        """Return the history of one file by the fingerprint of its content now; None if there is none."""
        return walk(present, self.links.get(key, ()))

    def check_known(self, instant: datetime, now: datetime) -> None:
        """Check that a state can be known.

        Raises:
            InputError: If the instant is in the future, or before the history begins.
        """
        if instant > now:
            raise InputError(f"cannot read the store as of {iso(instant)}: that is in the future; it is {iso(now)}")
        if self.begins is None:
            raise InputError(
                f"cannot read the store {self._files.location} as of {iso(instant)}: it has no history yet; a store has one from "
                "its first change by this version on"
            )
        if instant < self.begins:
            raise InputError(
                f"cannot read the store {self._files.location} as of {iso(instant)}: its history begins at {iso(self.begins)}; "
                "pass that or a later instant"
            )


class _Links(Mapping[str, "tuple[Link, ...]"]):
    """What the records do to each file, the latest first, by key. What is in packs is read when it is asked for."""

    def __init__(self, history: StoreHistory) -> None:
        self._packs = list(reversed(history.packs.values()))
        found: dict[str, list[Link]] = {}
        for record in reversed(history.records):
            for entry in record.entries:
                found.setdefault(entry.key, []).append(Link(record.number, record.instant, record.actor, record.base, entry))
        self._loose = found
        self._keys = sorted({*found, *(key for pack in self._packs for key in pack.keys)})

    def __getitem__(self, key: str) -> tuple[Link, ...]:
        links = (*self._loose.get(key, ()), *(link for pack in self._packs for link in pack.links(key)))
        if not links:
            raise KeyError(key)
        return links

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
