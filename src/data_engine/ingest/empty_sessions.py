"""Find the recent sessions of which a complete response had no bar, in series that traded lately.

An outage at the vendor answers without bars. So such an emptiness is not final when one series was answered, but when the run has
compared all its series (`missing_sessions`); until then it is provisional, and a run that is killed before leaves it so. Several
tasks of a run may answer parts of one session: each says what it was answered, and the run judges what all of them say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any

import numpy as np

from data_engine.market.bars import Int64s, to_micros
from data_engine.market.exchange_calendar import session_range, sessions, sessions_before
from data_engine.market.finality import recent_since
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, difference, intersection, new_york_date
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.trading_days import LATELY, days_with_bars


@dataclass(frozen=True, slots=True)
class EmptySession:
    """What one response to one series answered of a recent session without a bar, though the series traded lately.

    Attributes:
        day: The session.
        range: The part of the range of its bars that was answered; if some of that is final, as much as is.
        regular: Whether the series had a bar in each of the ten sessions before.
        final: Whether Alpaca no longer revises bars of the range.
        withdrawn: Where bars are stored that were provisional: once the emptiness is final, they are removed.
    """

    day: date
    range: TimeRange
    regular: bool
    final: bool
    withdrawn: tuple[TimeRange, ...] = ()


def silent_sessions(dataset: Dataset, answered: TimeRange, came: Int64s, now: datetime) -> dict[date, TimeRange]:
    """Return the recent sessions that begin or end inside an answered range, and of which no bar came: where their bars start.

    Args:
        dataset: The dataset; of bars longer than a day there are none.
        answered: The range that was answered.
        came: The timestamps of the bars that came since the first recent session, sorted, in microseconds.
        now: When it was requested.
    """
    if dataset.timeframe.unit in ("Week", "Month"):
        return {}
    first, last = new_york_date(max(recent_since(now), answered.start)), new_york_date(answered.end)
    near = _near(dataset, first, last)
    bars = np.searchsorted(came, near.edges)
    silent = np.flatnonzero(bars[0] == bars[1]).tolist()
    return {near.days[at]: near.spans[at] for at in silent if near.spans[at].intersect(answered)}


@dataclass(frozen=True, slots=True)
class _Sessions:
    """Some sessions: the days, where their bars start, and the edges of that as two rows of microseconds."""

    days: tuple[date, ...]
    spans: tuple[TimeRange, ...]
    edges: Any


@lru_cache(maxsize=64)
def _near(dataset: Dataset, first: date, last: date) -> _Sessions:
    days = tuple(sessions(first, last))
    spans = tuple(session_range(dataset, day) for day in days)
    edges = [[to_micros(span.start) for span in spans], [to_micros(span.end) for span in spans]]
    return _Sessions(days, spans, np.array(edges, np.int64))


def empty_sessions(
    storage: BarStore,
    before: Coverage,
    answered: TimeRange,
    silent: dict[date, TimeRange],
    final_before: datetime,
) -> tuple[EmptySession, ...]:
    """Return what the end of the run decides about silent sessions: the parts of them that were answered.

    That is the emptiness of a series that traded lately, if some of it is final or the session is answered to its end, and the
    rest of the session has no bar either; and any emptiness in whose place provisional bars are stored.

    Args:
        storage: The store, with the bars of the response in place.
        before: The coverage of the series before the response.
        answered: The range that was answered.
        silent: The sessions of which no bar came, and where their bars start.
        final_before: The instant before which bars are final.

    Raises:
        DamagedFile: If a bar file cannot be read.
    """
    if not silent:
        return ()
    series = before.series
    known = storage.coverage.read(series)
    claims = (answered, *known.covered, *known.provisional)
    parts = {day: part for day, span in silent.items() if (part := series.dataset.timeframe.widen(span).intersect(answered))}
    final = {day: _until(part, final_before) for day, part in parts.items()}
    # A session that has only begun is silent in many series: no file is read for that.
    days = [day for day in parts if final[day] or not difference((silent[day],), claims)]
    if not days:
        return ()
    windows = {day: sessions_before(day, LATELY) for day in days}
    traded = days_with_bars(storage, series, min(window[0] for window in windows.values()), max(days))
    found = []
    for day in days:
        window, part = windows[day], parts[day]
        # Where the rest of a session has bars, none has to be in this part.
        lately = day in traded or not traded.isdisjoint(window)
        waits = lately and not has_bars(storage, series, difference((silent[day],), (answered,)))
        withdrawn = intersection((final[day],), before.provisional) if final[day] else ()  # type: ignore[arg-type]
        stored = has_bars(storage, series, withdrawn)
        if waits or stored:
            regular = waits and traded.issuperset(window)
            found.append(EmptySession(day, final[day] or part, regular, final[day] is not None, withdrawn if stored else ()))
    return tuple(found)


def _until(part: TimeRange, final_before: datetime) -> TimeRange | None:
    """Return what of a part of a session is final: of bars of several hours, the last one may not be, and the others are."""
    return TimeRange(part.start, min(part.end, final_before)) if part.start < final_before else None


def has_bars(storage: BarStore, series: Series, ranges: Iterable[TimeRange]) -> bool:
    """Tell whether any bar is stored inside some ranges.

    Raises:
        DamagedFile: If a bar file cannot be read.
    """
    return any(storage.read_range(series, part, ["timestamp"]).num_rows for part in ranges)


def held_back(empty: Iterable[EmptySession]) -> tuple[TimeRange, ...]:
    """Return where emptiness would be final by the time of day, and waits for the end of the run."""
    return tuple(one.range for one in empty if one.final)
