"""Compare the pages of one task with what is stored: `RecheckWriter`. New bars are stored, and conflicting ones are written down.

A symbol is compared once all its bars have come: when a later symbol follows, or the chain of pages ends. Bars first, then the
conflicting bars, then the coverage, which says that the range was fetched again; a run that is killed in between does it again.
Of adjusted series nothing is written: every corporate action changes all their prices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

import pyarrow as pa

from data_engine.errors import OF_ONE_FILE, DataEngineError, ForeignFiles
from data_engine.ingest.chain import Chain, Phase
from data_engine.ingest.drift import Rechecked, rechecked_of
from data_engine.ingest.empty_sessions import EmptySession
from data_engine.ingest.plan import FetchTask
from data_engine.ingest.series_files import update_coverage
from data_engine.market.bars import EMPTY, NO_CHANGES, Changes, within
from data_engine.market.bars_page import BarsPage
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange, intersection
from data_engine.store.bar_store import BarStore, split_by_period
from data_engine.store.conflicts import Conflicts, conflict_file, conflicts_between, merged, new_bars
from data_engine.store.coverage import Coverage
from data_engine.store.dated_ranges import seen_again
from data_engine.store.file_count import FileCount
from data_engine.store.file_edit import FileEdit
from data_engine.store.legacy_files import foreign_files
from data_engine.store.partitions import Period

_GROUP_BARS = 131_072
"""So many bars are compared together at the latest: one flush of the device serves many files."""


@dataclass(slots=True)
class _Judged:
    """The result of comparing one symbol."""

    ranges: tuple[TimeRange, ...]
    conflicts: Conflicts
    new: pa.Table
    counts: dict[Period, FileCount] = field(default_factory=dict)


class RecheckWriter:
    """Compares the bars of the pages of one task; has the methods of `PageWriter` that a task uses.

    Args:
        storage: The store.
        task: The task.
        now: The instant when the run began.

    Attributes:
        changes: How the files have changed, by symbol.
        damaged: The errors of single files, by symbol.
        rechecked: What was compared, by symbol.
        forming: Nothing: what is fetched again has ended.
        empty: Nothing: what is fetched again is final.
        basis_changed: Nothing: prices are compared one by one.
        basis_same: Nothing.
    """

    def __init__(self, storage: BarStore, task: FetchTask, *, now: datetime) -> None:
        self._storage = storage
        self._task = task
        self._now = now
        self._until = now
        self._bars: dict[str, list[pa.Table]] = {}
        self._waiting = 0
        self._pages = 0
        self._current = ""
        self._ordered = True
        self._done: set[str] = set()
        self.changes: dict[str, Changes] = {}
        self.damaged: dict[str, DataEngineError] = {}
        self.rechecked: dict[str, Rechecked] = {}
        self.forming: set[str] = set()
        self.empty: dict[str, tuple[EmptySession, ...]] = {}
        self.basis_changed: set[str] = set()
        self.basis_same: set[str] = set()

    def chains(self) -> Iterator[Chain]:
        """Yield the chain to request; its pages are to be given to `take`."""
        yield Chain(self._task.symbols, self._task.range, Phase.FETCH)

    def take(self, page: BarsPage, *, dated: bool = True) -> int:
        """Keep the bars of one page; return how many of them belong to the range of the task.

        Args:
            page: The page.
            dated: Whether the source says what time it is; it does not matter for what is final.
        """
        del dated
        until = self._now if page.until is None else min(self._now, page.until)
        self._until = until if not self._pages else min(self._until, until)
        self._pages += 1
        came = 0
        for symbol, bars in page.bars():
            if symbol < self._current:
                self._ordered = False  # against the documentation: then nothing is known to be finished before the end
            self._current = max(symbol, self._current)
            kept = within(bars, self._task.range)
            self._bars.setdefault(symbol, []).append(kept)
            came += kept.num_rows
        self._waiting += came
        if self._waiting >= _GROUP_BARS and self._ordered:
            self._judge(self._passed())
        return came

    def complete(self) -> None:
        """Compare what was not compared yet: the chain has ended. Without any page, nothing was answered."""
        if self._pages:
            self._judge([one for one in self._task.symbols if one not in self._done])

    def distrust(self) -> None:
        """Take nothing as finished before the chain ends: its pages did not come in order."""
        self._ordered = False

    def abort(self) -> dict[str, TimeRange]:
        """Compare the symbols whose bars have all come; return what is left to request, by symbol. The chain broke off."""
        if self._ordered and self._current:
            self._judge(self._passed())
        return dict.fromkeys((one for one in self._task.symbols if one not in self._done), self._task.range)

    def _passed(self) -> list[str]:
        """Return the symbols that a later symbol has followed, and that were not compared yet."""
        return [one for one in self._task.symbols if one < self._current and one not in self._done]

    # --------------------------------------------------------------------------------------------------------- comparison

    def _judge(self, symbols: Iterable[str]) -> None:
        """Compare symbols with what is stored, and write what follows from that."""
        answered = self._task.range.before(self._until)
        judged: dict[str, _Judged] = {}
        for symbol in symbols:
            self._done.add(symbol)
            came = pa.concat_tables([EMPTY, *self._bars.pop(symbol, ())])
            self._waiting -= came.num_rows
            try:
                judged[symbol] = self._compared(symbol, answered, came)
            except OF_ONE_FILE as error:
                self.damaged[symbol] = error
        if self._task.dataset.adjustment.is_raw and judged:
            self._write(judged)

    def _compared(self, symbol: str, answered: TimeRange | None, came: pa.Table) -> _Judged:
        series = self._series(symbol)
        spans = intersection((answered,) if answered else (), self._storage.coverage.read(series, fingerprints=False).covered)
        stored = pa.concat_tables([EMPTY, *(self._storage.read_range(series, span) for span in spans)])
        theirs = pa.concat_tables([EMPTY, *(within(came, span) for span in spans)])
        conflicts, appeared = conflicts_between(stored, theirs, self._now.replace(microsecond=0))
        new = new_bars(theirs, appeared) if appeared.any() else EMPTY
        self.rechecked[symbol] = rechecked_of(series, stored, conflicts, new)
        return _Judged(spans, conflicts, new)

    def _series(self, symbol: str) -> Series:
        return Series(symbol, self._task.dataset)

    # ------------------------------------------------------------------------------------------------------------ writing

    def _write(self, judged: Mapping[str, _Judged]) -> None:
        self._write_new({symbol: one for symbol, one in judged.items() if one.new.num_rows})
        for symbol, one in judged.items():
            if symbol not in self.damaged:
                self._note_conflicts(symbol, one)
        self._update({symbol: partial(self._seen, symbol, one) for symbol, one in judged.items() if symbol not in self.damaged})

    def _write_new(self, judged: Mapping[str, _Judged]) -> None:
        """Store the bars that Alpaca had not returned before; the coverage first says which files will change."""
        edits: dict[FileEdit, tuple[str, Period]] = {}
        changing: dict[str, Callable[[Coverage], Coverage]] = {}
        for symbol, one in judged.items():
            series = self._series(symbol)
            if (reason := foreign_files(self._storage.files, series)) is not None:
                self.damaged[symbol] = ForeignFiles(reason)
                continue
            parts = dict(split_by_period(one.new, self._task.dataset))
            changing[symbol] = partial(Coverage.with_changing, periods=parts)
            edits |= {self._storage.merging(series, period, part): (symbol, period) for period, part in parts.items()}
        self._update(changing)
        edits = {edit: place for edit, place in edits.items() if place[0] not in self.damaged}
        failed = self._storage.edit_many(list(edits)) if edits else {}
        for edit, (symbol, period) in edits.items():
            if edit in failed:
                self.damaged[symbol] = failed[edit]
                continue
            self.changes[symbol] = self.changes.get(symbol, NO_CHANGES) + edit.result.changes
            if edit.result.count is not None:
                judged[symbol].counts[period] = edit.result.count

    def _update(self, changes: Mapping[str, Callable[[Coverage], Coverage]]) -> None:
        _, failed = update_coverage(self._storage, self._task, changes)
        self.damaged |= failed

    def _note_conflicts(self, symbol: str, judged: _Judged) -> None:
        """Write the conflicting bars of a symbol."""
        file = conflict_file(self._storage.files, self._series(symbol))
        try:
            before = file.read()
            if merged(before, judged.ranges, judged.conflicts) != before:
                file.update(lambda known: merged(known, judged.ranges, judged.conflicts))
        except OF_ONE_FILE as error:
            self.damaged[symbol] = error

    def _seen(self, symbol: str, judged: _Judged, known: Coverage) -> Coverage:
        # Another task writes conflicting bars of the same series at the same time. Read after the coverage that it is written
        # to, the file has those of every task that has counted before.
        conflicting = len(conflict_file(self._storage.files, self._series(symbol)).read())
        if judged.new.num_rows:
            known = replace(known.counted(self._storage.count_files(known, judged.counts, judged.counts)), empty_since=None)
        asked = self._now.replace(microsecond=0)
        return replace(known, seen=seen_again(known.seen, judged.ranges, asked, known.covered), conflicting=conflicting)
