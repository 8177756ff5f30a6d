"""Read and write snapshots: names for instants, each with the digest of what the store held, ``metadata/snapshots/NAME.json``.

A snapshot keeps no bars: what the store held then is read by its history.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from time import monotonic, sleep
from typing import Any

from data_engine.errors import DamagedFile, InputError, StoreBusy
from data_engine.market.time_range import from_iso, iso
from data_engine.market.wording import and_more
from data_engine.store.file_count import Fingerprint
from data_engine.store.file_store import FileStore
from data_engine.store.history.chain import Link
from data_engine.store.history.record import recorded_folders
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.history.undo import Kind

FOLDER = "metadata/snapshots"

FORMAT = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)

_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # no file of Windows can have such a name

_IN_FLIGHT = timedelta(minutes=10)
"""Rarely does a writer need longer between its record and its move; a request is sent again for at most 90 seconds."""

_PATIENCE = 10.0  # seconds, in which nearly every request of a bucket is answered

_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A name for an instant.

    Attributes:
        name: The name.
        instant: The instant of the last record of the history by then, UTC. All later changes have later instants.
        digest: The digest of all bars that the store held, as `data-engine status --digest` prints it.
        bars: The number of bars.
        series: The number of series with bars.
        by: The version that wrote it.
    """

    name: str
    instant: datetime
    digest: str
    bars: int
    series: int
    by: str

    @classmethod
    def of(cls, name: str, instant: datetime, digest: str, bars: int, series: int) -> Snapshot:
        """Return a snapshot that this version makes."""
        from data_engine.version import written_by

        return cls(name, instant, digest, bars, series, written_by())

    def to_json(self) -> dict[str, Any]:
        """Return the fields of its file, without the format."""
        return {
            "name": self.name,
            "instant": iso(self.instant),
            "digest": self.digest,
            "bars": self.bars,
            "series": self.series,
            "by": self.by,
        }


class Snapshots:
    """The snapshots of a store. Safe between threads and processes.

    Args:
        files: The files of the store.
    """

    def __init__(self, files: FileStore) -> None:
        self._files = files

    def names(self) -> list[str]:
        """Return the names, sorted."""
        names = (key[len(FOLDER) + 1 :] for key in self._files.list(FOLDER))
        return sorted(name[: -len(".json")] for name in names if name.endswith(".json") and is_name(name[: -len(".json")]))

    def all(self) -> list[Snapshot]:
        """Return all snapshots, the earliest first.

        Raises:
            DamagedFile: If one of them cannot be read.
        """
        return sorted((self.read(name) for name in self.names()), key=lambda one: (one.instant, one.name))

    def read(self, name: str) -> Snapshot:
        """Return a snapshot.

        Raises:
            InputError: If there is none of that name.
            DamagedFile: If it cannot be read.
        """
        key = _key(name) if is_name(name) else None
        content = None if key is None else self._files.get(key)
        if content is None:
            known = self.names()
            there = f"the snapshots are {and_more(known, 10)}" if known else "the store has none"
            raise InputError(f"no snapshot {name!r}; {there}")
        try:
            return _load(name, content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedFile(f"cannot read {self._files.location}/{key}: {error}; restore or remove that file") from error

    def check_new(self, name: str) -> None:
        """Check the name of a snapshot to be made.

        Raises:
            InputError: If it cannot be a name, or there is a snapshot of that name, in whatever case.
        """
        if not is_name(name):
            raise InputError(
                f"cannot name a snapshot {name!r}; pass up to 100 letters, digits and . _ -, the first a letter or digit, "
                "that are no date"
            )
        taken = [one for one in self.names() if one.lower() == name.lower()]
        if taken:
            raise InputError(f"cannot create snapshot {name!r}: {taken[0]!r} exists; pass another name")

    def write(self, made: Snapshot) -> None:
        """Write a new snapshot.

        Raises:
            InputError: If there is a snapshot of that name.
            StoreError: If it cannot be written.
        """
        self.check_new(made.name)
        content = json.dumps({"format": FORMAT, **made.to_json()}, indent=1).encode() + b"\n"

        def create(there: bytes | None) -> bytes:
            if there is not None:
                raise InputError(f"cannot create snapshot {made.name!r}: it exists; pass another name")
            return content

        self._files.update(_key(made.name), create)


def is_name(text: str) -> bool:
    """Tell whether a text can be the name of a snapshot: letters, digits and ``. _ -`` that are no date."""
    if not _NAME.fullmatch(text) or _DEVICES.fullmatch(text):
        return False
    for parse in (date.fromisoformat, datetime.fromisoformat):
        with suppress(ValueError):
            parse(text)
            return False
    return True


def refuse_needed(files: FileStore, begins: datetime) -> None:
    """Check that no snapshot needs what is to be dropped.

    Args:
        files: The files of the store.
        begins: The instant from which states can be read afterwards.

    Raises:
        InputError: If one does.
        DamagedFile: If one cannot be read.
    """
    needed = [one.name for one in Snapshots(files).all() if one.instant < begins]
    if needed:
        raise InputError(
            f"cannot drop what snapshots need: {and_more(needed, 10)}, before {iso(begins)}; pass an earlier date, or --force"
        )


def settled_instant(files: FileStore) -> datetime:
    """Return an instant at which the state is that of now, and stays what it is, whatever is written later.

    It is that of the last record, since all later records have later instants. A writer that has made its record and not moved
    its file yet is waited for. On a disk each change of a file excludes the others. In a bucket nothing tells whether a request
    will still be carried out but its age.

    Raises:
        InputError: If the store has no history.
        StoreBusy: If a change in a bucket may still be carried out, whose writer was killed or takes long.
        StoreError: If the history or a file cannot be read.
    """
    deadline = monotonic() + _PATIENCE
    while True:
        history = StoreHistory(files)
        last = _last_instant(files, history)
        pending = _pending(files, history) if files.folder is None else None
        if pending is None:
            break
        if monotonic() >= deadline:
            key, recorded = pending
            raise StoreBusy(
                f"cannot create a snapshot of {files.location}: a change of {key} was recorded at {iso(recorded)} and may still "
                f"be carried out; try again after {iso(recorded + _IN_FLIGHT)}"
            )
        sleep(_PAUSE)
    if files.folder is not None:
        for key in _under_way(files, history, last - _IN_FLIGHT):
            files.update(key, lambda _: None)
    return last


def _last_instant(files: FileStore, history: StoreHistory) -> datetime:
    last = history.last_instant
    if last is None:
        history.check_readable(datetime.now(UTC))
        raise InputError(
            f"cannot create a snapshot of {files.location}: it has no history yet; it has one from its first change by this "
            "version on, such as `data-engine update`"
        )
    return last


def _pending(files: FileStore, history: StoreHistory) -> tuple[str, datetime] | None:
    """Return a file of a bucket that a request may still replace, and when that was recorded; None if there is none.

    A young record is not of such a request if its change has happened, or if the file is not what its writer has read: a write
    is conditional on that.
    """
    since = datetime.now(UTC) - _IN_FLIGHT
    for key in sorted(history.changed_after(since)):
        content = files.get(key)
        present = None if content is None else Fingerprint.of(content)
        happened = {link.number for link in history.chain_of(key, present).links}
        young = (link for link in history.links[key] if link.instant > since and link.entry.undo.kind is not Kind.SEEN)
        for link in young:
            if link.number not in happened and _may_replace(link, present):
                return key, link.instant
    return None


def _may_replace(link: Link, present: Fingerprint | None) -> bool:
    """Tell whether a file is what the writer of a record has read."""
    read = link.entry.before
    return read == present or (read is not None and not read.digest)


def _under_way(files: FileStore, history: StoreHistory, since: datetime) -> list[str]:
    """Return the files that a writer may be about to move: those recorded lately, or not of the size that was recorded."""
    present = {key: size for folder in recorded_folders(files.folders("")) for key, size in files.sizes(folder)}
    newest = {key: links[0] for key, links in history.links.items()}
    return sorted(
        key
        for key, link in newest.items()
        if link.entry.undo.kind is not Kind.SEEN
        and (link.instant >= since or present.get(key) != (link.entry.after.size if link.entry.after else None))
    )


def _key(name: str) -> str:
    return f"{FOLDER}/{name}.json"


def _load(name: str, content: bytes) -> Snapshot:
    fields = json.loads(content)
    if fields["format"] != FORMAT:
        raise ValueError(f"its format is {fields['format']}, this program knows {FORMAT}")
    if fields["name"] != name:
        raise ValueError(f"it names {fields['name']!r}")
    digest, bars, series = str(fields["digest"]), int(fields["bars"]), int(fields["series"])
    return Snapshot(name, from_iso(fields["instant"]), digest, bars, series, str(fields["by"]))
