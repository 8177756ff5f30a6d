"""Compare the files of a series with the counts and fingerprints in its coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial

from data_engine.errors import StoreError
from data_engine.market.time_range import TimeRange
from data_engine.store.coverage import Coverage
from data_engine.store.file_count import Fingerprint
from data_engine.store.file_store import FileStore
from data_engine.store.history.head import USER
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.partitions import Partition, Period
from data_engine.verify.file_catalog import FileCatalog
from data_engine.verify.file_check import CheckedFile
from data_engine.verify.findings import Finding


class FileComparison:
    """Compare files with the coverage of their series.

    Nothing is believed of the count of a file that a run was changing (`Coverage.uncounted`), or that a user has stored bars in
    since it was counted, as the history says: one that is killed before it counts has nobody who counts for it. A file that a
    killed run may have extended has at least the counted bars.

    Args:
        files: The files of the store.
        coverage: The coverage of the series.
        remaining: The ranges in which a killed or active run may have stored bars that are not counted yet.
        catalog: The files of the dataset, to recognize the content of another file. If None, that is not tried.
    """

    def __init__(self, files: FileStore, coverage: Coverage, remaining: Sequence[TimeRange], catalog: FileCatalog | None) -> None:
        self._files = files
        self._coverage = coverage
        self._remaining = remaining
        self._catalog = catalog
        self.warnings: list[Finding] = []

    def inconsistencies(self, files: Mapping[Period, CheckedFile]) -> dict[Period, Finding]:
        """Return the most severe inconsistency of each file that has one, and add to `warnings` what may be one."""
        found = {}
        for period in sorted({*self._coverage.rows, *files}):
            file = files.get(period)
            finding = self._absent(period) if file is None else file.finding or self._changed(file)
            if finding is not None:
                found[period] = finding
        return found

    def _absent(self, period: Period) -> Finding | None:
        partition = Partition(self._coverage.series, period)
        try:
            if self._files.get(partition.key) is not None:
                return None  # written after the files were listed
        except StoreError as error:  # such as a directory in place of the file
            return Finding.of_file("file_unreadable", str(error), partition)
        if period in self._coverage.uncounted:
            return None
        counted = self._coverage.rows[period]
        text = f"{self._files.location}/{partition.key} does not exist; the coverage counts {counted:,} bars in it"
        return Finding.of_file("file_missing", text, partition)

    def _changed(self, file: CheckedFile) -> Finding | None:
        """Return how an undamaged file differs from the counted one, if that is an inconsistency."""
        partition = file.partition
        fingerprint, counted = self._coverage.fingerprint(partition.period), self._coverage.rows.get(partition.period)
        if partition.period in self._coverage.uncounted or _matches(file, fingerprint):
            return None
        path = f"{self._files.location}/{partition.key}"
        finding = partial(Finding.of_file, partition=partition)
        others = self._catalog.others(partition, file.fingerprint) if self._catalog and file.fingerprint else []
        if others and self._is_swapped(file, others[0]):
            return finding("file_swapped", f"{path} has the content of {others[0].key}: bars of {others[0].series.symbol}")
        if counted is not None and file.rows < counted:
            return finding("rows_differ", f"{path} holds {file.rows:,} bars; the coverage counts {counted:,}")
        if others:
            text = f"{path} has the content of {others[0].key}: a ticker change that is not known, or a copy"
            self.warnings.append(finding("same_content", text))
        if fingerprint is None or self._may_grow(partition.period):
            return None  # more bars than counted are consistent: a killed or running `ingest` counts them last
        if self._is_stored_since(file, fingerprint):
            return None
        size = f"{file.size:,} bytes, counted with {fingerprint.size:,}"
        return finding(
            "file_changed", f"{path} is not the file that was counted ({size}); another program or the disk changed it"
        )

    def _is_stored_since(self, file: CheckedFile, counted: Fingerprint) -> bool:
        """Tell whether users have stored bars in a file since it was as it is counted, and nobody else has changed it."""
        key = file.partition.key
        present = file.fingerprint or self._content(file.partition)
        for link in self._history.chain_of(key, present).links:
            if link.actor != USER:
                return False
            if link.entry.before == counted:
                return True
        return False

    @cached_property
    def _history(self) -> StoreHistory:
        return StoreHistory(self._files)

    def _is_swapped(self, file: CheckedFile, other: Partition) -> bool:
        """Tell whether the content of another file can only be here by mistake.

        Equal content alone does not prove that: two tickers of one security, stored by a user or by a run that was killed
        before it counted them, have the same bars.
        """
        period = file.partition.period
        fingerprint, counted = self._coverage.fingerprint(period), self._coverage.rows.get(period)
        if counted is None:
            return self._content(other) is None  # moved
        if file.rows < counted:
            return True
        if fingerprint is None:
            return False
        return not self._may_grow(period) or self._content(other) == fingerprint

    def _may_grow(self, period: Period) -> bool:
        return any(span.intersect(period.span) for span in self._remaining)

    def _content(self, partition: Partition) -> Fingerprint | None:
        """Return the fingerprint of another file as it is now, or None if there is no such file."""
        try:
            content = self._files.get(partition.key)
        except StoreError:
            return None
        return None if content is None else Fingerprint.of(content)


def is_counted(coverage: Coverage, file: CheckedFile) -> bool:
    """Tell whether an undamaged file is as the coverage counts it."""
    period = file.partition.period
    fingerprint = coverage.fingerprint(period)
    return file.rows == coverage.rows.get(period) and (fingerprint is None or _matches(file, fingerprint))


def _matches(file: CheckedFile, fingerprint: Fingerprint | None) -> bool:
    """Tell whether a file has the counted content; if only its metadata was read, whether it has the size."""
    if fingerprint is None:
        return False
    return fingerprint == file.fingerprint if file.fingerprint else fingerprint.size == file.size
