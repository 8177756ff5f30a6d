"""Describe how a file gets its earlier content back: `Undo`. Pure.

What is kept is small: of bars the positions of added rows and the old values of the others (`history.bar_undo`), of a small text
file its old content compressed against the new one, and of everything else the old content as it was.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import Enum

from data_engine.store.file_count import Fingerprint

_WINDOW = 32_768  # zlib refers to so many bytes of a dictionary

_MOST_TEXT = 1 << 20  # larger files are compressed without a comparison of their lines


class Kind(Enum):
    """How an earlier content is kept."""

    ABSENT = "a"
    """There was no file."""
    SEEN = "s"
    """The file was there when the history began: its size is known, and no change."""
    BARS = "b"
    """Positions of added rows, and old rows."""
    TEXT = "t"
    """Old bytes between an equal beginning and an equal end, compressed with the new bytes as the dictionary."""
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
        made = Undo(Kind.TEXT, _text(old, new))
    return made if made is not None and len(made.body) < len(old) else Undo(Kind.WHOLE, old)


def old_text(body: bytes, new: bytes) -> bytes:
    """Return the old content of a text file.

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


def _text(old: bytes, new: bytes) -> bytes:
    start = _common(old, new, min(len(old), len(new)))
    end = _common(old[start:][::-1], new[start:][::-1], min(len(old), len(new)) - start)
    middle = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=new[start : len(new) - end][-_WINDOW:] or b" ")
    return b"%d %d\n" % (start, end) + middle.compress(old[start : len(old) - end]) + middle.flush()


def _common(left: bytes, right: bytes, most: int) -> int:
    """Return how many bytes two contents have in common at their beginning."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        if left[least:middle] == right[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least
