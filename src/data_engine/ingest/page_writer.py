"""Store the pages of one task: bars first, coverage second.

Bars are held in memory until many have come, and the files of many series are then written together (`SeriesFiles`). Symbols come
in ascending order, and the bars of a symbol in order of time. Coverage follows when the chain of pages has ended. Of a chain that
breaks off, only what its pages show is covered. Chains that only compare, or tell which symbols have any bar, store, cover and
remove nothing.

Adjusted prices change whenever a corporate action takes effect. So an adjusted series is only extended after a stored session,
fetched again, equals what is stored; what came in later responses than that is stored and not claimed (`Coverage.unconfirmed`);
and where a range was not covered, the response replaces what was there, since that could be of another adjustment basis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

import pyarrow as pa

from data_engine.errors import DataEngineError
from data_engine.ingest.chain import Chain, Phase, extension, extensions
from data_engine.ingest.empty_sessions import EmptySession
from data_engine.ingest.plan import FetchTask
from data_engine.ingest.series_files import LONG_GROUP_BARS, SeriesFiles
from data_engine.market.bars import EMPTY, Changes, from_micros, within
from data_engine.market.bars_page import BarsPage
from data_engine.market.finality import final_before
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange
from data_engine.store.bar_store import BarStore, split_by_period
from data_engine.store.coverage import Coverage


class PageWriter:
    """Stores the bars of the pages of one task.

    Args:
        storage: The store.
        task: The task.
        now: The instant when the run began: bars that had not ended then are left out, and what was not final is provisional.
        refetch: Whether covered ranges are fetched again.
        accept_removals: Whether bars that a complete response lacks are removed.
        group_bars: How many bars of few files wait until they are written.
    """

    def __init__(
        self,
        storage: BarStore,
        task: FetchTask,
        *,
        now: datetime,
        refetch: bool = False,
        accept_removals: bool = False,
        group_bars: int = LONG_GROUP_BARS,
    ) -> None:
        self._storage = storage
        self._task = task
        self._now = now
        self._until = now
        self._newest: datetime | None = None
        self._dated = True
        self._files = SeriesFiles(
            storage,
            task,
            now=now,
            asked=self._asked_of_task,
            refetch=refetch,
            accept_removals=accept_removals,
            group_bars=group_bars,
        )
        self._arrivals = self._files.arrivals
        self._chain = Chain(task.symbols, task.range, Phase.FETCH)
        self._completed: set[str] = set()
        self._pages = 0
        self._current = ""
        self._ordered = True
        self.basis_changed: set[str] = set()

    @property
    def damaged(self) -> dict[str, DataEngineError]:
        """The errors of single files, by symbol."""
        return self._files.damaged

    @property
    def basis_same(self) -> set[str]:
        """The symbols whose stored session came again and is the same."""
        return self._files.basis_same

    @property
    def empty(self) -> dict[str, tuple[EmptySession, ...]]:
        """The recent sessions of which no bar came to series that traded lately, by symbol."""
        return self._files.empty

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
        came = sum(self._take(symbol, bars) for symbol, bars in page.bars())
        self._files.write_if_many(self._current)
        return came

    def complete(self) -> dict[str, Coverage]:
        """Write what is pending and cover the range of every symbol of the chain, which has ended; return their coverage.

        A range of which no page came is not covered. Of a chain that only tells which symbols have bars, those without are.
        """
        ended = self._completable()
        for symbol in ended:
            self._completed.add(symbol)
            self._store_waiting(symbol)
            self._compare(symbol)
        self._files.write()
        self._files.judge_rest(symbol for symbol in ended if symbol not in self.basis_changed)
        whole = [symbol for symbol in ended if symbol not in self.damaged and symbol not in self.basis_changed]
        return self._cover(dict.fromkeys(whole, self._task.range))

    def _completable(self) -> list[str]:
        if not self._pages or self._chain.phase is Phase.COMPARE:
            return []
        left = [symbol for symbol in self._chain.symbols if symbol not in self._completed]
        return [one for one in left if not self._arrivals[one].seen] if self._chain.phase is Phase.PROBE else left

    def distrust(self) -> None:
        """Take nothing as finished that came in this chain: its pages did not come in order."""
        self._ordered = False
        self._files.distrust()

    def abort(self) -> dict[str, TimeRange]:
        """Write what is pending and cover what is certain; return what is left to request, by symbol. The chain broke off.

        Only symbols whose bars came are covered, to their last bar, or in full if another symbol followed. Nothing is removed.
        """
        left: dict[str, TimeRange] = {}
        covered: dict[str, TimeRange] = {}
        uncovered: list[str] = []
        begun = [symbol for symbol in self._task.symbols if symbol not in self._completed]
        for symbol in begun:
            self._store_waiting(symbol)
        self._files.write()
        for symbol in begun:
            if symbol in self.damaged or symbol in self.basis_changed:
                continue
            certain = self._certain(symbol)
            if certain is not None and self._files.has_nothing_to_remove(symbol, self._asked(certain)):
                covered[symbol] = certain
                rest = self._task.range.after(certain.end)
            else:
                uncovered.append(symbol)
                rest = self._task.range
            if rest is not None:
                left[symbol] = rest
        self._files.count(uncovered)
        self._cover(covered)
        return left

    # ------------------------------------------------------------------------------------------------------------- pages

    def _note_newest(self, page: BarsPage) -> None:
        newest = from_micros(int(page.times.max())) if page.times.size else self._newest
        self._newest = max(filter(None, (self._newest, newest)), default=None)
        if self._newest is not None:
            limits = (final_before(self._task.dataset, instant) for instant in (self._now, self._newest))
            self._files.final_before = min(limits)
            self._files.now = min(self._now, self._newest)

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
            self._current = symbol
        waiting = self._arrivals[symbol].waiting
        kept = self._in_range(symbol, pa.concat_tables([waiting, bars]) if waiting.num_rows else bars)
        self._arrivals[symbol].keep_again(bars, self._task.overlap_of(symbol))
        return self._add_all(symbol, kept)

    def _add_all(self, symbol: str, kept: pa.Table) -> int:
        if kept.num_rows:
            self._compare(symbol)
        if symbol in self.basis_changed:
            return 0
        for period, part in split_by_period(kept, self._task.dataset):
            self._files.add(symbol, period, part)
        return int(kept.num_rows)

    def _store_waiting(self, symbol: str) -> None:
        """Keep the bars that waited for a later bar of any symbol, now that all that came is known."""
        if self._arrivals[symbol].waiting.num_rows and self._chain.phase is Phase.FETCH:
            self._add_all(symbol, self._in_range(symbol, self._arrivals[symbol].waiting))

    def _in_range(self, symbol: str, bars: pa.Table) -> pa.Table:
        """Return the bars that belong to the range and had ended."""
        asked = within(bars, self._task.range)
        # Without the source's time, the newest bar waits for a later one, unless an earlier claim shows that it had ended.
        floor = self._task.dataset.timeframe.floor
        newest = None if self._dated else self._newest
        until = floor(self._until)
        if newest is not None:
            until = min(until, max(floor(newest), self._files.known(symbol).claimed_until or newest))
        ended = self._task.range.before(until)
        kept = within(bars, ended) if ended else EMPTY
        self._arrivals[symbol].forming |= asked.num_rows > kept.num_rows
        # A part of a table, even an empty one, keeps its whole page in memory.
        self._arrivals[symbol].waiting = asked.slice(kept.num_rows) if asked.num_rows > kept.num_rows else EMPTY
        return kept

    def _compare(self, symbol: str) -> None:
        """Compare the session that came again with what is stored, once, and before the first new bar is kept."""
        arrival, overlap = self._arrivals[symbol], self._task.overlap_of(symbol)
        if overlap is None or arrival.compared or symbol in self.damaged or self._chain.phase is Phase.PROBE:
            return
        arrival.compared = True
        again, arrival.again = arrival.again, []
        series = Series(symbol, self._task.dataset)
        with self._files.guarded(symbol):
            stored, fetched = self._storage.read_range(series, overlap), pa.concat_tables([EMPTY, *again])
            if stored.num_rows or fetched.num_rows:  # no bar on either side tells nothing
                (self.basis_same if stored.equals(fetched) else self.basis_changed).add(symbol)

    # ----------------------------------------------------------------------------------------------------------- coverage

    def _asked_of_task(self) -> TimeRange | None:
        return self._asked(self._task.range)

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

    def _cover(self, spans: Mapping[str, TimeRange]) -> dict[str, Coverage]:
        """Cover ranges that were answered in full, as far as they were answered; count the files of the others."""
        asked = {symbol: self._asked(span) for symbol, span in spans.items()}
        self._files.count(symbol for symbol, span in asked.items() if span is None)
        return self._files.cover({symbol: span for symbol, span in asked.items() if span is not None})
