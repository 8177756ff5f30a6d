"""Describe the form of requests and pages: what all who write or decode them must know. Pure.

Source: the OpenAPI file of Alpaca's market data API, and recorded responses (docs/explanation/protocol.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from data_engine.errors import BadAnswer

PAGE_LIMIT = 10_000
"""The maximum number of bars in one page, over all symbols together."""

KEYS = {"t": "timestamp", "o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "n": "trade_count", "vw": "vwap"}
"""The keys of a bar as sent, each with its column."""

MOST_UNKNOWN = 8
"""The maximum number of unknown fields in the bars of a page that the quick decoders pass over; as in their C source."""

LISTS_BEGIN = len(b'{"bars":{')
"""Where the first symbol stands in a page without white space."""

_SURROGATE = re.compile("[\ud800-\udfff]")  # which no address can hold

_TAIL = re.compile(rb'\}(?:,"currency":"([A-Z]{3})")?,"next_page_token":(?:null|"([!#-\[\]-~]+)")\}[ \t\n\r]*')


class Framed(NamedTuple):
    """What a page without white space says beside its lists of bars.

    Attributes:
        end: The place of the brace behind the lists, so what lies from `LISTS_BEGIN` to there is lists and nothing else.
        token: The name of the next page; None on the last one.
        currency: The currency of the prices, if the page names it.
    """

    end: int
    token: str | None
    currency: str | None


def frame(body: bytes) -> Framed | None:
    """Return what a page without white space says beside its lists; None for any other page."""
    end = body.rfind(b'},"next_page_token":')
    if end < 0:
        end = body.rfind(b'},"currency":"')
    tail = _TAIL.fullmatch(body, end) if end >= LISTS_BEGIN else None
    if tail is None or not body.startswith(b'{"bars":{'):
        return None
    currency, token = (None if text is None else text.decode() for text in tail.groups())
    return Framed(end, token, currency)


def check_currency(named: object, requested: str | None) -> None:
    """Check the currency that a page names, None if it names none.

    Raises:
        BadAnswer: If it is not the requested one; without a request, US dollars are due.
    """
    if named != requested and {named, requested} != {None, "USD"}:
        raise BadAnswer(f"its prices are in {named or 'a currency that it does not name'}, not in {requested or 'USD'}")


def slices_of(symbols: Sequence[str], stops: Sequence[int]) -> tuple[tuple[str, int, int], ...] | None:
    """Return ``(symbol, start, stop)`` of lists that follow each other, in order of symbol; None if a symbol is listed twice."""
    if len(set(symbols)) < len(symbols):
        return None
    return tuple(sorted((symbol, start, stop) for symbol, (start, stop) in zip(symbols, pairwise((0, *stops)), strict=True)))


def unusable(request: object, reason: str, kind: type[BadAnswer] = BadAnswer) -> BadAnswer:
    """Return the error of a response that cannot be trusted to answer a request."""
    return kind(f"cannot use a response to {request}: {reason}")


def query_string(fields: Mapping[str, object]) -> str:
    """Return the query string of the fields that are not None, in their order."""
    return urlencode({name: value for name, value in fields.items() if value is not None}, safe=",:", quote_via=quote)


def read_envelope(body: bytes, name: str) -> tuple[Any, str | None]:
    """Return the content of a page of JSON, whatever it is, and the token of the next page.

    Args:
        body: The page.
        name: The key of the content.

    Raises:
        BadAnswer: If the page is not an object of JSON with content and token.
    """
    page = read_object(body, name)
    return page[name], page["next_page_token"]


def read_object(body: bytes, name: str) -> dict[str, Any]:
    """Return a page of JSON with content, by the key *name*, and ``next_page_token``, which is text or None.

    Raises:
        BadAnswer: If the page is no such object.
    """
    page = _read_json(body)
    if not isinstance(page, dict) or not {name, "next_page_token"} <= page.keys():
        raise BadAnswer(f"the body is not an object with {name} and next_page_token")
    token = page["next_page_token"]
    if token is not None and (not isinstance(token, str) or not token or _SURROGATE.search(token)):
        raise BadAnswer(f"next_page_token is {token!r}")
    return page


def read_list(body: bytes) -> list[Any]:
    """Return a response that is a list of JSON.

    Raises:
        BadAnswer: If it is none.
    """
    rows = _read_json(body)
    if not isinstance(rows, list):
        raise BadAnswer("the body is not a list")
    return rows


def _read_json(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, or an integer of thousands of digits
        raise BadAnswer(f"the body is not JSON: {error}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"a value is {name}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise ValueError("a key is twice in one object")
    return unique
