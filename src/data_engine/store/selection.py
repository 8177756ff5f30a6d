"""Which series of a store a command is about: a filter over datasets, and the series that pass it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.store.coverage_store import CoverageStore


@dataclass(frozen=True, slots=True)
class DatasetFilter:
    """Which datasets a command is about; None is all.

    Attributes:
        timeframe: of the dataset.
        feed: of the dataset, as stored.
        adjustment: of the dataset.
    """

    timeframe: Timeframe | None = None
    feed: Feed | None = None
    adjustment: Adjustment | None = None

    @classmethod
    def parse(cls, timeframe: object = None, feed: object = None, adjustment: object = None) -> DatasetFilter:
        """Read what people write.

        Raises:
            InputError: there is no such timeframe, feed or adjustment.
        """
        return cls(
            None if timeframe is None else Timeframe.parse(timeframe),
            None if feed is None else Feed.parse(feed).stored,
            None if adjustment is None else Adjustment.parse(adjustment),
        )

    def __contains__(self, dataset: Dataset) -> bool:
        return (
            self.timeframe in (None, dataset.timeframe)
            and self.feed in (None, dataset.feed)
            and self.adjustment in (None, dataset.adjustment)
        )


def select_series(coverage: CoverageStore, choice: DatasetFilter, names: Sequence[str] | None) -> Iterator[Series]:
    """Yield the known series of the chosen datasets, by dataset and symbol; with *names*, only theirs."""
    wanted = None if names is None else set(names)
    for dataset in coverage.datasets():
        if dataset in choice:
            for series in coverage.series(dataset):
                if wanted is None or series.symbol in wanted:
                    yield series
