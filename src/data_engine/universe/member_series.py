"""Find the series of the members of an index: each member is the company that had the ticker when it was a member.

An index lists tickers, and tickers are passed on. So a member of then can be another series than that of its ticker today:
``S@DATE`` where another security has the ticker now, or where nothing tells that the same one still has it. Lists follow a rename
some days later: between the two, the member is the series of the new ticker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from functools import cached_property
from itertools import chain, pairwise

from data_engine.corporate_actions.ticker_changes import ChangesOf, TickerChange, end_of_series, left_by_name, ticker_change_of
from data_engine.errors import DamagedFile
from data_engine.market.series import Dataset, Series
from data_engine.market.symbol import asof_day, at_day, ticker_of
from data_engine.market.time_range import TimeRange, new_york_date, new_york_midnight, union
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

    def of(self, members: Memberships, others: Memberships | None = None) -> dict[str, tuple[TimeRange, ...]]:
        """Return the symbols of the series, each with the ranges in which it is a member.

        A member that has not left is the security that has the ticker today. One that has left is the security that had the
        ticker on its last day: the stored series of that security, else ``S@DATE``. Where nothing is known of who had the ticker
        later, the stored series of the ticker is it if it has bars of before that day.

        Args:
            members: The tickers, each with all ranges in which it is a member, those outside of what is requested too.
            others: The tickers that are members outside of what is requested alone. If None, the series are those under the
                tickers of *members*, without what a renamed security is after its rename.
        """
        pieces: dict[str, list[TimeRange]] = {}
        for symbol, ranges in members.items():
            for ticker, piece in self._pieces(symbol, ranges):
                if ticker == symbol or others is not None:
                    pieces.setdefault(ticker, []).append(piece)
        for ticker in pieces.keys() - members.keys():  # one company is one series, also where its membership goes on later
            own = self._pieces(ticker, (others or {}).get(ticker, ()))
            pieces[ticker] += [piece for other, piece in own if other == ticker]
        found: dict[str, list[TimeRange]] = {}
        for ticker, parts in pieces.items():
            for name, of_name in self._of(ticker, sorted(parts, key=lambda piece: (piece.end, piece.start))):
                found.setdefault(name, []).extend(of_name)
        return {name: union(parts) for name, parts in sorted(found.items())}

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

    def _of(self, symbol: str, pieces: Sequence[TimeRange]) -> Iterator[tuple[str, Sequence[TimeRange]]]:
        """Yield the series of the securities that had a ticker in memberships, which are sorted by their ends."""
        if asof_day(symbol) is not None or not pieces or (pieces[-1].end > self._now and not self._changes(symbol)):
            yield symbol, pieces
            return
        by_owner: dict[TickerChange | None, list[TimeRange]] = {}
        for piece in pieces:
            by_owner.setdefault(left_by_name(at_day(symbol, self._last_day(piece)), self._changes), []).append(piece)
        for left, owned in by_owner.items():
            # With `AS_OF`, one change a day: what is not known to be another security's is one security's.
            yield self._name(symbol, left, owned[-1]), owned

    def _pieces(self, symbol: str, ranges: Sequence[TimeRange]) -> Iterator[tuple[str, TimeRange]]:
        """Yield the memberships, cut where a security left the ticker, each with the ticker of the member."""
        if asof_day(symbol) is not None:
            yield from ((symbol, span) for span in ranges)
            return
        for span in ranges:
            left = {one.instant: one.new for one in self._departures(symbol, span)}
            for start, end in pairwise([span.start, *left, span.end]):
                lasts, piece = span.end > self._now, TimeRange(start, end)
                if start == span.start or min(end, self._now) - start > _LAG:
                    yield symbol, piece
                elif (new := left[start]) is not None and not (lasts and self._is_taken(symbol, piece)):
                    yield from self._followed(new, piece)
                elif lasts:
                    yield symbol, piece

    def _followed(self, symbol: str, piece: TimeRange) -> Iterator[tuple[str, TimeRange]]:
        """Yield the tickers of a security that has one at the start of a range, until the end of the range or of the security."""
        first = next(iter(self._departures(symbol, piece)), None)
        if first is None:
            yield symbol, piece
            return
        yield symbol, TimeRange(piece.start, first.instant)
        if first.new is not None:
            yield from self._followed(first.new, TimeRange(first.instant, piece.end))

    def _departures(self, symbol: str, span: TimeRange) -> list[TickerChange]:
        """Return the changes inside a range with which securities left a ticker, in order of time, a rename after others."""
        left = (one for one in self._changes(symbol) if one.old == symbol and span.start < one.instant < span.end)
        return sorted(left, key=lambda one: (one.instant, one.new is not None))

    def _is_taken(self, symbol: str, piece: TimeRange) -> bool:
        """Return whether another security is known to have taken a ticker in a range: the list may mean it already."""
        return any(one.new == symbol and piece.start <= one.instant < piece.end for one in self._changes(symbol))

    def _name(self, symbol: str, left: TickerChange | None, piece: TimeRange) -> str:
        """Return the series of the security that had a ticker in a membership, and left it with a change."""
        last = self._last_day(piece)
        if left is None and (piece.end > self._now or self._has_come_back(symbol, last)):
            return symbol
        own = self._read(symbol)
        if own.wanted or own.rows:
            end = end_of_series(own, self._changes)
            early = own.first_bar is not None and own.first_bar < new_york_midnight(last + _DAY)
            if end == left and (left is not None or early):
                return symbol
        for day in self._former_days.get(symbol, ()):
            if (left is not None or day >= last) and left_by_name(at_day(symbol, day), self._changes) == left:
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
