"""One file of bars, by itself: what it holds, and why it cannot be believed. Whole, or its end alone.

The end of a Parquet file (its footer) says how many rows there are, which columns, and the first and last stamp: enough to see
most damage, without a page of data being read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_engine.errors import StoreError
from data_engine.market.bar_grid import in_future, off_grid
from data_engine.market.bar_parquet import from_parquet
from data_engine.market.bars import BAR_SCHEMA, Int64s, from_micros, problems, timestamps_us
from data_engine.market.time_range import iso
from data_engine.store.coverage import Fingerprint
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import Partition, Period
from data_engine.verify.findings import Finding


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """What one file shows.

    Attributes:
        partition: which.
        finding: why it cannot be believed, or None.
        rows: bars in it, 0 where that cannot be told.
        first: the earliest; None where that cannot be told.
        last: the latest.
        size: in bytes.
        fingerprint: of its content; None where that was not read.
        times: its stamps; None where they were not read, or cannot be believed.
    """

    partition: Partition
    finding: Finding | None = None
    rows: int = 0
    first: datetime | None = None
    last: datetime | None = None
    size: int = 0
    fingerprint: Fingerprint | None = None
    times: Int64s | None = None


def check_file(files: FileStore, partition: Partition, now: datetime, notice: Callable[[pa.Table], None]) -> CheckedFile | None:
    """Read a whole file; None where there is none.

    Args:
        files: of the store.
        partition: which file.
        now: no bar starts later.
        notice: is given its bars, where they can be believed.
    """
    try:
        data = files.get(partition.key)
    except StoreError as error:
        return CheckedFile(partition, _finding("file_unreadable", str(error), partition))
    if data is None:
        return None  # removed since it was listed
    where = f"{files.location}/{partition.key}"
    mark = Fingerprint.of(data)
    try:
        table = _decoded(data)
    except ValueError as error:
        finding = _finding("file_damaged", f"{where} cannot be read as bars: {error}", partition)
        return CheckedFile(partition, finding, size=len(data), fingerprint=mark)
    times = timestamps_us(table)
    first, last = (from_micros(times[0]), from_micros(times[-1])) if len(times) else (None, None)
    trouble = problems(table) or _misplaced(first, last, partition.period)
    bad = _finding("bars_damaged", f"{where}: {trouble}", partition) if trouble else _off_or_late(times, partition, now, where)
    if bad is not None:
        return CheckedFile(partition, bad, len(times), size=len(data), fingerprint=mark)
    notice(table)
    return CheckedFile(partition, None, len(times), first, last, len(data), mark, times)


def check_footer(files: FileStore, partition: Partition, now: datetime) -> CheckedFile | None:
    """Read the end of a file alone (on a disk of this machine; elsewhere the whole); None where there is no file.

    Args:
        files: of the store.
        partition: which file.
        now: no bar starts later.
    """
    size = files.size(partition.key)
    if size is None:
        return None
    where = f"{files.location}/{partition.key}"
    try:
        with pq.ParquetFile(_source(files, partition.key)) as file:
            trouble = schema_trouble(file.schema_arrow)
            rows, (first, last) = file.metadata.num_rows, (None, None) if trouble else _bounds(file.metadata)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and (error.errno is not None or _is_folder(files, partition.key)):
            text = f"cannot read {where}: {error.strerror or error}"
            return CheckedFile(partition, _finding("file_unreadable", text, partition))
        trouble, rows, first, last = _no_parquet(size, error), 0, None, None
    finding = None
    if trouble is not None:
        finding = _finding("file_damaged", f"{where} cannot be read as bars: {trouble}", partition)
    elif not rows or first is not None:  # without statistics nothing is said
        misplaced = _misplaced(first, last, partition.period)
        if misplaced is not None:
            finding = _finding("bars_damaged", f"{where}: {misplaced}", partition)
        elif last is not None and last > now:
            finding = _finding("bars_in_future", f"{where} holds a bar of {iso(last)}", partition)
    return CheckedFile(partition, finding, rows, first, last, size)


def schema_trouble(schema: pa.Schema) -> str | None:
    """Return how the columns of a file differ from `BAR_SCHEMA`, or None where they do not."""
    lacking = [name for name in BAR_SCHEMA.names if name not in schema.names]
    extra = [name for name in schema.names if name not in BAR_SCHEMA.names]
    words = []
    if lacking:
        words.append(f"it lacks {', '.join(lacking)}")
    if extra:
        words.append(f"it has {', '.join(extra)} beside our columns")
    for field in BAR_SCHEMA:
        if schema.names.count(field.name) > 1:
            words.append(f"it has {field.name} twice")
        elif field.name in schema.names:
            found = schema.field(field.name)
            if found.type != field.type:
                words.append(f"{field.name} is {found.type}, not {field.type}")
            elif found.nullable:
                words.append(f"{field.name} may be null")
    if not words and schema.names != BAR_SCHEMA.names:
        words.append(f"its columns are in the order {', '.join(schema.names)}")
    return "; ".join(words) or None


def _decoded(data: bytes) -> pa.Table:
    try:
        schema = pq.ParquetFile(pa.BufferReader(data)).schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise ValueError(_no_parquet(len(data), error)) from error
    trouble = schema_trouble(schema)
    if trouble is not None:
        raise ValueError(trouble)
    return from_parquet(data)


def _no_parquet(size: int, error: Exception) -> str:
    return "it is empty" if not size else f"not a readable Parquet file: {error}"


def _misplaced(first: datetime | None, last: datetime | None, period: Period) -> str | None:
    if first is None or last is None:
        return "it holds no bar"
    return None if first in period.span and last in period.span else "it holds bars of another period"


def _off_or_late(times: Int64s, partition: Partition, now: datetime, where: str) -> Finding | None:
    timeframe = partition.series.dataset.timeframe
    off = off_grid(times, timeframe)
    if off.size:
        text = f"{where}: {iso(from_micros(off[0]))} is not the start of a {timeframe} bar ({off.size:,} such bars)"
        return _finding("bars_off_grid", text, partition)
    late = in_future(times, now)
    if late.size:
        return _finding("bars_in_future", f"{where} holds {late.size:,} bars from {iso(from_micros(late[0]))} on", partition)
    return None


def _finding(code: str, text: str, partition: Partition) -> Finding:
    return Finding(code, text, partition.series, partition.period, partition.key)


def _source(files: FileStore, key: str) -> Path | pa.BufferReader:
    return pa.BufferReader(files.get(key) or b"") if files.folder is None else files.folder / key


def _is_folder(files: FileStore, key: str) -> bool:
    return files.folder is not None and (files.folder / key).is_dir()


def _bounds(metadata: pq.FileMetaData) -> tuple[datetime | None, datetime | None]:
    """Return the first and the last stamp by the statistics, where they say."""
    lows, highs = [], []
    for group in range(metadata.num_row_groups):
        bounds = metadata.row_group(group).column(0).statistics
        if bounds is None or not bounds.has_min_max:
            return None, None
        lows.append(bounds.min_raw)  # microseconds; `min` would import pandas
        highs.append(bounds.max_raw)
    return (from_micros(min(lows)), from_micros(max(highs))) if lows else (None, None)
