"""Say what a store has of the legacy pipeline: bars that it wrote, and imports in place that are not finished."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from data_engine.market.series import Series
from data_engine.market.wording import and_more, plural
from data_engine.store.bar_store import BarStore
from data_engine.store.legacy_files import JOURNALS, REMEDY, LegacySurvey, legacy_keys, survey
from data_engine.store.partitions import series_folder


@dataclass(frozen=True, slots=True)
class LegacyStatus:
    """What a store has of the legacy pipeline.

    Attributes:
        survey: The bars of symbols that data-engine does not know.
        both: The series that data-engine knows and in whose folders such files are, too.
        unfinished: The number of series whose import in place was not finished.
    """

    survey: LegacySurvey
    both: tuple[Series, ...]
    unfinished: int

    def lines(self) -> Iterator[str]:
        """Yield what there is, for people."""
        if self.survey.files:
            yield f"{self.survey}; {REMEDY}"
        if self.both:
            named = and_more([str(one) for one in self.both], 5)
            yield f"Files of the legacy pipeline beside bars of this store, which other readers see twice: {named}; {REMEDY}"
        if self.unfinished:
            yield f"Import in place of {plural(self.unfinished, 'series', 'series')} is not finished; {REMEDY} to go on"

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``status --json`` prints."""
        return {
            "symbols": self.survey.symbols,
            "files": self.survey.files,
            "bars": self.survey.bars,
            "beside_stored_bars": [{"dataset": one.dataset.name, "symbol": one.symbol} for one in self.both],
            "unfinished": self.unfinished,
        }


def legacy_status(store: BarStore, series: Sequence[Series], known: Iterable[Series] | None = None) -> LegacyStatus | None:
    """Return what a store has of the legacy pipeline, or None if that is nothing.

    The folders of *series*, and those without coverage, are listed; others are not.

    Args:
        store: The store.
        series: The series at hand.
        known: All series with coverage. If None, the coverage is listed.
    """
    files, coverage = store.files, store.coverage
    if known is None:
        known = (one for dataset in coverage.datasets() for one in coverage.series(dataset))
    folders = frozenset(map(series_folder, known))
    both = tuple(one for one in series if next(legacy_keys(files, series_folder(one)), None) is not None)
    unfinished = sum(1 for _ in files.list(JOURNALS))
    found = LegacyStatus(survey(files, known=folders), both, unfinished)
    return found if found.survey.files or both or unfinished else None
