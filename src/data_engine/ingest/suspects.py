"""Find covered ranges that Alpaca may have answered wrongly, by what is stored.

These are sessions that several symbols lack or have far fewer bars of than usual, emptiness before a first bar, series without
any bar, and sessions of single series with far fewer bars than usual. Only timestamps are read: of all series if they are few,
else of those with the most bars; of the others, the counts of their files are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from data_engine.errors import DamagedFile
from data_engine.ingest.recheck_plan import emptiness
from data_engine.ingest.recheck_tasks import FEW_BARS, SHARED_GAP, Suspect
from data_engine.market.bars import Int64s, from_micros, timestamps_us, to_micros
from data_engine.market.exchange_calendar import can_hold_bars, sessions
from data_engine.market.series import Dataset
from data_engine.market.session_states import Sessions, counts, suspects
from data_engine.market.time_range import TimeRange, intersection, new_york_date, new_york_days, union
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Period

_MOST_FILES = 10_000  # that are read: some seconds

_AROUND = 10  # sessions before and after that tell whether a series usually trades

_USUAL = 0.8  # of them have a bar

_SEVERAL = 3  # series that usually trade: of fewer, a gap is not shared

_MOST = 0.9  # of these

_HALF = 0.5  # of the bars that the files around have

_FILES_AROUND = 3


def find_suspects(storage: BarStore, known: Sequence[Coverage]) -> list[Suspect]:
    """Return the suspect ranges of some series; damaged files tell nothing.

    Args:
        storage: The store of the bars.
        known: The coverage of the series.
    """
    found = [suspect for one in known for suspect in emptiness(one)]
    by_dataset: dict[Dataset, list[Coverage]] = {}
    for one in known:
        if one.first_bar is not None and one.series.dataset.timeframe.unit not in ("Week", "Month"):
            by_dataset.setdefault(one.series.dataset, []).append(one)
    for dataset, ours in by_dataset.items():
        found += _of_sessions(storage, dataset, ours)
    return found


def _of_sessions(storage: BarStore, dataset: Dataset, known: Sequence[Coverage]) -> Iterator[Suspect]:
    """Yield the suspect sessions of the series of one dataset that have bars."""
    grid = _grid(dataset, min(_begin(one) for one in known), max(_end(one) for one in known))
    read, others = _to_read(known)
    usual, lacking = np.zeros(len(grid.days), np.int64), np.zeros(len(grid.days), np.int64)
    few: list[tuple[Coverage, Any]] = []
    for one in read:
        try:
            trades, lacks, low = _judged(storage, one, grid)
        except DamagedFile:
            continue  # a run or `verify` names it
        usual += trades
        lacking += trades & lacks
        few.append((one, low))
    shared = (usual >= _SEVERAL) & (lacking >= _MOST * usual)
    for span in _spans(grid, shared):
        for one in known:
            yield from (Suspect(one.series, part, SHARED_GAP) for part in intersection(one.covered, (span,)))
    for one, low in few:
        for span in _spans(grid, low & ~shared):
            yield from (Suspect(one.series, part, FEW_BARS) for part in intersection(one.covered, (span,)))
    for one in others:
        yield from _low_files(one)


def _begin(known: Coverage) -> date:
    return new_york_date(known.first_bar or known.covered[0].start)


def _end(known: Coverage) -> date:
    return new_york_date(known.last_bar or known.covered[-1].end)


def _to_read(known: Sequence[Coverage]) -> tuple[list[Coverage], list[Coverage]]:
    """Return the series whose timestamps are read, those with the most bars first, and the others."""
    read: list[Coverage] = []
    others: list[Coverage] = []
    files = 0
    for one in sorted(known, key=lambda one: (-one.bars, one.series.symbol)):
        files += len(one.rows)
        (read if files <= _MOST_FILES else others).append(one)
    return read, others


@dataclass(frozen=True, slots=True)
class _Grid:
    """The sessions of a dataset: the days, and their bounds in microseconds."""

    dataset: Dataset
    days: tuple[date, ...]
    starts: Int64s
    ends: Int64s


@lru_cache(maxsize=16)
def _grid(dataset: Dataset, first: date, last: date) -> _Grid:
    days = tuple(sessions(first, last))
    spans = [new_york_days(day, day) for day in days]
    starts, ends = ([to_micros(edge) for edge in edges] for edges in zip(*((one.start, one.end) for one in spans), strict=True))
    return _Grid(dataset, days, np.array(starts, np.int64), np.array(ends, np.int64))


def _judged(storage: BarStore, known: Coverage, grid: _Grid) -> tuple[Any, Any, Any]:
    """Return in which sessions a series usually trades, lacks (nearly) all bars, and has far fewer than usual."""
    tables = (storage.read(known.series, period, ["timestamp"]) for period in sorted(known.rows))
    number = counts(Sessions(grid.days, grid.starts, grid.ends), [timestamps_us(table) for table in tables])
    covered = np.zeros(number.size, bool)
    for span in known.covered:
        covered |= (grid.starts < to_micros(span.end)) & (grid.ends > to_micros(span.start))
    alive = np.flatnonzero(number)  # outside of these, the series is not yet listed, or no longer
    low, usual = np.zeros(number.size, bool), np.zeros(number.size, bool)
    if alive.size:
        life = slice(int(alive[0]), int(alive[-1]) + 1)
        low[life] = suspects(number[life], grid.dataset)
        usual[life] = _trades_around(number[life] > 0)
    return usual & covered, (number == 0) | low, low & covered


def _trades_around(filled: Any) -> Any:
    """Return for each session whether a series has bars in most of those around it."""
    edge = np.zeros(_AROUND, np.int64)
    near = np.lib.stride_tricks.sliding_window_view(np.concatenate([edge, filled.astype(np.int64), edge]), 2 * _AROUND + 1)
    there = np.lib.stride_tricks.sliding_window_view(
        np.concatenate([edge, np.ones(filled.size, np.int64), edge]), 2 * _AROUND + 1
    )
    others, possible = near.sum(axis=1) - filled, there.sum(axis=1) - 1
    return (possible >= _AROUND) & (others >= _USUAL * possible)


def _spans(grid: _Grid, chosen: Any) -> list[TimeRange]:
    """Return the ranges of chosen sessions; sessions that follow each other are one range."""
    found: list[TimeRange] = []
    before = -2
    for at in np.flatnonzero(chosen).tolist():
        start, end = from_micros(int(grid.starts[at])), from_micros(int(grid.ends[at]))
        if at == before + 1:
            found[-1] = TimeRange(found[-1].start, end)
        else:
            found.append(TimeRange(start, end))
        before = at
    return found


def _low_files(known: Coverage) -> Iterable[Suspect]:
    """Return the ranges of files with less than half the bars of the files around, as far as they are covered."""
    periods = sorted(known.rows)
    inner = periods[1:-1]  # the first and the last one need not be whole
    ranges: list[TimeRange] = []
    for at, period in enumerate(inner):
        near = inner[max(0, at - _FILES_AROUND) : at] + inner[at + 1 : at + 1 + _FILES_AROUND]
        if len(near) >= _FILES_AROUND and known.rows[period] < _HALF * median(known.rows[one] for one in near):
            ranges.append(period.span)
    ranges += _absent_files(periods, known)
    return [Suspect(known.series, part, FEW_BARS) for part in intersection(known.covered, union(ranges))]


def _absent_files(periods: Sequence[Period], known: Coverage) -> list[TimeRange]:
    """Return the ranges of files between the first and the last one that do not exist."""
    gaps = (TimeRange(before.span.end, after.start) for before, after in pairwise(periods) if before.next() != after)
    return [gap for gap in gaps if can_hold_bars(gap, known.series.dataset)]
