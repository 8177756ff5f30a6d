"""Write the records of the history of a store in a bucket: `S3History`.

The number of a record is the next one for which there is no object, on condition of that. So two writers never have the same
number, and each sees the instant of the one before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from datetime import datetime
from functools import partial
from typing import Protocol
from uuid import uuid4

from data_engine.errors import StoreError
from data_engine.store.history.head import BEGINNING, Actor, Head, Replaced, entries_of, found_at_beginning, next_instant
from data_engine.store.history.record import FOLDER, dump, instant_of, key_of, number_of
from data_engine.store.s3.bucket import Bucket, Conflict
from data_engine.store.s3.lease import elapsed

_CONFLICTS = 8
"""So many records of others are passed one by one before all are listed."""

_FRESH_SECONDS = 60.0
"""After that a number that was free may be that of a record that is in a pack by now; one moves there after an hour."""


class Shared(Protocol):
    """What all objects of a URL share."""

    history: Head


class S3History:
    """The history of a store in a bucket. Safe between threads, processes and machines.

    Args:
        bucket: The bucket.
        shared: Returns what the objects of this process share.
        present: Yields the keys and sizes of all files whose changes are recorded.
    """

    def __init__(
        self, bucket: Callable[[], Bucket], shared: Callable[[], Shared], present: Callable[[], Iterable[tuple[str, int]]]
    ) -> None:
        self._bucket = bucket
        self._shared = shared
        self._present = present
        self._actor = Actor()

    def acting(self, actor: Actor) -> S3History:
        """Return the same history for commits of somebody."""
        made = copy(self)
        made._actor = actor
        return made

    def base(self) -> int:
        """Return the number of a record that is there: for who reads files, and records a commit of them."""
        head = self._shared().history
        with head.mutex:
            if not head.number:
                self._refresh(head)
            return head.number

    def record(self, replaced: Sequence[Replaced], *, base: int, conditional: bool) -> None:
        """Write the record of a commit, before its files are replaced.

        Args:
            replaced: The files.
            base: What `base` returned before the files were read.
            conditional: Whether the service knows conditional writes. If not, this process is the only writer.

        Raises:
            StoreError: If it cannot be written.
        """
        entries = entries_of(replaced, self._actor)
        if not entries:
            return
        head = self._shared().history
        with head.mutex:
            if not head.number or not conditional or elapsed() - head.read_at > _FRESH_SECONDS:
                self._refresh(head)
            if not head.number:
                first = partial(dump, actor=BEGINNING, base=0, entries=found_at_beginning(self._present()))
                self._append(head, first, conditional=conditional)
            self._append(head, partial(dump, actor=self._actor.name, base=base, entries=entries), conditional=conditional)

    def _append(self, head: Head, content: Callable[[datetime], bytes], *, conditional: bool) -> None:
        writer, conflicts = uuid4().hex, 0
        while True:
            key, instant = key_of(head.number + 1), next_instant(head.instant)
            try:
                self._bucket().put(key, content(instant), "create" if conditional else "overwrite", writer)
            except Conflict:
                found = self._bucket().get(key)
                # A request without a response is sent again, and may then conflict with itself.
                if found is None or found.writer != writer:
                    conflicts += 1
                    if found is None or conflicts % _CONFLICTS == 0:
                        head.number, head.instant = self._last()
                    else:
                        head.number, head.instant = self._next(head, found.content)
                    continue
            except StoreError:
                if not conditional:
                    head.number += 1  # the request may be carried out later, and then takes this number
                raise
            head.number, head.instant = head.number + 1, instant
            return

    def _refresh(self, head: Head) -> None:
        read_at = elapsed()
        head.number, head.instant = self._last()
        head.read_at = read_at

    @staticmethod
    def _next(head: Head, content: bytes) -> tuple[int, datetime | None]:
        return head.number + 1, _instant(content) or head.instant

    def _last(self) -> tuple[int, datetime | None]:
        """Return the highest number of a record, or 0, and its instant."""
        numbers = [number for one in self._bucket().objects(FOLDER) if (number := number_of(one.key)) is not None]
        for number in sorted(numbers, reverse=True):
            found = self._bucket().get(key_of(number))
            if found is not None and (instant := _instant(found.content)) is not None:
                return max(numbers), instant
        return max(numbers, default=0), None


def _instant(content: bytes) -> datetime | None:
    try:
        return instant_of(content)
    except ValueError:
        return None
