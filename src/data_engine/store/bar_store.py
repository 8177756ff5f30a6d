"""The bar files of a store: `BarStore`, one Parquet file per symbol and month (or year), merged and never overwritten blindly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.errors import DamagedFile, DataEngineError, StoreError
from data_engine.market.bar_parquet import from_parquet
from data_engine.market.bars import EMPTY, Changes, Int64s, merge, take, timestamps_us, to_micros
from data_engine.market.bars import within as cut
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange
from data_engine.store.coverage import Coverage
from data_engine.store.coverage_store import CoverageStore
from data_engine.store.file_count import FileCount, Fingerprint
from data_engine.store.file_edit import FileEdit, WriteResult, count_table
from data_engine.store.file_store import FileStore
from data_engine.store.legacy_files import refuse_foreign, refuse_legacy_store
from data_engine.store.partitions import Partition, Period, decode_symbol, file_keys, periods, series_folder


class BarStore:
    """Bars in plain Parquet files, one file at a time. Safe between threads and processes.

    Args:
        files: The place where they are.
    """

    def __init__(self, files: FileStore) -> None:
        self.files = files
        self.coverage = CoverageStore(files)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.files.location!r})"

    def writing_to(self, files: FileStore) -> BarStore:
        """Return the same store, which writes its files in another way."""
        made = copy(self)
        made.files, made.coverage = files, self.coverage.writing_to(files)
        return made

    def acting(self, actor: str, *, forgets: bool = False) -> BarStore:
        """Return the same store for somebody, whom its history names."""
        return self.writing_to(self.files.acting(actor, forgets=forgets))

    def write(self, series: Series, period: Period, fetched: pa.Table, *, answered: TimeRange | None = None) -> WriteResult:
        """Merge bars into one file; no stored bar is removed.

        Args:
            series: The series.
            period: The file; all bars start inside it.
            fetched: Bars by `BAR_SCHEMA`, sorted; where the file has a bar of the same time, these win.
            answered: The range that *fetched* answers, to count the stored bars that it lacks.

        Raises:
            DamagedFile: If the file that is there cannot be read; it is left as it is.
            StoreError: If the file cannot be written; the old one is untouched.
        """
        return self._edited(self.merging(series, period, fetched, answered=answered))

    def merging(self, series: Series, period: Period, fetched: pa.Table, *, answered: TimeRange | None = None) -> FileEdit:
        """Return what `write` does, for `edit_many`."""
        return FileEdit(Partition(series, period).key, self.decode, lambda stored: self._merged(stored, fetched, answered))

    def settle(
        self, series: Series, period: Period, came: Int64s, answered: TimeRange, removable: Sequence[TimeRange] = ()
    ) -> WriteResult:
        """Judge the stored bars of one file by a complete response: those that it lacks are removed, or kept and counted.

        Args:
            series: The series.
            period: The file.
            came: The timestamps of the bars of the response that belong to the file; microseconds since 1970.
            answered: The range of the response.
            removable: Where bars that it lacks are removed.

        Raises:
            DamagedFile: If the file cannot be read; it is left as it is.
            StoreError: If the file cannot be written; the old one is untouched.
        """
        return self._edited(self.judging(series, period, came, answered, removable))

    def judging(
        self, series: Series, period: Period, came: Int64s, answered: TimeRange, removable: Sequence[TimeRange] = ()
    ) -> FileEdit:
        """Return what `settle` does, for `edit_many`."""

        def judged(stored: pa.Table) -> tuple[pa.Table, WriteResult]:
            times = timestamps_us(stored)
            lacking = _inside(times, (answered,)) & ~np.isin(times, came)
            gone = lacking & _inside(times, removable)
            kept = int(np.count_nonzero(lacking & ~gone))
            removed = int(np.count_nonzero(gone))
            table = take(stored, ~gone) if removed else stored
            return table, WriteResult(table.num_rows, Changes(vanished=kept, removed=removed), kept)

        return FileEdit(Partition(series, period).key, self.decode, judged)

    def _merged(self, stored: pa.Table, fetched: pa.Table, answered: TimeRange | None) -> tuple[pa.Table, WriteResult]:
        merged = merge(stored, fetched, answered)
        changes = replace(merged.changes, vanished=0)  # `settle` counts them, once the response is known to be complete
        return merged.table, WriteResult(merged.table.num_rows, changes, merged.changes.vanished)

    def edit_many(self, edits: Sequence[FileEdit]) -> dict[FileEdit, DataEngineError]:
        """Carry out edits of different files together; the caller holds the store. Return the errors of single files.

        Raises:
            StoreError: If the files cannot be written; some of them may have been.
        """
        failed = self.files.update_many({edit.key: edit.rewrite for edit in edits})
        return {edit: failed[edit.key] for edit in edits if edit.key in failed}

    def _edited(self, edit: FileEdit) -> WriteResult:
        self.files.update(edit.key, edit.rewrite)
        return edit.result

    def add(self, series: Series, table: pa.Table) -> WriteResult:
        """Merge bars of a series into its files, and count them in its coverage; no range is covered by that.

        Args:
            series: The series of the bars.
            table: Bars by `BAR_SCHEMA`, sorted; where a file has a bar of the same time, these win.

        Raises:
            ForeignFiles: If the series' folder has files of the legacy pipeline; nothing was written.
            DamagedFile: If a file cannot be read; it is left as it is.
            StoreError: If the store cannot be written.
        """
        refuse_foreign(self.files, series)
        parts = dict(split_by_period(table, series.dataset))
        # First, so that a killed `add` does not look like damage, and the next run counts what it wrote.
        marks = self.coverage.begin_storing(series, parts)
        results = {period: self.write(series, period, part) for period, part in parts.items()}
        written = {period: result.count for period, result in results.items() if result.count is not None}

        def count(known: Coverage) -> Coverage:
            found = self.count_files(known, parts, written).items()
            return known.with_stored({at: one.unsure() for at, one in found}, marks)

        self.coverage.update(series, count)
        return sum(results.values(), WriteResult())

    def recount(self, series: Series) -> Coverage:
        """Count the files anew that somebody was changing, or has added; return the coverage. The caller holds the store."""
        found = {one.period for one in self.partitions(series.dataset, series.symbol)}

        def counted(known: Coverage) -> Coverage:
            made = known.recounted(self.count_files(known, found - known.rows.keys()))
            return self.coverage.without_old_marks(made)

        return self.coverage.update(series, counted)

    def count_files(
        self,
        known: Coverage,
        touched: Iterable[Period],
        counts: Mapping[Period, FileCount] | None = None,
        *,
        within: TimeRange | None = None,
        durable: bool = True,
    ) -> dict[Period, FileCount]:
        """Return what the files of a series hold that must be counted anew; to be called while its coverage is updated.

        These are the files that were touched, those that somebody was changing, those of a range that the coverage counts
        and that are gone, and those with the first and the last bar if that is not known otherwise. Of a series that had no bars
        in any response before, all files are: a run may have stored the first of them and broken off before it counted them.

        Args:
            known: The coverage of the series as it is now.
            touched: The files that were written.
            counts: The counts of some of them as they were written; read again if somebody has written to the file since.
            within: The range that was answered, where counted files are looked for; None looks nowhere.
            durable: Whether what is counted is flushed, since the counts are to be stored; another process may have written it.
        """
        series = known.series
        near = (period for period in known.rows if within is not None and period.span.intersect(within))
        lost = (period for period in near if self.files.size(Partition(series, period).key) is None)
        empty = within is not None and known.empty_since is not None and not known.rows
        found = (one.period for one in self.partitions(series.dataset, series.symbol)) if empty else ()
        written = counts or {}
        made = {at: self._count(known, at, written.get(at), durable) for at in {*touched, *known.uncounted, *lost, *found}}
        while more := known.edges(made, {period: count.rows for period, count in made.items()}):
            made |= {period: self._count(known, period, None, durable) for period in more}
        return made

    def _count(self, known: Coverage, period: Period, written: FileCount | None, durable: bool) -> FileCount:
        key = Partition(known.series, period).key
        content = self.files.get(key)
        # The size alone does not tell: of changes to a single price, every fifth to every second leaves it as it was.
        if written is not None and content is not None and written.fingerprint == Fingerprint.of(content):
            return written
        if durable:
            self.files.flush(key.rpartition("/")[0])
        made = count_table(self.decode(key, content, ["timestamp"]), content)
        # Who wrote a file that another task might change as well has counted it, and left the mark.
        return made if made.fingerprint is not None and made.fingerprint == known.files.get(period) else made.unsure()

    def read(
        self,
        series: Series,
        period: Period,
        columns: Sequence[str] | None = None,
        *,
        within: TimeRange | None = None,
        threads: bool = False,
        seen: Callable[[str, bytes], None] | None = None,
    ) -> pa.Table:
        """Return the bars of one file, sorted; none where there is no file.

        Args:
            series: whose bars.
            period: which file.
            columns: of `BAR_SCHEMA`, ``timestamp`` first; None is all.
            within: only bars that start inside it.
            threads: decode on several cores; for one file at a time.
            seen: what is told of the path and the content that was read.

        Raises:
            DamagedFile: it cannot be read as bars.
        """
        key = Partition(series, period).key
        content = self.files.get(key)
        if seen is not None and content is not None:
            seen(key, content)
        table = self.decode(key, content, columns, within, threads=threads)
        return table if within is None else cut(table, within)

    def read_range(self, series: Series, span: TimeRange, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the bars of a series that start inside *span*, sorted.

        Args:
            series: The series.
            span: The range.
            columns: Some of `BAR_SCHEMA`, ``timestamp`` first. If None, all.

        Raises:
            DamagedFile: If a file cannot be read as bars.
        """
        files = (self.read(series, period, columns, within=span) for period in self.periods(series, span))
        return pa.concat_tables([EMPTY if columns is None else EMPTY.select(list(columns)), *files])

    def count(self, series: Series, period: Period) -> int:
        """Return how many bars a file holds; 0 where there is none."""
        return int(self.read(series, period, ["timestamp"]).num_rows)

    def remove(self, series: Series, span: TimeRange) -> int:
        """Remove the bars of a series that start inside *span*, and its coverage with them; return how many bars."""
        # A removal that was killed may have left rows in the coverage whose file is gone already.
        known = self.coverage.read(series)
        held = {*known.rows, *known.uncounted, *(one.period for one in self.partitions(series.dataset, series.symbol))}
        touched = sorted(period for period in held if period.span.intersect(span))
        # Coverage first, here: it must never claim what is being removed. It takes over what is requested: as long as there may
        # be bars of it, their range is requested, and the next run counts them.
        self.coverage.update(series, lambda known: known.without(span, {}).with_changing(touched))
        self.coverage.requested.withdraw(series, span)
        nothing = np.empty(0, np.int64)
        removed = sum(self.settle(series, period, nothing, span, (span,)).changes.removed for period in touched)
        left = self.coverage.update(series, lambda known: known.without(span, self.count_files(known, touched)))
        if left.is_nothing:
            self.coverage.forget(series)
        return removed

    def periods(self, series: Series, span: TimeRange) -> Iterator[Period]:
        """Yield the files of a series that *span* touches, in order of time; exact names, no glob."""
        for period in periods(span, series.dataset):
            if self.files.size(Partition(series, period).key) is not None:
                yield period

    def lost_files(self, known: Coverage, span: TimeRange) -> tuple[Period, ...]:
        """Return the files in which a coverage counts bars, that *span* touches, and that do not exist; in order of time."""
        counted = known.counted_files(span)
        sizes = self.files.sizes_of(file_keys(known.series, counted))
        return tuple(period for period, size in zip(counted, sizes, strict=True) if size is None)

    def partitions(self, dataset: Dataset, symbol: str | None = None) -> Iterator[Partition]:
        """Yield every file of a dataset (of one symbol), in order of its path."""
        series = None if symbol is None else Series(symbol, dataset)
        for key in self.files.list(dataset.name if series is None else series_folder(series)):
            partition = Partition.parse(key) if series is None else Partition.in_folder(series, key)
            if partition is not None:
                yield partition

    def symbols(self, dataset: Dataset) -> list[str]:
        """Return the symbols that have a folder in a dataset, sorted."""
        names = self.files.folders(dataset.name)
        return sorted(decode_symbol(name[len("symbol=") :]) for name in names if name.startswith("symbol="))

    def check_exists(self, *, legacy: bool = False) -> None:
        """Raise `StoreError` where there is no store, or (unless *legacy* ones count) one that only the legacy pipeline wrote."""
        if not legacy:
            refuse_legacy_store(self.files)
        if not self.exists():
            raise StoreError(
                f"no store at {self.files.location}; check --base-path or DATA_ENGINE_BASE_PATH, "
                "or create a store with `data-engine ingest`"
            )

    def exists(self) -> bool:
        """Return whether there are bars, coverage, requested ranges or indices; a lock file does not count."""
        if any(self.files.folders(f"metadata/{name}") for name in ("coverage", "indices")):
            return True
        folders = (*self.files.folders(""), *(f"metadata/{name}" for name in ("coverage", "wanted", "indices")))
        ours = (name for name in folders if name.startswith(("equities_", "metadata/")))
        return any(next(iter(self.files.list(name)), None) is not None for name in ours)

    def decode(
        self,
        key: str,
        data: bytes | None,
        columns: Sequence[str] | None = None,
        within: TimeRange | None = None,
        *,
        threads: bool = False,
    ) -> pa.Table:
        """Return the bars in a content of a file, sorted; none if it is None.

        Raises:
            DamagedFile: If it cannot be read as bars.
        """
        if data is None:
            return EMPTY if columns is None else EMPTY.select(list(columns))
        try:
            return from_parquet(data, columns, within=within, threads=threads)
        except ValueError as error:
            raise DamagedFile(f"{self.files.location}/{key} cannot be read as bars: {error}") from error


def _inside(times: Int64s, ranges: Iterable[TimeRange]) -> Any:
    """Return which timestamps lie inside one of some ranges."""
    inside = np.zeros(times.size, bool)
    for span in ranges:
        inside |= (times >= to_micros(span.start)) & (times < to_micros(span.end))
    return inside


def split_by_period(table: pa.Table, dataset: Dataset) -> Iterator[tuple[Period, pa.Table]]:
    """Cut a sorted table at the edges of its files, without copying."""
    times = timestamps_us(table)
    at = 0
    while at < len(times):
        period = Period.of(datetime.fromtimestamp(int(times[at]) // 1_000_000, UTC), dataset)
        stop = int(np.searchsorted(times, to_micros(period.next().start)))
        yield period, table.slice(at, stop - at)
        at = stop
