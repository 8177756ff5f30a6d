"""Write the records of the history of a store in a bucket: `S3History`.

The number of a record is the next one for which there is no object, on condition of that. So two writers never have the same
number, and each sees the instant of the one before it. Without conditions, a request that failed may be carried out later: its
number is not used again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from typing import Protocol
from uuid import uuid4

from data_engine.errors import StoreError
from data_engine.store.history.head import BEGINNING, Actor, Head, Replaced, entries_of, found_at_beginning, next_instant
from data_engine.store.history.pack import pack_numbers
from data_engine.store.history.record import FOLDER, dump, instant_of, key_of, number_of
from data_engine.store.s3.bucket import Bucket, Conflict
from data_engine.store.s3.lease import elapsed

_CONFLICTS = 8
"""So many records of others are passed one by one before all are listed."""

_FRESH = timedelta(minutes=1)
"""After that a number that was free may be that of a record that is in a pack by now; one moves there after an hour."""

_NO_RECORD = b"data-engine history"
"""In place of a record whose request failed: readers take it for what a killed writer has left."""


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
            if not head.number or not conditional or head.is_older_than(_FRESH, elapsed()):
                self._refresh(head)
            if head.instant is None:
                self._begin(head, conditional=conditional)
            content = partial(dump, actor=self._actor.name, base=base, entries=entries)
            self._append(head, content, conditional=conditional)
            while head.is_older_than(_FRESH, elapsed()):  # the machine may have been suspended before the request
                number = head.number
                if number > self._refresh(head):
                    break
                self._append(head, content, conditional=conditional)

    def _begin(self, head: Head, *, conditional: bool) -> None:
        """Write what the history begins with, unless another process has just done so: it then tells what was there."""
        first = partial(dump, actor=BEGINNING, base=head.number, entries=found_at_beginning(self._present()))
        self._attempt(head, first, conditional=conditional)

    def _append(self, head: Head, content: Callable[[datetime], bytes], *, conditional: bool) -> None:
        for attempt in count(1):
            if self._attempt(head, content, conditional=conditional):
                return
            if attempt % _CONFLICTS == 0:
                self._refresh(head)

    def _attempt(self, head: Head, content: Callable[[datetime], bytes], *, conditional: bool) -> bool:
        """Write a record with the next number, and return whether that was free; if not, go on to the record that has it."""
        writer, number, instant = uuid4().hex, head.number + 1, next_instant(head.instant)
        try:
            self._bucket().put(key_of(number), content(instant), "create" if conditional else "overwrite", writer)
        except Conflict:
            found = self._bucket().get(key_of(number))
            if found is None:
                self._refresh(head)
                return False
            # A request without a response is sent again, and may then conflict with itself.
            if found.writer != writer:
                head.number, head.instant = number, _instant(found.content) or head.instant
                return False
        except StoreError:
            if not conditional:
                head.failed.append(number)  # the request may be carried out later, and then takes this number
                head.number = number
            raise
        head.number, head.instant = number, instant
        return True

    def _refresh(self, head: Head) -> int:
        """Ask for the last record, and return the last number that a pack stands for, or 0."""
        head.asked(elapsed())
        keys = [one.key for one in self._bucket().objects(FOLDER)]
        numbers = sorted((number for key in keys if (number := number_of(key)) is not None), reverse=True)
        packed = max((span[1] for key in keys if (span := pack_numbers(key)) is not None), default=0)
        head.number, head.instant = max([packed, *numbers, *head.failed]), self._instant_of(numbers)
        while head.failed:  # a reader looks for the next record where there is one before it
            self._bucket().put(key_of(head.failed[-1]), _NO_RECORD, "overwrite", uuid4().hex)
            head.failed.pop()
        return packed

    def _instant_of(self, numbers: Iterable[int]) -> datetime | None:
        """Return the instant of the first of some records that can be read."""
        for number in numbers:
            found = self._bucket().get(key_of(number))
            if found is not None and (instant := _instant(found.content)) is not None:
                return instant
        return None


def _instant(content: bytes) -> datetime | None:
    try:
        return instant_of(content)
    except ValueError:
        return None
