"""One chain of pages on its way to disk: `PageWriter`.

Bars are held only until their file is complete: the server sends symbols in ascending order and each symbol's bars in time
order, so a file is written when the next one begins. Coverage follows when the chain has ended; a chain that breaks off
covers the symbols it finished, and the current one through its last bar.

Adjusted prices change whenever a corporate action lands. So their series are only extended after a session that is held, asked
for again, equals what is stored; and where a range was not covered, the answer replaces whatever lay there, since it could be
of another price base.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import pyarrow as pa

from data_engine.errors import DamagedFile, DataEngineError, FileInUse, StoreBusy
from data_engine.ingest.plan import FetchTask
from data_engine.market.bars import EMPTY, Changes, Int64s, from_micros, take, timestamps_us, within
from data_engine.market.bars_page import BarsPage
from data_engine.market.finality import final_before
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange
from data_engine.store.bar_store import BarStore, WriteResult, split_by_period
from data_engine.store.coverage import Coverage, Fingerprint
from data_engine.store.partitions import Partition, Period, periods

_OF_ONE_FILE = (DamagedFile, FileInUse, StoreBusy)
"""One file is the trouble: its symbol fails, the neighbours go on."""


@dataclass(slots=True)
class _Arrival:
    """What has come of one symbol."""

    pending: list[pa.Table] = field(default_factory=list)
    period: Period | None = None
    rows: dict[Period, int] = field(default_factory=dict)
    files: dict[Period, Fingerprint] = field(default_factory=dict)
    first: datetime | None = None
    last: datetime | None = None
    written: WriteResult = field(default_factory=WriteResult)
    times: list[Int64s] = field(default_factory=list)
    again: list[pa.Table] = field(default_factory=list)
    compared: bool = False
    without_fingerprints: bool = False
    removed: bool = False

    def note(self, period: Period, written: WriteResult) -> None:
        """Remember what is in a file now."""
        self.rows[period] = written.rows
        if written.fingerprint is not None:
            self.files[period] = written.fingerprint


class PageWriter:
    """Takes the pages of one task and keeps their bars.

    Args:
        storage: where to.
        task: whose pages they are.
        now: when the run began: bars that had not ended are left out, and what was not final then is provisional.
        refetch: whether stored bars may be missing from the answer, and are to be counted.
        accept_removals: whether those are taken out.
    """

    def __init__(
        self, storage: BarStore, task: FetchTask, *, now: datetime, refetch: bool = False, accept_removals: bool = False
    ) -> None:
        self._storage = storage
        self._task = task
        self._now = now
        self._adjusted = not task.dataset.adjustment.is_raw
        self._again = refetch
        self._refetch = refetch or self._adjusted
        self._accept_removals = accept_removals or self._adjusted
        self._final_before = final_before(task.dataset, now)
        self._until = now
        self._arrivals = {symbol: _Arrival() for symbol in task.symbols}
        self._current = ""
        self._ordered = True
        self.damaged: dict[str, DataEngineError] = {}
        self.basis_changed: set[str] = set()

    def spans(self) -> Iterator[TimeRange]:
        """Yield what to ask for, one chain of pages after the other: the range, with the session to be compared."""
        overlap, span = self._task.overlap, self._task.range
        if overlap is not None and overlap.end <= span.start:
            yield TimeRange(overlap.start, span.end)
            return
        if overlap is not None:
            # It lies after the range, where its bars would come too late: they are asked for first.
            yield overlap
            for symbol in self._task.symbols:
                self._compare(symbol)
            self._current = ""
        yield span

    @property
    def written(self) -> dict[str, WriteResult]:
        """What was written so far, by symbol."""
        return {symbol: arrival.written for symbol, arrival in self._arrivals.items()}

    def take(self, page: BarsPage) -> int:
        """Keep the bars of one page; return how many of them belong to the task."""
        taken = 0
        # A clamped end can cut through a bar that has ended since: half its trades would be missing.
        self._until = self._now if page.until is None else min(self._now, page.until)
        span = self._task.range.before(self._task.dataset.timeframe.floor(self._until))
        for symbol, bars in page.bars():
            if symbol < self._current:
                self._ordered = False  # against the documentation: then nothing is known to be finished before the end
            elif symbol > self._current:
                self._flush(self._current)
                self._current = symbol
            kept = within(bars, span) if span else EMPTY
            if self._task.overlap is not None:
                self._arrivals[symbol].again.append(within(bars, self._task.overlap))
                if kept.num_rows:
                    self._compare(symbol)
            if symbol in self.basis_changed:
                continue
            taken += kept.num_rows
            for period, part in split_by_period(kept, self._task.dataset):
                self._add(symbol, period, part)
        return taken

    def complete(self) -> dict[str, Coverage]:
        """Write what is pending and cover the whole range of every symbol; return their coverage. The chain has ended."""
        known = {}
        for symbol in self._task.symbols:
            self._compare(symbol)
            self._flush(symbol)
            if symbol not in self.damaged and symbol not in self.basis_changed:
                made = self._cover(symbol, self._task.range)
                if made is not None:
                    known[symbol] = made
        return known

    def abort(self) -> dict[str, TimeRange]:
        """Write what is pending and cover what is certain; return what is left to ask, by symbol. The chain broke."""
        left: dict[str, TimeRange] = {}
        for symbol in self._task.symbols:
            if self._ordered and symbol < self._current:
                self._compare(symbol)
            self._flush(symbol)
            if symbol in self.damaged or symbol in self.basis_changed:
                continue
            last = self._arrivals[symbol].last
            if self._ordered and symbol < self._current:
                self._cover(symbol, self._task.range)
            elif self._ordered and symbol == self._current and last is not None:
                end = min(self._task.dataset.timeframe.next(self._task.dataset.timeframe.floor(last)), self._task.range.end)
                self._cover(symbol, TimeRange(self._task.range.start, end))
                rest = self._task.range.after(end)
                if rest is not None:
                    left[symbol] = rest
            else:
                left[symbol] = self._task.range
        return left

    def _compare(self, symbol: str) -> None:
        """Hold the session that came again against what is stored, once, and before the first new bar is kept."""
        arrival, overlap = self._arrivals[symbol], self._task.overlap
        if overlap is None or arrival.compared or symbol in self.damaged:
            return
        arrival.compared = True
        series = Series(symbol, self._task.dataset)
        try:
            stored = [within(self._storage.read(series, period), overlap) for period in self._storage.periods(series, overlap)]
        except DamagedFile as error:
            self.damaged[symbol] = error
            return
        held = pa.concat_tables([EMPTY, *stored])
        # No bar on either side tells nothing: then it is not known that the base is the same.
        if not held.num_rows or not held.equals(pa.concat_tables([EMPTY, *arrival.again])):
            self.basis_changed.add(symbol)
        arrival.again = []

    def _add(self, symbol: str, period: Period, part: pa.Table) -> None:
        arrival = self._arrivals[symbol]
        if arrival.period is not None and arrival.period != period:
            self._flush(symbol)
        arrival.period = period
        arrival.pending.append(part)
        times = timestamps_us(part)
        if self._refetch:
            arrival.times.append(times)
        first, last = (from_micros(int(times[at])) for at in (0, -1))
        arrival.first = first if arrival.first is None else min(first, arrival.first)
        arrival.last = last if arrival.last is None else max(last, arrival.last)

    def _flush(self, symbol: str) -> None:
        arrival = self._arrivals.get(symbol)
        if arrival is None or arrival.period is None:
            return
        period, pending = arrival.period, arrival.pending
        arrival.period, arrival.pending = None, []
        if symbol not in self.damaged:
            self._write(symbol, period, pa.concat_tables(pending))

    def _write(self, symbol: str, period: Period, bars: pa.Table) -> None:
        arrival = self._arrivals[symbol]
        try:
            self._unmark(symbol)
            written = self._storage.write(Series(symbol, self._task.dataset), period, bars)
        except _OF_ONE_FILE as error:
            self.damaged[symbol] = error
            return
        arrival.note(period, written)
        arrival.written += written

    def _unmark(self, symbol: str) -> None:
        """Drop the fingerprints of files that stay covered while they are rewritten: a killed refetch is no damage."""
        arrival = self._arrivals[symbol]
        if self._again and not arrival.without_fingerprints:
            touched = tuple(periods(self._task.range, self._task.dataset))
            self._storage.coverage.update(Series(symbol, self._task.dataset), lambda known: known.without_fingerprints(touched))
            arrival.without_fingerprints = True

    def _look_for_vanished(self, symbol: str, span: TimeRange) -> None:
        """Count the stored bars of an answered range that did not come, or take them out. Only what is complete can tell."""
        arrival = self._arrivals[symbol]
        came = np.concatenate(arrival.times) if arrival.times else np.empty(0, np.int64)
        series = Series(symbol, self._task.dataset)
        try:
            self._unmark(symbol)
            for period in list(self._storage.periods(series, span)):
                stored = self._storage.read(series, period)
                again = take(stored, np.isin(timestamps_us(stored), came))
                answered = span.intersect(period.span)
                written = self._storage.write(series, period, again, answered=answered, drop_vanished=self._accept_removals)
                arrival.note(period, written)
                arrival.removed |= bool(written.changes.vanished and self._accept_removals)
                arrival.written += WriteResult(changes=Changes(vanished=written.changes.vanished))
        except _OF_ONE_FILE as error:
            self.damaged[symbol] = error

    def _gone(self, symbol: str, known: Coverage, span: TimeRange) -> dict[Period, int]:
        """Return the files that coverage still counts although a run that was killed had taken them away."""
        series = Series(symbol, self._task.dataset)
        counted = (period for period in known.rows if period.span.intersect(span))
        return {period: 0 for period in counted if self._storage.files.size(Partition(series, period).key) is None}

    def _is_as_written(self, symbol: str, period: Period, mark: Fingerprint) -> bool:
        """Tell whether nobody has written to a file since: another chain of the run, or somebody's `store`."""
        # The size alone does not tell: of changes to a single price, every fifth to every second leaves it as it was.
        content = self._storage.files.get(Partition(Series(symbol, self._task.dataset), period).key)
        return content is not None and Fingerprint.of(content) == mark

    def _cover(self, symbol: str, span: TimeRange) -> Coverage | None:
        arrival, series = self._arrivals[symbol], Series(symbol, self._task.dataset)
        asked = span.before(self._until)
        if asked is None:
            return None
        if self._refetch:
            self._look_for_vanished(symbol, asked)
            if symbol in self.damaged:
                return None

        def answered(known: Coverage) -> Coverage:
            files = {period: mark for period, mark in arrival.files.items() if self._is_as_written(symbol, period, mark)}
            changed = {period: self._storage.count(series, period) for period in arrival.files if period not in files}
            rows = {**self._gone(symbol, known, asked), **arrival.rows, **changed}
            made = known.answered(
                asked,
                final_before=self._final_before,
                now=self._now,
                rows=rows,
                first=arrival.first,
                last=arrival.last,
                files=files,
            )
            if arrival.removed:
                first, last = self._storage.reach(series)
                made = replace(made, first_bar=first, last_bar=last)
            return made.succeeded()

        try:
            # Only now, with the bars in place: coverage must never promise what is not on disk.
            return self._storage.coverage.update(series, answered)
        except _OF_ONE_FILE as error:
            self.damaged[symbol] = error
            return None


def remaining_tasks(task: FetchTask, left: dict[str, TimeRange]) -> Iterator[FetchTask]:
    """Yield what is left of a task that broke off: symbols with the same rest together."""
    by_rest: dict[TimeRange, list[str]] = {}
    for symbol, rest in left.items():
        by_rest.setdefault(rest, []).append(symbol)
    for rest, symbols in by_rest.items():
        share = rest.length / task.range.length * len(symbols) / len(task.symbols)
        # Whoever has not begun is still to be compared; whoever broke off in the middle was.
        overlap = task.overlap if rest == task.range else None
        yield FetchTask(tuple(sorted(symbols)), rest, task.dataset, task.estimate * share, overlap, task.asof)
