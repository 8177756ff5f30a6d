"""Read and write what runs were asked to ingest, one file per run: `RequestedRanges`.

A run writes down what it is asked for before its first request, in one file for all series, flushed once. The coverage of a
series takes its ranges over whenever it is written. What a run leaves behind is taken over by the next one. A file never changes:
its content is replaced by a file of another name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import uuid4

from data_engine.errors import DamagedFile
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, difference, from_iso, iso, union
from data_engine.store.file_store import FileStore

FOLDER = "metadata/wanted"

FORMAT = 1

Ranges = Mapping[Series, tuple[TimeRange, ...]]
"""Requested ranges by series: sorted, disjoint."""


class RequestedRanges:
    """The requested ranges of a store that its coverage may not have yet.

    Args:
        files: The store's files.
    """

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self._by_key: dict[str, Ranges] = {}
        self._ranges: dict[Series, tuple[TimeRange, ...]] = {}

    def refresh(self) -> None:
        """Read the files that are there now. Each is read once, since none ever changes.

        Raises:
            DamagedFile: If one cannot be read; those that can be read count.
        """
        found: dict[str, Ranges] = {}
        damaged: DamagedFile | None = None
        for key in [key for key in self._files.list(FOLDER) if key.endswith(".json")]:
            try:
                ranges = self._by_key.get(key) or self._read(key)
            except DamagedFile as error:
                damaged = damaged or error  # the others count all the same
                continue
            if ranges is not None:
                found[key] = ranges
        self._by_key = found
        self._ranges = _joined(found.values())
        if damaged is not None:
            raise damaged

    def of(self, series: Series) -> tuple[TimeRange, ...]:
        """Return the requested ranges of a series, as of the last `refresh`."""
        return self._ranges.get(series, ())

    def series(self) -> Iterator[Series]:
        """Yield the series with requested ranges, as of the last `refresh`."""
        yield from self._ranges

    def replace(self, ranges: Ranges) -> None:
        """Write the ranges of all runs anew, in one file that is flushed before the old ones go; no range, no file."""
        old = list(self._by_key)
        made = {series: union(pieces) for series, pieces in ranges.items() if pieces}
        if made != self._ranges or len(old) > 1:
            if made:
                key = f"{FOLDER}/{uuid4().hex}.json"
                self._files.update(key, lambda _: dump(made))
                self._by_key = {key: made}
            else:
                self._by_key = {}
            for key in old:
                self._files.delete(key)
            self._ranges = made
        elif old:
            self._files.flush(FOLDER)  # the run that wrote it may have been killed before it was durable

    def add(self, ranges: Ranges) -> None:
        """Write more ranges down."""
        self.refresh()
        self.replace(_joined([self._ranges, ranges]))

    def withdraw(self, series: Series, span: TimeRange) -> None:
        """Take a range of one series out."""
        self.refresh()
        self.replace({**self._ranges, series: difference(self.of(series), (span,))})

    def _read(self, key: str) -> Ranges | None:
        content = self._files.get(key)
        if content is None:
            return None  # its run has ended meanwhile
        try:
            return load(content)
        except ValueError as error:
            raise DamagedFile(
                f"cannot read the requested ranges: {error} in {self._files.location}/{key}; remove that file, and request "
                "with `data-engine ingest` what it was for"
            ) from error


def _joined(parts: Iterable[Ranges]) -> dict[Series, tuple[TimeRange, ...]]:
    joined: dict[Series, tuple[TimeRange, ...]] = {}
    for ranges in parts:
        for series, pieces in ranges.items():
            joined[series] = union((*joined[series], *pieces)) if series in joined else pieces
    return joined


def dump(ranges: Ranges) -> bytes:
    """Write requested ranges as the bytes of a JSON file: series that share ranges are one line."""
    shared: dict[tuple[str, tuple[TimeRange, ...]], list[str]] = {}
    for series, pieces in ranges.items():
        shared.setdefault((series.dataset.name, pieces), []).append(series.symbol)
    rows = [
        json.dumps({"dataset": name, "ranges": [[iso(one.start), iso(one.end)] for one in pieces], "symbols": symbols})
        for (name, pieces), symbols in shared.items()
    ]
    return (f'{{"format": {FORMAT}, "requested": [\n' + ",\n".join(rows) + "\n]}\n").encode()


def load(content: bytes) -> Ranges:
    """Undo `dump`.

    Raises:
        ValueError: If the content is damaged, or of a newer format.
    """
    made: dict[Series, tuple[TimeRange, ...]] = {}
    try:
        fields: dict[str, Any] = json.loads(content)
        if fields["format"] != FORMAT:
            raise ValueError(f"its format is {fields['format']!r}, this program knows {FORMAT}")
        for row in fields["requested"]:
            dataset = Dataset.from_name(row["dataset"])
            pieces = union(TimeRange(from_iso(start), from_iso(end)) for start, end in row["ranges"])
            for symbol in row["symbols"]:
                made[Series(str(symbol), dataset)] = pieces
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it lacks {error}" if isinstance(error, KeyError) else str(error)) from error
    return made
