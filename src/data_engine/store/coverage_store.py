"""The coverage files of a store: one small JSON per series, read and changed under the store's locks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from data_engine.market.series import Dataset, Series
from data_engine.store import coverage_file as codec
from data_engine.store.coverage import Coverage
from data_engine.store.document import Document
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import symbols_of


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
        self._now = now
        self._by = by

    def read(self, series: Series) -> Coverage:
        """Return what is known of a series; nothing, where there is no file.

        Raises:
            DamagedFile: the file cannot be read as this series' coverage. Other series are not affected.
        """
        return self._document(series).read()

    def update(self, series: Series, change: Callable[[Coverage], Coverage]) -> Coverage:
        """Replace what is known of a series by what *change* makes of it; unchanged, nothing is written.

        Raises:
            DamagedFile: as `read`.
            StoreError: it cannot be written.
        """
        return self._document(series).update(change)

    def remove(self, series: Series) -> bool:
        """Forget a series; return whether anything was known."""
        return self._files.delete(codec.key(series))

    def datasets(self) -> list[Dataset]:
        """Return the datasets that have coverage, by name."""
        found = []
        for name in self._files.folders("metadata/coverage"):
            try:
                found.append(Dataset.from_name(name))
            except ValueError:
                continue  # a folder that is not ours
        return found

    def series(self, dataset: Dataset) -> Iterator[Series]:
        """Yield the series of a dataset that have coverage, by symbol."""
        for symbol in symbols_of(self._files.list(codec.folder(dataset))):
            yield Series(symbol, dataset)

    def _document(self, series: Series) -> Document[Coverage]:
        return Document(
            self._files,
            codec.key(series),
            f"the coverage of {series}",
            "`data-engine verify --repair` rebuilds it",
            Coverage(series),
            load=lambda content: codec.load(content, series),
            dump=codec.dump,
            seal=self._seal,
        )

    def _seal(self, made: Coverage) -> Coverage:
        now = self._now().replace(microsecond=0)
        return replace(made, begun=made.begun or now, updated=now, by=self._by or _program())


def _program() -> str:
    from data_engine.version import __version__

    return f"data-engine {__version__}"
