"""Choose the road of a call with adjusted prices, and make the step that adjusts its bars."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from data_engine.corporate_actions.adjusted_bars import COMPUTED, Adjuster, choose_road
from data_engine.corporate_actions.obstacles import Obstacle
from data_engine.market.exchange_calendar import sessions
from data_engine.market.series import Series
from data_engine.market.time_range import new_york_date, new_york_midnight
from data_engine.market.wording import and_more
from data_engine.read.bar_query import BarQuery
from data_engine.read.holdings import Holdings
from data_engine.store.bar_store import BarStore

_NAMED = 3


def adjusted(store: BarStore, query: BarQuery, holdings: Holdings, *, now: datetime) -> tuple[BarQuery, list[str]]:
    """Return the query for the dataset to read, with the step that adjusts it if there is one; and what to warn of.

    Args:
        store: The store of the bars and the corporate actions.
        query: The query as parsed.
        holdings: The coverage of the call.
        now: The current instant, aware.

    Raises:
        InputError: If *as_of* lies in the future, or bars of this dataset or the actions of a symbol cannot be applied.
        StoreError: If actions or closes are not stored; one message names all of them.
    """
    road = choose_road(query.dataset, query.symbols, holdings.is_held, now=now, as_of=query.as_of, prices=query.prices)
    if road.prices != COMPUTED or road.as_of is None:
        return replace(query, prices=road.prices), []
    query = replace(query, dataset=road.dataset, prices=road.prices, as_of=road.as_of)
    adjuster = Adjuster(store, road.dataset, query.adjustment, road.as_of, convention=query.convention, today=new_york_date(now))
    firsts = dict(_firsts(query, holdings))
    last = new_york_date(query.reach.end - timedelta(microseconds=1))
    plan = adjuster.plan(firsts, until=last)
    notes = []
    if plan.obstacles:
        error = Obstacle.error(plan.obstacles, len(query.symbols))
        if query.unadjustable == "raise":
            raise error
        notes.append(f"{_left_out(plan.obstacles, query)}: {error}")
        query = replace(query, symbols=tuple(name for name in query.symbols if name not in plan.obstacles))
    if plan.doubts:
        notes.append(f"records of corporate actions are doubtful: {and_more(dict.fromkeys(plan.doubts), _NAMED, separator='; ')}")
    if plan.later:
        later = and_more(dict.fromkeys(plan.later), _NAMED, separator="; ")
        notes.append(f"bars on two price bases: as_of {road.as_of} is before {later}; pass a later as_of, or end='{road.as_of}'")
    return replace(query, adjust=adjuster.step), notes


def _left_out(names: Iterable[str], query: BarQuery) -> str:
    left = list(names)
    return f"{len(left)} of {len(query.symbols)} symbols left out: {and_more(left, _NAMED)}"


def _firsts(query: BarQuery, holdings: Holdings) -> Iterator[tuple[str, datetime]]:
    """Yield the symbols that have bars in the range, with an instant at or before the first of them."""
    reach = query.reach
    # Bars of a day are not changed by an action of that day: the first session counts, not the days before it.
    day = next(sessions(new_york_date(reach.start), new_york_date(reach.end)), None)
    start = reach.start if day is None else max(reach.start, new_york_midnight(day))
    for symbol in query.symbols:
        series = Series(symbol, query.dataset)
        known = holdings.coverage(series)
        files = holdings.files(series, reach)
        # What a killed writer stored is not counted, and may be earlier than the first bar that is.
        uncounted = [one.start for one in files if one not in known.rows or one in known.uncounted]
        stored = files or any(period.span.intersect(reach) for period in known.rows)
        if stored and (uncounted or known.last_bar is None or known.last_bar >= reach.start):
            yield symbol, max(start, min([known.first_bar or start, *uncounted]))
