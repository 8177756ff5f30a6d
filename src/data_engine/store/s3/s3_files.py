"""The files of a store in a bucket: `S3Files`.

There are no locks. A file is one object, and a write is one request for all of it that the server carries out only if the object
is still the one that was read (``If-Match``) or there still is none (``If-None-Match``); otherwise the object is read and changed
again. So no change is lost, whoever writes from wherever, and a killed writer leaves old or new.

Not every service looks at these conditions; one that does not know them answers as if they had been met. So before its first
write a process tries them out. Where they are not honoured, one process at a time may write (`PollingLock`).

An empty object is no file. Where a service honours conditions on writing but not on removing, a file is emptied first, on
condition, and then removed; nobody writes to an empty object until it is certain that its remover is done.
"""

from __future__ import annotations

import atexit
import random
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from data_engine.errors import StoreBusy
from data_engine.store.file_store import Change, check_key
from data_engine.store.s3.bucket import Bucket, Conflict, Stored
from data_engine.store.s3.capabilities import LOCKS, Capabilities, ConditionalLock, PollingLock, probe
from data_engine.store.s3.lease import Lease

LEASE_SECONDS = 60.0
"""How long a run that was killed keeps others away, at most and about."""

_STRIPES = 64

_PAUSE = 1.0  # the longest between two tries of a write

_REMOVED_SECONDS = 60.0  # from when on an emptied object is nobody's

_REMOVING_SECONDS = 10.0  # until when its remover may send the second request

_LITTER = timedelta(hours=1)


class SingleWriterWarning(UserWarning):
    """The service ignores conditions, so that only one process at a time may write."""


@dataclass
class Grounds:
    """What this process knows of a place, and holds there; shared by all objects of the same address."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    stripes: list[threading.Lock] = field(default_factory=lambda: [threading.Lock() for _ in range(_STRIPES)])
    held: list[Lease] = field(default_factory=list)
    writer: Lease | None = None
    run: threading.Lock = field(default_factory=threading.Lock)


# Of this process: by address, and what each bucket's service was found to honour.
_GROUNDS: dict[tuple[str | None, str], Grounds] = {}

_HONOURS: dict[tuple[str | None, str], Capabilities] = {}


class S3Files:
    """A prefix of a bucket of S3, or of a service that speaks its protocol.

    Safe between threads, processes and machines.

    Args:
        url: ``s3://bucket/prefix``.
        store: of obstore, in place of one made from the address and the AWS variables.
        lock_seconds: how long a single write tries, while others change the same file.
        lease_seconds: how long a hold lasts that is not renewed; None is a minute.

    Raises:
        ConfigError: obstore is not installed, or the address or a variable cannot be used.
    """

    def __init__(self, url: str, *, store: Any = None, lock_seconds: float = 600.0, lease_seconds: float | None = None) -> None:
        self._bucket = Bucket.open(url) if store is None else Bucket(store, url)
        self._lock_seconds = lock_seconds
        self._lease_seconds = LEASE_SECONDS if lease_seconds is None else lease_seconds
        self._service = self._bucket.endpoint, "/".join(url.split("/")[:3])
        # An object store that was handed over is its own place: nobody else in this process can name it.
        self._grounds, self._honours = Grounds(), dict[tuple[str | None, str], Capabilities]()
        if store is None:
            self._grounds, self._honours = _GROUNDS.setdefault((self._bucket.endpoint, url), self._grounds), _HONOURS

    def __repr__(self) -> str:
        return f"S3Files({self.location!r})"

    @property
    def location(self) -> str:
        """The address."""
        return self._bucket.location

    @property
    def folder(self) -> Path | None:
        """None: no program finds these files by a path."""
        return None

    # ----------------------------------------------------------------------------------------------------------- reading

    def get(self, key: str) -> bytes | None:
        """Return the content of a file, or None where there is none."""
        found = self._bucket.get(check_key(key))
        return found.content if found is not None and found.content else None

    def size(self, key: str) -> int | None:
        """Return the size of a file in bytes, or None where there is none."""
        return self._bucket.size(check_key(key)) or None

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all files below the folder *prefix*, sorted; pages of a thousand are asked for as they are wanted."""
        return (key for key, _ in self.sizes(prefix))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the keys of all files below the folder *prefix*, sorted, with their sizes in bytes."""
        return ((found.key, found.size) for found in self._bucket.objects(check_key(prefix)) if found.size)

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the folders right below the folder *prefix*, sorted; none where there is no such folder."""
        return self._bucket.folders(check_key(prefix) if prefix else "")

    def free_bytes(self) -> int | None:
        """Return None: a bucket is never full."""
        return None

    # ----------------------------------------------------------------------------------------------------------- writing

    def update(self, key: str, change: Change) -> bool:
        """Replace a file by what *change* makes of its content, atomically; return whether anything was written.

        Raises:
            StoreBusy: others changed the same file again and again, or the hold on the store was lost.
            StoreError: the service refuses, or cannot be reached; the file is the old one, or the new one.
        """
        check_key(key)
        honours = self._ready()
        deadline = time.monotonic() + self._lock_seconds
        pause = 0.01
        # Threads queue here: only other processes are ever met at the server.
        stripe = self._grounds.stripes[zlib.crc32(key.encode()) % _STRIPES]
        if not stripe.acquire(timeout=self._lock_seconds):
            raise StoreBusy(f"another thread is writing to {self.location}")
        try:
            while True:
                self._check_held()
                found = self._bucket.get(key)
                if not self._is_being_removed(found, honours):
                    content = change(found.content if found is not None and found.content else None)
                    if content is None or (not content and (found is None or not found.content)):
                        return False
                    if self._replace(key, found, content, honours):
                        return True
                if time.monotonic() >= deadline:
                    raise StoreBusy(
                        f"{self.location}/{key}: others changed it again and again; not written within {self._lock_seconds:g} s"
                    )
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(2 * pause, _PAUSE)
        finally:
            stripe.release()

    def delete(self, key: str) -> bool:
        """Remove a file; return whether it was there."""
        return self.update(key, lambda content: None if content is None else b"")

    def _replace(self, key: str, found: Stored | None, content: bytes, honours: Capabilities) -> bool:
        """Write or remove a file that is as it was *found*; return False where it is so no longer."""
        writer = uuid4().hex
        mode = "overwrite" if not honours.writing else "create" if found is None else found.tag
        started = time.monotonic()
        try:
            if content:
                self._bucket.put(key, content, mode, writer)
            elif honours.removing and found is not None:
                self._bucket.delete(key, found.tag)
            elif not honours.writing:
                self._bucket.delete(key)
            else:
                self._bucket.put(key, b"", mode, writer)
                # Later than this somebody may have written a new file there.
                if time.monotonic() < started + _REMOVING_SECONDS:
                    self._bucket.delete(key)
        except Conflict:
            # A request that was answered by silence is sent again, and then finds its own work done.
            now = self._bucket.get(key)
            return now is not None and now.writer == writer if content else now is None and found is not None
        return True

    def _is_being_removed(self, found: Stored | None, honours: Capabilities) -> bool:
        """Tell whether an object was emptied by somebody who may be about to remove it."""
        if found is None or found.content or honours.removing or not honours.writing:
            return False
        return honours.age(found.modified) < _REMOVED_SECONDS

    def remove_stale_drafts(self) -> int:
        """Remove what processes left behind that were killed while they tried the service out; return how many objects."""
        honours = self._ready()
        removed = 0
        for found in self._bucket.objects(LOCKS):
            if found.key.startswith(f"{LOCKS}/probe-") and honours.age(found.modified) > _LITTER.total_seconds():
                self._bucket.delete(found.key)
                removed += 1
        return removed

    # ---------------------------------------------------------------------------------------------------------- holding

    @contextmanager
    def lock(self, name: str, *, seconds: float, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock *name* of this place, to keep other runs away; single writes do not need it.

        The lock is an object, renewed every 20 seconds; a killed holder keeps others away for about a minute. A holder that
        could not renew it (a suspended machine, a cut line) writes nothing more: `update` raises `StoreBusy`.

        Args:
            name: of the lock, a plain word.
            seconds: how long to wait for another holder.
            waiting: called once if there is one.

        Raises:
            StoreBusy: another process held it all the time.
        """
        if not self._probed().writing:
            with self._held_by_this_process(seconds, waiting):
                yield
            return
        lease = Lease(ConditionalLock(self._bucket, f"{LOCKS}/{name}.lock", self._probed()), self.location, self._lease_seconds)
        lease.take(seconds, waiting)
        self._grounds.held.append(lease)
        try:
            yield
        finally:
            self._grounds.held.remove(lease)
            lease.release()

    @contextmanager
    def _held_by_this_process(self, seconds: float, waiting: Callable[[], None] | None) -> Iterator[None]:
        """Hold the place where there are no conditions: the one writer is this process, and one run in it."""
        grounds = self._grounds
        if not grounds.run.acquire(blocking=False):
            if waiting is not None:
                waiting()
            if not grounds.run.acquire(timeout=seconds):
                raise StoreBusy(f"another run of this process holds the store {self.location}")
        try:
            self._become_writer(seconds, waiting)
            yield
        finally:
            with grounds.lock:
                writer, grounds.writer = grounds.writer, None
            if writer is not None:
                atexit.unregister(writer.release)
                writer.release()
            grounds.run.release()

    def _become_writer(self, seconds: float, waiting: Callable[[], None] | None = None) -> None:
        grounds = self._grounds
        with grounds.lock:
            if grounds.writer is None:
                slot = PollingLock(self._bucket, f"{LOCKS}/writer.lock", self._probed())
                lease = Lease(slot, self.location, self._lease_seconds)
                lease.take(seconds, waiting)
                grounds.writer = lease
                atexit.register(lease.release)

    def _check_held(self) -> None:
        grounds = self._grounds
        writer = grounds.writer
        for lease in (*grounds.held, *((writer,) if writer is not None else ())):
            if not lease.valid:
                raise StoreBusy(
                    f"the hold on the store {self.location} could not be renewed for {self._lease_seconds:g} s, and another "
                    "process may have taken it; what was written is whole; run the same command again"
                )

    # ---------------------------------------------------------------------------------------------------------- trying out

    def write_warning(self) -> str | None:
        """Return what whoever is about to write here should know, or None; the service is tried out for it, once a process."""
        if self._probed(quietly=True).writing:
            return None
        return (
            f"{self.location}: this service ignores If-Match and If-None-Match, so only one process at a time may write here; "
            "a second one ends with exit code 7"
        )

    def _ready(self) -> Capabilities:
        honours = self._probed()
        if not honours.writing:
            self._become_writer(0.0)
        return honours

    def _probed(self, *, quietly: bool = False) -> Capabilities:
        with self._grounds.lock:
            honours = self._honours.get(self._service)
            if honours is None:
                honours = self._honours[self._service] = probe(self._bucket)
                if not quietly and not honours.writing:
                    warnings.warn(self.write_warning() or "", SingleWriterWarning, stacklevel=4)
            return honours
