"""What a refusing answer means: which of our errors it is, or that asking again may help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_engine.errors import BadAnswer, CredentialsRefused, InvalidSymbol, RecentDataRefused, RequestRefused, UriTooLong

if TYPE_CHECKING:
    from data_engine.source.asking import Question
    from data_engine.source.transport import Answer

_RECENT = "subscription does not permit querying recent"


def raise_for_good(answer: Answer, request: Question) -> None:
    """Raise what asking again would not change; return where it may.

    Raises:
        CredentialsRefused: 401 (a web page), or 403 that says ``forbidden.``.
        RecentDataRefused: 403 of a plan without real-time data.
        UriTooLong: 413, 414 or 431.
        InvalidSymbol: 400 that names one of the symbols.
        BadAnswer: a redirect.
        RequestRefused: any other 4xx.
    """
    from data_engine.source.wire import complaint, refused_symbol

    status = answer.status
    if status in (408, 425, 429) or status >= 500:
        return
    message = complaint(answer.body, answer.headers.get("content-type", ""))
    if status == 401 or (status == 403 and (message == "forbidden." or "json" not in answer.headers.get("content-type", ""))):
        raise CredentialsRefused(f"Alpaca refused the credentials ({status}: {message})")
    if status == 403 and _RECENT in message:
        raise RecentDataRefused(message, status=status)
    if status in (413, 414, 431):
        raise UriTooLong(f"{len(request.symbols)} symbols are too many for one request ({status})", status=status)
    if status == 400 and (symbol := refused_symbol(message, request.symbols)) is not None:
        raise InvalidSymbol(symbol)
    if 300 <= status < 400:
        raise BadAnswer(f"the server redirects elsewhere ({status}); credentials are not sent there (asked for: {request})")
    raise RequestRefused(
        f"Alpaca refused the request ({status}: {message}; asked for: {request})",
        status=status,
        concerns_symbols=status == 400 and "symbol" in message.lower(),
    )
