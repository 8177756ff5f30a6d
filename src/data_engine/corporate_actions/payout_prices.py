"""Find the prices that payouts are measured by: closes of regular sessions, of the store's raw bars.

A close counts if its session is stored to its close: a daily bar, or minutes up to the close or covered to it. That there was no
trade between it and the ex-date must be known, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from data_engine.corporate_actions.adjustment import share_ratio
from data_engine.market.bars import from_micros, numbers, timestamps_us, within
from data_engine.market.corporate_action import Action
from data_engine.market.exchange_calendar import extended_hours, regular_hours, sessions
from data_engine.market.series import RAW, Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange, missing, new_york_date, new_york_days, new_york_midnight
from data_engine.store.bar_store import BarStore
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Period

NEAR = timedelta(days=14)
"""How far from an ex-date its price may be: an illiquid stock may not trade for days."""

_DAY = timedelta(days=1)

_AHEAD = timedelta(days=5)  # a spun-off company may trade for the first time some days later


@dataclass(frozen=True, slots=True)
class Price:
    """A stored close. It is that of a share as shares are on its day: see `per_share`.

    Attributes:
        day: The session.
        close: Its close.
    """

    day: date
    close: float

    def per_share(self, day: date, actions: Iterable[Action]) -> float:
        """Return the close per share as shares are on another day, by the splits between.

        Args:
            day: The day, whose own splits have taken effect.
            actions: The actions of the security.

        Raises:
            InputError: If different splits are recorded for one of the days between.
        """
        early, late = sorted((self.day, day))
        ratio = share_ratio(actions, early, late)
        return self.close / ratio if self.day < day else self.close * ratio


@dataclass(frozen=True, slots=True)
class NoPrice:
    """A price that is not stored.

    Attributes:
        symbol: The symbol.
        first: The first day on which it may be.
        last: The last one.
        never: Whether all days near the ex-date are known, and have no trade.
    """

    symbol: str
    first: date
    last: date
    never: bool = False

    def __str__(self) -> str:
        return f"{self.symbol} on {self.first}"


class PayoutPrices:
    """The prices of one store. Each file and coverage is read at most once.

    Args:
        storage: The store.
        feed: The feed of the bars to adjust; if it has no price, the consolidated tape is searched.
        today: The current day in New York.
    """

    def __init__(self, storage: BarStore, feed: Feed, today: date) -> None:
        self._storage = storage
        self._today = today
        timeframes = (Timeframe(1, "Day"), Timeframe(1, "Min"))
        self._datasets = [Dataset(one, RAW, source) for source in dict.fromkeys((feed, Feed.SIP)) for one in timeframes]
        self._known: dict[Series, Coverage] = {}
        self._days: dict[tuple[Series, int], dict[date, float]] = {}

    @property
    def today(self) -> date:
        """The current day in New York."""
        return self._today

    def before(self, symbol: str, day: date) -> Price | NoPrice:
        """Return the close of the last session with a trade before a day."""
        days = list(sessions(day - NEAR, day - _DAY))[::-1]
        return self._first(symbol, days) or self._lack(symbol, days, days[0])

    def from_day(self, symbol: str, day: date) -> Price | NoPrice:
        """Return the close of the first session with a trade on a day or after it."""
        days = list(sessions(day, day + NEAR))
        return self._first(symbol, days) or self._lack(symbol, days, days[0])

    def _first(self, symbol: str, days: list[date]) -> Price | None:
        """Return the close of the first of some days that has a trade, if those before are known to have none."""
        for dataset in self._datasets:
            price = self._search(Series(symbol, dataset), days)
            if price is not None:
                return price
        return None

    def _search(self, series: Series, days: list[date]) -> Price | None:
        for day in days:
            close = self._close(series, day)
            if close is not None:
                return Price(day, close)
            if not self._is_answered(series, _bars_of(series, day)):
                return None
        return None

    def _lack(self, symbol: str, days: list[date], nearest: date) -> NoPrice:
        series = Series(symbol, Dataset(Timeframe(1, "Day")))
        unknown = [day for day in days if day <= self._today and not self._is_answered(series, _bars_of(series, day))]
        first = unknown[0] if unknown else nearest
        ahead = min(first + _AHEAD, self._today) if days[-1] > days[0] else first
        return NoPrice(symbol, first, max(first, ahead), never=not unknown and days[-1] <= self._today)

    def _close(self, series: Series, day: date) -> float | None:
        """Return the close of a session, if it has a trade and is stored to its close."""
        if not series.dataset.timeframe.intraday:
            return self._year(series, day.year).get(day)
        hours = regular_hours(day)
        for period in self._periods(series, hours):
            bars = within(self._storage.read(series, period, ["timestamp", "close"], within=hours), hours)
            if bars.num_rows:
                ended = from_micros(int(timestamps_us(bars)[-1])) + series.dataset.timeframe.length
                if ended >= hours.end or self._is_answered(series, TimeRange(ended, hours.end)):
                    return float(numbers(bars.column("close"))[-1])
        return None

    def _periods(self, series: Series, span: TimeRange) -> Iterator[Period]:
        return self._storage.periods(series, span)

    def _year(self, series: Series, year: int) -> dict[date, float]:
        if (series, year) not in self._days:
            found: dict[date, float] = {}
            for period in self._periods(series, new_york_days(date(year, 1, 1), date(year, 12, 31))):
                table = self._storage.read(series, period, ["timestamp", "close"])
                times, closes = timestamps_us(table).tolist(), numbers(table.column("close")).tolist()
                found |= {new_york_date(from_micros(time)): close for time, close in zip(times, closes, strict=True)}
            self._days[series, year] = found
        return self._days[series, year]

    def stored(self, symbol: str) -> Iterator[Coverage]:
        """Yield the coverage of the series of a ticker that prices may be taken from."""
        known = (self._coverage(Series(symbol, dataset)) for dataset in self._datasets)
        return (one for one in known if one.rows)

    def _coverage(self, series: Series) -> Coverage:
        if series not in self._known:
            self._known[series] = self._storage.coverage.read(series)
        return self._known[series]

    def _is_answered(self, series: Series, span: TimeRange) -> bool:
        known = self._coverage(series)
        return not missing(span, (*known.covered, *known.provisional))


def _bars_of(series: Series, day: date) -> TimeRange:
    """Return the range in which the bars of a session start."""
    if series.dataset.timeframe.intraday:
        return extended_hours(day)
    midnight = new_york_midnight(day)
    return TimeRange(midnight, midnight + timedelta(microseconds=1))
