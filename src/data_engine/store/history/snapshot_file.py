"""Read and write snapshots: a name for an instant, with the digest of the bars that the store held."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime

from data_engine.errors import DamagedFile, InputError
from data_engine.market.time_range import from_iso, iso
from data_engine.store.file_store import FileStore

FOLDER = "metadata/snapshots"

_FORMAT = 1

# It begins with a letter, so that it is no date, and is a file name on every system.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

_DEVICES = re.compile(r"(?i)con|prn|aux|nul|com\d|lpt\d")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A name for an instant.

    Attributes:
        name: The name.
        instant: The instant, UTC.
        digest: The digest of all bars (`market.digest.store_digest`).
        series: The number of series with bars.
        bars: The number of bars.
        by: The version of the program that made it.
    """

    name: str
    instant: datetime
    digest: str
    series: int
    bars: int
    by: str


def is_snapshot_name(text: str) -> bool:
    """Tell whether a text can be the name of a snapshot."""
    return _NAME.fullmatch(text) is not None and _DEVICES.fullmatch(text) is None


def key_of(name: str) -> str:
    """Return the path of the file of a snapshot.

    Raises:
        InputError: If the text cannot be a name.
    """
    if not is_snapshot_name(name):
        raise InputError(f"cannot use {name!r} as the name of a snapshot; pass up to 64 letters, digits, - and _, a letter first")
    return f"{FOLDER}/{name}.json"


def write_snapshot(files: FileStore, made: Snapshot) -> None:
    """Write a snapshot.

    Raises:
        InputError: If there is one of that name.
        StoreError: If it cannot be written.
    """
    fields = {"format": _FORMAT, "name": made.name, "instant": iso(made.instant), "digest": made.digest}
    content = json.dumps({**fields, "series": made.series, "bars": made.bars, "by": made.by}, indent=2).encode() + b"\n"
    if not files.update(key_of(made.name), lambda old: content if old is None else None):
        raise InputError(f"cannot create the snapshot {made.name!r}: there is one of that name; pass another name")


def snapshot_of(files: FileStore, name: str) -> Snapshot:
    """Return a snapshot.

    Raises:
        InputError: If there is none of that name.
        DamagedFile: If its file cannot be read.
    """
    key = key_of(name)
    content = files.get(key)
    if content is None:
        names = [one.name for one in snapshots(files)]
        listed = f"the store has {', '.join(names)}" if names else "the store has none; run `data-engine snapshot create`"
        raise InputError(f"no snapshot {name!r}: {listed}")
    try:
        fields = json.loads(content)
        if fields["format"] != _FORMAT:
            raise ValueError(f"its format is {fields['format']!r}, this program knows {_FORMAT}")
        instant = from_iso(fields["instant"])
        return Snapshot(name, instant, str(fields["digest"]), int(fields["series"]), int(fields["bars"]), str(fields["by"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"cannot read the snapshot {name!r}: {error} in {files.location}/{key}; remove that file") from error


def snapshots(files: FileStore) -> list[Snapshot]:
    """Return all snapshots, the earliest first.

    Raises:
        DamagedFile: If the file of one cannot be read.
    """
    names = (key.removeprefix(f"{FOLDER}/").removesuffix(".json") for key in files.list(FOLDER) if key.endswith(".json"))
    return sorted((snapshot_of(files, name) for name in names if is_snapshot_name(name)), key=lambda one: one.instant)
