"""Lock the files of a folder on this machine between threads and processes: `LocalLocks`, the kernel's locks."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy

from data_engine.errors import StoreBusy
from data_engine.store.disk import Disk, parent_of, reported
from data_engine.store.local_names import LocalNames

STRIPES = 64

_UNSAID_SECONDS = 1.0  # a writer of a file holds its lock for milliseconds


def stripe_of(key: str) -> int:
    """Return the number of the lock of a key, 0 to 63."""
    return zlib.crc32(key.encode()) % STRIPES


class LocalLocks:
    """64 locks for single files, and locks with names. Those of a killed process are free at once.

    Args:
        disk: The calls of the operating system.
        base: The folder of the store.
        names: What makes folders.
        seconds: The maximum time to wait for another writer of the same file.
    """

    def __init__(self, disk: Disk, base: str, names: LocalNames, seconds: float) -> None:
        self._disk = disk
        self._base = base
        self._names = names
        self._seconds = seconds
        self._folder = f"{base.rstrip(os.sep)}{os.sep}metadata{os.sep}locks"
        self._told: Callable[[], None] | None = None
        self.renew()

    def waiting(self, seconds: float, told: Callable[[], None]) -> LocalLocks:
        """Return these locks for a caller that waits for at most *seconds*, and is told if it waits for more than one."""
        patient = copy(self)
        patient._seconds, patient._told = seconds, told
        return patient

    def renew(self) -> None:
        """Free the locks between threads: a child has none of the threads of its parent that held them."""
        self._threads = [self._disk.mutex() for _ in range(STRIPES)]

    @contextmanager
    def stripe(self, stripe: int, *, seconds: float | None = None) -> Iterator[None]:
        """Hold the lock of the keys of a stripe.

        Raises:
            StoreBusy: If another holder kept it for *seconds*, by default those of a writer.
        """
        told = self._told if seconds is None else None
        seconds = self._seconds if seconds is None else seconds
        # Threads queue here, so that only a second process ever polls the lock file.
        mutex = self._threads[stripe]
        if not mutex.acquire(timeout=seconds):
            raise StoreBusy(f"cannot write to {self._base}: locked by another thread (waited {seconds:g} s)")
        try:
            with self.named(f"{stripe:02x}", seconds, told, unsaid=_UNSAID_SECONDS):
                yield
        finally:
            mutex.release()

    @contextmanager
    def named(
        self, name: str, seconds: float, waiting: Callable[[], None] | None = None, *, unsaid: float = 0.0
    ) -> Iterator[None]:
        """Hold the lock of a name; *waiting* is called if another process keeps it for *unsaid* seconds.

        Raises:
            StoreBusy: If another process kept it all the time.
        """
        path = f"{self._folder}{os.sep}{name}.lock"
        with reported("lock", path):
            release = self._acquire(path, min(unsaid, seconds))
            if release is None and seconds > unsaid:
                if waiting is not None:
                    waiting()
                release = self._acquire(path, seconds - unsaid)
        if release is None:
            remedy = "use --wait" if self._told is None else "pass a longer wait="
            raise StoreBusy(f"store {self._base} is locked by another process (waited {seconds:g} s); retry or {remedy}")
        try:
            yield
        finally:
            release()

    def _acquire(self, path: str, seconds: float) -> Callable[[], None] | None:
        if not self._disk.is_folder(parent_of(path)):
            self._names.make_folder(parent_of(path))
        return self._disk.acquire(path, seconds)
