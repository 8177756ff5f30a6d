"""Find what a share of a spun-off company was worth: under any ticker that it has had, and by no series of another company.

Its ticker may have passed to another company since. So whose a series is, is asked for the day of the spin-off, and takes the
corporate actions of the ticker from that day until the series was begun. Of ``S@DATE`` with that day it needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date

from data_engine.corporate_actions.obstacles import Obstacle, UnknownActions, unknown_actions, unknown_in
from data_engine.corporate_actions.payout_prices import NEAR, NoPrice, PayoutPrices, Price
from data_engine.corporate_actions.symbol_actions import SymbolActions
from data_engine.corporate_actions.ticker_changes import ChangesOf, Tenure, end_of_series, left_by_name, tenures
from data_engine.market.symbol import at_day
from data_engine.market.time_range import new_york_date


def is_stored_for(tenure: Tenure, prices: PayoutPrices, changes: ChangesOf) -> bool:
    """Return whether what is stored under a ticker is of the security that had it then, and not of another owner."""
    for known in prices.stored(tenure.symbol):
        left = end_of_series(known, changes)
        if (None if left is None else left.day) != tenure.after:
            return False
    return True


class SpunOff:
    """A spun-off company.

    Args:
        symbol: Its ticker, by the record of the spin-off.
        ex_date: The ex-date of the spin-off.
        prices: The prices of the store.
        book: A function that returns the stored actions of a ticker.
        changes: The ticker changes that are known.
    """

    def __init__(
        self, symbol: str, ex_date: date, prices: PayoutPrices, book: Callable[[str], SymbolActions], changes: ChangesOf
    ) -> None:
        self._symbol = symbol
        self._ex_date = ex_date
        self._prices = prices
        self._book = book
        self._changes = changes
        left = left_by_name(at_day(symbol, ex_date), changes)
        self._owned, self._last_day = tenures(symbol, left, changes), ex_date if left is None else max(ex_date, left.last_day)
        (own,) = (one for one in self._owned if one.symbol == symbol and one.after == (None if left is None else left.day))
        if own.first is not None and own.first > ex_date + NEAR:
            # Another company took the ticker, and no action tells when the first one left it. One that takes it within days of
            # the spin-off is the first one, which had a ticker of its own before.
            self._owned, self._last_day = (Tenure(symbol, None, own.first, handed_on=True),), ex_date

    def value(self) -> float | Obstacle:
        """Return the first close from the ex-date on, per share as shares are on the ex-date; or what is lacking for it.

        Raises:
            InputError: If a split that lies between cannot be applied.
        """
        price = self._own_price(at_day(self._symbol, self._ex_date))
        if isinstance(price, NoPrice):
            if unknown := tuple(self._unknown_owners()):
                return Obstacle(actions=unknown)
            price = self._price()
        if isinstance(price, NoPrice):
            return Obstacle(prices=(price,))
        if unknown := tuple(unknown_in(self._owned, self._book, self._ex_date, price.day)):  # splits
            return Obstacle(actions=unknown)
        found = [action for tenure in self._owned for action in tenure.actions(self._book(tenure.symbol).counted)]
        return price.per_share(self._ex_date, found)

    def _own_price(self, name: str) -> Price | NoPrice:
        return self._prices.from_day(name, self._ex_date)

    def _price(self) -> Price | NoPrice:
        """Return the price under the first name that has it; else which one is lacking, of a series that is there if any is."""
        names = list(self._names())
        lacking = []
        for name in names:
            price = self._own_price(name)
            if not isinstance(price, NoPrice):
                return price
            lacking.append((not any(self._prices.stored(name)), price))
        return min(lacking, key=lambda one: one[0])[1]

    def _names(self) -> Iterator[str]:
        """Yield the names under which series can be the company's, first the one to ask for if none is stored."""
        owned = [one for one in self._owned if is_stored_for(one, self._prices, self._changes)]
        if not any(one.symbol == self._symbol and one.after is None for one in owned):
            yield at_day(self._symbol, self._last_day)
        yield from (one.symbol for one in reversed(owned))

    def _unknown_owners(self) -> Iterator[UnknownActions]:
        """Yield the days on which a ticker may have changed hands before a series of it was begun, by actions not requested."""
        former = any(self._prices.stored(at_day(self._symbol, self._last_day)))
        for tenure in self._owned:
            begun = [one.begun for one in self._prices.stored(tenure.symbol)]
            ends = [self._prices.today if one is None else new_york_date(one) for one in begun]
            ends += [self._last_day] * (former and tenure.symbol == self._symbol)
            first = max(self._ex_date, tenure.first or date.min)
            last = min(self._prices.today, max(ends, default=date.min))
            if (one := unknown_actions(self._book(tenure.symbol), first, last)) is not None:
                yield one
