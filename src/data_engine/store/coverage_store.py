"""The coverage files of a store: one small JSON per series, read and changed under the store's locks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from uuid import uuid4

from data_engine.errors import DamagedFile, DataEngineError
from data_engine.market.series import Dataset, Series
from data_engine.store import coverage_file as codec
from data_engine.store.coverage import Coverage
from data_engine.store.document import Document
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import Period, symbols_of
from data_engine.store.requested import RequestedRanges
from data_engine.store.storing import Storing, begun, without_old


class CoverageStore:
    """Coverage by series.

    Args:
        files: the store's files.
        now: the clock, for the ``updated`` line of each file.
        by: who writes, for its ``by`` line.
    """

    def __init__(
        self, files: FileStore, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), by: str | None = None
    ) -> None:
        self._files = files
        self.requested = RequestedRanges(files)
        self._now = now
        self._by = by

    def writing_to(self, files: FileStore) -> CoverageStore:
        """Return the same coverage, with the same clock and requested ranges, that writes its files to another place."""
        made = CoverageStore(files, now=self._now, by=self._by)
        made.requested = self.requested
        return made

    def read(self, series: Series, *, fingerprints: bool = True) -> Coverage:
        """Return what is known of a series; nothing, where there is no file.

        Args:
            series: The series.
            fingerprints: Whether to return the fingerprints of the bar files; without them, what is kept of many series at once
                takes half the memory.

        Raises:
            DamagedFile: the file cannot be read as this series' coverage. Other series are not affected.
        """
        load = partial(codec.load, series=series, fingerprints=fingerprints)
        return self.with_requested(self._document(series, load).read())

    def stored(self, series: Series) -> Coverage:
        """Return what the coverage file of a series says, without fingerprints and without what was requested since."""
        return self._document(series, partial(codec.load, series=series, fingerprints=False)).read()

    def update(self, series: Series, change: Callable[[Coverage], Coverage]) -> Coverage:
        """Replace what is known of a series by what *change* makes of it; unchanged, nothing is written.

        Raises:
            DamagedFile: as `read`.
            StoreError: it cannot be written.
        """
        return self._document(series).update(self._wanting(change))

    def begin_storing(self, series: Series, periods: Iterable[Period]) -> tuple[Storing, ...]:
        """Mark the files in which somebody is about to store bars; return the marks, which `Coverage.with_stored` takes back.

        Raises:
            DamagedFile: As `read`.
            StoreError: It cannot be written.
        """
        marks = begun(periods, self._now(), uuid4().hex)
        self.update(series, lambda known: known.with_storing(marks))
        return marks

    def without_old_marks(self, known: Coverage) -> Coverage:
        """Return the same without the marks of those who were killed before they counted what they stored."""
        return replace(known, storing=without_old(known.storing, self._now()))

    def update_many(
        self, changes: Mapping[Series, Callable[[Coverage], Coverage]]
    ) -> tuple[dict[Series, Coverage], dict[Series, DataEngineError]]:
        """Replace what is known of many series, together; the caller holds the store.

        Returns:
            What is known now, by series, and the errors of single series (`errors.OF_ONE_FILE`).

        Raises:
            StoreError: it cannot be written.
        """
        edits = {series: self._document(series).edit(self._wanting(change)) for series, change in changes.items()}
        failed = self._files.update_many({codec.key(series): edit.rewrite for series, edit in edits.items()})
        errors = {series: failed[key] for series in edits if (key := codec.key(series)) in failed}
        return {series: edit.value for series, edit in edits.items() if series not in errors}, errors

    def _wanting(self, change: Callable[[Coverage], Coverage]) -> Callable[[Coverage], Coverage]:
        return lambda known: self.with_requested(change(known))

    def read_with_sizes(self, series: Series) -> tuple[Coverage, dict[Period, int]]:
        """Return what is known of a series, as `read`, without fingerprints, and the sizes of its files as they were counted.

        Raises:
            DamagedFile: As `read`.
        """
        sizes: dict[Period, int] = {}

        def load(content: bytes) -> Coverage:
            known, found = codec.load_with_sizes(content, series)
            sizes.update(found)
            return known

        return self.with_requested(self._document(series, load).read()), sizes

    def forget(self, series: Series) -> bool:
        """Forget a series of which nothing is left; return whether it is forgotten.

        It is not if somebody has stored bars meanwhile, or has begun to.

        Raises:
            DamagedFile: As `read`.
            StoreError: It cannot be written.
        """
        document = self._document(series)

        def change(content: bytes | None) -> bytes | None:
            known = self.with_requested(document.parse(content))
            return b"" if content is not None and known.is_nothing else None

        return self._files.update(codec.key(series), change)

    def flush(self, datasets: Iterable[Dataset]) -> None:
        """Have what can be seen of the coverage of datasets survive a power failure, whoever wrote it.

        Raises:
            StoreError: The disk fails.
        """
        for dataset in datasets:
            self._files.flush(codec.folder(dataset))

    def datasets(self) -> list[Dataset]:
        """Return the datasets that have coverage, or of which something is requested, by name."""
        found = {series.dataset for series in self.requested.series()}
        for name in self._files.folders("metadata/coverage"):
            with suppress(ValueError):  # a folder that is not ours
                found.add(Dataset.from_name(name))
        return sorted(found, key=lambda dataset: dataset.name)

    def series(self, dataset: Dataset) -> Iterator[Series]:
        """Yield the series of a dataset that have coverage, or of which something is requested, by symbol."""
        requested = {series.symbol for series in self.requested.series() if series.dataset == dataset}
        for symbol in sorted({*symbols_of(self._files.list(codec.folder(dataset))), *requested}):
            yield Series(symbol, dataset)

    def with_requested(self, known: Coverage) -> Coverage:
        """Return what is known of a series by its file, and what was requested of it since: what `read` does."""
        ranges = self.requested.of(known.series)
        return known.wanting(*ranges) if ranges else known

    def _document(self, series: Series, load: Callable[[bytes], Coverage] | None = None) -> Document[Coverage]:
        return Document(
            self._files,
            codec.key(series),
            f"the coverage of {series}",
            "`data-engine verify --repair` rebuilds it",
            _nothing(series),
            load=load or partial(codec.load, series=series),
            dump=codec.dump,
            seal=self._seal,
        )

    def _seal(self, made: Coverage) -> Coverage:
        from data_engine.version import written_by

        now = self._now().replace(microsecond=0)
        return replace(made, begun=made.begun or now, updated=_later(now, made.updated), by=self._by or written_by())


def _later(now: datetime, before: datetime | None) -> datetime:
    """Return when a coverage is written, in seconds, or a moment after it was written before in the same second.

    So no two contents of it are the same. A writer reads the coverage, then the files that it counts, and its write counts if the
    coverage is what it read: another one may have changed a file, and the coverage to and fro, meanwhile.
    """
    same = before is not None and before.replace(microsecond=0) == now
    return before + _MOMENT if same and before is not None else now


_MOMENT = timedelta(microseconds=1)


_nothing = lru_cache(maxsize=1 << 10)(Coverage)
"""What is known of a series without a file."""


class CoverageSnapshot:
    """The coverage of a store as one decision reads it: each file at most once, when its turn comes, without fingerprints.

    Not safe between threads. What is read is kept: 10,000 series with ten years of minutes take about 100 MB.

    Args:
        coverage: The coverage of the store.
    """

    def __init__(self, coverage: CoverageStore) -> None:
        self._coverage = coverage
        self._known: dict[Series, Coverage | DamagedFile] = {}

    def read(self, series: Series) -> Coverage:
        """Return what is known of a series, as `CoverageStore.read`, at the first call.

        Raises:
            DamagedFile: If the file cannot be read as this series' coverage.
        """
        known = self._known.get(series)
        if known is None:
            try:
                known = self._coverage.read(series, fingerprints=False)
            except DamagedFile as error:
                known = error
            self._known[series] = known
        if isinstance(known, DamagedFile):
            raise known
        return known

    def datasets(self) -> list[Dataset]:
        """Return the datasets, as `CoverageStore.datasets`."""
        return self._coverage.datasets()

    def series(self, dataset: Dataset) -> Iterator[Series]:
        """Yield the series of a dataset, as `CoverageStore.series`."""
        return self._coverage.series(dataset)
