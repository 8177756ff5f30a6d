"""Keep what all objects of one bucket in this process share: locks, leases, and what the service supports."""

from __future__ import annotations

import os
import threading
import zlib
from dataclasses import dataclass, field

from data_engine.store.history.head import Head
from data_engine.store.s3.capabilities import Capabilities
from data_engine.store.s3.lease import Lease

_STRIPES = 64


@dataclass
class SharedState:
    """The locks and leases of this process at a URL, shared by all objects of that URL."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    stripes: list[threading.Lock] = field(default_factory=lambda: [threading.Lock() for _ in range(_STRIPES)])
    leases: list[Lease] = field(default_factory=list)
    writer: Lease | None = None
    run: threading.Lock = field(default_factory=threading.Lock)
    history: Head = field(default_factory=lambda: Head(threading.Lock()))

    @property
    def held(self) -> tuple[Lease, ...]:
        """The leases of this process."""
        return (*self.leases, self.writer) if self.writer is not None else tuple(self.leases)

    def stripe(self, key: str) -> threading.Lock:
        """Return the lock of a key; keys may share one."""
        return self.stripes[zlib.crc32(key.encode()) % _STRIPES]

    def renew(self) -> None:
        """Forget all locks and leases: they are the parent's of a process that was forked."""
        vars(self).update(vars(SharedState()))


SHARED: dict[tuple[str | None, str], SharedState] = {}
"""The states of this process, by endpoint and URL."""

CAPABILITIES: dict[tuple[str | None, str], Capabilities] = {}
"""What services support, by endpoint and bucket."""


def _after_fork() -> None:
    for shared in SHARED.values():
        shared.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
