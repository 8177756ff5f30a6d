"""Present the bars of a bucket to DuckDB as a pyarrow dataset, since DuckDB cannot open a bucket without an extension.

pyarrow gets each file with what its key says of it (symbol, year, month, and so the times of its bars): files that the conditions
of a query exclude are not read.
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


def dataset_of(store: BarStore, dataset: Dataset, span: TimeRange | None) -> ds.Dataset:
    """Return the bars of a dataset, of those that start inside *span* if it is given. Lazy: files are listed now.

    The columns are ``symbol``, those of a file, ``year`` (and ``month``).
    """
    parts = [("symbol", pa.string()), ("year", pa.int32()), *([("month", pa.int32())] if dataset.timeframe.intraday else [])]
    schema = pa.schema([parts[0], *BAR_SCHEMA, *parts[1:]])
    file_system, kind = fs.PyFileSystem(_Files(store.files)), ds.ParquetFileFormat()
    fragments = [
        kind.make_fragment(partition.key, file_system, _true_of(partition))
        for partition in store.partitions(dataset)
        if span is None or partition.period.span.intersect(span)
    ]
    made = ds.FileSystemDataset(fragments, schema, kind, file_system)
    return made if span is None else made.filter(_inside(span))


def _true_of(partition: Partition) -> ds.Expression:
    """Return the condition that every bar of a file meets, by its key."""
    period = partition.period
    condition = (ds.field("symbol") == partition.series.symbol) & (ds.field("year") == pa.scalar(period.year, pa.int32()))
    if period.month is not None:
        condition &= ds.field("month") == pa.scalar(period.month, pa.int32())
    return condition & _inside(period.span)


def _inside(span: TimeRange) -> ds.Expression:
    time = ds.field("timestamp")
    return (time >= pa.scalar(span.start, TIMESTAMP)) & (time < pa.scalar(span.end, TIMESTAMP))


def _refuse(*_: object, **__: object) -> NoReturn:
    raise NotImplementedError("read-only")


class _Files(fs.FileSystemHandler):  # type: ignore[misc]
    """The files of a store for pyarrow. Each is small, and read whole in one request."""

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
            raise FileNotFoundError(f"no file {self._files.location}/{path}: removed since the query began; run it again")
        return pa.BufferReader(content)

    open_input_stream = open_input_file
    get_file_info_selector = create_dir = delete_dir = delete_dir_contents = delete_file = _refuse
    delete_root_dir_contents = move = copy_file = open_output_stream = open_append_stream = _refuse
