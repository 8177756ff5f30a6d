"""Say how many bytes of bars the history of a store keeps of what was just done: `kept_since`."""

from __future__ import annotations

from contextlib import suppress

from data_engine.store.file_store import FileStore
from data_engine.store.history.record import FOLDER, key_of, load, number_of


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
    kept = 0
    while (content := files.get(key_of(number := number + 1))) is not None:
        with suppress(ValueError):  # of a writer that was killed
            record = load(number, content)
            bodies = (len(entry.undo.body) for entry in record.entries if entry.key.startswith("equities_"))
            kept += sum(bodies) if record.actor == actor else 0
    return kept
