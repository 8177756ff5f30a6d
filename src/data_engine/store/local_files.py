"""Read and write the files of a store in a folder on this machine.

A write goes to a temporary file, is flushed to the device and moved into place, under the kernel's locks. Temporary files are in
``metadata/drafts``, on the same file system, and their names never end in ``.parquet``.

After `LocalFiles.update` or `LocalFiles.delete`, what the caller saw or wrote survives a power failure: the file, its name, and
the names of all folders on the way to it, also if another process made them and was killed before it had flushed them.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path

from data_engine.errors import StoreBusy
from data_engine.store.disk import DISK, Disk, Entry, parent_of, renew_after_fork, reported, store_error
from data_engine.store.file_store import Change, check_key
from data_engine.store.removal_mark import is_mark

_STRIPES = 64

_DRAFT = re.compile(r"[0-3][0-9a-f]-[0-9a-f]{32}\.tmp")

_LOCK_SECONDS = 600.0
_UNSAID_SECONDS = 1.0  # a writer of a file holds its lock for milliseconds
_ATTEMPTS = 100


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
        self._drafts = f"{self._prefix}metadata{os.sep}drafts"
        self._lock_seconds = lock_seconds
        self._told: Callable[[], None] | None = None
        # Folders whose names are durable, up to the base, and folders in which all names are; as of the last `lock`.
        self._reachable: set[str] = set()
        self._flushed: set[str] = set()
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Free the locks between threads: a forked child has none of the threads of its parent that held them."""
        self._threads = [self._disk.mutex() for _ in range(_STRIPES)]
        self._folders_change = self._disk.mutex()

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
        path = self._name(key)
        try:
            size = self._disk.size(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise store_error("read", path, error) from error
        return None if is_mark(key, size) else size

    def _name(self, key: str) -> str:
        """Return `path` as text; Windows accepts forward slashes."""
        return f"{self._prefix}{check_key(key)}"

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all files below the folder *prefix*, sorted; nothing if there is no such folder."""
        return (key for key, _ in self.sizes(prefix))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the keys that `list` yields, with the sizes in bytes; a file that is removed meanwhile is left out."""
        for key, entry in self._walk(self._name(prefix), prefix):
            with suppress(FileNotFoundError):
                size = entry.stat().st_size
                if not is_mark(key, size):
                    yield key, size

    def _walk(self, folder: str, prefix: str) -> Iterator[tuple[str, Entry]]:
        # By key, as a bucket lists them: the slash counts.
        for entry in sorted(self._scan(folder), key=lambda entry: entry.name + "/" * entry.is_dir()):
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

    # ----------------------------------------------------------------------------------------------------------- writing

    def waiting(self, seconds: float, told: Callable[[], None]) -> LocalFiles:
        """Return these files, whose changes wait for at most *seconds* and call *told* if they wait for more than one."""
        patient = copy(self)
        patient._lock_seconds, patient._told = seconds, told
        return patient

    def update(self, key: str, change: Change) -> bool:
        """Replace a file by what *change* returns for its content, atomically; return whether anything was written.

        Raises:
            StoreBusy: If another process kept the file locked for too long.
            FileInUse: If a reader kept the file open for too long (Windows).
            StoreError: If the disk is full, read-only, or fails. The old file is untouched, unless the new one could be put in
                place and not be flushed.
        """
        path = self._name(key)
        with self._locked(key) as stripe:
            seen = self.get(key)
            content = change(seen)
            if content is None:
                self._flush_seen(path, seen is not None)
                return False
            if not content:
                return self._unlink(path)
            self._replace(path, content, stripe)
            return True

    def delete(self, key: str) -> bool:
        """Remove a file, and folders that become empty; return whether there was a file."""
        path = self._name(key)
        with self._locked(key):
            return self._unlink(path)

    def _replace(self, path: str, content: bytes, stripe: int) -> None:
        draft = f"{self._drafts}{os.sep}{stripe:02x}-{self._disk.unique()}.tmp"
        moved = False
        with reported("write", path):
            try:
                self._write(draft, content)
                self._move(draft, path)
                moved = True
            finally:
                if not moved:
                    with suppress(OSError):
                        self._disk.unlink(draft)
            self._flush_name(path)

    def _write(self, draft: str, content: bytes) -> None:
        disk = self._disk
        try:
            handle = disk.create(draft)
        except FileNotFoundError:
            self._make_folder(parent_of(draft))
            handle = disk.create(draft)
        try:
            view = memoryview(content)
            while view:
                view = view[disk.write(handle, view) :]
            # Without this a power failure can leave the new name without content.
            disk.flush(handle)
        finally:
            disk.close(handle)

    def _move(self, draft: str, path: str) -> None:
        for _ in range(_ATTEMPTS):
            try:
                self._disk.replace(draft, path)
            except FileNotFoundError:
                # A new folder, or a `delete` removed the empty one, and may do so again.
                self._make_folder(parent_of(path))
            else:
                return
        self._disk.replace(draft, path)

    def _unlink(self, path: str) -> bool:
        disk, folder = self._disk, parent_of(path)
        try:
            disk.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            self._flush_seen(path, False)
            return False
        except OSError as error:
            raise store_error("remove", path, error) from error
        with reported("remove", path):
            self._flush_absence(path)
        while folder != self._folder:
            with self._folders_change:
                try:
                    disk.remove_folder(folder)
                except OSError:  # not empty: so are its parents
                    break
                self._reachable.discard(folder)
            folder = parent_of(folder)
        return True

    # -------------------------------------------------------------------------------------------------------- durability

    def _flush_name(self, path: str) -> None:
        """Make the name of a file durable, and the names of the folders on the way to it."""
        folder, flushed = parent_of(path), self._flushed
        flushed.discard(folder)
        self._disk.flush_folder(folder)
        self._flush_way(folder)
        flushed.add(folder)

    def _flush_absence(self, path: str) -> None:
        """Make it durable that there is no file of a name; its folder may be gone, too."""
        folder, flushed = parent_of(path), self._flushed
        flushed.discard(folder)
        place = folder
        while len(place) >= len(self._folder):
            try:
                self._disk.flush_folder(place)
            except (FileNotFoundError, NotADirectoryError):
                place = parent_of(place)
            else:
                break
        flushed.add(folder)

    def _flush_way(self, folder: str) -> None:
        """Make the names of a folder and of its parents durable: who made them may not have flushed them yet."""
        reachable, way = self._reachable, list[str]()
        # A folder with a file cannot be removed, and one that was removed is forgotten at once.
        with self._folders_change:
            for place in self._way(folder):
                if place in reachable:
                    break
                way.append(place)
        for place in reversed(way):
            self._disk.flush_folder(parent_of(place))
        with self._folders_change:
            reachable.update(way)

    def _flush_seen(self, path: str, there: bool) -> None:
        """Make durable what the caller saw of a file that it leaves as it is: once per folder, and after each `lock`.

        The caller relies on it, and who wrote or removed the file may have been killed before it was flushed.
        """
        folder = parent_of(path)
        if folder not in self._flushed or (there and folder not in self._reachable):
            with reported("write", path):
                (self._flush_name if there else self._flush_absence)(path)

    def _way(self, folder: str) -> Iterator[str]:
        """Yield a folder of the store, and its parents up to the base."""
        while len(folder) > len(self._folder):
            yield folder
            folder = parent_of(folder)
        yield self._folder

    def _make_folder(self, folder: str) -> None:
        """Make a folder and its parents, which another process may be removing at the same time, since they are empty."""
        disk, parent = self._disk, parent_of(folder)
        for _ in range(_ATTEMPTS):
            try:
                disk.make_folder(folder)
            except FileNotFoundError:
                if parent == folder:
                    raise
                self._make_folder(parent)
            except FileExistsError:
                if disk.is_folder(folder):
                    return
                # One check per folder: between two (exists, is no folder) another process could remove it.
                if disk.is_file(folder):
                    raise
            else:
                self._reachable.discard(folder)
                if len(folder) <= len(self._folder):
                    disk.flush_folder(parent)
                return
        disk.make_folder(folder)

    # ----------------------------------------------------------------------------------------------------------- locking

    def remove_stale_drafts(self) -> int:
        """Remove the temporary files of killed writers, not of running ones; return how many."""
        removed = 0
        for name in sorted(entry.name for entry in self._scan(self._drafts)):
            if not _DRAFT.fullmatch(name):
                continue  # not written by data-engine
            # A writer holds the stripe of its draft: if the stripe is free, the writer is gone.
            with suppress(StoreBusy), self._stripe(int(name[:2], 16), seconds=0):
                draft = f"{self._drafts}{os.sep}{name}"
                if self._disk.is_file(draft):
                    with reported("remove", draft):
                        self._disk.unlink(draft)
                    removed += 1
        return removed

    @contextmanager
    def lock(self, name: str, *, seconds: float, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock *name* of this folder, to exclude other runs; single writes do not need it.

        Raises:
            StoreBusy: If another process held it all the time.
        """
        with self._file_lock(name, seconds, waiting):
            # The last holder may have been killed before it had flushed what can be seen now.
            self._reachable, self._flushed = set(), set()
            yield

    @contextmanager
    def _locked(self, key: str) -> Iterator[int]:
        stripe = zlib.crc32(key.encode()) % _STRIPES
        with self._stripe(stripe, seconds=self._lock_seconds, waiting=self._told):
            yield stripe

    @contextmanager
    def _stripe(self, stripe: int, *, seconds: float, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        # Threads queue here, so that only a second process ever polls the lock file.
        mutex = self._threads[stripe]
        if not mutex.acquire(timeout=seconds):
            raise StoreBusy(f"cannot write to {self.base}: locked by another thread (waited {seconds:g} s)")
        try:
            with self._file_lock(f"{stripe:02x}", seconds, waiting, unsaid=_UNSAID_SECONDS):
                yield
        finally:
            mutex.release()

    @contextmanager
    def _file_lock(self, name: str, seconds: float, waiting: Callable[[], None] | None, *, unsaid: float = 0.0) -> Iterator[None]:
        path = f"{self._prefix}metadata{os.sep}locks{os.sep}{name}.lock"
        with reported("lock", path):
            release = self._acquire(path, min(unsaid, seconds))
            if release is None and seconds > unsaid:
                if waiting is not None:
                    waiting()
                release = self._acquire(path, seconds - unsaid)
        if release is None:
            remedy = "use --wait" if self._told is None else "pass a longer wait="
            raise StoreBusy(f"store {self.base} is locked by another process (waited {seconds:g} s); retry or {remedy}")
        try:
            yield
        finally:
            release()

    def _acquire(self, path: str, seconds: float) -> Callable[[], None] | None:
        if not self._disk.is_folder(parent_of(path)):
            self._make_folder(parent_of(path))
        return self._disk.acquire(path, seconds)
