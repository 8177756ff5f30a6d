"""Check one bar file, by all its content or by its metadata.

The metadata in the footer of a Parquet file has the number of rows, the columns, and the first and last timestamp: enough to
detect most damage.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_engine.errors import StoreError
from data_engine.market.bar_grid import in_future, off_grid
from data_engine.market.bar_parquet import from_parquet
from data_engine.market.bars import BAR_SCHEMA, Int64s, from_micros, numbers, problems, timestamps_us
from data_engine.market.time_range import iso
from data_engine.market.wording import and_more
from data_engine.store.file_count import FileCount, Fingerprint
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import Partition, Period
from data_engine.store.removal_mark import is_mark
from data_engine.verify.findings import Finding

_END = 8192  # bytes: more than a footer has, less than a second read costs

_HASHED = 65_536  # bytes: up to so many, the fingerprint of a file costs less than its footer, and tells more


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """The result of a check of one file.

    Attributes:
        partition: The file.
        finding: What is wrong with it. If None, the file is undamaged.
        rows: The number of bars. If 0, there is none, or it is unknown.
        first: The timestamp of the first bar. If None, it is unknown.
        last: The timestamp of the last bar. If None, it is unknown.
        size: The size in bytes.
        fingerprint: The fingerprint of the content. If None, that was not read.
        times: The timestamps. If None, they were not read, or the file is damaged.
        trades: The number of trades of each bar, for bars of a day or longer. If None, as for *times*.
    """

    partition: Partition
    finding: Finding | None = None
    rows: int = 0
    first: datetime | None = None
    last: datetime | None = None
    size: int = 0
    fingerprint: Fingerprint | None = None
    times: Int64s | None = None
    trades: Any = None


def check_file(files: FileStore, partition: Partition, now: datetime, add: Callable[[pa.Table], None]) -> CheckedFile | None:
    """Check a file by its content, and return the result; None if there is no such file.

    Args:
        files: The files of the store.
        partition: The file.
        now: The current time; no bar may be later.
        add: A function that takes the bars of an undamaged file.
    """
    try:
        data = files.get(partition.key)
    except StoreError as error:
        return CheckedFile(partition, Finding.of_file("file_unreadable", str(error), partition))
    if data is None:
        return None  # removed after the files were listed
    path = f"{files.location}/{partition.key}"
    checked = partial(CheckedFile, partition, size=len(data), fingerprint=Fingerprint.of(data))
    try:
        table = _decode(data)
    except ValueError as error:
        return checked(Finding.of_file("file_damaged", f"{path} is not a bar file: {error}", partition))
    times = timestamps_us(table)
    first, last = (from_micros(times[0]), from_micros(times[-1])) if len(times) else (None, None)
    problem = problems(table) or _misplaced(first, last, partition.period)
    if problem:
        return checked(Finding.of_file("bars_damaged", f"{path}: {problem}", partition), len(times))
    finding = _bad_times(times, partition, now, path)
    if finding is not None:
        return checked(finding, len(times))
    add(table)
    trades = None if partition.series.dataset.timeframe.intraday else numbers(table.column("trade_count"))
    return checked(None, len(times), first, last, times=times, trades=trades)


def check_footer(files: FileStore, partition: Partition, now: datetime, counted: FileCount | None = None) -> CheckedFile | None:
    """Check a file by its metadata, and return the result; None if there is no such file.

    On a local disk only the end with the footer is read, or all of a small file that was counted; elsewhere the whole file.

    Args:
        files: The files of the store.
        partition: The file.
        now: The current time; no bar may be later.
        counted: What the coverage counts: a file with that fingerprint holds it. None if it is to be read from the file.
    """
    key = partition.key
    path = f"{files.location}/{key}"
    expected = None if counted is None or counted.fingerprint is None else counted.fingerprint
    try:
        found = _end_of(files, key, expected.size if expected and expected.size <= _HASHED else 0)
    except (StoreError, OSError) as error:
        text = f"cannot read {path}: {error.strerror or error}" if isinstance(error, OSError) else str(error)
        return CheckedFile(partition, Finding.of_file("file_unreadable", text, partition))
    if found is None:
        return None
    size, end = found
    whole = Fingerprint.of(end) if expected is not None and len(end) == size else None
    if counted is not None and whole is not None and whole == expected:
        return CheckedFile(partition, None, counted.rows, counted.first, counted.last, size, whole)
    try:
        file = pq.ParquetFile(pa.BufferReader(end))
        metadata = file.metadata
        rows, problem = metadata.num_rows, schema_problem(file.schema_arrow)
        first, last = (None, None) if problem else _bounds(metadata)
    except (pa.ArrowException, OSError) as error:
        rows, problem, first, last = 0, _not_parquet(size, error), None, None
    if problem is not None:
        finding: Finding | None = Finding.of_file("file_damaged", f"{path} is not a bar file: {problem}", partition)
    elif rows and first is None:
        finding = None  # a file without statistics tells nothing
    else:
        finding = _bad_bounds(first, last, partition, now, path)
    return CheckedFile(partition, finding, rows, first, last, size, whole)


_MOST_NAMES = 12  # that are shown of a file's columns, of which there may be thousands


def schema_problem(schema: pa.Schema) -> str | None:
    """Return how the columns of a file differ from `BAR_SCHEMA`, or None if they do not."""
    if schema.equals(BAR_SCHEMA):
        return None
    missing = [name for name in BAR_SCHEMA.names if name not in schema.names]
    extra = [name for name in schema.names if name not in BAR_SCHEMA.names]
    found = [f"missing columns: {', '.join(missing)}"] if missing else []
    found += [f"unexpected columns: {and_more(extra, _MOST_NAMES)}"] if extra else []
    found += filter(None, (_field_problem(schema, field) for field in BAR_SCHEMA))
    if not found and schema.names != BAR_SCHEMA.names:
        found = [f"unexpected order of columns: {and_more(schema.names, _MOST_NAMES)}"]
    return "; ".join(found) or None


def _field_problem(schema: pa.Schema, field: pa.Field) -> str | None:
    count = schema.names.count(field.name)
    if count != 1:
        return f"{count} columns {field.name}" if count else None
    found = schema.field(field.name)
    if found.type != field.type:
        return f"{field.name} is {found.type}, not {field.type}"
    return f"{field.name} is nullable" if found.nullable else None


def _decode(data: bytes) -> pa.Table:
    try:
        schema = pq.ParquetFile(pa.BufferReader(data)).schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise ValueError(_not_parquet(len(data), error)) from error
    problem = schema_problem(schema)
    if problem is not None:
        raise ValueError(problem)
    return from_parquet(data)


def _not_parquet(size: int, error: Exception) -> str:
    return f"not readable as Parquet: {error}" if size else "the file is empty"


def _misplaced(first: datetime | None, last: datetime | None, period: Period) -> str | None:
    if first is None or last is None:
        return "the file holds no bars"
    return None if first in period and last in period else "the file holds bars of another period"


def _bad_bounds(first: datetime | None, last: datetime | None, partition: Partition, now: datetime, path: str) -> Finding | None:
    """Return what is wrong with the first and last timestamp of a file."""
    misplaced = _misplaced(first, last, partition.period)
    if misplaced is not None:
        return Finding.of_file("bars_damaged", f"{path}: {misplaced}", partition)
    if last is not None and last > now:
        return Finding.of_file("bars_in_future", f"{path} holds a bar in the future: {iso(last)}", partition)
    return None


def _bad_times(times: Int64s, partition: Partition, now: datetime, path: str) -> Finding | None:
    """Return what is wrong with the timestamps of a file."""
    timeframe = partition.series.dataset.timeframe
    off = off_grid(times, timeframe)
    if off.size:
        text = f"{path}: {iso(from_micros(off[0]))} is not the start of a {timeframe} bar ({off.size:,} such bars)"
        return Finding.of_file("bars_off_grid", text, partition)
    late = in_future(times, now)
    if late.size:
        text = f"{path} holds {late.size:,} bars in the future, from {iso(from_micros(late[0]))} on"
        return Finding.of_file("bars_in_future", text, partition)
    return None


def _end_of(files: FileStore, key: str, wanted: int) -> tuple[int, bytes] | None:
    """Return the size of a file, and its end with the whole footer, or all of it; None if there is no file.

    Args:
        files: The files of the store.
        key: The file.
        wanted: So many bytes at least.

    Raises:
        StoreError: If a file in a bucket cannot be read.
        OSError: If a file on a disk cannot be read; a named pipe would block, so only regular files are.
    """
    if files.folder is None:
        content = files.get(key)
        return None if content is None else (len(content), content)
    try:
        with open(f"{files.folder}/{key}", "rb", buffering=0, opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", key)
            size = status.st_size
            if is_mark(key, size):
                return None
            end = _read_from(file, max(0, size - max(_END, wanted)))
            footer = int.from_bytes(end[-8:-4], "little") + 8
            return size, end if footer <= len(end) or len(end) == size else _read_from(file, max(0, size - footer))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_from(file: io.FileIO, place: int) -> bytes:
    file.seek(place)
    return file.read()


def _bounds(metadata: pq.FileMetaData) -> tuple[datetime | None, datetime | None]:
    """Return the first and the last timestamp by the statistics; None for both if those are incomplete."""
    lows, highs = [], []
    for group in range(metadata.num_row_groups):
        bounds = metadata.row_group(group).column(0).statistics
        if bounds is None or not bounds.has_min_max:
            return None, None
        lows.append(bounds.min_raw)  # microseconds; `min` would import pandas
        highs.append(bounds.max_raw)
    return (from_micros(min(lows)), from_micros(max(highs))) if lows else (None, None)
