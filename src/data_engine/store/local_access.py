"""Say whether this user may write where a run would, in a folder on this machine: `check_access`. Nothing is changed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from data_engine.errors import StoreError

_NEEDED = ("locks", "drafts", "coverage", "wanted", "conflicts", "actions", "indices", "history", "log", "runs")
"""The folders below ``metadata`` that a run writes to, or makes."""

_LOOKED_AT = 5_000  # folders, the upper ones first: half a second


def check_access(base: Path) -> None:
    """Check that this user may write to the folders of a store, or to what they would be made in.

    Args:
        base: The folder of the store, which need not exist.

    Raises:
        StoreError: If something stands where a folder is due, or a folder or a lock may not be written.
    """
    metadata = base / "metadata"
    for folder in (base, metadata, *(metadata / name for name in _NEEDED)):
        _check_folder(folder, base)
    for folder in islice(_folders(base), _LOOKED_AT):
        _check_folder(folder, base)
    for lock in sorted((metadata / "locks").glob("*.lock")):
        if not os.access(lock, os.R_OK | os.W_OK):
            raise StoreError(f"cannot write to store {base}: the lock {lock} is another user's; check its permissions")


def _check_folder(folder: Path, base: Path) -> None:
    """Raise `StoreError` if a folder cannot be made or written to."""
    # A link that leads nowhere is there, too: no folder can be made in its place.
    found = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not found.is_dir():
        raise StoreError(f"cannot write to store {base}: {found} is no folder; pass another --base-path, or move it away")
    if not os.access(found, os.R_OK | os.W_OK | os.X_OK):
        raise StoreError(f"cannot write to store {base}: {found} is not writable for this user; check its permissions")


def _folders(base: Path) -> Iterator[Path]:
    """Yield the folders of bars and metadata below a store's, the upper ones first."""
    waiting = deque([base])
    while waiting:
        above = waiting.popleft()
        try:
            with os.scandir(above) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):  # a run removes folders that become empty
            continue
        except OSError as error:
            raise StoreError(f"cannot read {above}: {error.strerror or error}") from error
        ours = names if above != base else [name for name in names if name == "metadata" or name.startswith("equities_")]
        yield from (above / name for name in ours)
        waiting.extend(above / name for name in ours)
