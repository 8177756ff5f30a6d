"""Read the history of a store: `StoreHistory`, all records by file. Reading the present needs none of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cached_property

from data_engine.errors import InputError
from data_engine.market.time_range import iso
from data_engine.store.coverage import Fingerprint
from data_engine.store.file_store import FileStore
from data_engine.store.history.chain import Chain, Link, walk
from data_engine.store.history.record import FOLDER, Record, key_of, load, number_of


class StoreHistory:
    """The records of a store, as they were when this was made.

    Args:
        files: The files of the store.

    Attributes:
        records: The complete records, the earliest first.
        incomplete: The keys of those that cannot be read: of killed writers, or damaged.
    """

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self.incomplete: list[str] = []
        self.records: list[Record] = list(self._read())

    def _read(self) -> Iterable[Record]:
        for key in self._files.list(FOLDER):
            number = number_of(key)
            content = None if number is None else self._files.get(key)
            if number is None or content is None:
                continue
            try:
                yield load(number, content)
            except ValueError:
                self.incomplete.append(key)

    def catch_up(self) -> list[Record]:
        """Read the records that were made since this was read or last caught up, and return them.

        What can be seen of the files before this call is explained after it: a record is written before its files move.
        """
        number = self.records[-1].number if self.records else 0
        found: list[Record] = []
        while (content := self._files.get(key_of(number := number + 1))) is not None:
            with suppress(ValueError):
                found.append(load(number, content))
        if found:
            self.records = [*self.records, *found]
            self.__dict__.pop("links", None)
        return found

    @cached_property
    def links(self) -> Mapping[str, tuple[Link, ...]]:
        """What the records do to each file, the latest first, by key."""
        found: dict[str, list[Link]] = {}
        for record in reversed(self.records):
            for entry in record.entries:
                found.setdefault(entry.key, []).append(Link(record.number, record.instant, record.actor, record.base, entry))
        return {key: tuple(links) for key, links in found.items()}

    @property
    def begins(self) -> datetime | None:
        """The instant of the first record; None if there is none."""
        return self.records[0].instant if self.records else None

    def chain(self, key: str, present: bytes | None) -> Chain:
        """Return the history of one file.

        Args:
            key: The file.
            present: Its content now; None if there is none.
        """
        return walk(None if present is None else Fingerprint.of(present), self.links.get(key, ()))

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
