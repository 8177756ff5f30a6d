"""Name records of corporate actions that cannot be right: two of one split, or a ratio that the prices contradict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from itertools import pairwise

from data_engine.corporate_actions.adjustment import effective
from data_engine.corporate_actions.payout_prices import NoPrice, PayoutPrices
from data_engine.corporate_actions.symbol_actions import SymbolActions
from data_engine.errors import InputError
from data_engine.market.corporate_action import Action, SpinOff, Split, StockDividend, contradicts
from data_engine.market.series import Adjustment

_NEAR = timedelta(days=4)  # one session apart, a long weekend included


def doubtful_splits(known: SymbolActions, today: date) -> list[str]:
    """Return what is doubtful among the records of a symbol's splits, as text, without a look at prices.

    Args:
        known: The stored actions of the symbol.
        today: The current day in New York; later actions are not judged.
    """
    actions = [one for one in known.counted if one.symbol == known.symbol and one.flaw is None]
    try:
        return list(repeated(effective(actions, Adjustment("split"), today)))
    except InputError as error:
        return [str(error)]


def repeated(actions: Iterable[Action]) -> Iterator[str]:
    """Yield a text for each pair of splits of one ratio that are a session apart: the second may be the first, a day off.

    Args:
        actions: The actions of one security that an adjustment applies, by day.
    """
    splits = [one for one in actions if isinstance(one.event, Split)]
    for first, second in pairwise(splits):
        if second.day - first.day <= _NEAR and _same_ratio(first, second):
            yield f"{first} and on {second.day} may be one split; run `data-engine actions drop {second.symbol} --ex-date DAY`"


def contradicted(actions: Iterable[Action], prices: PayoutPrices, symbol: str) -> Iterator[str]:
    """Yield a text for each split whose ratio the closes before and after it contradict.

    Local records are not judged, nor are splits whose closes are not stored.

    Args:
        actions: The actions of one security that an adjustment applies.
        prices: The prices of the store.
        symbol: The symbol of the series; the ticker of the action is searched, too.
    """
    known = list(actions)
    mixed = {one.day for one in known if isinstance(one.event, SpinOff)}
    for action in known:
        event = action.event
        if not isinstance(event, (Split, StockDividend)) or action.local or action.day in mixed:
            continue
        for name in dict.fromkeys((symbol, action.symbol)):
            before, after = prices.before(name, action.day), prices.from_day(name, action.day)
            if isinstance(before, NoPrice) or isinstance(after, NoPrice):
                continue
            # The two may be weeks apart, with other splits between.
            others = [one for one in known if one.day != action.day]
            last, first = before.per_share(action.day, others), after.per_share(action.day, others)
            if contradicts(event.ratio, last, first):
                yield (
                    f"{action}, but the close went from {last:g} to {first:g}; "
                    f"run `data-engine actions set {action.symbol} --ex-date {action.day}` or `actions drop`"
                )
            break


def _same_ratio(first: Action, second: Action) -> bool:
    left, right = first.event, second.event
    return isinstance(left, Split) and isinstance(right, Split) and math.isclose(left.ratio, right.ratio, rel_tol=1e-6)
