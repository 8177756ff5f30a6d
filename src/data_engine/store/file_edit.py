"""Change the bars of one file: `FileEdit`, and what that does to it, `WriteResult`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pyarrow as pa

from data_engine.cpu import CPU_SLOTS
from data_engine.market.bar_parquet import to_parquet
from data_engine.market.bars import NO_CHANGES, Changes, from_micros, timestamps_us
from data_engine.store.file_count import FileCount, Fingerprint
from data_engine.store.history.bar_undo import bars_undo
from data_engine.store.history.undo import Edited


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write did to one file, or to several.

    Attributes:
        rows: The bars now in the file.
        changes: How they differ from those before.
        lacking: The stored bars of the answered range that the response lacks and that are in the file now.
        count: What is in the file now. None for several files.
        folded: The rows of a DataFrame whose symbol and timestamp a later row of it repeated; they were not written.
    """

    rows: int = 0
    changes: Changes = NO_CHANGES
    lacking: int = field(default=0, compare=False)
    count: FileCount | None = field(default=None, compare=False)
    folded: int = 0

    def __add__(self, other: WriteResult) -> WriteResult:
        return WriteResult(self.rows + other.rows, self.changes + other.changes, folded=self.folded + other.folded)


def count_table(table: pa.Table, content: bytes | None = None) -> FileCount:
    """Return what a file with these sorted bars holds, with the fingerprint of its content if that is given."""
    times = timestamps_us(table)
    if not times.size:
        return FileCount(0)
    mark = Fingerprint.of(content) if content else None
    return FileCount(table.num_rows, from_micros(int(times[0])), from_micros(int(times[-1])), mark)


class FileEdit:
    """A change of the bars of one file.

    Args:
        key: The key of the file.
        decode: Returns the bars in a content of a file, by its key; none if there is none.
        change: Bars to bars, and what that does to the file.

    Attributes:
        key: The key of the file.
        result: What the change has done the last time.
    """

    def __init__(
        self,
        key: str,
        decode: Callable[[str, bytes | None], pa.Table],
        change: Callable[[pa.Table], tuple[pa.Table, WriteResult]],
    ) -> None:
        self.key = key
        self.result = WriteResult()
        self._decode = decode
        self._change = change

    def rewrite(self, content: bytes | None) -> bytes | None:
        """Return the new content of the file: None if it stays as it is, nothing if it has no bar and is removed.

        Raises:
            DamagedFile: If the content cannot be read.
        """
        stored = self._decode(self.key, content)
        table, result = self._change(stored)
        if not result.changes.written and not result.changes.removed:
            self.result = replace(result, count=count_table(stored, content))
            return None
        with CPU_SLOTS:
            made = to_parquet(table) if table.num_rows else b""
            undo = bars_undo(stored, table) if stored.num_rows else None
        count = count_table(table, made)
        self.result = replace(result, count=count)
        return Edited.of(made, undo, count.fingerprint)
