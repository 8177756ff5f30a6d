"""Asking Alpaca one question until it is answered: `ApiSession`.

It has the keys, waits its turn, asks again where that can help, and knows what a refusal means. What the questions are is
`alpaca`'s; how long to wait is `pacing`'s and `retry`'s; sockets are `transport`'s.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol, Self, TypeVar

from data_engine.alpaca.credentials import (
    DATA_URL,
    Credentials,
    check_data_url,
    find_credentials,
    given_credentials,
    missing_credentials_message,
)
from data_engine.alpaca.rate_limit import RateLimiter
from data_engine.alpaca.retry import RetryPolicy, retry_after, server_time
from data_engine.alpaca.transport import HttpTransport, Response, Transport, TransportFailed
from data_engine.cpu import CPU_SLOTS
from data_engine.errors import (
    BadAnswer,
    ConfigError,
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

_BAD_ANSWER_TRIES = 3  # a proxy's page in place of the answer passes; a server that speaks another language does not

_FORGOTTEN = 300.0  # seconds without a failure, after which the next one is a new outage

_T = TypeVar("_T")


class ApiRequest(Protocol):
    """What can be asked: a value that says where its pages are, and prints for people."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Whose data are asked for."""

    def target(self, token: str | None = None) -> str:
        """Return path and query of the first page, or of the page that *token* names."""


class ApiSession:
    """One account at one address. Safe to share between threads.

    Args:
        api_key: with *api_secret*; both default to the environment or a ``.env`` file (`find_credentials`).
        api_secret: see *api_key*.
        base_url: default ``APCA_API_DATA_URL`` or ``https://data.alpaca.markets``; plain http only to this machine.
        requests_per_minute: an upper bound beside the account's own limit, which is learned.
        connections: kept open at most; the number of threads that will ask at once.
        policy: when to ask again, and when to give up.
        transport: in place of HTTP (tests).
        now: the clock.

    Raises:
        ConfigError: no credentials, or a URL that would send them in the clear.
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
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.base_url = check_data_url(base_url or os.environ.get("APCA_API_DATA_URL") or DATA_URL)
        credentials = _credentials(api_key, api_secret)
        self.credentials_source = credentials.source
        self.policy = policy or RetryPolicy()
        self.rate_limiter = RateLimiter(requests_per_minute)
        self.now = now
        self._transport = transport or HttpTransport(
            self.base_url,
            {
                "APCA-API-KEY-ID": credentials.key,
                "APCA-API-SECRET-KEY": credentials.secret,
                "User-Agent": f"data-engine/{__version__}",
            },
            connections=connections,
        )
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._requests = 0
        self._down_since: float | None = None
        self._failed_at = 0.0
        self._credentials = credentials
        self._server_time: datetime | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._transport.close()

    @property
    def requests(self) -> int:
        """How many requests were sent so far, answered or not."""
        return self._requests

    @property
    def allowed(self) -> float | None:
        """The requests per minute that are kept to; None where nothing limits."""
        return self.rate_limiter.allowed

    @property
    def server_time(self) -> datetime | None:
        """What time it was at the server at the last answer, in UTC; None before the first, or where it does not say."""
        return self._server_time

    def stop(self) -> None:
        """Send nothing more: whoever waits or asks next gets `Interrupted`."""
        self._stop.set()

    def resume(self) -> None:
        """Undo `stop`."""
        self._stop.clear()

    def get_json(self, question: ApiRequest, token: str | None, read: Callable[[bytes], _T]) -> _T:
        """Return what *read* makes of one page of JSON, the first or the one that *token* names.

        Args:
            question: what is asked.
            token: of the page; None is the first.
            read: of a body; what it refuses as `BadAnswer` is asked for again, a few times.

        Raises:
            SourceError: the answer is no, or there is none that can be used.
            Interrupted: `stop` was called.
        """
        failures = 0
        while True:
            answer = self._response(question, token)
            try:
                if "json" not in answer.headers.get("content-type", ""):
                    kind = answer.headers.get("content-type") or "no content type"
                    raise BadAnswer(f"an answer of {kind} where JSON was due (answer to: {question})")
                with CPU_SLOTS:
                    return read(answer.body)
            except BadAnswer:
                failures += 1
                if failures >= _BAD_ANSWER_TRIES:
                    raise
                self._wait(self.policy.wait(failures, random.random()))  # noqa: S311 - jitter is no secret

    def _response(self, question: ApiRequest, token: str | None) -> Response:
        """Return the first answer 200, asking again where that can help."""
        path = question.target(token)
        failures = 0
        while True:
            answer = self._send(path)
            hint = None
            if isinstance(answer, Response):
                if answer.status == 200:
                    self._reached()
                    self._server_time = server_time(answer.headers) or self._server_time
                    return answer
                self._raise_for_status(answer, question)
                what = "API rate limit exceeded" if answer.status == 429 else f"the server answered {answer.status}"
                hint = retry_after(answer.headers, time.time())
            else:
                what = str(answer)
            self._count_failure(what)
            if isinstance(answer, Response) and answer.status == 429:
                continue  # pacing makes everybody wait
            failures += 1
            if failures >= self.policy.tries:
                raise SourceUnavailable(f"{what}, {failures} times (asked for: {question})")
            self._wait(max(hint or 0.0, self.policy.wait(failures, random.random())))  # noqa: S311 - jitter is no secret

    def _raise_for_status(self, answer: Response, question: ApiRequest) -> None:
        """Raise what asking again would not change. A server that repeats the credentials is not quoted with them."""
        try:
            raise_for_status(replace(answer, body=self._credentials.redact(answer.body)), question)
        except SourceError:
            self._reached()  # a refusal is an answer, too
            raise

    def _reached(self) -> None:
        with self._lock:
            self._down_since = None

    def _count_failure(self, what: str) -> None:
        now = time.monotonic()
        with self._lock:
            if self._down_since is None or now - self._failed_at > _FORGOTTEN:
                self._down_since = now
            self._failed_at = now
            down = now - self._down_since
        if down > self.policy.give_up_after:
            raise ServiceDown(f"Alpaca cannot be reached: no usable answer for {down:.0f} s; the last was: {what}")

    def _send(self, path: str) -> Response | TransportFailed:
        answer: Response | TransportFailed | None = None
        wait = self.rate_limiter.acquire(time.monotonic())
        try:
            self._wait(wait)
            while left := self.rate_limiter.pause_left(time.monotonic()):
                self._wait(left)
            with self._lock:
                self._requests += 1
            try:
                answer = self._transport.get(path)
            except TransportFailed as error:
                answer = error
        finally:
            known = answer if isinstance(answer, Response) else None
            self.rate_limiter.answered(
                time.monotonic(), known.status if known else None, known.headers if known else {}, unix=time.time()
            )
        return answer

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds) if seconds > 0 else self._stop.is_set():
            raise Interrupted("interrupted")


def _credentials(key: str | None, secret: str | None) -> Credentials:
    if key is not None or secret is not None:
        return given_credentials(key, secret)
    found = find_credentials()
    if found is None:
        raise ConfigError(missing_credentials_message())
    return found


_RECENT = "subscription does not permit querying recent"


def raise_for_status(answer: Response, request: ApiRequest) -> None:
    """Raise what asking again would not change; return where it may.

    Raises:
        CredentialsRefused: 401 (a web page), or 403 that says ``forbidden.``.
        RecentDataRefused: 403 of a plan without real-time data.
        UriTooLong: 413, 414 or 431.
        InvalidSymbol: 400 that names one of the symbols.
        BadAnswer: a redirect.
        RequestRefused: any other 4xx.
    """
    from data_engine.alpaca.bars_protocol import error_message, refused_symbol

    status = answer.status
    if status in (408, 425, 429) or status >= 500:
        return
    message = error_message(answer.body, answer.headers.get("content-type", ""))
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
