"""Find what changed of the bars of a series after they were final: `later_changes`.

A bar *came late* if it was added where the series was covered already: its range was complete and final, without it. A bar was
*revised* later if its range was covered then. What was not covered, such as provisional bars, may change, and is only counted.
Bars that went are told in any case: what is removed on purpose is withdrawn from the coverage first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache

import numpy as np

from data_engine.errors import StoreError
from data_engine.market.bars import Int64s, from_micros
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange, intersection, new_york_date
from data_engine.store import coverage_file
from data_engine.store.bar_store import BarStore
from data_engine.store.history.bar_changes import ChangedBars
from data_engine.store.history.chain import Chain
from data_engine.store.history.file_walk import FileWalk
from data_engine.store.history.past_coverage import PastCoverage
from data_engine.store.history.series_history import recorded_files
from data_engine.store.history.store_history import StoreHistory
from data_engine.store.history.undo import Kind
from data_engine.store.partitions import Partition

_HOUR = 3_600_000_000  # microseconds; a New York day begins at a full hour of UTC


@dataclass(frozen=True, slots=True)
class LaterChange:
    """What one commit did to bars of a series that were final, or that it took out.

    Attributes:
        series: The series.
        instant: When the commit was recorded, UTC.
        actor: Who made it.
        late: The number of bars that were added where the series was covered.
        revised: The number of bars that were revised where it was.
        removed: The number of bars that went.
        not_kept: The number of files whose old bars are not kept.
        days: The New York days of these bars, ascending.
    """

    series: Series
    instant: datetime
    actor: str
    late: int
    revised: int
    removed: int
    not_kept: int
    days: tuple[date, ...]


@dataclass(slots=True)
class LaterChanges:
    """What changed of the bars of a series after they were final.

    Attributes:
        changes: The commits that changed some, the latest first.
        days: The number of bars that came late, were revised and went, by their New York day.
        open: The number of bars that were revised where the series was not covered: they were provisional, or only stored.
        unknown: The number of bars that were added or revised when it is not known what was covered.
        from_before: The number of files that were there when the history began.
        unexplained: The number of files that some change is not recorded of.
        problems: Why the history of a file cannot be read.
    """

    changes: list[LaterChange] = field(default_factory=list)
    days: dict[date, tuple[int, int, int]] = field(default_factory=dict)
    open: int = 0
    unknown: int = 0
    from_before: int = 0
    unexplained: int = 0
    problems: list[str] = field(default_factory=list)


def later_changes(store: BarStore, history: StoreHistory, series: Series) -> LaterChanges:
    """Return what changed of the bars of a series after they were final.

    Args:
        store: The store as it is.
        history: Its history.
        series: The series.

    Raises:
        StoreError: If a file cannot be read.
    """
    found = _Collected(series)
    files = recorded_files(store, history, series, None)
    known = coverage_file.key(series)
    present = history.present_of((known, *(one.key for one in files)))
    coverage = PastCoverage(series, *present[known])
    for one in files:
        content, chain = present[one.key]
        found.note(content, chain)
        if _may_be_later(one, chain, coverage):
            try:
                for link, changed in FileWalk(store, one.key, content).back(chain):
                    found.add((link.instant, link.actor), changed, coverage.covered_before(link.number))
            except StoreError as error:
                found.result.problems.append(str(error))
    return found.finish()


def _may_be_later(file: Partition, chain: Chain, coverage: PastCoverage) -> bool:
    """Tell whether a change of a file can be of bars that were final; most files have only been made."""
    for link in chain.links:
        if link.entry.undo.kind is not Kind.ABSENT:
            return True
        covered = coverage.covered_before(link.number)
        if covered is None or intersection(covered, (file.period.span,)):
            return True
    return False


class _Collected:
    """Collect the changes of the files of a series by commit."""

    def __init__(self, series: Series) -> None:
        self.result = LaterChanges()
        self._series = series
        self._commits: dict[tuple[datetime, str], list[ChangedBars | None]] = {}

    def note(self, content: bytes | None, chain: Chain) -> None:
        """Count a file that was there before its history, or is not explained by it."""
        if chain.unknown or chain.begins is not None or chain.gaps:
            self.result.unexplained += 1
        elif (chain.links[-1].entry.before if chain.links else content) is not None:
            self.result.from_before += 1

    def add(self, commit: tuple[datetime, str], changed: ChangedBars | None, covered: Iterable[TimeRange] | None) -> None:
        """Add what a commit did to a file.

        Args:
            commit: Its instant and its actor.
            changed: The bars; None if the old ones are not kept.
            covered: The ranges that were covered before it; None if they are not known.
        """
        if changed is None:
            self._commits.setdefault(commit, []).append(None)
            return
        if covered is None:
            self.result.unknown += changed.added.size + changed.revised.size
        final = changed.where(covered or ())
        if covered is not None:
            self.result.open += changed.revised.size - final.revised.size
        later = ChangedBars(final.added, final.revised, changed.removed)
        if later.touched.size:
            self._commits.setdefault(commit, []).append(later)

    def finish(self) -> LaterChanges:
        """Return what was collected."""
        for (instant, actor), parts in sorted(self._commits.items(), reverse=True):
            kept = [part for part in parts if part is not None]
            counts = [_by_day([getattr(part, name) for part in kept]) for name in ("added", "revised", "removed")]
            days = sorted({day for count in counts for day in count})
            late, revised, removed = (count.total() for count in counts)
            not_kept = len(parts) - len(kept)
            self.result.changes.append(LaterChange(self._series, instant, actor, late, revised, removed, not_kept, tuple(days)))
            for day in days:
                before = self.result.days.get(day, (0, 0, 0))
                self.result.days[day] = (before[0] + counts[0][day], before[1] + counts[1][day], before[2] + counts[2][day])
        return self.result


def _by_day(parts: Iterable[Int64s]) -> Counter[date]:
    """Return the number of timestamps by New York day."""
    found: Counter[date] = Counter()
    for times in parts:
        hours, counts = np.unique(times // _HOUR, return_counts=True)
        for hour, count in zip(hours.tolist(), counts.tolist(), strict=True):
            found[_day_of(hour)] += count
    return found


@lru_cache(1 << 14)
def _day_of(hour: int) -> date:
    return new_york_date(from_micros(hour * _HOUR))
