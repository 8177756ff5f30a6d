"""Compute the status of every series of a store: stored, requested and missing ranges."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.ticker_changes import TickerChange, end_of_series, until_ticker_change
from data_engine.errors import DamagedFile, StoreError
from data_engine.market.dates import any_span
from data_engine.market.exchange_calendar import can_hold_bars
from data_engine.market.series import Dataset, Series
from data_engine.market.symbol import ticker_of
from data_engine.market.time_range import TimeRange, difference, intersection, iso, union
from data_engine.store.bar_store import BarStore
from data_engine.store.conflicts import live_conflicts
from data_engine.store.coverage import Coverage
from data_engine.store.coverage_file import to_rows
from data_engine.store.partitions import Period, file_keys, periods
from data_engine.store.selection import DatasetFilter, select_series
from data_engine.store.silence import silent_since
from data_engine.universe.delisted import Delisted
from data_engine.universe.member_series import MemberSeries
from data_engine.universe.membership import MembershipChange, memberships, replay


@dataclass(frozen=True, slots=True)
class SeriesStatus:
    """The status of one series.

    Attributes:
        series: The series.
        coverage: Its coverage, without fingerprints; empty if that cannot be read.
        missing: The missing ranges in which there can be bars that have ended.
        files: The number of bar files.
        bytes: Their size.
        problem: Why the coverage or the corporate actions cannot be read. If None, they can.
        ended: The change at which the series ends. If None, its security has the ticker still.
    """

    series: Series
    coverage: Coverage
    missing: tuple[TimeRange, ...] = ()
    files: int = 0
    bytes: int = 0
    problem: str | None = None
    ended: TickerChange | None = None

    @property
    def not_requested(self) -> tuple[TimeRange, ...]:
        """The ranges between fetched ones that are not requested and in which there can be bars."""
        fetched = union((*self.coverage.covered, *self.coverage.provisional))
        if not fetched:
            return ()
        between = difference([TimeRange(fetched[0].start, fetched[-1].end)], (*fetched, *self.coverage.wanted))
        return tuple(span for span in between if can_hold_bars(span, self.series.dataset))

    @property
    def silent_since(self) -> date | None:
        """The New York day of the last bar if Alpaca has had none for long (`silent_since`); None for a series that has ended."""
        return silent_since(self.coverage) if self.ended is None else None

    @property
    def state(self) -> str:
        """The state: damaged, failed, incomplete, ended, empty, unverified, filled, silent or complete.

        A series is unverified if nothing of it was requested: `store` or an import brought its bars; it is filled if they are for
        gaps of Alpaca's.
        """
        if self.problem:
            return "damaged"
        known = self.coverage
        unanswered = known.wanted and not (known.covered or known.provisional or known.bars)
        if self.missing or unanswered:
            failure = known.failure
            return "failed" if failure and failure.code != "interrupted" else "incomplete"
        if self.series.dataset.fill:
            return "filled" if known.bars else "empty"
        if self.ended is not None and known.bars:
            return "ended"
        if not known.bars:
            return "empty"
        if not (known.wanted or known.covered or known.provisional):
            return "unverified"
        return "silent" if self.silent_since is not None else "complete"

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``status --json`` prints for a series."""
        known = self.coverage
        dataset = self.series.dataset
        return {
            "dataset": dataset.name,
            "symbol": self.series.symbol,
            "timeframe": str(dataset.timeframe),
            "feed": dataset.feed.value,
            "adjustment": str(dataset.adjustment),
            "state": self.state,
            "requested": _pairs(known.wanted),
            "covered": _pairs(known.covered),
            "provisional": _pairs(known.provisional),
            "imported": _pairs(known.imported),
            "filled": to_rows(known.filled),
            "missing": _pairs(self.missing),
            "not_requested": _pairs(self.not_requested),
            "bars": known.bars,
            "conflicting": known.conflicting,
            "files": self.files,
            "bytes": self.bytes,
            "first_bar": iso(known.first_bar) if known.first_bar else None,
            "last_bar": iso(known.last_bar) if known.last_bar else None,
            "failure": {"code": known.failure.code, "message": known.failure.message} if known.failure else None,
            "problem": self.problem,
            "silent_since": self.silent_since.isoformat() if self.silent_since else None,
            "ended": self.ended.to_json() if self.ended else None,
        }


def series_status(
    storage: BarStore, choice: DatasetFilter, names: Sequence[str] | None = None, *, now: datetime
) -> Iterator[SeriesStatus]:
    """Yield the status of the selected series, by dataset and symbol.

    Coverage, requested ranges and file sizes are read, and of bar files only those that a killed run has changed, as their sizes
    or the coverage tell, or that have conflicting bars. That a file of the same size has changed, `verify` tells.

    Args:
        storage: The store.
        choice: The datasets.
        names: The symbols. If None, all.
        now: The current time; from the bar on that contains it, nothing is missing yet.

    Raises:
        DamagedFile: If requested ranges cannot be read.
    """
    for one in stored_series(storage, choice, names, now=now, sizes=True):
        series, known = one.series, one.coverage
        if one.damage is not None:
            if not isinstance(one.damage, DamagedFile):
                raise one.damage
            yield SeriesStatus(series, known, problem=str(one.damage))
            continue
        if known.conflicting:
            known = replace(known, conflicting=_conflicting(storage, known))
        missing = until_ticker_change(known.incomplete(any_span(None, None), now), one.ended)
        missing = tuple(span for span in missing if can_hold_bars(span, series.dataset))
        yield SeriesStatus(series, known, missing, len(one.sizes), sum(one.sizes), one.problem, one.ended)


def _conflicting(storage: BarStore, known: Coverage) -> int:
    """Return how many bars of a series conflict with Alpaca's still; as counted last if a file cannot be read."""
    try:
        return len(live_conflicts(storage, known.series))
    except StoreError:
        return known.conflicting


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """What is known of one series.

    Attributes:
        series: The series.
        coverage: Its coverage, without fingerprints; empty if that cannot be read.
        ended: The change at which the series ends. If None, its security has the ticker still.
        damage: Why the coverage, or a file that must be counted anew, cannot be read. If None, they can.
        problem: Why the corporate actions of the symbol cannot be read. If None, they can.
        sizes: The sizes of its bar files in bytes, if they were asked for.
    """

    series: Series
    coverage: Coverage
    ended: TickerChange | None = None
    damage: StoreError | None = None
    problem: str | None = None
    sizes: tuple[int, ...] = ()


def stored_series(
    storage: BarStore, choice: DatasetFilter, names: Sequence[str] | None = None, *, now: datetime, sizes: bool = False
) -> Iterator[StoredSeries]:
    """Yield what is known of the selected series, by dataset and symbol; each coverage is read when its turn comes.

    Args:
        storage: The store.
        choice: The datasets.
        names: The symbols. If None, all.
        now: The current time; a series whose end is only announced has not ended.
        sizes: Whether the sizes of the bar files are looked at, and those that are not as counted are counted anew.

    Raises:
        DamagedFile: If requested ranges cannot be read.
    """
    changes, delisted = ActionStore(storage.files).ticker_changes().until(now), Delisted(storage.files)
    for series in select_series(storage.coverage, choice, names):
        found: tuple[int, ...] = ()
        try:
            if sizes:
                known, found = sized_coverage(storage, series)
            else:
                known = counted_coverage(storage, series)
        except StoreError as error:
            yield StoredSeries(series, Coverage(series), damage=error)
            continue
        ended = None if series.dataset.fill else end_of_series(known, changes.of) or delisted.change_of(known)
        yield StoredSeries(series, known, ended, None, changes.problem_of(series.symbol), found)


def counted_coverage(storage: BarStore, series: Series) -> Coverage:
    """Return the coverage of a series without fingerprints; files that a killed run was changing are counted anew.

    Nothing is written.

    Raises:
        DamagedFile: If the coverage, or one of these files, cannot be read.
    """
    known = storage.coverage.read(series, fingerprints=False)
    return known.recounted(storage.count_files(known, (), durable=False)) if known.uncounted else known


def sized_coverage(storage: BarStore, series: Series) -> tuple[Coverage, tuple[int, ...]]:
    """Return the same as `counted_coverage`, after the files that are not as large as counted were counted anew; and all sizes.

    In a provisional range a run writes bars before it counts them, and may be killed between the two.

    Raises:
        DamagedFile: If the coverage, or a file that is counted, cannot be read.
    """
    known, counted = storage.coverage.read_with_sizes(series)
    provisional = (one for span in known.provisional for one in periods(span, series.dataset))
    chosen = [*known.rows, *{one: None for one in (*known.uncounted, *provisional) if one not in known.rows}]
    sizes = storage.files.sizes_of(file_keys(series, chosen))
    other = _changed(counted, chosen, sizes, len(known.rows))
    if other or known.uncounted:
        known = replace(known.recounted(storage.count_files(known, other, durable=False)), files={})
    return known, tuple(size for size in sizes if size is not None)


def _changed(counted: Mapping[Period, int], chosen: Sequence[Period], sizes: Sequence[int | None], of_rows: int) -> list[Period]:
    """Return the files that are not as large as they were when they were counted: first the counted ones, then others.

    Of one without a fingerprint, only that it is gone is known.

    Args:
        counted: The sizes in the fingerprints.
        chosen: The files.
        sizes: Their sizes.
        of_rows: How many of them, from the first on, are counted.
    """
    found = zip(chosen[:of_rows], sizes, strict=False)
    changed = [one for one, size in found if size is None or counted.get(one, size) != size]
    return changed + [one for one, size in zip(chosen[of_rows:], sizes[of_rows:], strict=True) if size is not None]


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The members of an index without bars in one dataset.

    Attributes:
        dataset: The dataset.
        span: The range from the first stored bar of the index's symbols to the end of the last. If None, there is none.
        members: The number of current members.
        without: The current members without any bar.
        former: The number of former members that were members at some time in *span*.
        former_without: Those of them without bars of their membership.
    """

    dataset: Dataset
    span: TimeRange | None
    members: int
    without: tuple[str, ...]
    former: int
    former_without: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``status --index NAME --json`` prints for a dataset."""
        return {
            "dataset": self.dataset.name,
            "stored": _pairs([self.span])[0] if self.span else None,
            "members": self.members,
            "without_bars": list(self.without),
            "former_members": self.former,
            "former_without_bars": list(self.former_without),
        }


def index_status(
    changes: Sequence[MembershipChange],
    datasets: Iterable[Dataset],
    found: Iterable[SeriesStatus],
    series_in: Callable[[Dataset], MemberSeries],
) -> list[IndexStatus]:
    """Return which members of an index have no bars, by dataset.

    A bar file counts for a former member if its month (its year, for daily bars) overlaps the membership.

    Args:
        changes: The membership history of the index.
        datasets: The datasets.
        found: The result of `series_status` for these datasets; series of other symbols are ignored.
        series_in: A function that finds the series of former members in a dataset.
    """
    members = replay(changes)
    symbols = {change.symbol for change in changes}
    former = {symbol: memberships(changes, symbol) for symbol in sorted(symbols - members.keys())}
    by_dataset: dict[Dataset, dict[str, Coverage]] = {dataset: {} for dataset in datasets}
    for one in found:
        if ticker_of(one.series.symbol) in symbols and one.series.dataset in by_dataset and one.coverage.bars:
            by_dataset[one.series.dataset][one.series.symbol] = one.coverage
    return [_index_status(dataset, stored, members, former, series_in(dataset)) for dataset, stored in by_dataset.items()]


def _index_status(
    dataset: Dataset,
    stored: Mapping[str, Coverage],
    members: Collection[str],
    former: Mapping[str, Sequence[TimeRange]],
    series: MemberSeries,
) -> IndexStatus:
    """Return the status of an index in one dataset.

    Args:
        dataset: The dataset.
        stored: The coverage of the symbols that have bars.
        members: The current members.
        former: The former members, and when they were members.
        series: What finds their series.
    """
    without = tuple(sorted(symbol for symbol in members if symbol not in stored))
    span = _stored_span(stored.values())
    if span is None:
        return IndexStatus(dataset, None, len(members), without, 0, ())
    inside = {symbol: shared for symbol, ranges in former.items() if (shared := intersection(ranges, (span,)))}
    former_without = tuple(symbol for symbol in inside if not _has_own_bars(stored, series.of({symbol: former[symbol]}), span))
    return IndexStatus(dataset, span, len(members), without, len(inside), former_without)


def _stored_span(stored: Collection[Coverage]) -> TimeRange | None:
    """Return the range from the first bar of all series to the end of the last."""
    firsts = [one.first_bar for one in stored if one.first_bar]
    lasts = [(one.last_bar, one.series.dataset.timeframe) for one in stored if one.last_bar]
    ends = [timeframe.next(timeframe.floor(last)) for last, timeframe in lasts]
    return TimeRange(min(firsts), max(ends)) if firsts and ends else None


def _has_own_bars(stored: Mapping[str, Coverage], own: Mapping[str, Sequence[TimeRange]], span: TimeRange) -> bool:
    """Return whether one of the series that a member was has bars of its membership in a range."""
    return any(_has_bars(stored.get(name), intersection(ranges, (span,))) for name, ranges in own.items())


def _has_bars(coverage: Coverage | None, ranges: Sequence[TimeRange]) -> bool:
    if coverage is None or coverage.first_bar is None or coverage.last_bar is None:
        return False
    first, last = coverage.first_bar, coverage.last_bar
    files = [period.span for period in coverage.rows]
    return any(span.start <= last and span.end > first for span in intersection(files, ranges))


def _pairs(ranges: Sequence[TimeRange]) -> list[list[str]]:
    return [[iso(part.start), iso(part.end)] for part in ranges]
