"""Read and write the files of a store in a folder on this machine.

A write goes to a temporary file, is flushed to the device, recorded in the history of the store (`store.local_history`) and moved
into place, under the kernel's locks. Temporary files are in
``metadata/drafts``, on the same file system, and their names never end in ``.parquet``.

`LocalFiles.update_many` changes many files as one group (`store.local_group`), for a run that holds the store.

After `LocalFiles.update`, `LocalFiles.update_many` or `LocalFiles.delete`, what the caller saw or wrote survives a power failure:
the file, its name, and the names of all folders on the way to it, also if another process made them and was killed before it had
flushed them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path

from data_engine.errors import OF_ONE_FILE, DataEngineError, StoreError
from data_engine.store.disk import DISK, Disk, Entry, parent_of, renew_after_fork, reported, store_error
from data_engine.store.file_store import Change, check_key, check_keys, no_check
from data_engine.store.history.head import Actor, Replaced
from data_engine.store.history.record import is_recorded, recorded_folders
from data_engine.store.local_access import check_access
from data_engine.store.local_drafts import LocalDrafts
from data_engine.store.local_group import LocalGroups
from data_engine.store.local_history import LocalHistory
from data_engine.store.local_locks import LocalLocks, stripe_of
from data_engine.store.local_names import LocalNames
from data_engine.store.removal_mark import LARGEST_MARK, is_mark

_LOCK_SECONDS = 600.0


class LocalFiles:
    """A folder on this machine.

    Safe between threads and processes: each change holds one of 64 lock files for its read, change and move. The locks are
    the kernel's, so those of a killed process are free at once. A child that is forked holds none of its parent's locks.

    Args:
        base: The folder.
        lock_seconds: The maximum time to wait for another writer of the same file.
        disk: The calls of the operating system, or a model of a disk.
    """

    def __init__(self, base: Path | str, *, lock_seconds: float = _LOCK_SECONDS, disk: Disk = DISK) -> None:
        self.base = Path(base)
        self._disk = disk
        self._folder = str(self.base)
        self._prefix = self._folder.rstrip(os.sep) + os.sep
        self._names = LocalNames(disk, self._folder)
        self._locks = LocalLocks(disk, self._folder, self._names, lock_seconds)
        self._drafts = LocalDrafts(disk, self._folder, self._names, self._locks)
        self._history = LocalHistory(disk, self._names, self._locks, self._drafts, self._name, self._recorded)
        self._groups = LocalGroups(
            disk, self._folder, self._names, self._locks, self._drafts, self._name, self.get, self._history
        )
        renew_after_fork(self)

    def renew(self) -> None:
        """Free the locks between threads: a forked child has none of the threads of its parent that held them."""
        self._names.renew()
        self._locks.renew()
        self._history.renew()

    @property
    def location(self) -> str:
        """The folder's path."""
        return self._folder

    @property
    def folder(self) -> Path | None:
        """The folder."""
        return self.base

    def path(self, key: str) -> Path:
        """Return the path of *key* on disk.

        Raises:
            StoreError: If the key is not the path of a file below the folder.
        """
        return self.base.joinpath(*check_key(key).split("/"))

    def get(self, key: str) -> bytes | None:
        """Return the content of a file, or None if there is no file."""
        path = self._name(key)
        try:
            content = self._disk.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise store_error("read", path, error) from error
        return None if is_mark(key, len(content)) else content

    def size(self, key: str) -> int | None:
        """Return the size of a file in bytes, or None if there is no file."""
        return self.sizes_of((key,))[0]

    def sizes_of(self, keys: Iterable[str]) -> list[int | None]:
        """Return the size of each file in bytes, None where there is no file."""
        made: list[int | None] = []
        prefix, size_of = self._prefix, self._disk.size
        for key in check_keys(keys):  # one loop, without a call more: `status` looks at every file of a store
            path = prefix + key
            try:
                size = size_of(path)
            except (FileNotFoundError, NotADirectoryError):
                made.append(None)
            except OSError as error:
                raise store_error("read", path, error) from error
            else:
                made.append(None if size <= LARGEST_MARK and is_mark(key, size) else size)
        return made

    def _name(self, key: str) -> str:
        """Return `path` as text; Windows accepts forward slashes."""
        return f"{self._prefix}{check_key(key)}"

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all files below the folder *prefix*, sorted; nothing if there is no such folder."""
        return (key for key, _ in self.sizes(prefix))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the keys that `list` yields, with the sizes in bytes; a file that is removed meanwhile is left out."""
        for key, entry in self._walk(self._name(prefix), prefix):
            try:
                size = entry.stat().st_size
            except FileNotFoundError:
                continue
            if not is_mark(key, size):
                yield key, size

    def _walk(self, folder: str, prefix: str) -> Iterator[tuple[str, Entry]]:
        # By key, as a bucket lists them: the slash counts.
        entries = self._scan(folder)
        if len(entries) > 1:  # most folders have one
            entries = sorted(entries, key=lambda entry: entry.name + "/" * entry.is_dir())
        for entry in entries:
            if entry.is_dir():
                yield from self._walk(f"{folder}{os.sep}{entry.name}", f"{prefix}/{entry.name}")
            else:
                yield f"{prefix}/{entry.name}", entry

    def _scan(self, folder: str) -> Sequence[Entry]:
        try:
            return self._disk.scan(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise store_error("read", folder, error) from error

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the folders right below the folder *prefix*, sorted; none if there is no such folder."""
        return sorted(entry.name for entry in self._scan(self._name(prefix) if prefix else self._folder) if entry.is_dir())

    def free_bytes(self) -> int | None:
        """Return the free bytes of the disk, or None if they are unknown."""
        folder = self._folder
        while not self._disk.is_folder(folder) and folder != parent_of(folder):
            folder = parent_of(folder)
        try:
            return self._disk.free(folder)
        except OSError:
            return None

    def write_warning(self) -> str | None:
        """Return None: the kernel's locks are reliable."""
        return None

    def check_writable(self) -> None:
        """Check the permissions of the folders, and write and remove a temporary file if there is a folder of such files.

        Raises:
            StoreError: If a run could not write.
        """
        check_access(self.base)
        if not self._disk.is_folder(self._drafts.folder):
            return
        draft = self._drafts.name(None)
        with reported("write", draft):
            try:
                self._drafts.write(draft, b"can be written\n")
            finally:
                self._drafts.discard([draft])

    # ----------------------------------------------------------------------------------------------------------- writing

    def waiting(self, seconds: float, told: Callable[[], None]) -> LocalFiles:
        """Return these files, whose changes wait for at most *seconds* and call *told* if they wait for more than one."""
        patient = copy(self)
        patient._locks = self._locks.waiting(seconds, told)
        return patient

    def acting(self, actor: str, *, forgets: bool = False) -> LocalFiles:
        """Return these files for somebody, whom the history of the store names."""
        made = copy(self)
        made._history = self._history.acting(Actor(actor, forgets))
        made._groups = self._groups.recording(made._history)
        return made

    def _recorded(self) -> Iterator[tuple[str, int]]:
        return (one for folder in recorded_folders(self.folders("")) for one in self.sizes(folder))

    def update(self, key: str, change: Change) -> bool:
        """Replace a file by what *change* returns for its content, atomically; return whether anything was written.

        Raises:
            StoreBusy: If another process kept the file locked for too long.
            FileInUse: If a reader kept the file open for too long (Windows).
            StoreError: If the disk is full, read-only, or fails. The old file is untouched, unless the new one could be put in
                place and not be flushed.
        """
        path = self._name(key)
        stripe = stripe_of(key)
        with self._locks.stripe(stripe):
            seen = self.get(key)
            content = change(seen)
            if content is None:
                self._names.flush_seen(path, seen is not None)
                return False
            replaced = Replaced(key, seen, content)
            if not content:
                self._history.record([replaced])
                return self._unlink(path)
            self._replace(path, replaced, stripe)
            return True

    def update_many(
        self, changes: Mapping[str, Change], *, before_move: Callable[[], None] = no_check
    ) -> dict[str, DataEngineError]:
        """Replace many files together, flushed as a group; the caller holds the store. Return the errors of single files.

        Raises:
            StoreError: If the disk is full, read-only, or fails; some of the files may have been replaced.
        """
        failed, left = self._groups.update(changes, before_move) if len(changes) > 1 else ({}, changes)
        for key, change in left.items():
            try:
                self.update(key, self._checked(change, before_move))
            except OF_ONE_FILE as error:
                failed[key] = error
        return failed

    def _checked(self, change: Change, before_move: Callable[[], None]) -> Change:
        def checked(content: bytes | None) -> bytes | None:
            made = change(content)
            if made is not None:
                before_move()
            return made

        return checked

    def flush(self, folder: str) -> None:
        """Have what can be seen of the files right below a folder survive a power failure.

        Another process may have written or removed them since this one flushed the folder, and been killed before it did.

        Raises:
            StoreError: If the disk fails.
        """
        self._names.flush_seen_in(self._name(folder))

    def delete(self, key: str) -> bool:
        """Remove a file, and folders that become empty; return whether there was a file."""
        path = self._name(key)
        with self._locks.stripe(stripe_of(key)):
            if is_recorded(key):
                self._history.record([self._removed(key)])
            return self._unlink(path)

    def _removed(self, key: str) -> Replaced:
        try:
            return Replaced(key, self.get(key), b"")
        except StoreError:  # a file that may not be read can be removed
            return Replaced.unread(key)

    def _replace(self, path: str, replaced: Replaced, stripe: int) -> None:
        draft = self._drafts.name(stripe)
        moved = False
        with reported("write", path):
            try:
                self._drafts.write(draft, replaced.new)
                self._history.record([replaced])  # before the file moves, or a killed writer's change would have none
                self._drafts.move(draft, path)
                moved = True
            finally:
                if not moved:
                    self._drafts.discard([draft])
            self._names.flush_name(path)

    def _unlink(self, path: str) -> bool:
        try:
            self._disk.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            self._names.flush_seen(path, False)
            return False
        except OSError as error:
            raise store_error("remove", path, error) from error
        with reported("remove", path):
            self._names.flush_absence(path)
        self._names.remove_empty(parent_of(path))
        return True

    def remove_stale_drafts(self) -> int:
        """Remove the temporary files of killed writers, not of running ones; the caller holds the store. Return how many."""
        return self._drafts.remove_stale()

    @contextmanager
    def lock(self, name: str, *, seconds: float, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock *name* of this folder, to exclude other runs; single writes do not need it.

        Raises:
            StoreBusy: If another process held it all the time.
        """
        with self._locks.named(name, seconds, waiting):
            # The last holder may have been killed before it had flushed what can be seen now.
            self._names.forget()
            yield
