"""Find and read the Parquet files of other programs, such as ``symbol=AAPL/year=2024/month=1/data_0.parquet``.

That is the layout of the legacy pipeline (DuckDB's ``PARTITION_BY``), and of others. The files are only read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_engine.errors import InputError, MissingFileError
from data_engine.market.bar_grid import check_timestamps, in_future
from data_engine.market.bar_length import lengths_of, midnights, settle
from data_engine.market.bars import (
    TIMESTAMP,
    VALUES,
    Int64s,
    from_micros,
    make_table,
    numbers,
    problems,
    take,
    timestamps_us,
)
from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.symbol import check_symbol
from data_engine.market.time_range import iso
from data_engine.market.wording import and_more
from data_engine.store.partitions import Partition, decode_symbol

_PATH = re.compile(r"symbol=(?P<symbol>[^/]+)/year=\d{1,4}(/month=\d{1,2})?/[^/]+\.parquet")

_LAYOUT = "equities_1min/symbol=AAPL/year=2024/month=1/data_0.parquet"

_MINUTES = Timeframe(1, "Min")

Lengths = frozenset[Timeframe]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to import.

    Attributes:
        path: The path of the file.
        series: The series of its bars, by its path.
        intraday: The timeframe of its bars. If None, that of *series*.
        longer: The timeframe of those that start at midnight in New York. If None, as *intraday*.
    """

    path: Path
    series: Series
    intraday: Timeframe | None = None
    longer: Timeframe | None = None


Problem = tuple[str, str]
"""The path of a file, and why it cannot be imported."""


def find_sources(
    folder: Path | str, *, feed: object = None, adjustment: object = None, fill: bool = False
) -> tuple[list[SourceFile], list[Problem]]:
    """Return the files below a folder that can be imported, by series; and path and message of those that cannot.

    Args:
        folder: The folder of one dataset (``equities_1min``), or of several.
        feed: The feed of the bars. If None, as the dataset's name says.
        adjustment: The adjustment of the bars. If None, as the dataset's name says.
        fill: Whether the bars are for gaps; those of a dataset of fill bars are then taken, too, for the gaps that they filled.

    Raises:
        InputError: If there is no such folder, or no such file below it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MissingFileError(f"cannot import {root}: there is no such folder")
    sources: list[SourceFile] = []
    unusable: list[Problem] = []
    for name, place in _datasets(root):
        dataset = Dataset.from_name(name)
        if dataset.fill and not fill:
            unusable.append((str(place), "its bars fill gaps, from other sources than Alpaca; pass --fill and --source"))
            continue
        dataset = replace(dataset, fill=False)
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
    return sorted(sources, key=_order), unusable


def _order(source: SourceFile) -> tuple[str, str, bool, str]:
    """Return the place of a file: by series; of a folder with both layouts, the bars of data-engine come last, and win."""
    ours = Partition.parse("/".join((source.series.dataset.name, *source.path.parts[-4:]))) or Partition.parse(
        "/".join((source.series.dataset.name, *source.path.parts[-3:]))
    )
    return source.series.dataset.name, source.series.symbol, ours is not None, str(source.path)


def with_timeframes(sources: Sequence[SourceFile], timeframe: object = None) -> tuple[list[SourceFile], list[Problem]]:
    """Return the files with the timeframes of their bars; and path and message of those whose timeframe is unknown.

    The legacy pipeline stores bars of every timeframe in ``equities_1min``: their timestamps say what they are. If they leave
    several timeframes, the other files of the symbol, then those of the dataset, decide. Other datasets are what they are called.

    Args:
        sources: The files, by series.
        timeframe: The timeframe of all bars. If None, as their timestamps say.
    """
    if timeframe is not None:
        given = Timeframe.parse(timeframe)
        return [replace(source, intraday=given, longer=given) for source in sources], []
    known = {source: _lengths(source) for source in sources if source.series.dataset.timeframe == _MINUTES}
    by_symbol: dict[Series, list[SourceFile]] = {}
    by_dataset: dict[Dataset, set[Lengths]] = {}
    for source, lengths in known.items():
        by_symbol.setdefault(source.series, []).append(source)
        by_dataset.setdefault(source.series.dataset, {frozenset((_MINUTES,))}).update(lengths.both())
    pooled = {series: _pooled([known[source] for source in files]) for series, files in by_symbol.items()}
    made: list[SourceFile] = []
    unknown: list[Problem] = []
    for source in sources:
        if source not in known:
            made.append(source)
            continue
        lengths = known[source]
        near = {one for other in by_symbol[source.series] for one in known[other].both()}
        everywhere = by_dataset[source.series.dataset]
        found: list[Timeframe | None] = []
        for mine, together in zip(lengths.both(), pooled[source.series], strict=True):
            one = settle(mine, near) or settle(mine, (together,)) or settle(mine, everywhere)
            if mine and one is None:
                unknown.append((str(source.path), _several(mine, everywhere)))
            found.append(one)
        if not unknown or unknown[-1][0] != str(source.path):
            intraday, longer = found
            made.append(replace(source, intraday=intraday, longer=longer))
    return made, unknown


def _several(mine: Lengths, everywhere: Iterable[Lengths]) -> str:
    """Return why the timeframe of a file is unknown: those that it can have, of the dataset's own if they are among them."""
    near = {timeframe for lengths in everywhere if len(lengths) == 1 for timeframe in lengths} & mine or mine
    names = and_more(map(str, sorted(near, key=lambda timeframe: timeframe.length)), 5)
    return f"its timestamps fit several timeframes: {names}; pass --timeframe"


@dataclass(frozen=True, slots=True)
class _Lengths:
    """The timestamps of one file, and the timeframes that they leave: of midnights in New York, and of others."""

    times: tuple[Int64s, Int64s]
    lengths: tuple[Lengths, Lengths]

    def both(self) -> tuple[Lengths, Lengths]:
        return self.lengths


def _lengths(source: SourceFile) -> _Lengths:
    """Return what the timestamps of a file say; nothing for a file that cannot be read, which `read_source` names."""
    try:
        if not source.path.is_file():  # a named pipe would block
            raise InputError("it is not a regular file")
        with pq.ParquetFile(source.path) as file:
            times = np.unique(_timestamps(file.read(columns=["timestamp"]).column("timestamp").drop_null()))
    except (InputError, OSError, KeyError, pa.ArrowException):
        times = np.empty(0, np.int64)
    consolidated = source.series.dataset.feed in (Feed.SIP, Feed.IEX)  # others trade at midnight, too
    long = midnights(times) if consolidated else np.zeros(times.size, bool)
    parts = (times[~long], times[long])
    return _Lengths(parts, (lengths_of(parts[0]), lengths_of(parts[1])))


def _pooled(files: Iterable[_Lengths]) -> tuple[Lengths, Lengths]:
    """Return the timeframes that the files of one symbol leave together, if each of them leaves several."""
    open_ = [one for one in files if any(len(lengths) > 1 for lengths in one.lengths)]
    kinds = ([one.times[kind] for one in open_ if len(one.lengths[kind]) > 1] for kind in (0, 1))
    intraday, longer = (lengths_of(np.unique(np.concatenate(times))) if times else frozenset() for times in kinds)
    return intraday, longer


def read_pieces(source: SourceFile, now: datetime) -> list[tuple[Series, pa.Table]]:
    """Return the bars of one file by series: days among minutes are a series of their own.

    Raises:
        InputError: As `read_source`, or the bars cannot be of those timeframes.
        ArrowException: If it is no Parquet file.
        OSError: If it cannot be read.
    """
    table = read_source(source, now)
    symbol, dataset = source.series.symbol, source.series.dataset
    intraday = source.intraday or dataset.timeframe
    longer = source.longer or intraday
    long = np.zeros(table.num_rows, bool) if longer == intraday else midnights(timestamps_us(table))
    made = []
    for timeframe, rows in ((intraday, ~long), (longer, long)):
        if rows.any():
            piece = Series(symbol, replace(dataset, timeframe=timeframe))
            bars = table if rows.all() else take(table, rows)
            check_timestamps({symbol: bars}, piece.dataset)
            made.append((piece, bars))
    return made


def read_source(source: SourceFile, now: datetime) -> pa.Table:
    """Return the bars of one file by `BAR_SCHEMA`, sorted.

    Timestamps without a time zone are UTC, as the legacy pipeline writes them; whole numbers become float64. The year and month
    of the path are ignored: DuckDB derives them in the time zone of the machine that wrote the file.

    Args:
        source: The file.
        now: The instant before which all bars start.

    Raises:
        InputError: If columns or values are missing, or bars are invalid.
        ArrowException: If it is no Parquet file.
        OSError: If it cannot be read.
    """
    if not source.path.is_file():  # a named pipe would block
        raise InputError("it is not a regular file")
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
    bars = last_of_each(make_table(times, [_floats(table.column(name), name) for name in VALUES]))
    problem = problems(bars)
    if problem:
        raise InputError(problem)
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


def last_of_each(table: pa.Table) -> pa.Table:
    """Return a table sorted by timestamp, with the last of the rows of each timestamp."""
    times = timestamps_us(table)
    _, last = np.unique(times[::-1], return_index=True)
    return take(table, times.size - 1 - last)
