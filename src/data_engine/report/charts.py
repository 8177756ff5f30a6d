"""Compute the candles of a report: one per session and symbol, and the minutes of the last sessions, as many as fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from typing import Any

import numpy as np

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.errors import DamagedFile, StoreError
from data_engine.market.bars import Int64s, from_micros, to_micros
from data_engine.market.corporate_action import Split
from data_engine.market.exchange_calendar import is_session, regular_hours, sessions
from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange, new_york_date, new_york_days
from data_engine.report.candles import COLUMNS, NOTHING, Candles, merge, of_bars, of_days, of_minutes, pack
from data_engine.store.bar_store import BarStore
from data_engine.store.partitions import Partition, Period

DAILY_CHARACTERS = 6_500_000
"""The maximum size of the daily candles: if they exceed it, they are rounded, then the oldest are left out."""

MINUTE_CHARACTERS = 2_000_000
"""The maximum size of the minutes: the report names symbols that exceed it, and the command that shows them."""

QUICK_MONTHS = 12
"""The months of minutes in a quick report; daily bars are read completely."""

_READERS = 4

_DAYS = Timeframe.parse("1Day")

_NAMES = ("timestamp", *COLUMNS)


@dataclass(slots=True)
class Chart:
    """The candles of all symbols of one feed and adjustment.

    Attributes:
        feed: The feed.
        adjustment: The adjustment.
        intraday: The dataset of the minutes. If None, there is none.
        days: The ordinals of all days with a candle and of the sessions between them, ascending.
        daily: The packed candles by symbol, with indices of *days* as times.
        minutes: The packed bars by symbol, with minutes since 1970 as times.
        hours: The regular hours of the sessions in *minutes*, in minutes since 1970.
        from_minutes: The number of candles made from minutes, without a daily bar.
        rounded: Whether prices are rounded to 0.025 %.
        cut: The first day shown. If None, all days are.
        left_out: The symbols whose minutes do not fit.
        splits: The known splits of each symbol that has one: the ordinal of the ex-date, and what happened.
    """

    feed: Feed
    adjustment: Adjustment
    intraday: Dataset | None
    days: list[int] = field(default_factory=list)
    daily: dict[str, str] = field(default_factory=dict)
    minutes: dict[str, str] = field(default_factory=dict)
    hours: list[tuple[int, int]] = field(default_factory=list)
    from_minutes: int = 0
    rounded: bool = False
    cut: date | None = None
    left_out: list[str] = field(default_factory=list)
    splits: dict[str, list[tuple[int, str]]] = field(default_factory=dict)


def charts(
    storage: BarStore, known: Iterable[Series], *, now: datetime, quick: bool, minutes: int, notes: list[str]
) -> list[Chart]:
    """Return a chart per feed and adjustment that has bars of a day or shorter; fill bars are in none.

    Args:
        storage: The store.
        known: The series to show.
        now: The current time.
        quick: Whether to read only the last months of minutes.
        minutes: The number of last sessions whose minutes are shown.
        notes: The list that messages about unreadable files are added to.
    """
    groups: dict[tuple[Adjustment, Feed], dict[Dataset, list[str]]] = {}
    for series in known:
        dataset = series.dataset
        if not dataset.fill and (dataset.timeframe.intraday or dataset.timeframe == _DAYS):
            of_group = groups.setdefault((dataset.adjustment, dataset.feed), {})
            of_group.setdefault(dataset, []).append(series.symbol)
    made = []
    share = max(1, len(groups))
    for (adjustment, feed), datasets in sorted(groups.items(), key=lambda item: (item[0][1].value, str(item[0][0]))):
        finest = min((one for one in datasets if one.timeframe.intraday), key=lambda one: one.timeframe.length, default=None)
        chart = Chart(feed, adjustment, finest)
        reader = _Reader(storage, Dataset(_DAYS, adjustment, feed), finest, now, quick, notes)
        symbols = sorted({symbol for names in datasets.values() for symbol in names})
        days = _add_days(chart, reader, symbols, DAILY_CHARACTERS // share)
        chart.splits = _splits(ActionStore(storage.files), days)
        if finest is not None and minutes:
            last = {symbol: days[symbol][-minutes:] for symbol in sorted(datasets[finest]) if symbol in days}
            _add_minutes(chart, reader, last, MINUTE_CHARACTERS // share)
        made.append(chart)
    return made


def fit(candles: Mapping[str, Candles], limit: int) -> tuple[dict[str, str], bool, int]:
    """Return packed candles by symbol, whether they are rounded, and the number of last days kept of each.

    Args:
        candles: The candles by symbol, with indices of days as times.
        limit: The maximum number of characters.
    """
    longest = max((len(one) for one in candles.values()), default=0)
    kept = longest
    packed = {symbol: pack(one) for symbol, one in candles.items()}
    if _size(packed) <= limit:
        return packed, False, kept
    while True:
        packed = {symbol: pack(one.latest(kept), rounded=True) for symbol, one in candles.items()}
        size = _size(packed)
        if size <= limit or kept <= 1:
            return packed, True, kept
        kept = max(1, min(kept - 1, int(kept * limit / size * 0.97)))


class _Reader:
    """Read the candles of one feed and adjustment."""

    def __init__(
        self, storage: BarStore, days: Dataset, intraday: Dataset | None, now: datetime, quick: bool, notes: list[str]
    ) -> None:
        self._storage = storage
        self._days = days
        self._intraday = intraday
        self._today = new_york_date(now)
        self._quick = quick
        self._notes = notes

    def candles(self, symbol: str) -> tuple[Candles, int]:
        """Return the candles of a symbol, and the number of those made from minutes."""
        daily = Series(symbol, self._days)
        from_days = merge([of_days(table) for period in self._periods(daily) for table in self._table(daily, period)])
        if self._intraday is None:
            return from_days, 0
        series = Series(symbol, self._intraday)
        periods = self._periods(series)
        parts = []
        for period in periods[-QUICK_MONTHS:] if self._quick else periods:
            days, starts, ends = _hours(self._intraday, period)
            if days.size and not np.isin(days, from_days.times).all():
                # The end of a month can split a session of an overnight feed into two candles: the first counts.
                parts += [of_minutes(table, days, starts, ends) for table in self._table(series, period)]
        all_days = merge([from_days, *parts])
        return all_days, len(all_days) - len(from_days)

    def minutes(self, symbol: str, since: int) -> Candles:
        """Return the bars of a symbol from *since*, in minutes since 1970."""
        assert self._intraday is not None  # noqa: S101 - called only if there is one
        series = Series(symbol, self._intraday)
        first = Period.of(from_micros(since * 60_000_000), self._intraday)
        periods = [period for period in self._periods(series) if period >= first]
        return merge([of_bars(table) for period in periods for table in self._table(series, period)]).since(since)

    def _periods(self, series: Series) -> list[Period]:
        try:
            return sorted(partition.period for partition in self._storage.partitions(series.dataset, series.symbol))
        except StoreError as error:
            self._notes.append(str(error))
            return []

    def _table(self, series: Series, period: Period) -> Iterator[Any]:
        """Yield the bars of a file; add a note if it cannot be read."""
        try:
            yield self._storage.read(series, period, _NAMES)
        except StoreError as error:
            self._notes.append(f"not in the chart: {Partition(series, period).key}: {error}")


def _add_days(chart: Chart, reader: _Reader, symbols: Sequence[str], limit: int) -> dict[str, list[int]]:
    """Add the daily candles, and return the ordinals of their days by symbol; symbols without any are left out."""
    with ThreadPoolExecutor(_READERS) as pool:
        made = dict(zip(symbols, pool.map(reader.candles, symbols), strict=True))
    drawn = np.unique(np.concatenate([NOTHING.times, *(one.times for one, _ in made.values())]))
    days = _with_gaps(drawn)
    placed = {symbol: Candles(np.searchsorted(days, one.times), one.values) for symbol, (one, _) in made.items() if len(one)}
    chart.daily, chart.rounded, kept = fit(placed, limit)
    chart.days = days.tolist()
    chart.from_minutes = sum(count for _, count in made.values())
    if kept < max((len(one) for one in placed.values()), default=0):
        chart.cut = date.fromordinal(int(drawn[-kept]))
    return {symbol: one.times.tolist() for symbol, (one, _) in made.items() if len(one)}


def _with_gaps(days: Int64s) -> Int64s:
    """Return the ordinals of days with those of the sessions between them: a gap of years is one in the chart, too."""
    if not days.size:
        return days
    between = sessions(date.fromordinal(int(days[0])), date.fromordinal(int(days[-1])))
    return np.unique(np.concatenate([days, np.fromiter((day.toordinal() for day in between), np.int64)]))


def _add_minutes(chart: Chart, reader: _Reader, last: Mapping[str, list[int]], limit: int) -> None:
    """Add the minutes of each symbol's last sessions, given as ordinals."""
    shown: set[int] = set()
    left = limit
    for symbol, days in last.items():
        first = date.fromordinal(days[0])
        text = pack(reader.minutes(symbol, _minute(new_york_days(first, first).start))) if left else ""
        if not left or len(text) > left:
            left = 0  # leave out all later symbols too, so that the shown ones are predictable
            chart.left_out.append(symbol)
        elif text:
            chart.minutes[symbol] = text
            left -= len(text)
            shown.update(days)
    spans = (regular_hours(day) for day in map(date.fromordinal, sorted(shown)) if is_session(day))
    chart.hours = [(_minute(span.start), _minute(span.end)) for span in spans]


def _splits(actions: ActionStore, days: Mapping[str, Sequence[int]]) -> dict[str, list[tuple[int, str]]]:
    """Return the known splits of each symbol; `verify` says what is wrong with actions that cannot be read."""
    found: dict[str, list[tuple[int, str]]] = {}
    for symbol in sorted(set(actions.symbols()) & days.keys()):
        with suppress(DamagedFile):
            counted = actions.read(symbol).counted
            made = [(one.day.toordinal(), str(one.event)) for one in counted if isinstance(one.event, Split)]
            if made:
                found[symbol] = sorted(made)
    return found


def _minute(when: datetime) -> int:
    return to_micros(when) // 60_000_000


@lru_cache(maxsize=4096)
def _hours(dataset: Dataset, period: Period) -> tuple[Int64s, Int64s, Int64s]:
    """Return ordinals, starts and ends of the sessions of which a file can have bars.

    A candle covers regular hours; for feeds with other hours, the New York day.
    """
    span, timeframe = period.span, dataset.timeframe
    days = list(sessions(new_york_date(span.start), new_york_date(span.end)))
    if dataset.feed in (Feed.SIP, Feed.IEX):
        hours = [TimeRange(timeframe.floor(one.start), one.end) for one in map(regular_hours, days)]
    else:
        hours = [new_york_days(day, day) for day in days]
    inside = [number for number, one in enumerate(hours) if one.intersect(span)]
    starts = np.array([to_micros(hours[number].start) for number in inside], np.int64)
    ends = np.array([to_micros(hours[number].end) for number in inside], np.int64)
    return np.array([days[number].toordinal() for number in inside], np.int64), starts, ends


def _size(packed: Mapping[str, str]) -> int:
    return sum(map(len, packed.values()))
