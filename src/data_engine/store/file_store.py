"""Define what a store needs of the place of its files: `FileStore`, implemented by `LocalFiles` and `S3Files`.

A key is a relative path with forward slashes. A reader sees a whole file, as it was before or after a change, or none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from data_engine.errors import DataEngineError, StoreError

Change = Callable[[bytes | None], bytes | None]
"""Old content (None: no file) to new content (None: keep the file; empty: remove it). It may be called more than once."""


def no_check() -> None:
    """Allow a file to be replaced."""


class FileStore(Protocol):
    """The files of a store, by key. Safe between threads and processes.

    `store.run_lock` says who may write at the same time.
    """

    @property
    def location(self) -> str:
        """The place of the files, for messages."""

    @property
    def folder(self) -> Path | None:
        """The folder of the files on this machine, or None if they are elsewhere."""

    def get(self, key: str) -> bytes | None:
        """Return the content of a file, or None if there is no file."""

    def flush(self, folder: str) -> None:
        """Have what can be seen of the files right below a folder survive a power failure, whoever wrote or removed them."""

    def update(self, key: str, change: Change) -> bool:
        """Replace a file by what *change* returns for its content, atomically; return whether anything was written."""

    def update_many(
        self, changes: Mapping[str, Change], *, before_move: Callable[[], None] = no_check
    ) -> dict[str, DataEngineError]:
        """Replace many files as `update` does, together; each is replaced atomically, and in any order.

        When this returns, all of them are as durable as after `update`. The caller holds the store (`run_lock.RUN_LOCK`).

        Args:
            changes: The changes by key. Each may be called more than once, in another thread, and without a lock: the file is
                compared with what it was given, and done again if it is another then.
            before_move: Called before each file is replaced, when that can no longer be held up; what it raises ends the call.

        Returns:
            The errors that concern one file each, by key (`errors.OF_ONE_FILE`); the other files are done.
        """

    def delete(self, key: str) -> bool:
        """Remove a file; return whether there was one."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all files below the folder *prefix*, sorted; nothing if there is no such folder."""

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the keys that `list` yields, with the sizes in bytes; a bucket needs one request per thousand."""

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the folders right below the folder *prefix*, sorted; none if there is no such folder."""

    def size(self, key: str) -> int | None:
        """Return the size of a file in bytes, or None if there is no file."""

    def sizes_of(self, keys: Iterable[str]) -> Sequence[int | None]:
        """Return the size of each file in bytes, None where there is no file; of a bucket, in one listing of their folder."""

    def free_bytes(self) -> int | None:
        """Return how many bytes can still be written, or None if that is unknown."""

    def waiting(self, seconds: float, told: Callable[[], None]) -> FileStore:
        """Return these files for a caller that waits for other writers itself, and not for a run.

        Args:
            seconds: The maximum time that a change waits for another writer.
            told: A function to call if a change has waited for a second and goes on waiting.
        """

    def acting(self, actor: str, *, forgets: bool = False) -> FileStore:
        """Return these files for somebody, whom the history of the store names as the one who changed them.

        Args:
            actor: Who, such as ``store`` or ``update of 2024-01-31T02:00:00Z``.
            forgets: Whether the bars that changes take out are not kept by the history.
        """

    def remove_stale_drafts(self) -> int:
        """Remove the temporary files of killed writers; return how many."""

    def write_warning(self) -> str | None:
        """Return a warning for a caller that is about to write, or None."""

    def check_writable(self) -> None:
        """Raise `StoreError` if a run could not write here. Nothing is left behind."""

    def lock(self, name: str, *, seconds: float, waiting: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        """Exclude other runs while the context lasts."""


_NO_KEY = re.compile(r"(?:\A|/)\.{0,2}(?:/|\Z)|[\\:\0]")


def check_key(key: str) -> str:
    """Return a key unchanged.

    Raises:
        StoreError: If it is not the path of a file below the store.
    """
    # A part that begins with a dot may be allowed; the search tells, and takes five times as long.
    usual = not ("/." in key or "//" in key or "\\" in key or ":" in key or "\0" in key or key[:1] in "./" or key[-1:] == "/")
    if not usual and _NO_KEY.search(key):
        raise StoreError(f"cannot use {key!r} as the path of a file in a store")
    return key


_UNUSUAL = ("/.", "//", "\\", ":", "\0", "\n/", "\n.", "/\n", "\n\n")


def check_keys(keys: Iterable[str]) -> Sequence[str]:
    """Return many keys, checked as `check_key` does: in a third of the time where there is nothing unusual in any.

    Raises:
        StoreError: If one is not the path of a file below the store.
    """
    made = tuple(keys)
    text = "\n".join(("", *made, ""))
    return tuple(map(check_key, made)) if any(part in text for part in _UNUSUAL) else made
