"""Write files outside the store whole: through a temporary file beside them."""

from __future__ import annotations

import os
from pathlib import Path

_END = ".part"


def is_draft(path: Path) -> bool:
    """Tell whether a file is one that an interrupted `write_whole` left."""
    return path.name.startswith(".") and path.name.endswith(_END)


def write_whole(path: Path, content: bytes) -> bool:
    """Write a file if its content differs, and return whether it did; a reader sees the old content or the new."""
    try:
        if path.read_bytes() == content:
            return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}{_END}")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    return True
