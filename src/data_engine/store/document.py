"""A value that one small file holds, such as a series' coverage: read, changed, sealed and written as one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from data_engine.store.file_store import FileStore

_Value = TypeVar("_Value")


def update_document(
    files: FileStore,
    key: str,
    change: Callable[[_Value], _Value],
    *,
    load: Callable[[bytes | None], _Value],
    seal: Callable[[_Value], _Value],
    dump: Callable[[_Value], bytes],
) -> _Value:
    """Replace the value that a file holds by what *change* makes of it; unchanged, nothing is written. Return the new one.

    Args:
        files: among which the file is.
        key: of it.
        change: value to value; it may be called more than once.
        load: content to value; None is no file.
        seal: what is noted of who wrote it, and when, added to a value that is new.
        dump: value to content.
    """
    made: list[_Value] = []

    def rewrite(content: bytes | None) -> bytes | None:
        before = load(content)
        after = change(before)
        made[:] = [after if after == before else seal(after)]
        return None if after == before else dump(made[0])

    files.update(key, rewrite)
    return made[0]
