"""Read and write the conflicting bars of a series: bars that Alpaca has revised or dropped, and that are stored as they were.

The file is beside the coverage, one per series, and is absent without such bars. What it says is of when the bars were compared:
a bar that was stored, fetched or removed since may no longer conflict, so `still_conflicting` compares with what is stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.market.bars import VALUES, Int64s, from_micros, numbers, take, timestamps_us, to_micros
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange, from_iso, iso
from data_engine.store.bar_store import BarStore
from data_engine.store.document import Document
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import Period, encode_symbol, symbols_of

FOLDER = "metadata/conflicts"

FORMAT = 1

Values = tuple[float, ...]
"""The values of a bar, by `VALUES`."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A stored bar that Alpaca has revised or dropped.

    Attributes:
        timestamp: The timestamp of the bar, UTC.
        values: Alpaca's values. None if Alpaca no longer has the bar.
        seen: When that was first seen, UTC.
    """

    timestamp: datetime
    values: Values | None
    seen: datetime


Conflicts = tuple[Conflict, ...]
"""The conflicting bars of a series, by time."""


def conflict_file(files: FileStore, series: Series) -> Document[Conflicts]:
    """Return the file of the conflicting bars of a series."""
    key = f"{FOLDER}/{series.dataset.name}/symbol={encode_symbol(series.symbol)}.json"
    remedy = "remove that file, and `data-engine recheck` finds them again"
    return Document(
        files,
        key,
        f"the conflicting bars of {series}",
        remedy,
        (),
        load=lambda content: _load(content, series),
        dump=lambda conflicts: _dump(series, conflicts),
    )


def merged(known: Conflicts, judged: Iterable[TimeRange], found: Conflicts) -> Conflicts:
    """Return the conflicting bars after some ranges were compared again.

    A bar that conflicts as before keeps the time when that was first seen.

    Args:
        known: The conflicting bars so far.
        judged: The ranges that were compared.
        found: The conflicting bars in them.
    """
    spans = tuple(judged)
    before = {one.timestamp: one for one in known}
    kept = [one for one in known if not any(one.timestamp in span for span in spans)]
    same = [old if (old := before.get(one.timestamp)) and old.values == one.values else one for one in found]
    return tuple(sorted((*kept, *same), key=lambda one: one.timestamp))


def revised_again(known: Conflicts, bars: pa.Table, now: datetime) -> Conflicts:
    """Return the conflicting bars where those that come again have the values that came: once they are stored, none conflicts.

    Args:
        known: The conflicting bars so far.
        bars: The bars of a file that came, sorted.
        now: When they were requested.
    """
    seen = now.replace(microsecond=0)
    return tuple(
        one if came in (None, one.values) else Conflict(one.timestamp, came, seen)
        for one, came in zip(known, _values_in(bars, known), strict=True)
    )


def dropped(known: Conflicts, answered: TimeRange, came: Int64s, now: datetime) -> Conflicts:
    """Return the conflicting bars where those that a complete response lacks are dropped by Alpaca.

    Args:
        known: The conflicting bars so far.
        answered: The range that was answered.
        came: The timestamps that came, in microseconds.
        now: When it was requested.
    """
    gone = ~np.isin(_times(known), came)
    return tuple(
        Conflict(one.timestamp, None, now.replace(microsecond=0))
        if lacking and one.timestamp in answered and one.values is not None
        else one
        for one, lacking in zip(known, gone.tolist(), strict=True)
    )


def conflicting_symbols(files: FileStore, dataset: Dataset) -> frozenset[str]:
    """Return the symbols that have a file of conflicting bars."""
    return frozenset(symbols_of(files.list(f"{FOLDER}/{dataset.name}")))


def still_conflicting(conflicts: Conflicts, stored: pa.Table) -> Conflicts:
    """Return the conflicting bars that are stored, with other values than Alpaca's.

    Args:
        conflicts: The conflicting bars, by time.
        stored: The stored bars of their ranges, by `BAR_SCHEMA`.
    """
    return tuple(
        one for one, ours in zip(conflicts, _values_in(stored, conflicts), strict=True) if ours not in (None, one.values)
    )


def live_conflicts(storage: BarStore, series: Series, span: TimeRange | None = None) -> Conflicts:
    """Return the bars of a series that conflict with Alpaca's still: only their files are read.

    Args:
        storage: The store of the bars.
        series: The series.
        span: Where they start. If None, anywhere.

    Raises:
        DamagedFile: If a file cannot be read.
    """
    known = conflict_file(storage.files, series).read()
    chosen = tuple(one for one in known if span is None or one.timestamp in span)
    parts = by_file(series, chosen).items()
    return tuple(one for period, part in parts for one in still_conflicting(part, storage.read(series, period)))


def conflicting_values(storage: BarStore, series: Series) -> tuple[tuple[Conflict, Values], ...]:
    """Return the bars of a series that conflict with Alpaca's still, by time, each with its stored values.

    Raises:
        DamagedFile: If a file cannot be read.
    """
    found: list[tuple[Conflict, Values]] = []
    for period, part in by_file(series, conflict_file(storage.files, series).read()).items():
        stored = _values_in(storage.read(series, period), part)
        found += [(one, ours) for one, ours in zip(part, stored, strict=True) if ours is not None and ours != one.values]
    return tuple(found)


def refresh_conflicts(storage: BarStore, series: Series) -> int:
    """Forget the conflicts of a series that are none any more; return how many are left.

    Raises:
        DamagedFile: If a file cannot be read.
        StoreError: If the store cannot be written.
    """
    live = live_conflicts(storage, series)
    conflict_file(storage.files, series).update(lambda known: tuple(one for one in known if one in live))
    storage.coverage.update(series, lambda known: replace(known, conflicting=len(live)))
    return len(live)


def by_file(series: Series, conflicts: Conflicts) -> dict[Period, Conflicts]:
    """Return conflicting bars by the file that they are in."""
    parts: dict[Period, list[Conflict]] = {}
    for one in conflicts:
        parts.setdefault(Period.of(one.timestamp, series.dataset), []).append(one)
    return {period: tuple(part) for period, part in parts.items()}


def with_theirs(stored: pa.Table, conflicts: Conflicts, columns: tuple[str, ...] = VALUES) -> pa.Table:
    """Return stored bars with Alpaca's values: revised ones replaced, and those left out that Alpaca no longer has.

    Args:
        stored: The bars, sorted.
        conflicts: The conflicting bars; those that are not among *stored* are passed over.
        columns: The columns of *stored* beside the timestamp, in their order.
    """
    if not conflicts or not stored.num_rows:
        return stored
    times = timestamps_us(stored)
    stamps = _times(conflicts)
    at = np.minimum(np.searchsorted(times, stamps), times.size - 1)
    gone = np.zeros(times.size, bool)
    values = {name: numbers(stored.column(name)).copy() for name in columns}
    for one, row, time in zip(conflicts, at.tolist(), stamps.tolist(), strict=True):
        if times[row] != time:
            continue
        if one.values is None:
            gone[row] = True
            continue
        for name in columns:
            values[name][row] = one.values[VALUES.index(name)]
    made = pa.Table.from_arrays([stored.column("timestamp"), *(pa.array(values[name]) for name in columns)], schema=stored.schema)
    return made.filter(pa.array(~gone)) if gone.any() else made


def _values_in(bars: pa.Table, conflicts: Conflicts) -> list[Values | None]:
    """Return the values that some bars have at the times of conflicting ones; None where there is no bar."""
    times, stamps = timestamps_us(bars), _times(conflicts)
    at = np.searchsorted(times, stamps).tolist()
    columns = [numbers(bars.column(name)) for name in VALUES] if conflicts else []
    return [
        tuple(float(column[row]) for column in columns) if row < times.size and times[row] == stamp else None
        for row, stamp in zip(at, stamps.tolist(), strict=True)
    ]


def _times(conflicts: Iterable[Conflict]) -> Int64s:
    return np.array([to_micros(one.timestamp) for one in conflicts], np.int64)


def conflicts_between(stored: pa.Table, fetched: pa.Table, seen: datetime) -> tuple[Conflicts, Any]:
    """Return the stored bars that a complete response has otherwise or not at all, and which fetched bars are new.

    Args:
        stored: The stored bars of a range, sorted.
        fetched: Alpaca's bars of the same range, sorted.
        seen: When they were requested.

    Returns:
        The conflicting bars, by time, and a truth value per row of *fetched*.
    """
    old, new = timestamps_us(stored), timestamps_us(fetched)
    _, left, right = np.intersect1d(old, new, assume_unique=True, return_indices=True)
    differs = np.zeros(left.size, bool)
    theirs = [numbers(fetched.column(name)) for name in VALUES]
    for name, values in zip(VALUES, theirs, strict=True):
        differs |= numbers(stored.column(name))[left] != values[right]
    found = [
        Conflict(from_micros(int(new[row])), tuple(float(values[row]) for values in theirs), seen)
        for row in right[differs].tolist()
    ]
    found += [Conflict(from_micros(int(time)), None, seen) for time in old[~np.isin(old, new, assume_unique=True)].tolist()]
    appeared = ~np.isin(new, old, assume_unique=True)
    return tuple(sorted(found, key=lambda one: one.timestamp)), appeared


def new_bars(fetched: pa.Table, appeared: Any) -> pa.Table:
    """Return the fetched bars that are not stored."""
    return take(fetched, appeared)


def _dump(series: Series, conflicts: Conflicts) -> bytes:
    """Return the content of the file: one bar a line; nothing, which removes the file, without conflicting bars."""
    if not conflicts:
        return b""
    rows = [json.dumps([iso(one.timestamp), iso(one.seen), one.values and list(one.values)]) for one in conflicts]
    head = {"format": FORMAT, "dataset": series.dataset.name, "symbol": series.symbol, "values": list(VALUES)}
    return (json.dumps(head)[:-1] + ', "bars": [\n' + ",\n".join(rows) + "\n]}\n").encode()


def _load(content: bytes, series: Series) -> Conflicts:
    """Undo `_dump`.

    Raises:
        ValueError: If the content is damaged, of a newer format, or of another series.
    """
    try:
        fields = json.loads(content)
        if fields["format"] != FORMAT:
            raise ValueError(f"its format is {fields['format']!r}, this program knows {FORMAT}")
        if (fields["dataset"], fields["symbol"]) != (series.dataset.name, series.symbol):
            raise ValueError(f"it is of {fields['symbol']} in {fields['dataset']}")
        made = tuple(Conflict(from_iso(at), _values(values), from_iso(seen)) for at, seen, values in fields["bars"])
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it lacks {error}" if isinstance(error, KeyError) else str(error)) from error
    if any(one.timestamp >= other.timestamp for one, other in pairwise(made)):
        raise ValueError("its bars are not in order")
    return made


def _values(values: list[float] | None) -> Values | None:
    if values is None:
        return None
    if len(values) != len(VALUES):
        raise ValueError(f"it has a bar of {len(values)} values")
    return tuple(map(float, values))
