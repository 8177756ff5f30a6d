"""The files of a store in memory, with a journal: `Files`. Every access is a seam."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sortedcontainers import SortedDict

from data_engine.errors import OF_ONE_FILE, DataEngineError, StoreBusy, StoreError
from data_engine.store.file_store import Change, check_key, no_check
from data_engine.store.history.head import BEGINNING, Actor, Replaced, entries_of, found_at_beginning, next_instant
from data_engine.store.history.record import FOLDER, dump, instant_of, key_of, number_of

from .scheduler import Lock, Scheduler


class Files:
    """A `FileStore` whose changes are atomic, and whose locks are the world's."""

    def __init__(self) -> None:
        self.content: SortedDict[str, bytes] = SortedDict()
        self.journal: list[tuple[str, str, int]] = []
        self.scheduler: Scheduler | None = None
        self.fail_at: int | None = None
        self._writes = 0
        self._locks: dict[str, Lock] = {}

    def begin(self, scheduler: Scheduler, fail_at: int | None = None, fails: float = 0.0, hours: float = 0.0) -> None:
        """Begin a step: locks are free, since no process is left of the last one."""
        self.scheduler, self.fail_at, self._writes = scheduler, fail_at, 0
        self._locks.clear()

    def files(self) -> Files:
        """Return the files, as a process opens them."""
        return self

    def at_risk(self) -> dict[str, bytes] | None:
        """Return None: every change is durable at once."""
        return None

    def end(self, *, power_failed: bool) -> None:
        """End a step."""

    @property
    def location(self) -> str:
        return "/simulated"

    @property
    def folder(self) -> Path | None:
        return None

    def _seam(self, *, changes: bool = False) -> None:
        if self.scheduler is not None:
            self.scheduler.seam(changes=changes)

    def _lock(self, name: str) -> Lock:
        assert self.scheduler is not None
        return self._locks.setdefault(name, Lock(self.scheduler))

    def get(self, key: str) -> bytes | None:
        check_key(key)
        self._seam()
        return self.content.get(key)

    def flush(self, folder: str) -> None:
        """Every change is durable at once."""

    def waiting(self, seconds: float, told: Callable[[], None]) -> Files:
        return self

    def acting(self, actor: str, *, forgets: bool = False) -> Files:
        return self

    def update(self, key: str, change: Change) -> bool:
        check_key(key)
        self._seam()
        with self._lock(key).held():
            content = change(self.content.get(key))
            if content is None:
                return False
            self._seam(changes=True)
            self._fault(key)
            self._record([Replaced(key, self.content.get(key), content)])
            if not content:
                return self._remove(key)
            self.content[key] = bytes(content)
            self.journal.append(("write", key, len(content)))
        return True

    def update_many(
        self, changes: Mapping[str, Change], *, before_move: Callable[[], None] = no_check
    ) -> dict[str, DataEngineError]:
        """Change all without locks, then replace each where it is as it was read."""
        failed: dict[str, DataEngineError] = {}
        left = dict(changes)
        while left:
            made: dict[str, tuple[bytes | None, bytes | None]] = {}
            base = self._last_number()
            for key, change in left.items():
                check_key(key)
                self._seam()
                seen = self.content.get(key)
                try:
                    made[key] = seen, change(seen)
                except OF_ONE_FILE as error:
                    failed[key] = error
            left = {}
            self._record([Replaced(key, seen, content) for key, (seen, content) in made.items() if content is not None], base)
            for key, (seen, content) in made.items():
                if content is None:
                    continue
                with self._lock(key).held():
                    if self.content.get(key) != seen:
                        left[key] = changes[key]
                        continue
                    before_move()
                    self._seam(changes=True)
                    self._fault(key)
                    if content:
                        self.content[key] = bytes(content)
                        self.journal.append(("write", key, len(content)))
                    else:
                        self._remove(key)
        return failed

    def delete(self, key: str) -> bool:
        check_key(key)
        self._seam()
        with self._lock(key).held():
            self._seam(changes=True)
            if key in self.content:
                self._record([Replaced(key, self.content[key], b"")])
            return self._remove(key)

    def _last_number(self) -> int:
        return next((number for key in self._below(f"{FOLDER}/", reverse=True) if (number := number_of(key)) is not None), 0)

    def _record(self, replaced: list[Replaced], base: int | None = None) -> None:
        """Record a commit as the file stores do, before its files are replaced; the seam is that of a killed writer."""
        entries = entries_of(replaced, Actor())
        if not entries:
            return
        number, last = self._last_number(), None
        if number:
            last = instant_of(self.content[key_of(number)])
        else:
            number, last = 1, next_instant(None)
            present = ((key, len(data)) for key, data in self.content.items())
            self.content[key_of(1)] = dump(last, BEGINNING, 0, found_at_beginning(present))
        self.content[key_of(number + 1)] = dump(next_instant(last), "the simulation", number if base is None else base, entries)
        self._seam(changes=True)

    def _remove(self, key: str) -> bool:
        self.journal.append(("remove", key, 0))
        return self.content.pop(key, None) is not None

    def _fault(self, key: str) -> None:
        self._writes += 1
        if self.fail_at is not None and self._writes >= self.fail_at:
            raise StoreError(f"cannot write {key}: the disk is full")

    def list(self, prefix: str) -> Iterator[str]:
        self._seam()
        folder = f"{prefix}/" if prefix else ""
        return self._below(folder)

    def _below(self, start: str, reverse: bool = False) -> Iterator[str]:
        return iter(list(self.content.irange(start, f"{start}\U0010ffff", reverse=reverse)))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        return iter([(key, len(self.content[key])) for key in self.list(prefix)])

    def folders(self, prefix: str) -> Sequence[str]:
        self._seam()
        folder = f"{prefix}/" if prefix else ""
        below = (key[len(folder) :] for key in self._below(folder))
        return sorted({name.split("/")[0] for name in below if "/" in name})

    def size(self, key: str) -> int | None:
        content = self.get(key)
        return None if content is None else len(content)

    def sizes_of(self, keys: Iterable[str]) -> list[int | None]:
        return [self.size(key) for key in keys]

    def free_bytes(self) -> int | None:
        return None

    def remove_stale_drafts(self) -> int:
        self._seam()
        return 0

    def write_warning(self) -> str | None:
        return None

    def check_writable(self) -> None:
        return None

    @contextmanager
    def lock(self, name: str, *, seconds: float, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        lock = self._lock(f"lock {name}")
        self._seam()
        if not lock.free:
            if waiting is not None:
                waiting()
            if not seconds:
                raise StoreBusy("store /simulated is locked by another process")
        with lock.held():
            yield
