"""Probe which conditional requests a service supports, and lock by an object with them or without.

S3 writes an object only if it is as the writer read it (``If-Match``, ``If-None-Match``). A service that does not know these
headers responds as if the condition were met: only a probe tells.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from data_engine.store.s3.bucket import Bucket, Conflict, NotSupported
from data_engine.store.s3.lease import LeaseRecord, elapsed, owner_of

LOCKS = "metadata/locks"
"""The folder of locks and probes."""

_SETTLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The conditions that a service supports.

    Attributes:
        writing: Whether a write can be conditional.
        removing: Whether a removal can be conditional.
        clock: The server's time in seconds since 1970, less `elapsed`.
    """

    writing: bool
    removing: bool
    clock: float

    def age(self, modified: datetime) -> float:
        """Return the seconds since an object was written, by the server's clock."""
        return elapsed() + self.clock - modified.timestamp()


def probe(bucket: Bucket) -> Capabilities:
    """Return the capabilities of a service, found with an object that is then removed.

    Raises:
        StoreError: If the bucket cannot be written.
    """
    key, word = f"{LOCKS}/probe-{uuid4().hex}.lock", uuid4().hex

    def refused(content: bytes, mode: str) -> bool:
        try:
            bucket.put(key, content, mode, word)
        except Conflict:
            return True
        return False

    def written(content: bytes, mode: str) -> bool:
        # A request without a response is sent again, and may then conflict with itself.
        return not refused(content, mode) or ((found := bucket.get(key)) is not None and found.content == content)

    first = bucket.put(key, b"first", "overwrite", word)
    now = elapsed()
    try:
        there = bucket.get(key)
        clock = (there.modified.timestamp() if there is not None else time.time()) - now
        # A write that must be refused, one that must not, and one with a tag that has gone.
        try:
            writing = refused(b"second", "create") and written(b"third", first) and refused(b"fourth", first)
        except NotSupported:
            writing = False
        removing = writing and bucket.can_delete_on_condition and _removes_on_condition(bucket, key, first)
    finally:
        bucket.delete(key)
    return Capabilities(writing, removing, clock)


def _removes_on_condition(bucket: Bucket, key: str, stale: str) -> bool:
    there = bucket.get(key)
    try:
        bucket.delete(key, stale)
    except Conflict:
        pass
    except NotSupported:
        return False
    else:
        return False
    try:
        bucket.delete(key, there.tag if there is not None else stale)
    except Conflict:
        pass  # sent again, it may conflict with itself
    except NotSupported:
        return False
    return bucket.get(key) is None


class ConditionalLock:
    """A lock object on a service with conditional writes: of two concurrent claims, one is refused."""

    def __init__(self, bucket: Bucket, key: str, capabilities: Capabilities) -> None:
        self._bucket = bucket
        self._key = key
        self._capabilities = capabilities

    def read(self) -> LeaseRecord | None:
        """Return the present claim, or None if there is no object."""
        found = self._bucket.get(self._key)
        return None if found is None else LeaseRecord(found.content, found.tag, self._capabilities.age(found.modified))

    def swap(self, content: bytes, seen: LeaseRecord | None) -> LeaseRecord | None:
        """Replace the claim that was *seen*; return the new one, or None if there is another claim by now."""
        try:
            tag = self._bucket.put(self._key, content, "create" if seen is None else seen.tag, uuid4().hex)
        except Conflict:
            # A request without a response is sent again, and may then conflict with itself. No two claims are the same.
            there = self.read()
            return there if there is not None and there.content == content else None
        return LeaseRecord(content, tag, 0.0)


class PollingLock(ConditionalLock):
    """A lock object on a service without conditional writes: a claimant waits, and reads whether the claim is still its own.

    Two concurrent claimants both write within half the wait after their read, so that both then read the later claim. A write
    that took longer does not count. No more is possible without conditions: a request that is delayed for longer could still let
    two in, until one of them renews its claim and finds the other's.
    """

    def swap(self, content: bytes, seen: LeaseRecord | None) -> LeaseRecord | None:
        """Replace the claim that was *seen*; return the new one, or None if there is another claim by now."""
        started = elapsed()
        there = self.read()
        if (there.tag if there else None) != (seen.tag if seen else None):
            return None
        self._bucket.put(self._key, content, "overwrite", uuid4().hex)
        if not content or (there is not None and there.content and owner_of(there.content) == owner_of(content)):
            return self.read()
        if elapsed() - started > _SETTLE_SECONDS / 2:
            return None
        time.sleep(_SETTLE_SECONDS)
        there = self.read()
        return there if there is not None and there.content == content else None
