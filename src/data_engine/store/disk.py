"""Make the system calls of a store on a disk: `Disk`. A test can replace it by a model of a disk.

Every call of `LocalFiles` that reads, changes or locks something goes through one object of this class. Paths are text, since
`Path` is slow for many calls. Errors are those of the operating system.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Protocol
from uuid import uuid4

from data_engine.errors import DamagedFile, FileInUse, StoreError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_IN_USE_SECONDS = 30.0

MOST_BYTES = 1 << 30
"""The largest file that is read: hundreds of times what a month of minutes needs."""

_UNSUPPORTED = {
    getattr(errno, name)
    for name in ("EINVAL", "EBADF", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "ENOTTY", "EISDIR")
    if hasattr(errno, name)
}
"""What file systems report that cannot flush a folder, or cannot flush the drive."""

_CHUNK = 1 << 16

_FEW = 4
"""So many files are flushed one by one: the flush of a file system waits for what other programs have written, too."""

_FEW_CALLS = 8
"""So many calls that wait for the device are made one after the other: starting threads takes longer, and other workers go on."""

_THREADS = 8

_REPORTING = {0xEF53: "ext4", 0x58465342: "xfs", 0x9123683E: "btrfs"}
"""The file systems whose flush as a whole reports what could not be written, by the numbers that the kernel has for them."""

_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

_LIST = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)


class Status(Protocol):
    """What a folder's listing tells about a file."""

    @property
    def st_size(self) -> int:
        """The size in bytes."""


class Entry(Protocol):
    """A file or folder in a listing; `os.DirEntry` is one."""

    @property
    def name(self) -> str:
        """The name, without the folder."""

    def is_dir(self) -> bool:
        """Tell whether it is a folder."""

    def stat(self) -> Status:
        """Return the size.

        Raises:
            FileNotFoundError: If it was removed meanwhile.
        """


class Mutex(Protocol):
    """A lock between the threads of this process."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; return whether it was free in time."""

    def release(self) -> None:
        """Release the lock."""

    def __enter__(self) -> object:
        """Take the lock, however long that lasts."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        """Release the lock."""


def _to_the_end(handle: int, size: int) -> bytes:
    """Return the content of a file, which has *size* bytes unless it grows; a call may return less than there is."""
    parts: list[bytes] = []
    while part := os.read(handle, _CHUNK if parts else size + 1):
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class Disk:
    """The disks of this machine, through the operating system."""

    def read(self, path: str) -> bytes:
        """Return the content of a regular file: a named pipe would block, a device may never end, a sparse file fills memory."""
        handle = os.open(path, _READ)  # `open` makes twice as many calls, for each of the thousands of small files
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            if status.st_size > MOST_BYTES:
                raise OSError(errno.EFBIG, f"too large for a file of a store ({status.st_size:,} bytes)", path)
            return _to_the_end(handle, status.st_size)
        finally:
            os.close(handle)

    def size(self, path: str) -> int:
        """Return the size of a file in bytes."""
        return os.stat(path).st_size  # noqa: PTH116 - called for each file of each series

    def scan(self, folder: str) -> list[Entry]:
        """Return the files and folders in a folder, in any order; links that lead nowhere or to a parent are left out."""
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.is_symlink() or _leads_elsewhere(entry.path, folder)]

    def is_file(self, path: str) -> bool:
        """Tell whether there is a file of this name, which is no folder."""
        return os.path.isfile(path)  # noqa: PTH113

    def is_folder(self, path: str) -> bool:
        """Tell whether there is a folder of this name."""
        return os.path.isdir(path)  # noqa: PTH112

    def free(self, folder: str) -> int:
        """Return the free bytes of the file system of a folder."""
        return shutil.disk_usage(folder).free

    def unique(self) -> str:
        """Return a name that is used once: 32 hexadecimal digits."""
        return uuid4().hex

    def create(self, path: str) -> int:
        """Make a new file, and return the handle to write to it."""
        return os.open(path, _CREATE, 0o666)

    def write(self, handle: int, content: memoryview) -> int:
        """Write to a new file; return how many bytes were written, which may be fewer."""
        return os.write(handle, content)

    def flush(self, handle: int) -> None:
        """Wait until the content of a file is on the device, and survives a power failure."""
        full = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: `fsync` leaves it in the drive's own memory
        if full is not None:
            try:
                fcntl.fcntl(handle, full)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
            else:
                return
        os.fsync(handle)

    def close(self, handle: int) -> None:
        """Close a new file."""
        os.close(handle)

    def flush_folder(self, folder: str) -> None:
        """Wait until the names in a folder are on the device. Windows has no such call and needs none."""
        if os.name == "nt":
            return
        try:
            handle = os.open(folder, _LIST)
        except PermissionError:
            os.sync()  # a folder that may be written to, but not read, cannot be flushed by itself
            return
        try:
            self.flush(handle)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:  # some network file systems refuse; they write names at once
                raise
        finally:
            os.close(handle)

    def open_system(self, folder: str, files: int) -> int | None:
        """Return a handle for `flush_system`, which reports what goes wrong from now on.

        Args:
            folder: A folder; the file system is that of the folder, or of its nearest parent that is there.
            files: The number of files that are about to be written.

        Returns:
            The handle, to be closed with `close`. None if the file system cannot be flushed as a whole or would not report
            errors, or if the files are few.
        """
        if files <= _FEW or not sys.platform.startswith("linux"):
            return None
        while not self.is_folder(folder) and folder != parent_of(folder):
            folder = parent_of(folder)
        try:
            handle = os.open(folder, _LIST)
        except OSError:
            return None
        if _reports_errors(handle):
            return handle
        os.close(handle)
        return None

    def flush_system(self, handle: int) -> None:
        """Wait until all contents and names of a file system are on the device."""
        import ctypes

        if ctypes.CDLL(None, use_errno=True).syncfs(handle):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def together(self, calls: Sequence[Callable[[], None]]) -> None:
        """Make many calls that wait for the device at the same time; return when all have ended, or raise the first error."""
        if len(calls) <= _FEW_CALLS:
            for call in calls:
                call()
            return
        with ThreadPoolExecutor(min(_THREADS, len(calls)), thread_name_prefix="flush") as pool:
            futures = [pool.submit(call) for call in calls]
        for future in futures:
            future.result()

    def make_folder(self, path: str) -> None:
        """Make a folder; its parent must be there."""
        os.mkdir(path)  # noqa: PTH102

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder."""
        os.rmdir(path)  # noqa: PTH106

    def unlink(self, path: str) -> None:
        """Remove a file."""
        os.unlink(path)  # noqa: PTH108

    def replace(self, source: str, target: str) -> None:
        """Move a file to the place of another, atomically."""
        if sys.platform != "win32":
            os.replace(source, target)  # noqa: PTH105
            return
        # Windows refuses to replace a file that a reader has open; most readers close it soon.
        deadline = time.monotonic() + _IN_USE_SECONDS
        pause = 0.01
        while True:
            try:
                os.replace(source, target)  # noqa: PTH105
            except PermissionError as error:
                if time.monotonic() > deadline:
                    raise OSError(errno.EBUSY, "file in use", target) from error
                time.sleep(pause)
                pause = min(2 * pause, 1.0)
            else:
                return

    def mutex(self) -> Mutex:
        """Return a new lock between threads."""
        return threading.Lock()

    def acquire(self, path: str, seconds: float) -> Callable[[], None] | None:
        """Take the kernel's lock of a lock file, which is made if it is not there; its folder must be there.

        Args:
            path: The path of the lock file.
            seconds: The maximum time to wait for another holder.

        Returns:
            A function that releases the lock, or None if another holder kept it.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(path, thread_local=False, poll_interval=0.005)
        with suppress(Timeout):
            lock.acquire(timeout=seconds)
            holder = os.getpid()

            def release() -> None:
                if os.getpid() == holder:  # a child that was forked meanwhile must not release its parent's lock
                    lock.release()

            return release
        return None


def _reports_errors(handle: int) -> bool:
    """Tell whether `syncfs` reports what could not be written: since Linux 5.8, on file systems of a device."""
    import ctypes

    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if release is None or (int(release[1]), int(release[2])) < (5, 8):
        return False
    found = (ctypes.c_long * 32)()  # its first field is the kind of the file system
    return ctypes.CDLL(None).fstatfs(handle, ctypes.byref(found)) == 0 and found[0] & 0xFFFFFFFF in _REPORTING


DISK = Disk()
"""The disks of this machine."""


class Renewable(Protocol):
    """What has locks between threads."""

    def renew(self) -> None:
        """Free them."""


_RENEWABLE: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_after_fork(one: Renewable) -> None:
    """Have `Renewable.renew` called in each child that is forked, for as long as *one* exists."""
    _RENEWABLE.add(one)


def _after_fork() -> None:
    for one in list(_RENEWABLE):
        one.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _leads_elsewhere(link: str, folder: str) -> bool:
    """Tell whether a link leads to something that does not contain the link: else a walk would come back to it for ever."""
    target = os.path.realpath(link)
    return os.path.exists(target) and not f"{os.path.realpath(folder)}{os.sep}".startswith(f"{target.rstrip(os.sep)}{os.sep}")  # noqa: PTH110


def parent_of(path: str) -> str:
    """Return the folder of a path; that of a relative name is the working directory."""
    return os.path.dirname(path) or os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120


@contextmanager
def reported(verb: str, path: str) -> Iterator[None]:
    """Turn an error of the system into a `StoreError`."""
    try:
        yield
    except OSError as error:
        raise store_error(verb, path, error) from error


def store_error(verb: str, path: str, error: OSError) -> StoreError:
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
    if verb == "read" and error.errno == errno.EFBIG:
        kind = DamagedFile
    return kind(f"cannot {verb} {path}: {reason}")
