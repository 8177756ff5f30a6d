"""Compute the profile of a symbol of the simulated market from its name: price, liquidity, splits."""

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
"""The splits of the simulated market. Dates and ratios are real, prices are not."""

_LIQUID = frozenset({
    "AAPL", "AMD", "AMZN", "BAC", "COIN", "F", "GOOG", "GOOGL", "INTC", "IWM", "META", "MSFT",
    "MU", "NFLX", "NIO", "NVDA", "PFE", "PLTR", "QQQ", "SOFI", "SPY", "T", "TQQQ", "TSLA", "XOM",
})  # fmt: skip

_PRICES = {"AAPL": 140.0, "AMZN": 130.0, "GE": 110.0, "GOOG": 120.0, "GOOGL": 120.0, "NVDA": 40.0, "TSLA": 150.0, "WMT": 55.0}

FAMOUS = _LIQUID | SPLITS.keys()
"""The symbols that the market lists by name. It has bars of all others, too."""

_ILLIQUID_SHARE = 0.07

_IEX_VOLUME = 0.02


@dataclass(frozen=True, slots=True)
class SymbolProfile:
    """The constants of one symbol.

    Attributes:
        stream: The key of its random numbers.
        price: The price in the middle of its waves, in today's shares.
        drift: The growth of the logarithm of its price per year.
        waves: The amplitude, period in sessions and phase of each wave of that logarithm: three columns.
        day_noise: The distance of a day's close from the waves.
        spread: The distance of a day's extremes from open and close.
        jitter: The distance of a minute's price from the day's line.
        shares: The shares traded per day, in today's shares.
        trade_size: The shares per trade.
        regular: The probability that a minute of the regular session has a bar.
        extended: The same for the busiest minutes outside it.
        splits: The splits by date.
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
def symbol_profile(symbol: str) -> SymbolProfile:
    """Return the constants of a symbol."""

    def between(low: float, high: float, *words: object) -> float:
        return low + (high - low) * share(symbol, *words)

    if symbol in _LIQUID:
        shares, regular, extended = math.exp(between(16.8, 18.2, "shares")), 1.0, between(0.9, 1.0, "extended")
    elif share(symbol, "thin") < _ILLIQUID_SHARE:
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
    return SymbolProfile(
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
    """The distribution of a day's trading over its minutes, from 04:00 on; first row a whole day, second row a half day.

    Attributes:
        chance: The probability that the minute has a bar.
        weight: The share of the day's volume in the minute's bar, if it has one.
        trades: The share of the feed in the day's volume.
    """

    chance: Floats
    weight: Floats
    trades: float


@lru_cache(maxsize=4096)
def day_shape(symbol: str, feed: str) -> DayShape:
    """Return how a symbol trades over the day on a feed: ``sip`` or, with fewer bars, ``iex``."""
    profile = symbol_profile(symbol)
    rows = [_row(profile, regular) for regular in (REGULAR_MINUTES, HALF_DAY_MINUTES)]
    chance = np.stack([row[0] for row in rows])
    weight = np.stack([row[1] for row in rows])
    if feed == "iex":
        # Its members trade from 08:00 to 17:00, and hardly outside the regular session.
        seen = np.full((2, SLOTS), 0.05)
        for row, regular in enumerate((REGULAR_MINUTES, HALF_DAY_MINUTES)):
            seen[row, PRE_MINUTES : PRE_MINUTES + regular] = 0.80 + 0.19 * profile.extended
            seen[row, :240] = 0.0
            seen[row, PRE_MINUTES + regular + 60 :] = 0.0
        chance = chance * seen
        return DayShape(chance, weight * _IEX_VOLUME, _IEX_VOLUME)
    return DayShape(chance, weight, 1.0)


def _row(profile: SymbolProfile, regular: int) -> tuple[Floats, Floats]:
    chance, weight = np.zeros(SLOTS), np.zeros(SLOTS)
    before = (np.arange(PRE_MINUTES) + 0.5) / PRE_MINUTES
    during = 2 * (np.arange(regular) + 0.5) / regular - 1
    after = (np.arange(POST_MINUTES) + 0.5) / POST_MINUTES
    close = PRE_MINUTES + regular
    chance[:PRE_MINUTES] = profile.extended * (0.25 + 0.75 * before**2)
    chance[PRE_MINUTES:close] = profile.regular
    chance[close : close + POST_MINUTES] = profile.extended * (0.25 + 0.75 * (1 - after) ** 2)
    if profile.extended > 0.85:
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
