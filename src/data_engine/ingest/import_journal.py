"""Exchange the legacy files of one month for files of the store, in steps that a killed run can go on with.

The new files lie complete under ``metadata/import`` before the journal is written, and the journal before the first file moves.
From then on the old files leave their places before the new ones enter theirs: a reader may lack a month, and sees no bar twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from data_engine.errors import DamagedFile, StoreError
from data_engine.ingest.import_claim import with_claims
from data_engine.market.bar_parquet import from_parquet, to_parquet
from data_engine.market.bars import merge
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, from_iso, iso
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.file_count import Fingerprint
from data_engine.store.file_store import FileStore
from data_engine.store.legacy_files import JOURNALS
from data_engine.store.partitions import Partition, Period

STAGED = "metadata/import/files"
"""The folder of new files that have not moved into their places."""

ORIGINALS = "metadata/legacy"
"""The folder of old files that have left their places."""

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Leaving:
    """An old file.

    Attributes:
        key: Its place.
        kept_as: The place where it is kept. If None, it is removed.
    """

    key: str
    kept_as: str | None


@dataclass(frozen=True, slots=True)
class Entering:
    """A new file.

    Attributes:
        staged: The place where it lies complete.
        key: The place where it belongs.
        before: The digest of the file that was there when it was made. If None, there was none.
    """

    staged: str
    key: str
    before: str | None


@dataclass(frozen=True, slots=True)
class Exchange:
    """The exchange of the files of one month of a series.

    Attributes:
        journal: The path of its journal.
        leaving: The old files.
        entering: The new files.
        claims: The sessions that the user claims, by series.
    """

    journal: str
    leaving: tuple[Leaving, ...]
    entering: tuple[Entering, ...]
    claims: Mapping[Series, tuple[TimeRange, ...]] = field(default_factory=dict)

    @property
    def partitions(self) -> list[Partition]:
        """The files of the store that it changes."""
        return [made for one in self.entering if (made := Partition.parse(one.key)) is not None]


def carry_out(store: BarStore, exchange: Exchange) -> None:
    """Write the journal, exchange the files, and count the new ones in the coverage."""
    store.files.update(exchange.journal, lambda _: _dump(exchange))
    _exchange(store, exchange)


def go_on(store: BarStore) -> int:
    """Complete the exchanges of a killed run, remove what it left behind, and return how many months they were.

    Raises:
        DamagedFile: If a journal cannot be read.
        StoreError: If the store cannot be written.
    """
    unfinished = list(_unfinished(store.files))
    for exchange in unfinished:
        _exchange(store, exchange)
        forget(store, exchange.journal)
    for key in list(store.files.list(STAGED)):
        store.files.delete(key)  # of a month whose exchange had not begun: its old files are where they were
    return len(unfinished)


def _exchange(store: BarStore, exchange: Exchange) -> None:
    files = store.files
    for part in exchange.partitions:
        # Before the first file moves, so that a killed run does not look like damage.
        store.coverage.update(part.series, partial(Coverage.with_changing, periods=(part.period,)))
    for old in exchange.leaving:
        content = files.get(old.key)
        if content is not None:
            if old.kept_as is not None:
                files.update(old.kept_as, _once(content))
            files.delete(old.key)
    for new in exchange.entering:
        content = files.get(new.staged)
        if content is not None:
            files.update(new.key, partial(_placed, content, new))
    for part in exchange.partitions:
        store.coverage.update(part.series, partial(_counted, store, part.period, exchange.claims.get(part.series, ())))
    # The journal stays until that of the next month replaces it, or `forget`: to follow it again changes nothing.
    for new in exchange.entering:
        files.delete(new.staged)


def forget(store: BarStore, journal: str) -> None:
    """Remove the journal of a series whose exchanges are complete."""
    store.files.delete(journal)


def _counted(store: BarStore, period: Period, claims: Sequence[TimeRange], known: Coverage) -> Coverage:
    """Return the coverage of a series with one file counted anew, and with the sessions that the user claims of it."""
    counted = replace(known.counted(store.count_files(known, (period,))), empty_since=None)
    return with_claims(counted, claims)


def _once(content: bytes) -> Callable[[bytes | None], bytes | None]:
    """Return a change that writes a file unless it is there already."""
    return lambda present: None if present == content else content


def _placed(content: bytes, new: Entering, present: bytes | None) -> bytes | None:
    """Return what the place of a new file is to hold: bars that came there since it was made win over its own."""
    digest = None if present is None else Fingerprint.of(present).digest
    if present == content:
        return None
    if present is None or digest == new.before:
        return content
    try:
        return to_parquet(merge(from_parquet(content), from_parquet(present)).table)
    except ValueError as error:
        raise DamagedFile(f"cannot import into {new.key}: {error}; run `data-engine verify --repair`") from error


def unused_place(files: FileStore, key: str, content: bytes) -> str:
    """Return where an original is kept: below `ORIGINALS`, beside one of an earlier import that differs."""
    for number in range(1, 1_000):
        place = f"{ORIGINALS}/{key}" if number == 1 else f"{ORIGINALS}/{number}/{key}"
        present = files.get(place)
        if present is None or present == content:
            return place
    raise StoreError(f"cannot keep the original of {key}: {ORIGINALS} has 1,000 of them; move that folder away")


def _unfinished(files: FileStore) -> Iterator[Exchange]:
    for key in files.list(JOURNALS):
        content = files.get(key)
        if content is not None:
            yield _load(key, content, files.location)


def _dump(exchange: Exchange) -> bytes:
    fields: dict[str, Any] = {
        "format": _FORMAT,
        "leaving": [[one.key, one.kept_as] for one in exchange.leaving],
        "entering": [[one.staged, one.key, one.before] for one in exchange.entering],
        "claims": [
            [one.dataset.name, one.symbol, [[iso(part.start), iso(part.end)] for part in parts]]
            for one, parts in exchange.claims.items()
        ],
    }
    return (json.dumps(fields, indent=1) + "\n").encode()


def _load(key: str, content: bytes, location: str) -> Exchange:
    with suppress(KeyError, TypeError, ValueError):
        fields = json.loads(content)
        if fields["format"] == _FORMAT:
            leaving = tuple(Leaving(*row) for row in fields["leaving"])
            entering = tuple(Entering(*row) for row in fields["entering"])
            claims = {
                Series(symbol, Dataset.from_name(name)): tuple(TimeRange(from_iso(start), from_iso(end)) for start, end in parts)
                for name, symbol, parts in fields["claims"]
            }
            return Exchange(key, leaving, entering, claims)
    raise DamagedFile(f"cannot go on with an import in place: {location}/{key} cannot be read; restore it from a backup")
