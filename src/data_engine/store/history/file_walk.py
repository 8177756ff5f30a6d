"""Go back through the changes of a file of bars: `FileWalk`."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from data_engine.errors import StoreError
from data_engine.market.bars import EMPTY, Int64s, timestamps_us
from data_engine.market.time_range import iso
from data_engine.store.bar_store import BarStore
from data_engine.store.history.bar_changes import NONE, ChangedBars
from data_engine.store.history.chain import Chain, Link
from data_engine.store.history.revert import table_before
from data_engine.store.history.undo import Kind, Undo


class FileWalk:
    """The bars of a file, from the present backwards.

    What is kept of nearly all changes tells which bars they are, so that only timestamps are read. Values are read if a change
    kept the old content whole.

    Args:
        store: The store.
        key: The file of bars.
        content: What it is now; None if there is no file.

    Attributes:
        times: The timestamps of its bars before the changes that were gone back through, microseconds since 1970, ascending.

    Raises:
        DamagedFile: If the content cannot be read as bars.
    """

    def __init__(self, store: BarStore, key: str, content: bytes | None) -> None:
        self._store = store
        self._key = key
        self._content = content
        self._table: pa.Table | None = None  # the bars after the steps, if their values were needed
        self._steps: list[Undo] = []
        self.times: Int64s = timestamps_us(store.decode(key, content, ["timestamp"]))

    def back(self, chain: Chain) -> Iterator[tuple[Link, ChangedBars | None]]:
        """Go back through the changes of the file, and yield each with its bars, the latest first.

        The bars are None where the old ones are not kept; that is the last change then.

        Args:
            chain: The history of the file.

        Raises:
            StoreError: If the history is damaged.
        """
        for link in chain.links:
            if link.entry.undo.kind is Kind.LOST:
                self.times = NONE
                yield link, None
                return
            try:
                changed = self._undo(link.entry.undo)
            except ValueError as error:
                raise StoreError(
                    f"cannot read the history of {self._store.files.location}/{self._key} before {iso(link.instant)}: {error}; "
                    "run `data-engine verify`"
                ) from error
            yield link, changed

    def _undo(self, step: Undo) -> ChangedBars:
        if step.kind is Kind.BARS:
            changed, self.times = ChangedBars.undone(step.body, self.times)
            self._steps.append(step)
            return changed
        if step.kind is Kind.ABSENT:
            changed = ChangedBars(self.times, NONE, NONE)
            self._table = EMPTY
        else:
            after = self._values()
            self._table = table_before(after, step)
            changed = ChangedBars.between(self._table, after)
        self._steps.clear()
        self.times = timestamps_us(self._table)
        return changed

    def _values(self) -> pa.Table:
        table = self._store.decode(self._key, self._content) if self._table is None else self._table
        for step in self._steps:
            table = table_before(table, step)
        return table
