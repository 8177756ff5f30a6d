"""Read the history of a store: `StoreHistory`, all records by file. Reading the present needs none of it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property

from data_engine.errors import DamagedFile, InputError, StoreError
from data_engine.market.time_range import iso
from data_engine.store.file_count import Fingerprint
from data_engine.store.file_store import FileStore
from data_engine.store.history.chain import Chain, Link, walk
from data_engine.store.history.pack import Pack, live_packs, pack_key, pack_numbers
from data_engine.store.history.record import FOLDER, Record, is_cut_off, key_of, load, number_of

_AFTER_SLASH = chr(ord("/") + 1)


class StoreHistory:
    """The records of a store, as they were when this was made.

    Args:
        files: The files of the store.

    Attributes:
        packs: The packs, by the numbers that they stand for, the earliest first.
        records: The complete records that are in no pack, the earliest first.
        incomplete: The keys of those that cannot be read: of killed writers, or damaged.
        damaged: The key of the latest that cannot be read and may be of changes that happened; None if there is none. The packs
            and records are those after it: what was before cannot be told without it.
    """

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self.packs: dict[tuple[int, int], Pack] = {}
        self.records: list[Record] = []
        self.incomplete: list[str] = []
        self.damaged: str | None = None
        self._lost = 0  # the number of the last record that is damaged
        self._read()

    def _read(self) -> None:
        """Read all records, again if some of them were moved to a pack meanwhile."""
        while not self._read_once():
            pass
        self.links = Links(self)

    def _read_once(self) -> bool:
        packs, records, incomplete = dict[tuple[int, int], Pack](), list[Record](), list[str]()
        lost, damaged = 0, None
        keys = list(self._files.list(FOLDER))
        for span in live_packs(keys):
            content = self._files.get(key := pack_key(*span))
            if content is None:
                return False
            try:
                packs[span] = Pack(content)
            except ValueError:  # a pack is moved into place whole: no killed writer has left it so
                incomplete.append(key)
                lost, damaged = span[1], key
        for key in keys:
            number = number_of(key)
            if number is None or any(first <= number <= last for first, last in packs):
                continue
            content = self._files.get(key)
            if content is None:
                return False
            try:
                records.append(load(number, content))
            except ValueError:
                incomplete.append(key)
                if number > lost and not is_cut_off(content):
                    lost, damaged = number, key
        self.packs = {span: pack for span, pack in packs.items() if span[0] > lost}
        self.records = [record for record in records if record.number > lost]
        self.incomplete, self._lost, self.damaged = incomplete, lost, damaged
        return True

    def catch_up(self) -> list[Record]:
        """Read the records that were made since this was read or last caught up, and return them.

        What can be seen of the files before this call is explained after it: a record is written before its files move. The last
        record that is known is in a file of its own unless later ones were made, and moved to a pack with it.
        """
        known = self.last_number
        try:
            found = list(records_after(self._files, known))
        except DamagedFile:
            return self._read_after(known)
        if found:
            self.records = [*self.records, *found]
            self.links = Links(self)
        elif known and self._files.size(key_of(known)) is None:
            return self._read_after(known)
        return found

    def _read_after(self, known: int) -> list[Record]:
        """Read all records again, and return those after one."""
        self._read()
        every = (record for pack in self.packs.values() for record in pack.records())
        return [record for record in (*every, *self.records) if record.number > known]

    def present(self, key: str) -> tuple[bytes | None, Chain]:
        """Return what a file is now, None if there is none, and its history until now.

        Raises:
            StoreError: If the file or a record cannot be read.
        """
        return self.present_of((key,))[key]

    def present_of(self, keys: Iterable[str]) -> dict[str, tuple[bytes | None, Chain]]:
        """Return what some files are now, and their histories until now, by key: those of one series, to be at hand together.

        Raises:
            StoreError: If a file or a record cannot be read.
        """
        contents = {key: self._files.get(key) for key in keys}
        self.catch_up()  # a change between the two readings has a record now
        return {
            key: (content, self.chain_of(key, None if content is None else Fingerprint.of(content)))
            for key, content in contents.items()
        }

    @property
    def last_number(self) -> int:
        """The number of the last record; 0 if there is none."""
        return self.records[-1].number if self.records else max((last for _, last in self.packs), default=self._lost)

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
        """The instant of the first record, after those that are damaged; None if there is none."""
        firsts = [pack.first for pack in self.packs.values()] + [record.instant for record in self.records[:1]]
        return min(firsts, default=None)

    def files_below(self, prefix: str) -> Sequence[str]:
        """Return the files below a folder that a record is about, sorted; all if it is empty."""
        keys = self.links.ordered
        if not prefix:
            return keys
        return keys[bisect_left(keys, f"{prefix}/") : bisect_left(keys, f"{prefix}{_AFTER_SLASH}")]

    def changed_after(self, instant: datetime) -> set[str]:
        """Return the files that a record after an instant is about."""
        changed = {key for pack in self.packs.values() for key in pack.changed_after(instant)}
        return changed | {entry.key for record in self.records if record.instant > instant for entry in record.entries}

    def chain_of(self, key: str, present: Fingerprint | None) -> Chain:
        """Return the history of one file by the fingerprint of its content now; None if there is none."""
        return walk(present, self.links.get(key, ()), self.begins if self.damaged else None)

    def check_known(self, instant: datetime, now: datetime) -> None:
        """Check that a state can be known.

        Raises:
            InputError: If the instant is in the future, or before the history begins.
            StoreError: If it is before the first record after one that is damaged.
        """
        if instant > now:
            raise InputError(f"cannot read the store as of {iso(instant)}: that is in the future; it is {iso(now)}")
        self.check_readable(instant)
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

    def check_readable(self, instant: datetime) -> None:
        """Check that all changes after an instant can be read.

        Raises:
            StoreError: If one of them may be in a record that is damaged, or that a newer version has written.
        """
        if self.damaged is None or (self.begins is not None and instant >= self.begins):
            return
        since = "an instant after its next change" if self.begins is None else f"{iso(self.begins)} or a later instant"
        raise StoreError(
            f"cannot read the store {self._files.location} as of {iso(instant)}: {self.damaged}, a part of its history, is "
            f"damaged or of a newer version; restore that file from a backup, update data-engine, or pass {since}"
        )


def records_after(files: FileStore, number: int) -> Iterator[Record]:
    """Yield the complete records after one, as far as they are in no pack.

    Args:
        files: The files of the store.
        number: The number of a record.

    Raises:
        DamagedFile: If one is damaged, or of a newer format.
    """
    while (content := files.get(key_of(number := number + 1))) is not None:
        try:
            yield load(number, content)
        except ValueError as error:
            if not is_cut_off(content):  # a killed writer has left the others
                raise DamagedFile(f"cannot read {files.location}/{key_of(number)}: {error}; run `data-engine verify`") from error


class Links(Mapping[str, "tuple[Link, ...]"]):
    """What the records do to each file, the latest first, by key. What is in packs is read when it is asked for."""

    def __init__(self, history: StoreHistory) -> None:
        self._packs = list(reversed(history.packs.values()))
        found: dict[str, list[Link]] = {}
        for record in reversed(history.records):
            for entry in record.entries:
                found.setdefault(entry.key, []).append(Link(record.number, record.instant, record.actor, record.base, entry))
        self._loose = found

    @cached_property
    def ordered(self) -> list[str]:
        """The keys, sorted."""
        return sorted({*self._loose, *(key for pack in self._packs for key in pack.keys)})

    def __getitem__(self, key: str) -> tuple[Link, ...]:
        links = (*self._loose.get(key, ()), *(link for pack in self._packs for link in pack.links(key)))
        if not links:
            raise KeyError(key)
        return tuple(sorted(links, key=lambda link: -link.number))  # before a pack may be records that no pack has

    def __iter__(self) -> Iterator[str]:
        return iter(self.ordered)

    def __len__(self) -> int:
        return len(self.ordered)
