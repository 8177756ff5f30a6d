"""Read the files of a store as they were at an instant: `PastFiles`, a `FileStore` that cannot be changed.

Everything that reads a store works on it unchanged. Files whose changes are not recorded, such as the log of runs, are as they
are now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import NoReturn

from data_engine.errors import DataEngineError, HistoryEnds, StoreError
from data_engine.market.time_range import iso
from data_engine.store.file_count import Fingerprint
from data_engine.store.file_store import Change, FileStore, no_check
from data_engine.store.history.chain import Chain
from data_engine.store.history.record import is_recorded
from data_engine.store.history.revert import earlier
from data_engine.store.history.store_history import StoreHistory

_KEPT_BYTES = 64 << 20  # readers ask for the same files more than once


class PastFiles:
    """The files of a store as they were. Safe between threads.

    Args:
        files: The files as they are.
        history: Their history.
        instant: The instant, UTC.

    Attributes:
        instant: The instant, UTC.
        remade: The files that were read and have the same content as then in other bytes: another version of the library that
            writes Parquet files wrote them.
    """

    def __init__(self, files: FileStore, history: StoreHistory, instant: datetime) -> None:
        self._files = files
        self._history = history
        self.instant = instant
        self.remade: set[str] = set()
        # Only these can differ from what they are now.
        self._later: frozenset[str] = frozenset()
        self._note_later(history.changed_after(instant))
        self._sizes: dict[str, int | None] = {}
        self._kept: dict[str, bytes | None] = {}
        self._kept_bytes = 0
        self._lock = Lock()

    @property
    def location(self) -> str:
        """The place of the store."""
        return self._files.location

    @property
    def folder(self) -> Path | None:
        """None: the files are in no folder."""
        return None

    def get(self, key: str) -> bytes | None:
        """Return what a file held at the instant, or None if there was no file.

        Raises:
            HistoryEnds: If what the file was is not known.
            StoreError: If the file or its history cannot be read.
        """
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        content = self._past(key)
        with self._lock:
            if self._kept_bytes < _KEPT_BYTES and key not in self._kept:
                self._kept_bytes += len(content or b"")
                self._kept[key] = content
        return content

    def _note_later(self, changed: set[str]) -> None:
        if not changed <= self._later:
            self._later |= changed  # a new set: others may be reading the old one

    def _catch_up(self) -> None:
        """Take in what others have changed until now; called whenever something of the files as they are was read.

        Raises:
            StoreError: If one of the changes cannot be read.
        """
        with self._lock:
            records = self._history.catch_up()
            self._history.check_readable(self.instant)
            self._note_later({one.key for record in records if record.instant > self.instant for one in record.entries})

    def _present(self, key: str) -> tuple[bytes | None, Chain]:
        content = self._files.get(key)
        self._catch_up()
        return content, self._history.chain_of(key, None if content is None else Fingerprint.of(content))

    def _past(self, key: str) -> bytes | None:
        present, chain = self._present(key)
        if not is_recorded(key):
            return present
        if not chain.known_at(self.instant):
            why = chain.why_unknown(self.instant)
            raise HistoryEnds(f"cannot read {self.location}/{key} as of {iso(self.instant)}: {why}; pass a later instant")
        later = chain.later_than(self.instant)
        try:
            content = earlier(present, [link.entry.undo for link in later])
        except ValueError as error:
            raise StoreError(
                f"cannot read {self.location}/{key} as of {iso(self.instant)}: {error} in its history; run `data-engine verify`"
            ) from error
        if later and content is not None and Fingerprint.of(content) != later[-1].entry.before:
            self.remade.add(key)
        return content

    def size(self, key: str) -> int | None:
        """Return the size of a file in bytes, or None if there was no file."""
        present_size = self._files.size(key)
        self._catch_up()
        if key not in self._later and (present_size is not None or key not in self._history.links):
            return present_size
        if key not in self._sizes:
            _, chain = self._present(key)
            later = chain.later_than(self.instant)
            mark = later[-1].entry.before if later else chain.present
            if mark is None and not chain.known_at(self.instant):
                newest = self._history.links[key][0].entry  # it is listed, and refused by name when it is read
                mark = newest.after or newest.before
            self._sizes[key] = None if mark is None else mark.size
        return self._sizes[key]

    def sizes_of(self, keys: Iterable[str]) -> Sequence[int | None]:
        """Return the size of each file in bytes, None where there was no file."""
        return [self.size(key) for key in keys]

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all files below the folder *prefix*, sorted."""
        return (key for key, _ in self.sizes(prefix))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the keys that `list` yields, with the sizes in bytes."""
        present = dict(self._files.sizes(prefix))
        self._catch_up()
        found = {key: size for key, size in present.items() if key not in self._later}
        others = (key for key in self._history.files_below(prefix) if key not in found)
        found |= {key: size for key in others if (size := self.size(key)) is not None}
        return iter(sorted(found.items()))

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the folders right below the folder *prefix*, sorted."""
        present = self._files.folders(prefix)
        self._catch_up()
        folder = f"{prefix}/" if prefix else ""
        changed: dict[str, list[str]] = {}
        for key in self._history.files_below(prefix):
            name, slash, _ = key[len(folder) :].partition("/")
            if slash and (key in self._later or name not in present):
                changed.setdefault(name, []).append(key)
        found = {name for name, keys in changed.items() if any(self.size(key) is not None for key in keys)}
        for name in present:
            if name not in found and (name not in changed or next(self.list(f"{folder}{name}"), None) is not None):
                found.add(name)
        return sorted(found)

    def free_bytes(self) -> int | None:
        """Return the free bytes of the store's disk."""
        return self._files.free_bytes()

    # ----------------------------------------------------------------------------------------- the past cannot be changed

    def waiting(self, seconds: float, told: Callable[[], None]) -> PastFiles:
        """Return these files, which no change waits for."""
        del seconds, told
        return self

    def acting(self, actor: str, *, forgets: bool = False) -> PastFiles:
        """Return these files, which no one changes."""
        del actor, forgets
        return self

    def write_warning(self) -> str | None:
        """Return None: nothing is written."""
        return None

    def check_writable(self) -> None:
        """Raise `StoreError`."""
        self._refuse()

    def flush(self, folder: str) -> None:
        """Do nothing: what a store held was flushed, or is not known."""

    def remove_stale_drafts(self) -> int:
        """Raise `StoreError`."""
        self._refuse()

    def update(self, key: str, change: Change) -> bool:
        """Raise `StoreError`."""
        self._refuse(key, change)

    def update_many(
        self, changes: Mapping[str, Change], *, before_move: Callable[[], None] = no_check
    ) -> dict[str, DataEngineError]:
        """Raise `StoreError`."""
        self._refuse(changes, before_move)

    def delete(self, key: str) -> bool:
        """Raise `StoreError`."""
        self._refuse(key)

    def lock(self, name: str, *, seconds: float, waiting: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        """Raise `StoreError`."""
        self._refuse(name, seconds, waiting)

    def _refuse(self, *_: object) -> NoReturn:
        raise StoreError(f"cannot change {self.location} as of {iso(self.instant)}: what a store held cannot be changed")
