"""Find what a store holds of the bars that a call asks for, and what it lacks.

Held is what is covered (without bars, too), what is provisional, and what lies after the end of the security. Bars that were only
stored, by `ParquetStorage.store` or an import, are *unverified*: what else there is between the first and the last is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.ticker_changes import TickerChange, end_of_series, ticker_changes_of
from data_engine.errors import DamagedFile, StoreError
from data_engine.market.exchange_calendar import PRE_OPEN, at_clock, can_hold_bars, is_session, sessions
from data_engine.market.finality import final_before
from data_engine.market.series import Dataset, Series
from data_engine.market.session_hours import Hours
from data_engine.market.time_range import (
    TimeRange,
    difference,
    intersection,
    new_york_date,
    new_york_days,
    new_york_midnight,
    union,
)
from data_engine.read.bar_query import BarQuery
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Period
from data_engine.universe.delisted import Delisted

_DAY = timedelta(days=1)

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Holding:
    """What a store holds of one series.

    Attributes:
        known: The coverage of the series.
        asked: The ranges that the call asks for and whose bars have ended.
        unverified: The ranges whose bars were stored without coverage, whole New York days.
        missing: The ranges of *asked* that are not held, and in which there can be bars.
        lost: The files in which the coverage counts bars, and which do not exist.
    """

    known: Coverage
    asked: tuple[TimeRange, ...] = ()
    unverified: tuple[TimeRange, ...] = ()
    missing: tuple[TimeRange, ...] = ()
    lost: tuple[Period, ...] = ()

    @property
    def symbol(self) -> str:
        """The symbol of the series."""
        return self.known.series.symbol


class Holdings:
    """The coverage that one call needs: each file is read at most once.

    Args:
        store: The store.
        tolerant: Whether a coverage that cannot be read counts as none.
    """

    def __init__(self, store: BarStore, *, tolerant: bool = False) -> None:
        self._store = store
        self._tolerant = tolerant
        self._delisted = Delisted(store.files)
        self._known: dict[Series, Coverage] = {}
        self._files: dict[Series, tuple[Period, ...]] = {}
        self._fresh = False

    def coverage(self, series: Series) -> Coverage:
        """Return the coverage of a series.

        Raises:
            DamagedFile: If it cannot be read, and that is not tolerated.
        """
        if series not in self._known:
            self._known[series] = self._read(series)
        return self._known[series]

    def _read(self, series: Series) -> Coverage:
        tolerated = (DamagedFile,) if self._tolerant else ()
        if not self._fresh:
            self._fresh = True
            with suppress(*tolerated):
                self._store.coverage.requested.refresh()
        with suppress(*tolerated):
            return self._store.coverage.read(series)
        return Coverage(series)

    def files(self, series: Series, span: TimeRange) -> tuple[Period, ...]:
        """Return the files of a series that a range touches, as they are at the first call."""
        if series not in self._files:
            self._files[series] = tuple(self._store.periods(series, span))
        return self._files[series]

    def rows(self, query: BarQuery) -> int:
        """Return how many bars the files that a query reads are counted to hold; those of parts of files are bars, too."""
        known = ((self.coverage(series), self.files(series, query.reach)) for series in query.series)
        return sum(one.rows.get(period, 0) for one, periods in known for period in periods)

    def is_held(self, series: Series) -> bool:
        """Return whether a series has any bar or answer."""
        known = self.coverage(series)
        return bool(known.rows or known.covered or known.provisional)

    def of(self, query: BarQuery, now: datetime) -> list[Holding]:
        """Return what is held of each symbol of a query, and what is missing."""
        ended = query.reach.before(query.dataset.timeframe.floor(now))
        if ended is None:
            return [Holding(self.coverage(series)) for series in query.series]
        latest = self._latest_session(query, now) if query.open_end else None
        return [self._holding(query, self.coverage(series), ended, latest) for series in query.series]

    def _holding(self, query: BarQuery, known: Coverage, ended: TimeRange, latest: date | None) -> Holding:
        asked: tuple[TimeRange, ...] = (ended,)
        if query.index is not None:
            asked = intersection(query.members[known.series.symbol], asked)
        if latest is not None:
            limit = _limit(known, latest, query)
            asked = union((*_before(asked, limit), *intersection(asked, known.wanted)))
        stored = unverified(known) if query.source == "any" else ()
        held = (*known.covered, *known.provisional, *stored)
        missing = difference(asked, held if query.source == "any" else difference(held, known.imported))
        missing = _with_bars(missing, query.dataset, query.hours)
        if missing and (end := self._end_of_security(known, ended.start)) is not None:
            asked, missing = _before(asked, end), _with_bars(_before(missing, end), query.dataset, query.hours)
        return Holding(known, asked, stored, missing, self._lost_files(known, query.reach))

    def _lost_files(self, known: Coverage, reach: TimeRange) -> tuple[Period, ...]:
        """Return the files in which the coverage counts bars, and which do not exist."""
        there = frozenset(self.files(known.series, reach))
        return tuple(period for period in known.counted_files(reach) if period not in there)

    def _end_of_security(self, known: Coverage, start: datetime) -> datetime | None:
        """Return when the security of a series left its ticker or was delisted, or None if that is not known.

        Of a series of which nothing is stored or requested, it is the security that had the ticker at *start*.
        """
        actions = ActionStore(self._store.files)

        def changes(ticker: str) -> tuple[TickerChange, ...]:
            return ticker_changes_of(actions.read(ticker).counted)

        try:
            left = end_of_series(known, changes, since=known.since or start)
        except StoreError:
            return None
        left = left or self._delisted.change_of(known)
        return None if left is None else left.instant

    def _latest_session(self, query: BarQuery, now: datetime) -> date | None:
        """Return the latest session of which any series of the dataset holds something, or None if none does."""
        possible = last_session(query.dataset, now)
        own = [last_held(self.coverage(series)) for series in query.series]
        if all(day == possible for day in own):
            return possible
        best = max((day for day in own if day is not None), default=None)
        for series in self._store.coverage.series(query.dataset):
            if best == possible:
                break
            with suppress(DamagedFile):
                day = last_held(self._store.coverage.read(series))
                best = day if best is None else max(best, day or best)
        return best


def _limit(known: Coverage, latest: date, query: BarQuery) -> datetime:
    """Return the instant up to which bars of a series count without an end: to the latest session, whole unless it has begun.

    A computed bar counts whole if it is returned: minutes that are held up to its middle make another bar.
    """
    own, limit = last_held(known), new_york_midnight(latest + _DAY)
    if own is not None and own >= latest:
        limit = _end_of_held(known) or limit
    bars = query.resampling
    return limit if bars is None else min(bars.end_before(limit), bars.end_before(query.before))


def _end_of_held(known: Coverage) -> datetime | None:
    ends = [one.end for one in (*known.covered[-1:], *known.provisional[-1:])]
    if known.last_bar is not None:
        ends.append(known.last_bar + _TICK)
    return max(ends, default=None)


def last_held(known: Coverage) -> date | None:
    """Return the latest session of which a series holds bars or an answer, or None."""
    end = _end_of_held(known)
    return None if end is None else last_session(known.series.dataset, end)


def last_session(dataset: Dataset, before: datetime) -> date:
    """Return the latest session whose first bar starts before an instant."""
    day = new_york_date(before - _TICK)
    while not is_session(day) or (dataset.timeframe.intraday and at_clock(day, PRE_OPEN) >= before):
        day -= _DAY
    return day


def unverified(known: Coverage) -> tuple[TimeRange, ...]:
    """Return the ranges of a series whose bars were stored without coverage.

    These are all days from the first to the last bar if nothing of the series was ever requested, else those of its files
    whose range was not.
    """
    if known.first_bar is None or known.last_bar is None:
        return ()
    hull = new_york_days(new_york_date(known.first_bar), new_york_date(known.last_bar))
    claimed = union((*known.covered, *known.provisional, *known.wanted))
    if not claimed:
        return (hull,)
    if not difference((hull,), claimed):
        return ()
    spans = (period.span for period in known.rows if not intersection((period.span,), claimed))
    days = [new_york_days(new_york_date(span.start), new_york_date(span.end - _TICK)) for span in spans]
    return difference(intersection(days, (hull,)), claimed)


def left_out(holding: Holding, query: BarQuery, now: datetime) -> tuple[TimeRange, ...]:
    """Return the ranges whose bars a call leaves out: provisional ones with *final*, what Alpaca did not answer with *source*.

    Bars that lie there without a claim, such as those of a killed run, are not final before those of an answer would be.
    """
    known = holding.known
    out: tuple[TimeRange, ...] = ()
    if query.final:
        recent = query.reach.after(final_before(query.dataset, now))
        out = union((*known.provisional, *(difference((recent,), known.covered) if recent else ())))
    if query.source == "vendor":
        answered = difference((*known.covered, *known.provisional), known.imported)
        out = union((*out, *difference((query.reach,), answered)))
    return out


def _before(ranges: Iterable[TimeRange], instant: datetime) -> tuple[TimeRange, ...]:
    return tuple(part for one in ranges if (part := one.before(instant)) is not None)


def _with_bars(ranges: Iterable[TimeRange], dataset: Dataset, hours: Hours) -> tuple[TimeRange, ...]:
    """Return the ranges in which bars of these hours may start, without what is outside of the hours at their ends."""
    if hours is Hours.ALL:
        return tuple(part for part in ranges if can_hold_bars(part, dataset))
    return tuple(part for one in ranges if (part := _in_hours(one, hours)) is not None)


def _in_hours(span: TimeRange, hours: Hours) -> TimeRange | None:
    days = list(sessions(new_york_date(span.start), new_york_date(span.end)))
    inside = [part for day in (*days[:2], *days[-2:]) if (part := hours.of(day).intersect(span)) is not None]
    return TimeRange(inside[0].start, inside[-1].end) if inside else None


def sure(holding: Holding, query: BarQuery) -> Holding:
    """Return the same where unverified ranges count as missing, too."""
    doubtful = _with_bars(intersection(holding.asked, holding.unverified), query.dataset, query.hours)
    return replace(holding, missing=union((*holding.missing, *doubtful)))
