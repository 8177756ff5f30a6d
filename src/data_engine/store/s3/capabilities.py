"""What a service of object storage honours, found out by trying; and what a lock is there.

S3 carries a write out only if the object is as the writer has seen it (``If-Match``, ``If-None-Match``). A service that does not
know these headers answers as if all were well: nothing but trying tells.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from data_engine.errors import StoreError
from data_engine.store.s3.bucket import Bucket, Conflict
from data_engine.store.s3.lease import LeaseRecord, owner_of

LOCKS = "metadata/locks"
"""The folder of locks and of what is tried out."""

_SETTLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a service was found to honour.

    Attributes:
        writing: conditions on writing.
        removing: conditions on removing.
        clock: what to add to `time.monotonic` to have the server's time, in seconds since 1970.
    """

    writing: bool
    removing: bool
    clock: float

    def age(self, modified: datetime) -> float:
        """Return for how many seconds an object has been as it is, by the server's clock."""
        return time.monotonic() + self.clock - modified.timestamp()


def probe(bucket: Bucket) -> Capabilities:
    """Find out what a service honours, with an object of no meaning, which is removed.

    Raises:
        StoreError: the place cannot be written to.
    """
    key, word = f"{LOCKS}/probe-{uuid4().hex}.lock", uuid4().hex

    def refused(content: bytes, mode: str) -> bool:
        try:
            bucket.put(key, content, mode, word)
        except Conflict:
            return True
        return False

    first = bucket.put(key, b"first", "overwrite", word)
    now = time.monotonic()
    try:
        there = bucket.get(key)
        clock = (there.modified.timestamp() if there is not None else time.time()) - now
        # Once what must be refused, once what must not be, and then the tag of what is there no longer.
        try:
            writing = refused(b"second", "create") and not refused(b"third", first) and refused(b"fourth", first)
        except StoreError:
            writing = False  # there are services that answer 501
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
    except StoreError:
        return False
    else:
        return False
    try:
        bucket.delete(key, there.tag if there is not None else stale)
    except (Conflict, StoreError):
        return False
    return bucket.get(key) is None


class ConditionalLock:
    """A lock object where conditions are honoured: of two who claim it, one is refused."""

    def __init__(self, bucket: Bucket, key: str, honours: Capabilities) -> None:
        self._bucket = bucket
        self._key = key
        self._honours = honours

    def read(self) -> LeaseRecord | None:
        """Return the claim that is there."""
        found = self._bucket.get(self._key)
        return None if found is None else LeaseRecord(found.content, found.tag, self._honours.age(found.modified))

    def swap(self, content: bytes, seen: LeaseRecord | None) -> LeaseRecord | None:
        """Replace the claim that was *seen*; None where another one is there by now."""
        try:
            tag = self._bucket.put(self._key, content, "create" if seen is None else seen.tag, uuid4().hex)
        except Conflict:
            return None
        return LeaseRecord(content, tag, 0.0)


class PollingLock(ConditionalLock):
    """A lock object where nothing is honoured: who claims it waits, and looks whether the claim is still its own.

    Two who claim at once both write within half the wait from having looked, so that after it both see the later one.
    A write that took longer is not relied on. This is as much as can be had without conditions; a request that is held up on its
    way for longer could still let two in, until one of them renews its claim and finds the other's.
    """

    def swap(self, content: bytes, seen: LeaseRecord | None) -> LeaseRecord | None:
        """Replace the claim that was *seen*; None where another one is there by now."""
        started = time.monotonic()
        there = self.read()
        if (there.tag if there else None) != (seen.tag if seen else None):
            return None
        self._bucket.put(self._key, content, "overwrite", uuid4().hex)
        if not content or (there is not None and there.content and owner_of(there.content) == owner_of(content)):
            return self.read()
        if time.monotonic() - started > _SETTLE_SECONDS / 2:
            return None
        time.sleep(_SETTLE_SECONDS)
        there = self.read()
        return there if there is not None and there.content == content else None
