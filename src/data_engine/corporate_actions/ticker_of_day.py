"""Find the ticker under which an action of a day counts for a security: the one that the security had on that day."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.ticker_changes import Tenure, TickerChanges, end_of_series, tenures, ticker_change_of
from data_engine.errors import DamagedFile
from data_engine.market.symbol import ticker_of
from data_engine.market.time_range import new_york_midnight
from data_engine.store.bar_store import BarStore
from data_engine.store.selection import DatasetFilter, select_series


def ticker_of_day(storage: BarStore, symbol: str, day: date) -> str:
    """Return the ticker that the security of a symbol had on a day; that of the symbol if none is known that differs.

    Stored series tell which security is meant: a ticker may have had several. If any of them had the ticker of the symbol on that
    day, it is that. Without stored series, it is the security that has the ticker today, or that of ``S@DATE``.

    Args:
        storage: The store of the bars and the corporate actions.
        symbol: The symbol.
        day: The day.
    """
    changes = ActionStore(storage.files).ticker_changes()
    ticker = ticker_of(symbol)
    stored = list(_stored_tenures(storage, _related(ticker, changes), changes))
    of_symbol = tenures(symbol, ticker_change_of(symbol, changes.of, since=new_york_midnight(day)), changes.of)
    if any(tenure.symbol == ticker and tenure.has(day) for owned in stored for tenure in owned):
        return ticker
    # If another security is named than those that are stored, it is the one that counts.
    named = (
        [of_symbol] if symbol != ticker or not stored else [owned for owned in stored if ticker in {one.symbol for one in owned}]
    )
    found = [tenure.symbol for owned in named for tenure in owned if tenure.has(day)]
    return ticker if ticker in found else next(iter(found), ticker)


def _stored_tenures(storage: BarStore, tickers: set[str], changes: TickerChanges) -> Iterator[Sequence[Tenure]]:
    """Yield the tickers that the security of each stored series of some tickers has had; `verify` reports damaged coverage."""
    for series in select_series(storage.coverage, DatasetFilter(), None):
        if ticker_of(series.symbol) not in tickers:
            continue
        with suppress(DamagedFile):
            known = storage.coverage.read(series)
            yield tenures(series.symbol, end_of_series(known, changes.of), changes.of)


def _related(ticker: str, changes: TickerChanges) -> set[str]:
    """Return the tickers that changes lead to from a ticker, itself included."""
    found, left = {ticker}, [ticker]
    while left:
        name = left.pop()
        new = {one for change in changes.of(name) for one in (change.old, change.new) if one} - found
        found |= new
        left += new
    return found
