"""Write and remove files outside the store so that what is there survives a power failure in the order in which it was made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from data_engine.store.disk import DISK

_END = ".part"


def is_draft(path: Path) -> bool:
    """Tell whether a file is one that an interrupted `write_whole` left."""
    return path.name.startswith(".") and path.name.endswith(_END)


def write_whole(path: Path, content: bytes) -> bool:
    """Write a file if its content differs, and return whether it did; a reader sees the old content or the new.

    The content is flushed; `flush` makes the name durable.
    """
    try:
        if path.read_bytes() == content:
            return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(path)
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        DISK.flush(file.fileno())
    DISK.replace(str(draft), str(path))
    return True


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{_END}")


def flush(paths: Iterable[Path], top: Path, *, written: bool = False) -> None:
    """Have the names of files survive a power failure, and those of the folders on the way to them.

    Args:
        paths: The files.
        top: The folder that all of them are below; its own name is durable.
        written: Whether the contents are flushed, too.
    """
    files = list(paths)
    if written:
        DISK.together([partial(_flush_content, path) for path in files])
    folders = {parent for path in files for parent in path.parents if parent == top or top in parent.parents}
    DISK.together([partial(DISK.flush_folder, str(folder)) for folder in sorted(folders)])


def _flush_content(path: Path) -> None:
    with path.open("r+b") as file:  # Windows flushes what may be written to
        DISK.flush(file.fileno())


def remove(path: Path) -> None:
    """Remove a file and its draft, or a folder with all that it has; that it is gone survives a power failure."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        _draft_of(path).unlink(missing_ok=True)
        try:
            path.unlink()
        except FileNotFoundError:
            return
    DISK.flush_folder(str(path.parent))


def size_of(path: Path) -> int | None:
    """Return the size of a file in bytes, or None if there is no file."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - called for each file of each symbol
    except (FileNotFoundError, NotADirectoryError):
        return None
