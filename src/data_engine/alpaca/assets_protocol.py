"""Write requests to ``/v2/assets`` and read their responses. Pure.

The endpoint lists all securities of one status in one response, without pages: about 14,000 active and 19,000 inactive ones. It
has no delisting date and no successor of a security, and its ids do not survive a change of the ticker: symbols are all there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from data_engine.alpaca.page_format import query_string, read_list, unusable
from data_engine.errors import BadAnswer, InputError
from data_engine.market.symbol import check_symbol, shortened

Status = Literal["active", "inactive"]

STATUSES: tuple[Status, ...] = ("active", "inactive")

OTC = "OTC"
"""The exchange of securities that trade over the counter, of which the consolidated tape has no bars."""

_CLASS = "us_equity"

_REFUSED = frozenset("0123456789-_")  # of recorded refusals: 3USL, CSP1, UI2T, BRK-B, ABCD_DELISTED

_TOLERATED = 10  # one row in this many may be unusable; more mean another protocol


@dataclass(frozen=True, slots=True)
class AssetsRequest:
    """A request for all US securities of a status.

    Attributes:
        status: The status.
    """

    status: Status
    carries_text: ClassVar[bool] = True

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that are requested: none by name."""
        return ()

    def target(self, token: str | None = None) -> str:
        """Return path and query."""
        return f"/v2/assets?{query_string({'status': self.status, 'asset_class': _CLASS, 'page_token': token})}"

    def __str__(self) -> str:
        return f"the list of {self.status} securities"


@dataclass(frozen=True, slots=True)
class Asset:
    """A security in the list.

    Attributes:
        symbol: The ticker that it has, or had last.
        exchange: The exchange as Alpaca names it, such as ``NYSE`` or `OTC`; may be empty.
    """

    symbol: str
    exchange: str

    @property
    def is_fetchable(self) -> bool:
        """Whether requests for bars take the ticker: they refuse digits, hyphens and underscores, whatever it is."""
        return _REFUSED.isdisjoint(self.symbol)


@dataclass(frozen=True, slots=True)
class AssetsPage:
    """The response to a request; there is only one page.

    Attributes:
        assets: The securities, each symbol once per exchange, sorted.
        unusable: Why rows cannot be used, one text per row; it may quote the server.
        token: The name of the next page: there is none.
    """

    assets: tuple[Asset, ...]
    unusable: tuple[str, ...] = ()
    token: str | None = None


def read_assets(body: bytes, request: AssetsRequest) -> AssetsPage:
    """Return the securities of a response. Rows that cannot be used are named, and left out.

    Raises:
        BadAnswer: If the response is no list, or more than one row in ten cannot be used.
    """
    try:
        rows = read_list(body)
    except BadAnswer as error:
        raise unusable(request, str(error)) from error
    found: set[Asset] = set()
    faults: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            found.add(_asset(row, request.status))
        except InputError as error:
            faults.append(f"row {number}: {error}")
    if _TOLERATED * len(faults) > len(rows):
        raise unusable(request, f"{len(faults):,} of {len(rows):,} rows cannot be used, such as {faults[0]}")
    return AssetsPage(tuple(sorted(found, key=lambda asset: (asset.symbol, asset.exchange))), tuple(faults))


def _asset(row: object, status: Status) -> Asset:
    """Return the security of a row.

    Raises:
        InputError: If the row cannot be used.
    """
    if not isinstance(row, Mapping):
        raise InputError("is not an object")
    for name in ("symbol", "exchange", "status"):
        if not isinstance(row.get(name), str):
            raise InputError(f"has no {name}")
    if row["status"] != status:
        raise InputError(f"is {shortened(row['status'])}, though {status} ones were requested")
    if row.get("class", _CLASS) != _CLASS:
        raise InputError(f"is of class {shortened(row['class'])}")
    symbol = row["symbol"]
    if check_symbol(symbol) != symbol or "@" in symbol:  # as the name of a series it would be another security
        raise InputError(f"{shortened(symbol)} is not a ticker as Alpaca writes it")
    return Asset(symbol, row["exchange"])
