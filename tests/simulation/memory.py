"""Remember what pure functions make of a content: worlds read the same few files again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pyarrow as pa

from data_engine.market.bar_parquet import from_parquet
from data_engine.market.bars import from_micros, timestamps_us
from data_engine.market.time_range import TimeRange
from data_engine.store import bar_store, coverage_file
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import Partition
from data_engine.verify import file_check, series_check, session_checks
from data_engine.verify import verify as verification
from data_engine.verify.file_check import CheckedFile

_checked = lru_cache(maxsize=4096)(file_check._decode)

_covered = lru_cache(maxsize=8192)(coverage_file.load)

_holds_session = lru_cache(maxsize=65536)(session_checks._holds_session)


_sound: dict[tuple[Partition, bytes], CheckedFile] = {}


def _check_file(
    files: FileStore, partition: Partition, now: datetime, add: Callable[[pa.Table | None], None]
) -> CheckedFile | None:
    """Check a content that is in order once, where nobody looks at its bars; but for the time, which goes back with a clock."""
    content = files.get(partition.key)
    known = _sound.get((partition, content)) if content is not None else None
    if known is not None and known.last is not None and known.last <= now:
        add(None)
        return known
    found = file_check.check_file(files, partition, now, add)
    if content is not None and found is not None and found.finding is None:
        if len(_sound) > 8192:
            _sound.clear()
        _sound[partition, content] = found
    return found


@lru_cache(maxsize=8192)
def _decoded(data: bytes) -> tuple[pa.Table, datetime | None, datetime | None]:
    table = from_parquet(data)
    times = timestamps_us(table)
    return (table, from_micros(times[0]), from_micros(times[-1])) if times.size else (table, None, None)


def _from_parquet(
    data: bytes, columns: Sequence[str] | None = None, *, within: TimeRange | None = None, threads: bool = False
) -> pa.Table:
    table, first, last = _decoded(data)
    if within is not None and (first is None or last is None or not (first < within.end and last >= within.start)):
        table = table.slice(0, 0)
    return table if columns is None else table.select(list(columns))


@contextmanager
def remembered() -> Iterator[None]:
    """Decode a content once. Tables do not change, and what is no bar file is refused each time."""
    with (
        mock.patch.object(bar_store, "from_parquet", _from_parquet),
        mock.patch.object(file_check, "from_parquet", _from_parquet),
        mock.patch.object(file_check, "_decode", _checked),
        mock.patch.object(coverage_file, "load", _covered),
        mock.patch.object(session_checks, "_holds_session", _holds_session),
    ):
        yield


class _NoChecks:
    """Checks of prices and sums, which give warnings alone."""

    def __init__(self, *_: object) -> None:
        """Nothing is kept."""

    def add(self, table: pa.Table) -> None:
        """Look at nothing."""

    def findings(self, series: object) -> list[object]:
        return []

    def compare(self, days: pa.Table) -> list[str]:
        return []


def _nothing(*_: object, **__: object) -> None:
    return None


def _none(*_: object, **__: object) -> tuple[()]:
    return ()


def _no_sessions(*_: object, **__: object) -> SimpleNamespace:
    return SimpleNamespace(midnights=np.empty(0, np.int64))


@contextmanager
def inconsistencies_alone() -> Iterator[None]:
    """Have `verify` look for inconsistencies, and leave out what gives warnings."""
    with (
        mock.patch.object(series_check, "PriceChecks", _NoChecks),
        mock.patch.object(series_check, "SessionSums", _NoChecks),
        mock.patch.object(series_check, "check_file", _check_file),
        mock.patch.object(series_check.FileBars, "of", _nothing),
        mock.patch.object(series_check, "measure", _nothing),
        mock.patch.object(series_check, "joined", _no_sessions),
        mock.patch.object(series_check, "sparse_sessions", _none),
        mock.patch.object(series_check, "compare_sessions", _none),
        mock.patch.object(series_check, "compare_days", _none),
        mock.patch.object(verification, "presence", _nothing),
        mock.patch.object(verification, "missing_minutes", _none),
        mock.patch.object(verification, "life_of", _nothing),
    ):
        yield
