"""Bars that other programs left in Parquet files, brought into a store: ``symbol=AAPL/year=2024/month=1/data_0.parquet``.

That is the layout of the reference (DuckDB's ``PARTITION_BY``), and of others. Nothing is claimed as covered: that the bars of
such files are all there are is more than anybody knows. So the store's own bars win, nothing is put into a range that the store
has asked for and covered, and the originals are only read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
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

_BELOW = re.compile(r"symbol=(?P<symbol>[^/]+)/year=\d{1,4}(/month=\d{1,2})?/[^/]+\.parquet")


@dataclass(frozen=True, slots=True)
class Source:
    """One file to be imported.

    Attributes:
        path: of it.
        series: whose bars it holds, by its path.
    """

    path: Path
    series: Series


@dataclass(slots=True)
class Imported:
    """What came of importing, or would come.

    Attributes:
        files: how many were read.
        bars: how many they hold.
        added: bars that the store did not have.
        held: bars that it has already, the same or others; its own stay.
        covered: bars that it does not have in ranges that it covers: the vendor was asked, and has none there.
        by_series: bars added, by series.
        failed: path and message of each file, or series, that could not be imported.
    """

    files: int = 0
    bars: int = 0
    added: int = 0
    held: int = 0
    covered: int = 0
    by_series: dict[Series, int] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)


def find_sources(
    folder: Path | str, *, feed: object = None, adjustment: object = None
) -> tuple[list[Source], list[tuple[str, str]]]:
    """Return the files below a folder that may be imported, by series; and path and message of those that may not.

    Args:
        folder: that holds datasets (``equities_1min``), or is one.
        feed: of the bars; None is what the folder's name says, else the consolidated tape.
        adjustment: of the bars; None is what the folder's name says, else raw.

    Raises:
        InputError: there is no such folder, or nothing in it that could be imported.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MissingFileError(f"{root}: there is no such folder")
    sources: list[Source] = []
    strange: list[tuple[str, str]] = []
    for name, place in _datasets(root):
        dataset = Dataset.from_name(name)
        if feed is not None or adjustment is not None:
            chosen = dataset.adjustment if adjustment is None else Adjustment.parse(adjustment)
            dataset = Dataset(dataset.timeframe, chosen, dataset.feed if feed is None else Feed.parse(feed))
        for path in sorted(place.rglob("*.parquet")):
            match = _BELOW.fullmatch(path.relative_to(place).as_posix())
            try:
                if match is None:
                    raise InputError("its path is not symbol=.../year=.../month=.../NAME.parquet")
                sources.append(Source(path, Series(check_symbol(decode_symbol(match["symbol"])), dataset)))
            except InputError as error:
                strange.append((str(path), str(error)))
    if not sources and not strange:
        raise InputError(f"{root} holds no files like equities_1min/symbol=AAPL/year=2024/month=1/data_0.parquet")
    return sorted(sources, key=lambda one: (one.series.dataset.name, one.series.symbol, str(one.path))), strange


def import_bars(storage: BarStore, sources: Sequence[Source], *, now: datetime, dry_run: bool = False) -> Imported:
    """Bring the bars of some files into a store; where two files have a bar of the same time, the later one in order wins.

    Args:
        storage: where to; the caller holds it against other runs.
        sources: of `find_sources`.
        now: no bar may start later.
        dry_run: read everything, and write nothing.

    Raises:
        InputError: the files are the store's own.
    """
    _refuse_own(storage, sources)
    made = Imported()
    by_series: dict[Series, list[Source]] = {}
    for source in sources:
        by_series.setdefault(source.series, []).append(source)
    for series, ours in by_series.items():
        tables = []
        for source in ours:
            try:
                tables.append(read_source(source, now))
                made.files += 1
            except (InputError, OSError, pa.ArrowException) as error:
                made.failed.append((str(source.path), str(error)))
        table = _last_wins(pa.concat_tables([EMPTY, *tables]))
        made.bars += table.num_rows
        try:
            new = _unknown(storage, series, table, made)
            if new.num_rows and not dry_run:
                storage.add(series, new)
            made.added += new.num_rows
            made.by_series[series] = new.num_rows
        except DataEngineError as error:
            made.failed.append((str(series), str(error)))
    return made


def read_source(source: Source, now: datetime) -> pa.Table:
    """Return the bars of one file by `BAR_SCHEMA`, sorted.

    Stamps without a zone are taken for UTC, as the reference writes them; whole numbers become float64. The year and month of
    the path are not believed: DuckDB makes them in the time zone of whoever wrote the file.

    Args:
        source: the file.
        now: no bar may start later.

    Raises:
        InputError: columns are missing, values are, or its bars cannot be of that series.
        ArrowException: it is no Parquet file. (OSError, where it cannot be read.)
    """
    with pq.ParquetFile(source.path) as file:
        names = file.schema_arrow.names
        lacking = [name for name in ("timestamp", *VALUES) if name not in names]
        if lacking:
            raise InputError(f"it lacks {', '.join(lacking)}; it has {', '.join(names)}")
        table = file.read(columns=["timestamp", *VALUES, *(["symbol"] if "symbol" in names else [])])
    for name in table.column_names:
        if table.column(name).null_count:
            raise InputError(f"{table.column(name).null_count} values of {name} are missing")
    if "symbol" in table.column_names:
        others = set(pc.unique(table.column("symbol")).to_pylist()) - {source.series.symbol}
        if others:
            raise InputError(f"it holds bars of {', '.join(sorted(map(str, others)))} in a folder of {source.series.symbol}")
    times = _stamps(table.column("timestamp"))
    made = _last_wins(make_table(times, [_floats(table.column(name), name) for name in VALUES]))
    trouble = problems(made)
    if trouble:
        raise InputError(trouble)
    check_timestamps({source.series.symbol: made}, source.series.dataset)
    late = in_future(timestamps_us(made), now)
    if late.size:
        raise InputError(f"{iso(from_micros(late[0]))} has not come yet")
    return made


def _datasets(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the datasets in a folder, or the folder itself where it is one."""
    folders = [(place.name, place) for place in sorted(root.iterdir()) if place.is_dir()]
    for name, place in [(root.resolve().name, root), *folders]:
        try:
            Dataset.from_name(name)
        except ValueError:
            continue
        yield name, place


def _refuse_own(storage: BarStore, sources: Sequence[Source]) -> None:
    folder = storage.files.folder
    if folder is not None and any(source.path.resolve().is_relative_to(folder.resolve()) for source in sources):
        raise InputError(f"the files lie in the store {folder} itself; import them into another one, with --base-path")


def _stamps(column: pa.ChunkedArray) -> Any:
    if not pa.types.is_timestamp(column.type):
        raise InputError(f"timestamp is {column.type}")
    naive = column.cast(pa.timestamp(column.type.unit, "UTC")) if column.type.tz != "UTC" else column
    try:
        return numbers(naive.cast(TIMESTAMP), np.int64)
    except pa.ArrowInvalid as error:
        raise InputError(f"a timestamp is finer than a microsecond: {error}") from error


def _floats(column: pa.ChunkedArray, name: str) -> Any:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        raise InputError(f"{name} is {column.type}")
    return numbers(column.cast(pa.float64()))


def _last_wins(table: pa.Table) -> pa.Table:
    """Return a table sorted by time; of several rows of one time, the last."""
    times = timestamps_us(table)
    _, last = np.unique(times[::-1], return_index=True)
    return take(table, times.size - 1 - last)


def _unknown(storage: BarStore, series: Series, table: pa.Table, made: Imported) -> pa.Table:
    """Return the bars that the store neither holds nor knows not to exist."""
    known = storage.coverage.read(series)
    times = timestamps_us(table)
    held = np.zeros(times.size, bool)
    for period, part in split_by_period(table, series.dataset):
        at = int(np.searchsorted(times, timestamps_us(part)[0]))
        held[at : at + part.num_rows] = np.isin(timestamps_us(part), timestamps_us(storage.read(series, period, ["timestamp"])))
    covered = np.zeros(times.size, bool)
    for piece in known.covered:
        covered |= (times >= to_micros(piece.start)) & (times < to_micros(piece.end))
    made.held += int(np.count_nonzero(held))
    made.covered += int(np.count_nonzero(covered & ~held))
    return take(table, ~(held | covered))


def to_json(made: Imported, strange: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
    """Return the fields that ``import --json`` prints."""
    return {
        "files": made.files,
        "bars": made.bars,
        "added": made.added,
        "held": made.held,
        "covered": made.covered,
        "series": [
            {"dataset": series.dataset.name, "symbol": series.symbol, "added": count} for series, count in made.by_series.items()
        ],
        "failed": [{"file": path, "message": message} for path, message in (*strange, *made.failed)],
    }
