"""Write the temporary files of a folder on this machine, and move them into place: `LocalDrafts`.

They are in ``metadata/drafts``, on the same file system, and their names never end in ``.parquet``. A name begins with the stripe
of the lock that its writer holds, or with ``run`` if the writer is the run that holds the store.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress

from data_engine.errors import StoreBusy
from data_engine.store.disk import Disk, parent_of, reported
from data_engine.store.local_locks import LocalLocks
from data_engine.store.local_names import LocalNames

_DRAFT = re.compile(r"([0-3][0-9a-f]|run)-[0-9a-f]{32}\.tmp")

_ATTEMPTS = 100


class LocalDrafts:
    """The temporary files of a folder.

    Args:
        disk: The calls of the operating system.
        base: The folder of the store.
        names: What makes folders.
        locks: The locks of the folder.
    """

    def __init__(self, disk: Disk, base: str, names: LocalNames, locks: LocalLocks) -> None:
        self._disk = disk
        self._names = names
        self._locks = locks
        self.folder = f"{base.rstrip(os.sep)}{os.sep}metadata{os.sep}drafts"

    def name(self, stripe: int | None) -> str:
        """Return the path of a new temporary file of who holds a stripe, or the run if that is None."""
        kind = "run" if stripe is None else f"{stripe:02x}"
        return f"{self.folder}{os.sep}{kind}-{self._disk.unique()}.tmp"

    def write(self, draft: str, content: bytes, *, flush: bool = True) -> None:
        """Write a temporary file, and flush it unless the caller flushes the whole file system."""
        disk = self._disk
        try:
            handle = disk.create(draft)
        except FileNotFoundError:
            self._names.make_folder(parent_of(draft))
            handle = disk.create(draft)
        try:
            view = memoryview(content)
            while view:
                view = view[disk.write(handle, view) :]
            if flush:
                # Without this a power failure can leave the new name without content.
                disk.flush(handle)
        finally:
            disk.close(handle)

    def move(self, draft: str, path: str) -> None:
        """Move a temporary file into place."""
        for _ in range(_ATTEMPTS):
            try:
                self._disk.replace(draft, path)
            except FileNotFoundError:
                if not self._disk.is_file(draft):
                    raise  # a run that took over the store removed it
                # A new folder, or a `delete` removed the empty one, and may do so again.
                self._names.make_folder(parent_of(path))
            else:
                return
        self._disk.replace(draft, path)

    def discard(self, drafts: Iterable[str]) -> None:
        """Remove temporary files that are not needed, as far as they are there."""
        for draft in drafts:
            with suppress(OSError):
                self._disk.unlink(draft)

    def remove_stale(self) -> int:
        """Remove the temporary files of killed writers, not of running ones; the caller holds the store. Return how many."""
        with reported("read", self.folder):
            try:
                found = sorted(entry.name for entry in self._disk.scan(self.folder))
            except (FileNotFoundError, NotADirectoryError):
                return 0
        return sum(self._remove_stale(name) for name in found if _DRAFT.fullmatch(name))  # others are not ours

    def _remove_stale(self, name: str) -> bool:
        if name.startswith("run-"):
            return self._remove(name)
        # A writer holds the stripe of its draft: if the stripe is free, the writer is gone.
        with suppress(StoreBusy), self._locks.stripe(int(name[:2], 16), seconds=0):
            return self._remove(name)
        return False

    def _remove(self, name: str) -> bool:
        draft = f"{self.folder}{os.sep}{name}"
        if not self._disk.is_file(draft):
            return False
        with reported("remove", draft):
            self._disk.unlink(draft)
        return True
