"""Report the state of sessions: one row per symbol and session, or the counts in the metadata of a frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from isal import isal_zlib

from data_engine.market.bars import Int64s, numbers, to_micros
from data_engine.market.exchange_calendar import DAY
from data_engine.market.session_states import (
    FINAL,
    MISSING,
    PROVISIONAL,
    STATES,
    SUSPECT,
    Sessions,
    counts,
    sessions_of,
    states,
    suspects,
)
from data_engine.market.time_range import TimeRange, iso, new_york_date, new_york_days
from data_engine.read.bar_query import BarQuery
from data_engine.read.bar_reader import Watch, whole_symbols
from data_engine.read.holdings import Holding
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.filled import Filled

if TYPE_CHECKING:
    import pandas as pd

_AROUND = timedelta(days=95)  # more than sixty sessions: what `suspects` looks at

_NAMED = 3  # filled ranges: metadata stays small

_TICK = timedelta(microseconds=1)


class FrameRecord(Watch):
    """What a frame tells of itself: the states of the sessions it asks for, and which files it was read from.

    Args:
        query: The call.
        held: What is held of each symbol.
        now: The current instant, aware.
    """

    def __init__(self, query: BarQuery, held: Sequence[Holding], now: datetime) -> None:
        self._query = query
        self._held = {one.symbol: one for one in held}
        self._now = now
        self._sessions = _inside(_sessions(query, query.span, now), query.span)
        self._marks: dict[str, tuple[int, int]] = {}
        self._filled: list[tuple[str, Filled, int]] = []
        self._numbers = np.zeros(len(STATES), np.int64)
        # Most series of a call have the same ranges.
        self._states = lru_cache(maxsize=64)(partial(states, self._sessions))
        self._asked = lru_cache(maxsize=64)(partial(_within, self._sessions))

    def file(self, key: str, content: bytes) -> None:
        """Take the content of a file. A checksum takes an eighth of the time of the store's own fingerprints."""
        self._marks[key] = (len(content), isal_zlib.crc32(content))

    def symbol(self, symbol: str, table: pa.Table) -> None:
        """Count the states of a symbol with bars."""
        if (one := self._held.pop(symbol, None)) is not None:
            self._count(one, table)

    def filled(self, symbol: str, used: Sequence[tuple[Filled, int]]) -> None:
        """Note the ranges of a symbol that have bars of other sources."""
        self._filled += [(symbol, one, count) for one, count in used]

    def metadata(self) -> dict[str, object]:
        """Return what goes into the metadata of the frame: counts, instant, digest of the files, filled ranges."""
        for one in self._held.values():
            self._count(one, None)
        self._held = {}
        lines = "".join(f"{key} {size} {checksum:08x}\n" for key, (size, checksum) in sorted(self._marks.items()))
        return {
            "sessions": {name: int(number) for name, number in zip(STATES, self._numbers, strict=True)},
            "loaded": iso(self._now),
            "files": f"{len(self._marks)} {sha256(lines.encode()).hexdigest()[:16]}",
            **({"filled": self._fill_metadata()} if self._query.fill else {}),
        }

    def _fill_metadata(self) -> dict[str, object]:
        shown = [
            {"symbol": symbol, "start": iso(one.range.start), "end": iso(one.range.end), "source": one.source}
            for symbol, one, _ in self._filled[:_NAMED]
        ]
        bars = sum(count for _, _, count in self._filled)
        return {"bars": bars, "ranges": shown, "more_ranges": len(self._filled) - len(shown)}

    def _count(self, one: Holding, table: pa.Table | None) -> None:
        made = self._states(one.known.covered, one.known.provisional, one.unverified)
        if table is not None:
            made = made.copy()
            _mark_suspects(made, self._sessions, table, one.known)
        if one.lost:
            made = made.copy()
            made[_in_lost_files(self._sessions, one)] = MISSING
        self._numbers += np.bincount(made[self._asked(one.asked)], minlength=len(STATES))


def session_frame(store: BarStore, query: BarQuery, held: Iterable[Holding], now: datetime) -> pd.DataFrame:
    """Return one row per symbol and session of a query that has begun; `ParquetStorage.sessions` documents the columns.

    Args:
        store: The store of the bars.
        query: The query; its bars are as stored.
        held: What is held of each symbol.
        now: The current instant, aware.
    """
    import pandas as pd

    first, last = new_york_date(query.span.start), new_york_date(query.span.end - _TICK)
    around = replace(query, span=new_york_days(first - _AROUND, last + _AROUND), columns=(), index=None)
    tables = dict(whole_symbols(store, around))
    every = _sessions(query, around.span, now)
    parts = [_rows(one, every, tables.get(one.symbol), query.span) for one in held]
    columns: Mapping[str, Any] = {
        "symbol": pd.Series([name for part in parts for name in part[0]], dtype="str"),
        "session": pd.Series([day for part in parts for day in part[1]], dtype="datetime64[s]"),
        "state": pd.Series([STATES[state] for part in parts for state in part[2]], dtype="str"),
        "bars": pd.Series([count for part in parts for count in part[3]], dtype="int64"),
        "answered": pd.Series([at for part in parts for at in part[4]], dtype="datetime64[us, UTC]"),
    }
    return pd.DataFrame(columns)


def _rows(one: Holding, every: Sessions, table: pa.Table | None, span: TimeRange) -> tuple[list[Any], ...]:
    made = _states(every, one)
    number = np.zeros(made.size, np.int64) if table is None else counts(every, _pieces(table))
    if table is not None:
        _mark_suspects(made, every, table, one.known)
    made[_in_lost_files(every, one)] = MISSING
    chosen = np.flatnonzero(_asked(every, one) & (every.ends > to_micros(span.start)) & (every.starts < to_micros(span.end)))
    known = one.known
    answered = [known.updated if made[at] in (FINAL, PROVISIONAL, SUSPECT) else None for at in chosen.tolist()]
    for tentative in known.tentative:
        within = _within(every, (tentative.range,))[chosen]
        answered = [tentative.answered if inside and at else at for at, inside in zip(answered, within.tolist(), strict=True)]
    days = [every.days[at] for at in chosen.tolist()]
    return [one.symbol] * chosen.size, days, made[chosen].tolist(), number[chosen].tolist(), answered


def _sessions(query: BarQuery, span: TimeRange, now: datetime) -> Sessions:
    first, last = new_york_date(span.start), min(new_york_date(span.end - _TICK), new_york_date(now) + DAY)
    return sessions_of(query.dataset, first, max(first, last), now)


def _inside(found: Sessions, span: TimeRange) -> Sessions:
    """Return the sessions of which a bar starts inside a range."""
    chosen = (found.ends > to_micros(span.start)) & (found.starts < to_micros(span.end))
    days = found.days if chosen.all() else tuple(day for day, one in zip(found.days, chosen.tolist(), strict=True) if one)
    return Sessions(days, found.starts[chosen], found.ends[chosen])


def _states(found: Sessions, one: Holding) -> Any:
    return states(found, one.known.covered, one.known.provisional, one.unverified)


def _asked(found: Sessions, one: Holding) -> Any:
    return _within(found, one.asked)


def _within(found: Sessions, ranges: Iterable[TimeRange]) -> Any:
    """Return the sessions that overlap one of some ranges."""
    made = np.zeros(found.starts.size, bool)
    for span in ranges:
        made |= (found.ends > to_micros(span.start)) & (found.starts < to_micros(span.end))
    return made


def _in_lost_files(found: Sessions, one: Holding) -> Any:
    """Return the sessions with bars in files that are gone, whatever was answered."""
    return _within(found, (period.span for period in one.lost))


def _mark_suspects(made: Any, found: Sessions, table: pa.Table, known: Coverage) -> None:
    """Turn answered sessions with far fewer bars than those around them into suspect ones.

    A session that was not read whole, and those before the first and after the last bar of the series, are not judged.
    """
    if known.first_bar is None or known.last_bar is None or not table.num_rows:
        return
    pieces = [piece for piece in _pieces(table) if piece.size]
    first = int(np.searchsorted(found.starts, max(to_micros(known.first_bar), int(pieces[0][0]))))
    last = int(np.searchsorted(found.ends, min(to_micros(known.last_bar), int(pieces[-1][-1])), side="right"))
    within = slice(first, max(first, last))
    part = Sessions((), found.starts[within], found.ends[within])
    doubtful = np.zeros(made.size, bool)
    doubtful[within] = suspects(counts(part, pieces), known.series.dataset)
    made[doubtful & (made <= PROVISIONAL)] = SUSPECT


def _pieces(table: pa.Table) -> list[Int64s]:
    """Return the timestamps of a table, chunk by chunk, without copying."""
    column = table.column("timestamp")
    return [numbers(pa.chunked_array([chunk]), np.int64) for chunk in column.chunks]
