"""Hold which security had which ticker when, and find the one that a request means: tickers are passed on, and come back."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import Self

from data_engine.errors import InputError, MissingFileError
from data_engine.market.time_range import new_york_date, new_york_midnight

_DAY = timedelta(days=1)

_COLUMNS = ("ticker", "security", "first", "last")


@dataclass(frozen=True, slots=True)
class Listing:
    """The days on which a security has a ticker.

    Attributes:
        ticker: The ticker.
        security: The symbol under which the source of the bars has the security.
        first: The first New York day. If None, there is no earlier owner.
        last: The last one. If None, the security still has the ticker.
    """

    ticker: str
    security: str
    first: date | None = None
    last: date | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The bars that a request for a ticker is answered with.

    Attributes:
        security: The symbol of the source.
        since: The instant before which there are none. If None, the whole history of the security.
    """

    security: str
    since: datetime | None = None


class Listings:
    """Which security has which ticker. A ticker without a listing is a security of its own, at all times.

    As Alpaca does, a request as of a day is answered with the whole history of the security that has the ticker on that day,
    under earlier and later tickers, too; a security that no longer exists keeps its ticker until another one takes it. Earlier
    bars of a security that changes its ticker come from the day after the change on.

    Args:
        listings: The listings, in any order.
    """

    def __init__(self, listings: Iterable[Listing] = ()) -> None:
        self._by_ticker: dict[str, list[Listing]] = {}
        self._last: dict[str, date] = {}
        for one in sorted(listings, key=lambda one: one.first or date.min):
            self._by_ticker.setdefault(one.ticker, []).append(one)
            self._last[one.security] = max(one.last or date.max, self._last.get(one.security, date.min))

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Self:
        """Return the listings of a CSV file with the columns ``ticker,security,first,last``; days may be empty.

        Raises:
            MissingFileError: If there is no such file.
            InputError: If it has other columns, or a day is none.
        """
        file = Path(path)
        if not file.is_file():
            raise MissingFileError(f"cannot read listings: there is no file {file}")
        with file.open(encoding="utf-8", newline="") as text:
            rows = list(csv.DictReader(text))
        try:
            return cls(Listing(row["ticker"], row["security"], _day(row["first"]), _day(row["last"])) for row in rows)
        except (KeyError, ValueError) as error:
            raise InputError(f"cannot read listings: {file} lacks a column or a day of {', '.join(_COLUMNS)}: {error}") from error

    def owners(self) -> list[Listing]:
        """Return all listings, by ticker and in order of time."""
        return [one for ticker in sorted(self._by_ticker) for one in self._by_ticker[ticker]]

    def find(self, ticker: str, asof: date | None, now: datetime) -> Answered | None:
        """Return what a request for a ticker is answered with; None for no bars.

        Args:
            ticker: The ticker.
            asof: The day whose owner is meant. If None, the day of *now*.
            now: The current instant.
        """
        known = self._by_ticker.get(ticker)
        if known is None:
            return Answered(ticker)
        today = new_york_date(now)
        day = min(asof or today, today)
        begun = [one for one in known if one.first is None or one.first <= day]
        if not begun:
            return None
        owner = begun[-1]
        if owner.last is not None and owner.last < day and self._last[owner.security] > owner.last:
            return None  # it has another ticker by then
        fresh = owner.first is not None and now < new_york_midnight(owner.first + _DAY)
        return Answered(owner.security, new_york_midnight(owner.first) if fresh and owner.first else None)


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None
