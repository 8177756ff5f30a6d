"""Say what a store holds of a range of some symbols, without reading bars: `scope_of`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.ticker_changes import ticker_changes_of
from data_engine.errors import StoreError
from data_engine.market.dates import DateLike
from data_engine.market.time_range import TimeRange, iso
from data_engine.market.wording import and_more, plural
from data_engine.read.adjusted_query import adjusted
from data_engine.read.bar_query import BarQuery, ReadOptions
from data_engine.read.completeness import lack_of
from data_engine.read.conflicting import with_conflicts
from data_engine.read.holdings import Holdings
from data_engine.read.session_report import FrameRecord
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.file_count import Fingerprint
from data_engine.store.file_store import FileStore
from data_engine.store.partitions import Partition

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Scope:
    """What a store holds of a range of some symbols.

    Attributes:
        query: The range and the symbols, parsed; of adjusted prices, the dataset that is read.
        sessions: The number of sessions by state: ``final``, ``provisional``, ``missing``, ``suspect`` and ``unverified``.
        missing: What is missing or unverified, as text with the command that fetches it; None if nothing is.
        notes: What is said of adjusted prices, of conflicting bars, and of an end in the future.
        digest: A digest of the stored files of the symbols in the range: of their paths, sizes and content; and of the corporate
            actions, if prices are computed.
        bars: The number of bars in these files.
        conflicting: The number of bars in the range that Alpaca has revised or dropped, and that are answered as stored.
        judge: What judges the same range at the same instant once more. If None, it cannot be.
    """

    query: BarQuery
    sessions: dict[str, int]
    missing: str | None
    notes: tuple[str, ...]
    digest: str
    bars: int
    conflicting: int = 0
    judge: Callable[[], Scope] | None = field(default=None, compare=False, repr=False)

    def check_unchanged(self) -> None:
        """Check that the store holds what it did, so that what was read meanwhile is what this is about.

        Raises:
            StoreError: If bars, coverage, conflicting bars or corporate actions changed.
        """
        if self.judge is not None and self.judge() != self:
            raise StoreError("the store changed while it was read, as by an update; ask again")

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are in every answer."""
        span = self.query.span
        return {
            "complete": self.missing is None,
            "sessions": self.sessions,
            "missing": self.missing,
            "conflicting": self.conflicting,
            "digest": self.digest,
            "scope": {
                "dataset": self.query.dataset.name,
                "adjustment": str(self.query.adjustment),
                "symbols": list(self.query.symbols),
                "start": iso(span.start),
                "end": iso(span.end),
            },
            "notes": list(self.notes),
        }


def scope_of(
    store: BarStore, symbols: Sequence[str], start: DateLike, end: DateLike, options: ReadOptions, *, now: datetime
) -> Scope:
    """Return what the store holds of a range.

    Args:
        store: The store.
        symbols: The symbols.
        start: The first New York day, or an aware instant.
        end: The last day, included, or an instant.
        options: The dataset, session and resampling, as `ParquetStorage.load` has them.
        now: The current instant, aware.

    Raises:
        InputError: If an argument cannot be used.
        StoreError: If a coverage cannot be read, or corporate actions are not stored.
    """
    options = options.copy()
    options["incomplete"] = "raise"  # by it, unverified ranges are missing
    holdings = Holdings(store)
    query, notes = adjusted(store, BarQuery.parse(symbols, start, end, now=now, **options), holdings, now=now)
    query, _ = with_conflicts(store, query, holdings)
    notes += _conflict_notes(query)
    held = holdings.of(query, now)
    missing = lack_of(store, query, holdings, held, now=now)
    sessions = FrameRecord(query, held, now).metadata()["sessions"]
    assert isinstance(sessions, dict)  # noqa: S101 - `FrameRecord` counts them
    if query.span.end > now:
        notes.append(f"the range ends after now, {iso(now)}: what comes after is not known and not missing")
    if not any(sessions.values()):
        notes.append(
            "no session of these symbols has begun in the range, or all lie after the end of the security: no bar is expected"
        )
    known = [one.known for one in held]
    bars = sum(one.rows.get(period, 0) for one in known for period in one.rows if period.span.intersect(query.reach))
    digest = digest_of(known, query.reach, store.files)
    if query.adjust is not None:
        digest = _digest([digest, *_action_lines(store.files, query)])
    return Scope(query, sessions, missing, tuple(notes), digest, bars, sum(map(len, query.conflicts.values())))


def _conflict_notes(query: BarQuery) -> list[str]:
    """Return what is said of conflicting bars. A tool has only the stored values, so that the others are named by commands."""
    counts = {symbol: len(found) for symbol, found in query.conflicts.items()}
    if not counts:
        return []
    named = and_more([f"{symbol} ({count:,})" for symbol, count in counts.items()], _NAMED)
    return [
        f"Alpaca has revised or dropped {plural(sum(counts.values()), 'bar')} of {query.dataset.name} since; the answer rests on "
        f"what is stored: {named}; `data-engine recheck --accept` takes Alpaca's values"
    ]


def _action_lines(files: FileStore, query: BarQuery) -> Iterator[str]:
    """Yield the corporate actions that may change the prices of a call: of its symbols, and of tickers before and after."""
    actions = ActionStore(files)
    left, seen = list(query.symbols), set(query.symbols)
    while left:
        found = actions.read(left.pop()).counted
        yield from (f"{one!r}\n" for one in found if query.as_of is None or one.day <= query.as_of)
        tickers = {name for change in ticker_changes_of(found) for name in (change.old, change.new) if name} - seen
        seen |= tickers
        left += tickers


def digest_of(known: Iterable[Coverage], span: TimeRange | None = None, files: FileStore | None = None) -> str:
    """Return a digest of the bar files of some series, by the fingerprints that were taken as they were written.

    Args:
        known: The coverage of the series.
        span: The range that the files touch. If None, all files.
        files: The files, to read those that have no fingerprint, as of bars from `ParquetStorage.store`. If None, the number
            of their bars stands for them.
    """
    lines = []
    for one in known:
        for period, rows in one.rows.items():
            if span is not None and not period.span.intersect(span):
                continue
            key, mark = Partition(one.series, period).key, one.files.get(period)
            if mark is None and files is not None and (content := files.get(key)) is not None:
                mark = Fingerprint.of(content)
            lines.append(f"{key} {rows} {'' if mark is None else f'{mark.size} {mark.digest}'}\n")
    return _digest(lines)


def _digest(lines: Iterable[str]) -> str:
    return sha256("".join(sorted(lines)).encode()).hexdigest()[:32]


def plain_value(value: Any) -> Any:
    """Return a value of SQL as JSON has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has neither NaN nor infinity
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)
