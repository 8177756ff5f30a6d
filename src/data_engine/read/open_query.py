"""Prepare a call that reads bars: parse its arguments, find what is held and what conflicts, and warn of both."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.errors import InputError, StoreError
from data_engine.market.dates import DateLike, parse_span
from data_engine.market.series import RAW
from data_engine.read.adjusted_query import adjusted
from data_engine.read.bar_query import BarQuery, ReadOptions, parse_dataset
from data_engine.read.completeness import lack_of
from data_engine.read.conflicting import with_conflicts
from data_engine.read.fill_bars import with_fills
from data_engine.read.frame_warnings import AdjustmentWarning, ConflictWarning, IncompleteWarning
from data_engine.read.holdings import Holding, Holdings, left_out
from data_engine.store.bar_store import BarStore
from data_engine.store.history.past import instant_of_files, stored_on
from data_engine.universe.index_store import MetadataStore
from data_engine.universe.member_series import MemberSeries


@dataclass(frozen=True, slots=True)
class OpenedQuery:
    """A call that reads bars, prepared.

    Attributes:
        bars: The store that is read: as it is, or as it was.
        query: What is asked for.
        holdings: What is held of it, as far as it was looked at.
        held: The sessions that are held, by symbol; empty if they do not matter for the call.
        now: The instant by which it is judged, UTC.
    """

    bars: BarStore
    query: BarQuery
    holdings: Holdings
    held: list[Holding]
    now: datetime


def parse_call(
    store: BarStore, symbols: str | Iterable[str] | None, start: DateLike | None, end: DateLike | None, options: ReadOptions
) -> tuple[BarQuery, datetime]:
    """Parse the arguments of a user's call; return the instant by which they are judged, too."""
    if start is None:
        raise InputError("start is missing; pass the first day, such as start='2024-01-31'")
    now, index, members = instant_of_files(store.files, datetime.now(UTC)), options.get("index"), None
    if index is not None:
        store.check_exists()
        dataset = parse_dataset(options)
        possible = (dataset, replace(dataset, adjustment=RAW))  # where it is read is decided later
        series = MemberSeries(store.coverage, possible, ActionStore(store.files).changes_of, now)
        members = MetadataStore(files=store.files).member_series(index, parse_span(start, end, now=now).range, series)
        symbols = list(members) if symbols is None else symbols
    if symbols is None:
        raise InputError("no symbols given; pass symbols=... or index=...")
    query = BarQuery.parse(symbols, start, end, now=now, members=members, **options)
    store.check_exists()
    return query, now


def open_query(
    store: BarStore,
    symbols: str | Iterable[str] | None,
    start: DateLike | None,
    end: DateLike | None,
    options: ReadOptions,
    *,
    only_bars: bool = False,
) -> OpenedQuery:
    """Parse the arguments of a user's call, and say what the store does not hold of it, as *incomplete* says.

    What is held is looked at unless *only_bars* are needed and it does not matter for them.
    """
    options = options.copy()
    store = stored_on(store, options.pop("as_stored_on", None), now=datetime.now(UTC))
    query, now = parse_call(store, symbols, start, end, options)
    holdings = Holdings(store, tolerant=query.incomplete == "ignore")
    query, notes = adjusted(store, query, holdings, now=now)
    query = with_fills(store, query, holdings) if query.fill else query
    chosen = query.final or query.source != "any"
    needed = not only_bars or chosen or query.incomplete != "ignore"
    disputed: list[str] = []
    if needed or query.conflicting != "stored":
        query, disputed = with_conflicts(store, query, holdings)
    held = holdings.of(query, now) if needed else []
    if query.incomplete != "ignore" and (lack := lack_of(store, query, holdings, held, now=now)) is not None:
        if query.incomplete == "raise":
            raise StoreError(lack)
        warnings.warn(lack, IncompleteWarning, stacklevel=3)
    for kind, texts in ((AdjustmentWarning, notes), (ConflictWarning, disputed)):
        for text in texts:
            warnings.warn(text, kind, stacklevel=3)
    if chosen:
        query = replace(query, left_out={one.symbol: left_out(one, query, now) for one in held})
    return OpenedQuery(store, query, holdings, held, now)
