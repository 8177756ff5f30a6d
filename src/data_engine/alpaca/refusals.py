"""Turn the error status of a response into the error that it means: `raise_for_status`. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from data_engine.alpaca.page_format import unusable
from data_engine.errors import CredentialsRefused, InvalidSymbol, RecentDataRefused, RequestRefused, UriTooLong
from data_engine.market.symbol import ticker_of

if TYPE_CHECKING:
    from data_engine.alpaca.api_request import ApiRequest
    from data_engine.alpaca.transport import Response


_RECENT = "subscription does not permit querying recent"


def raise_for_status(response: Response, request: ApiRequest) -> None:
    """Raise what a repetition would not change; return where it may help.

    Raises:
        CredentialsRefused: If the status is 401 (a web page), or 403 with ``forbidden.``.
        RecentDataRefused: If a plan without real-time data gives 403.
        UriTooLong: If the status is 413, 414 or 431.
        InvalidSymbol: If 400 names one of the symbols.
        BadAnswer: If the server redirects.
        RequestRefused: If the status is any other 4xx.
    """
    status = response.status
    if status in (408, 425, 429) or status >= 500:
        return
    message = error_message(response)
    if status == 401 or (status == 403 and (message == "forbidden." or not is_json(response))):
        raise CredentialsRefused(
            f"cannot sign in: Alpaca refused the credentials ({status}: {message}); check that key and secret are a current pair"
        )
    if status == 403 and _RECENT in message:
        raise RecentDataRefused(message, status=status)
    if status in (413, 414, 431):
        raise UriTooLong(f"cannot fetch {len(request.symbols)} symbols with one request: too long ({status})", status=status)
    if status == 400 and (symbol := refused_symbol(message, request.symbols)) is not None:
        raise InvalidSymbol(symbol)
    if 300 <= status < 400:
        raise unusable(request, f"the server redirects to another address ({status}), to which credentials are not sent")
    raise RequestRefused(
        f"cannot fetch {request}: Alpaca refused the request ({status}: {message})",
        status=status,
        concerns_symbols=status == 400 and "symbol" in message.lower(),
    )


def is_json(response: Response) -> bool:
    """Tell whether a response says that it is JSON."""
    return "json" in response.headers.get("content-type", "").lower()


def check_json(response: Response, request: ApiRequest) -> None:
    """Refuse a response 200 that does not say that it is JSON, such as the page of a proxy or of a login.

    Raises:
        BadAnswer: If it is another kind of content.
    """
    if not is_json(response):
        content_type = response.headers.get("content-type") or "no content type"
        raise unusable(request, f"it has {content_type} where JSON is due")


def error_message(response: Response) -> str:
    """Return what an error response says for people, uncut: its JSON message, or its title if it is a web page."""
    if is_json(response):
        with suppress(ValueError, RecursionError):
            content = json.loads(response.body)
            if isinstance(content, dict) and isinstance(content.get("message"), str):
                return str(content["message"])
    text = response.body.decode("utf-8", "replace")
    title = re.search(r"<title>([^<]{1,200})</title>", text[:4096], re.IGNORECASE)
    return " ".join((title[1] if title else text).split())


_REFUSED_SYMBOL = re.compile(r"(?:code=400, message=)?invalid symbol: (.*)")


def refused_symbol(message: str, symbols: Sequence[str]) -> str | None:
    """Return which of *symbols* the message of a response 400 names as malformed, or None if it names none of them.

    It names the ticker of a former owner (``S`` of ``S@2020-03-31``).
    """
    match = _REFUSED_SYMBOL.fullmatch(message.strip())
    return next((symbol for symbol in symbols if match and ticker_of(symbol) == match[1]), None)
