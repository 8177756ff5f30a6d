"""Send requests to Alpaca until each is answered: `ApiSession`.

The session has the credentials, waits for the rate limit, repeats what a repetition can mend, and turns refusals into errors.
What requests and pages mean is up to `bars_protocol` and `actions_protocol`.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from weakref import WeakSet

from data_engine.alpaca.api_request import ApiPage, ApiRequest
from data_engine.alpaca.credentials import DATA_URL, check_data_url, require_credentials
from data_engine.alpaca.page_format import unusable
from data_engine.alpaca.rate_limit import RateLimiter
from data_engine.alpaca.refusals import check_json, raise_for_status
from data_engine.alpaca.retry import RetryPolicy, retry_after, server_time
from data_engine.alpaca.transport import Call, HttpTransport, Response, Transport, TransportFailed
from data_engine.cpu import CPU_SLOTS
from data_engine.errors import (
    BadAnswer,
    Interrupted,
    ServiceDown,
    SourceError,
    SourceUnavailable,
)
from data_engine.version import __version__

_BAD_PAGE_TRIES = 3  # a proxy's page in place of the response is gone soon; a server that speaks another language is not

_EMPTY_PAGES = 100  # in a row, each with a token: no field report knows more than a few

_SAME_OUTAGE_SECONDS = 300.0  # without a failure, after which the next one begins a new outage

_LATER = "run `data-engine update` later"

_OUTAGE = 3  # times the tries of the policy, for a request that fails while all others of its run fail too

_NEVER_REACHED = 2  # the same, in a run that has not got any response yet; then it ends


_Request = TypeVar("_Request", bound=ApiRequest)

_Page = TypeVar("_Page", bound=ApiPage)


@dataclass(slots=True)
class _Account:
    """What all runs of a session have learned together of the account and its server."""

    rate_limiter: RateLimiter
    recent_refused: bool = False
    down_since: float | None = None
    failed_at: float = 0.0
    runs: WeakSet[ApiSession] = field(default_factory=WeakSet)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class _Trouble:
    """How often one request has failed, and what its run had seen when it did for the first time.

    Attributes:
        failures: The number of times in a row that it got no response.
        bad_pages: The number of times that its page could not be read.
        own: The number of all its failures.
        answered: The responses of the run then.
        failed: The failures of the run then.
    """

    failures: int = 0
    bad_pages: int = 0
    own: int = 0
    answered: int = 0
    failed: int = 0


class ApiSession:
    """One account at one address. Safe to share between threads.

    A run has a session of its own (`begin`), which shares the account and the connections with the others. Once it was stopped,
    nothing starts it again, so that a thread of a run that has ended cannot send for a later one.

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
        requests: The number of requests sent so far, answered or not; those of the runs that began here are among them.
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
        self._account = _Account(RateLimiter(requests_per_minute))
        self._transport = transport or HttpTransport(
            self.base_url,
            {
                "APCA-API-KEY-ID": self._credentials.key,
                "APCA-API-SECRET-KEY": self._credentials.secret,
                "User-Agent": f"data-engine/{__version__}",
            },
            connections=connections,
        )
        self._reset(None)

    def _reset(self, parent: ApiSession | None) -> None:
        """Begin the counts of a run."""
        self.requests = 0
        self.server_time: datetime | None = None
        self._parent = parent
        self._stop = threading.Event()
        self._calls: set[Call] = set()
        self._answered = 0
        self._failed = 0

    @property
    def rate_limiter(self) -> RateLimiter:
        """The account's rate limit."""
        return self._account.rate_limiter

    @rate_limiter.setter
    def rate_limiter(self, rate_limiter: RateLimiter) -> None:
        self._account.rate_limiter = rate_limiter

    @property
    def recent_refused(self) -> bool:
        """Whether the account's plan refused the latest minutes."""
        return self._account.recent_refused

    @recent_refused.setter
    def recent_refused(self, refused: bool) -> None:
        self._account.recent_refused = refused

    def quotable(self, text: str) -> str:
        """Return a text from a server as it can be shown: short, without control characters and without the keys."""
        return self._credentials.quotable(text)

    def begin(self) -> ApiSession:
        """Return a session for one run: of the same account and connections, with its own counts and its own `stop`."""
        run = copy(self)
        run._reset(self._parent or self)
        with self._account.lock:
            self._account.runs.add(run)
        return run

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def stop(self, *, at_once: bool = False) -> None:
        """Send nothing more, for ever: pending and later requests raise `Interrupted`. Runs that began here are stopped too.

        Args:
            at_once: Whether requests that were sent are broken off. If not, their responses are still returned.
        """
        with self._account.lock:
            stopped = (self, *(() if self._parent is not None else self._account.runs))
            for session in stopped:
                session._stop.set()
            calls = [call for session in stopped for call in session._calls]
        for call in calls if at_once else ():
            call.break_off()

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
        try:
            return self._page(request, token, read)
        except SourceError as error:
            # The one place where what a server said becomes our text. The errors behind this one quote it, too.
            error.args = tuple(self._credentials.quotable(text) if isinstance(text, str) else text for text in error.args)
            error.__cause__ = error.__context__ = None
            raise

    def _page(self, request: _Request, token: str | None, read: Callable[[bytes, _Request], _Page]) -> _Page:
        """Return one page, as `get_json` does; its errors quote the server."""
        trouble = _Trouble()
        while True:
            response = self._get(request, token, trouble)
            try:
                check_json(response, request)
                if request.carries_text and self._credentials.occur_in(response.body.decode("utf-8", "replace")):
                    raise unusable(request, "it repeats the credentials")
                with CPU_SLOTS:
                    page = read(response.body, request)
            except BadAnswer as error:
                self._note_failure(trouble)
                trouble.bad_pages += 1
                if trouble.bad_pages >= _BAD_PAGE_TRIES:
                    error.isolated = self._answered > trouble.answered
                    raise
                self._back_off(trouble.bad_pages)
            else:
                self._note_answer()
                return page

    def _get(self, request: ApiRequest, token: str | None, trouble: _Trouble) -> Response:
        """Return the first response 200, repeating what a repetition can mend."""
        path = request.target(token)
        trouble.failures = 0
        while True:
            response = self._send(path)
            limited, hint = False, None
            if isinstance(response, TransportFailed):
                cause = str(response)
            elif response.status == 200:
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
            self._note_failure(trouble)
            trouble.failures += 1
            self._check_tries(request, trouble, cause)
            self._back_off(trouble.failures, hint or 0.0)

    def _check_tries(self, request: ApiRequest, trouble: _Trouble, cause: str) -> None:
        """Raise what ends a request that has failed too often.

        In an outage, when others of the run fail too and none is answered, it is tried more often, less and less frequently.
        """
        failures, tries = trouble.failures, self.policy.tries
        if failures < tries:
            return
        isolated = self._answered > trouble.answered
        if not isolated and self._failed - trouble.failed > trouble.own:
            if not self._answered and failures >= _NEVER_REACHED * tries:
                raise ServiceDown(
                    f"cannot fetch: Alpaca cannot be reached ({cause}, no usable response to any request); {_LATER}"
                )
            if failures < _OUTAGE * tries:
                return
        error = SourceUnavailable(f"cannot fetch {request}: {cause}, {failures} times; {_LATER}")
        error.isolated = isolated
        raise error

    def _raise_for_status(self, response: Response, request: ApiRequest) -> None:
        """Raise what a repetition would not change."""
        try:
            raise_for_status(response, request)
        except SourceError:
            self._note_answer()  # a refusal is a response, too
            raise

    def _note_answer(self) -> None:
        with self._account.lock:
            self._account.down_since = None
            self._answered += 1

    def _note_failure(self, trouble: _Trouble) -> None:
        with self._account.lock:
            if not trouble.own:
                trouble.answered, trouble.failed = self._answered, self._failed
            self._failed += 1
            trouble.own += 1

    def _count_failure(self, cause: str) -> None:
        now = time.monotonic()
        account = self._account
        with account.lock:
            if account.down_since is None or now - account.failed_at > _SAME_OUTAGE_SECONDS:
                account.down_since = now
            account.failed_at = now
            down = now - account.down_since
        if down > self.policy.give_up_after:
            raise ServiceDown(
                f"cannot fetch: Alpaca cannot be reached (no usable response for {down:.0f} s, last failure: {cause}); {_LATER}"
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
            response = self._call(path)
            status, headers = response.status, response.headers
        except TransportFailed as error:
            if self._stop.is_set():
                raise Interrupted("interrupted") from error
            return error
        else:
            return response
        finally:
            self.rate_limiter.answered(time.monotonic(), status, headers, unix=time.time())

    def _call(self, path: str) -> Response:
        """Send one request, which `stop` can break off."""
        call = Call()
        with self._account.lock:
            if self._stop.is_set():  # looked up where `stop` cannot come between
                raise Interrupted("interrupted")
            self._calls.add(call)
            self.requests += 1
            if self._parent is not None:
                self._parent.requests += 1
        try:
            return self._transport.get(path, call)
        finally:
            with self._account.lock:
                self._calls.discard(call)

    def _back_off(self, failures: int, least: float = 0.0) -> None:
        self._wait(max(least, self.policy.wait(failures, random.random())))  # noqa: S311 - jitter is no secret

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds) if seconds > 0 else self._stop.is_set():
            raise Interrupted("interrupted")
