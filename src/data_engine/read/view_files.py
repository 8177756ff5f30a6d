"""Choose the files of a dataset that a view names, one by one, and say which are left out."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from data_engine.market.series import Dataset, Series
from data_engine.market.symbol import symbol_fault
from data_engine.market.wording import plural
from data_engine.store.legacy_files import REMEDY, is_legacy
from data_engine.store.partitions import Partition, decode_symbol

if TYPE_CHECKING:
    from data_engine.market.time_range import TimeRange
    from data_engine.store.bar_store import BarStore


_PERIOD = {
    True: re.compile(r"year=\d{4}/month=(0[1-9]|1[0-2])/data\.parquet"),
    False: re.compile(r"year=\d{4}/data\.parquet"),
}
"""The part of a bar file's key behind its series, of minutes and hours, and of days and longer."""


@dataclass(slots=True)
class ViewFiles:
    """The files of one view.

    Attributes:
        dataset: The dataset.
        keys: The keys of its bar files, sorted.
        left_out: What was left out though it is below the dataset: the key and the reason.
    """

    dataset: Dataset
    keys: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def note(self) -> str | None:
        """Return what was left out, in one line, or None."""
        if not self.left_out:
            return None
        legacy = [key for key, _ in self.left_out if is_legacy(key)]
        if legacy:
            count = plural(len(legacy), "file")
            return f"Warning: {self.dataset.name}: {count} of the legacy pipeline left out, such as {legacy[0]!r}; {REMEDY}"
        key, reason = self.left_out[0]
        count = plural(len(self.left_out), "file")
        return f"Warning: {self.dataset.name}: {count} left out, such as {key!r} ({reason}); run `data-engine verify`"


def view_files(store: BarStore, dataset: Dataset, span: TimeRange | None) -> ViewFiles:
    """Return the bar files of a dataset in a folder; with *span*, those that can have bars in it.

    A file that no bar file can be (a pipe, a device, a folder, a name of another program) is left out.

    Raises:
        StoreError: If a folder cannot be read.
    """
    found = ViewFiles(dataset)
    for key in store.files.list(dataset.name) if span is None else _keys_in(store, dataset, span):
        reason = _unusable(key, dataset, store.files.location)
        if reason is None:
            found.keys.append(key)
        else:
            found.left_out.append((key, reason))
    return found


def _keys_in(store: BarStore, dataset: Dataset, span: TimeRange) -> Iterator[str]:
    """Yield the keys that can have bars in a range, by exact name, without a listing of all months."""
    for symbol in store.symbols(dataset):
        series = Series(symbol, dataset)
        for period in store.periods(series, span):
            yield Partition(series, period).key


def _unusable(key: str, dataset: Dataset, base: str) -> str | None:
    """Return why a key is not that of a bar file that can be read, or None."""
    head, _, tail = key.partition("/year=")
    if not _PERIOD[dataset.timeframe.intraday].fullmatch(f"year={tail}") or not _is_series(head, dataset):
        return "is not the name of a bar file"
    try:
        mode = os.stat(f"{base}/{key}").st_mode  # noqa: PTH116 - an object for each of many files takes longer
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return None if stat.S_ISREG(mode) else "is not a regular file"


@lru_cache(maxsize=1024)  # the keys of a series follow each other
def _is_series(folder: str, dataset: Dataset) -> bool:
    """Tell whether a folder is that of a series whose symbol can be one."""
    head = f"{dataset.name}/symbol="
    if not folder.startswith(head):
        return False
    period = "year=2024/month=01" if dataset.timeframe.intraday else "year=2024"
    # `Partition.parse` says whether the symbol is written as data-engine writes it.
    return Partition.parse(f"{folder}/{period}/data.parquet") is not None and is_symbol(decode_symbol(folder[len(head) :]))


def is_symbol(text: str) -> bool:
    """Tell whether a symbol from a file name can be one: such a name may hold anything, control characters included."""
    return symbol_fault(text) is None
