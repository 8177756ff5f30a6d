"""Describe how a file gets its earlier content back: `Undo`. Pure.

What is kept is small: of bars the positions of added rows and the old values of the others (`history.bar_undo`), of a text what
was taken out (`history.text_edits`), and of everything else the old content as it was.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import Enum

from data_engine.store.file_count import Fingerprint
from data_engine.store.history.text_edits import text_edits

_WINDOW = 32_768  # zlib refers to so many bytes of a dictionary

_MOST_TEXT = 1 << 20  # of larger files the old content is kept


class Kind(Enum):
    """How an earlier content is kept."""

    ABSENT = "a"
    """There was no file."""
    SEEN = "s"
    """The file was there when the history began: its size is known, and no change."""
    BARS = "b"
    """Positions of added rows, and old rows."""
    EDITS = "e"
    """What was taken out of a text."""
    TEXT = "t"
    """Old bytes between an equal beginning and an equal end, compressed with the new bytes as the dictionary; no longer made."""
    WHOLE = "w"
    """The old content."""
    LOST = "l"
    """The old content is not kept: it could not be read, or was not to be kept."""


@dataclass(frozen=True, slots=True)
class Undo:
    """How a file gets its earlier content back.

    Attributes:
        kind: How it is kept.
        body: What is kept of it.
    """

    kind: Kind
    body: bytes = b""


ABSENT = Undo(Kind.ABSENT)


class Edited(bytes):
    """A new content of a file that knows how it gets its old one back, since whoever made it had both at hand."""

    undo: Undo | None
    mark: Fingerprint | None

    @classmethod
    def of(cls, content: bytes, undo: Undo | None, mark: Fingerprint | None) -> Edited:
        """Return a content with its way back and its fingerprint, as far as they are known."""
        made = cls(content)
        made.undo, made.mark = undo, mark
        return made


def undo_of(old: bytes | None, new: bytes) -> Undo:
    """Return how *new* becomes *old* again.

    Args:
        old: The content that is replaced. If None, there is no file.
        new: The new content; empty if the file is removed.
    """
    if old is None:
        return ABSENT
    made = new.undo if isinstance(new, Edited) else None
    if made is None and new and len(old) <= _MOST_TEXT and old[:4] != b"PAR1":
        made = Undo(Kind.EDITS, text_edits(old, new))
    return made if made is not None and len(made.body) < len(old) else Undo(Kind.WHOLE, old)


def old_text(body: bytes, new: bytes) -> bytes:
    """Return the old content of a text file by a difference of kind `TEXT`.

    Raises:
        ValueError: If the body is damaged.
    """
    try:
        head, rest = body.split(b"\n", 1)
        start, end = map(int, head.split())
        middle = zlib.decompressobj(-15, zdict=new[start : len(new) - end][-_WINDOW:] or b" ").decompress(rest)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"damaged difference: {error}") from error
    return new[:start] + middle + new[len(new) - end :]
