"""Plan one run: what it requests in all datasets that it touches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from data_engine.corporate_actions.ticker_changes import TickerChange, TickerChanges, ticker_change_of, until_ticker_change
from data_engine.errors import DamagedFile, Failure
from data_engine.ingest.plan import IngestionPlan, Target, plan_ingestion
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, difference, union
from data_engine.market.wording import and_more
from data_engine.store.coverage import Coverage, FileCount
from data_engine.store.coverage_store import CoverageStore
from data_engine.store.file_store import FileStore
from data_engine.store.lost_files import lost_files
from data_engine.store.partitions import Partition, Period

_NEVER_INGESTED = Failure("never_ingested", "never ingested here; `data-engine ingest` with --start begins a series")


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What one run is to do: the wishes of each dataset, made into plans.

    Attributes:
        plans: one per dataset.
        known: coverage at the start, by series.
        broken: series that cannot be worked on: code and message.
        now: when the run began.
        refetch: Whether covered ranges are requested, too.
        changes: The ticker changes that are known.
        cut: The series of which a part is not requested, since the ticker has changed hands, and why.
        lost: The files that are gone though the coverage counts them; their ranges are requested again.
    """

    plans: tuple[IngestionPlan, ...]
    known: Mapping[Series, Coverage]
    broken: Mapping[Series, Failure]
    now: datetime
    refetch: bool = False
    changes: TickerChanges = field(default_factory=TickerChanges)
    cut: Mapping[Series, str] = field(default_factory=dict)
    lost: Mapping[Series, frozenset[Period]] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What is to be said of series whose files are gone, and of those that were cut, one line a rename."""
        return [*self._lost_note(), *dict.fromkeys(self.cut.values())]

    def _lost_note(self) -> list[str]:
        names = sorted(Partition(series, period).key for series, periods in self.lost.items() for period in periods)
        if not names:
            return []
        count = f"{len(names):,} counted files are" if len(names) > 1 else "a counted file is"
        return [f"{count} not there any more, and what the source has of their bars is requested again: {and_more(names, 3)}"]

    def requested(self) -> dict[Series, tuple[TimeRange, ...]]:
        """Return what is newly requested of the series that can be worked on, whether or not there is anything to fetch now."""
        return {
            series: more
            for plan in self.plans
            for symbol, ranges in plan.wanted.items()
            if (series := Series(symbol, plan.dataset)) not in self.broken
            and (more := difference(ranges, self.known[series].wanted))
        }

    @property
    def series(self) -> list[Series]:
        """All series, in the order they were asked for."""
        return [Series(symbol, plan.dataset) for plan in self.plans for symbol in plan.symbols]


def plan_run(
    coverage: CoverageStore,
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
            is requested again. If None, the coverage is believed.
    """
    known_changes = changes or TickerChanges()
    known: dict[Series, Coverage] = {}
    broken: dict[Series, Failure] = {}
    cut: dict[Series, str] = {}
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
            gone = lost_files(files, (known[Series(symbol, dataset)] for symbol in ranges), ranges)
            known |= {series: _without(known[series], periods) for series, periods in gone.items()}
            lost |= gone
        for symbol, requested in ranges.items():
            series = Series(symbol, dataset)
            if series in broken:
                continue
            target = _target(known[series], requested, known_changes, now=now, refetch=refetch)
            if isinstance(target, Failure):
                broken[series] = target
                continue
            usable.append(target)
            if target.cut:
                cut[series] = target.cut
        plan = plan_ingestion(usable, dataset, now=now, workers=workers, gaps_first=gaps_first)
        plans.append(replace(plan, symbols=tuple(ranges), wanted={**dict(ranges), **plan.wanted}))
    return RunPlan(tuple(plans), known, broken, now, refetch, known_changes, cut, lost)


def _without(known: Coverage, lost: frozenset[Period]) -> Coverage:
    return known.without_files(lost, dict.fromkeys(lost, FileCount(0)))


def _target(
    known: Coverage, requested: tuple[TimeRange, ...], changes: TickerChanges, *, now: datetime, refetch: bool
) -> Target | Failure:
    """Return what a run is to complete of a series, or why it cannot work on it."""
    series = known.series
    if not requested:
        return _NEVER_INGESTED
    if series.symbol in changes.unreadable:
        return Failure(DamagedFile.code, changes.unreadable[series.symbol])
    if refetch and not series.dataset.adjustment.is_raw:
        requested = union((*requested, *known.wanted))  # one adjustment basis, or none
    past = tuple(one for one in changes.of(series.symbol) if one.instant <= now)  # others are announced, and may change
    part = _part_of_one_security(known, requested, past)
    if not part.ranges and part.cut:
        return Failure("renamed", f"{part.cut}; `data-engine remove {series.symbol}` makes room for the other one")
    return Target(series.symbol, part.ranges, known, refetch=refetch, asof=part.asof, cut=part.cut)


@dataclass(frozen=True, slots=True)
class _Part:
    """The part of what is requested in which the ticker is one security's, why that is not all, and as of when to ask."""

    ranges: tuple[TimeRange, ...]
    cut: str | None = None
    asof: date | None = None


def _part_of_one_security(known: Coverage, requested: tuple[TimeRange, ...], changes: tuple[TickerChange, ...]) -> _Part:
    """Return the part of what is requested that is one security's.

    A series that holds nothing yet becomes that of whoever had the ticker when the first requested range begins. Where that
    security has left it, Alpaca is asked as of its last day: as of today it answers for the next owner, whatever the range.
    """
    if not changes or not requested:
        return _Part(requested)
    begins = _begin(known)
    left = _change_within(known, changes, min(span.start for span in requested), begins)
    if left is None:
        return _Part(requested)
    before = until_ticker_change(requested, left)
    after = union(piece for piece in (span.after(left.instant) for span in requested) if piece is not None)
    if begins is not None and begins >= left.instant:
        why = f"{left}, and the store has {left.old} of after that, which is another security; only that was requested"
        return _Part(after, why)
    if begins is not None and not before:
        why = f"{left}, and the store has {left.old} of before: the ticker's next owner cannot share its series"
        return _Part(before, why, left.last_day)
    why = f"{left}: {left.old} was requested up to then; what came after is the next owner's, and {left.new} has the rest"
    return _Part(before, why if after else None, left.last_day)


def _begin(known: Coverage) -> datetime | None:
    """Return where what is requested or stored of a series begins; None if that is nothing."""
    starts = [span.start for span in known.wanted] + ([known.first_bar] if known.first_bar else [])
    return min(starts, default=None)


def _change_within(
    known: Coverage, changes: tuple[TickerChange, ...], start: datetime, begins: datetime | None
) -> TickerChange | None:
    """Return the change that ended the security of what is requested, else that of what is stored."""
    for since in (start, begins):
        left = None if since is None else ticker_change_of(known.series.symbol, changes, since=since, begun=known.begun)
        if left is not None:
            return left
    return None
