"""Find the conflicting bars of a call, and say what there is to say of them."""

from __future__ import annotations

from dataclasses import replace

from data_engine.errors import StoreError
from data_engine.market.wording import and_more, plural
from data_engine.read.bar_query import BarQuery
from data_engine.read.holdings import Holdings
from data_engine.store.bar_store import BarStore
from data_engine.store.conflicts import live_conflicts

_NAMED = 3


def with_conflicts(store: BarStore, query: BarQuery, holdings: Holdings) -> tuple[BarQuery, list[str]]:
    """Return a query with the conflicting bars of its range, and what to warn of; files are read only of series that have some.

    Args:
        store: The store of the bars.
        query: The query; its dataset is the one that is read.
        holdings: The coverage of the call.

    Raises:
        StoreError: If there are conflicting bars and the query says to raise, or a file cannot be read.
    """
    counted = [series for series in query.series if holdings.coverage(series).conflicting]
    live = {series.symbol: found for series in counted if (found := live_conflicts(store, series, query.reach))}
    if not live:
        return query, []
    if query.conflicting == "raise":
        raise StoreError(_text(query, {symbol: len(found) for symbol, found in live.items()}))
    made = replace(query, conflicts=live)
    return made, [_text(query, {name: len(found) for name, found in live.items()})] if query.conflicting == "stored" else []


def _text(query: BarQuery, counts: dict[str, int]) -> str:
    bars = sum(counts.values())
    named = and_more([f"{symbol} ({count:,})" for symbol, count in counts.items()], _NAMED)
    names = "".join(f" {symbol}" for symbol in counts) if len(counts) <= _NAMED else ""
    return (
        f"{plural(bars, 'stored bar')} in {query.dataset.name} {'differs' if bars == 1 else 'differ'} from Alpaca, which has "
        f"revised or dropped {'it' if bars == 1 else 'them'} since: {named}; pass conflicting='vendor' for Alpaca's values, "
        f"or run `data-engine recheck{names} --accept`"
    )
