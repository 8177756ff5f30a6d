"""Report what the stored corporate actions say of records that cannot be right, of local changes, and of reassigned tickers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date
from itertools import chain

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.suspect_actions import doubtful_splits
from data_engine.corporate_actions.symbol_actions import key
from data_engine.corporate_actions.ticker_changes import TickerChanges, end_of_series
from data_engine.errors import StoreError
from data_engine.market.symbol import ticker_of
from data_engine.market.time_range import iso, new_york_date
from data_engine.market.wording import and_more, dataset_options
from data_engine.verify.findings import Finding
from data_engine.verify.series_check import CheckedSeries

_SHOWN = 3


def action_findings(actions: ActionStore, symbols: Iterable[str], today: date) -> Iterator[Finding]:
    """Yield the findings about the corporate actions of some symbols.

    Args:
        actions: The stored actions; a file that cannot be read is reported elsewhere.
        symbols: The symbols of the checked series.
        today: The current day in New York; later actions are not judged.
    """
    for ticker in sorted({ticker_of(symbol) for symbol in symbols}):
        try:
            known = actions.read(ticker)
        except StoreError:
            continue
        doubts = doubtful_splits(known, today)
        if doubts:
            yield Finding("actions_suspect", and_more(doubts, _SHOWN, separator="; "), key=key(ticker))
        if known.local:
            changes = and_more((change.text(ticker) for change in known.local), _SHOWN, separator="; ")
            yield Finding("actions_local", f"local changes of corporate actions: {changes}", key=key(ticker))


def reassigned(checked: CheckedSeries, changes: TickerChanges) -> Iterator[Finding]:
    """Yield a finding if a series has bars of after its security left the ticker: they are another security's.

    Args:
        checked: The series.
        changes: The ticker changes that have happened.
    """
    known, last = checked.coverage, checked.stored.last
    if known is None or last is None:
        return
    symbol = checked.series.symbol
    left = end_of_series(known, changes.of)
    if left is None or last < left.instant:
        return
    day = new_york_date(left.instant)
    text = f"{left}, and bars up to {iso(last)} are stored: those from {day} on are another security's; "
    refetch = f"data-engine ingest {symbol} --refetch{dataset_options(checked.series.dataset)}"
    remedy = (
        f"run `data-engine remove {symbol} --start {day}`, then `{refetch}`: its own last days may have been answered as empty"
    )
    yield Finding("ticker_reassigned", text + remedy, checked.series)


def all_findings(
    actions: ActionStore, checked: Iterable[CheckedSeries], changes: TickerChanges, today: date
) -> Iterator[Finding]:
    """Yield the findings about the corporate actions of checked series, and about the series that outlast their security."""
    ours = list(checked)
    yield from chain.from_iterable(reassigned(one, changes) for one in ours)
    yield from action_findings(actions, (one.series.symbol for one in ours), today)
