"""Say in one message what a call asks for and the store does not hold, with the command that completes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from data_engine.errors import DamagedFile, InputError
from data_engine.market.exchange_calendar import can_hold_bars
from data_engine.market.resampling import Resampling
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.session_hours import Hours
from data_engine.market.time_range import TimeRange, difference, new_york_date
from data_engine.market.wording import and_more, dataset_options, plural
from data_engine.read.bar_query import BarQuery
from data_engine.read.holdings import Holding, Holdings, sure
from data_engine.store.bar_store import BarStore
from data_engine.store.legacy_files import foreign_files
from data_engine.store.partitions import Partition

_NAMED = 3  # symbols, or ranges of one symbol

_MOST_IN_COMMAND = 40

_MINUTES = Timeframe(1, "Min")


def lack_of(store: BarStore, query: BarQuery, holdings: Holdings, held: Sequence[Holding], *, now: datetime) -> str | None:
    """Return what a call asks for and the store does not hold, as one message; None if it holds everything.

    Args:
        store: The store.
        query: The call. If its *incomplete* is ``raise``, unverified bars are missing, too.
        holdings: The coverage of the call.
        held: What is held of each symbol.
        now: The current instant, aware.
    """
    strict = query.incomplete == "raise"
    lacking = [one for one in (sure(holding, query) if strict else holding for holding in held) if one.missing]
    lost = [one for one in held if one.lost]
    parts = [_missing_text(lacking, query, now) + _shorter_bars(lacking, query, holdings)] if lacking else []
    parts += [_lost_text(store, lost)] if lost else []
    parts += _foreign_parts(store, lacking)
    return ". ".join(parts) or None


def _foreign_parts(store: BarStore, lacking: Sequence[Holding]) -> list[str]:
    """Return what keeps series that lack something from being completed: files of the legacy pipeline in their folders."""
    reasons = [(one.symbol, reason) for one in lacking if (reason := foreign_files(store.files, one.known.series)) is not None]
    if not reasons:
        return []
    more = f" (and for {len(reasons) - 1:,} more symbols)" if len(reasons) > 1 else ""
    return [f"{reasons[0][1]}{more}"]


def _missing_text(lacking: Sequence[Holding], query: BarQuery, now: datetime) -> str:
    command = f"run `{_command(lacking, query, now)}`"
    if query.resampling is not None:
        command = f"{query.resampling} bars there are absent or lack minutes; {command}"
    if query.index is not None:
        shown = and_more((f"{one.symbol} {_ranges(one, 1)}" for one in lacking), _NAMED)
        members = plural(len(query.symbols), "member")
        return f"{len(lacking)} of the {members} of {query.index} are missing bars of their days: {shown}; {command}"
    if len(lacking) == 1:
        (one,) = lacking
        return f"{one.known.series} is missing {_ranges(one, _NAMED)}; {command}"
    shown = and_more((f"{one.symbol} {_ranges(one, 1)}" for one in lacking), _NAMED, separator="; ")
    return f"{len(lacking)} of {len(query.symbols)} symbols in {query.dataset.name} are missing bars: {shown}; {command}"


def _ranges(one: Holding, most: int) -> str:
    text = and_more(one.missing, most, "ranges")
    known = one.known
    if not (known.rows or known.covered or known.provisional or known.wanted):
        return f"{text} (never ingested)"
    unverified = difference(one.missing, difference(one.missing, one.unverified))
    return f"{text} (stored without coverage)" if unverified == one.missing else text


def _command(lacking: Sequence[Holding], query: BarQuery, now: datetime) -> str:
    options = dataset_options(query.dataset)
    first = new_york_date(min(one.missing[0].start for one in lacking))
    if query.index is not None:
        return f"data-engine ingest --index {query.index} --ever --start {first}{options}"
    symbols = [one.symbol for one in lacking]
    names = " ".join(symbols) if len(symbols) <= _MOST_IN_COMMAND else None
    unrequested = (part for one in lacking for part in difference(one.missing, one.known.wanted))
    if not any(can_hold_bars(part, query.dataset) for part in unrequested):
        return f"data-engine update{f' {names}' if names else ''}{options}"
    last = new_york_date(max(one.missing[-1].end for one in lacking) - timedelta(microseconds=1))
    end = "" if last >= new_york_date(now) else f" --end {last}"
    return f"data-engine ingest {names or '--file FILE'} --start {first}{end}{options}"


def _shorter_bars(lacking: Sequence[Holding], query: BarQuery, holdings: Holdings) -> str:
    """Return how to compute the bars if the store has minutes of symbols of which it has no such bars."""
    timeframe = query.dataset.timeframe
    if query.resampling is not None or timeframe == _MINUTES or not _can_be_computed(timeframe):
        return ""
    minutes = replace(query.dataset, timeframe=_MINUTES)
    never = (one for one in lacking if not one.known.rows)
    having = [one.symbol for one in never if holdings.coverage(Series(one.symbol, minutes)).rows]
    if not having:
        return ""
    shown = and_more(having, _NAMED)
    return f", or pass timeframe='1Min', resample='{timeframe}': minutes of {shown} are stored"


def _can_be_computed(timeframe: Timeframe) -> bool:
    try:
        Resampling.parse(timeframe, Hours.REGULAR, _MINUTES)
    except InputError:
        return False
    return True


def _lost_text(store: BarStore, lost: Sequence[Holding]) -> str:
    keys = (f"{store.files.location}/{Partition(one.known.series, period).key}" for one in lost for period in one.lost)
    bars = sum(one.known.rows[period] for one in lost for period in one.lost)
    symbols = [one.symbol for one in lost]
    names = " ".join(symbols) if len(symbols) <= _MOST_IN_COMMAND else ""
    series = str(lost[0].known.series) if len(lost) == 1 else plural(len(lost), "symbol")
    return (
        f"{series} {'is' if len(lost) == 1 else 'are'} missing {bars:,} stored bars: no file {and_more(keys, 1)}; "
        f"run `data-engine verify{f' {names}' if names else ''} --repair`, then `data-engine update`"
    )


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A series of which something is missing in a range.

    Attributes:
        symbol: The symbol.
        damaged: Whether its coverage cannot be read, or a file is gone in which the coverage counts bars. If not, requested
            ranges are missing.
    """

    symbol: str
    damaged: bool = False


def incomplete_series(store: BarStore, dataset: Dataset, span: TimeRange, now: datetime) -> Iterator[Incomplete]:
    """Yield the series of a dataset of which a requested range or a counted file is missing in *span*, by symbol."""
    for series in store.coverage.series(dataset):
        try:
            known = store.coverage.read(series, fingerprints=False)
        except DamagedFile:
            yield Incomplete(series.symbol, damaged=True)
            continue
        if store.lost_files(known, span):
            yield Incomplete(series.symbol, damaged=True)
        elif any(can_hold_bars(part, dataset) for part in known.incomplete(span, now)):
            yield Incomplete(series.symbol)


def incomplete_text(name: str, options: str, found: Sequence[Incomplete]) -> str:
    """Return in one sentence which series of a dataset are incomplete, and what to run.

    Args:
        name: The name of the dataset, or of its view.
        options: The options that name the dataset to a command.
        found: The incomplete series, at least one.
    """
    symbols = and_more([one.symbol for one in found], _NAMED)
    repair = "data-engine verify --repair`, then `" if any(one.damaged for one in found) else ""
    what = "requested ranges or counted files" if repair else "requested ranges"
    return f"{name} misses {what} of {plural(len(found), 'symbol')} ({symbols}); run `{repair}data-engine update{options}`"
