"""Write responses of ``/v2/assets``: the securities that a market has and had, with the oddities of Alpaca's list.

All rows are in one response, without pages. There is no delisting date; the id of a security is another one after a change of its
ticker, though the security is the same; a ticker that was passed on has an active and an inactive row; and inactive securities
still have bars, under their tickers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from os import PathLike
from typing import Any, Self
from uuid import NAMESPACE_URL, uuid5

from data_engine.errors import InputError
from data_engine.market.time_range import new_york_date
from data_engine.sandbox.listings import Listing
from data_engine.sandbox.protocol import Refusal
from data_engine.sandbox.response_file import read_response

_STATUSES = ("active", "inactive")

_CLASS = "us_equity"

_EXCHANGES = ("AMEX", "ARCA", "BATS", "NYSE", "NASDAQ", "NYSEARCA", "OTC", "CRYPTO", "")

_FLAGS = ("marginable", "shortable", "easy_to_borrow", "fractionable")


class Assets:
    """The list of securities of a market.

    Args:
        listings: The securities by ticker; the days say which of them are active.
        rows: Further rows as in a response, which are always in it. What they lack is made up.
        otc: The securities of *listings* that trade over the counter.

    Raises:
        InputError: If a row has no symbol, or a status that does not exist.
    """

    def __init__(
        self,
        listings: Iterable[Listing] = (),
        rows: Iterable[Mapping[str, Any]] = (),
        *,
        otc: Iterable[str] = (),
    ) -> None:
        self._listings = sorted(listings, key=lambda one: (one.ticker, one.first or date.min))
        self._rows = [_checked(row) for row in rows]
        self._otc = frozenset(otc)

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Self:
        """Return the securities of a file that has the form of a response of the endpoint.

        Raises:
            MissingFileError: If there is no such file.
            InputError: If it has another form.
        """
        return read_response(path, "a list of securities", "/v2/assets", lambda rows: cls(rows=rows))

    @classmethod
    def of(cls, symbols: Sequence[str], listings: Iterable[Listing] = ()) -> Self:
        """Return the list of a source's symbols, under the tickers that *listings* give to some of them."""
        named = list(listings)
        renamed = {one.security for one in named} | {one.ticker for one in named}
        return cls([*named, *(Listing(symbol, symbol) for symbol in symbols if symbol not in renamed)])

    def page(self, query: Mapping[str, str], now: datetime) -> bytes:
        """Return the response to a request as JSON.

        Args:
            query: The parameters ``status``, ``asset_class`` and ``exchange``; others have no effect.
            now: The current instant.

        Raises:
            Refusal: If a parameter has a value that does not exist (422).
        """
        for name, known in (("status", _STATUSES), ("exchange", _EXCHANGES)):
            if query.get(name) and query[name] not in known:
                raise Refusal(422, f"invalid {name}: {query[name]}")
        today = new_york_date(now)
        rows = [_row(one, today, otc=one.security in self._otc) for one in self._listings if not _is_ahead(one, today)]
        wanted = {"status": query.get("status"), "class": query.get("asset_class"), "exchange": query.get("exchange")}
        found = [row for row in (*rows, *self._rows) if all(not value or row[name] == value for name, value in wanted.items())]
        return json.dumps(found, separators=(",", ":")).encode()


def _is_ahead(one: Listing, today: date) -> bool:
    return one.first is not None and one.first > today


def _row(one: Listing, today: date, *, otc: bool) -> dict[str, Any]:
    """Return the row of a listing as of a day; its id is of the ticker and the security together."""
    active = one.last is None or one.last >= today
    identity = str(uuid5(NAMESPACE_URL, f"{one.ticker} of {one.security}"))
    return _checked(
        {
            "id": identity,
            "exchange": "OTC" if otc else "NASDAQ",
            "symbol": one.ticker,
            "status": "active" if active else "inactive",
        }
    )


def _checked(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with what it lacks."""
    if not isinstance(row, Mapping) or not isinstance(row.get("symbol"), str):
        raise InputError(f"cannot use a row of the list of securities: it has no symbol: {row!r}")
    if row.get("status", "active") not in _STATUSES:
        raise InputError(f"cannot use the status of {row['symbol']}: it is neither active nor inactive: {row['status']!r}")
    active = row.get("status", "active") == "active"
    return {
        "id": str(uuid5(NAMESPACE_URL, row["symbol"])),
        "class": _CLASS,
        "exchange": "NASDAQ",
        "name": f"{row['symbol']} (simulated)",
        "status": "active",
        "tradable": active,
        **dict.fromkeys(_FLAGS, active),
        "attributes": [],
        **row,
    }
