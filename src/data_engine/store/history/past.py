"""Open a store as it was: an instant, a day or the name of a snapshot, and the files of then."""

from __future__ import annotations

from datetime import datetime, timedelta

from data_engine.market.dates import DateLike, parse_end, parse_start
from data_engine.store.file_store import FileStore
from data_engine.store.history.past_files import PastFiles
from data_engine.store.history.snapshot_file import is_snapshot_name, snapshot_of
from data_engine.store.history.store_history import StoreHistory

_TICK = timedelta(microseconds=1)


def past_files(files: FileStore, when: DateLike, *, now: datetime) -> PastFiles:
    """Return the files of a store as they were.

    Args:
        files: The files as they are.
        when: An aware instant, whose changes are included; a day, its end in New York; or the name of a snapshot.
        now: The current instant.

    Raises:
        InputError: If it is none of these, in the future, or before the history of the store begins.
        StoreError: If the history cannot be read.
    """
    instant = past_instant(files, when)
    history = StoreHistory(files)
    history.check_known(instant, now)
    return PastFiles(files, history, instant)


def past_instant(files: FileStore, when: DateLike) -> datetime:
    """Return the instant that a user names: changes until then, and at it, are in the state.

    Raises:
        InputError: If it is no instant, no day and no snapshot.
    """
    if isinstance(when, str) and is_snapshot_name(when):
        return snapshot_of(files, when).instant
    end = parse_end(when)
    return end if parse_start(when) == end else end - _TICK  # a day has two ends, an instant is one


def instant_of_files(files: FileStore, now: datetime) -> datetime:
    """Return the instant by which files are judged: that of files as they were, else *now*."""
    return files.instant if isinstance(files, PastFiles) else now
