"""Whether the vendor still says what it said: which held sessions to ask for again, what differs, and the log of it. Pure.

A sample is drawn by hashes of the seed and the series: the same seed draws the same sessions of a series, whatever else is in the
store. Sessions are drawn at random, and several symbols of each, since symbols of one session share a request.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.ingest.plan import FetchTask, bars_per_session
from data_engine.market.bars import VALUES, Int64s, from_micros, numbers, timestamps_us, to_micros
from data_engine.market.exchange_calendar import can_hold_bars, sessions
from data_engine.market.series import Dataset, Feed, Series
from data_engine.market.time_range import TimeRange, from_iso, iso, new_york_date, new_york_midnight
from data_engine.store.coverage import Coverage
from data_engine.store.csv_document import dump_rows, load_rows

REVISED, APPEARED, VANISHED = "revised", "appeared", "vanished"

HEADER = ("seen", "symbol", "timestamp", "change", "field", "old", "new")

_HOUR = 3_600_000_000

_MOST_SYMBOLS = 400

_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))

# ---------------------------------------------------------------------------------------------------------------- the plan


@dataclass(frozen=True, slots=True)
class AuditPlan:
    """Which held sessions are asked for again.

    Attributes:
        tasks: one chain of pages each; symbols that share sessions share them.
        sessions: how many, counted by series.
        held: among how many.
        series: of how many series.
        seed: that drew them.
    """

    tasks: tuple[FetchTask, ...]
    sessions: int
    held: int
    series: int
    seed: int

    @property
    def requests(self) -> int:
        """The requests that are expected to be sent."""
        return sum(task.pages(10_000) for task in self.tasks)


def plan_audit(
    known: Iterable[Coverage],
    sample: int,
    *,
    seed: int,
    page_limit: int = 10_000,
    asof: Mapping[Series, date] | None = None,
) -> AuditPlan:
    """Draw sessions that are held and final, and put them into few requests.

    Args:
        known: coverage of the series to draw from.
        sample: how many sessions, counted by series; all of them where there are not so many.
        seed: the same one draws the same sessions.
        page_limit: bars per page.
        asof: of series whose security has left the ticker since, its last day there.
    """
    drawn = _Draw(known, seed, page_limit)
    by_session: dict[tuple[str, int], list[int]] = {}
    for unit in drawn.take(sample):
        by_session.setdefault((drawn.dataset_of(unit).name, int(drawn.starts[unit])), []).append(unit)
    tasks: list[FetchTask] = []
    for _, units in sorted(by_session.items()):
        for task in drawn.tasks(units, asof or {}):
            last = tasks[-1] if tasks else None
            if last is not None and _goes_on(last, task, page_limit):
                whole = TimeRange(last.range.start, task.range.end)
                tasks[-1] = replace(last, range=whole, estimate=last.estimate + task.estimate)
            else:
                tasks.append(task)
    chosen = [unit for ours in by_session.values() for unit in ours]
    return AuditPlan(tuple(tasks), len(chosen), len(drawn.starts), len({int(drawn.owners[unit]) for unit in chosen}), seed)


class _Draw:
    """All sessions that can be drawn: for each, whose it is, when it starts, and a number by which it is drawn."""

    def __init__(self, known: Iterable[Coverage], seed: int, page_limit: int) -> None:
        self._known = [one for one in known if one.first_bar is not None]
        self._rates = [bars_per_session(one) for one in self._known]
        self._page_limit = page_limit
        found = [held_sessions(one) for one in self._known]
        self.starts: Int64s = np.concatenate([np.empty(0, np.int64), *found])
        self.owners = np.repeat(np.arange(len(found)), [len(starts) for starts in found])
        names = {name: number for number, name in enumerate(sorted({one.series.dataset.name for one in self._known}))}
        datasets = np.array([names[one.series.dataset.name] for one in self._known], np.int64)
        self._datasets = datasets[self.owners] if len(self._known) else np.empty(0, np.int64)
        keys = [_hashes(seed, one.series, starts) for one, starts in zip(self._known, found, strict=True)]
        self._keys = np.concatenate([np.empty(0, np.uint64), *keys])

    def dataset_of(self, unit: int) -> Dataset:
        return self._known[int(self.owners[unit])].series.dataset

    def take(self, sample: int) -> list[int]:
        """Return units: about as many symbols of a session as sessions, and no more than fill a page."""
        if sample >= len(self.starts):
            return list(range(len(self.starts)))
        taken = np.zeros(len(self.starts), bool)
        drawn = np.zeros(len(self._known), np.int64)
        chosen: list[int] = []
        used: set[tuple[int, int]] = set()
        order = np.argsort(self._keys, kind="stable").tolist()
        for again in (False, True):  # a session comes a second time only where there are too few of them
            for first in order:
                session = (int(self._datasets[first]), int(self.starts[first]))
                if len(chosen) >= sample:
                    return chosen
                if taken[first] or (session in used and not again):
                    continue
                used.add(session)
                ours = [first, *self._beside(first, taken, drawn, sample, sample - len(chosen))]
                taken[ours] = True
                drawn[self.owners[ours]] += 1
                chosen += ours
        return chosen

    def _beside(self, first: int, taken: Any, drawn: Any, sample: int, left: int) -> list[int]:
        """Return who else of the session of *first* is drawn with it."""
        rate = max(1.0, self._rates[self.owners[first]])
        share = max(1, min(math.isqrt(sample - 1) + 1, int(self._page_limit / rate), left))
        found = np.flatnonzero((self.starts == self.starts[first]) & (self._datasets == self._datasets[first]) & ~taken)
        found = found[found != first]
        # Who has been drawn least comes first, so that the sample is spread over the series.
        chosen: list[int] = found[np.lexsort((self._keys[found], drawn[self.owners[found]]))][: share - 1].tolist()
        return chosen

    def tasks(self, units: Sequence[int], asof: Mapping[Series, date]) -> Iterator[FetchTask]:
        """Yield the tasks of one session."""
        dataset = self.dataset_of(units[0])
        start = from_micros(int(self.starts[units[0]]))
        end = dataset.timeframe.next(start) if not dataset.timeframe.intraday else start + timedelta(days=1)
        by_day: dict[date | None, list[int]] = {}
        for unit in sorted(units, key=lambda unit: self._known[self.owners[unit]].series.symbol):
            by_day.setdefault(asof.get(self._known[self.owners[unit]].series), []).append(int(self.owners[unit]))
        for day, owners in by_day.items():
            for at in range(0, len(owners), _MOST_SYMBOLS):
                part = owners[at : at + _MOST_SYMBOLS]
                names = tuple(self._known[owner].series.symbol for owner in part)
                estimate = sum(self._rates[owner] for owner in part)
                yield FetchTask(names, TimeRange(start, end), dataset, estimate, asof=day)


def held_sessions(known: Coverage) -> Int64s:
    """Return the starts of the sessions of a series that are covered whole, from its first bar to its last; microseconds.

    Of minutes and hours, a session is a New York day; of longer bars, a bar.
    """
    first, last = known.first_bar, known.last_bar
    if first is None or last is None:
        return np.empty(0, np.int64)
    dataset = known.series.dataset
    if dataset.timeframe.intraday or dataset.timeframe.unit == "Day":
        starts = _midnights(new_york_date(first), new_york_date(last))
        begin, end = 0, 1  # of a longer bar, its start says where it belongs
        if dataset.timeframe.intraday:
            # What trades in the exchange's hours is covered to their end by a run of the same evening.
            begin, end = (4 * _HOUR, 20 * _HOUR) if dataset.feed in (Feed.SIP, Feed.IEX) else (0, 24 * _HOUR)
        held = np.zeros(len(starts), bool)
        for piece in known.covered:
            held |= (starts + begin >= to_micros(piece.start)) & (starts + end <= to_micros(piece.end))
        chosen: Int64s = starts[held]
        return chosen
    return np.array([to_micros(bar.start) for bar in _long_bars(known, first, last)], np.int64)


def _long_bars(known: Coverage, first: datetime, last: datetime) -> Iterator[TimeRange]:
    dataset = known.series.dataset
    start = dataset.timeframe.floor(first)
    while start <= last:
        bar = TimeRange(start, dataset.timeframe.next(start))
        if can_hold_bars(bar, dataset) and any(start in piece for piece in known.covered):
            yield bar
        start = bar.end


@lru_cache(maxsize=1024)
def _midnights(first: date, last: date) -> Int64s:
    # No session is on a day of 23 or 25 hours: clocks change on Sundays.
    return np.array([to_micros(new_york_midnight(day)) for day in sessions(first, last)], np.int64)


def _hashes(seed: int, series: Series, starts: Int64s) -> Any:
    """Return an evenly spread number for each start, the same on every machine and in every version of numpy."""
    name = f"{seed}|{series.dataset.name}|{series.symbol}".encode()
    mixed = starts.astype(np.uint64) * _MIX[0] + np.frombuffer(blake2b(name, digest_size=8).digest(), "<u8")
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[1]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[2]
    return mixed ^ (mixed >> np.uint64(31))


def _goes_on(last: FetchTask, task: FetchTask, page_limit: int) -> bool:
    """Tell whether a task is the next session of the same symbols, and both fit on one page."""
    alike = (last.symbols, last.dataset, last.asof) == (task.symbols, task.dataset, task.asof)
    if not alike or last.estimate + task.estimate > page_limit:
        return False
    gap = TimeRange(last.range.end, task.range.start) if last.range.end < task.range.start else None
    return gap is None or next(sessions(new_york_date(gap.start), new_york_date(gap.end) - timedelta(days=1)), None) is None


# ---------------------------------------------------------------------------------------------------------- the comparison


@dataclass(frozen=True, slots=True)
class Revision:
    """One number that the vendor now says otherwise.

    Attributes:
        series: of the bar.
        timestamp: of the bar, UTC.
        change: ``revised``; ``appeared``, of a bar that was not stored; ``vanished``, of one that no longer comes.
        field: of `VALUES`.
        old: what is stored; None of a bar that appeared.
        new: what the vendor says; None of a bar that vanished.
    """

    series: Series
    timestamp: datetime
    change: str
    field: str
    old: float | None
    new: float | None


def compare(series: Series, stored: pa.Table, fetched: pa.Table) -> list[Revision]:
    """Return what differs between two sorted tables of the same range, by time and field; one entry for each field."""
    old, new = timestamps_us(stored), timestamps_us(fetched)
    _, left, right = np.intersect1d(old, new, assume_unique=True, return_indices=True)
    found: list[tuple[int, int, Revision]] = []

    def note(rows: Any, change: str, number: int, column: str, olds: Any, news: Any) -> None:
        for row, time in enumerate(rows.tolist()):
            before, after = (None if values is None else float(values[row]) for values in (olds, news))
            found.append((time, number, Revision(series, from_micros(time), change, column, before, after)))

    gone, come = ~np.isin(old, new, assume_unique=True), ~np.isin(new, old, assume_unique=True)
    for number, column in enumerate(VALUES):
        was, says = numbers(stored.column(column)), numbers(fetched.column(column))
        differs = was[left] != says[right]
        note(old[left][differs], REVISED, number, column, was[left][differs], says[right][differs])
        note(new[come], APPEARED, number, column, None, says[come])
        note(old[gone], VANISHED, number, column, was[gone], None)
    return [revision for _, _, revision in sorted(found, key=lambda one: one[:2])]


def count_bars(revisions: Iterable[Revision]) -> dict[str, int]:
    """Return how many bars were revised, appeared and vanished."""
    counts = dict.fromkeys((REVISED, APPEARED, VANISHED), 0)
    for change in {(one.series, one.timestamp): one.change for one in revisions}.values():
        counts[change] += 1
    return counts


# ----------------------------------------------------------------------------------------------------------------- the log


def log_key(dataset: Dataset) -> str:
    """Return the path of a dataset's log below the store."""
    return f"metadata/revisions/{dataset.name}.csv"


def logged(content: bytes | None, revisions: Sequence[Revision], seen: datetime) -> tuple[bytes | None, int]:
    """Return the log with what it does not know yet at its end, and how much that is; None where it knows all.

    A revision is known where the last line about its bar and field says the same: seen every night, it is logged once.

    Args:
        content: of the file; None where there is none.
        revisions: of one dataset.
        seen: when.

    Raises:
        ValueError: somebody made something else of the file; the message names the line.
    """
    known = _last_lines(content)
    new = [cells for one in revisions if known.get((cells := _cells(one))[:3]) != cells[3:]]
    if not new:
        return None, 0
    when = iso(seen.replace(microsecond=0))
    rows = [(when, cells[0], cells[1], cells[3], cells[2], *cells[4:]) for cells in new]
    written = dump_rows(HEADER, rows)
    if content is None:
        return written, len(rows)
    ended = content if content.endswith(b"\n") else content + b"\n"
    return ended + written.split(b"\n", 1)[1], len(rows)


def _cells(one: Revision) -> tuple[str, ...]:
    """Return symbol, time and field, by which a revision is known; then its change, old and new, as they are written."""
    return one.series.symbol, iso(one.timestamp), one.field, one.change, _number(one.old), _number(one.new)


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def _last_lines(content: bytes | None) -> Mapping[tuple[str, ...], tuple[str, ...]]:
    known: dict[tuple[str, ...], tuple[str, ...]] = {}

    def take(seen: str, symbol: str, timestamp: str, change: str, field: str, old: str, new: str) -> None:
        from_iso(seen)
        from_iso(timestamp)
        known[symbol, timestamp, field] = (change, old, new)

    if content is not None:
        load_rows(content, HEADER, take)
    return known
