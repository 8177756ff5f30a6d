"""Tell what the stored corporate actions of a symbol say about its prices and about the beginning and end of its series."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import combinations

from data_engine.market.corporate_action import Action, CashDividend, NameChange, SpinOff, Split, StockDividend, fits
from data_engine.market.series import Adjustment

JUMP = 1.3
"""The maximum ratio between the open of a session and the close of the one before that needs no explanation, either way."""

_MOST = 4  # actions of one day whose combinations are tried

_ENDS = ("merger", "redemption", "worthless", "liquidation", "name_change", "delist", "reorganization")
"""Parts of the kinds of actions with which a security leaves its ticker."""

_AROUND = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Expected:
    """What actions make of a price.

    Attributes:
        ratio: The price afterwards relative to the price before, payouts left aside.
        cash: The amount that the price loses, in dollars per share afterwards.
        unknown: Whether the price loses the value of other shares, too.
    """

    ratio: float = 1.0
    cash: float = 0.0
    unknown: bool = False

    def explains(self, before: float, after: float) -> bool:
        """Tell whether a change of the price is explained, to a factor of `JUMP`."""
        expected = before * self.ratio - self.cash
        low = 0.0 if self.unknown else expected / JUMP
        return low <= after <= before * self.ratio * JUMP and (self.unknown or after <= expected * JUMP)


class KnownActions:
    """The stored corporate actions of one symbol.

    Args:
        actions: The actions.
        adjustment: The adjustment of the bars; what they are adjusted for changes no price.
    """

    def __init__(self, actions: Iterable[Action] = (), adjustment: Adjustment | None = None) -> None:
        self._actions = sorted(actions, key=lambda action: action.day)
        self._adjustment = adjustment or Adjustment()
        self._pricing = [action for action in self._actions if self._changes_price(action)]
        self._days = [action.day for action in self._pricing]

    def _changes_price(self, action: Action) -> bool:
        parts = self._adjustment.value.split(",")
        if "all" in parts or action.ex_date is None:
            return False
        match action.event:
            case Split() | StockDividend():
                return "split" not in parts
            case CashDividend():
                return "dividend" not in parts
            case SpinOff():
                return "spin-off" not in parts
        return False

    def between(self, before: date, day: date) -> Sequence[Action]:
        """Return the actions that change the price after the day *before*, up to *day*."""
        return self._pricing[bisect_right(self._days, before) : bisect_right(self._days, day)]

    def explain(self, before: float, after: float, actions: Sequence[Action]) -> bool:
        """Tell whether some or all of *actions* explain a change of the price."""
        return any(_expected(chosen).explains(before, after) for chosen in _choices(actions))

    def contradictions(self, before: float, after: float, actions: Sequence[Action]) -> list[Action]:
        """Return the splits among *actions* that a change of the price contradicts.

        A price moves on its own, too: by half of what a split does to it (as a logarithm), or by a factor of `JUMP`.
        """
        splits = [action for action in actions if isinstance(action.event, Split | StockDividend)]
        if any(chosen and fits(1 / _expected(chosen).ratio, before, after) for chosen in _choices(splits)):
            return []
        return [action for action in splits if abs(math.log(_expected([action]).ratio)) > math.log(JUMP)]

    @property
    def splits(self) -> list[Action]:
        """The splits that change prices, by day."""
        return [action for action in self._pricing if isinstance(action.event, Split | StockDividend)]

    def ends_near(self, day: date) -> Action | None:
        """Return an action with which the security may have left its ticker on about *day*, or None."""
        near = (action for action in self._actions if day - _AROUND <= action.day <= day + _AROUND)
        return next((action for action in near if any(part in action.kind for part in _ENDS) or _renames(action)), None)

    def begins_near(self, day: date) -> Action | None:
        """Return an action with which the security may have come to its ticker on about *day*, or None."""
        near = (action for action in self._actions if day - _AROUND <= action.day <= day + _AROUND)
        return next((action for action in near if isinstance(action.event, SpinOff | NameChange) or _renames(action)), None)


def _renames(action: Action) -> bool:
    return isinstance(action.record.get("new_symbol"), str)


def _choices(actions: Sequence[Action]) -> Iterable[Sequence[Action]]:
    """Yield all of some actions, then each part of them: a vendor has some actions twice."""
    yield actions
    if 1 < len(actions) <= _MOST:
        for size in range(len(actions) - 1, 0, -1):
            yield from combinations(actions, size)


def _expected(actions: Sequence[Action]) -> Expected:
    ratio, cash, unknown = 1.0, 0.0, False
    for action in actions:
        match action.event:
            case Split() | StockDividend():
                ratio /= action.event.ratio
            case CashDividend():
                cash += action.event.rate
            case SpinOff():
                unknown = True
    return Expected(ratio, cash, unknown)
