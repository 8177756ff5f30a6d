"""Choose the files of a dataset that a view names, one by one, and say which are left out."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from data_engine.errors import DamagedFile
from data_engine.market.series import Dataset, Series
from data_engine.market.symbol import symbol_fault
from data_engine.market.time_range import difference
from data_engine.market.wording import plural
from data_engine.store.legacy_files import REMEDY, is_legacy
from data_engine.store.partitions import Partition, decode_symbol, file_keys, periods, series_folder
from data_engine.store.removal_mark import is_mark

if TYPE_CHECKING:
    from data_engine.market.time_range import TimeRange
    from data_engine.store.bar_store import BarStore


_LISTED = 20  # series: files of other programs show in the first ones, as those of the legacy pipeline do

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

    A file that no bar file can be (a pipe, a device, a folder, a name of another program) is left out. Without *span*, the
    folders of the first 20 series are listed, and of the others the files are named that their coverage counts, or that a run
    may have stored since; `verify` finds other files there.

    Raises:
        StoreError: If a folder cannot be read.
    """
    found = ViewFiles(dataset)
    for key in _keys(store, dataset) if span is None else _keys_in(store, dataset, span):
        try:
            reason = _unusable(key, dataset, store.files.location)
        except FileNotFoundError:
            continue  # counted, or listed, and gone
        if reason is None:
            found.keys.append(key)
        else:
            found.left_out.append((key, reason))
    return found


def _keys(store: BarStore, dataset: Dataset) -> Iterator[str]:
    """Yield the keys of a dataset: those in the folders of its first series, and of the others those that are known."""
    symbols = store.symbols(dataset)
    for series in (Series(symbol, dataset) for symbol in symbols[:_LISTED]):
        yield from store.files.list(series_folder(series))
    store.coverage.requested.refresh()
    for series in (Series(symbol, dataset) for symbol in symbols[_LISTED:]):
        yield from _known_keys(store, series)


def _known_keys(store: BarStore, series: Series) -> Iterable[str]:
    """Return the keys of the files that the coverage of a series counts, or that a run may have stored and not counted."""
    try:
        known = store.coverage.read(series, fingerprints=False)
    except DamagedFile:
        return store.files.list(series_folder(series))
    if not known.rows and not known.wanted:
        return store.files.list(series_folder(series))  # without coverage
    uncounted = (period for span in difference(known.wanted, known.trusted) for period in periods(span, series.dataset))
    return file_keys(series, sorted({*known.rows, *known.uncounted, *uncounted}))


def _keys_in(store: BarStore, dataset: Dataset, span: TimeRange) -> Iterator[str]:
    """Yield the keys that can have bars in a range, by exact name, without a listing of all months."""
    for symbol in store.symbols(dataset):
        series = Series(symbol, dataset)
        for period in store.periods(series, span):
            yield Partition(series, period).key


def _unusable(key: str, dataset: Dataset, base: str) -> str | None:
    """Return why a key is not that of a bar file that can be read, or None.

    Raises:
        FileNotFoundError: If there is no file.
    """
    head, _, tail = key.partition("/year=")
    if not _PERIOD[dataset.timeframe.intraday].fullmatch(f"year={tail}") or not _is_series(head, dataset):
        return "is not the name of a bar file"
    try:
        status = os.stat(f"{base}/{key}")  # noqa: PTH116 - an object for each of many files takes longer
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if is_mark(key, status.st_size) and stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(key)
    return None if stat.S_ISREG(status.st_mode) else "is not a regular file"


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
