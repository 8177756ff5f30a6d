"""Write the files and the coverage of the series of one task in groups: `SeriesFiles`. Bars first, coverage second.

Bars wait in memory until enough of them have come, and the files that they belong to are then written together: one flush of the
device serves many files. The coverage of many series is written together, too, after all their bars are on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import partial

import numpy as np
import pyarrow as pa

from data_engine.errors import OF_ONE_FILE, DataEngineError
from data_engine.ingest.arrival import Arrival
from data_engine.ingest.empty_sessions import EmptySession, empty_sessions, held_back, silent_sessions
from data_engine.ingest.plan import FetchTask
from data_engine.market.bars import Int64s, timestamps_us
from data_engine.market.finality import final_before, recent_since
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange, difference, intersection
from data_engine.store.bar_store import BarStore
from data_engine.store.conflicts import Conflicts, conflict_file, conflicting_symbols, dropped, revised_again
from data_engine.store.coverage import Coverage
from data_engine.store.file_edit import FileEdit
from data_engine.store.partitions import Period

GROUP_BARS = 32_768
"""After so many bars what waits is written, if it is of many files: 2 MB in memory, and as much again while they are encoded."""

MANY_FILES = 8
"""So many files share what a group costs well enough. Each that is there already is held in memory twice while it changes."""

LONG_GROUP_BARS = 98_304
"""Of fewer files, so many bars wait for each other: those of several months of minutes."""

_RUN_BARS = 1 << 21
"""So many bars wait in all tasks of a run: 128 MB."""


def long_group(workers: int) -> int:
    """Return how many bars of few files wait in each task of a run that does so many tasks at a time."""
    return max(GROUP_BARS, min(LONG_GROUP_BARS, _RUN_BARS // workers))


@dataclass(slots=True)
class _Waiting:
    """The bars of one file that are not written yet.

    Attributes:
        tables: The bars.
        times: The timestamps of all bars of the file that came, also of those that were written before.
        complete: Whether no more bars of the file will come.
    """

    tables: list[pa.Table] = field(default_factory=list)
    times: list[Int64s] = field(default_factory=list)
    complete: bool = False


_Judged = tuple[str, Period, Int64s]
"""A file to be judged by a complete response: the symbol, the file, and the timestamps of the bars of it that came."""


class SeriesFiles:
    """The files and the coverage of the series of one task.

    Args:
        storage: The store.
        task: The task.
        now: The instant when the run began.
        asked: Returns the part of the range of the task that was answered so far.
        group_bars: How many bars of few files wait until they are written.
        refetch: Whether covered ranges are fetched again.
        accept_removals: Whether bars that a complete response lacks are removed.

    Attributes:
        arrivals: What has come, by symbol.
        damaged: The errors of single files, by symbol; nothing more is written of these series.
        basis_same: The symbols whose stored session came again and is the same.
        empty: The recent sessions of which no bar came to series that traded lately, by symbol.
        now: The instant by which emptiness is judged: of a source that does not say what time it is, its newest bar.
        final_before: The instant before which bars are final.
    """

    def __init__(
        self,
        storage: BarStore,
        task: FetchTask,
        *,
        now: datetime,
        asked: Callable[[], TimeRange | None],
        group_bars: int,
        refetch: bool = False,
        accept_removals: bool = False,
    ) -> None:
        self._storage = storage
        self._task = task
        self._asked = asked
        self._refetch = refetch
        self._remove_all = accept_removals or not task.dataset.adjustment.is_raw
        self._group_bars = group_bars
        self._run_began = now
        self._recent = recent_since(now)
        self._waiting: dict[tuple[str, Period], _Waiting] = {}
        self._in_order = True
        self._conflicting: frozenset[str] | None = None  # read when first needed
        self._bars = 0
        self.arrivals = {symbol: Arrival() for symbol in task.symbols}
        self.damaged: dict[str, DataEngineError] = {}
        self.basis_same: set[str] = set()
        self.empty: dict[str, tuple[EmptySession, ...]] = {}
        self.now = now
        self.final_before = final_before(task.dataset, now)

    def series(self, symbol: str) -> Series:
        """Return the series of a symbol."""
        return Series(symbol, self._task.dataset)

    @contextmanager
    def guarded(self, symbol: str) -> Iterator[None]:
        """Have one file's trouble fail its symbol, and no other."""
        try:
            yield
        except OF_ONE_FILE as error:
            self.damaged[symbol] = error

    def known(self, symbol: str) -> Coverage:
        """Return the coverage of a symbol as it was before this chain wrote to it, but for what it was about to change."""
        arrival = self.arrivals[symbol]
        if arrival.known is None:
            arrival.known = self._storage.coverage.read(self.series(symbol))
        return arrival.known

    # --------------------------------------------------------------------------------------------------------------- bars

    def add(self, symbol: str, period: Period, part: pa.Table) -> None:
        """Keep bars of one file; bars of a symbol come in order of time."""
        arrival, place = self.arrivals[symbol], (symbol, period)
        if arrival.period is not None and arrival.period != period:
            before = self._waiting.setdefault((symbol, arrival.period), _Waiting(times=arrival.times))
            before.complete = True
        waiting = self._waiting.get(place)
        if waiting is not None and waiting.complete:
            self.write()  # against the documentation: bars of a file whose bars had all come
            waiting = None
        arrival.add(period, part, self._recent)
        if waiting is None:
            waiting = self._waiting[place] = _Waiting()
        waiting.tables.append(part)
        waiting.times = arrival.times
        self._bars += part.num_rows

    def write_if_many(self, current: str) -> None:
        """Write what waits if it is much, but for the current file of a symbol, of which more may come."""
        if self._bars >= (GROUP_BARS if len(self._waiting) >= MANY_FILES else self._group_bars):
            self.write(current)

    def write(self, current: str | None = None) -> None:
        """Write what waits, but for the current file of a symbol; judge the files of which all has come."""
        kept = None if current is None or current not in self.arrivals else (current, self.arrivals[current].period)
        group = {place: waiting for place, waiting in self._waiting.items() if place != kept}
        self._waiting = {place: waiting for place, waiting in self._waiting.items() if place == kept}
        self._bars = sum(table.num_rows for waiting in self._waiting.values() for table in waiting.tables)
        filled = [(symbol, period) for (symbol, period), waiting in group.items() if waiting.tables]
        self._withdraw(dict.fromkeys(symbol for symbol, _ in filled))
        self._announce_rewrite(filled)
        asked, edits = self._asked(), dict[FileEdit, tuple[str, Period]]()
        for symbol, period in filled:
            came = pa.concat_tables(group[symbol, period].tables)
            self._update_conflicts(symbol, partial(revised_again, bars=came, now=self._run_began))
            if symbol not in self.damaged:
                answered = asked.intersect(period.span) if asked else None
                edits[self._storage.merging(self.series(symbol), period, came, answered=answered)] = symbol, period
        self._carry_out(edits)
        ended = group.items() if self._in_order else ()
        complete = [(symbol, period, waiting) for (symbol, period), waiting in ended if waiting.complete]
        self._judge([(symbol, period, _joined(waiting.times)) for symbol, period, waiting in complete])
        for symbol, period, _ in complete:
            self.arrivals[symbol].settled.add(period)

    def _update_conflicts(self, symbol: str, change: Callable[[Conflicts], Conflicts]) -> None:
        """Change what is known of the conflicting bars of a symbol before its files change; nothing where there are none."""
        if self._conflicting is None:
            self._conflicting = conflicting_symbols(self._storage.files, self._task.dataset)
        if symbol in self._conflicting:
            with self.guarded(symbol):
                conflict_file(self._storage.files, self.series(symbol)).update(change)

    def distrust(self) -> None:
        """Remove nothing more, and claim nothing of series of which bars were removed: what they lacked may yet have come."""
        self._in_order = False
        removed = [symbol for symbol, arrival in self.arrivals.items() if arrival.changes.removed]
        self._note(dict.fromkeys(removed, lambda known: known.unclaimed(self._task.range)))

    def judge_rest(self, symbols: Iterable[str]) -> None:
        """Judge the files of the range that were not: the current one of each symbol, and those of which no bar came."""
        asked = self._asked()
        judged: list[_Judged] = []
        for symbol in symbols if asked is not None else ():
            if symbol not in self.damaged and asked is not None:
                arrival = self.arrivals[symbol]
                periods = set(self._storage.periods(self.series(symbol), asked)) - arrival.settled
                judged += [(symbol, period, arrival.came(period)) for period in sorted(periods)]
        self._judge(judged)

    def _carry_out(self, edits: Mapping[FileEdit, tuple[str, Period]]) -> None:
        failed = self._storage.edit_many(list(edits)) if edits else {}
        for edit, (symbol, period) in edits.items():
            if edit in failed:
                self.damaged[symbol] = failed[edit]
            else:
                self.arrivals[symbol].note(period, edit.result)

    def _judge(self, files: Iterable[_Judged]) -> None:
        """Judge stored bars by the complete response: remove what it lacks where that is to be, count the rest."""
        asked = self._asked()
        todo: list[tuple[_Judged, TimeRange, tuple[TimeRange, ...]]] = []
        changing: dict[str, list[Period]] = {}
        for symbol, period, came in files:
            answered = asked.intersect(period.span) if asked else None
            if answered is not None:
                self._update_conflicts(symbol, partial(dropped, answered=answered, came=came, now=self._run_began))
            written = self.arrivals[symbol].results.get(period)
            if answered is None or symbol in self.damaged or (written is not None and not written.lacking):
                continue
            with self.guarded(symbol):
                removable = self._removable(symbol, answered)
                if removable and not self._remove_all:  # of a session without any bar, the run decides in the end
                    removable = difference(removable, self._silent(symbol, answered).values())
                if removable:
                    changing.setdefault(symbol, []).append(period)
                todo.append(((symbol, period, came), answered, removable))
        self._announce(changing)
        edits = {
            self._storage.judging(self.series(symbol), period, came, answered, removable): (symbol, period)
            for (symbol, period, came), answered, removable in todo
            if symbol not in self.damaged
        }
        self._carry_out(edits)

    def _removable(self, symbol: str, answered: TimeRange) -> tuple[TimeRange, ...]:
        """Return where a stored bar that a complete response lacks is removed.

        That is everywhere in an adjusted series, since such a bar could be of another basis, and if removals are accepted.
        Elsewhere it is where bars were provisional until now: this response is the final word on them.
        """
        if self._remove_all:
            return (answered,)
        final = answered.before(self.final_before)
        return intersection((final,), self.known(symbol).provisional) if final else ()

    def _silent(self, symbol: str, answered: TimeRange) -> dict[date, TimeRange]:
        """Return the recent sessions of an answered range of which no bar came."""
        return silent_sessions(self._task.dataset, answered, self.arrivals[symbol].came_lately, self._run_began)

    def has_nothing_to_remove(self, symbol: str, asked: TimeRange | None) -> bool:
        """Tell whether the files hold nothing in a range that would have to be removed to cover it."""
        with self.guarded(symbol):
            for part in self._removable(symbol, asked) if asked else ():
                stored = timestamps_us(self._storage.read_range(self.series(symbol), part, ["timestamp"]))
                if not np.isin(stored, self.arrivals[symbol].came_last).all():
                    return False
        return symbol not in self.damaged

    # ----------------------------------------------------------------------------------------------------------- coverage

    def _withdraw(self, symbols: Iterable[str]) -> None:
        """Withdraw the claims of adjusted series inside the range, unless their bars came with the session they join."""
        if self._task.dataset.adjustment.is_raw:
            return
        span = self._task.range
        changes: dict[str, Callable[[Coverage], Coverage]] = {}
        for symbol in symbols:
            joined = symbol in self.basis_same and self.arrivals[symbol].responses <= 1
            with self.guarded(symbol):
                if not joined and intersection((span,), (*(known := self.known(symbol)).covered, *known.provisional)):
                    changes[symbol] = lambda known: known.unclaimed(span)
        self._note(changes)

    def _announce_rewrite(self, files: Sequence[tuple[str, Period]]) -> None:
        """Announce the files of ranges that are claimed: a killed run would leave counts there that no later run looks at."""
        span = self._task.range
        changing: dict[str, set[Period]] = {}
        for symbol, period in files:
            # Of a damaged coverage `cover` tells; its bars are stored all the same, unless a refetch could lose some.
            with self.guarded(symbol) if self._refetch else suppress(*OF_ONE_FILE):
                known, part = self.known(symbol), period.span.intersect(span)
                again = self._refetch and period in known.rows
                if again or (part is not None and intersection(known.covered, (part,))):
                    near = (one for one in known.rows if one.span.intersect(span))
                    changing.setdefault(symbol, set()).update(near, (period,))
        self._announce(changing)

    def _announce(self, changing: Mapping[str, Collection[Period]]) -> None:
        """Write down which files are about to change other than by growing: a killed run must not look like damage."""
        new = {symbol: periods for symbol, periods in changing.items() if not set(periods) <= self.known(symbol).changing}
        self._note({symbol: partial(Coverage.with_changing, periods=periods) for symbol, periods in new.items()})

    def _note(self, changes: Mapping[str, Callable[[Coverage], Coverage]]) -> None:
        """Change the coverage before the files change."""
        for symbol, known in self._update(changes).items():
            self.arrivals[symbol].known = known

    def _update(self, changes: Mapping[str, Callable[[Coverage], Coverage]]) -> dict[str, Coverage]:
        made, failed = update_coverage(self._storage, self._task, changes)
        self.damaged |= failed
        return made

    def count(self, symbols: Iterable[str]) -> None:
        """Count the files that were written of series of which nothing is covered."""
        self._update({symbol: partial(self._counted, symbol) for symbol in symbols if self.arrivals[symbol].results})

    def _counted(self, symbol: str, known: Coverage) -> Coverage:
        arrival = self.arrivals[symbol]
        return known.counted(self._storage.count_files(known, arrival.results, arrival.counts))

    def cover(self, answered: Mapping[str, TimeRange]) -> dict[str, Coverage]:
        """Cover ranges that were answered in full, after their bars are in place; return the coverage.

        Args:
            answered: The range of each symbol.
        """
        changes: dict[str, Callable[[Coverage], Coverage]] = {}
        for symbol, span in answered.items():
            with self.guarded(symbol):
                if silent := self._silent(symbol, span):
                    self.empty[symbol] = empty_sessions(self._storage, self.known(symbol), span, silent, self.final_before)
                changes[symbol] = partial(self._answered, symbol, span)
        # Only now, with the bars in place: coverage must never promise what is not on disk.
        return self._update(changes)

    def _answered(self, symbol: str, asked: TimeRange, known: Coverage) -> Coverage:
        arrival = self.arrivals[symbol]
        counts = self._storage.count_files(known, arrival.results, arrival.counts, within=asked)
        if not arrival.is_confirmed(known, asked, joined=symbol in self.basis_same):
            return known.with_unconfirmed(asked, now=self.now, counts=counts)
        made = known.answered(asked, final_before=self.final_before, now=self.now, counts=counts).succeeded()
        return made.reopened(difference(held_back(self.empty.get(symbol, ())), known.covered))


def update_coverage(
    storage: BarStore, task: FetchTask, changes: Mapping[str, Callable[[Coverage], Coverage]]
) -> tuple[dict[str, Coverage], dict[str, DataEngineError]]:
    """Change what is known of series of a task, together, but for the marks of files that other tasks may still be changing.

    A count of such a file can be old before it is written. Who changes the file counts it, or the run does in the end.

    Returns:
        What is known now, and the errors of single series, by symbol.

    Raises:
        StoreError: If it cannot be written.
    """
    if not changes:
        return {}, {}
    kept = {Series(symbol, task.dataset): partial(_with_marks_of_others, task, change) for symbol, change in changes.items()}
    made, failed = storage.coverage.update_many(kept)
    return {one.symbol: known for one, known in made.items()}, {one.symbol: error for one, error in failed.items()}


def _with_marks_of_others(task: FetchTask, change: Callable[[Coverage], Coverage], known: Coverage) -> Coverage:
    made = change(known)
    others = frozenset(period for period in known.changing if not task.owns(period))
    return replace(made, changing=made.changing | others) if others else made


def _joined(times: Iterable[Int64s]) -> Int64s:
    return np.concatenate([np.empty(0, np.int64), *times])
