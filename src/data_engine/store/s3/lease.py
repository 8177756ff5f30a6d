"""Hold a lock that no kernel frees: a claim that expires unless it is renewed.

A lock on a disk ends with its process. On a bucket a claim is an object with its owner; a thread writes it again three times per
duration. A claim that was not renewed has expired, and another process may take it. This needs no comparison of two machines'
clocks: the server's time of the write is compared with the server's time now, or a waiting process sees no change for the whole
duration.
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
        self._until = 0.0
        self._lost = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"Lease({self._location!r})"

    @property
    def valid(self) -> bool:
        """Whether no other process can have taken the slot."""
        return not self._lost and time.monotonic() < self._until

    def take(self, seconds: float, waiting: Callable[[], None] | None = None) -> None:
        """Claim the slot, and renew the claim in a thread.

        Args:
            seconds: The maximum time to wait for another holder.
            waiting: A function to call once if there is another holder.

        Raises:
            StoreBusy: If another holder had it all the time; the message names it.
            StoreError: If the slot cannot be read or written.
        """
        deadline = time.monotonic() + seconds
        watched: tuple[str, float] | None = None
        pause = 0.05
        while True:
            seen = self._slot.read()
            now = time.monotonic()
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
        # From before the write: waiting processes count from after it.
        self._until = now + self._seconds
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Release the slot. If that cannot be written, the claim expires."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if not self._lost:
            with suppress(StoreError):
                self._slot.swap(b"", self._seen)
        self._until = 0.0

    def _keep(self) -> None:
        while not self._stop.wait(self._seconds / 3):
            started = time.monotonic()
            try:
                made = self._slot.swap(self._text(), self._seen)
                if made is None:
                    # Perhaps this renewal, whose response was lost.
                    there = self._slot.read()
                    made = there if there is not None and _fields(there).get("owner") == self._owner else None
            except StoreError:
                continue  # the network; a later renewal may still be in time
            if made is None:
                self._lost = True
                return
            self._seen, self._until = made, started + self._seconds

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
