"""Bars that lie in no folder, as DuckDB can look at them: through pyarrow, and through the store's files, each named by its key.

DuckDB cannot open a bucket without an extension. Every file is told to pyarrow with what its key says of it (symbol, year, month,
and so which times it can hold): of those that a query's conditions leave out, nothing is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as fs

from data_engine.market.bars import BAR_SCHEMA, TIMESTAMP
from data_engine.market.series import Dataset
from data_engine.market.time_range import TimeRange
from data_engine.store.partitions import Partition

if TYPE_CHECKING:
    from data_engine.store.bar_store import BarStore
    from data_engine.store.file_store import FileStore


def dataset_of(storage: BarStore, dataset: Dataset, span: TimeRange | None) -> ds.Dataset:
    """Return the bars of a dataset (that start inside *span*). The files are listed now, and read when they are asked for.

    The columns are ``symbol``, those of a file, ``year`` (and ``month``).
    """
    parts = [("symbol", pa.string()), ("year", pa.int32()), *([("month", pa.int32())] if dataset.timeframe.intraday else [])]
    schema = pa.schema([parts[0], *BAR_SCHEMA, *parts[1:]])
    place, kind = fs.PyFileSystem(_Files(storage.files)), ds.ParquetFileFormat()
    fragments = [
        kind.make_fragment(partition.key, place, _told(partition))
        for partition in storage.partitions(dataset)
        if span is None or partition.period.span.intersect(span)
    ]
    made = ds.FileSystemDataset(fragments, schema, kind, place)
    return made if span is None else made.filter(_inside(span))


def _told(partition: Partition) -> ds.Expression:
    """Return what a key says of every bar of its file."""
    period = partition.period
    told = (ds.field("symbol") == partition.series.symbol) & (ds.field("year") == pa.scalar(period.year, pa.int32()))
    if period.month is not None:
        told &= ds.field("month") == pa.scalar(period.month, pa.int32())
    return told & _inside(period.span)


def _inside(span: TimeRange) -> ds.Expression:
    time = ds.field("timestamp")
    return (time >= pa.scalar(span.start, TIMESTAMP)) & (time < pa.scalar(span.end, TIMESTAMP))


def _refuse(*_: object, **__: object) -> NoReturn:
    raise NotImplementedError("bars are looked at through it, and nothing else")


class _Files(fs.FileSystemHandler):  # type: ignore[misc]
    """A store's files for pyarrow. Each is read whole, in one request: they are small."""

    def __init__(self, files: FileStore) -> None:
        self._files = files

    def get_type_name(self) -> str:
        return "data_engine"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[Any]:
        return [fs.FileInfo(path, type=fs.FileType.File) for path in paths]

    def open_input_file(self, path: str) -> pa.NativeFile:
        content = self._files.get(path)
        if content is None:
            raise FileNotFoundError(f"{self._files.location}/{path} was removed meanwhile; ask again")
        return pa.BufferReader(content)

    open_input_stream = open_input_file
    get_file_info_selector = create_dir = delete_dir = delete_dir_contents = delete_file = _refuse
    delete_root_dir_contents = move = copy_file = open_output_stream = open_append_stream = _refuse
