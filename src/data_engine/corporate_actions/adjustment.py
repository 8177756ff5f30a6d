"""Raw bars made comparable across corporate actions: `factors`, and `adjust`, which applies them. Pure arithmetic.

A bar before an ex-date (midnight in New York) is changed, a bar from it on is not. Splits and stock dividends of a ratio divide
prices and multiply the volume by it. Money paid out, in cash or as shares of another company, multiplies prices alone, by
``1 - D / P`` with the close P of the last session before (`PREVIOUS_CLOSE`), or by ``1 / (1 + D / C)`` with the close C of the
ex-date itself (`TIINGO`). Counts of trades are never changed, and nothing is rounded (Alpaca rounds to cents).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from data_engine.errors import InputError
from data_engine.market.bars import arrow, numbers, timestamps_us, to_micros
from data_engine.market.corporate_action import Action, CashDividend, SpinOff, Split, StockDividend
from data_engine.market.series import Adjustment, Dataset, Feed
from data_engine.market.time_range import new_york_midnight

PREVIOUS_CLOSE, TIINGO = "previous close", "tiingo"

CONVENTIONS = (PREVIOUS_CLOSE, TIINGO)
"""What the money of an ex-date is compared with: the close before it (the usual one), or that day's own."""

_PRICES = frozenset({"open", "high", "low", "close", "vwap"})

_LONGEST = timedelta(hours=8)  # a longer bar may hold trades of two New York days


@dataclass(frozen=True, slots=True)
class Payout:
    """What an ex-date takes out of a price, per share held after the splits of that day.

    Attributes:
        ex_date: the first day without it.
        cash: US dollars.
        shares: of other companies: symbol and how many of its shares for one.
        ratio: shares on the ex-date for one on the day before: 10 where a 10-for-1 split takes effect on the same day.
    """

    ex_date: date
    cash: float = 0.0
    shares: tuple[tuple[str, float], ...] = ()
    ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Factors:
    """What to do to raw bars of one security.

    Attributes:
        days: ex-dates, ascending.
        shares: per ex-date, how many shares one share of the time before it has become by the last of them.
        cash: per ex-date, what remains of a dollar of price of the time before it, splits left aside.
    """

    days: tuple[date, ...] = ()
    shares: tuple[float, ...] = ()
    cash: tuple[float, ...] = ()


def check_adjustable(dataset: Dataset) -> None:
    """Refuse datasets whose bars cannot be adjusted here.

    Raises:
        InputError: they are adjusted already, or a bar may hold trades from both sides of an ex-date.
    """
    timeframe = dataset.timeframe
    if not dataset.adjustment.is_raw:
        raise InputError(f"{dataset.name} is adjusted already; only raw bars can be adjusted")
    if timeframe.unit in ("Week", "Month") or (timeframe.intraday and timeframe.length > _LONGEST):
        raise InputError(
            f"bars of {timeframe} may hold trades from both sides of an ex-date: adjust days or minutes, and make them of those"
        )
    if dataset.feed is Feed.BOATS:
        raise InputError("the overnight session runs across the midnight at which an ex-date begins: its bars are not adjusted")


def effective(actions: Iterable[Action], adjustment: Adjustment, as_of: date, after: date | None = None) -> tuple[Action, ...]:
    """Return the actions that an adjustment is about, in order of their ex-dates.

    Args:
        actions: of one security.
        adjustment: which of them.
        as_of: none with a later ex-date.
        after: only those with a later ex-date: nothing changes bars from the ex-date on.

    Raises:
        InputError: one of a chosen kind lacks what is needed to apply it.
    """
    chosen = set(adjustment.value.split(","))
    found: dict[tuple[object, ...], Action] = {}
    for action in sorted(actions, key=lambda one: one.order):
        word = _WORDS.get(action.kind)
        if word is None or not chosen & {word, "all"} or action.day > as_of or (after is not None and action.day <= after):
            continue
        if action.flaw is not None:
            raise InputError(f"cannot adjust for {action}: the record that came has {action.flaw}")
        if isinstance(action.event, CashDividend) and action.event.currency != "USD":
            raise InputError(f"cannot adjust for {action}: its value in US dollars is not known")
        if action.event is not None:
            # The same event may be recorded under the ticker of then and under that of now.
            twin = action.record.get("special"), action.record.get("sub_type")
            found.setdefault((action.kind, action.day, action.event, *twin), action)
    return tuple(found.values())


def payouts(chosen: Iterable[Action], actions: Iterable[Action]) -> tuple[Payout, ...]:
    """Return what must be known the value of, by ex-date.

    Args:
        chosen: the `effective` ones.
        actions: all of the security: a split of the same day counts, chosen or not.
    """
    splits = {(action.day, action.event): action for action in actions if isinstance(action.event, (Split, StockDividend))}
    by_day: dict[date, list[Action]] = {}
    for action in chosen:
        by_day.setdefault(action.day, []).append(action)
    made = []
    for day, ones in sorted(by_day.items()):
        events = [one.event for one in ones]
        cash = sum(event.rate for event in events if isinstance(event, CashDividend))
        shares = tuple((event.new_symbol, event.ratio) for event in events if isinstance(event, SpinOff))
        if cash or shares:
            made.append(Payout(day, cash, shares, _ratio(one for one in splits.values() if one.day == day)))
    return tuple(made)


def factors(
    actions: Iterable[Action],
    adjustment: Adjustment,
    as_of: date,
    *,
    after: date | None = None,
    closes: Mapping[date, float] | None = None,
    values: Mapping[tuple[str, date], float] | None = None,
    convention: str = PREVIOUS_CLOSE,
) -> Factors:
    """Return what to do to raw bars.

    Args:
        actions: of one security, all that are known.
        adjustment: which of them are applied: ``split`` (stock dividends, too), ``dividend``, ``spin-off``, a list, ``all``.
        as_of: actions with a later ex-date are not applied.
        after: actions up to this day are of no interest: no bar is earlier.
        closes: by ex-date, the raw regular close that *convention* asks for.
        values: by symbol and ex-date, the price of a share of a company that was spun off.
        convention: of `CONVENTIONS`.

    Raises:
        InputError: a close or value is not known, a payout is worth more than the share, or *convention* does not exist.
    """
    if convention not in CONVENTIONS:
        raise InputError(f"convention {convention!r} does not exist; choose one of {', '.join(CONVENTIONS)}")
    known = tuple(actions)
    chosen = effective(known, adjustment, as_of, after)
    remains = {payout.ex_date: _remains(payout, closes or {}, values or {}, convention) for payout in payouts(chosen, known)}
    days = sorted({action.day for action in chosen})
    shares, cash = [1.0], [1.0]
    for day in reversed(days):
        shares.append(shares[-1] * _ratio([action for action in chosen if action.day == day]))
        cash.append(cash[-1] * remains.get(day, 1.0))
    return Factors(tuple(days), tuple(shares[:0:-1]), tuple(cash[:0:-1]))


def adjust(table: pa.Table, made: Factors) -> pa.Table:
    """Return bars with *made* worked in: the same rows and columns, by `BAR_SCHEMA`.

    Args:
        table: raw bars of one series, sorted, or some columns of them, ``timestamp`` among these.
        made: by `factors`.
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
    """Return one column with some of its rows adjusted: from, to, shares for one, what remains of a dollar."""
    column = table.column(name)
    if name not in _PRICES and name != "volume":
        return column
    raw = numbers(column)
    made = np.empty(len(raw))
    for start, stop, shares, cash in pieces:
        part = made[start:stop]
        if name == "volume":
            np.multiply(raw[start:stop], shares, out=part)
        else:
            # Divided, not multiplied by the inverse: a tenth has no exact inverse, and 1208.8 / 10 has one nearest number.
            np.divide(raw[start:stop], shares, out=part)
            np.multiply(part, cash, out=part)
    made[pieces[-1][1] :] = raw[pieces[-1][1] :]
    return arrow(made, pa.float64())


def _ratio(actions: Iterable[Action]) -> float:
    ratio = 1.0
    for action in actions:
        if isinstance(action.event, (Split, StockDividend)):
            ratio *= action.event.ratio
    return ratio


def _remains(payout: Payout, closes: Mapping[date, float], values: Mapping[tuple[str, date], float], convention: str) -> float:
    """Return what remains of a dollar of price when a payout has gone."""
    day = payout.ex_date
    paid = payout.cash
    for symbol, ratio in payout.shares:
        price = values.get((symbol, day))
        if price is None:
            raise InputError(
                f"cannot adjust for the spin-off of {symbol} on {day}: what a share of {symbol} was worth is not known"
            )
        paid += ratio * price
    close = closes.get(day)
    if close is None:
        which = "before" if convention == PREVIOUS_CLOSE else "of"
        raise InputError(f"cannot adjust for what was paid on {day}: the close {which} that day is not known")
    if convention == TIINGO:
        return 1 / (1 + paid / close)
    before = close / payout.ratio  # the money is for shares as they are after that day's split
    if paid >= before:
        raise InputError(f"cannot adjust for what was paid on {day}: {paid:g} a share, where the close before was {before:g}")
    return 1 - paid / before


_WORDS = {
    "forward_split": "split",
    "reverse_split": "split",
    "unit_split": "split",
    "stock_dividend": "split",
    "cash_dividend": "dividend",
    "capital_gains_distribution": "dividend",
    "spin_off": "spin-off",
}
"""The word of `Adjustment` that each kind goes by."""
