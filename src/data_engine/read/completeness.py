"""Name what a result lacks: requested ranges that are missing, members without bars, computed bars without all their minutes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from data_engine.market.exchange_calendar import can_hold_bars
from data_engine.market.series import RAW, Series
from data_engine.market.time_range import TimeRange, difference, intersection, new_york_date, union
from data_engine.market.wording import and_more, dataset_options
from data_engine.read.bar_reader import BarQuery
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Partition


def incomplete_messages(store: BarStore, query: BarQuery, *, now: datetime) -> Iterator[str]:
    """Yield a message for each series that lacks a requested range, a file or minutes of a computed bar, and one for members."""
    missing: dict[str, TimeRange] = {}
    for series in query.series:
        known = store.coverage.read(series)
        yield from _lost_files(store, known, query)
        if query.index is None:
            yield from _missing_ranges(known, query, now)
            yield from _stored_raw_only(store, known)
        elif gap := _missing_of_member(known, query, now):
            missing[series.symbol] = gap
        yield from _cut_bars(known, query)
    if missing:
        yield _members_message(missing, query)


def _members_message(missing: Mapping[str, TimeRange], query: BarQuery) -> str:
    first = new_york_date(min(gap.start for gap in missing.values()))
    shown = and_more((f"{symbol} {gap}" for symbol, gap in missing.items()), 3)
    return (
        f"{len(missing)} of the {len(query.symbols)} members of {query.index} are missing bars of their days: {shown}; "
        f"run `data-engine ingest --index {query.index} --ever --start {first}{dataset_options(query.dataset)}`"
    )


def _lost_files(store: BarStore, known: Coverage, query: BarQuery) -> Iterator[str]:
    """Yield a message if the coverage counts bars in files that are not there."""
    # A run was about to change the others: their counts are not to be believed.
    counted = [period for period in sorted(known.rows.keys() - known.changing) if period.span.intersect(query.reach)]
    lost = [period for period in counted if store.files.size(Partition(known.series, period).key) is None]
    if lost:
        keys = (f"{store.files.location}/{Partition(known.series, period).key}" for period in lost)
        yield (
            f"{known.series} is missing {sum(known.rows[period] for period in lost):,} stored bars: no file {and_more(keys, 1)}; "
            f"run `data-engine verify {known.series.symbol} --repair`, then `data-engine update`"
        )


def _missing_of_member(known: Coverage, query: BarQuery, now: datetime) -> TimeRange | None:
    """Return the first range in which a symbol was a member and is missing, requested or not; bars have ended in it."""
    ended = query.reach.before(known.series.dataset.timeframe.floor(now))
    was = intersection(query.members[known.series.symbol], (ended,)) if ended else ()
    missing = difference(was, (*known.covered, *known.provisional))
    return next((part for part in missing if can_hold_bars(part, known.series.dataset)), None)


def _missing_ranges(known: Coverage, query: BarQuery, now: datetime) -> Iterator[str]:
    series = known.series
    missing = [part for part in known.incomplete(query.reach, now) if can_hold_bars(part, series.dataset)]
    if missing:
        command = f"data-engine update {series.symbol}{dataset_options(series.dataset)}"
        yield f"{series} is missing {and_more(missing, 3, 'ranges')}; run `{command}`"


def _cut_bars(known: Coverage, query: BarQuery) -> Iterator[str]:
    """Yield a message for each computed bar of the result in which the ingested ranges begin or end."""
    if query.resampling is None:
        return
    series = known.series
    answered = union((*known.covered, *known.provisional))
    for edge in sorted({edge for part in answered for edge in (part.start, part.end)}):
        bar = query.resampling.bar_at(edge)
        if bar is None or not query.span.start <= bar[0] < query.before:
            continue
        # `_missing_ranges` names what was requested; this is what was not.
        missing = [part for part in difference((bar[1],), (*answered, *known.wanted)) if edge in (part.start, part.end)]
        if missing and missing[0] != bar[1]:  # without any minute there is no bar
            day = new_york_date(edge)
            command = f"data-engine ingest {series.symbol} --start {day} --end {day}{dataset_options(series.dataset)}"
            yield (
                f"{series}: the {query.resampling} bar of {bar[1]} lacks minutes that were not ingested: {and_more(missing, 3)}; "
                f"run `{command}`"
            )


def _stored_raw_only(store: BarStore, known: Coverage) -> Iterator[str]:
    """Yield a message if a symbol's raw bars could be adjusted, but Alpaca's adjusted dataset, which lacks it, is read."""
    series = known.series
    if series.dataset.adjustment.is_raw or known.wanted or known.rows:
        return
    raw = Series(series.symbol, replace(series.dataset, adjustment=RAW))
    if store.coverage.read(raw).rows:
        yield (
            f"{series.symbol} is not in {series.dataset.name}, which is read since the store has it, but in {raw.dataset.name}; "
            "use as_of=DAY to adjust its raw bars"
        )
