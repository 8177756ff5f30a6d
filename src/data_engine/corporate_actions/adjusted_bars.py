"""Adjust stored raw bars as they are read, by stored corporate actions and closes.

All symbols of a call take one road: raw bars and stored corporate actions if raw bars of any of them are stored, else the bars
that Alpaca has adjusted. What that takes is found out before the first bar is read, for all symbols, so that one error can
name all of it. Bars after ``as_of`` stay raw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime

import pyarrow as pa

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.adjustment import (
    PRIOR_CLOSE,
    Factors,
    adjust,
    check_adjustable,
    effective,
    factors,
    is_chosen,
    payouts,
)
from data_engine.corporate_actions.ex_dates import may_be_within
from data_engine.corporate_actions.obstacles import Obstacle, UnknownActions, unknown_in
from data_engine.corporate_actions.payout_prices import NoPrice, PayoutPrices, Price
from data_engine.corporate_actions.spun_off import SpunOff, is_stored_for
from data_engine.corporate_actions.suspect_actions import contradicted, repeated
from data_engine.corporate_actions.symbol_actions import SymbolActions
from data_engine.corporate_actions.ticker_changes import (
    Tenure,
    TickerChange,
    end_of_series,
    tenures,
    ticker_changes_of,
)
from data_engine.errors import InputError, StoreError
from data_engine.market.corporate_action import Action
from data_engine.market.series import RAW, Adjustment, Dataset, Series
from data_engine.market.time_range import new_york_date
from data_engine.store.bar_store import BarStore

Step = Callable[[str, pa.Table], pa.Table]
"""A function from a symbol and some of its raw bars to the adjusted bars."""

COMPUTED, VENDOR = "computed", "vendor"


@dataclass(frozen=True, slots=True)
class Road:
    """Where the adjusted prices of a call come from.

    Attributes:
        dataset: The dataset to read.
        prices: `COMPUTED` from raw bars, or `VENDOR`; None for raw prices.
        as_of: The last ex-date to apply, if they are computed.
    """

    dataset: Dataset
    prices: str | None = None
    as_of: date | None = None


def choose_road(
    dataset: Dataset,
    symbols: Iterable[str],
    is_held: Callable[[Series], bool],
    *,
    now: datetime,
    as_of: date | None = None,
    prices: str | None = None,
) -> Road:
    """Return the road that all symbols of a call take.

    Args:
        dataset: The requested dataset, its adjustment included.
        symbols: The symbols of the call.
        is_held: A function that says whether a series has bars or answers.
        now: The current instant, aware.
        as_of: The last ex-date to apply; prices are computed then. If None, today in New York.
        prices: The road. If None, `COMPUTED` if any symbol has raw bars and they can be adjusted, else `VENDOR`.

    Raises:
        InputError: If *as_of* lies in the future, or bars of this dataset cannot be adjusted.
    """
    today = new_york_date(now.astimezone(UTC))
    if as_of is not None and as_of > today:
        raise InputError(f"as_of {as_of} lies in the future (today is {today})")
    if dataset.adjustment.is_raw:
        return Road(dataset)
    raw = replace(dataset, adjustment=RAW)
    if prices is None:
        names = list(symbols)
        computed = as_of is not None or any(is_held(Series(symbol, raw)) for symbol in names)
        if computed and as_of is None and not _can_be_adjusted(raw):
            computed = not any(is_held(Series(symbol, dataset)) for symbol in names)
        prices = COMPUTED if computed else VENDOR
    if prices == VENDOR:
        return Road(dataset, VENDOR)
    check_adjustable(raw)
    return Road(raw, COMPUTED, as_of or today)


def _can_be_adjusted(raw: Dataset) -> bool:
    try:
        check_adjustable(raw)
    except InputError:
        return False
    return True


@dataclass(slots=True)
class AdjustmentPlan:
    """What it takes to adjust the symbols of a call.

    Attributes:
        factors: The factors of each symbol that can be adjusted.
        obstacles: What is in the way of each other symbol.
        doubts: Records of corporate actions that cannot be right, or that prices contradict, as text.
        later: Actions after *as_of* inside the range of a call, as text.
    """

    factors: dict[str, Factors] = field(default_factory=dict)
    obstacles: dict[str, Obstacle] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)


class Adjuster:
    """Adjust the raw bars of one dataset. Several threads may use its step.

    Args:
        storage: The store of the bars and the corporate actions.
        raw: The dataset of the raw bars.
        adjustment: The kinds of actions to apply.
        as_of: The last ex-date to apply.
        convention: One of the values of `adjustment.CONVENTIONS`.
        today: The current day in New York. If None, *as_of*.

    Raises:
        InputError: If bars of this dataset cannot be adjusted.
    """

    def __init__(
        self,
        storage: BarStore,
        raw: Dataset,
        adjustment: Adjustment,
        as_of: date,
        *,
        convention: str = PRIOR_CLOSE,
        today: date | None = None,
    ) -> None:
        check_adjustable(raw)
        self.storage = storage
        self.raw = raw
        self.adjustment = adjustment
        self.as_of = as_of
        self.convention = convention
        self.actions = ActionStore(storage.files)
        self.prices = PayoutPrices(storage, raw.feed, today or as_of)
        self._plan = AdjustmentPlan()

    def plan(self, firsts: Mapping[str, datetime], until: date | None = None) -> AdjustmentPlan:
        """Return what it takes to adjust some symbols; the step uses it.

        Args:
            firsts: For each symbol, an instant at or before its first bar, after which ex-dates count.
            until: The last day of the range; actions between *as_of* and it are in `AdjustmentPlan.later`. If None, *as_of*.
        """
        for symbol, first in firsts.items():
            _Security(self, Series(symbol, self.raw)).add_to(self._plan, first, until or self.as_of)
        return self._plan

    def effective_actions(self, symbol: str, first: datetime) -> tuple[Action, ...]:
        """Return the actions that change the raw bars of a symbol, in order of their ex-dates.

        Args:
            symbol: The symbol.
            first: An instant at or before its first bar, after which ex-dates count.

        Raises:
            StoreError: If they are not stored; the message names the command that fetches them.
            InputError: If one cannot be applied.
        """
        return _Security(self, Series(symbol, self.raw)).effective_actions(first)

    def step(self, symbol: str, table: pa.Table) -> pa.Table:
        """Return the adjusted bars of a symbol.

        Raises:
            StoreError: If actions or a close are not stored; the message names the command that fetches them.
            InputError: If an action cannot be applied.
        """
        if not table.num_rows:
            return table
        if symbol not in self._plan.factors:  # a file that came after the plan was made
            from data_engine.market.bars import from_micros, timestamps_us

            self.plan({symbol: from_micros(int(timestamps_us(table)[0]))})
            if symbol in self._plan.obstacles:
                raise Obstacle.error({symbol: self._plan.obstacles[symbol]}, 1)
        return adjust(table, self._plan.factors[symbol])


class _Security:
    """The security of one series: its tickers, its actions, and the closes that payouts are compared with."""

    def __init__(self, adjuster: Adjuster, series: Series) -> None:
        self._of = adjuster
        self._series = series
        self._known: dict[str, SymbolActions] = {}

    def add_to(self, plan: AdjustmentPlan, first: datetime, until: date) -> None:
        """Add the factors, or what is in their way."""
        symbol, after = self._series.symbol, new_york_date(first)
        try:
            left, owned = self._tenures(first)
            unknown = list(unknown_in(owned, self._book, after, self._of.as_of))
            if unknown:
                plan.obstacles[symbol] = Obstacle(actions=tuple(unknown))
                return
            found = [(action, tenure) for tenure in owned for action in self._actions_of(tenure)]
            every = [action for action, _ in found]
            self._add_factors(plan, left, owned, found, after)
        except InputError as error:
            plan.obstacles[symbol] = Obstacle(reason=str(error))
            return
        except StoreError as error:
            plan.obstacles[symbol] = Obstacle(reason=str(error), damaged=True)
            return
        chosen = effective(every, self._of.adjustment, self._of.as_of, after)
        plan.doubts += [*repeated(chosen), *contradicted(chosen, self._of.prices, self._series.symbol)]
        plan.doubts += self._disputed(owned, every, after)
        if until > self._of.as_of:
            plan.later += [
                str(action)
                for action in every
                if is_chosen(action, self._of.adjustment) and may_be_within(action, self._of.as_of, until)
            ]

    def _disputed(self, owned: Iterable[Tenure], every: Iterable[Action], after: date) -> Iterator[str]:
        """Yield a text for each action that is not applied, though it is booked while the security has the ticker."""
        applied = {action.key for action in every}
        for tenure in owned:
            for action in self._book(tenure.symbol).counted:
                chosen = is_chosen(action, self._of.adjustment) and may_be_within(action, after, self._of.as_of)
                if chosen and action.key not in applied and tenure.disputed(action):
                    yield (
                        f"{action} is of the security that had {action.symbol} on that day, or of {self._series.symbol}, which "
                        f"had it on {action.process_date}, when the record was booked: it is not applied"
                    )

    def effective_actions(self, first: datetime) -> tuple[Action, ...]:
        """Return the actions that change bars after the first."""
        after = new_york_date(first)
        _, owned = self._tenures(first)
        if unknown := tuple(unknown_in(owned, self._book, after, self._of.as_of)):
            raise Obstacle.error({self._series.symbol: Obstacle(actions=unknown)}, 1)
        every = [action for tenure in owned for action in self._actions_of(tenure)]
        return effective(every, self._of.adjustment, self._of.as_of, after)

    def _add_factors(
        self,
        plan: AdjustmentPlan,
        left: TickerChange | None,
        owned: tuple[Tenure, ...],
        found: list[tuple[Action, Tenure]],
        after: date,
    ) -> None:
        of, symbol = self._of, self._series.symbol
        every = [action for action, _ in found]
        before = of.convention == PRIOR_CLOSE
        closes: dict[date, float] = {}
        values: dict[tuple[str, date], float] = {}
        lacking: list[NoPrice] = []
        unknown: list[UnknownActions] = []
        for payout in payouts(effective(every, of.adjustment, of.as_of, after)):
            day = payout.ex_date
            names = [symbol] if left is None or day <= left.day else []
            names += [
                tenure.symbol for action, tenure in found if action.day == day and is_stored_for(tenure, of.prices, self._changes)
            ]
            price = self._price(tuple(dict.fromkeys(names)), day, before=before)
            if isinstance(price, NoPrice):
                lacking.append(price)
            else:
                unknown += unknown_in(owned, self._book, *sorted((price.day, day)))
                closes[day] = price.per_share(day, every)
            for child, _ in payout.shares:
                value = SpunOff(child, day, of.prices, self._book, self._changes).value()
                if isinstance(value, Obstacle):
                    lacking += value.prices
                    unknown += value.actions
                else:
                    values[child, day] = value
        if lacking or unknown:
            plan.obstacles[symbol] = Obstacle(tuple(dict.fromkeys(unknown)), tuple(lacking))
            return
        plan.factors[symbol] = factors(
            every, of.adjustment, of.as_of, after=after, closes=closes, values=values, convention=of.convention
        )

    def _price(self, names: tuple[str, ...], day: date, *, before: bool) -> Price | NoPrice:
        """Return the close by which a payout is measured, under the first ticker that has it."""
        lacking: list[NoPrice] = []
        for name in names:
            price = self._of.prices.before(name, day) if before else self._of.prices.from_day(name, day)
            if not isinstance(price, NoPrice):
                return price
            lacking.append(price)
        # Of the series itself, if it can have one: another owner may have the ticker of that time today.
        return lacking[0] if lacking else NoPrice(self._series.symbol, day, day)

    def _tenures(self, first: datetime) -> tuple[TickerChange | None, tuple[Tenure, ...]]:
        left = end_of_series(self._of.storage.coverage.read(self._series), self._changes, since=first)
        return left, tenures(self._series.symbol, left, self._changes)

    def _changes(self, symbol: str) -> Iterable[TickerChange]:
        return ticker_changes_of(self._book(symbol).counted)

    def _book(self, symbol: str) -> SymbolActions:
        if symbol not in self._known:
            self._known[symbol] = self._of.actions.read(symbol)
        return self._known[symbol]

    def _actions_of(self, tenure: Tenure) -> list[Action]:
        return tenure.actions(self._book(tenure.symbol).counted)
