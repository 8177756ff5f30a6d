"""Say how many bytes of bars the history of a store keeps of what was just done: `kept_since`."""

from __future__ import annotations

from data_engine.store.file_store import FileStore
from data_engine.store.history.record import FOLDER, number_of
from data_engine.store.history.store_history import records_after


def last_number(files: FileStore) -> int:
    """Return the number of the last record that is in no pack; 0 if there is none."""
    return max((number for key in files.list(FOLDER) if (number := number_of(key)) is not None), default=0)


def kept_since(files: FileStore, number: int, actor: str) -> int:
    """Return how many bytes of old bars the records after one keep that somebody has made.

    Args:
        files: The files of the store.
        number: The number of a record; what `last_number` returned before.
        actor: Who made the records.
    """
    entries = (entry for record in records_after(files, number) if record.actor == actor for entry in record.entries)
    return sum(len(entry.undo.body) for entry in entries if entry.key.startswith("equities_"))
