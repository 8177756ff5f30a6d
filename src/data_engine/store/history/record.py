"""Encode and decode one record of the history of a store: the files that one commit changes. Pure.

A record is a file that never changes: a line with the instant and a checksum, a line with who made the commit, and, compressed,
a row per file and what is kept of its old content. A record that a killed writer left incomplete fails its checksum, and lacks
the mark at its end, so that it is told from one that was whole and is damaged.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from data_engine.store.file_count import Fingerprint
from data_engine.store.history.undo import Kind, Undo

FOLDER = "metadata/history"

_HEAD = re.compile(rb"data-engine history (\d+) (\d+) ([0-9a-f]{16})")

_FORMATS = (1, 2)  # the second has texts as edits

_WORDS = b"data-engine history "

_END = b"\nend\n"  # after the compressed part, where versions that do not know it look at nothing

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_NAME = re.compile(rf"{FOLDER}/(\d{{12}})")

_RECORDED = ("metadata/coverage/", "metadata/wanted/", "metadata/conflicts/", "metadata/actions/", "metadata/indices/")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a commit does to one file.

    Attributes:
        key: The file.
        before: The fingerprint of the old content; None if there was no file. Of a file that was there when the history began,
            the digest is empty.
        after: The fingerprint of the new content; None if the file is removed.
        undo: How the new content becomes the old one.
    """

    key: str
    before: Fingerprint | None
    after: Fingerprint | None
    undo: Undo


@dataclass(frozen=True, slots=True)
class Record:
    """One commit.

    Attributes:
        number: Its number; numbers rise with time and may have gaps.
        instant: When it was made, UTC; later than that of every record before.
        actor: Who made it.
        base: The number of a record that was there when the writer read the files, so that only later ones can be of changes
            that it did not see.
        entries: The files, each once.
    """

    number: int
    instant: datetime
    actor: str
    base: int
    entries: tuple[Entry, ...]


def is_recorded(key: str) -> bool:
    """Tell whether the history has the changes of a file: bars, coverage, requested ranges, conflicts, actions and lists."""
    return key.startswith(_RECORDED) or (key.startswith("equities_") and key.endswith("/data.parquet"))


def recorded_folders(top: Iterable[str]) -> list[str]:
    """Return the folders of the files whose changes are recorded.

    Args:
        top: The folders right below the store.
    """
    return [*(name for name in top if name.startswith("equities_")), *(folder.rstrip("/") for folder in _RECORDED)]


def key_of(number: int) -> str:
    """Return the path of a record."""
    return f"{FOLDER}/{number:012d}"


def number_of(key: str) -> int | None:
    """Return the number of a record by its path, or None if it is the path of none."""
    match = _NAME.fullmatch(key)
    return None if match is None else int(match[1])


def dump(instant: datetime, actor: str, base: int, entries: Iterable[Entry]) -> bytes:
    """Return the content of a record."""
    rows, bodies = [], []
    for one in entries:
        rows.append([one.key, marks_of(one.before), marks_of(one.after), one.undo.kind.value, len(one.undo.body)])
        bodies.append(one.undo.body)
    table = json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode()
    packed = zlib.compress(b"".join([b"%d\n" % len(table), table, *bodies]), 6)
    rest = json.dumps([actor, base]).encode() + b"\n" + packed + _END
    micros = (instant - _EPOCH) // timedelta(microseconds=1)
    return b"data-engine history %d %d %s\n" % (_FORMATS[-1], micros, _checksum(micros, rest)) + rest


def instant_of(content: bytes) -> datetime:
    """Return the instant of a record.

    Raises:
        ValueError: If it is incomplete, damaged, or of a newer format.
    """
    return _opened(content)[0]


def load(number: int, content: bytes) -> Record:
    """Return the record that `dump` wrote.

    Raises:
        ValueError: If it is incomplete, damaged, or of a newer format.
    """
    instant, rest = _opened(content)
    try:
        writer, packed = rest.split(b"\n", 1)
        actor, base = json.loads(writer)
        length, payload = zlib.decompress(packed).split(b"\n", 1)
        at = int(length)
        entries = []
        for key, before, after, kind, size in json.loads(payload[:at]):
            entries.append(Entry(key, marks_from(before), marks_from(after), Undo(Kind(kind), payload[at : at + size])))
            at += size
        return Record(number, instant, actor, base, tuple(entries))
    except (TypeError, KeyError, zlib.error, RecursionError) as error:
        raise ValueError(f"damaged: {error}") from error


def is_cut_off(content: bytes) -> bool:
    """Tell whether what cannot be read as a record is the first part of one, as a killed writer or a power failure leaves it.

    A record that was whole is damaged instead, and may be of a change that happened; so may be one of a newer format. Of records
    of earlier versions, which have no mark at the end, the compressed part tells.
    """
    head, ended, rest = content.rstrip(b"\0").partition(b"\n")  # a disk may have the size of a file without its content
    if content.endswith(_END):
        return False
    if not ended:
        return _WORDS.startswith(head[: len(_WORDS)]) and re.fullmatch(rb"[0-9a-f ]*", head[len(_WORDS) :]) is not None
    match = _HEAD.fullmatch(head)
    if match is None or int(match[1]) not in _FORMATS:
        return False
    writer, ended, packed = rest.partition(b"\n")
    if not ended:
        return writer.isascii()
    opened = zlib.decompressobj()
    try:
        opened.decompress(packed)
    except zlib.error:
        return False
    missing = _END.removeprefix(opened.unused_data)
    return not opened.eof or _checksum(int(match[2]), rest + missing) == match[3]


def _opened(content: bytes) -> tuple[datetime, bytes]:
    head, _, rest = content.partition(b"\n")
    match = _HEAD.fullmatch(head)
    if match is None:
        raise ValueError("no record of a history")
    if int(match[1]) not in _FORMATS:
        raise ValueError(f"its format is {int(match[1])}, this program knows those up to {_FORMATS[-1]}")
    micros = int(match[2])
    if _checksum(micros, rest) != match[3]:
        raise ValueError("incomplete or damaged")
    return _EPOCH + timedelta(microseconds=micros), rest


def _checksum(micros: int, rest: bytes) -> bytes:
    return sha256(b"%d\n" % micros + rest).hexdigest()[:16].encode()


def marks_of(mark: Fingerprint | None) -> Sequence[int | str] | None:
    """Return a fingerprint as JSON writes it."""
    return None if mark is None else [mark.size, mark.digest]


def marks_from(marks: Sequence[object] | None) -> Fingerprint | None:
    """Return the fingerprint that `marks_of` wrote."""
    if marks is None:
        return None
    size, digest = marks
    return Fingerprint(int(str(size)), str(digest))
