"""Find the series of the members of an index: each member is the company that had the ticker when it was a member.

An index lists tickers, and tickers are passed on. So a member of then can be another series than that of its ticker today:
``S@DATE`` where another security has the ticker now, or where nothing tells that the same one still has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from functools import cached_property
from itertools import chain, pairwise

from data_engine.corporate_actions.ticker_changes import AS_OF, ChangesOf, TickerChange, ticker_change_of
from data_engine.errors import DamagedFile
from data_engine.market.series import Dataset, Series
from data_engine.market.symbol import asof_day, at_day, ticker_of
from data_engine.market.time_range import TimeRange, new_york_date, new_york_midnight
from data_engine.store.coverage import Coverage
from data_engine.store.coverage_store import CoverageStore

_TICK = timedelta(microseconds=1)

_DAY = timedelta(days=1)

_LAG = timedelta(days=31)  # within which a list drops a security that has left its ticker

Memberships = Mapping[str, Sequence[TimeRange]]
"""Symbols, each with the ranges in which it is a member: sorted and disjoint."""


class MemberSeries:
    """The series that the members of an index are.

    Args:
        coverage: The coverage of the store.
        datasets: The datasets in which series are looked for, in order of preference.
        changes: The ticker changes that are known, by ticker.
        now: The current instant; later changes are announced, and have no effect yet.
    """

    def __init__(self, coverage: CoverageStore, datasets: Sequence[Dataset], changes: ChangesOf, now: datetime) -> None:
        self._coverage = coverage
        self._datasets = tuple(dict.fromkeys(datasets))
        self._changes_of = changes
        self._now = now
        self._known: dict[str, tuple[TickerChange, ...]] = {}

    def of(self, members: Memberships) -> dict[str, tuple[TimeRange, ...]]:
        """Return the symbols of the series, each with the ranges in which it is a member.

        A member that has not left is the security that has the ticker today. One that has left is the security that had the
        ticker on its last day: the stored series of that security, else ``S@DATE``. Where nothing is known of who had the ticker
        later, the stored series of the ticker is it if it has bars of before that day.

        Args:
            members: The tickers, each with all ranges in which it is a member, those outside of what is requested too.
        """
        found: dict[str, list[TimeRange]] = {}
        for symbol, ranges in members.items():
            for name, pieces in self._of(symbol, ranges):
                found.setdefault(name, []).extend(pieces)
        return {name: tuple(sorted(pieces, key=lambda piece: piece.start)) for name, pieces in sorted(found.items())}

    def since(self, symbol: str) -> datetime | None:
        """Return when the last security before the present one left a ticker, whose series is not stored; None if none is known.

        A series that is stored is one security's already.
        """
        own = self._read(symbol)
        if asof_day(symbol) is not None or own.wanted or own.rows:
            return None
        left = (one for one in self._changes(symbol) if one.old == symbol)
        passed_on = (one.instant for one in left if not self._has_come_back(symbol, one.last_day))
        return max(passed_on, default=None)

    def _of(self, symbol: str, ranges: Sequence[TimeRange]) -> Iterator[tuple[str, Sequence[TimeRange]]]:
        if asof_day(symbol) is not None or not ranges or (ranges[-1].end > self._now and not self._changes(symbol)):
            yield symbol, ranges
            return
        by_owner: dict[TickerChange | None, list[TimeRange]] = {}
        for piece in self._pieces(symbol, ranges):
            by_owner.setdefault(self._left(at_day(symbol, self._last_day(piece))), []).append(piece)
        for left, pieces in by_owner.items():
            # With `AS_OF`, one change a day: what is not known to be another security's is one security's.
            yield self._name(symbol, left, pieces[-1]), pieces

    def _pieces(self, symbol: str, ranges: Sequence[TimeRange]) -> Iterator[TimeRange]:
        """Yield the memberships, cut where a security left the ticker."""
        for span in ranges:
            cuts = [one.instant for one in self._changes(symbol) if one.old == symbol and span.start < one.instant < span.end]
            edges = [span.start, *sorted(set(cuts)), span.end]
            for start, end in pairwise(edges):
                if start == span.start or span.end > self._now or end - start > _LAG:
                    yield TimeRange(start, end)

    def _left(self, symbol: str) -> TickerChange | None:
        """Return the change with which the security that ``S@DATE`` names left its ticker; None if none is known."""
        left = ticker_change_of(symbol, self._changes)
        return None if left is not None and left.kind == AS_OF else left

    def _name(self, symbol: str, left: TickerChange | None, piece: TimeRange) -> str:
        """Return the series of the security that had a ticker in a membership, and left it with a change."""
        last = self._last_day(piece)
        if left is None and (piece.end > self._now or self._has_come_back(symbol, last)):
            return symbol
        own = self._read(symbol)
        if own.wanted or own.rows:
            since = own.wanted[0].start if own.wanted else own.first_bar
            end = ticker_change_of(symbol, self._changes, since=since, begun=own.begun, first_bar=own.first_bar)
            early = own.first_bar is not None and own.first_bar < new_york_midnight(last + _DAY)
            if end == left and (left is not None or early):
                return symbol
        for day in self._former_days.get(symbol, ()):
            if (left is not None or day >= last) and self._left(at_day(symbol, day)) == left:
                return at_day(symbol, day)
        return at_day(symbol, last if left is None else left.last_day)

    def _has_come_back(self, symbol: str, last: date) -> bool:
        """Return whether the security that had a ticker on a day has it today: it was away since."""
        return ticker_change_of(at_day(symbol, last), self._changes) is None

    def _last_day(self, piece: TimeRange) -> date:
        return new_york_date(min(piece.end, self._now) - _TICK)

    def _changes(self, ticker: str) -> tuple[TickerChange, ...]:
        if ticker not in self._known:
            self._known[ticker] = tuple(one for one in self._changes_of(ticker) if one.instant <= self._now)
        return self._known[ticker]

    def _read(self, symbol: str) -> Coverage:
        """Return the coverage of the first series of a symbol that is stored or requested."""
        for dataset in self._datasets:
            with suppress(DamagedFile):  # who reads it next says what is wrong with it
                known = self._coverage.read(Series(symbol, dataset))
                if known.wanted or known.rows:
                    return known
        return Coverage(Series(symbol, self._datasets[0]))

    @cached_property
    def _former_days(self) -> dict[str, list[date]]:
        """The days of the stored series ``S@DATE``, by ticker, in order."""
        found: dict[str, list[date]] = {}
        for series in chain.from_iterable(map(self._coverage.series, self._datasets)):
            if (day := asof_day(series.symbol)) is not None:
                found.setdefault(ticker_of(series.symbol), []).append(day)
        return {ticker: sorted(set(days)) for ticker, days in found.items()}
