"""What an answer lacks: ranges that were asked for and are not held, members without bars, bars that are cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from data_engine.market.exchange_calendar import can_hold_bars
from data_engine.market.series import RAW, Dataset, Feed, Series
from data_engine.market.time_range import TimeRange, difference, intersection, new_york_date, union
from data_engine.read.bar_reader import BarQuery
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Partition


def incomplete_messages(store: BarStore, reading: BarQuery) -> Iterator[str]:
    """Yield a sentence for each series of which something was asked for and is not held, or a computed bar lacks minutes."""
    lacking: dict[str, TimeRange] = {}
    for one in reading.series:
        known = store.coverage.read(one)
        yield from _lost_files(store, known, reading)
        if reading.index is None:
            yield from _holes(known, reading)
            yield from _only_raw(store, known)
        elif owed := _owed_of_member(known, reading):
            lacking[one.symbol] = owed
        yield from _cut_bars(known, reading)
    if lacking:
        shown = [f"{symbol} {owed}" for symbol, owed in list(lacking.items())[:3]]
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        first = new_york_date(min(owed.start for owed in lacking.values()))
        yield (
            f"{len(lacking)} of the {len(reading.series)} members of {reading.index} are not held on all of their days "
            f"({', '.join(shown)}{more}); `data-engine ingest --index {reading.index} --ever --start {first}"
            f"{_options(reading.dataset)}` brings them"
        )


def _lost_files(store: BarStore, known: Coverage, reading: BarQuery) -> Iterator[str]:
    """Yield a sentence where bars are counted in files that are not there any more."""
    counted = [period for period in sorted(known.rows) if period.span.intersect(reading.reach)]
    lost = [period for period in counted if store.files.size(Partition(known.series, period).key) is None]
    if lost:
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        yield (
            f"{store.files.location}/{Partition(known.series, lost[0]).key}{more} is not there, though "
            f"{sum(known.rows[period] for period in lost):,} bars are counted in it; `data-engine verify {known.series.symbol} "
            "--repair` takes that back, and `data-engine update` brings them again"
        )


def _owed_of_member(known: Coverage, reading: BarQuery) -> TimeRange | None:
    """Return the first range in which a symbol was a member and is not held, whether or not anybody asked for it."""
    was = intersection(reading.members[known.series.symbol], (reading.reach,))
    owed = difference(was, (*known.covered, *known.provisional))
    return next((piece for piece in owed if can_hold_bars(piece, known.series.dataset)), None)


def _holes(known: Coverage, reading: BarQuery) -> Iterator[str]:
    one = known.series
    holes = [hole for hole in known.incomplete(reading.reach) if can_hold_bars(hole, one.dataset)]
    if holes:
        yield (
            f"{one} is not held whole, though it was asked for: {', '.join(map(str, holes[:3]))}"
            f"{f' and {len(holes) - 3} more ranges' if len(holes) > 3 else ''}; "
            f"`data-engine update {one.symbol}{_options(one.dataset)}` completes it"
        )


def _cut_bars(known: Coverage, reading: BarQuery) -> Iterator[str]:
    """Yield a sentence where what was ingested begins or ends in the middle of a computed bar of the answer."""
    if reading.resampling is None:
        return
    one = known.series
    answered = union((*known.covered, *known.provisional))
    for edge in sorted({edge for part in answered for edge in (part.start, part.end)}):
        bar = reading.resampling.bar_at(edge)
        if bar is None or not reading.span.start <= bar[0] < reading.before:
            continue
        # What was asked for and has not come is named as such; this is what nobody asked for.
        lacking = [part for part in difference((bar[1],), (*answered, *known.wanted)) if edge in (part.start, part.end)]
        if lacking and lacking[0] != bar[1]:  # a bar without any minute is none
            day = new_york_date(edge)
            what = f"{one}: the {reading.resampling} bar of {bar[1]} lacks minutes that were not ingested"
            command = f"data-engine ingest {one.symbol} --start {day} --end {day}{_options(one.dataset)}"
            yield f"{what}: {', '.join(map(str, lacking))}; `{command}` brings them"


def _only_raw(store: BarStore, known: Coverage) -> Iterator[str]:
    """Yield a sentence where raw bars could be adjusted, but the vendor's adjusted ones of others are held, and read."""
    one = known.series
    if one.dataset.adjustment.is_raw or known.wanted or known.rows:
        return
    raw = Series(one.symbol, replace(one.dataset, adjustment=RAW))
    if store.coverage.read(raw).rows:
        yield (
            f"{one.symbol} is not in {one.dataset.name}, which is read because the store has it, and is in {raw.dataset.name}; "
            "with a day (as_of=...) its raw bars are adjusted"
        )


def _options(dataset: Dataset) -> str:
    """Return the options that name a dataset on the command line."""
    text = "" if str(dataset.timeframe) == "1Min" else f" --timeframe {dataset.timeframe}"
    if not dataset.adjustment.is_raw:
        text += f" --adjustment {dataset.adjustment}"
    return text if dataset.feed is Feed.SIP else f"{text} --feed {dataset.feed.value}"
