"""Say what is in the way of adjusting symbols: one error for all of them, with the command that removes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from data_engine.corporate_actions.payout_prices import NoPrice
from data_engine.corporate_actions.symbol_actions import SymbolActions, days
from data_engine.corporate_actions.ticker_changes import Tenure
from data_engine.errors import InputError, StoreError
from data_engine.market.exchange_calendar import sessions
from data_engine.market.time_range import new_york_days
from data_engine.market.wording import and_more

_DAY = timedelta(days=1)

_NAMED = 3


@dataclass(frozen=True, slots=True)
class UnknownActions:
    """Days whose corporate actions were never requested.

    Attributes:
        symbol: The ticker.
        first: The first day.
        last: The last day.
    """

    symbol: str
    first: date
    last: date

    def __str__(self) -> str:
        return f"{self.symbol} for {self.first} to {self.last}"


def unknown_actions(known: SymbolActions, first: date, last: date) -> UnknownActions | None:
    """Return the days of a range, both ends included, that may be ex-dates of actions that were never requested.

    Args:
        known: The stored actions of the ticker.
        first: The first day.
        last: The last day; if it is before *first*, there is none.
    """
    if first > last:
        return None
    unknown = [days(span) for span in known.missing(new_york_days(first, last)) if any(sessions(*days(span)))]
    return UnknownActions(known.symbol, unknown[0][0], unknown[-1][1]) if unknown else None


def unknown_in(
    owned: Iterable[Tenure], book: Callable[[str], SymbolActions], after: date, until: date
) -> Iterator[UnknownActions]:
    """Yield the days after *after*, up to *until*, that may be ex-dates of actions of a security that were never requested.

    Args:
        owned: The tickers that the security has had.
        book: A function that returns the stored actions of a ticker.
        after: The day before the first day.
        until: The last day.
    """
    for tenure in owned:
        first = max(after + _DAY, tenure.first or date.min)
        last = min(until, tenure.after or date.max)
        if (unknown := unknown_actions(book(tenure.symbol), first, last)) is not None:
            yield unknown


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why one symbol cannot be adjusted. Some of the attributes have a value.

    Attributes:
        actions: The days whose corporate actions are unknown.
        prices: The prices that are not stored.
        reason: An action that cannot be applied, or a file that cannot be read, as text.
        damaged: Whether the reason is a file.
    """

    actions: tuple[UnknownActions, ...] = ()
    prices: tuple[NoPrice, ...] = ()
    reason: str | None = None
    damaged: bool = False

    @staticmethod
    def error(obstacles: Mapping[str, Obstacle], symbols: int) -> StoreError | InputError:
        """Return the error that names all obstacles of a call.

        Args:
            obstacles: The obstacles by symbol, at least one.
            symbols: The number of symbols of the call.
        """
        names = list(obstacles)
        who = and_more(names, _NAMED) if symbols == len(names) or len(names) <= _NAMED else f"{len(names)} of {symbols} symbols"
        parts = [*_actions(obstacles), *_prices(obstacles), *_reasons(obstacles)]
        lacking = any(one.actions or one.prices or one.damaged for one in obstacles.values())
        dropping = "" if symbols == 1 else "; pass unadjustable='drop' to leave out what cannot be adjusted"
        text = f"cannot adjust {who}: {'; '.join(parts)}{dropping}"
        return StoreError(text) if lacking else InputError(text)


def _actions(obstacles: Mapping[str, Obstacle]) -> list[str]:
    unknown = sorted({one for obstacle in obstacles.values() for one in obstacle.actions}, key=lambda one: one.symbol)
    if not unknown:
        return []
    names = " ".join(dict.fromkeys(one.symbol for one in unknown))
    first = min(one.first for one in unknown)
    shown = and_more(unknown, _NAMED)
    return [f"no corporate actions of {shown}; run `data-engine actions {names} --start {first}`"]


def _prices(obstacles: Mapping[str, Obstacle]) -> list[str]:
    lacking = sorted({one for obstacle in obstacles.values() for one in obstacle.prices}, key=lambda one: (one.first, one.symbol))
    parts = []
    if never := [one for one in lacking if one.never]:
        parts.append(
            f"no trade within two weeks of the ex-date gives the close of {and_more(never, _NAMED)}; "
            "run `data-engine actions drop` or `data-engine actions set` for that day"
        )
    if some := [one for one in lacking if not one.never]:
        names = " ".join(dict.fromkeys(one.symbol for one in some))
        first, last = min(one.first for one in some), max(one.last for one in some)
        parts.append(
            f"the close of {and_more(some, _NAMED)} is not stored; "
            f"run `data-engine ingest {names} --start {first} --end {last} --timeframe 1Day`"
        )
    return parts


def _reasons(obstacles: Mapping[str, Obstacle]) -> list[str]:
    return [and_more(reasons, _NAMED, separator="; ")] if (reasons := [o.reason for o in obstacles.values() if o.reason]) else []
