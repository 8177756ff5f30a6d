"""Read and write the files of a store in a folder on this machine.

A write goes to a temporary file, is flushed to the device and moved into place, under the kernel's locks. Temporary files are in
``metadata/drafts``, on the same file system, and their names never end in ``.parquet``.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from data_engine.errors import FileInUse, StoreBusy, StoreError
from data_engine.store.file_store import Change, check_key

_STRIPES = 64

_DRAFT = re.compile(r"[0-3][0-9a-f]-[0-9a-f]{32}\.tmp")

_IN_USE_SECONDS = 30.0

_LOCK_SECONDS = 600.0


class LocalFiles:
    """A folder on this machine.

    Safe between threads and processes: each change holds one of 64 lock files for its read, change and move. The locks are
    the kernel's, so those of a killed process are free at once.

    Args:
        base: The folder.
        lock_seconds: The maximum time to wait for another writer of the same file.
    """

    def __init__(self, base: Path | str, *, lock_seconds: float = _LOCK_SECONDS) -> None:
        self.base = Path(base)
        self._prefix = f"{self.base}{os.sep}"
        self._lock_seconds = lock_seconds
        self._threads = [threading.Lock() for _ in range(_STRIPES)]

    @property
    def location(self) -> str:
        """The folder's path."""
        return str(self.base)

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
        try:
            with open(self._name(key), "rb", buffering=0) as file:  # noqa: PTH123 - a Path takes longer than the read
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _store_error("read", self.path(key), error) from error

    def size(self, key: str) -> int | None:
        """Return the size of a file in bytes, or None if there is no file."""
        try:
            return os.stat(self._name(key)).st_size  # noqa: PTH116 - called for each file of each series
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _store_error("read", self.path(key), error) from error

    def _name(self, key: str) -> str:
        """Return `path` as text, since `Path` is slow for many calls; Windows accepts forward slashes."""
        return f"{self._prefix}{check_key(key)}"

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all files below the folder *prefix*, sorted; nothing if there is no such folder."""
        return (key for key, _ in self._walk(self.path(prefix), prefix))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the keys that `list` yields, with the sizes in bytes; a file that is removed meanwhile is left out."""
        for key, entry in self._walk(self.path(prefix), prefix):
            with suppress(FileNotFoundError):
                yield key, entry.stat().st_size

    def _walk(self, folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        try:
            # By key, as a bucket lists them: the slash counts.
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name + "/" * entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _store_error("read", folder, error) from error
        for entry in entries:
            if entry.is_dir():
                yield from self._walk(folder / entry.name, f"{prefix}/{entry.name}")
            else:
                yield f"{prefix}/{entry.name}", entry

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the folders right below the folder *prefix*, sorted; none if there is no such folder."""
        folder = self.path(prefix) if prefix else self.base
        try:
            return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _store_error("read", folder, error) from error

    def update(self, key: str, change: Change) -> bool:
        """Replace a file by what *change* returns for its content, atomically; return whether anything was written.

        Raises:
            StoreBusy: If another process kept the file locked for too long.
            FileInUse: If a reader kept the file open for too long (Windows).
            StoreError: If the disk is full, read-only, or fails; the old file is untouched.
        """
        path = self.path(key)
        with self._locked(key) as stripe:
            content = change(self.get(key))
            if content is None:
                return False
            if not content:
                return self._unlink(path)
            draft = self.base / "metadata" / "drafts" / f"{stripe:02x}-{uuid4().hex}.tmp"
            try:
                _make_folder(draft.parent)
                _make_folder(path.parent)
                _write(draft, content)
                _move(draft, path)
            except OSError as error:
                raise _store_error("write", path, error) from error
            finally:
                with suppress(OSError):
                    draft.unlink(missing_ok=True)
        return True

    def delete(self, key: str) -> bool:
        """Remove a file, and folders that become empty; return whether there was a file."""
        path = self.path(key)
        with self._locked(key):
            return self._unlink(path)

    def free_bytes(self) -> int | None:
        """Return the free bytes of the disk, or None if they are unknown."""
        folder = self.base
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            return None

    def write_warning(self) -> str | None:
        """Return None: the kernel's locks are reliable."""
        return None

    def _unlink(self, path: Path) -> bool:
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _store_error("remove", path, error) from error
        _sync_folder(path.parent)
        for folder in path.parents:
            if folder == self.base:
                break
            try:
                folder.rmdir()
            except OSError:  # not empty: so are its parents
                break
        return True

    def remove_stale_drafts(self) -> int:
        """Remove the temporary files of killed writers, not of running ones; return how many."""
        drafts = self.base / "metadata" / "drafts"
        removed = 0
        for draft in sorted(drafts.glob("*.tmp")) if drafts.is_dir() else ():
            if not _DRAFT.fullmatch(draft.name):
                continue  # not written by data-engine
            # A writer holds the stripe of its draft: if the stripe is free, the writer is gone.
            with suppress(StoreBusy, FileNotFoundError), self._stripe(int(draft.name[:2], 16), seconds=0):
                try:
                    draft.unlink()
                    removed += 1
                except PermissionError as error:
                    raise _store_error("remove", draft, error) from error
        return removed

    @contextmanager
    def lock(self, name: str, *, seconds: float, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock *name* of this folder, to exclude other runs; single writes do not need it.

        Args:
            name: The name of the lock, letters and digits.
            seconds: The maximum time to wait for another holder.
            waiting: A function to call once if there is another holder.

        Raises:
            StoreBusy: If another process held it all the time.
        """
        with self._file_lock(name, seconds, waiting):
            yield

    @contextmanager
    def _locked(self, key: str) -> Iterator[int]:
        stripe = zlib.crc32(key.encode()) % _STRIPES
        with self._stripe(stripe, seconds=self._lock_seconds):
            yield stripe

    @contextmanager
    def _stripe(self, stripe: int, *, seconds: float) -> Iterator[None]:
        # Threads queue here, so that only a second process ever polls the lock file.
        if not self._threads[stripe].acquire(timeout=seconds):
            raise StoreBusy(f"cannot write to {self.base}: locked by another thread (waited {seconds:g} s)")
        try:
            with self._file_lock(f"{stripe:02x}", seconds, None):
                yield
        finally:
            self._threads[stripe].release()

    @contextmanager
    def _file_lock(self, name: str, seconds: float, waiting: Callable[[], None] | None) -> Iterator[None]:
        from filelock import FileLock, Timeout

        path = self.base / "metadata" / "locks" / f"{name}.lock"
        try:
            _make_folder(path.parent)
            lock = FileLock(path, thread_local=False, poll_interval=0.005)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if waiting is not None:
                    waiting()
                lock.acquire(timeout=seconds)
        except Timeout:
            raise StoreBusy(
                f"store {self.base} is locked by another process (waited {seconds:g} s); retry or use --wait"
            ) from None
        except OSError as error:
            raise _store_error("lock", path, error) from error
        try:
            yield
        finally:
            lock.release()


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, which another process may be removing at the same time, since they are empty."""
    for _ in range(100):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, FileNotFoundError):
            # One check per folder: between two (exists, is no folder) another process could remove it.
            if any(place.is_file() for place in (folder, *folder.parents)):
                raise
        else:
            return
    folder.mkdir(parents=True, exist_ok=True)


def _write(draft: Path, content: bytes) -> None:
    with draft.open("xb", buffering=0) as file:
        view = memoryview(content)
        while view:
            view = view[file.write(view) :]
        # Without this a power failure can leave the new name without content.
        os.fsync(file.fileno())


def _move(draft: Path, path: Path) -> None:
    deadline = time.monotonic() + _IN_USE_SECONDS
    pause = 0.01
    while True:
        try:
            draft.replace(path)
            break
        except FileNotFoundError:
            if not draft.exists() or time.monotonic() > deadline:
                raise
            # A `delete` removed the empty folder after it was made, and may do so again.
            _make_folder(path.parent)
        except PermissionError as error:
            # Windows refuses to replace a file that a reader has open; most readers close it soon.
            if sys.platform != "win32":
                raise
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, "file in use", str(path)) from error
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Windows has no such call and needs none."""
    if os.name != "nt":
        with suppress(OSError):  # some network file systems refuse; the data itself is safe already
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _store_error(verb: str, path: Path, error: OSError) -> StoreError:
    """Return the error of the system as a `StoreError` with a reason that a user can act on."""
    reason = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT if hasattr(errno, "EDQUOT") else -1: "the disk quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EXDEV: "on another file system than the store's metadata folder; keep the store on one",
        errno.ENOTDIR: "a part of the path is a file, not a folder",
        errno.EEXIST: "a part of the path is a file, not a folder",
        errno.EMFILE: "too many open files; raise the limit with `ulimit -n` or use fewer --workers",
        errno.EBUSY: "file in use",
    }.get(error.errno or 0, error.strerror or str(error))
    if isinstance(error, PermissionError):
        reason = "permission denied"
    kind = FileInUse if error.errno == errno.EBUSY else StoreError
    return kind(f"cannot {verb} {path}: {reason}")
