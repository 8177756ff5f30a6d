"""Fetch the corporate actions of what a run touches, before it is planned: they tell where the series of a ticker end.

They are fetched once a day at most, and again if they do not reach back to the start of a series. Those of a ticker whose
security ceased to exist are fetched once a week: Alpaca may withdraw the end. A failure is a note: bars are fetched without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.ticker_changes import AS_OF, TickerChanges, end_of_series
from data_engine.errors import ConfigError, CredentialsRefused, DataEngineError, Interrupted, InvalidSymbol, StoreBusy, StoreError
from data_engine.market.series import Dataset, Series
from data_engine.market.symbol import asof_day, ticker_of
from data_engine.market.time_range import TimeRange, new_york_date, new_york_days
from data_engine.market.wording import and_more, plural
from data_engine.store.coverage import Coverage

if TYPE_CHECKING:
    from data_engine.alpaca.client import AlpacaClient
    from data_engine.universe.delisted import Delisted

_SHOWN = 5

_WEEK = timedelta(days=7)

Targets = Mapping[Dataset, Mapping[str, tuple[TimeRange, ...]]]


@dataclass(frozen=True, slots=True)
class ActionsBefore:
    """What the request for corporate actions before a run has told.

    Attributes:
        notes: What could not be fetched, and why.
        refused: The refusal of the keys, with which the run ends before a request for bars. If None, they were not refused.
    """

    notes: list[str] = field(default_factory=list)
    refused: CredentialsRefused | None = None


def refresh_actions(
    store: ActionStore,
    client: Callable[[], AlpacaClient],
    targets: Targets,
    now: datetime,
    note: Callable[[str], None],
    known: Callable[[Series], Coverage] | None = None,
    delisted: Delisted | None = None,
) -> ActionsBefore:
    """Fetch the corporate actions of the symbols of a run that were not fetched on this day; return what failed.

    With *known*, those of tickers whose stored series have all ended are fetched if they were not in the last seven days.

    Args:
        store: The store of the actions; the caller has its lock.
        client: A function that returns the client of Alpaca.
        targets: The requested ranges of the run, by dataset and symbol.
        now: The current instant.
        note: A function that is told what does not belong in the report.
        known: A function that returns the coverage of a series. If None, all are fetched daily.
        delisted: Tells which series with coverage are of delisted securities. If None, none are.

    Raises:
        Interrupted: If Ctrl-C was pressed.
        StoreError: If the lock of the store is lost.
    """
    from data_engine.corporate_actions.fetch_actions import fetch_actions

    try:
        wanted = {ticker: span for ticker, span in _days_of(targets, now).items() if not _is_fresh(store, ticker, span, now)}
        if wanted and known is not None:
            wanted = _without_ended(store, wanted, targets, known, delisted, now)
        if not wanted:
            return ActionsBefore()
        report = fetch_actions(store, client().begin(), wanted, now=now)
    except (Interrupted, KeyboardInterrupt):
        raise Interrupted("interrupted while corporate actions were fetched; no bars were fetched") from None
    except CredentialsRefused as error:
        return ActionsBefore(refused=error)
    except ConfigError:  # only with Dask, whose workers have the credentials
        note("Corporate actions are not fetched: this process has no credentials; run `data-engine actions`")
        return ActionsBefore()
    except DataEngineError as error:
        if error.exit_code == StoreBusy.exit_code:
            raise  # the lock is lost: nothing more may be written
        return ActionsBefore([_note("corporate actions could not be fetched", str(error))])
    failed = {symbol: why for symbol, code, why in report.failed if code != InvalidSymbol.code}  # its bars say the same
    if not failed:
        return ActionsBefore()
    named = f"corporate actions of {plural(len(failed), 'symbol')} could not be fetched ({and_more(failed, _SHOWN)})"
    return ActionsBefore([_note(named, next(iter(failed.values())))])


def _note(what: str, why: str) -> str:
    return f"{what}: {why}; bars were fetched without, and ends of tickers may be unknown; run `data-engine actions`"


def _days_of(targets: Targets, now: datetime) -> dict[str, TimeRange]:
    """Return the days whose actions a run has to know, by ticker: from the first that is requested to the present."""
    firsts: dict[str, date] = {}
    today = new_york_date(now)
    for ranges in targets.values():
        for symbol, spans in ranges.items():
            days = [new_york_date(span.start) for span in spans]
            if (asof := asof_day(symbol)) is not None:
                days.append(asof)
            if spans:
                ticker = ticker_of(symbol)
                firsts[ticker] = min([*days, today, firsts.get(ticker, today)])
    return {ticker: new_york_days(first, today) for ticker, first in firsts.items()}


def _is_fresh(store: ActionStore, ticker: str, days: TimeRange, now: datetime) -> bool:
    """Return whether the actions of some days were fetched on the day of *now*; what cannot be read is not fetched, either."""
    try:
        known = store.known_days(ticker)
    except StoreError:
        return True  # the run reports it
    if known.fetched is None or known.missing(days):
        return False
    return new_york_date(known.fetched) == new_york_date(now)


def _without_ended(
    store: ActionStore,
    wanted: Mapping[str, TimeRange],
    targets: Targets,
    known: Callable[[Series], Coverage],
    delisted: Delisted | None,
    now: datetime,
) -> dict[str, TimeRange]:
    """Return the days to fetch without those of tickers that have ended and were fetched within a week."""
    changes = store.ticker_changes().until(now)
    left = set(wanted) & {symbol for symbol, made in changes.by_symbol.items() if any(one.new is None for one in made)}
    left |= set(wanted) & (frozenset() if delisted is None else delisted.tickers)
    ended = {ticker for ticker in left if _fetched_lately(store, ticker, wanted[ticker], now)}
    for dataset, ranges in targets.items() if ended else ():
        for symbol in ranges:
            series = Series(symbol, dataset)
            if ticker_of(symbol) in ended and not _has_ceased(known(series), ranges[symbol], changes, delisted):
                ended.discard(ticker_of(symbol))
    return {ticker: span for ticker, span in wanted.items() if ticker not in ended}


def _fetched_lately(store: ActionStore, ticker: str, days: TimeRange, now: datetime) -> bool:
    """Return whether actions were fetched within a week, and from the first of some days on."""
    fetched = store.known_days(ticker)
    if fetched.fetched is None or now - fetched.fetched >= _WEEK:
        return False
    until = new_york_days(new_york_date(days.start), new_york_date(fetched.fetched))
    return not fetched.missing(until)


def _has_ceased(known: Coverage, requested: tuple[TimeRange, ...], changes: TickerChanges, delisted: Delisted | None) -> bool:
    """Return whether the security of a stored series ceased to exist; one that was renamed has actions under its next ticker."""
    if not requested:
        return False
    if delisted is not None and delisted.change_of(known) is not None:
        return True
    left = end_of_series(known, changes.of, since=requested[0].start)
    return left is not None and left.new is None and left.kind != AS_OF and bool(known.bars)
