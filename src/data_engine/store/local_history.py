"""Write the records of the history of a folder on this machine: `LocalHistory`.

A record is written before the first of its files moves. Its number is the next one: under the lock of the history, a file of that
name is made where there was none. One that a killed writer left incomplete keeps its number and counts for nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from datetime import datetime
from functools import partial

from data_engine.errors import StoreBusy
from data_engine.store.disk import Disk, reported
from data_engine.store.history.head import BEGINNING, Actor, Head, Replaced, entries_of, found_at_beginning, next_instant
from data_engine.store.history.record import FOLDER, dump, instant_of, key_of, number_of
from data_engine.store.local_drafts import LocalDrafts
from data_engine.store.local_locks import LocalLocks
from data_engine.store.local_names import LocalNames

_LOCK_SECONDS = 600.0  # each holder writes one small file


class LocalHistory:
    """The history of a folder. Safe between threads and processes.

    Args:
        disk: The calls of the operating system.
        names: What makes names durable.
        locks: The locks of the folder.
        drafts: What writes files.
        path: Returns the path of a key.
        present: Yields the keys and sizes of all files whose changes are recorded.
    """

    def __init__(
        self,
        disk: Disk,
        names: LocalNames,
        locks: LocalLocks,
        drafts: LocalDrafts,
        path: Callable[[str], str],
        present: Callable[[], Iterable[tuple[str, int]]],
    ) -> None:
        self._disk = disk
        self._names = names
        self._locks = locks
        self._drafts = drafts
        self._path = path
        self._present = present
        self._actor = Actor()
        self._head = Head(disk.mutex())

    def renew(self) -> None:
        """Free the lock between threads."""
        self._head.mutex = self._disk.mutex()

    def acting(self, actor: Actor) -> LocalHistory:
        """Return the same history for commits of somebody."""
        made = copy(self)
        made._actor = actor
        return made

    def base(self) -> int:
        """Return the number of a record that is there: for who reads files without their locks, and records a commit of them."""
        if not self._head.number:
            with self._held():
                self._head.number, self._head.instant = self._last()
        return self._head.number

    def record(self, replaced: Sequence[Replaced], *, base: int | None = None, flush: bool = True) -> None:
        """Write the record of a commit, before its files move.

        Args:
            replaced: The files.
            base: What `base` returned before the files were read. If None, they are locked.
            flush: Whether the record is flushed; if not, the caller flushes the whole file system.

        Raises:
            StoreError: If it cannot be written.
        """
        entries = entries_of(replaced, self._actor)
        if not entries:
            return
        with self._held():
            number, last = self._last()
            if last is None:  # a killed writer may have left a part of the first one
                content = partial(dump, actor=BEGINNING, base=number, entries=found_at_beginning(self._present()))
                # Flushed in any case: with a later record and without it, what it lists would be refused for ever.
                number, last = number + 1, self._write(number + 1, next_instant(None), content, flush=True)
            content = partial(dump, actor=self._actor.name, base=number if base is None else base, entries=entries)
            self._head.number, self._head.instant = number + 1, self._write(number + 1, next_instant(last), content, flush=flush)

    @contextmanager
    def _held(self) -> Iterator[None]:
        if not self._head.mutex.acquire(timeout=_LOCK_SECONDS):
            raise StoreBusy(f"cannot write to the history of the store: locked by another thread (waited {_LOCK_SECONDS:g} s)")
        try:
            with self._locks.named("history", _LOCK_SECONDS):
                yield
        finally:
            self._head.mutex.release()

    def _write(self, number: int, instant: datetime, content: Callable[[datetime], bytes], *, flush: bool) -> datetime:
        path = self._path(key_of(number))
        with reported("write", path):
            try:
                self._drafts.write(path, content(instant), flush=flush)
            except BaseException:
                self._drafts.discard([path])  # a full disk has room for the records of others
                raise
            if flush:
                self._names.flush_name(path)
        return instant

    def _last(self) -> tuple[int, datetime | None]:
        """Return the highest number of a record, or 0, and the instant of the last one that is complete."""
        head = self._head
        is_there = [self._disk.is_file(self._path(key_of(number))) for number in (head.number, head.number + 1)]
        if is_there == [True, False]:  # no other process has written one since
            return head.number, head.instant
        numbers = self._numbers()
        for number in numbers:
            path = self._path(key_of(number))
            with reported("read", path), suppress(ValueError, FileNotFoundError):  # a killed writer had not written all of it
                return numbers[0], instant_of(self._disk.read(path))
        return numbers[0] if numbers else 0, None

    def _numbers(self) -> list[int]:
        folder = self._path(FOLDER)
        with reported("read", folder):
            try:
                names = [entry.name for entry in self._disk.scan(folder)]
            except (FileNotFoundError, NotADirectoryError):
                return []
        found = (number_of(f"{FOLDER}/{name.replace(os.sep, '/')}") for name in names)
        return sorted((number for number in found if number is not None), reverse=True)
