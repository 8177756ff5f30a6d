"""What a store holds, and what is wanted and missing: one entry per series."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.ticker_changes import TickerChange, ticker_change_of, until_parting
from data_engine.errors import DamagedFile
from data_engine.market.exchange_calendar import can_hold_bars
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, difference, intersection, iso, union
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Partition
from data_engine.store.selection import DatasetFilter, select_series
from data_engine.universe.membership import MembershipChange, memberships, replay


@dataclass(frozen=True, slots=True)
class SeriesStatus:
    """How one series stands.

    Attributes:
        series: which.
        coverage: what is known of it; nothing, where *problem* says why.
        missing: ranges that were wanted and are not held, those that cannot hold a bar left out.
        files: how many there are.
        bytes: that they take.
        problem: why the coverage, or what became of the ticker, cannot be read; else None.
        rename: where its security left the ticker, and the series ends; else None.
    """

    series: Series
    coverage: Coverage
    missing: tuple[TimeRange, ...] = ()
    files: int = 0
    bytes: int = 0
    problem: str | None = None
    rename: TickerChange | None = None

    @property
    def unasked(self) -> tuple[TimeRange, ...]:
        """The ranges between what was answered that nobody wants, those that cannot hold a bar left out."""
        known = self.coverage
        answered = union((*known.covered, *known.provisional))
        between = difference([TimeRange(answered[0].start, answered[-1].end)], (*answered, *known.wanted)) if answered else ()
        return tuple(piece for piece in between if can_hold_bars(piece, self.series.dataset))

    @property
    def state(self) -> str:
        """One word: ``damaged``, ``failed``, ``incomplete``, ``empty`` or ``held``."""
        if self.problem:
            return "damaged"
        if self.missing:
            failure = self.coverage.failure
            return "failed" if failure and failure.code != "interrupted" else "incomplete"
        return "held" if self.coverage.bars else "empty"

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
            "wanted": _pairs(known.wanted),
            "covered": _pairs(known.covered),
            "provisional": _pairs(known.provisional),
            "missing": _pairs(self.missing),
            "unasked": _pairs(self.unasked),
            "bars": known.bars,
            "files": self.files,
            "bytes": self.bytes,
            "first_bar": iso(known.first_bar) if known.first_bar else None,
            "last_bar": iso(known.last_bar) if known.last_bar else None,
            "failure": {"code": known.failure.code, "message": known.failure.message} if known.failure else None,
            "problem": self.problem,
            "rename": {"new": self.rename.new, "date": self.rename.day.isoformat()} if self.rename else None,
        }


def series_status(storage: BarStore, choice: DatasetFilter, names: Sequence[str] | None = None) -> Iterator[SeriesStatus]:
    """Yield how every chosen series of a store stands, by dataset and symbol. Coverage files and sizes alone are read."""
    renames = ActionStore(storage.files).renames()
    for series in select_series(storage.coverage, choice, names):
        try:
            known = storage.coverage.read(series)
        except DamagedFile as error:
            yield SeriesStatus(series, Coverage(series), problem=str(error))
            continue
        owed = known.incomplete(TimeRange(known.wanted[0].start, known.wanted[-1].end)) if known.wanted else ()
        begins = known.wanted[0].start if known.wanted else known.first_bar
        left = ticker_change_of(series.symbol, renames.of(series.symbol), since=begins, begun=known.begun)
        owed = until_parting(owed, left)
        sizes = [storage.files.size(Partition(series, period).key) for period in known.rows]
        held = [size for size in sizes if size is not None]
        missing = tuple(hole for hole in owed if can_hold_bars(hole, series.dataset))
        yield SeriesStatus(series, known, missing, len(held), sum(held), renames.unreadable.get(series.symbol), left)


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """Who of an index has no bars in a dataset.

    Attributes:
        dataset: which.
        span: from the first bar of the index's symbols that is stored to the end of the last one; None where there is none.
        members: how many the index has now.
        without: members without any bar.
        former: who was a member at some time inside *span* and is none now.
        former_without: those of them without a bar from the time when they were.
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
    events: Sequence[MembershipChange], datasets: Iterable[Dataset], found: Iterable[SeriesStatus]
) -> list[IndexStatus]:
    """Return who of an index has no bars, by dataset.

    A file of bars counts for a former member where its month (of days: its year) meets the time of the membership.

    Args:
        events: the history of the index.
        datasets: in which to look.
        found: what `series_status` said of these datasets; series of other symbols are passed over.
    """
    symbols = {event.symbol for event in events}
    by_dataset: dict[Dataset, dict[str, Coverage]] = {dataset: {} for dataset in datasets}
    for one in found:
        if one.series.symbol in symbols and one.series.dataset in by_dataset and one.coverage.bars:
            by_dataset[one.series.dataset][one.series.symbol] = one.coverage
    now = replay(events)
    standings = []
    for dataset, held in by_dataset.items():
        span = _stored(held.values())
        former: dict[str, tuple[TimeRange, ...]] = {}
        for symbol in sorted(symbols - now.keys()) if span else ():
            ranges = intersection(memberships(events, symbol), (span,) if span else ())
            if ranges:
                former[symbol] = ranges
        lacking = tuple(symbol for symbol, ranges in former.items() if not _has_bars(held.get(symbol), ranges))
        without = tuple(sorted(symbol for symbol in now if symbol not in held))
        standings.append(IndexStatus(dataset, span, len(now), without, len(former), lacking))
    return standings


def _stored(known: Iterable[Coverage]) -> TimeRange | None:
    """Return from the first bar of all to the end of the last."""
    pieces = [(one.first_bar, one.last_bar, one.series.dataset.timeframe) for one in known]
    firsts = [first for first, _, _ in pieces if first is not None]
    ends = [timeframe.next(timeframe.floor(last)) for _, last, timeframe in pieces if last is not None]
    return TimeRange(min(firsts), max(ends)) if firsts and ends else None


def _has_bars(known: Coverage | None, ranges: Sequence[TimeRange]) -> bool:
    if known is None or known.first_bar is None or known.last_bar is None:
        return False
    first, last = known.first_bar, known.last_bar
    files = [period.span for period in known.rows]
    return any(piece.start <= last and piece.end > first for piece in intersection(files, ranges))


def _pairs(ranges: Sequence[TimeRange]) -> list[list[str]]:
    return [[iso(part.start), iso(part.end)] for part in ranges]
