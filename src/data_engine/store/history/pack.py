"""Encode and decode a pack: many records of the history of a store in one file, sorted by the files that they are about. Pure.

A pack has a line with a checksum, an index, and blocks. The index has the number, instant and actor of each record, and in which
block each file is. A block is read only if one of its files is asked for. Nothing of a record is lost in a pack.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any

from data_engine.store.history.chain import Link
from data_engine.store.history.pack_block import block, read_block, read_first_block
from data_engine.store.history.record import FOLDER, Entry, Record

_FORMATS = (1, 2)

_HEAD = re.compile(rb"data-engine history pack (\d+) (\d+) ([0-9a-f]{16})")

_NAME = re.compile(rf"{FOLDER}/(\d{{12}})-(\d{{12}})")

_BLOCK = 2 << 20  # bytes before compression; a reader of one file reads all of its block

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def pack_key(first: int, last: int) -> str:
    """Return the path of a pack by the numbers that it stands for."""
    return f"{FOLDER}/{first:012d}-{last:012d}"


def pack_numbers(key: str) -> tuple[int, int] | None:
    """Return the first and the last number that a pack stands for, by its path; None if it is the path of none."""
    match = _NAME.fullmatch(key)
    return None if match is None else (int(match[1]), int(match[2]))


def live_packs(keys: Iterable[str]) -> list[tuple[int, int]]:
    """Return the numbers that the packs stand for, without those that a larger one stands for, too."""
    spans = sorted({span for key in keys if (span := pack_numbers(key)) is not None}, key=lambda span: (span[0], -span[1]))
    found: list[tuple[int, int]] = []
    for first, last in spans:
        if not found or last > found[-1][1]:
            found.append((first, last))
    return found


def pack(records: Sequence[Record]) -> bytes:
    """Return the content of a pack.

    Args:
        records: The records, the earliest first.
    """
    rows = [[one.number, _micros(one.instant), one.actor, one.base] for one in records]
    blocks: list[tuple[bytes, int]] = []
    keys: list[list[Any]] = []
    files: dict[str, list[tuple[int, Entry]]] = {}
    size = 0
    for key, parts in sorted(_by_key(records).items()):
        if size > _BLOCK:
            blocks.append(block(files))
            files, size = {}, 0
        keys.append([key, len(blocks), parts[-1][0]])
        files[key] = parts
        size += sum(100 + len(entry.undo.body) for _, entry in parts)
    if files:
        blocks.append(block(files))
    sizes = [[len(content), opened] for content, opened in blocks]
    packed = zlib.compress(json.dumps([rows, keys, sizes], separators=(",", ":"), ensure_ascii=False).encode(), 6)
    rest = b"".join([packed, *(content for content, _ in blocks)])
    return b"data-engine history pack %d %d %s\n" % (_FORMATS[-1], len(packed), _checksum(rest)) + rest


class Pack:
    """The records of a pack.

    Args:
        content: The content of the file.

    Attributes:
        first: The instant of the first record.
        last: The instant of the last record.
        numbers: The numbers of the records.

    Raises:
        ValueError: If it is incomplete, damaged, or of a newer format.
    """

    def __init__(self, content: bytes) -> None:
        head, _, rest = content.partition(b"\n")
        match = _HEAD.fullmatch(head)
        if match is None:
            raise ValueError("no pack of a history")
        self._format = int(match[1])
        if self._format not in _FORMATS:
            raise ValueError(f"its format is {self._format}, this program knows those up to {_FORMATS[-1]}")
        if _checksum(rest) != match[3]:
            raise ValueError("incomplete or damaged")
        size = int(match[2])
        rows, keys, sizes = json.loads(zlib.decompress(rest[:size]))
        self._records = [(number, _EPOCH + timedelta(microseconds=micros), actor, base) for number, micros, actor, base in rows]
        self._keys = {key: (number, last) for key, number, last in keys}
        self._blocks: list[tuple[bytes, int]] = []
        for length, opened in sizes if self._format > 1 else ((one, 0) for one in sizes):
            self._blocks.append((rest[size : size + length], opened))
            size += length
        self.first, self.last = self._records[0][1], self._records[-1][1]
        self.numbers = frozenset(row[0] for row in self._records)
        self._block = lru_cache(4)(self._read_block)

    @property
    def keys(self) -> Iterable[str]:
        """The files that the records are about."""
        return self._keys

    def changed_after(self, instant: datetime) -> Iterator[str]:
        """Yield the files that a record after an instant is about."""
        return (key for key, (_, last) in self._keys.items() if self._records[last][1] > instant)

    def links(self, key: str) -> tuple[Link, ...]:
        """Return what the records do to a file, the latest first."""
        if key not in self._keys:
            return ()
        rows = self._block(self._keys[key][0]).get(key, ())
        return tuple(Link(*self._records[place], entry) for place, entry in reversed(rows))

    def records(self) -> list[Record]:
        """Return the records, the earliest first."""
        found: list[list[Entry]] = [[] for _ in self._records]
        for number in range(len(self._blocks)):
            for rows in self._read_block(number).values():
                for place, entry in rows:
                    found[place].append(entry)
        return [Record(*row, tuple(entries)) for row, entries in zip(self._records, found, strict=True)]

    def _read_block(self, number: int) -> dict[str, list[tuple[int, Entry]]]:
        content, size = self._blocks[number]
        return read_block(content, size) if self._format > 1 else read_first_block(content)


def _by_key(records: Sequence[Record]) -> dict[str, list[tuple[int, Entry]]]:
    found: dict[str, list[tuple[int, Entry]]] = {}
    for place, record in enumerate(records):
        for entry in record.entries:
            found.setdefault(entry.key, []).append((place, entry))
    return found


def _micros(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _checksum(rest: bytes) -> bytes:
    return sha256(rest).hexdigest()[:16].encode()
