"""Import bars from Parquet files of other programs, such as ``symbol=AAPL/year=2024/month=1/data_0.parquet``.

That is the layout of the legacy pipeline (DuckDB's ``PARTITION_BY``), and of others. No range becomes covered: nothing says that
such files have every bar. So stored bars keep their values, nothing is added to covered ranges, and the files are only read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_engine.errors import DataEngineError, InputError, MissingFileError
from data_engine.market.bar_grid import check_timestamps, in_future
from data_engine.market.bars import (
    EMPTY,
    TIMESTAMP,
    VALUES,
    from_micros,
    make_table,
    numbers,
    problems,
    take,
    timestamps_us,
    to_micros,
)
from data_engine.market.series import Adjustment, Dataset, Feed, Series
from data_engine.market.symbol import check_symbol
from data_engine.market.time_range import iso
from data_engine.store.bar_store import BarStore, split_by_period
from data_engine.store.partitions import decode_symbol

_PATH = re.compile(r"symbol=(?P<symbol>[^/]+)/year=\d{1,4}(/month=\d{1,2})?/[^/]+\.parquet")

_LAYOUT = "equities_1min/symbol=AAPL/year=2024/month=1/data_0.parquet"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to import.

    Attributes:
        path: The path of the file.
        series: The series of its bars, by its path.
    """

    path: Path
    series: Series


@dataclass(slots=True)
class ImportReport:
    """The result of an import, or of a dry run.

    Attributes:
        files: The number of files read.
        bars: The number of bars in them.
        added: The number of bars that the store did not have.
        stored: The number of bars whose timestamps the store had; it keeps its own.
        covered: The number of other bars in covered ranges, where Alpaca has none; they are not added.
        by_series: The number of bars added, by series.
        failed: The path, or series, and the message of each that could not be imported.
    """

    files: int = 0
    bars: int = 0
    added: int = 0
    stored: int = 0
    covered: int = 0
    by_series: dict[Series, int] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)


def find_sources(
    folder: Path | str, *, feed: object = None, adjustment: object = None
) -> tuple[list[SourceFile], list[tuple[str, str]]]:
    """Return the files below a folder that can be imported, by series; and path and message of those that cannot.

    Args:
        folder: The folder of one dataset (``equities_1min``), or of several.
        feed: The feed of the bars. If None, as the dataset's name says.
        adjustment: The adjustment of the bars. If None, as the dataset's name says.

    Raises:
        InputError: If there is no such folder, or no such file below it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MissingFileError(f"cannot import {root}: there is no such folder")
    sources: list[SourceFile] = []
    unusable: list[tuple[str, str]] = []
    for name, place in _datasets(root):
        dataset = Dataset.from_name(name)
        if adjustment is not None:
            dataset = replace(dataset, adjustment=Adjustment.parse(adjustment))
        if feed is not None:
            dataset = replace(dataset, feed=Feed.parse(feed))
        for path in sorted(place.rglob("*.parquet")):
            try:
                symbol = _symbol_of(path.relative_to(place).as_posix())
            except InputError as error:
                unusable.append((str(path), str(error)))
            else:
                sources.append(SourceFile(path, Series(symbol, dataset)))
    if not sources and not unusable:
        raise InputError(f"cannot import {root}: it has no files such as {_LAYOUT}")
    return sorted(sources, key=lambda one: (one.series.dataset.name, one.series.symbol, str(one.path))), unusable


def import_bars(storage: BarStore, sources: Sequence[SourceFile], *, now: datetime, dry_run: bool = False) -> ImportReport:
    """Add the bars of files to a store; of several bars with one timestamp, the last one counts.

    Args:
        storage: The store to add to; the caller has locked it against other runs.
        sources: The files that `find_sources` returned, by series.
        now: The instant before which all bars start.
        dry_run: Whether to read everything and write nothing.

    Raises:
        InputError: If the files are the store's own.
    """
    _check_outside(storage, sources)
    report = ImportReport()
    for series, files in groupby(sources, key=lambda source: source.series):
        table = _last_of_each(pa.concat_tables([EMPTY, *_readable(files, now, report)]))
        report.bars += table.num_rows
        try:
            new = _new_bars(storage, series, table, report)
            if new.num_rows and not dry_run:
                storage.add(series, new)
        except DataEngineError as error:
            report.failed.append((str(series), str(error)))
        else:
            report.added += new.num_rows
            report.by_series[series] = new.num_rows
    return report


def _readable(files: Iterable[SourceFile], now: datetime, report: ImportReport) -> Iterator[pa.Table]:
    """Yield the bars of each file that can be read; the others go to the report."""
    for source in files:
        try:
            table = read_source(source, now)
        except (InputError, OSError, pa.ArrowException) as error:
            report.failed.append((str(source.path), str(error)))
        else:
            report.files += 1
            yield table


def read_source(source: SourceFile, now: datetime) -> pa.Table:
    """Return the bars of one file by `BAR_SCHEMA`, sorted.

    Timestamps without a time zone are UTC, as the legacy pipeline writes them; whole numbers become float64. The year and month
    of the path are ignored: DuckDB derives them in the time zone of the machine that wrote the file.

    Args:
        source: The file.
        now: The instant before which all bars start.

    Raises:
        InputError: If columns or values are missing, or the bars cannot be of that series.
        ArrowException: If it is no Parquet file.
        OSError: If it cannot be read.
    """
    with pq.ParquetFile(source.path) as file:
        names = file.schema_arrow.names
        missing = [name for name in ("timestamp", *VALUES) if name not in names]
        if missing:
            raise InputError(f"column {', '.join(missing)} is missing; the file has {', '.join(names)}")
        table = file.read(columns=["timestamp", *VALUES, *({"symbol"} & set(names))])
    for name in table.column_names:
        if table.column(name).null_count:
            raise InputError(f"{table.column(name).null_count} values of {name} are missing")
    symbol = source.series.symbol
    if "symbol" in names:
        others = set(pc.unique(table.column("symbol")).to_pylist()) - {symbol}
        if others:
            raise InputError(f"the file has bars of {', '.join(sorted(map(str, others)))} in a folder of {symbol}")
    times = _timestamps(table.column("timestamp"))
    bars = _last_of_each(make_table(times, [_floats(table.column(name), name) for name in VALUES]))
    problem = problems(bars)
    if problem:
        raise InputError(problem)
    check_timestamps({symbol: bars}, source.series.dataset)
    late = in_future(timestamps_us(bars), now)
    if late.size:
        raise InputError(f"{iso(from_micros(late[0]))} is in the future")
    return bars


def _datasets(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the datasets in a folder, or the folder itself if it is one."""
    folders = [(place.name, place) for place in sorted(root.iterdir()) if place.is_dir()]
    for name, place in [(root.resolve().name, root), *folders]:
        try:
            Dataset.from_name(name)
        except ValueError:
            continue
        yield name, place


def _symbol_of(path: str) -> str:
    match = _PATH.fullmatch(path)
    if match is None:
        raise InputError("its path is not symbol=.../year=.../month=.../NAME.parquet")
    return check_symbol(decode_symbol(match["symbol"]))


def _check_outside(storage: BarStore, sources: Sequence[SourceFile]) -> None:
    """Raise `InputError` if a file is the store's own."""
    folder = storage.files.folder
    if folder is not None and any(source.path.resolve().is_relative_to(folder.resolve()) for source in sources):
        raise InputError(f"cannot import files of the store {folder} into itself; pass another --base-path")


def _timestamps(column: pa.ChunkedArray) -> Any:
    if not pa.types.is_timestamp(column.type):
        raise InputError(f"timestamp is {column.type}, not a timestamp")
    utc = column.cast(pa.timestamp(column.type.unit, "UTC")) if column.type.tz != "UTC" else column
    try:
        return numbers(utc.cast(TIMESTAMP), np.int64)
    except pa.ArrowInvalid as error:
        raise InputError(f"a timestamp is finer than a microsecond: {error}") from error


def _floats(column: pa.ChunkedArray, name: str) -> Any:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        raise InputError(f"{name} is {column.type}, not a number")
    return numbers(column.cast(pa.float64()))


def _last_of_each(table: pa.Table) -> pa.Table:
    """Return a table sorted by timestamp, with the last of the rows of each timestamp."""
    times = timestamps_us(table)
    _, last = np.unique(times[::-1], return_index=True)
    return take(table, times.size - 1 - last)


def _new_bars(storage: BarStore, series: Series, table: pa.Table, report: ImportReport) -> pa.Table:
    """Return the bars that are neither stored nor in a covered range."""
    times = timestamps_us(table)
    periods = split_by_period(table, series.dataset)
    known = [timestamps_us(storage.read(series, period, ["timestamp"])) for period, _ in periods]
    stored = np.isin(times, np.concatenate([np.empty(0, np.int64), *known]), assume_unique=True)
    covered = np.zeros(times.size, bool)
    for piece in storage.coverage.read(series).covered:
        covered |= (times >= to_micros(piece.start)) & (times < to_micros(piece.end))
    report.stored += int(np.count_nonzero(stored))
    report.covered += int(np.count_nonzero(covered & ~stored))
    return take(table, ~(stored | covered))


def to_json(report: ImportReport, unusable: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
    """Return the fields that ``import --json`` prints.

    Args:
        report: The result of the import.
        unusable: Path and message of the files that `find_sources` did not accept.
    """
    return {
        "files": report.files,
        "bars": report.bars,
        "added": report.added,
        "held": report.stored,
        "covered": report.covered,
        "series": [
            {"dataset": series.dataset.name, "symbol": series.symbol, "added": count}
            for series, count in report.by_series.items()
        ],
        "failed": [{"file": path, "message": message} for path, message in (*unusable, *report.failed)],
    }
