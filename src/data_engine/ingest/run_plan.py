"""What one run is to do, in all datasets that it touches, and the verdict on each series when it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from data_engine.corporate_actions.ticker_changes import TickerChange, TickerChanges, ticker_change_of, until_parting
from data_engine.errors import DamagedFile
from data_engine.ingest.plan import IngestionPlan, Target, plan_ingestion
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, union
from data_engine.store.coverage import Coverage
from data_engine.store.coverage_store import CoverageStore


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What one run is to do: the wishes of each dataset, made into plans.

    Attributes:
        plans: one per dataset.
        known: coverage at the start, by series.
        broken: series that cannot be worked on: code and message.
        now: when the run began.
        again: whether held ranges are asked for, too.
        renames: that are known.
        cut: of which series a part was not asked for, since the ticker has changed hands, and why.
    """

    plans: tuple[IngestionPlan, ...]
    known: Mapping[Series, Coverage]
    broken: Mapping[Series, tuple[str, str]]
    now: datetime
    again: bool = False
    renames: TickerChanges = field(default_factory=TickerChanges)
    cut: Mapping[Series, str] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What is to be said of the series that were cut, one line a rename."""
        return list(dict.fromkeys(self.cut.values()))

    @property
    def series(self) -> list[Series]:
        """All series, in the order they were asked for."""
        return [Series(symbol, plan.dataset) for plan in self.plans for symbol in plan.symbols]


def plan_run(
    coverage: CoverageStore,
    wishes: Mapping[Dataset, Mapping[str, tuple[TimeRange, ...]]],
    *,
    now: datetime,
    workers: int,
    again: bool = False,
    holes_first: bool = False,
    renames: TickerChanges | None = None,
) -> RunPlan:
    """Read what is known, and plan what is missing.

    Args:
        coverage: of the store.
        wishes: the ranges that are wanted, by dataset and symbol; who has none cannot be worked on.
        now: when the run begins.
        workers: how many tasks run at once.
        again: ask for held ranges, too.
        holes_first: ask for what ends before now first.
        renames: that are known; a series is not asked for beyond the day on which its security left the ticker.
    """
    renames = renames or TickerChanges()
    cut: dict[Series, str] = {}
    known: dict[Series, Coverage] = {}
    broken: dict[Series, tuple[str, str]] = {}
    plans = []
    for dataset, ranges in wishes.items():
        usable = []
        for symbol, wanted in ranges.items():
            series = Series(symbol, dataset)
            try:
                known[series] = coverage.read(series)
            except DamagedFile as error:
                known[series], broken[series] = Coverage(series), (error.code, str(error))
            else:
                if not wanted:
                    broken[series] = "never_ingested", "never ingested here; `data-engine ingest` with --start begins a series"
                    continue
                if symbol in renames.unreadable:
                    broken[series] = DamagedFile.code, renames.unreadable[symbol]
                    continue
                if again and not dataset.adjustment.is_raw:
                    wanted = union((*wanted, *known[series].wanted))  # one price base, or none
                past = tuple(one for one in renames.of(symbol) if one.instant <= now)  # others are announced, and may change
                wanted, why, asof = _one_owners(known[series], wanted, past)
                if wanted or why is None:
                    usable.append(Target(symbol, wanted, known[series], again=again, asof=asof))
                    cut.update({series: why} if why else {})
                else:
                    broken[series] = "renamed", f"{why}; `data-engine remove {symbol}` makes room for the other one"
        plan = plan_ingestion(usable, dataset, now=now, workers=workers, holes_first=holes_first)
        plans.append(replace(plan, symbols=tuple(ranges), wanted={**dict(ranges), **plan.wanted}))
    return RunPlan(tuple(plans), known, broken, now, again, renames, cut)


def _one_owners(
    known: Coverage, wanted: tuple[TimeRange, ...], renames: tuple[TickerChange, ...]
) -> tuple[tuple[TimeRange, ...], str | None, date | None]:
    """Return the part of what is wanted in which the ticker is one security's, why that is not all, and as of when to ask.

    A series that holds nothing yet becomes that of whoever had the ticker when the first wanted range begins. Where that security
    has left it, the vendor is asked as of its last day: as of today it answers for the next owner, whatever the range.
    """
    if not renames or not wanted:
        return wanted, None, None
    held = [span.start for span in known.wanted] + ([known.first_bar] if known.first_bar else [])
    left = ticker_change_of(known.series.symbol, renames, since=min(span.start for span in wanted), begun=known.begun)
    if left is None:
        # What is wanted begins after every rename; what is held may not.
        left = ticker_change_of(known.series.symbol, renames, since=min(held), begun=known.begun) if held else None
    if left is None:
        return wanted, None, None
    before = until_parting(wanted, left)
    after = union(piece for piece in (span.after(left.instant) for span in wanted) if piece is not None)
    if held and min(held) >= left.instant:
        why = f"{left}, and the store holds {left.old} of after that, which is another security; it alone was asked for"
        return after, why, None
    if held and not before:
        why = f"{left}, and the store holds {left.old} of before: the ticker's next owner cannot share its series"
        return before, why, left.last_day
    why = f"{left}: {left.old} was asked for up to then; what came after is the next owner's, and {left.new} has the rest"
    return before, why if after else None, left.last_day
