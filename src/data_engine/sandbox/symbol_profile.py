"""What a symbol of the simulated market is like: price, habits of trading, splits. From its name alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np

from data_engine.sandbox.bar_columns import Floats
from data_engine.sandbox.hash_random import key, share
from data_engine.sandbox.splits import Split

PRE_MINUTES, POST_MINUTES = 330, 240  # 04:00 to 09:30, and four hours after the close

REGULAR_MINUTES, HALF_DAY_MINUTES = 390, 210

SLOTS = PRE_MINUTES + REGULAR_MINUTES + POST_MINUTES

SPLITS: Mapping[str, tuple[Split, ...]] = {
    "AAPL": (Split(date(2014, 6, 9), 7), Split(date(2020, 8, 31), 4)),
    "AMZN": (Split(date(2022, 6, 6), 20),),
    "GE": (Split(date(2021, 8, 2), 1, 8),),
    "GOOG": (Split(date(2022, 7, 18), 20),),
    "GOOGL": (Split(date(2022, 7, 18), 20),),
    "NVDA": (Split(date(2021, 7, 20), 4), Split(date(2024, 6, 10), 10)),
    "TSLA": (Split(date(2020, 8, 31), 5), Split(date(2022, 8, 25), 3)),
    "WMT": (Split(date(2024, 2, 26), 3),),
}
"""The splits of the simulated market. Dates and ratios are the real ones, prices around them are not."""

_LIQUID = frozenset({
    "AAPL", "AMD", "AMZN", "BAC", "COIN", "F", "GOOG", "GOOGL", "INTC", "IWM", "META", "MSFT",
    "MU", "NFLX", "NIO", "NVDA", "PFE", "PLTR", "QQQ", "SOFI", "SPY", "T", "TQQQ", "TSLA", "XOM",
})  # fmt: skip

_PRICES = {"AAPL": 140.0, "AMZN": 130.0, "GE": 110.0, "GOOG": 120.0, "GOOGL": 120.0, "NVDA": 40.0, "TSLA": 150.0, "WMT": 55.0}

_THIN_SHARE = 0.07

_IEX_VOLUME = 0.02


@dataclass(frozen=True, slots=True)
class Character:
    """The constants of one symbol.

    Attributes:
        stream: the key of its random numbers.
        price: what it costs at the middle of its waves, in today's shares.
        drift: growth of the logarithm of its price in a year.
        waves: amplitude, period in sessions and phase of each wave of that logarithm: three columns.
        day_noise: how far one day's close lies from the waves.
        spread: how far a day's extremes lie beyond open and close.
        jitter: how far a minute's price lies from the day's line.
        shares: shares traded in a day, in today's shares.
        trade_size: shares in a trade.
        regular: probability that a minute of the regular session has a bar.
        extended: the same for the busiest minutes outside it.
        splits: by date.
    """

    stream: int
    price: float
    drift: float
    waves: Floats
    day_noise: float
    spread: float
    jitter: float
    shares: float
    trade_size: float
    regular: float
    extended: float
    splits: tuple[Split, ...]


@lru_cache(maxsize=4096)
def character(symbol: str) -> Character:
    """Return what *symbol* is like."""

    def between(low: float, high: float, *words: object) -> float:
        return low + (high - low) * share(symbol, *words)

    if symbol in _LIQUID:
        shares, regular, extended = math.exp(between(16.8, 18.2, "shares")), 1.0, between(0.9, 1.0, "extended")
    elif share(symbol, "thin") < _THIN_SHARE:
        shares, regular, extended = (
            math.exp(between(11.2, 13.0, "shares")),
            between(0.25, 0.8, "regular"),
            between(0.01, 0.06, "extended"),
        )
    else:
        busy = share(symbol, "busy")
        shares, regular, extended = math.exp(13.8 + 2.4 * busy), 0.985 + 0.015 * busy, 0.14 + 0.60 * busy * busy
    wild = between(0.6, 1.5, "wild")
    periods = np.array([2100.0, 830.0, 310.0, 121.0, 47.0, 17.0]) * [between(0.8, 1.25, "period", n) for n in range(6)]
    amplitudes = np.array([0.30, 0.18, 0.10, 0.06, 0.035, 0.018]) * wild
    phases = np.array([between(0.0, 2 * math.pi, "phase", n) for n in range(6)])
    return Character(
        stream=key(symbol, "stream"),
        price=_PRICES.get(symbol) or math.exp(between(*((-0.7, 2.5) if share(symbol, "penny") < 0.03 else (2.7, 6.0)), "price")),
        drift=between(-0.02, 0.10, "drift"),
        waves=np.stack([amplitudes, periods, phases]),
        day_noise=0.018 * wild,
        spread=0.011 * wild,
        jitter=0.0009 * wild,
        shares=shares,
        trade_size=between(50.0, 130.0, "size"),
        regular=regular,
        extended=extended,
        splits=SPLITS.get(symbol, ()),
    )


@dataclass(frozen=True, slots=True)
class DayShape:
    """How a day's trading is spread over its minutes, from 04:00 on; first row a whole day, second row a half day.

    Attributes:
        chance: probability that the minute has a bar.
        weight: share of the day's volume that falls to the minute's bar, where it has one.
        trades: a factor for the day's volume: the feed's part of all trades.
    """

    chance: Floats
    weight: Floats
    trades: float


@lru_cache(maxsize=4096)
def day_shape(symbol: str, feed: str) -> DayShape:
    """Return how *symbol* trades over the day on *feed*: ``sip`` or, thinner, ``iex``."""
    who = character(symbol)
    rows = [_row(who, regular) for regular in (REGULAR_MINUTES, HALF_DAY_MINUTES)]
    chance = np.stack([row[0] for row in rows])
    weight = np.stack([row[1] for row in rows])
    if feed == "iex":
        # Its members trade from 08:00 to 17:00, and hardly outside the regular session.
        seen = np.full((2, SLOTS), 0.05)
        for row, regular in enumerate((REGULAR_MINUTES, HALF_DAY_MINUTES)):
            seen[row, PRE_MINUTES : PRE_MINUTES + regular] = 0.80 + 0.19 * who.extended
            seen[row, :240] = 0.0
            seen[row, PRE_MINUTES + regular + 60 :] = 0.0
        chance = chance * seen
        return DayShape(chance, weight * _IEX_VOLUME, _IEX_VOLUME)
    return DayShape(chance, weight, 1.0)


def _row(who: Character, regular: int) -> tuple[Floats, Floats]:
    chance, weight = np.zeros(SLOTS), np.zeros(SLOTS)
    before = (np.arange(PRE_MINUTES) + 0.5) / PRE_MINUTES
    during = 2 * (np.arange(regular) + 0.5) / regular - 1
    after = (np.arange(POST_MINUTES) + 0.5) / POST_MINUTES
    close = PRE_MINUTES + regular
    chance[:PRE_MINUTES] = who.extended * (0.25 + 0.75 * before**2)
    chance[PRE_MINUTES:close] = who.regular
    chance[close : close + POST_MINUTES] = who.extended * (0.25 + 0.75 * (1 - after) ** 2)
    if who.extended > 0.85:
        chance[:PRE_MINUTES] = np.maximum(chance[:PRE_MINUTES], 0.7)
        chance[close : close + POST_MINUTES] = np.maximum(chance[close : close + POST_MINUTES], 0.75)
    smile = 0.55 + 1.35 * during**4
    smile[0] *= 3
    smile[-1] *= 4
    weight[PRE_MINUTES:close] = 0.95 * smile / smile.sum()
    weight[:PRE_MINUTES] = 0.02 * before / before.sum()
    weight[close : close + POST_MINUTES] = 0.03 * (1 - after) / (1 - after).sum()
    # Where only one minute in five has a bar, that bar holds the trades of five.
    weight[chance > 0] /= chance[chance > 0]
    return chance, weight
