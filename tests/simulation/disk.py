"""A disk below the local file store that knows what is flushed: `ModelDisk`. Every call is a seam.

What was not flushed when the power fails is lost in part, as the seed says. A *journalled* disk keeps changes of names in order,
so that a flush of anything makes all earlier ones durable. A *strict* one keeps each name by itself, unless its folder was
flushed. Content that was not flushed is torn on both.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from data_engine.store.disk import Disk, parent_of
from data_engine.store.local_files import LocalFiles

from .scheduler import Executor, Lock, Mutex, OfProcess, Scheduler

BASE = "/simulated"

_parent_of = lru_cache(maxsize=8192)(parent_of)


@dataclass(eq=False)
class Inode:
    """The content of a file, and how much of it is on the device."""

    content: bytearray
    flushed: bytes | None = None
    lost: bool = False  # a flush failed: what it had to flush is not tried again


Node = Inode | None
"""A file, or a folder."""


@dataclass(frozen=True)
class Change:
    """One change of one name: to a file or folder, or (``gone``) to nothing."""

    path: str
    node: Node
    gone: bool = False

    @property
    def folder(self) -> str:
        return _parent_of(self.path)

    def apply(self, names: dict[str, Node]) -> None:
        if self.gone:
            names.pop(self.path, None)
        else:
            names[self.path] = self.node


@dataclass
class Found:
    """An entry of a listing."""

    name: str
    folder: bool
    st_size: int

    def is_dir(self) -> bool:
        return self.folder

    def stat(self) -> Found:
        return self


class ModelDisk(Disk):
    """A disk in memory.

    Args:
        seed: Of what a power failure leaves, and whether the file system can be flushed as a whole.
        journalled: Whether changes of names are kept in order.
    """

    def __init__(self, seed: object, *, journalled: bool) -> None:
        self.journalled = journalled
        self.flushes_as_a_whole = random.Random(f"system {seed}").random() < 0.5
        self.scheduler: Scheduler | None = None
        self.full_at: int | None = None
        self.fails = 0.0
        self._random = random.Random(f"disk {seed}")
        self._names: dict[str, Node] = {"/": None, BASE: None}
        self._durable: dict[str, Node] = dict(self._names)
        self._pending: list[Change] = []
        self._handles: dict[int, Inode] = {}
        self._next = 3
        self._writes = 0
        self._locks: dict[str, Lock] = {}
        self._systems: dict[int, int] = {}
        self._lost_contents = 0

    def open(self, scheduler: Scheduler, full_at: int | None, fails: float) -> None:
        """Begin a step; no process is left of the last one."""
        self.scheduler, self.full_at, self.fails, self._writes = scheduler, full_at, fails, 0
        self._locks.clear()
        self._handles.clear()

    def files(self) -> dict[str, bytes]:
        """Return all files but locks, by their paths below the store."""
        found = {}
        for path, node in self._names.items():
            if isinstance(node, Inode) and path.startswith(f"{BASE}/") and not path.endswith(".lock"):
                found[path[len(BASE) + 1 :]] = bytes(node.content)
        return found

    def durable(self) -> dict[str, bytes] | None:
        """Return the files that a power failure could leave at most; None if that is what there is."""
        if not self._pending and all(node.flushed == node.content for node in self._names.values() if isinstance(node, Inode)):
            return None
        nodes = ((path, node) for path, node in self._durable.items() if isinstance(node, Inode) and self._reached(path))
        return {path[len(BASE) + 1 :]: bytes(node.flushed or b"") for path, node in nodes if not path.endswith(".lock")}

    # ------------------------------------------------------------------------------------------------------ power and time

    def settle(self) -> None:
        """Flush everything, as a kernel does by itself after a while."""
        for change in self._pending:
            change.apply(self._durable)
        self._pending.clear()
        for node in self._names.values():
            if isinstance(node, Inode) and not node.lost:
                node.flushed = bytes(node.content)

    def fail(self) -> None:
        """Have the power fail: of what was not flushed, a part is there afterwards."""
        pending = self._pending
        if self.journalled:
            kept = pending[: self._random.randint(0, len(pending))]
        else:
            kept = [change for change in pending if self._random.random() < 0.5]
        for change in kept:
            change.apply(self._durable)
        names = {path: node for path, node in self._durable.items() if self._reached(path)}
        for node in names.values():
            if isinstance(node, Inode) and node.flushed != bytes(node.content):
                size = self._random.randint(0, len(node.content))
                node.content = bytearray(node.flushed if node.flushed is not None else node.content[:size])
        self._names, self._durable = names, dict(names)
        self._pending = []

    def _reached(self, path: str) -> bool:
        while path != "/":
            path = _parent_of(path)
            if path not in self._durable or isinstance(self._durable[path], Inode):
                return False
        return True

    # ------------------------------------------------------------------------------------------------------------ the calls

    def _seam(self, path: str = BASE, *, fails: bool = True, changes: bool = False) -> None:
        if self.scheduler is None:
            return
        self.scheduler.seam(changes=changes)
        if self.fails and fails and self.scheduler.current is not None and self._random.random() < self.fails:
            raise self._error(errno.EIO if self._random.random() < 0.7 else errno.ENOSPC, path)

    def _error(self, number: int, path: str) -> OSError:
        return OSError(number, os.strerror(number), path)

    def _change(self, change: Change) -> None:
        change.apply(self._names)
        self._pending.append(change)

    def _file(self, path: str) -> Inode:
        if path not in self._names:
            raise self._error(errno.ENOENT, path)
        node = self._names[path]
        if not isinstance(node, Inode):
            raise self._error(errno.EISDIR, path)
        return node

    def _check_parent(self, path: str) -> None:
        parent = _parent_of(path)
        if parent not in self._names:
            raise self._error(errno.ENOENT, path)
        if isinstance(self._names[parent], Inode):
            raise self._error(errno.ENOTDIR, path)

    def read(self, path: str) -> bytes:
        self._seam()
        return bytes(self._file(path).content)

    def size(self, path: str) -> int:
        self._seam()
        if path not in self._names:
            raise self._error(errno.ENOENT, path)
        node = self._names[path]
        return len(node.content) if isinstance(node, Inode) else 4096

    def scan(self, folder: str) -> list[Any]:
        self._seam()
        if folder not in self._names:
            raise self._error(errno.ENOENT, folder)
        prefix = folder.rstrip("/") + "/"
        found = []
        names = [path for path in self._names if path.startswith(prefix)]  # of many, few are below the folder
        for path in names:
            if "/" not in path[len(prefix) :] and path != "/":
                node = self._names[path]
                size = len(node.content) if isinstance(node, Inode) else 4096
                found.append(Found(path[len(prefix) :], not isinstance(node, Inode), size))
        return found

    def is_file(self, path: str) -> bool:
        return isinstance(self._names.get(path), Inode)

    def is_folder(self, path: str) -> bool:
        return path in self._names and self._names[path] is None

    def free(self, folder: str) -> int:
        return 1 << 40

    def unique(self) -> str:
        return f"{self._random.getrandbits(128):032x}"

    def create(self, path: str) -> int:
        self._seam()
        self._check_parent(path)
        if path in self._names:
            raise self._error(errno.EEXIST, path)
        self._fault(path)
        inode = Inode(bytearray())
        self._change(Change(path, inode))
        self._next += 1
        self._handles[self._next] = inode
        return self._next

    def _fault(self, path: str) -> None:
        self._writes += 1
        if self.full_at is not None and self._writes >= self.full_at:
            raise self._error(errno.ENOSPC, path)

    def write(self, handle: int, content: memoryview) -> int:
        self._seam()
        self._fault(BASE)
        many = len(content) if self._random.random() < 0.8 else self._random.randint(1, len(content))
        self._handles[handle].content += bytes(content[:many])
        return many

    def flush(self, handle: int) -> None:
        inode = self._handles[handle]
        try:
            self._seam(changes=True)
        except OSError:
            inode.lost = True
            raise
        if inode.lost:
            return
        inode.flushed = bytes(inode.content)
        if self.journalled:
            self._flush_names(lambda _: True)

    def close(self, handle: int) -> None:
        self._handles.pop(handle, None)
        self._systems.pop(handle, None)

    def flush_folder(self, folder: str) -> None:
        self._seam(changes=True)
        if folder not in self._names:
            raise self._error(errno.ENOENT, folder)
        self._flush_names(lambda change: self.journalled or change.folder == folder)

    def open_system(self, folder: str, files: int) -> int | None:
        if not self.flushes_as_a_whole:
            return None
        try:
            self._seam()
        except OSError:
            return None  # as the real one: each file is flushed then
        self._next += 1
        self._systems[self._next] = self._lost_contents
        return self._next

    def flush_system(self, handle: int) -> None:
        before = self._systems[handle]
        try:
            self._seam(changes=True)
        except OSError:
            self._lost_contents += 1
            for node in self._names.values():
                if isinstance(node, Inode):
                    node.lost |= node.flushed != bytes(node.content)
            raise
        if self._lost_contents != before:  # reported once to each who had opened the file system before
            self._systems[handle] = self._lost_contents
            raise self._error(errno.EIO, BASE)
        for node in self._names.values():
            if isinstance(node, Inode) and not node.lost:
                node.flushed = bytes(node.content)
        self._flush_names(lambda _: True)

    def together(self, calls: Sequence[Callable[[], None]]) -> None:
        """Make the calls in an order that the seed says, some of them in threads of the world."""
        scheduler, order = self.scheduler, list(calls)
        self._random.shuffle(order)
        if scheduler is None or scheduler.current is None or len(order) < 2 or self._random.random() < 0.7:
            errors = [error for error in map(_error_of, order) if error is not None]
            if errors:
                raise errors[0]
            return
        with Executor(scheduler, 3) as pool:
            futures = [pool.submit(call) for call in order]
        scheduler.wait(lambda: all(future.done() for future in futures))
        for future in futures:
            future.result()

    def _flush_names(self, chosen: Callable[[Change], bool]) -> None:
        left: list[Change] = []
        for change in self._pending:
            if chosen(change):
                change.apply(self._durable)
            else:
                left.append(change)
        self._pending = left

    def make_folder(self, path: str) -> None:
        self._seam()
        if path in self._names:
            raise self._error(errno.EEXIST, path)
        self._check_parent(path)
        self._change(Change(path, None))

    def remove_folder(self, path: str) -> None:
        self._seam()
        if not self.is_folder(path):
            raise self._error(errno.ENOENT, path)
        if any(name.startswith(f"{path}/") for name in self._names):
            raise self._error(errno.ENOTEMPTY, path)
        self._change(Change(path, None, gone=True))

    def unlink(self, path: str) -> None:
        self._seam(changes=True)
        node = self._file(path)
        self._change(Change(path, node, gone=True))

    def replace(self, source: str, target: str) -> None:
        self._seam(changes=True)
        node = self._file(source)
        self._check_parent(target)
        self._change(Change(target, node))
        self._change(Change(source, node, gone=True))

    def mutex(self) -> Any:
        return Mutex(lambda: self.scheduler)

    def acquire(self, path: str, seconds: float) -> Callable[[], None] | None:
        self._seam()
        self._check_parent(path)
        if self.scheduler is None or self.scheduler.current is None:
            return lambda: None
        if path not in self._names:
            self._change(Change(path, Inode(bytearray(), b"")))
        lock = self._locks.setdefault(path, Lock(self.scheduler))
        if not lock.free and not seconds:
            return None
        context = lock.held()
        context.__enter__()
        return lambda: context.__exit__(None, None, None) and None


def _error_of(call: Callable[[], None]) -> Exception | None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - as of a future
        return error
    return None


class DiskFiles(LocalFiles):
    """The local file store on a model of a disk."""

    @property
    def folder(self) -> Path | None:
        return None  # readers would go round the model


class Disks:
    """Where the files of a world are: a model of a disk, opened anew by each process.

    Args:
        seed: Of the disk.
        journalled: Which model.
    """

    location = BASE

    def __init__(self, seed: object, *, journalled: bool) -> None:
        self.disk = ModelDisk(seed, journalled=journalled)

    @property
    def content(self) -> dict[str, bytes]:
        return {path: data for path, data in self.disk.files().items() if not path.startswith("metadata/drafts/")}

    def begin(self, scheduler: Scheduler, full_at: int | None = None, fails: float = 0.0, hours: float = 0.0) -> None:
        """Begin a step: the kernel has flushed what there was some time ago."""
        if hours > 0.01:
            self.disk.settle()
        self.disk.open(scheduler, full_at, fails)

    def at_risk(self) -> dict[str, bytes] | None:
        """Return what a power failure could leave; None if that is all there is."""
        return self.disk.durable()

    def files(self) -> DiskFiles:
        """Return the files, as a process opens them."""
        return DiskFiles(BASE, disk=OfProcess(self.disk, self.disk.scheduler))

    def end(self, *, power_failed: bool) -> None:
        """End a step."""
        if power_failed:
            self.disk.fail()
            self.disk.settle()
