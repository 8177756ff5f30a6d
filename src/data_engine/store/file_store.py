"""Where files are kept: the seam between the store and a disk, and the disk (`object_files` is a bucket).

A key is a relative path with forward slashes. A reader sees a file whole, as it was before or as it is after a change, or
not at all: `LocalFiles` writes a draft, flushes it to the device and moves it into place. Drafts live in
``metadata/drafts``, on the same file system, and their names never end in ``.parquet``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from data_engine.errors import StoreError

Change = Callable[[bytes | None], bytes | None]
"""Old content (None: no file) to new content (None: leave it; empty: remove the file). It may be called more than once."""


class FileStore(Protocol):
    """What the store needs of the place that keeps its files."""

    @property
    def location(self) -> str:
        """Where the files are, for people."""

    @property
    def folder(self) -> Path | None:
        """The folder on this machine where they are, or None where they are in none."""

    def get(self, key: str) -> bytes | None:
        """Return the content of a file, or None where there is none."""

    def update(self, key: str, change: Change) -> bool:
        """Replace a file by what *change* makes of its content, atomically; return whether anything was written."""

    def delete(self, key: str) -> bool:
        """Remove a file; return whether it was there."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys of all files below the folder *prefix*, sorted; nothing where there is no such folder."""

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield what `list` does, with the sizes in bytes: on a bucket, one request for a thousand of them."""

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the folders right below the folder *prefix*, sorted; none where there is no such folder."""

    def size(self, key: str) -> int | None:
        """Return the size of a file in bytes, or None where there is none."""

    def free_bytes(self) -> int | None:
        """Return how much may still be written, or None where nothing says."""

    def remove_stale_drafts(self) -> int:
        """Remove what killed writers left behind; return how many files."""

    def write_warning(self) -> str | None:
        """Return what whoever is about to write here should know, or None."""

    def lock(self, name: str, *, seconds: float, waiting: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        """Keep other runs away while the context lasts."""


def check_key(key: str) -> str:
    """Return a key as it is.

    Raises:
        StoreError: it is not the name of a file in a store, or would leave it.
    """
    if any(part in ("", ".", "..") or "\\" in part or ":" in part or "\0" in part for part in key.split("/")):
        raise StoreError(f"{key!r} is not the name of a file in a store")
    return key
