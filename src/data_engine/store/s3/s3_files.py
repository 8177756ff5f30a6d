"""Read and write the files of a store in a bucket.

A file is one object without a lock. A write is one request for the whole object, conditional on it being the one that was read
(``If-Match``) or on there being none (``If-None-Match``); if the condition is not met, the object is read and changed again. So
no change is lost between processes and machines, and a killed writer leaves the old object or the new one.

A service that does not know these conditions responds as if they were met. So before its first write a process probes them.
Without them, one process at a time may write (`PollingLock`).

A file is removed by overwriting it with a mark (`tombstone`), on the same condition. The mark is then removed if the service can
do that on condition, and stays otherwise. No request ever removes an object unconditionally that another process may write: such
a request, delayed on its way, would remove a new file.
"""

from __future__ import annotations

import atexit
import random
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from datetime import timedelta
from functools import partial
from pathlib import Path
from posixpath import commonpath
from typing import Any, cast
from uuid import uuid4

from data_engine.errors import DataEngineError, StoreBusy, StoreError
from data_engine.store.file_store import Change, check_key, no_check
from data_engine.store.history.head import Actor, Replaced
from data_engine.store.history.record import is_recorded, recorded_folders
from data_engine.store.removal_mark import is_file, tombstone
from data_engine.store.s3.bucket import Bucket, Conflict, StoredObject, Unanswered
from data_engine.store.s3.capabilities import LOCKS, Capabilities, ConditionalLock, PollingLock, probe
from data_engine.store.s3.lease import Lease, LockLost
from data_engine.store.s3.s3_group import Round, at_once, failing_alone
from data_engine.store.s3.s3_history import S3History
from data_engine.store.s3.shared_state import CAPABILITIES, SHARED, SharedState

LEASE_SECONDS = 60.0
"""The time, about, for which a killed run can exclude others."""

_ROUNDS = 3  # of files that others change at the same time: after that each is changed by itself

_PAUSE = 1.0  # the longest between two attempts of a write

_LITTER = timedelta(hours=1)


class SingleWriterWarning(UserWarning):
    """The service ignores conditions: only one process at a time may write."""


class S3Files:
    """A prefix of a bucket of S3, or of a service with its protocol. Safe between threads, processes and machines.

    Args:
        url: The URL ``s3://bucket/prefix``.
        store: A store of obstore to use instead of one for the URL and the AWS variables.
        lock_seconds: The maximum time to attempt a write while others change the same file.
        lease_seconds: The duration of a lock without a renewal. If None, 60 seconds.

    Raises:
        ConfigError: If obstore is not installed, or the URL or a variable cannot be used.
    """

    def __init__(self, url: str, *, store: Any = None, lock_seconds: float = 600.0, lease_seconds: float | None = None) -> None:
        self._bucket = Bucket.open(url) if store is None else Bucket(store, url)
        self._lock_seconds = lock_seconds
        # How long a change waits to become the only writer, and what it then tells.
        self._writer_seconds, self._told = 0.0, cast("Callable[[], None] | None", None)
        self._lease_seconds = LEASE_SECONDS if lease_seconds is None else lease_seconds
        self._service = self._bucket.endpoint, "/".join(url.split("/")[:3])
        # A store of obstore that was passed in shares nothing: no other object can name it.
        self._shared, self._known = SharedState(), dict[tuple[str | None, str], Capabilities]()
        if store is None:
            self._shared, self._known = SHARED.setdefault((self._bucket.endpoint, url), self._shared), CAPABILITIES
        self._history = S3History(lambda: self._bucket, lambda: self._shared, self._recorded)

    def __repr__(self) -> str:
        return f"S3Files({self.location!r})"

    @property
    def location(self) -> str:
        """The URL."""
        return self._bucket.location

    @property
    def folder(self) -> Path | None:
        """None: the files have no path on this machine."""
        return None

    # ----------------------------------------------------------------------------------------------------------- reading

    def get(self, key: str) -> bytes | None:
        """Return the content of a file, or None if there is no file."""
        found = self._bucket.get(check_key(key))
        return _content(key, found)

    def size(self, key: str) -> int | None:
        """Return the size of a file in bytes, or None if there is no file."""
        size = self._bucket.size(check_key(key))
        return size if size is not None and is_file(key, size) else None

    def sizes_of(self, keys: Iterable[str]) -> Sequence[int | None]:
        """Return the size of each file in bytes, None where there is no file; several of one folder are listed together."""
        chosen = [*keys]
        folder = commonpath(map(check_key, chosen)) if len(chosen) > 1 else ""
        if not folder:
            return [self.size(key) for key in chosen]
        found = dict(self.sizes(folder))
        return [found.get(key) for key in chosen]

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all files below the folder *prefix*, sorted; pages of 1,000 are requested as needed."""
        return (key for key, _ in self.sizes(prefix))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the keys of all files below the folder *prefix*, sorted, with their sizes in bytes."""
        return ((found.key, found.size) for found in self._bucket.objects(check_key(prefix)) if is_file(found.key, found.size))

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the folders right below the folder *prefix*, sorted; none if there is no such folder."""
        return self._bucket.folders(check_key(prefix) if prefix else "")

    def free_bytes(self) -> int | None:
        """Return None: a bucket has no limit."""
        return None

    # ----------------------------------------------------------------------------------------------------------- writing

    def waiting(self, seconds: float, told: Callable[[], None]) -> S3Files:
        """Return these files, whose changes wait for at most *seconds*, and call *told* if another process is the only writer."""
        patient = copy(self)
        patient._lock_seconds = patient._writer_seconds = seconds
        patient._told = told
        return patient

    def acting(self, actor: str, *, forgets: bool = False) -> S3Files:
        """Return these files for somebody, whom the history of the store names."""
        made = copy(self)
        made._history = self._history.acting(Actor(actor, forgets))
        return made

    def _recorded(self) -> Iterator[tuple[str, int]]:
        return (one for folder in recorded_folders(self.folders("")) for one in self.sizes(folder))

    def update(self, key: str, change: Change) -> bool:
        """Replace a file by what *change* returns for its content, atomically; return whether anything was written.

        Raises:
            StoreBusy: If others changed the same file again and again.
            LockLost: If the lock of the store was lost.
            StoreError: If the service refuses or cannot be reached; the file is the old one or the new one.
        """
        check_key(key)
        capabilities = self._ready()
        deadline = time.monotonic() + self._lock_seconds
        pause = 0.01
        # Threads queue here, so that only other processes conflict at the server.
        stripe = self._shared.stripe(key)
        if not stripe.acquire(timeout=self._lock_seconds):
            raise StoreBusy(f"cannot write to {self.location}: locked by another thread (waited {self._lock_seconds:g} s)")
        try:
            while True:
                base = self._history.base() if is_recorded(key) else 0
                found, known = self._read_to_change(key)
                content = change(known)
                if content is None or (not content and known is None):
                    return False
                self._history.record([Replaced(key, known, content)], base=base, conditional=capabilities.writing)
                if self._replace(capabilities, key, found, content):
                    return True
                if time.monotonic() >= deadline:
                    tried = f"{self._lock_seconds:g} s"
                    raise StoreBusy(f"cannot write {self.location}/{key}: changed by others again and again for {tried}; retry")
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(2 * pause, _PAUSE)
        finally:
            stripe.release()

    def update_many(
        self, changes: Mapping[str, Change], *, before_move: Callable[[], None] = no_check
    ) -> dict[str, DataEngineError]:
        """Replace many files with as many requests at the same time; return the errors of single files.

        Raises:
            StoreError: As `update`; some of the files may have been replaced.
        """
        capabilities = self._ready()
        failed: dict[str, DataEngineError] = {}
        left = dict(changes)
        attempt = Round(
            read=self._read_to_change,
            base=self._history.base,
            record=lambda replaced, base: self._history.record(replaced, base=base, conditional=True),
            replace=partial(self._replace, capabilities),
            before_move=before_move,
            failed=failed,
        )
        for _ in range(_ROUNDS if capabilities.writing else 0):  # else nothing but a lock keeps two threads apart
            if len(left) > 1:
                left = {key: changes[key] for key in attempt.attempt(left)}

        def replace(key: str, change: Change) -> None:
            def checked(content: bytes | None) -> bytes | None:
                made = change(content)
                if made is not None:
                    before_move()
                return made

            with failing_alone(key, failed):
                self.update(key, checked)

        at_once([partial(replace, key, change) for key, change in left.items()])
        return failed

    def _read_to_change(self, key: str) -> tuple[StoredObject | None, bytes | None]:
        self._check_leases()
        found = self._bucket.get(check_key(key))
        return found, _content(key, found)

    def flush(self, folder: str) -> None:
        """Do nothing: what can be read of a bucket is stored."""

    def delete(self, key: str) -> bool:
        """Remove a file; return whether there was one."""
        return self.update(key, lambda content: None if content is None else b"")

    def _replace(self, capabilities: Capabilities, key: str, found: StoredObject | None, content: bytes) -> bool:
        """Write or remove a file if it still is as it was *found*; return whether it was."""
        writer = uuid4().hex
        mode = "overwrite" if not capabilities.writing else "create" if found is None else found.tag
        self._check_leases()  # the change may have taken long
        try:
            tag = self._bucket.put(key, content or tombstone(key), mode, writer)
        except Unanswered:
            for lease in self._shared.held:
                lease.let_expire()  # it may be carried out later: nobody is to rely on the file until then
            raise
        except Conflict:
            # A request without a response is sent again, and may then conflict with itself.
            now = self._bucket.get(key)
            if now is None or now.writer != writer:
                return False
            tag = now.tag
        if not content and capabilities.removing:
            with suppress(StoreError):  # there is a new file; or the mark stays
                self._bucket.delete(key, tag)
        return True

    def remove_stale_drafts(self) -> int:
        """Remove the probes of killed processes; return how many objects."""
        capabilities = self._ready()
        removed = 0
        for found in self._bucket.objects(LOCKS):
            if found.key.startswith(f"{LOCKS}/probe-") and capabilities.age(found.modified) > _LITTER.total_seconds():
                self._bucket.delete(found.key)
                removed += 1
        return removed

    # ---------------------------------------------------------------------------------------------------------- locking

    @contextmanager
    def lock(self, name: str, *, seconds: float, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock *name* of this URL, to exclude other runs; single writes do not need it.

        The lock is an object, renewed every 20 seconds; a killed holder excludes others for about a minute. A holder that
        another process has passed over (a suspended machine, no network) writes nothing more: `update` raises `LockLost`.

        Args:
            name: The name of the lock, letters and digits.
            seconds: The maximum time to wait for another holder.
            waiting: A function to call once if there is another holder.

        Raises:
            StoreBusy: If another process held it all the time.
        """
        if not self._probed().writing:
            with self._lock_as_writer(seconds, waiting):
                yield
            return
        lease = Lease(ConditionalLock(self._bucket, f"{LOCKS}/{name}.lock", self._probed()), self.location, self._lease_seconds)
        lease.take(seconds, waiting)
        self._shared.leases.append(lease)
        try:
            yield
        finally:
            with suppress(ValueError):  # a child that was forked meanwhile has no lease
                self._shared.leases.remove(lease)
            lease.release()

    @contextmanager
    def _lock_as_writer(self, seconds: float, waiting: Callable[[], None] | None) -> Iterator[None]:
        """Hold the lock without conditional writes: this process is the only writer, with one run at a time."""
        shared = self._shared
        run = shared.run
        if not run.acquire(blocking=False):
            if waiting is not None:
                waiting()
            if not run.acquire(timeout=seconds):
                raise StoreBusy(f"store {self.location} is locked by another run in this process (waited {seconds:g} s); retry")
        try:
            self._become_writer(seconds, waiting)
            yield
        finally:
            with shared.lock:
                writer, shared.writer = shared.writer, None
            if writer is not None:
                atexit.unregister(writer.release)
                writer.release()
            run.release()

    def _become_writer(self, seconds: float, waiting: Callable[[], None] | None = None) -> None:
        shared = self._shared
        with shared.lock:
            if shared.writer is None:
                slot = PollingLock(self._bucket, f"{LOCKS}/writer.lock", self._probed())
                lease = Lease(slot, self.location, self._lease_seconds)
                lease.take(seconds, waiting)
                shared.writer = lease
                atexit.register(lease.release)

    def _check_leases(self) -> None:
        for lease in self._shared.held:
            if not lease.check():
                raise LockLost(
                    f"lost the lock of the store {self.location}: not renewed for {self._lease_seconds:g} s, another process may "
                    "have taken it; run the same command again"
                )

    # ---------------------------------------------------------------------------------------------------------- probing

    def write_warning(self) -> str | None:
        """Return a warning if the service ignores conditions, else None; the service is probed once per process."""
        if self._probed(quietly=True).writing:
            return None
        return (
            f"the service of {self.location} ignores If-Match and If-None-Match, so only one process at a time may write; "
            "a second one ends with exit code 7 (use --wait)"
        )

    def check_writable(self) -> None:
        """Write and remove an object, once per process.

        Raises:
            StoreError: If that is refused.
        """
        self._probed(quietly=True)

    def _ready(self) -> Capabilities:
        capabilities = self._probed()
        if not capabilities.writing:
            self._become_writer(self._writer_seconds, self._told)
        return capabilities

    def _probed(self, *, quietly: bool = False) -> Capabilities:
        with self._shared.lock:
            capabilities = self._known.get(self._service)
            if capabilities is None:
                capabilities = self._known[self._service] = probe(self._bucket)
                if not quietly and not capabilities.writing:
                    warnings.warn(self.write_warning() or "", SingleWriterWarning, stacklevel=4)
            return capabilities


def _content(key: str, found: StoredObject | None) -> bytes | None:
    """Return the content of an object that is a file, or None."""
    return found.content if found is not None and is_file(key, len(found.content)) else None
