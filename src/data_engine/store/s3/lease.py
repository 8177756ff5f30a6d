"""Holding a place whose locks nobody frees: a claim that runs out unless it is renewed.

A disk's lock is the kernel's and dies with its owner. On a bucket a claim is an object that says who holds it; a thread writes
it anew three times in the time that it lasts. One that was not renewed is over, and may be taken. That is found out without
comparing two machines' clocks: the server's times of writing are compared with the server's time now, and whoever looks on
for the whole time and sees no change knows it, too.
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
"""Seconds on top: times of writing are whole seconds, and the machines of one service may differ a little."""

_POLL = 1.0


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A claim as it was read.

    Attributes:
        content: what it says; nothing: it was let go.
        tag: of this content.
        age: seconds since it was written, by the server's clock.
    """

    content: bytes
    tag: str
    age: float


class Slot(Protocol):
    """The one object that a claim is."""

    def read(self) -> LeaseRecord | None:
        """Return the claim that is there."""

    def swap(self, content: bytes, seen: LeaseRecord | None) -> LeaseRecord | None:
        """Replace the claim that was *seen*; None where another one is there by now."""


class Lease:
    """A claim on a slot.

    Args:
        slot: that is claimed.
        place: for people.
        seconds: that the claim lasts without being renewed.
    """

    def __init__(self, slot: Slot, place: str, seconds: float) -> None:
        self._slot = slot
        self._place = place
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
        return f"Lease({self._place!r})"

    @property
    def valid(self) -> bool:
        """Whether nobody else can have taken it."""
        return not self._lost and time.monotonic() < self._until

    def take(self, seconds: float, waiting: Callable[[], None] | None = None) -> None:
        """Claim the slot, and go on renewing it.

        Args:
            seconds: how long to wait for another holder.
            waiting: called once if there is one.

        Raises:
            StoreBusy: another one held it all the time; the message says who.
            StoreError: the place cannot be read or written.
        """
        deadline = time.monotonic() + seconds
        watched: tuple[str, float] | None = None
        pause = 0.05
        while True:
            seen = self._slot.read()
            now = time.monotonic()
            if seen is not None and (watched is None or watched[0] != seen.tag):
                watched = (seen.tag, now)
            if seen is None or _is_over(seen, now - watched[1] if watched else 0.0):
                self._seen = self._slot.swap(self._text(), seen)
                if self._seen is not None:
                    break
                continue
            if waiting is not None:
                waiting()
                waiting = None
            if now >= deadline:
                raise StoreBusy(
                    f"another process holds the store {self._place} and did not let go within {seconds:g} s: {_holder(seen)}"
                )
            time.sleep(min(pause * random.uniform(0.5, 1.0), max(deadline - now, 0.0)))  # noqa: S311
            pause = min(2 * pause, _POLL)
        # From before the write: those who look on count from after it.
        self._until = now + self._seconds
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let the slot go. Where that cannot be written, the claim runs out by itself."""
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
                    # Perhaps our own renewal, whose answer was lost.
                    there = self._slot.read()
                    made = there if there is not None and _says(there).get("owner") == self._owner else None
            except StoreError:
                continue  # the network; the claim may still be renewed before it is over
            if made is None:
                self._lost = True
                return
            self._seen, self._until = made, started + self._seconds

    def _text(self) -> bytes:
        self._written += 1  # a tag is a digest of the content: without this, renewing would not show
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
    """Return who wrote a claim, or None where that cannot be read."""
    return _says(LeaseRecord(content, "", 0.0)).get("owner")


def _is_over(seen: LeaseRecord, watched: float) -> bool:
    if not seen.content:
        return True
    lasts = _says(seen).get("seconds")
    lasts = float(lasts) if isinstance(lasts, int | float) else 60.0
    return seen.age > lasts + MARGIN or watched > lasts


def _says(seen: LeaseRecord) -> dict[str, object]:
    with suppress(ValueError):
        fields = json.loads(seen.content)
        if isinstance(fields, dict):
            return fields
    return {}


def _holder(seen: LeaseRecord) -> str:
    fields = _says(seen)
    return f"process {fields.get('pid', '?')} on {fields.get('host', '?')}, since {fields.get('since', '?')}"
