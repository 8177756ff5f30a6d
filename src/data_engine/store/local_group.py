"""Change many files of a folder on this machine as one group: `LocalGroups`. The caller holds the store.

The order is: read and change all of them without a lock; write and flush all new contents, and the record of the commit for the
history of the store; then, under the lock of each file,
compare it with what was read, and move the new content into place; then flush each folder once. So what the caller writes after
that can rely on all of it. A file that somebody else has changed meanwhile is done again, in a commit of its own.

Contents are flushed by many threads, or with one call for the file system where such a call reports errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field

from data_engine.errors import OF_ONE_FILE, DataEngineError
from data_engine.store.commit import Commit, FileChange, fingerprint
from data_engine.store.disk import Disk, reported
from data_engine.store.file_store import Change
from data_engine.store.history.head import Replaced
from data_engine.store.local_drafts import LocalDrafts
from data_engine.store.local_history import LocalHistory
from data_engine.store.local_locks import LocalLocks, stripe_of
from data_engine.store.local_names import LocalNames

_ROUNDS = 3  # of files that others change at the same time: after that each is changed under its lock


@dataclass(slots=True)
class _Group:
    """A group that is being written.

    Attributes:
        before_move: Called under the lock of each file, right before it is moved.
        failed: The errors that concern one file each, by key.
        single: The keys of files that are to be changed one by one, under their locks.
    """

    before_move: Callable[[], None]
    failed: dict[str, DataEngineError] = field(default_factory=dict)
    single: list[str] = field(default_factory=list)


class LocalGroups:
    """Changes groups of files.

    Args:
        disk: The calls of the operating system.
        base: The folder of the store.
        names: What makes names durable.
        locks: The locks of the folder.
        drafts: The temporary files of the folder.
        path: Returns the path of a key.
        read: Returns the content of a file, or None.
        history: What records the commits.
    """

    def __init__(
        self,
        disk: Disk,
        base: str,
        names: LocalNames,
        locks: LocalLocks,
        drafts: LocalDrafts,
        path: Callable[[str], str],
        read: Callable[[str], bytes | None],
        history: LocalHistory,
    ) -> None:
        self._disk = disk
        self._base = base
        self._names = names
        self._locks = locks
        self._drafts = drafts
        self._path = path
        self._read = read
        self._history = history

    def recording(self, history: LocalHistory) -> LocalGroups:
        """Return the same for another recorder."""
        made = copy(self)
        made._history = history
        return made

    def update(
        self, changes: Mapping[str, Change], before_move: Callable[[], None]
    ) -> tuple[dict[str, DataEngineError], dict[str, Change]]:
        """Change files; return the errors that concern one file each, and what is left to be changed one by one.

        Raises:
            StoreError: If the files cannot be written; some of them may have been.
        """
        group = _Group(before_move)
        left = dict(changes)
        for _ in range(_ROUNDS):
            if not left:
                break
            # What is flushed with one call must be opened before the first write: errors are reported from then on.
            system = self._disk.open_system(self._base, len(left))
            try:
                left = {key: changes[key] for key in self._round(group, left, system)}
            finally:
                if system is not None:
                    self._disk.close(system)
        return group.failed, {**left, **{key: changes[key] for key in group.single}}

    def _round(self, group: _Group, changes: Mapping[str, Change], system: int | None) -> list[str]:
        """Write one commit; return the keys of files that others have changed meanwhile."""
        made: list[FileChange] = []
        moved: set[str] = set()
        try:
            self._write(group, changes, made, system)
            commit = Commit(tuple(made))
            conflicts = self._move(group, commit, moved)
            self._flush_names(commit, moved, system)
        finally:
            self._drafts.discard(change.draft for change in made if change.draft is not None and change.draft not in moved)
        return conflicts

    def _write(self, group: _Group, changes: Mapping[str, Change], made: list[FileChange], system: int | None) -> None:
        """Write the new contents, and flush them."""
        writes: list[Callable[[], None]] = []
        replaced: list[Replaced] = []
        base = self._history.base()
        for key, change in changes.items():
            try:
                seen = self._read(key)
                content = change(seen)
            except OF_ONE_FILE as error:
                group.failed[key] = error
                continue
            if content is not None and not content:
                group.single.append(key)  # a removal, which has no new content
                continue
            draft = None if content is None else self._drafts.name(None)
            made.append(FileChange(key, fingerprint(seen), draft))
            if draft is not None and content is not None:
                replaced.append(Replaced(key, seen, content, made[-1].before))
                write = self._writing(key, draft, content, flush=system is None)
                if system is None:
                    writes.append(write)
                else:
                    write()
        if system is None:
            self._disk.together(writes)
        # Before the first file moves, and flushed with the contents where that is one call.
        self._history.record(replaced, base=base, flush=system is None)
        if system is not None and any(change.draft for change in made):
            with reported("write", self._base):
                self._disk.flush_system(system)

    def _writing(self, key: str, draft: str, content: bytes, *, flush: bool) -> Callable[[], None]:
        def write() -> None:
            with reported("write", self._path(key)):
                self._drafts.write(draft, content, flush=flush)

        return write

    def _move(self, group: _Group, commit: Commit, moved: set[str]) -> list[str]:
        """Move the new contents into place where a file still is as it was read; return the keys of the others."""
        conflicts: list[str] = []
        stripes: dict[int, list[tuple[FileChange, str]]] = {}
        for change in commit.changes:
            if change.draft is not None:
                stripes.setdefault(stripe_of(change.key), []).append((change, change.draft))
        for stripe, alike in sorted(stripes.items()):
            try:
                with self._locks.stripe(stripe):
                    for change, draft in alike:
                        if fingerprint(self._read(change.key)) != change.before:
                            conflicts.append(change.key)
                        else:
                            self._move_one(group, change.key, draft, moved)
            except OF_ONE_FILE as error:  # another process keeps the lock
                group.failed.update({change.key: error for change, draft in alike if draft not in moved})
        return conflicts

    def _move_one(self, group: _Group, key: str, draft: str, moved: set[str]) -> None:
        path = self._path(key)
        group.before_move()
        self._names.touch(path)
        try:
            with reported("write", path):
                self._drafts.move(draft, path)
        except OF_ONE_FILE as error:  # a reader has it open
            group.failed[key] = error
        else:
            moved.add(draft)

    def _flush_names(self, commit: Commit, moved: set[str], system: int | None) -> None:
        """Make durable what was moved, and what was seen of the files that stay as they are."""
        written = [self._path(change.key) for change in commit.changes if change.draft in moved]
        kept = [self._path(change.key) for change in commit.changes if change.draft is None and change.before is not None]
        seen = [path for path in kept if not self._names.is_flushed(path, True)]
        if written or seen:
            with reported("write", self._base):
                self._names.flush_together([*written, *seen], system)
        for change in commit.changes:
            if change.draft is None and change.before is None:
                self._names.flush_seen(self._path(change.key), False)
