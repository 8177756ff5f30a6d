"""Select the series whose covered ranges can be fetched again and compared: `Recheckable`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.ticker_changes import TickerChanges, end_of_series, until_ticker_change
from data_engine.errors import DamagedFile, Failure, InputError
from data_engine.market.series import Series
from data_engine.market.symbol import asof_day
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.coverage_store import CoverageStore
from data_engine.store.selection import DatasetFilter, select_series


@dataclass(frozen=True, slots=True)
class Recheckable:
    """The series whose covered ranges can be fetched again.

    Attributes:
        known: Their coverage, up to the day on which the security of the series left the ticker.
        failed: The failures of series whose coverage or ticker changes cannot be read.
        asof: For each series whose security has left the ticker, its last day there: as of today, Alpaca responds for the
            security that has the ticker now.
    """

    known: list[Coverage] = field(default_factory=list)
    failed: dict[Series, Failure] = field(default_factory=dict)
    asof: dict[Series, date] = field(default_factory=dict)

    def add(self, series: Series, coverage: CoverageStore, changes: TickerChanges, now: datetime) -> None:
        """Add a series, up to the day on which its security left the ticker."""
        if (problem := changes.problem_of(series.symbol)) is not None:
            self.failed[series] = Failure(DamagedFile.code, problem)
            return
        try:
            known = coverage.read(series, fingerprints=False)
        except DamagedFile as error:
            self.failed[series] = Failure.of(error)
            return
        left = end_of_series(known, changes.of)
        self.known.append(replace(known, covered=until_ticker_change(known.covered, left)))
        asof = asof_day(series.symbol) or (left.last_day if left is not None and left.instant <= now else None)
        if asof is not None:
            self.asof[series] = asof

    def check(self, names: Sequence[str] | None, command: str) -> None:
        """Raise `InputError` if one of the names has no series here."""
        symbols = {one.series.symbol for one in self.known} | {series.symbol for series in self.failed}
        unknown = [name for name in names or () if name not in symbols]
        if unknown:
            raise InputError(
                f"cannot {command} {', '.join(unknown)}: not stored, or only adjusted; pass --adjustment to select an adjusted "
                "series"
            )


def recheckable(
    storage: BarStore,
    choice: DatasetFilter,
    names: Sequence[str] | None,
    *,
    now: datetime,
    command: str = "recheck",
) -> Recheckable:
    """Return the series that can be fetched again.

    Adjusted series only if *choice* names their adjustment: every corporate action changes all their prices.

    Args:
        storage: The store of the bars.
        choice: The datasets to select from.
        names: The symbols to select. If None, all.
        now: The current instant.
        command: The command, for messages.

    Raises:
        InputError: If a symbol is in no selected dataset.
    """
    found = Recheckable()
    changes = ActionStore(storage.files).ticker_changes()
    for series in select_series(storage.coverage, choice.fetched, names):
        if series.dataset.adjustment.is_raw or choice.adjustment is not None:
            found.add(series, storage.coverage, changes, now)
    found.check(names, command)
    return found
