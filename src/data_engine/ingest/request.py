"""Compute the range that a call requests, and what is to be said of it before the first request is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta

from data_engine.errors import InputError
from data_engine.market.dates import DateLike, Span, parse_span
from data_engine.market.series import Dataset, Feed, Series
from data_engine.market.time_range import TimeRange, iso, new_york_midnight
from data_engine.market.wording import and_more
from data_engine.store.coverage_store import CoverageStore


def requested_span(
    coverage: CoverageStore, names: Sequence[str], dataset: Dataset, start: DateLike | None, end: DateLike | None, now: datetime
) -> Span:
    """Return the requested range; without a start, from where the earliest of these series was requested.

    Raises:
        InputError: If a date cannot be used, or there is no start and none of the series is stored.
    """
    if start is None:
        known = [coverage.read(Series(symbol, dataset)) for symbol in names]
        starts = [one.wanted[0].start for one in known if one.wanted]
        if not starts:
            named = and_more(names, 5)
            raise InputError(f"no start: {named} is not stored in {dataset.name}; pass --start (start_date), such as 2024-01-01")
        start = min(starts)
    return parse_span(start, end, now=now)


def ranges_since(names: Iterable[str], span: TimeRange, since: Mapping[str, datetime]) -> dict[str, tuple[TimeRange, ...]]:
    """Return the requested ranges by symbol: the range, without what lies before an instant that is named for the symbol."""
    pieces = ((name, span.after(since[name]) if name in since else span) for name in names)
    return {name: () if piece is None else (piece,) for name, piece in pieces}


def check_currency(currency: str | None) -> None:
    """Raise `InputError` unless a currency is US dollars, or None: the store could not tell bars of others apart."""
    if (currency or "USD").upper() != "USD":
        raise InputError(f"currency {currency!r} cannot be ingested: the store could not tell such bars apart; use fetch_bars")


def check_asof(day: date | None, span: Span) -> None:
    """Raise `InputError` if the last day of a ticker's former owner is before the requested range."""
    if day is not None and span.range.start >= new_york_midnight(day + timedelta(days=1)):
        raise InputError(f"asof {day} is before the start: it is the last day of the tickers' former owners")


def notes_before(span: Span, feed: Feed, now: datetime, delay: timedelta) -> list[str]:
    """Return what is to be said of a range before the run.

    Args:
        span: The requested range.
        feed: The feed as requested.
        now: The current instant.
        delay: The length of the latest data that ``delayed_sip`` leaves out.
    """
    notes = []
    if span.future_end:
        notes.append(f"the end is in the future; bars up to now ({iso(now.replace(microsecond=0))}) were requested")
    if feed is Feed.DELAYED_SIP and span.range.end > now - delay:
        notes.append(f"delayed_sip: the end was truncated to 16 minutes ago ({iso((now - delay).replace(microsecond=0))})")
    return notes
