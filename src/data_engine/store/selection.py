"""Select the datasets and series of a store that a command is about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.store.coverage_store import CoverageStore


@dataclass(frozen=True, slots=True)
class DatasetFilter:
    """The datasets that a command is about.

    Attributes:
        timeframe: The timeframe of the datasets. If None, any.
        feed: The feed of the datasets, as stored. If None, any.
        adjustment: The adjustment of the datasets. If None, any.
        fill: Whether they have bars of other sources than Alpaca. If None, all.
    """

    timeframe: Timeframe | None = None
    feed: Feed | None = None
    adjustment: Adjustment | None = None
    fill: bool | None = None

    @classmethod
    def parse(cls, timeframe: object = None, feed: object = None, adjustment: object = None) -> DatasetFilter:
        """Return the filter for a user's arguments.

        Raises:
            InputError: If a timeframe, feed or adjustment does not exist.
        """
        return cls(
            None if timeframe is None else Timeframe.parse(timeframe),
            None if feed is None else Feed.parse(feed).stored,
            None if adjustment is None else Adjustment.parse(adjustment),
        )

    @property
    def is_everything(self) -> bool:
        """Whether no dataset of Alpaca's raw bars is left out."""
        return self.timeframe is None and self.feed is None and (self.adjustment is None or self.adjustment.is_raw)

    @property
    def raw(self) -> DatasetFilter:
        """The same datasets without the adjusted ones."""
        return replace(self, adjustment=Adjustment.parse(None))

    @property
    def fetched(self) -> DatasetFilter:
        """The same datasets without those whose bars come from other sources than Alpaca."""
        return replace(self, fill=False)

    @property
    def filling(self) -> DatasetFilter:
        """Those of the same datasets whose bars come from other sources than Alpaca."""
        return replace(self, fill=True)

    def __contains__(self, dataset: Dataset) -> bool:
        return (
            self.timeframe in (None, dataset.timeframe)
            and self.feed in (None, dataset.feed)
            and self.adjustment in (None, dataset.adjustment)
            and self.fill in (None, dataset.fill)
        )


def stored_of(coverage: CoverageStore, datasets: DatasetFilter, symbols: Sequence[str]) -> list[str]:
    """Return those of some symbols that have a series in the selected datasets, in their order."""
    stored = {series.symbol for series in select_series(coverage, datasets, symbols)}
    return [symbol for symbol in symbols if symbol in stored]


def select_series(coverage: CoverageStore, datasets: DatasetFilter, symbols: Sequence[str] | None) -> Iterator[Series]:
    """Yield the series of the selected datasets that have coverage or are requested, by dataset and symbol.

    What is requested is read from the store when this begins, once.

    Args:
        coverage: The coverage of the store.
        datasets: The datasets to select from.
        symbols: The symbols to select. If None, all.

    Raises:
        DamagedFile: If requested ranges cannot be read.
    """
    coverage.requested.refresh()
    selected = None if symbols is None else set(symbols)
    for dataset in coverage.datasets():
        if dataset in datasets:
            for series in coverage.series(dataset):
                if selected is None or series.symbol in selected:
                    yield series
