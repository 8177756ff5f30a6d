"""Hold corporate actions, read requests for them, and write pages of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from os import PathLike
from typing import Any, Self
from uuid import NAMESPACE_URL, uuid5

from data_engine.errors import InputError
from data_engine.market.time_range import new_york_date
from data_engine.sandbox.protocol import Refusal, check_symbols, decode_token, encode_token, one_of, read_date, read_limit
from data_engine.sandbox.response_file import read_response
from data_engine.sandbox.splits import Split

TYPES = (
    "reverse_split", "forward_split", "unit_split", "cash_dividend", "stock_dividend", "spin_off", "cash_merger", "stock_merger",
    "stock_and_cash_merger", "redemption", "name_change", "worthless_removal", "rights_distribution", "partial_call",
    "reorganization",
)  # fmt: skip
"""The documented types, as the parameter ``types`` has them; the lists of a response have an ``s`` more."""

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000

_SYMBOLS = ("symbol", "source_symbol", "old_symbol", "new_symbol", "acquiree_symbol", "acquirer_symbol", "alternate_symbol")

_CUSIPS = {
    "reverse_split": ("old_cusip", "new_cusip"),
    "unit_split": ("old_cusip", "new_cusip", "alternate_cusip"),
    "spin_off": ("source_cusip", "new_cusip"),
    "cash_merger": ("acquiree_cusip",),
    "stock_merger": ("acquirer_cusip", "acquiree_cusip"),
    "stock_and_cash_merger": ("acquirer_cusip", "acquiree_cusip"),
    "name_change": ("old_cusip", "new_cusip"),
    "rights_distribution": ("source_cusip", "new_cusip"),
    "partial_call": (),
}

_FILTERS = ("symbols", "cusips", "types", "start", "end", "region", "data_quality")


@dataclass(frozen=True, slots=True)
class _Record:
    kind: str
    processed: date
    id: str
    fields: Mapping[str, Any]

    @property
    def symbols(self) -> set[str]:
        return {self.fields[key] for key in _SYMBOLS if self.fields.get(key)}

    @property
    def cusips(self) -> set[str]:
        return {value for key, value in self.fields.items() if key.endswith("cusip") and value}


@dataclass(frozen=True, slots=True)
class ActionsRequest:
    """A request that the server accepts.

    Attributes:
        first: The first process date.
        last: The last process date, included.
        limit: The maximum number of actions per page.
        symbols: The symbols, of which an action names one. If None, all.
        cusips: The CUSIPs, of which an action names one. If None, all.
        types: The types of the actions. If None, all.
        ids: The ids of the actions, whatever their dates. If None, all.
        descending: Whether the latest action comes first.
        token: The process date and id of the first action of the page; None for the first page.
    """

    first: date
    last: date
    limit: int = DEFAULT_LIMIT
    symbols: frozenset[str] | None = None
    cusips: frozenset[str] | None = None
    types: frozenset[str] | None = None
    ids: frozenset[str] | None = None
    descending: bool = False
    token: tuple[date, str] | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str], *, now: datetime) -> Self:
        """Return the request that the parameters make.

        Raises:
            Refusal: If a parameter is wrong (400); it has the message of the first.
        """
        if query.get("ids") and any(query.get(name) for name in _FILTERS):
            raise Refusal(400, "ids is mutually exclusive with all other filters")
        today = new_york_date(now)
        first, last = (read_date(name, query[name]) if query.get(name) else today for name in ("start", "end"))
        types = _list(query, "types")
        for name in sorted((types or frozenset()) - set(TYPES)):
            raise Refusal(400, f"invalid type: {name}")
        one_of("region", query, ("us", "non_us", "all"))
        one_of("data_quality", query, ("complete", "all"))
        descending = one_of("sort", query, ("asc", "desc")) == "desc"
        request = cls(
            first,
            last,
            read_limit(query.get("limit", ""), default=DEFAULT_LIMIT, most=MAX_LIMIT),
            frozenset(check_symbols(query["symbols"].split(","))) if query.get("symbols") else None,
            _list(query, "cusips"),
            types,
            _list(query, "ids"),
            descending,
            _token(query.get("page_token", "")),
        )
        if request.last < request.first:
            raise Refusal(400, "end should not be before start")
        return request

    def __contains__(self, record: object) -> bool:
        if not isinstance(record, _Record):
            return False
        if self.ids is not None:
            return record.id in self.ids
        return (
            self.first <= record.processed <= self.last
            and (self.types is None or record.kind in self.types)
            and (self.symbols is None or bool(self.symbols & record.symbols))
            and (self.cusips is None or bool(self.cusips & record.cusips))
        )


class Announcements:
    """Corporate actions of a market.

    Args:
        records: The lists of records by type, as in a response (``forward_splits``, ``cash_dividends`` ...); ids and CUSIPs that
            are not given are made up, the same ones every time.

    Raises:
        InputError: If a type is not documented, or a record has no process date.
    """

    def __init__(self, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        unsorted = [_record(plural, fields) for plural, listed in records.items() for fields in listed]
        self._records = sorted(unsorted, key=lambda record: (record.processed, record.id))

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Self:
        """Return the corporate actions of a file that has the form of a response of the endpoint.

        Raises:
            MissingFileError: If there is no such file.
            InputError: If it has another form.
        """
        return read_response(
            path, "corporate actions", "/v1/corporate-actions", lambda content: cls(content["corporate_actions"])
        )

    @classmethod
    def of(cls, splits: Mapping[str, Iterable[Split]], renames: Iterable[tuple[date, str, str]] = ()) -> Self:
        """Return the corporate actions for splits by symbol, and for ticker changes: the day, the old and the new symbol."""
        listed: dict[str, list[dict[str, Any]]] = {"forward_splits": [], "reverse_splits": [], "name_changes": []}
        for symbol, ones in splits.items():
            for split in ones:
                day = split.ex_date.isoformat()
                kind = "forward_splits" if split.new > split.old else "reverse_splits"
                rates = {"new_rate": split.new, "old_rate": split.old}
                listed[kind].append({"symbol": symbol, "ex_date": day, "process_date": day, **rates})
        for day_changed, old, new in renames:
            listed["name_changes"].append({"old_symbol": old, "new_symbol": new, "process_date": day_changed.isoformat()})
        return cls(listed)

    def page(self, request: ActionsRequest, *, budget: int | None = None) -> bytes:
        """Return the requested page as JSON, with at most *budget* actions. If None, the limit of the request."""
        found = [record for record in self._records if record in request]
        if request.descending:
            found.reverse()
        begin = 0
        if request.token is not None:
            begin = next((at for at, record in enumerate(found) if (record.processed, record.id) == request.token), len(found))
        end = begin + (request.limit if budget is None else budget)
        lists: dict[str, list[Mapping[str, Any]]] = {}
        for record in found[begin:end]:
            lists.setdefault(f"{record.kind}s", []).append(record.fields)
        token = None
        if end < len(found):
            token = encode_token(found[end].processed, found[end].id)
        return json.dumps({"corporate_actions": lists, "next_page_token": token}, separators=(",", ":")).encode()


NOTHING = Announcements({})


def _record(plural: str, fields: Mapping[str, Any]) -> _Record:
    kind = plural.removesuffix("s")
    if kind not in TYPES:
        raise InputError(f"cannot use {plural!r} as a list of corporate actions; use {', '.join(f'{name}s' for name in TYPES)}")
    try:
        processed = date.fromisoformat(fields["process_date"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"cannot use a record of {plural}: it has no process_date: {dict(fields)}") from None
    record = dict(fields)
    record.setdefault("id", str(uuid5(NAMESPACE_URL, f"{kind} {json.dumps(record, sort_keys=True)}")))
    for name in _CUSIPS.get(kind, ("cusip",)):
        symbol = record.get(name.replace("cusip", "symbol")) or record.get("symbol", "")
        record.setdefault(name, uuid5(NAMESPACE_URL, f"{name} {symbol}").hex[:9].upper())
    if kind == "cash_dividend":
        record = {"special": False, "foreign": False, **record}
    return _Record(kind, processed, record["id"], dict(sorted(record.items())))


def _list(query: Mapping[str, str], name: str) -> frozenset[str] | None:
    return frozenset(query[name].split(",")) if query.get(name) else None


def _token(text: str) -> tuple[date, str] | None:
    if not text:
        return None
    try:
        day, record_id = decode_token(text)
        if re.fullmatch(r"[0-9A-Za-z-]+", record_id):
            return date.fromisoformat(day), record_id
    except ValueError:
        pass
    raise Refusal(400, f"invalid page_token: {text}")
