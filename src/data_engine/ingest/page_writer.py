"""Store the pages of one task: bars first, coverage second.

Bars are held in memory until their file is complete, since symbols come in ascending order, and the bars of a symbol in order of
time. Coverage follows when the chain of pages has ended. Of a chain that breaks off, only what its pages show is covered. Chains
that only compare, or tell which symbols have any bar, store, cover and remove nothing.

Adjusted prices change whenever a corporate action takes effect. So an adjusted series is only extended after a stored session,
fetched again, equals what is stored; what came in later responses than that is stored and not claimed (`Coverage.unconfirmed`);
and where a range was not covered, the response replaces what was there, since that could be of another adjustment basis.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime

import numpy as np
import pyarrow as pa

from data_engine.errors import OF_ONE_FILE, DataEngineError
from data_engine.ingest.arrival import Arrival
from data_engine.ingest.chain import Chain, Phase, extension, extensions
from data_engine.ingest.empty_sessions import EmptySession, empty_sessions, held_back, recent_since, silent_sessions
from data_engine.ingest.plan import FetchTask
from data_engine.market.bars import EMPTY, Changes, from_micros, timestamps_us, within
from data_engine.market.bars_page import BarsPage
from data_engine.market.finality import final_before
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange, difference, intersection
from data_engine.store.bar_store import BarStore, split_by_period
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Period


class PageWriter:
    """Stores the bars of the pages of one task.

    Args:
        storage: The store.
        task: The task.
        now: The instant when the run began: bars that had not ended then are left out, and what was not final is provisional.
        refetch: Whether covered ranges are fetched again.
        accept_removals: Whether bars that a complete response lacks are removed.
    """

    def __init__(
        self, storage: BarStore, task: FetchTask, *, now: datetime, refetch: bool = False, accept_removals: bool = False
    ) -> None:
        self._storage = storage
        self._task = task
        self._now = now
        self._refetch = refetch
        self._remove_all = accept_removals or not task.dataset.adjustment.is_raw
        self._final_before, self._recent = final_before(task.dataset, now), recent_since(now)
        self._until = now
        self._newest: datetime | None = None
        self._dated = True
        self._arrivals = {symbol: Arrival() for symbol in task.symbols}
        self._chain = Chain(task.symbols, task.range, Phase.FETCH)
        self._completed: set[str] = set()
        self._pages = 0
        self._current = ""
        self._ordered = True
        self.damaged: dict[str, DataEngineError] = {}
        self.basis_changed: set[str] = set()
        self.basis_same: set[str] = set()
        self.empty: dict[str, tuple[EmptySession, ...]] = {}

    def chains(self) -> Iterator[Chain]:
        """Yield the chains to request; the pages of each are to be given to `take` before the next."""
        task = self._task
        if task.compare_only:
            yield from self._walk(iter((Chain(task.symbols, task.range, Phase.COMPARE),)))
        elif task.own_overlaps:
            yield self._begin(Chain(task.symbols, task.range, Phase.PROBE))
            self.complete()
            came = [symbol for symbol in task.symbols if symbol not in self._completed and self._pages]
            for chains in extensions(task, came):
                yield from self._walk(chains)
                self.complete()
        else:
            yield from self._walk(extension(task.symbols, task.range, task.overlap))

    def _walk(self, chains: Iterator[Chain]) -> Iterator[Chain]:
        for chain in chains:
            yield self._begin(chain)
            if not self._pages:
                return  # nothing was said about the session, so that nothing can be joined to it
            for symbol in chain.symbols if chain.phase is Phase.COMPARE else ():
                self._compare(symbol)

    def _begin(self, chain: Chain) -> Chain:
        self._chain, self._current, self._ordered, self._pages = chain, "", True, 0
        return chain

    @property
    def changes(self) -> dict[str, Changes]:
        """How the files have changed so far, by symbol."""
        return {symbol: arrival.changes for symbol, arrival in self._arrivals.items()}

    @property
    def forming(self) -> set[str]:
        """The symbols of which a bar came that had not ended."""
        return {symbol for symbol, arrival in self._arrivals.items() if arrival.forming}

    def take(self, page: BarsPage, *, dated: bool = True) -> int:
        """Keep the bars of one page; return how many of them belong to the range of the task.

        Args:
            page: The page.
            dated: Whether the source says what time it is. If not, the newest bar is the only clock: nothing is claimed from it
                on, and what is final is judged by it.
        """
        if not dated:
            self._dated = False
            self._note_newest(page)
        # A truncated end can cut through a bar that has ended since: half its trades would be missing.
        until = self._now if page.until is None else min(self._now, page.until)
        self._until = until if not self._pages else min(self._until, until)
        self._pages += 1
        for symbol in {symbol for symbol, _ in page.bars()} if self._chain.phase is not Phase.PROBE else ():
            self._arrivals[symbol].responses += 1
        return sum(self._take(symbol, bars) for symbol, bars in page.bars())

    def complete(self) -> dict[str, Coverage]:
        """Write what is pending and cover the range of every symbol of the chain, which has ended; return their coverage.

        A range of which no page came is not covered. Of a chain that only tells which symbols have bars, those without are.
        """
        known: dict[str, Coverage] = {}
        for symbol in self._completable():
            self._completed.add(symbol)
            self._store_waiting(symbol)
            self._compare(symbol)
            self._flush(symbol)
            if symbol not in self.basis_changed:
                self._settle_all(symbol)
            if symbol not in self.damaged and symbol not in self.basis_changed:
                made = self._cover(symbol, self._task.range)
                if made is not None:
                    known[symbol] = made
        return known

    def _completable(self) -> list[str]:
        if not self._pages or self._chain.phase is Phase.COMPARE:
            return []
        left = [symbol for symbol in self._chain.symbols if symbol not in self._completed]
        return [one for one in left if not self._arrivals[one].seen] if self._chain.phase is Phase.PROBE else left

    def _settle_all(self, symbol: str) -> None:
        """Settle the files of the range that were not: the current one, and those of which no bar came."""
        asked = self._asked(self._task.range)
        if asked is not None and symbol not in self.damaged:
            periods = set(self._storage.periods(Series(symbol, self._task.dataset), asked))
            for period in sorted(periods - self._arrivals[symbol].settled):
                self._settle(symbol, period)

    def abort(self) -> dict[str, TimeRange]:
        """Write what is pending and cover what is certain; return what is left to request, by symbol. The chain broke off.

        Only symbols whose bars came are covered, to their last bar, or in full if another symbol followed. Nothing is removed.
        """
        left: dict[str, TimeRange] = {}
        for symbol in self._task.symbols:
            if symbol in self._completed:
                continue
            self._store_waiting(symbol)
            self._flush(symbol)
            if symbol in self.damaged or symbol in self.basis_changed:
                continue
            certain = self._certain(symbol)
            if certain is not None and self._has_nothing_to_remove(symbol, certain):
                self._cover(symbol, certain)
                rest = self._task.range.after(certain.end)
            else:
                self._count(symbol)
                rest = self._task.range
            if rest is not None:
                left[symbol] = rest
        return left

    # ------------------------------------------------------------------------------------------------------------- pages

    def _note_newest(self, page: BarsPage) -> None:
        newest = from_micros(int(page.times.max())) if page.times.size else self._newest
        self._newest = max(filter(None, (self._newest, newest)), default=None)
        if self._newest is not None:
            limits = (final_before(self._task.dataset, instant) for instant in (self._now, self._newest))
            self._final_before = min(limits)

    def _take(self, symbol: str, bars: pa.Table) -> int:
        """Keep the bars of one symbol of a page, as the phase says; return how many belong to the range of the task."""
        if self._chain.phase is Phase.COMPARE:
            self._arrivals[symbol].keep_again(bars, self._task.overlap_of(symbol))
            return 0
        if self._chain.phase is Phase.PROBE:
            # Without the source's time, its newest bar may have ended: who has one is asked again.
            came = self._in_range(symbol, bars) if self._dated else within(bars, self._task.range)
            self._arrivals[symbol].seen |= came.num_rows > 0
            self._arrivals[symbol].waiting = EMPTY  # it comes once more
            return 0
        if symbol < self._current:
            self._ordered = False  # against the documentation: then nothing is known to be finished before the end
        elif symbol > self._current:
            self._flush(self._current)
            self._current = symbol
        kept = self._in_range(symbol, pa.concat_tables([self._arrivals[symbol].waiting, bars]))
        self._arrivals[symbol].keep_again(bars, self._task.overlap_of(symbol))
        return self._add_all(symbol, kept)

    def _add_all(self, symbol: str, kept: pa.Table) -> int:
        if kept.num_rows:
            self._compare(symbol)
        if symbol in self.basis_changed:
            return 0
        for period, part in split_by_period(kept, self._task.dataset):
            self._add(symbol, period, part)
        return int(kept.num_rows)

    def _store_waiting(self, symbol: str) -> None:
        """Keep the bars that waited for a later bar of any symbol, now that all that came is known."""
        if self._arrivals[symbol].waiting.num_rows and self._chain.phase is Phase.FETCH:
            self._add_all(symbol, self._in_range(symbol, self._arrivals[symbol].waiting))

    def _in_range(self, symbol: str, bars: pa.Table) -> pa.Table:
        """Return the bars that belong to the range and had ended."""
        asked = within(bars, self._task.range)
        # Without the source's time, the newest bar waits for a later one, unless an earlier claim shows that it had ended.
        newest = None if self._dated else self._newest
        until = min(self._until, max(newest, self._known(symbol).claimed_until or newest)) if newest else self._until
        ended = self._task.range.before(self._task.dataset.timeframe.floor(until))
        kept = within(bars, ended) if ended else EMPTY
        self._arrivals[symbol].forming |= asked.num_rows > kept.num_rows
        self._arrivals[symbol].waiting = asked.slice(kept.num_rows)
        return kept

    def _compare(self, symbol: str) -> None:
        """Compare the session that came again with what is stored, once, and before the first new bar is kept."""
        arrival, overlap = self._arrivals[symbol], self._task.overlap_of(symbol)
        if overlap is None or arrival.compared or symbol in self.damaged or self._chain.phase is Phase.PROBE:
            return
        arrival.compared = True
        again, arrival.again = arrival.again, []
        series = Series(symbol, self._task.dataset)
        with self._guarded(symbol):
            stored, fetched = self._storage.read_range(series, overlap), pa.concat_tables([EMPTY, *again])
            if stored.num_rows or fetched.num_rows:  # no bar on either side tells nothing
                (self.basis_same if stored.equals(fetched) else self.basis_changed).add(symbol)

    # ------------------------------------------------------------------------------------------------------------- files

    def _add(self, symbol: str, period: Period, part: pa.Table) -> None:
        arrival = self._arrivals[symbol]
        if arrival.period is not None and arrival.period != period:
            self._flush(symbol)
            self._settle(symbol, arrival.period)
            arrival.settled.add(arrival.period)
        arrival.add(period, part, self._recent)

    def _flush(self, symbol: str) -> None:
        """Write the bars of the current file of a symbol; more of the same file may follow."""
        arrival = self._arrivals.get(symbol)
        if arrival is None or arrival.period is None or not arrival.pending:
            return
        pending, arrival.pending = arrival.pending, []
        if symbol in self.damaged:
            return
        series, period = Series(symbol, self._task.dataset), arrival.period
        asked = self._asked(self._task.range)
        with self._guarded(symbol):
            self._withdraw(symbol)
            if self._refetch and period in self._known(symbol).rows:
                self._announce(symbol, [one for one in self._known(symbol).rows if one.span.intersect(self._task.range)])
            answered = asked.intersect(period.span) if asked else None
            arrival.note(period, self._storage.write(series, period, pa.concat_tables(pending), answered=answered))

    def _settle(self, symbol: str, period: Period) -> None:
        """Judge the stored bars of a file by the complete response: remove what it lacks where that is to be, count the rest."""
        arrival, asked = self._arrivals[symbol], self._asked(self._task.range)
        answered = asked.intersect(period.span) if asked else None
        written = arrival.results.get(period)
        if answered is None or symbol in self.damaged or (written is not None and not written.lacking):
            return
        series = Series(symbol, self._task.dataset)
        with self._guarded(symbol):
            removable = self._removable(symbol, answered)
            if removable and not self._remove_all:  # of a session without any bar, the run decides in the end
                removable = difference(removable, self._silent(symbol, answered).values())
            if removable:
                self._announce(symbol, [period])
            arrival.note(period, self._storage.settle(series, period, arrival.came(period), answered, removable))

    @contextmanager
    def _guarded(self, symbol: str) -> Iterator[None]:
        """Have one file's trouble fail its symbol, and no other."""
        try:
            yield
        except OF_ONE_FILE as error:
            self.damaged[symbol] = error

    def _known(self, symbol: str) -> Coverage:
        """Return the coverage of a symbol as it was before this chain wrote to it, but for what it was about to change."""
        arrival = self._arrivals[symbol]
        if arrival.known is None:
            arrival.known = self._storage.coverage.read(Series(symbol, self._task.dataset))
        return arrival.known

    def _removable(self, symbol: str, answered: TimeRange) -> tuple[TimeRange, ...]:
        """Return where a stored bar that a complete response lacks is removed.

        That is everywhere in an adjusted series, since such a bar could be of another basis, and if removals are accepted.
        Elsewhere it is where bars were provisional until now: this response is the final word on them.
        """
        if self._remove_all:
            return (answered,)
        final = answered.before(self._final_before)
        return intersection((final,), self._known(symbol).provisional) if final else ()

    def _silent(self, symbol: str, answered: TimeRange) -> dict[date, TimeRange]:
        """Return the recent sessions of an answered range of which no bar came."""
        return silent_sessions(self._task.dataset, answered, self._arrivals[symbol].came_lately, self._now)

    def _announce(self, symbol: str, changing: Sequence[Period]) -> None:
        """Write down which files are about to change other than by growing: a killed run must not look like damage."""
        if not set(changing) <= self._known(symbol).changing:
            series = Series(symbol, self._task.dataset)
            self._arrivals[symbol].known = self._storage.coverage.update(series, lambda known: known.with_changing(changing))

    def _withdraw(self, symbol: str) -> None:
        """Withdraw the claims of an adjusted series inside the range, unless its bars came with the session they join."""
        series, span = Series(symbol, self._task.dataset), self._task.range
        joined = symbol in self.basis_same and self._arrivals[symbol].responses <= 1
        if series.dataset.adjustment.is_raw or joined:
            return
        known = self._known(symbol)
        if intersection((span,), (*known.covered, *known.provisional)):
            self._arrivals[symbol].known = self._storage.coverage.update(series, lambda known: known.unclaimed(span))

    # ---------------------------------------------------------------------------------------------------------- coverage

    def _asked(self, span: TimeRange) -> TimeRange | None:
        """Return the part of a range that was answered: nothing is said about the bar that contains the end."""
        until = self._task.dataset.timeframe.floor(self._until)
        if not self._dated:
            until = span.start if self._newest is None else min(until, self._newest)
        return span.before(until)

    def _certain(self, symbol: str) -> TimeRange | None:
        """Return what a chain that broke off has answered of a symbol: read from its bars, not from those of others."""
        last, span = self._arrivals[symbol].last, self._task.range
        if last is None or not self._ordered or self._chain.phase is not Phase.FETCH:
            return None
        if symbol < self._current:
            return span
        timeframe = self._task.dataset.timeframe
        return TimeRange(span.start, min(timeframe.next(timeframe.floor(last)), span.end))

    def _has_nothing_to_remove(self, symbol: str, span: TimeRange) -> bool:
        """Tell whether the files hold nothing in a range that would have to be removed to cover it."""
        asked, series = self._asked(span), Series(symbol, self._task.dataset)
        with self._guarded(symbol):
            for part in self._removable(symbol, asked) if asked else ():
                stored = timestamps_us(self._storage.read_range(series, part, ["timestamp"]))
                if not np.isin(stored, self._arrivals[symbol].came_last).all():
                    return False
        return symbol not in self.damaged

    def _count(self, symbol: str) -> None:
        """Count the files that were written for a range that is not covered."""
        arrival, series = self._arrivals[symbol], Series(symbol, self._task.dataset)
        if arrival.results:
            with self._guarded(symbol):
                self._storage.coverage.update(
                    series, lambda known: known.counted(self._storage.count_files(known, arrival.results, arrival.counts))
                )

    def _cover(self, symbol: str, span: TimeRange) -> Coverage | None:
        """Cover a range that was answered in full, after its bars are in place."""
        asked, arrival = self._asked(span), self._arrivals[symbol]
        if asked is None:
            self._count(symbol)
            return None
        series = Series(symbol, self._task.dataset)
        now = min(self._now, self._newest or self._now) if not self._dated else self._now

        def answered(known: Coverage) -> Coverage:
            counts = self._storage.count_files(known, arrival.results, arrival.counts, within=asked)
            if not arrival.is_confirmed(known, asked, joined=symbol in self.basis_same):
                return known.with_unconfirmed(asked, now=now, counts=counts)
            made = known.answered(asked, final_before=self._final_before, now=now, counts=counts).succeeded()
            return made.reopened(difference(held_back(self.empty.get(symbol, ())), known.covered))

        with self._guarded(symbol):
            if silent := self._silent(symbol, asked):
                self.empty[symbol] = empty_sessions(self._storage, self._known(symbol), asked, silent, self._final_before)
            # Only now, with the bars in place: coverage must never promise what is not on disk.
            return self._storage.coverage.update(series, answered)
        return None
