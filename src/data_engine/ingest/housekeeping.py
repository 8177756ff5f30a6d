"""Remove what killed runs have left in a store, and put old records of its history into packs: `tidy`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from data_engine.errors import StoreError
from data_engine.ingest.worker_pool import RUN_MARKERS
from data_engine.store.file_store import FileStore
from data_engine.store.history.compaction import compact


def tidy(files: FileStore, now: datetime, note: Callable[[str], None], *, bases: int) -> None:
    """Tidy a store, which the caller holds, before a run.

    Args:
        files: The files of the store.
        now: The current instant.
        note: Prints a note. The history is not needed for a run, so a damaged one does not stop it.
        bases: The number of earlier price bases of adjusted series to keep.

    Raises:
        StoreError: If a file cannot be removed.
    """
    files.remove_stale_drafts()
    for key in list(files.list(RUN_MARKERS)):
        files.delete(key)  # of a run that was killed: what its workers still do comes to nothing
    try:
        compact(files, now, bases=bases)
    except StoreError as error:
        note(f"The history of the store was left as it is: {error}")
