"""Tell how many series hold one session: a gate before trading.

A series that traded lately holds a session if all of it is covered or provisional and there is a bar of it. Without a bar it
holds it if that emptiness is final, or if it skips sessions anyway: of a series with a bar in each of its last ten sessions, an
empty response that Alpaca may still revise is no answer. A series of which nothing was requested holds it with a bar of it. None
holds it in a file that is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from data_engine.corporate_actions.ticker_changes import TickerChange
from data_engine.errors import InputError, StoreError
from data_engine.market.exchange_calendar import extended_hours, is_session, session_range, sessions, sessions_before
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, difference, intersection, iso, new_york_date
from data_engine.market.wording import plural
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.selection import DatasetFilter
from data_engine.store.trading_days import LATELY, days_with_bars
from data_engine.verify.status import StoredSeries, stored_series


@dataclass(frozen=True, slots=True)
class Lack:
    """A series that does not hold the session.

    Attributes:
        series: The series.
        reason: ``not_fetched``, ``failed``, ``empty`` (a response without a bar that Alpaca may revise) or ``damaged``.
    """

    series: Series
    reason: str


@dataclass(frozen=True, slots=True)
class SessionGate:
    """How many series hold a session.

    Attributes:
        day: The session.
        expected: The number of series that traded lately.
        lacking: Those of them that do not hold it, by dataset and symbol.
    """

    day: date
    expected: int
    lacking: tuple[Lack, ...]

    @property
    def held(self) -> int:
        """The number of series that hold the session."""
        return self.expected - len(self.lacking)

    @property
    def share(self) -> float:
        """The share of the series that hold the session; 0 if none traded lately."""
        return self.held / self.expected if self.expected else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``status --session D --json`` prints."""
        return {
            "session": self.day.isoformat(),
            "expected": self.expected,
            "held": self.held,
            "share": self.share,
            "lacking": [
                {"dataset": one.series.dataset.name, "symbol": one.series.symbol, "reason": one.reason} for one in self.lacking
            ],
        }

    def __str__(self) -> str:
        traded = f"{plural(self.expected, 'series', 'series')} that traded lately"
        return f"Session {self.day}: held by {self.held:,} of {traded} ({self.share:.1%})"


def last_session(now: datetime) -> date:
    """Return the latest session whose extended hours have ended."""
    today = new_york_date(now)
    return max(day for day in sessions(today - timedelta(days=14), today) if extended_hours(day).end <= now)


def session_gate(
    storage: BarStore, choice: DatasetFilter, day: date, names: Sequence[str] | None = None, *, now: datetime
) -> SessionGate:
    """Return how many of the selected series hold a session. Bars of a week or longer are left out.

    Coverage is read, and of bar files only the timestamps where the first and the last bar do not tell. Daily bars that have not
    ended are not expected.

    Args:
        storage: The store.
        choice: The datasets.
        day: The session.
        names: The symbols. If None, all.
        now: The current time.

    Raises:
        InputError: If *day* is no session, or its session has not ended.
        DamagedFile: If requested ranges cannot be read.
    """
    if not is_session(day):
        before = max(sessions(day - timedelta(days=14), day))
        raise InputError(f"cannot check session '{day}': the exchange is closed; the session before is {before}")
    if extended_hours(day).end > now:
        raise InputError(f"cannot check session '{day}': it ends at {iso(extended_hours(day).end)}; pass {last_session(now)}")
    gate = SessionCount(storage, day, now)
    for one in stored_series(storage, choice.fetched, names, now=now):
        gate.add(one)
    return gate.result()


def latest_session_gate(
    storage: BarStore, choice: DatasetFilter, names: Sequence[str] | None = None, *, now: datetime
) -> SessionGate:
    """Return how many of the selected series hold the latest session of which bars can be held, as `session_gate`.

    Daily bars of a session end at midnight: before, if only those are selected, it is the session before.
    """
    gate = LatestSession(storage, now)
    for one in stored_series(storage, choice.fetched, names, now=now):
        gate.add(one)
    return gate.result()


class SessionCount:
    """How many series hold a session, series by series: `add` all, then ask for the `result`.

    Args:
        storage: The store.
        day: A session that has ended.
        now: The current time.

    Attributes:
        expected: The number of series so far that traded lately.
    """

    def __init__(self, storage: BarStore, day: date, now: datetime) -> None:
        self._storage = storage
        self._day = day
        self._now = now
        self.expected = 0
        self._lacking: list[Lack] = []

    def add(self, one: StoredSeries) -> None:
        """Count a series; of bar files, timestamps are read where the first and the last bar do not tell."""
        if one.series.dataset.timeframe.unit in ("Week", "Month"):
            return
        try:
            counts, reason = (
                (True, "damaged") if one.damage else _judge(self._storage, one.coverage, self._day, one.ended, self._now)
            )
        except StoreError:
            counts, reason = True, "damaged"
        self.expected += counts
        if counts and reason is not None:
            self._lacking.append(Lack(one.series, reason))

    def result(self) -> SessionGate:
        """Return how many of the series hold the session."""
        return SessionGate(self._day, self.expected, tuple(self._lacking))


class LatestSession:
    """How many series hold the latest session, as `latest_session_gate`, series by series.

    Args:
        storage: The store.
        now: The current time.
    """

    def __init__(self, storage: BarStore, now: datetime) -> None:
        day = last_session(now)
        self._last = SessionCount(storage, day, now)
        self._before = SessionCount(storage, sessions_before(day, 1)[0], now)

    def add(self, one: StoredSeries) -> None:
        """Count a series."""
        self._last.add(one)
        if not self._last.expected:  # what counts for the session before may be all there is
            self._before.add(one)

    def result(self) -> SessionGate:
        """Return how many of the series hold the session."""
        return self._last.result() if self._last.expected else self._before.result()


def _judge(storage: BarStore, known: Coverage, day: date, change: TickerChange | None, now: datetime) -> tuple[bool, str | None]:
    """Return whether a series counts, and why it does not hold a session; None if it does."""
    if known.first_bar is None or known.last_bar is None or (change is not None and change.effective <= day):
        return False, None
    window = sessions_before(day, LATELY)
    first, last = new_york_date(known.first_bar), new_york_date(known.last_bar)
    whole = _ended_part(session_range(known.series.dataset, day), known.series.dataset, now)
    if last < window[0] or first > day or not whole:
        return False, None
    answered = not difference(whole, (*known.covered, *known.provisional))
    if storage.lost_files(known, session_range(known.series.dataset, day)):
        return True, "damaged"
    if last == day and answered:
        return True, None
    traded = days_with_bars(storage, known.series, window[0], day)
    if not traded:
        return False, None
    if not known.wanted and not known.covered and not known.provisional:
        return True, None if day in traded else "not_fetched"  # only stored or imported
    if not answered:
        failed = known.failure is not None and known.failure.code != "interrupted" and intersection(whole, known.wanted)
        return True, "failed" if failed else "not_fetched"
    if day in traded or not difference(whole, known.covered):
        return True, None
    return True, "empty" if traded.issuperset(window) else None


def _ended_part(session: TimeRange, dataset: Dataset, now: datetime) -> tuple[TimeRange, ...]:
    """Return the part of a session that must be held: that of the bars that have ended."""
    ended = session.before(dataset.timeframe.floor(now))
    return (ended,) if ended else ()
