"""Adjust stored raw bars as they are read, by stored corporate actions and closes.

``load(adjustment="split", as_of=D)`` always adjusts raw bars at read, with the actions whose ex-dates are not after D. Without
``as_of``, a dataset that Alpaca has adjusted (``equities_1min_split``) is read if the store has it; else raw bars are adjusted
as of today. Bars after D stay raw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.adjustment import (
    PREVIOUS_CLOSE,
    TIINGO,
    Factors,
    adjust,
    check_adjustable,
    effective,
    factors,
    payouts,
)
from data_engine.corporate_actions.symbol_actions import SymbolActions, days
from data_engine.corporate_actions.ticker_changes import Tenure, TickerChange, renames_of, tenures, ticker_change_of
from data_engine.errors import InputError, StoreError
from data_engine.market.bars import from_micros, numbers, timestamps_us, within
from data_engine.market.corporate_action import Action
from data_engine.market.exchange_calendar import regular_hours, sessions
from data_engine.market.series import RAW, Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange, missing, new_york_date, new_york_days, new_york_midnight
from data_engine.store.bar_store import BarStore

Step = Callable[[str, pa.Table], pa.Table]
"""A function from a symbol and some of its raw bars to the adjusted bars."""

_DAY = timedelta(days=1)

_BACK = timedelta(days=14)  # the last trade before an ex-date must be this recent: an illiquid stock may not trade for days


def dataset_to_read(
    storage: BarStore, dataset: Dataset, as_of: date | None = None, *, now: datetime, convention: str = PREVIOUS_CLOSE
) -> tuple[Dataset, Step | None]:
    """Return the dataset to read for a requested one, and the step that adjusts its tables, if any.

    Args:
        storage: The store of the bars.
        dataset: The requested dataset, its adjustment included.
        as_of: The last ex-date to apply. If None, Alpaca's adjusted bars if the store has or was asked for any, else today in New
            York.
        now: The current instant, aware.
        convention: One of `adjustment.CONVENTIONS`.

    Raises:
        InputError: If *as_of* lies in the future, or bars of this dataset cannot be adjusted.
    """
    today = new_york_date(now.astimezone(UTC))
    if as_of is not None and as_of > today:
        raise InputError(f"as_of {as_of} lies in the future (today is {today})")
    if dataset.adjustment.is_raw:
        return dataset, None
    # Bars that were requested and are not stored count as missing; they are not computed from other bars instead.
    if as_of is None and (storage.symbols(dataset) or next(storage.coverage.series(dataset), None)):
        return dataset, None
    raw = replace(dataset, adjustment=RAW)
    return raw, adjusting_step(storage, raw, dataset.adjustment, as_of or today, convention=convention)


def adjusting_step(
    storage: BarStore, raw: Dataset, adjustment: Adjustment, as_of: date, *, convention: str = PREVIOUS_CLOSE
) -> Step:
    """Return the step that adjusts raw bars; several threads may call it, and several times for one symbol.

    Each call needs the corporate actions between its first bar and *as_of*, and for dividends and spin-offs the closes before
    (or, by `TIINGO`, of) their ex-dates: from the store's raw daily bars of the same feed or of the consolidated tape, else from
    the last minute bar of the regular session.

    Raises:
        InputError: If bars of this dataset cannot be adjusted. From the step: if an action lacks a value.
        StoreError: From the step: if actions or a close are not stored; the message names the command that fetches them.
    """
    check_adjustable(raw)
    actions = ActionStore(storage.files)
    known: dict[str, _Security] = {}

    def step(symbol: str, table: pa.Table) -> pa.Table:
        if not table.num_rows:
            return table
        if symbol not in known:
            known[symbol] = _Security(storage, actions, Series(symbol, raw), as_of, convention)
        return adjust(table, known[symbol].factors(adjustment, from_micros(int(timestamps_us(table)[0]))))

    return step


class _Security:
    """The security of one series: its tickers, its actions, and the closes that payouts are compared with."""

    def __init__(self, storage: BarStore, actions: ActionStore, series: Series, as_of: date, convention: str) -> None:
        self._storage = storage
        self._actions = actions
        self._series = series
        self._as_of = as_of
        self._convention = convention
        self._actions_of: dict[str, SymbolActions] = {}
        self._prices: dict[tuple[str, date, bool], float | None] = {}

    def factors(self, adjustment: Adjustment, first: datetime) -> Factors:
        """Return the factors for bars of which the earliest starts at *first*."""
        after = new_york_date(first)
        left, known_tenures = self._tenures(first)
        self._check_covered(known_tenures, after)
        found = [(action, tenure) for tenure in known_tenures for action in self._of(tenure)]
        every = [action for action, _ in found]
        chosen = effective(every, adjustment, self._as_of, after)
        before = self._convention != TIINGO
        closes: dict[date, float] = {}
        values: dict[tuple[str, date], float] = {}
        for payout in payouts(chosen, every):
            day = payout.ex_date
            names = [self._series.symbol] if left is None or day <= left.day else []
            names += [tenure.symbol for action, tenure in found if action.day == day]
            closes[day] = self._price(tuple(dict.fromkeys(names)), day, before=before)
            for symbol, _ in payout.shares:
                values[symbol, day] = self._price((symbol,), day, before=False)
        return factors(every, adjustment, self._as_of, after=after, closes=closes, values=values, convention=self._convention)

    def _tenures(self, first: datetime) -> tuple[TickerChange | None, tuple[Tenure, ...]]:
        symbol = self._series.symbol
        begun = self._storage.coverage.read(self._series).begun
        left = ticker_change_of(symbol, self._renames(symbol), since=first, begun=begun)
        return left, tenures(symbol, left, self._renames)

    def _renames(self, symbol: str) -> Iterable[TickerChange]:
        return renames_of(self._known(symbol).actions)

    def _known(self, symbol: str) -> SymbolActions:
        if symbol not in self._actions_of:
            self._actions_of[symbol] = self._actions.read(symbol)
        return self._actions_of[symbol]

    def _of(self, tenure: Tenure) -> list[Action]:
        return [
            action
            for action in self._known(tenure.symbol).actions
            if action.symbol == tenure.symbol
            and (tenure.first is None or action.day >= tenure.first)
            and (tenure.after is None or action.day <= tenure.after)
        ]

    def _check_covered(self, known_tenures: Iterable[Tenure], after: date) -> None:
        """Raise if a session after *after* may be the ex-date of an action that was never requested."""
        for tenure in known_tenures:
            first = max(after + _DAY, tenure.first or date.min)
            last = min(self._as_of, tenure.after or date.max)
            if first > last:
                continue
            unknown = [
                days(span) for span in self._known(tenure.symbol).missing(new_york_days(first, last)) if _has_session(span)
            ]
            if unknown:
                raise StoreError(
                    f"cannot adjust {tenure.symbol}: no corporate actions for {unknown[0][0]} to {unknown[-1][1]}; "
                    f"run `data-engine actions {tenure.symbol} --start {unknown[0][0]}`"
                )

    def _price(self, names: tuple[str, ...], day: date, *, before: bool) -> float:
        """Return the regular close of the last session before *day*, or of that day.

        Raises:
            StoreError: If it is not stored.
        """
        for name in names:
            if (name, day, before) not in self._prices:
                self._prices[name, day, before] = self._find_price(name, day, before=before)
            price = self._prices[name, day, before]
            if price is not None:
                return price
        wanted = list(sessions(day - _BACK, day - _DAY))[-1] if before else day
        raise StoreError(
            f"cannot adjust {self._series.symbol} for the payout of {day}: the close of {names[-1]} on {wanted} is not stored; "
            f"run `data-engine ingest {names[-1]} --start {wanted} --end {wanted} --timeframe 1Day`"
        )

    def _find_price(self, name: str, day: date, *, before: bool) -> float | None:
        span = new_york_days(day - _BACK, day - _DAY) if before else new_york_days(day, day)
        for feed in dict.fromkeys((self._series.dataset.feed, Feed.SIP)):
            for timeframe in (Timeframe(1, "Day"), Timeframe(1, "Min")):
                series = Series(name, Dataset(timeframe, RAW, feed))
                found = _last_close(self._storage, series, span)
                if found is not None and self._is_last(series, found[0], span):
                    return found[1]
        return None

    def _is_last(self, series: Series, day: date, span: TimeRange) -> bool:
        """Return whether *day* is the last session of *span*, or the later ones are known to have no bar."""
        rest = span.after(new_york_midnight(day + _DAY))
        if rest is None or not _has_session(rest):
            return True
        return not any(map(_has_session, missing(rest, self._storage.coverage.read(series).covered)))


def _has_session(span: TimeRange) -> bool:
    return any(sessions(*days(span)))


def _last_close(storage: BarStore, series: Series, span: TimeRange) -> tuple[date, float] | None:
    """Return the day and the close of the last regular session inside *span* that has a bar."""
    for period in reversed(list(storage.periods(series, span))):
        table = storage.read(series, period, ["timestamp", "close"], within=span)
        if not series.dataset.timeframe.intraday:
            if table.num_rows:
                return new_york_date(from_micros(int(timestamps_us(table)[-1]))), float(numbers(table.column("close"))[-1])
            continue
        for day in reversed(list(sessions(*days(span)))):
            bars = within(table, regular_hours(day))
            if bars.num_rows:
                return day, float(numbers(bars.column("close"))[-1])
    return None
