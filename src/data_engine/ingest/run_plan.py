"""Plan one run: what it requests in all datasets that it touches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from data_engine.corporate_actions.ticker_changes import (
    AS_OF,
    TickerChange,
    TickerChanges,
    change_after,
    end_of_series,
    until_ticker_change,
)
from data_engine.errors import DamagedFile, Failure, ForeignFiles, StoreError
from data_engine.ingest.outcome import LastingNote
from data_engine.ingest.plan import IngestionPlan, Target, plan_ingestion
from data_engine.market.series import Dataset, Series
from data_engine.market.symbol import asof_day, ticker_of
from data_engine.market.time_range import TimeRange, difference, union
from data_engine.market.wording import and_more
from data_engine.store.coverage import Coverage
from data_engine.store.coverage_store import CoverageSnapshot, CoverageStore
from data_engine.store.file_count import FileCount
from data_engine.store.file_store import FileStore
from data_engine.store.legacy_files import foreign_files
from data_engine.store.lost_files import lost_files
from data_engine.store.partitions import Partition, Period

_NEVER_INGESTED = Failure("never_ingested", "never ingested here; `data-engine ingest` with --start begins a series")


_UNREAD = frozenset({DamagedFile.code, StoreError.code})
"""Codes of series whose files could not be read."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What one run is to do: the wishes of each dataset, made into plans.

    Attributes:
        plans: one per dataset.
        known: coverage at the start, by series; without fingerprints if it comes from a `CoverageSnapshot`.
        broken: series that cannot be worked on: code and message.
        now: when the run began.
        refetch: Whether covered ranges are requested, too.
        changes: The ticker changes that are known.
        cut: The series of which a part is not requested, since the ticker has changed hands, and why.
        ended: The instant from which on the ticker of a series is no longer its security's: nothing is claimed from then on.
        lost: The files that are gone though the coverage counts them; their ranges are requested again.
    """

    plans: tuple[IngestionPlan, ...]
    known: Mapping[Series, Coverage]
    broken: Mapping[Series, Failure]
    now: datetime
    refetch: bool = False
    changes: TickerChanges = field(default_factory=TickerChanges)
    cut: Mapping[Series, str] = field(default_factory=dict)
    ended: Mapping[Series, datetime] = field(default_factory=dict)
    lost: Mapping[Series, frozenset[Period]] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What is to be said of series whose files are gone, and of those that were cut, one line a rename."""
        return [*self._lost_note(), *map(LastingNote, dict.fromkeys(self.cut.values()))]

    def _lost_note(self) -> list[str]:
        names = sorted(Partition(series, period).key for series, periods in self.lost.items() for period in periods)
        if not names:
            return []
        count = f"{len(names):,} counted files are" if len(names) > 1 else "a counted file is"
        return [f"{count} not there any more, and what the source has of their bars is requested again: {and_more(names, 3)}"]

    def requested(self) -> dict[Series, tuple[TimeRange, ...]]:
        """Return what is newly requested, whether or not there is anything to fetch now.

        Series that cannot be worked on count where only their files could not be read: a later run may be able to.
        """
        return {
            series: more
            for plan in self.plans
            for symbol, ranges in plan.wanted.items()
            if ((series := Series(symbol, plan.dataset)) not in self.broken or self.broken[series].code in _UNREAD)
            and (more := difference(ranges, self.known[series].wanted))
        }

    @property
    def series(self) -> list[Series]:
        """All series, in the order they were asked for."""
        return [Series(symbol, plan.dataset) for plan in self.plans for symbol in plan.symbols]


def plan_run(
    coverage: CoverageStore | CoverageSnapshot,
    targets: Mapping[Dataset, Mapping[str, tuple[TimeRange, ...]]],
    *,
    now: datetime,
    workers: int,
    refetch: bool = False,
    gaps_first: bool = False,
    changes: TickerChanges | None = None,
    files: FileStore | None = None,
) -> RunPlan:
    """Read what is covered, and plan what is missing.

    Args:
        coverage: The coverage of the store.
        targets: The requested ranges, by dataset and symbol; a symbol without any cannot be worked on.
        now: The instant when the run begins.
        workers: The number of tasks that run at once.
        refetch: Whether to request covered ranges, too.
        gaps_first: Whether to request what ends before now first.
        changes: The ticker changes that are known; a series is not requested beyond the day on which its security left the
            ticker.
        files: The files of the store: those that the coverage counts in the requested ranges are looked for, and what is gone
            is requested again; series whose folders have legacy files are not worked on. If None, the coverage is believed.
    """
    known_changes = (changes or TickerChanges()).until(now)  # others are announced, and may change
    known: dict[Series, Coverage] = {}
    broken: dict[Series, Failure] = {}
    cut: dict[Series, str] = {}
    ended: dict[Series, datetime] = {}
    lost: dict[Series, frozenset[Period]] = {}
    plans = []
    for dataset, ranges in targets.items():
        usable = []
        for symbol in ranges:
            series = Series(symbol, dataset)
            try:
                known[series] = coverage.read(series)
            except DamagedFile as error:
                known[series], broken[series] = Coverage(series), Failure.of(error)
        if files is not None:
            gone, unreadable = lost_files(files, (known[Series(symbol, dataset)] for symbol in ranges), ranges)
            broken |= {series: Failure.of(error) for series, error in unreadable.items()}
            known |= {series: _without(known[series], periods) for series, periods in gone.items()}
            lost |= gone
        for symbol, requested in ranges.items():
            series = Series(symbol, dataset)
            if series in broken:
                continue
            target, end = _target(known[series], requested, known_changes, refetch=refetch)
            if end is not None:
                ended[series] = end
            if isinstance(target, Failure):
                broken[series] = target
                continue
            lacking = refetch or known[series].missing(target.ranges)
            if lacking and files is not None and (reason := foreign_files(files, series, known=bool(known[series].rows))):
                broken[series] = Failure(ForeignFiles.code, reason)
                lost.pop(series, None)  # nothing of it is written
                continue
            usable.append(target)
            if target.cut:
                cut[series] = target.cut
        plan = plan_ingestion(usable, dataset, now=now, workers=workers, gaps_first=gaps_first)
        failed = {symbol: broken[series] for symbol in ranges if (series := Series(symbol, dataset)) in broken}
        plan = replace(plan, symbols=tuple(ranges), wanted={**dict(ranges), **plan.wanted}, failed=failed)
        plans.append(plan if usable else replace(plan, span=_hull(ranges, plan.span)))
    return RunPlan(tuple(plans), known, broken, now, refetch, changes or TickerChanges(), cut, ended, lost)


def _hull(ranges: Mapping[str, tuple[TimeRange, ...]], default: TimeRange) -> TimeRange:
    """Return the range from the first requested instant to the last; the default if nothing is requested."""
    pieces = [piece for spans in ranges.values() for piece in spans]
    return TimeRange(min(one.start for one in pieces), max(one.end for one in pieces)) if pieces else default


def _without(known: Coverage, lost: frozenset[Period]) -> Coverage:
    return known.without_files(lost, dict.fromkeys(lost, FileCount(0)))


def _target(
    known: Coverage, requested: tuple[TimeRange, ...], changes: TickerChanges, *, refetch: bool
) -> tuple[Target | Failure, datetime | None]:
    """Return what a run is to complete of a series, or why it cannot work on it; and when its security left the ticker."""
    series = known.series
    if not requested:
        return _NEVER_INGESTED, None
    if (problem := changes.problem_of(series.symbol)) is not None:
        return Failure(DamagedFile.code, problem), None
    if refetch and not series.dataset.adjustment.is_raw:
        requested = union((*requested, *known.wanted))  # one adjustment basis, or none
    part = _part_of_one_security(known, requested, changes)
    if not part.ranges and part.cut:
        return Failure(part.code, part.cut), part.end
    return Target(series.symbol, part.ranges, known, refetch=refetch, asof=part.asof, cut=part.cut), part.end


@dataclass(frozen=True, slots=True)
class _Part:
    """The part of what is requested in which the ticker is one security's.

    Attributes:
        ranges: The part.
        cut: Why it is not all.
        asof: The day as of which to request it; None is today.
        end: When the security of the series left the ticker.
        code: The code of the failure if nothing is left to request.
    """

    ranges: tuple[TimeRange, ...]
    cut: str | None = None
    asof: date | None = None
    end: datetime | None = None
    code: str = "renamed"


def _part_of_one_security(known: Coverage, requested: tuple[TimeRange, ...], changes: TickerChanges) -> _Part:
    """Return the part of what is requested that is one security's.

    A series that holds nothing yet becomes that of whoever had the ticker when the first requested range begins. Where that
    security has left it, Alpaca is asked as of its last day: as of today it answers for the next owner, whatever the range.
    """
    symbol = known.series.symbol
    asof = asof_day(symbol)
    if asof is None and not changes.of(symbol):
        return _Part(requested)
    left = _change_within(known, changes, min(span.start for span in requested))
    if left is None:
        return _Part(requested, asof=asof)
    cut: list[str] = []
    if asof is None and _is_next_owners(known, left):
        if difference(until_ticker_change(requested, left), known.covered):
            cut.append(
                f"{left}, and the store has {symbol} of after that, which is another security; only that was requested; "
                f"`data-engine ingest {symbol}@{left.last_day}` fetches the former one"
            )
        requested = _from(requested, left.instant)
        left = end_of_series(known, changes.of, since=left.instant) if requested else None
        if left is None:
            return _Part(requested, "; ".join(cut) or None)
    before = until_ticker_change(requested, left)
    if not before:
        code = "renamed" if left.new is not None else "ended"
        return _Part((), _ended_before(symbol, left), asof or left.last_day, left.instant, code)
    if _from(requested, left.instant) and left.kind != AS_OF:
        owner = "; what came after is the next owner's" if asof is None else ""
        rest = f", and {left.new} has the rest" if left.new is not None else ""
        cut.append(f"{left}: {symbol} was requested up to then{owner}{rest}")
    return _Part(before, "; ".join(cut) or None, asof or left.last_day, left.instant)


def _from(ranges: tuple[TimeRange, ...], instant: datetime) -> tuple[TimeRange, ...]:
    """Return what of some ranges follows an instant."""
    return union(piece for piece in (span.after(instant) for span in ranges) if piece is not None)


def _is_next_owners(known: Coverage, left: TickerChange) -> bool:
    """Return whether what is stored or requested of a series is of after a change: of the security that took the ticker.

    That also holds where more was requested, if the series was begun after the change and has no bar of before.
    """
    begins, first = _begin(known), known.first_bar
    late = known.begun is not None and known.begun >= left.instant and first is not None and first >= left.instant
    return late or (begins is not None and begins >= left.instant)


def _ended_before(symbol: str, left: TickerChange) -> str:
    """Return why nothing of a series can be requested: its security had left the ticker before the range."""
    if symbol != ticker_of(symbol):
        return f"{left}: there is nothing of {symbol} after that; pass an earlier --start, or {left.old} for the next owner"
    return (
        f"{left}, and the store has {symbol} of before: the ticker's next owner cannot share its series; run `data-engine ingest "
        f"{symbol}@{left.last_day}` to have the former owner under a name of its own, then `data-engine remove {symbol}` "
        "to make room for the next one"
    )


def _begin(known: Coverage) -> datetime | None:
    """Return where what is requested or stored of a series begins; None if that is nothing."""
    starts = [span.start for span in known.wanted] + ([known.first_bar] if known.first_bar else [])
    return min(starts, default=None)


def _change_within(known: Coverage, changes: TickerChanges, start: datetime) -> TickerChange | None:
    """Return the change that ended the security of what is requested, else that of what is stored."""
    for since in (start, _begin(known)):
        left = None if since is None else change_after(known, changes.of, since)
        if left is not None:
            return left
    return None
