"""Remember what has come of one symbol in a chain of pages, and what that changed in its files. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa

from data_engine.market.bars import EMPTY, NO_CHANGES, Changes, Int64s, from_micros, timestamps_us, to_micros, within
from data_engine.market.time_range import TimeRange, difference
from data_engine.store.coverage import Coverage
from data_engine.store.file_count import FileCount
from data_engine.store.file_edit import WriteResult
from data_engine.store.partitions import Period


@dataclass(slots=True)
class Arrival:
    """What has come of one symbol.

    Attributes:
        period: The current file.
        times: The timestamps of the bars of the current file that came.
        results: What was written, by file; as of the last write.
        settled: The files that were judged by the complete response.
        last: The last bar that came, UTC.
        changes: How all of that changed the files.
        compared: Whether the stored session was compared.
        again: Its bars as they came again.
        known: The coverage before.
        forming: Whether a bar came that had not ended.
        waiting: Bars of the range that may be forming.
        responses: In how many pages its bars came.
        seen: Whether a bar of the range came in a chain that only tells so.
        recent: The timestamps of the bars that came of recent sessions.
    """

    period: Period | None = None
    times: list[Int64s] = field(default_factory=list)
    results: dict[Period, WriteResult] = field(default_factory=dict)
    settled: set[Period] = field(default_factory=set)
    last: datetime | None = None
    changes: Changes = NO_CHANGES
    compared: bool = False
    again: list[pa.Table] = field(default_factory=list)
    known: Coverage | None = None
    forming: bool = False
    waiting: pa.Table = field(default_factory=lambda: EMPTY)
    responses: int = 0
    seen: bool = False
    recent: list[Int64s] = field(default_factory=list)

    def keep_again(self, bars: pa.Table, overlap: TimeRange | None) -> None:
        """Keep those bars that are of the stored session, until it is compared."""
        if overlap is not None and not self.compared:
            self.again.append(within(bars, overlap))

    def add(self, period: Period, part: pa.Table, since: datetime) -> None:
        """Take bars of the current file, or of the next; those from *since* on are remembered as recent."""
        if self.period != period:
            self.period, self.times = period, []
        times = timestamps_us(part)
        self.times.append(times.copy())  # a part of an array, even an empty one, would keep the whole page in memory
        recent = times[np.searchsorted(times, to_micros(since)) :]
        if recent.size:
            self.recent.append(recent.copy())
        last = from_micros(int(times[-1]))
        self.last = last if self.last is None else max(last, self.last)

    def note(self, period: Period, result: WriteResult) -> None:
        """Remember what a write did."""
        self.results[period] = result
        self.changes += result.changes

    @property
    def came_lately(self) -> Int64s:
        """The timestamps of the bars that came of recent sessions."""
        return np.concatenate([np.empty(0, np.int64), *self.recent])

    @property
    def came_last(self) -> Int64s:
        """The timestamps of the bars of the current file that came."""
        return np.concatenate([np.empty(0, np.int64), *self.times])

    def came(self, period: Period) -> Int64s:
        """Return the timestamps of the bars of a file that came, if it is the current one; else none came."""
        return self.came_last if period == self.period else np.empty(0, np.int64)

    @property
    def counts(self) -> dict[Period, FileCount]:
        """What is in the files that were written."""
        return {period: result.count for period, result in self.results.items() if result.count is not None}

    def is_confirmed(self, known: Coverage, asked: TimeRange, *, joined: bool) -> bool:
        """Tell whether the bars that came are of one price base with all that is claimed of the series.

        Args:
            known: The coverage of the series.
            asked: The range that was answered.
            joined: Whether a stored session came with them and is the same.
        """
        if known.series.dataset.adjustment.is_raw or self.last is None:
            return True
        claims = (*known.covered, *known.provisional, *(one.range for one in known.unconfirmed))
        alone = not known.rows or not difference(claims, (asked,))
        return self.responses <= 1 and (joined or alone)
