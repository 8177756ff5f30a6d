"""Adjust raw bars for corporate actions: `factors` computes what to multiply by, and `adjust` applies it.

A bar before an ex-date (midnight in New York) is changed, a bar from it on is not. Splits and stock dividends of a ratio divide
prices and multiply the volume by it. A payout, in cash or as shares of another company, multiplies only prices, by
``1 - D / P`` with the close P of the last session before (`PRIOR_CLOSE`), or by ``1 / (1 + D / C)`` with the close C of the
ex-date itself (`EX_CLOSE`). Counts of trades are never changed, and nothing is rounded (Alpaca rounds to cents).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from operator import attrgetter

import numpy as np
import pyarrow as pa

from data_engine.corporate_actions.ex_dates import may_be_within
from data_engine.errors import InputError
from data_engine.market.bars import arrow, numbers, timestamps_us, to_micros
from data_engine.market.corporate_action import Action, CashDividend, Event, SpinOff, Split, StockDividend
from data_engine.market.series import Adjustment, Dataset, Feed
from data_engine.market.time_range import new_york_midnight

PRIOR_CLOSE, EX_CLOSE = "prior_close", "ex_close"

CONVENTIONS = {PRIOR_CLOSE: PRIOR_CLOSE, EX_CLOSE: EX_CLOSE, "previous close": PRIOR_CLOSE, "tiingo": EX_CLOSE}
"""The names of the conventions, and what they stand for.

A payout is compared with the close of the session before the ex-date (the usual convention), or with that of the ex-date.
"""

_PRICES = frozenset({"open", "high", "low", "close", "vwap"})

_DAY = attrgetter("day")

_SHARES = (Split, StockDividend)

_SAME_RATIO = 1e-6  # relative: 10-for-1 and 20-for-2 are one ratio, and so is what was rounded on the way

_SAME_RATE = 5e-4

_LONGEST = timedelta(hours=8)  # a longer bar may contain trades of two New York days


@dataclass(frozen=True, slots=True)
class Payout:
    """The amount that a price loses on an ex-date, per share as shares are on it, after the splits of that day.

    Attributes:
        ex_date: The first day without the payout.
        cash: The cash per share, in US dollars.
        shares: The shares of other companies: pairs of a symbol and the number of its shares per share.
    """

    ex_date: date
    cash: float = 0.0
    shares: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Factors:
    """The factors for raw bars of one security.

    Attributes:
        days: The ex-dates, ascending.
        shares: For each ex-date, the number of shares that one share of the time before it has become by the last ex-date.
        cash: For each ex-date, the part that remains of a price of the time before it, splits left aside.
    """

    days: tuple[date, ...] = ()
    shares: tuple[float, ...] = ()
    cash: tuple[float, ...] = ()


def check_adjustable(dataset: Dataset) -> None:
    """Raise if the bars of a dataset cannot be adjusted.

    Raises:
        InputError: If they are adjusted already, or a bar may contain trades from both sides of an ex-date.
    """
    timeframe = dataset.timeframe
    if not dataset.adjustment.is_raw:
        raise InputError(f"cannot adjust {dataset.name}: its bars are adjusted already; use raw bars")
    if timeframe.unit in ("Week", "Month") or (timeframe.intraday and timeframe.length > _LONGEST):
        raise InputError(
            f"cannot adjust {timeframe} bars: one may contain trades from both sides of an ex-date; use shorter bars"
        )
    if dataset.feed is Feed.BOATS:
        raise InputError("cannot adjust bars of feed 'boats': its sessions span midnight, when an ex-date begins")


def effective(actions: Iterable[Action], adjustment: Adjustment, as_of: date, after: date | None = None) -> tuple[Action, ...]:
    """Return the actions that an adjustment applies, in order of their ex-dates.

    Args:
        actions: The actions of one security.
        adjustment: The kinds to apply.
        as_of: The last ex-date to apply.
        after: The day after which ex-dates count: an action does not change bars from its ex-date on. If None, all count.

    Raises:
        InputError: If an action of these kinds lacks a value that it takes to apply it. One that lacks its ex-date is an action
            of these days if it may be.
    """
    found: list[Action] = []
    for action in sorted(actions, key=lambda one: one.order):
        if not is_chosen(action, adjustment) or not may_be_within(action, after, as_of):
            continue
        _check_record(action)
        if isinstance(action.event, CashDividend) and action.event.currency != "USD":
            raise InputError(f"{action}: its value in US dollars is unknown; {_correct(action)}")
        if action.event is not None and not any(_is_twin(action, other) for other in found):
            found.append(action)
    for _, ones in groupby(found, key=_DAY):
        _check_splits(tuple(ones))
    return tuple(found)


def is_chosen(action: Action, adjustment: Adjustment) -> bool:
    """Return whether an action is of a kind that an adjustment applies."""
    word = WORDS.get(action.kind)
    return word is not None and (adjustment.value == "all" or word in adjustment.value.split(","))


def _is_twin(action: Action, other: Action) -> bool:
    """Return whether two records are of one event: it may be recorded under the earlier ticker and under the present one, too."""
    if action.day != other.day:
        return False
    mine, theirs = action.event, other.event
    if isinstance(mine, _SHARES) and isinstance(theirs, _SHARES):
        return math.isclose(mine.ratio, theirs.ratio, rel_tol=_SAME_RATIO)
    if isinstance(mine, CashDividend) and isinstance(theirs, CashDividend):
        # Two dividends of a day are told apart by these words; the same one may have been rounded.
        words = ("special", "sub_type")
        same = action.kind == other.kind and all(action.record.get(name) == other.record.get(name) for name in words)
        return same and math.isclose(mine.rate, theirs.rate, rel_tol=_SAME_RATE)
    if isinstance(mine, SpinOff) and isinstance(theirs, SpinOff):
        return mine.new_symbol == theirs.new_symbol and math.isclose(mine.ratio, theirs.ratio, rel_tol=_SAME_RATIO)
    return mine == theirs


def _check_splits(ones: Sequence[Action]) -> None:
    """Raise if actions of one day and security have different splits."""
    splits = [one for one in ones if isinstance(one.event, Split)]
    if len(splits) > 1:
        raise InputError(f"{splits[0].symbol}: {' and '.join(map(str, splits))} cannot both be; {_correct(splits[0])}")


def _check_record(action: Action) -> None:
    """Raise if the record of an action lacks a value that it takes to apply it."""
    if action.flaw is None:
        return
    if action.ex_date is not None:
        raise InputError(f"{action}: its record has {action.flaw}; {_correct(action)}")
    symbol, word = action.symbol, WORDS.get(action.kind)
    raise InputError(
        f"{symbol}: {action.kind.replace('_', ' ')} of an unknown ex-date: its record has {action.flaw}; run "
        f"`data-engine actions drop {symbol} --ex-date {action.day} --kind {word}` ({action.day} is its process date, by which "
        f"it is stored), then `data-engine actions set {symbol} --ex-date YYYY-MM-DD` with its ex-date"
    )


def _correct(action: Action) -> str:
    return f"run `data-engine actions set {action.symbol} --ex-date {action.day}` or `actions drop` to correct it"


def share_ratio(actions: Iterable[Action], after: date, until: date) -> float:
    """Return the shares that one share of a day has become by a later day.

    Args:
        actions: All known actions of the security: splits and stock dividends count, whether or not an adjustment applies them.
        after: The day.
        until: The later day, whose own splits count.

    Raises:
        InputError: If different splits are recorded for one day, or a split that may be between lacks a value.
    """
    splits: list[Action] = []
    for action in actions:
        if WORDS.get(action.kind) != "split" or not may_be_within(action, after, until):
            continue
        _check_record(action)
        if isinstance(action.event, _SHARES) and not any(_is_twin(action, other) for other in splits):
            splits.append(action)
    for _, ones in groupby(sorted(splits, key=_DAY), key=_DAY):
        _check_splits(tuple(ones))
    return _ratio(one.event for one in splits)


def payouts(chosen: Iterable[Action]) -> tuple[Payout, ...]:
    """Return the payouts of `effective` actions, whose value must be known, in order of their ex-dates."""
    made = []
    for day, ones in groupby(sorted(chosen, key=_DAY), key=_DAY):
        events = [one.event for one in ones]
        cash = sum(event.rate for event in events if isinstance(event, CashDividend))
        shares = tuple((event.new_symbol, event.ratio) for event in events if isinstance(event, SpinOff))
        if cash or shares:
            made.append(Payout(day, cash, shares))
    return tuple(made)


def factors(
    actions: Iterable[Action],
    adjustment: Adjustment,
    as_of: date,
    *,
    after: date | None = None,
    closes: Mapping[date, float] | None = None,
    values: Mapping[tuple[str, date], float] | None = None,
    convention: str = PRIOR_CLOSE,
) -> Factors:
    """Return the factors for raw bars of a security.

    Args:
        actions: All known actions of the security.
        adjustment: The kinds to apply: ``split`` (stock dividends, too), ``dividend``, ``spin-off``, a list of these, or ``all``.
        as_of: The last ex-date to apply.
        after: The day of the first bar: actions up to it are ignored. If None, all are applied.
        closes: The regular closes that *convention* needs, by ex-date, per share as shares are on it (`Price.per_share`).
        values: The prices of shares of spun-off companies, by symbol and ex-date, per share as theirs are on it.
        convention: One of the names in `CONVENTIONS`.

    Raises:
        InputError: If a close or price is unknown, a payout exceeds the close, or *convention* does not exist.
    """
    if convention not in CONVENTIONS:
        raise InputError(f"convention {convention!r} does not exist; choose one of {', '.join(CONVENTIONS)}")
    convention = CONVENTIONS[convention]
    chosen = effective(actions, adjustment, as_of, after)
    remains = {payout.ex_date: _remains(payout, closes or {}, values or {}, convention) for payout in payouts(chosen)}
    days = sorted({action.day for action in chosen})
    shares, cash = [1.0], [1.0]
    for day in reversed(days):
        shares.append(shares[-1] * _ratio(action.event for action in chosen if action.day == day))
        cash.append(cash[-1] * remains.get(day, 1.0))
    return Factors(tuple(days), tuple(shares[:0:-1]), tuple(cash[:0:-1]))


def adjust(table: pa.Table, made: Factors) -> pa.Table:
    """Return adjusted bars: the same rows and columns, by `BAR_SCHEMA`.

    Args:
        table: The sorted raw bars of one series, or some of their columns, ``timestamp`` included.
        made: The factors to apply.
    """
    times = timestamps_us(table)
    bounds = [int(at) for at in np.searchsorted(times, [to_micros(new_york_midnight(day)) for day in made.days])]
    pieces = [
        (start, stop, shares, cash)
        for start, stop, shares, cash in zip([0, *bounds], bounds, made.shares, made.cash, strict=False)
        if start < stop
    ]
    if not pieces:
        return table
    columns = [_column(table, name, pieces) for name in table.column_names]
    return pa.Table.from_arrays(columns, schema=table.schema)


def _column(table: pa.Table, name: str, pieces: Sequence[tuple[int, int, float, float]]) -> pa.Array | pa.ChunkedArray:
    """Return one column with some of its rows adjusted; pieces are (start, stop, shares, cash)."""
    column = table.column(name)
    if name not in _PRICES and name != "volume":
        return column
    raw = numbers(column)
    adjusted = np.empty(len(raw))
    for start, stop, shares, cash in pieces:
        part = adjusted[start:stop]
        if name == "volume":
            np.multiply(raw[start:stop], shares, out=part)
        else:
            # Divided, not multiplied by the inverse: a tenth has no exact inverse, and 1208.8 / 10 has one nearest number.
            np.divide(raw[start:stop], shares, out=part)
            np.multiply(part, cash, out=part)
    adjusted[pieces[-1][1] :] = raw[pieces[-1][1] :]
    return arrow(adjusted, pa.float64())


def _ratio(events: Iterable[Event | None]) -> float:
    return math.prod((event.ratio for event in events if isinstance(event, _SHARES)), start=1.0)


def _remains(payout: Payout, closes: Mapping[date, float], values: Mapping[tuple[str, date], float], convention: str) -> float:
    """Return the part of a price that remains after a payout."""
    day = payout.ex_date
    paid = payout.cash
    for symbol, ratio in payout.shares:
        price = values.get((symbol, day))
        if price is None:
            raise InputError(f"spin-off of {symbol} on {day}: the price of a share of {symbol} is unknown")
        paid += ratio * price
    close = closes.get(day)
    if close is None:
        which = "before" if convention == PRIOR_CLOSE else "of"
        raise InputError(f"payout of {day}: the close {which} that day is unknown")
    if convention == EX_CLOSE:
        return 1 / (1 + paid / close)
    if paid >= close:
        raise InputError(f"payout of {day}: {paid:g} per share exceeds the close before, {close:g}")
    return 1 - paid / close


WORDS = {
    "forward_split": "split",
    "reverse_split": "split",
    "unit_split": "split",
    "stock_dividend": "split",
    "cash_dividend": "dividend",
    "capital_gains_distribution": "dividend",
    "spin_off": "spin-off",
}
"""The word in `Adjustment` for each kind of action."""
