"""Hold a lock that no kernel frees: a claim that expires unless it is renewed.

A lock on a disk ends with its process. On a bucket a claim is an object with its owner; a thread writes it again three times per
duration. A claim that was not renewed has expired, and another process may take it. This needs no comparison of two machines'
clocks: the server's time of the write is compared with the server's time now, or a waiting process sees no change for the whole
duration.

A machine may be suspended, and a virtual one stopped without knowing it. So a claim is renewed before it is relied on, if the
clock that counts time in suspend or the time of day says that it may have expired. A renewal is conditional on the claim that
this process wrote last: if another process held the slot meanwhile, it fails.
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from uuid import uuid4

from data_engine.errors import StoreBusy, StoreError

MARGIN = 5.0
"""Seconds added to a duration: times of writes are whole seconds, and the machines of a service may differ a little."""

_POLL = 1.0

_COUNTS_SUSPEND = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))  # Linux, macOS


class LockLost(StoreError):
    """The lock of the store was lost: another process may hold it. It ends a run, since all its writes would fail."""

    code = StoreBusy.code
    exit_code = StoreBusy.exit_code


def elapsed() -> float:
    """Return seconds since some instant, those in suspend included."""
    if _COUNTS_SUSPEND is None:
        return time.monotonic()  # Windows: it counts them
    return time.clock_gettime(_COUNTS_SUSPEND)


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A claim as it was read.

    Attributes:
        content: The content; empty if the claim was released.
        tag: The tag of the content.
        age: The seconds since it was written, by the server's clock.
    """

    content: bytes
    tag: str
    age: float


class Slot(Protocol):
    """The object that holds a claim."""

    def read(self) -> LeaseRecord | None:
        """Return the present claim, or None if there is no object."""

    def swap(self, content: bytes, seen: LeaseRecord | None) -> LeaseRecord | None:
        """Replace the claim that was *seen*; return the new one, or None if there is another claim by now."""


class Lease:
    """A claim on a slot.

    Args:
        slot: The slot.
        location: The location of the store, for messages.
        seconds: The duration of the claim without a renewal.
    """

    def __init__(self, slot: Slot, location: str, seconds: float) -> None:
        self._slot = slot
        self._location = location
        self._seconds = seconds
        self._owner = uuid4().hex
        self._since = datetime.now(UTC).replace(microsecond=0)
        self._written = 0
        self._seen: LeaseRecord | None = None
        self._until = self._until_today = 0.0
        self._lost = False
        self._expires = False
        self._process = os.getpid()
        self._renewing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"Lease({self._location!r})"

    @property
    def valid(self) -> bool:
        """Whether no other process can have taken the slot, as far as is known without a request."""
        return not self._lost and elapsed() < self._until and time.time() < self._until_today

    def check(self) -> bool:
        """Return whether no other process has taken the slot; if a clock says that it may have, renew the claim first."""
        return self.valid or self._renew()

    def _written_at(self, started: float, today: float) -> None:
        # From before the write: waiting processes count from after it.
        self._until, self._until_today = started + self._seconds, today + self._seconds

    def take(self, seconds: float, waiting: Callable[[], None] | None = None) -> None:
        """Claim the slot, and renew the claim in a thread.

        Args:
            seconds: The maximum time to wait for another holder.
            waiting: A function to call once if there is another holder.

        Raises:
            StoreBusy: If another holder had it all the time; the message names it.
            StoreError: If the slot cannot be read or written.
        """
        deadline = elapsed() + seconds
        watched: tuple[str, float] | None = None
        pause = 0.05
        while True:
            seen = self._slot.read()
            now, today = elapsed(), time.time()
            if seen is not None and (watched is None or watched[0] != seen.tag):
                watched = (seen.tag, now)
            if seen is None or _has_expired(seen, now - watched[1] if watched else 0.0):
                self._seen = self._slot.swap(self._text(), seen)
                if self._seen is not None:
                    break
                continue
            if waiting is not None:
                waiting()
                waiting = None
            if now >= deadline:
                raise StoreBusy(
                    f"store {self._location} is locked by {_holder(seen)} (waited {seconds:g} s); retry or use --wait"
                )
            time.sleep(min(pause * random.uniform(0.5, 1.0), max(deadline - now, 0.0)))  # noqa: S311
            pause = min(2 * pause, _POLL)
        self._written_at(now, today)
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def let_expire(self) -> None:
        """Have `release` leave the claim to expire: something that was requested under it may still be carried out."""
        self._expires = True

    def release(self) -> None:
        """Release the slot, for good. If that cannot be written, the claim expires."""
        if os.getpid() != self._process:
            return  # a child that was forked: the claim is its parent's
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._expires:
            self._renew()  # for the whole duration from now on
        with self._renewing:
            if not self._lost and not self._expires:
                with suppress(StoreError):
                    self._slot.swap(b"", self._seen)
            self._lost = True

    def _keep(self) -> None:
        while not self._lost and not self._stop.wait(self._seconds / 3):
            self._renew()

    def _renew(self) -> bool:
        """Write the claim again; return whether it is still this one's."""
        with self._renewing:
            if self._lost:
                return False
            try:
                for _ in range(3):
                    started, today = elapsed(), time.time()
                    made = self._slot.swap(self._text(), self._seen)
                    if made is not None:
                        self._seen = made
                        self._written_at(started, today)
                        return self.valid
                    # Perhaps a renewal whose response was lost. It is written again: nothing else tells how old it is.
                    self._seen = self._slot.read()
                    if self._seen is None or _fields(self._seen).get("owner") != self._owner:
                        self._lost = True
                        return False
            except StoreError:
                pass  # the network; a later renewal may still be in time
            return self.valid

    def _text(self) -> bytes:
        self._written += 1  # a tag is a digest of the content: without this a renewal would not change it
        fields = {
            "owner": self._owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": self._since.isoformat().replace("+00:00", "Z"),
            "seconds": self._seconds,
            "written": self._written,
        }
        return json.dumps(fields).encode()


def owner_of(content: bytes) -> object:
    """Return the owner of a claim, or None if the content cannot be read."""
    return _fields(LeaseRecord(content, "", 0.0)).get("owner")


def _has_expired(seen: LeaseRecord, watched: float) -> bool:
    if not seen.content:
        return True
    lasts = _fields(seen).get("seconds")
    lasts = float(lasts) if isinstance(lasts, int | float) else 60.0
    return seen.age > lasts + MARGIN or watched > lasts


def _fields(seen: LeaseRecord) -> dict[str, object]:
    with suppress(ValueError):
        fields = json.loads(seen.content)
        if isinstance(fields, dict):
            return fields
    return {}


def _holder(seen: LeaseRecord) -> str:
    fields = _fields(seen)
    return f"process {fields.get('pid', '?')} on {fields.get('host', '?')}, since {fields.get('since', '?')}"
