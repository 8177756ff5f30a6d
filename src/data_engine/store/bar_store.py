"""The bar files of a store: `BarStore`, one Parquet file per symbol and month (or year), merged and never overwritten blindly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pyarrow as pa

from data_engine.cpu import CPU_SLOTS
from data_engine.errors import DamagedFile, StoreError
from data_engine.market.bar_parquet import from_parquet, to_parquet
from data_engine.market.bars import EMPTY, NO_CHANGES, Changes, from_micros, merge, timestamps_us, to_micros, without
from data_engine.market.bars import within as cut
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange
from data_engine.store.coverage import Coverage, Fingerprint
from data_engine.store.coverage_store import CoverageStore
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import Partition, Period, decode_symbol, periods, series_folder


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write did to one file, or to several.

    Attributes:
        rows: The bars now in the file.
        changes: How they differ from those before.
        fingerprint: The file's fingerprint as it is now. None for several files, and for none.
    """

    rows: int = 0
    changes: Changes = NO_CHANGES
    fingerprint: Fingerprint | None = field(default=None, compare=False)

    def __add__(self, other: WriteResult) -> WriteResult:
        return WriteResult(self.rows + other.rows, self.changes + other.changes)


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

    def write(
        self, series: Series, period: Period, fetched: pa.Table, *, answered: TimeRange | None = None, drop_vanished: bool = False
    ) -> WriteResult:
        """Merge bars into one file.

        Args:
            series: whose bars.
            period: which file; all bars start inside it.
            fetched: by `BAR_SCHEMA`; where the file has a bar of the same time, these win.
            answered: the range that *fetched* answers in full, to tell which stored bars the vendor no longer has.
            drop_vanished: take those out.

        Raises:
            DamagedFile: the file that is there cannot be read; it is left as it is.
            StoreError: the file cannot be written; the old one is untouched.
        """
        key = Partition(series, period).key
        result = WriteResult()

        def change(data: bytes | None) -> bytes | None:
            nonlocal result
            stored = self._decode(key, data)
            merged = merge(stored, fetched, answered)
            table, changes = merged.table, merged.changes
            if drop_vanished and changes.vanished and answered is not None:
                table = merge(without(stored, answered, kept=fetched), fetched).table
            elif not changes.written:
                result = WriteResult(stored.num_rows, changes, Fingerprint.of(data) if data else None)
                return None
            with CPU_SLOTS:
                content = to_parquet(table) if table.num_rows else b""
            result = WriteResult(table.num_rows, changes, Fingerprint.of(content) if content else None)
            return content

        self.files.update(key, change)
        return result

    def add(self, series: Series, table: pa.Table) -> WriteResult:
        """Merge bars of a series into its files, and count them in its coverage; no range is covered by that.

        Args:
            series: The series of the bars.
            table: Bars by `BAR_SCHEMA`, sorted; where a file has a bar of the same time, these win.

        Raises:
            DamagedFile: If a file cannot be read; it is left as it is.
            StoreError: If the store cannot be written.
        """
        parts = dict(split_by_period(table, series.dataset))
        # Nobody vouches for these files as a whole any more: first, so that a killed `add` does not look like damage.
        self.coverage.update(series, partial(Coverage.without_fingerprints, periods=parts))
        result = sum((self.write(series, period, part) for period, part in parts.items()), WriteResult())
        times = timestamps_us(table)
        first, last = from_micros(int(times[0])), from_micros(int(times[-1]))

        def count(known: Coverage) -> Coverage:
            return replace(
                known.without_fingerprints(parts),
                # Counted here, where nobody else can be counting: a neighbour may have written since.
                rows={**known.rows, **{period: self.count(series, period) for period in parts}},
                first_bar=min(first, known.first_bar or first),
                last_bar=max(last, known.last_bar or last),
                empty_since=None,
            )

        self.coverage.update(series, count)
        return result

    def read(
        self,
        series: Series,
        period: Period,
        columns: Sequence[str] | None = None,
        *,
        within: TimeRange | None = None,
        threads: bool = False,
    ) -> pa.Table:
        """Return the bars of one file, sorted; none where there is no file.

        Args:
            series: whose bars.
            period: which file.
            columns: of `BAR_SCHEMA`, ``timestamp`` first; None is all.
            within: only bars that start inside it.
            threads: decode on several cores; for one file at a time.

        Raises:
            DamagedFile: it cannot be read as bars.
        """
        key = Partition(series, period).key
        table = self._decode(key, self.files.get(key), columns, within, threads=threads)
        return table if within is None else cut(table, within)

    def count(self, series: Series, period: Period) -> int:
        """Return how many bars a file holds; 0 where there is none."""
        held: int = self.read(series, period, ["timestamp"]).num_rows
        return held

    def remove(self, series: Series, span: TimeRange) -> int:
        """Take the bars of a series that start inside *span* out, and its coverage with them; return how many bars."""
        rows: dict[Period, int] = {}
        removed = 0
        # A removal that was killed may have left rows in the coverage whose file is gone already.
        known = set(self.coverage.read(series).rows)
        known.update(partition.period for partition in self.partitions(series.dataset, series.symbol))
        touched = sorted(period for period in known if period.span.intersect(span))
        # Coverage first, here: it must never claim what is being removed.
        nothing = dict.fromkeys(touched, 0)
        self.coverage.update(series, lambda known: known.without(span, nothing, known.first_bar, known.last_bar))
        for period in touched:
            key = Partition(series, period).key

            def change(data: bytes | None, key: str = key, period: Period = period) -> bytes | None:
                nonlocal removed
                stored = self._decode(key, data)
                kept = without(stored, span)
                removed += stored.num_rows - kept.num_rows
                rows[period] = kept.num_rows
                if kept.num_rows == stored.num_rows:
                    return None
                return to_parquet(kept) if kept.num_rows else b""

            self.files.update(key, change)
        first, last = self.reach(series)
        left = self.coverage.update(series, lambda known: known.without(span, rows, first, last))
        if not left.rows and not left.wanted and not left.covered:
            self.coverage.remove(series)
        return removed

    def reach(self, series: Series) -> tuple[datetime | None, datetime | None]:
        """Return the first and the last bar that the files of a series hold."""
        held = sorted(partition.period for partition in self.partitions(series.dataset, series.symbol))
        if not held:
            return None, None
        ends = [timestamps_us(self.read(series, period, ["timestamp"])) for period in (held[0], held[-1])]
        return from_micros(int(ends[0][0])), from_micros(int(ends[1][-1]))

    def periods(self, series: Series, span: TimeRange) -> Iterator[Period]:
        """Yield the files of a series that *span* touches, in order of time; exact names, no glob."""
        for period in periods(span, series.dataset):
            if self.files.size(Partition(series, period).key) is not None:
                yield period

    def partitions(self, dataset: Dataset, symbol: str | None = None) -> Iterator[Partition]:
        """Yield every file of a dataset (of one symbol), in order of its path."""
        folder = dataset.name if symbol is None else series_folder(Series(symbol, dataset))
        for key in self.files.list(folder):
            partition = Partition.parse(key)
            if partition is not None:
                yield partition

    def symbols(self, dataset: Dataset) -> list[str]:
        """Return the symbols that have a folder in a dataset, sorted."""
        names = self.files.folders(dataset.name)
        return sorted(decode_symbol(name[len("symbol=") :]) for name in names if name.startswith("symbol="))

    def check_exists(self) -> None:
        """Raise `StoreError` where there is no store."""
        if not self.exists():
            raise StoreError(
                f"no store at {self.files.location}; check --base-path or DATA_ENGINE_BASE_PATH, "
                "or create a store with `data-engine ingest`"
            )

    def exists(self) -> bool:
        """Tell whether anything was ever stored here; a lock alone is nothing."""
        if any(self.files.folders(f"metadata/{name}") for name in ("coverage", "indices")):
            return True
        folders = (*self.files.folders(""), *(f"metadata/{name}" for name in ("coverage", "indices")))
        ours = (name for name in folders if name.startswith(("equities_", "metadata/")))
        return any(next(iter(self.files.list(name)), None) is not None for name in ours)

    def _decode(
        self,
        key: str,
        data: bytes | None,
        columns: Sequence[str] | None = None,
        within: TimeRange | None = None,
        *,
        threads: bool = False,
    ) -> pa.Table:
        if data is None:
            return EMPTY if columns is None else EMPTY.select(list(columns))
        try:
            return from_parquet(data, columns, within=within, threads=threads)
        except ValueError as error:
            raise DamagedFile(f"{self.files.location}/{key} cannot be read as bars: {error}") from error


def split_by_period(table: pa.Table, dataset: Dataset) -> Iterator[tuple[Period, pa.Table]]:
    """Cut a sorted table at the edges of its files, without copying."""
    times = timestamps_us(table)
    at = 0
    while at < len(times):
        period = Period.of(datetime.fromtimestamp(int(times[at]) // 1_000_000, UTC), dataset)
        stop = int(np.searchsorted(times, to_micros(period.next().start)))
        yield period, table.slice(at, stop - at)
        at = stop
