"""Describe how a text gets its earlier content back: edits, each of which keeps the bytes that it takes out. Pure.

They are not compressed: beside those of other files and nights, which are much the same, they take less room than alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

_WORD = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-:.")

_FEW = 16  # lines that differ in place, of which none is looked for elsewhere


def text_edits(old: bytes, new: bytes) -> bytes:
    """Return what makes *new* the text that it was.

    Args:
        old: The earlier text.
        new: The later text.
    """
    made = bytearray()
    copied = 0
    for copy, drop, text in _edits(old.splitlines(keepends=True), new.splitlines(keepends=True)):
        copied += copy
        if drop or text:
            made += b"%d %d %d\n" % (copied, drop, len(text)) + text
            copied = 0
    return bytes(made)


def edited_text(edits: bytes, new: bytes) -> bytes:
    """Return the earlier text.

    Raises:
        ValueError: If the edits are damaged, or of another text.
    """
    parts = []
    at = 0
    while edits:
        head, found, edits = edits.partition(b"\n")
        copy, drop, size = map(int, head.split())
        if not found or min(copy, drop, size) < 0 or at + copy + drop > len(new) or size > len(edits):
            raise ValueError("damaged difference")
        parts += [new[at : at + copy], edits[:size]]
        at += copy + drop
        edits = edits[size:]
    return b"".join([*parts, new[at:]])


def _edits(old: Sequence[bytes], new: Sequence[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Yield how many bytes of the new text stay, how many go, and what comes in their place."""
    if len(old) == len(new) and sum(one != other for one, other in zip(old, new, strict=True)) <= _FEW:
        yield from _in_place(old, new)
        return
    for _, low, high, start, end in SequenceMatcher(None, old, new).get_opcodes():
        if high - low == end - start:
            yield from _in_place(old[low:high], new[start:end])
        else:
            yield from _trimmed(b"".join(old[low:high]), b"".join(new[start:end]))


def _in_place(old: Sequence[bytes], new: Sequence[bytes]) -> Iterator[tuple[int, int, bytes]]:
    for one, other in zip(old, new, strict=True):
        if one == other:
            yield len(other), 0, b""
        else:
            yield from _trimmed(one, other)


def _trimmed(old: bytes, new: bytes) -> tuple[tuple[int, int, bytes], tuple[int, int, bytes]]:
    """Return the edit of whole words between an equal beginning and an equal end, and that end.

    Whole words make the edits of other files and nights more alike than the fewest bytes.
    """
    most = min(len(old), len(new))
    start = _common(old, new, most)
    while start and old[start - 1] in _WORD:
        start -= 1
    end = _common(old[::-1], new[::-1], most - start)
    while end and old[len(old) - end] in _WORD:
        end -= 1
    return (start, len(new) - start - end, old[start : len(old) - end]), (end, 0, b"")


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
