"""Open a store as it was at an instant, at the end of a day, or at a snapshot."""

from __future__ import annotations

from datetime import datetime, timedelta

from data_engine.errors import InputError
from data_engine.market.dates import DateLike, parse_end, parse_start
from data_engine.store.bar_store import BarStore
from data_engine.store.file_store import FileStore
from data_engine.store.history.past_files import PastFiles
from data_engine.store.history.snapshots import Snapshots, is_name
from data_engine.store.history.store_history import StoreHistory

_TICK = timedelta(microseconds=1)


def stored_on(store: BarStore, when: DateLike | None, *, now: datetime) -> BarStore:
    """Return a store, or, if *when* is given, the store as it was.

    Args:
        store: The store as it is.
        when: As for `past_files`.
        now: The current instant.

    Raises:
        InputError: As `past_files`.
        StoreError: If the history cannot be read.
    """
    return store if when is None else BarStore(past_files(store.files, when, now=now))


def past_files(files: FileStore, when: DateLike, *, now: datetime) -> PastFiles:
    """Return the files of a store as they were.

    Args:
        files: The files as they are.
        when: An aware instant, whose changes are included, a day, its end in New York, or the name of a snapshot.
        now: The current instant.

    Raises:
        InputError: If it is none of these, in the future, or before the history of the store begins.
        StoreError: If the history cannot be read.
    """
    instant = past_instant(when, files)
    history = StoreHistory(files)
    history.check_known(instant, now)
    return PastFiles(files, history, instant)


def past_instant(when: DateLike, files: FileStore) -> datetime:
    """Return the instant that a user names: changes until then, and at it, are in the state.

    Args:
        when: As for `past_files`.
        files: The files of the store, among whose snapshots a name is looked up.

    Raises:
        InputError: If it is no instant, no day and no snapshot.
    """
    if isinstance(when, str) and is_name(when.strip()):
        try:
            return Snapshots(files).read(when.strip()).instant
        except InputError as error:
            raise InputError(f"cannot read the store as of {when!r}: {error}; pass one, or a day such as 2024-01-31") from None
    end = parse_end(when)
    return end if parse_start(when) == end else end - _TICK  # a day has two ends, an instant is one


def instant_of_files(files: FileStore, now: datetime) -> datetime:
    """Return the instant by which files are judged: that of files as they were, else *now*."""
    return files.instant if isinstance(files, PastFiles) else now
