"""Describe what one group of files is to become: `Commit`. Pure.

A commit is the unit in which a store changes: what was read of each file, and what replaces it, before the first of them moves.
What was read is kept as a fingerprint, so that a file that somebody else has changed meanwhile is recognised and done again, in
a commit of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from data_engine.store.file_count import Fingerprint


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file of a commit.

    Attributes:
        key: The file.
        before: The fingerprint of what was read; None if there was no file.
        draft: Where its new content is; None if the file stays as it was read.
    """

    key: str
    before: Fingerprint | None
    draft: str | None


@dataclass(frozen=True, slots=True)
class Commit:
    """A group of files that change together.

    Attributes:
        changes: The files, each once.
    """

    changes: tuple[FileChange, ...]


def fingerprint(content: bytes | None) -> Fingerprint | None:
    """Return the fingerprint of a file, or None if there is none."""
    return None if content is None else Fingerprint.of(content)
