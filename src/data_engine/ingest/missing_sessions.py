"""Judge the recent sessions that responses lacked over all series of a run, and make their emptiness final or withdraw it.

If of at least 20 regular series more than 5 % got no bar of the same session, the session is missing at the vendor: none of it is
covered, so that the next run asks for it again. Else each emptiness is final.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np

from data_engine.errors import DamagedFile, Failure
from data_engine.ingest.empty_sessions import EmptySession, has_bars
from data_engine.market.bars import NO_CHANGES, Changes
from data_engine.market.exchange_calendar import session_range, sessions_before
from data_engine.market.series import Series
from data_engine.market.time_range import difference, intersection, union
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.trading_days import LATELY, days_with_bars

CODE = "session_missing"

_LEAST = 20  # regular series: of fewer, a share says nothing

_MOST = 20  # one series of so many, 5 %, may lack a session

Found = Mapping[Series, Sequence[EmptySession]]
"""The empty sessions of each series, or the parts of them that several tasks were answered."""


@dataclass(frozen=True, slots=True)
class MissingSession:
    """A session that the vendor lacks.

    Attributes:
        day: The session.
        lacking: The regular series of which no bar of it came.
        regular: The number of series that had a bar in each of the ten sessions before.
    """

    day: date
    lacking: frozenset[Series]
    regular: int

    @property
    def failure(self) -> Failure:
        """Why the series that lack it are not complete."""
        return Failure(CODE, f"{self}; run the same command again later")

    def __str__(self) -> str:
        named = f"{len(self.lacking):,} of {self.regular:,} series that had bars in each of the ten sessions before"
        return f"session {self.day} is missing: Alpaca returned no bar of it for {named}"


def missing_sessions(storage: BarStore, run: Sequence[Series], found: Found) -> list[MissingSession]:
    """Return the sessions that are missing, in order.

    Bar files are read only until so many series are regular that a session is not missing.

    Args:
        storage: The store, after the work.
        run: All series of the run, of which the bars of a week or longer do not count.
        found: The empty sessions of the run.
    """
    by_day: dict[date, set[Series]] = {}
    for series, parts in found.items():
        for one in parts:
            if one.regular:
                by_day.setdefault(one.day, set()).add(series)
    missing = []
    for day, silent in sorted(by_day.items()):
        if len(run) < _LEAST or _MOST * len(silent) <= _LEAST:
            continue
        lacking = {series for series in silent if _lacks(storage, series, day, found[series])}
        if _MOST * len(lacking) > _LEAST:
            regular = _regular(storage, run, day, lacking)
            if _LEAST <= regular < _MOST * len(lacking):
                missing.append(MissingSession(day, frozenset(lacking), regular))
    return missing


def _lacks(storage: BarStore, series: Series, day: date, found: Iterable[EmptySession]) -> bool:
    """Tell whether a session was answered to its end, and no bar of it came in any of the tasks that answered parts of it."""
    span = session_range(series.dataset, day)
    try:
        known = storage.coverage.read(series)
        if difference((span,), (*known.covered, *known.provisional)):
            return False
        return not has_bars(storage, series, difference((span,), (one.range for one in found if one.day == day)))
    except DamagedFile:
        return False


def _regular(storage: BarStore, run: Sequence[Series], day: date, lacking: Collection[Series]) -> int:
    """Count the regular series to which a session was answered, up to the number with which it is not missing."""
    count = len(lacking)
    for series in run:
        if count >= _MOST * len(lacking):
            break
        if series not in lacking and series.dataset.timeframe.unit not in ("Week", "Month"):
            count += _is_regular(storage, series, day)
    return count


def _is_regular(storage: BarStore, series: Series, day: date) -> bool:
    """Tell whether a session was answered to a series that had a bar in each of the ten sessions before."""
    window = sessions_before(day, LATELY)
    try:
        known = storage.coverage.read(series)
        if difference((session_range(series.dataset, day),), (*known.covered, *known.provisional)):
            return False
        return days_with_bars(storage, series, window[0], window[-1]).issuperset(window)
    except DamagedFile:
        return False


def reopen(storage: BarStore, series: Series, days: Iterable[date]) -> None:
    """Have no part of the missing sessions covered: a later run asks for them again.

    Raises:
        DamagedFile: If the coverage cannot be read.
    """
    dataset = series.dataset
    ranges = [dataset.timeframe.widen(session_range(dataset, day)) for day in days]
    if dataset.timeframe.unit not in ("Week", "Month") and intersection(storage.coverage.read(series).covered, ranges):
        storage.coverage.update(series, lambda known: known.reopened(ranges))


def close(storage: BarStore, series: Series, empty: Iterable[EmptySession], now: datetime) -> Changes:
    """Have the emptiness of sessions be final, and remove what was provisional of them; return how the bars changed.

    Args:
        storage: The store.
        series: The series.
        empty: The sessions.
        now: When the run began.

    Raises:
        DamagedFile: If a file of the series cannot be read.
    """
    ended = [one for one in empty if one.final]
    if not ended:
        return NO_CHANGES
    withdrawn = union(part for one in ended for part in one.withdrawn)
    touched = [(period, part) for part in withdrawn for period in storage.periods(series, part)]
    if touched:
        storage.coverage.update(series, lambda known: known.with_changing(period for period, _ in touched))
    nothing = np.empty(0, np.int64)
    removed = sum(storage.settle(series, period, nothing, part, (part,)).changes.removed for period, part in touched)
    ranges = [one.range for one in ended]

    def closed(known: Coverage) -> Coverage:
        counts = storage.count_files(known, {period for period, _ in touched})
        return known.closed(ranges, now=now, counts=counts)

    storage.coverage.update(series, closed)
    # The response was complete, so that they were counted as dropped and kept.
    return Changes(vanished=-removed, removed=removed)


def closable(found: Iterable[EmptySession], missing: Collection[date]) -> list[EmptySession]:
    """Return the empty sessions of a series that are not missing."""
    return [one for one in found if one.day not in missing]
