"""Send requests to Alpaca until each is answered: `ApiSession`.

The session has the credentials, waits for the rate limit, repeats what a repetition can mend, and turns refusals into errors.
What requests and pages mean is up to `bars_protocol` and `actions_protocol`.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Protocol, TypeVar

from data_engine.alpaca.credentials import DATA_URL, check_data_url, require_credentials
from data_engine.alpaca.page_format import unusable
from data_engine.alpaca.rate_limit import RateLimiter
from data_engine.alpaca.retry import RetryPolicy, retry_after, server_time
from data_engine.alpaca.transport import HttpTransport, Response, Transport, TransportFailed
from data_engine.cpu import CPU_SLOTS
from data_engine.errors import (
    BadAnswer,
    CredentialsRefused,
    Interrupted,
    InvalidSymbol,
    RecentDataRefused,
    RequestRefused,
    ServiceDown,
    SourceError,
    SourceUnavailable,
    UriTooLong,
)
from data_engine.version import __version__

_BAD_PAGE_TRIES = 3  # a proxy's page in place of the response is gone soon; a server that speaks another language is not

_EMPTY_PAGES = 100  # in a row, each with a token: no field report knows more than a few

_SAME_OUTAGE_SECONDS = 300.0  # without a failure, after which the next one begins a new outage


class ApiRequest(Protocol):
    """A request that can be sent: it says where its pages are, and prints for people."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols whose data are requested."""

    def target(self, token: str | None = None) -> str:
        """Return path and query of the first page, or of the page that *token* names."""


class ApiPage(Protocol):
    """One page of a response."""

    @property
    def token(self) -> str | None:
        """The name of the next page; None on the last one."""


_Request = TypeVar("_Request", bound=ApiRequest)

_Page = TypeVar("_Page", bound=ApiPage)


class ApiSession:
    """One account at one address. Safe to share between threads.

    Args:
        api_key: The key. If None, like *api_secret* from the environment or a ``.env`` file (`find_credentials`).
        api_secret: The secret of the key.
        base_url: The address. If None, ``APCA_API_DATA_URL`` or ``https://data.alpaca.markets``.
        requests_per_minute: An upper bound. If None, only the account's own limit, which is learned.
        connections: The maximum number of open connections; the number of threads that send at once.
        policy: The rule for repeating requests. If None, the defaults of `RetryPolicy`.
        transport: The network. If None, HTTP.

    Attributes:
        base_url: The address of the server.
        credentials_source: The place that the credentials come from, for people.
        policy: The rule for repeating requests.
        rate_limiter: The account's rate limit.
        requests: The number of requests sent so far, answered or not.
        server_time: The server's time at its last response, UTC; None before the first, or if it does not say.

    Raises:
        ConfigError: If there are no credentials, or the URL would send them unencrypted.
    """

    def __init__(
        self,
        api_key: str | None = None,
        api_secret: str | None = None,
        base_url: str | None = None,
        *,
        requests_per_minute: int | None = None,
        connections: int = 16,
        policy: RetryPolicy | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.base_url = check_data_url(base_url or os.environ.get("APCA_API_DATA_URL") or DATA_URL)
        self._credentials = require_credentials(api_key, api_secret)
        self.credentials_source = self._credentials.source
        self.policy = policy or RetryPolicy()
        self.rate_limiter = RateLimiter(requests_per_minute)
        self.requests = 0
        self.server_time: datetime | None = None
        self._transport = transport or HttpTransport(
            self.base_url,
            {
                "APCA-API-KEY-ID": self._credentials.key,
                "APCA-API-SECRET-KEY": self._credentials.secret,
                "User-Agent": f"data-engine/{__version__}",
            },
            connections=connections,
        )
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._down_since: float | None = None
        self._failed_at = 0.0

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def stop(self) -> None:
        """Send nothing more: pending and later requests raise `Interrupted`."""
        self._stop.set()

    def resume(self) -> None:
        """Undo `stop`."""
        self._stop.clear()

    def pages(
        self, request: _Request, read: Callable[[bytes, _Request], _Page], is_empty: Callable[[_Page], bool]
    ) -> Iterator[_Page]:
        """Yield the pages of the response to a request until the server says that there are no more.

        Short and empty pages with a token are not the end.

        Args:
            request: The request.
            read: The reader of a page's body; what it refuses as `BadAnswer` is requested again, a few times.
            is_empty: The test for a page without content.

        Raises:
            BadAnswer: If a page cannot be trusted, or the pages do not end.
            SourceError: If Alpaca refuses, or gives no usable response.
            Interrupted: If `stop` was called.
        """
        token: str | None = None
        seen: set[str] = set()
        empty_pages = 0
        while True:
            page = self.get_json(request, token, read)
            yield page
            if page.token is None:
                return
            empty = is_empty(page)
            empty_pages = empty_pages + 1 if empty else 0
            # An empty page may name itself again; one with content that does would bring it for ever.
            repeated = page.token in seen and not (empty and page.token == token)
            if repeated or empty_pages > _EMPTY_PAGES:
                raise unusable(request, "the pages do not end")
            token = page.token
            seen.add(token)

    def get_json(self, request: _Request, token: str | None, read: Callable[[bytes, _Request], _Page]) -> _Page:
        """Return one page of the response to a request.

        Args:
            request: The request.
            token: The name of the page. If None, the first.
            read: The reader of the page's body; what it refuses as `BadAnswer` is requested again, a few times.

        Raises:
            SourceError: If Alpaca refuses, or gives no usable response.
            Interrupted: If `stop` was called.
        """
        failures = 0
        while True:
            response = self._get(request, token)
            try:
                if not _is_json(response):
                    content_type = response.headers.get("content-type") or "no content type"
                    raise unusable(request, f"it has {content_type} where JSON is due")
                with CPU_SLOTS:
                    return read(response.body, request)
            except BadAnswer:
                failures += 1
                if failures >= _BAD_PAGE_TRIES:
                    raise
                self._back_off(failures)

    def _get(self, request: ApiRequest, token: str | None) -> Response:
        """Return the first response 200, repeating what a repetition can mend."""
        path = request.target(token)
        failures = 0
        while True:
            response = self._send(path)
            limited, hint = False, None
            if isinstance(response, TransportFailed):
                cause = str(response)
            elif response.status == 200:
                self._end_outage()
                self.server_time = server_time(response.headers) or self.server_time
                return response
            else:
                self._raise_for_status(response, request)
                limited = response.status == 429
                cause = "API rate limit exceeded" if limited else f"the server answered {response.status}"
                hint = retry_after(response.headers, time.time())
            self._count_failure(cause)
            if limited:
                continue  # the rate limiter makes all threads wait
            failures += 1
            if failures >= self.policy.tries:
                raise SourceUnavailable(f"cannot fetch {request}: {cause}, {failures} times; run `data-engine update` later")
            self._back_off(failures, hint or 0.0)

    def _raise_for_status(self, response: Response, request: ApiRequest) -> None:
        """Raise what a repetition would not change. A server that repeats the credentials is not quoted with them."""
        try:
            raise_for_status(replace(response, body=self._credentials.redact(response.body)), request)
        except SourceError:
            self._end_outage()  # a refusal is a response, too
            raise

    def _end_outage(self) -> None:
        with self._lock:
            self._down_since = None

    def _count_failure(self, cause: str) -> None:
        now = time.monotonic()
        with self._lock:
            if self._down_since is None or now - self._failed_at > _SAME_OUTAGE_SECONDS:
                self._down_since = now
            self._failed_at = now
            down = now - self._down_since
        if down > self.policy.give_up_after:
            raise ServiceDown(
                f"cannot fetch: Alpaca cannot be reached (no usable response for {down:.0f} s, last failure: {cause}); "
                "run `data-engine update` later"
            )

    def _send(self, path: str) -> Response | TransportFailed:
        """Send one request when the rate limit permits it; return what came of it."""
        status: int | None = None
        headers: Mapping[str, str] = {}
        wait = self.rate_limiter.acquire(time.monotonic())
        try:
            self._wait(wait)
            while left := self.rate_limiter.pause_left(time.monotonic()):
                self._wait(left)
            with self._lock:
                self.requests += 1
            response = self._transport.get(path)
            status, headers = response.status, response.headers
        except TransportFailed as error:
            return error
        else:
            return response
        finally:
            self.rate_limiter.answered(time.monotonic(), status, headers, unix=time.time())

    def _back_off(self, failures: int, least: float = 0.0) -> None:
        self._wait(max(least, self.policy.wait(failures, random.random())))  # noqa: S311 - jitter is no secret

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds) if seconds > 0 else self._stop.is_set():
            raise Interrupted("interrupted")


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
    if status == 401 or (status == 403 and (message == "forbidden." or not _is_json(response))):
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


def _is_json(response: Response) -> bool:
    return "json" in response.headers.get("content-type", "").lower()


def error_message(response: Response) -> str:
    """Return what an error response says for people: its JSON message, or its title if it is a web page."""
    if _is_json(response):
        with suppress(ValueError):
            content = json.loads(response.body)
            if isinstance(content, dict) and isinstance(content.get("message"), str):
                return str(content["message"])
    text = response.body[:4096].decode("utf-8", "replace")
    title = re.search(r"<title>([^<]{1,200})</title>", text, re.IGNORECASE)
    return " ".join((title[1] if title else text).split())[:200]


_REFUSED_SYMBOL = re.compile(r"(?:code=400, message=)?invalid symbol: (.*)")


def refused_symbol(message: str, symbols: Sequence[str]) -> str | None:
    """Return which of *symbols* the message of a response 400 names as malformed, or None if it names none of them."""
    match = _REFUSED_SYMBOL.fullmatch(message.strip())
    return match[1] if match and match[1] in symbols else None
