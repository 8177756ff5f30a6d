"""Alpaca's market-data API, as far as historical bars go: `AlpacaClient`.

The client asks, waits its turn, asks again where that can help, and follows pages to the end. What a request means and how
a page reads is `wire`'s; how long to wait is `pacing`'s and `retry`'s; sockets are `transport`'s.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from data_engine.credentials import (
    DATA_URL,
    Credentials,
    check_data_url,
    find_credentials,
    given_credentials,
    missing_credentials_message,
)
from data_engine.errors import (
    BadAnswer,
    ConfigError,
    Interrupted,
    RecentDataRefused,
    ServiceDown,
    SourceError,
    SourceUnavailable,
)
from data_engine.pacing import Pace
from data_engine.refusals import raise_for_good
from data_engine.retry import RetryPolicy, hinted_wait, server_time
from data_engine.series import Adjustment, Dataset, Feed, Timeframe, parse_currency
from data_engine.spans import DateLike, parse_asof, parse_span
from data_engine.symbols import check_symbol
from data_engine.transport import Answer, HttpTransport, Transport, TransportFailed
from data_engine.version import __version__

if TYPE_CHECKING:
    import pandas as pd

    from data_engine.wire import BarsRequest, Page

DELAY = timedelta(minutes=16)
"""Plans without real-time data may read the consolidated tape up to 15 minutes ago; one more for clocks that differ."""

_BARS = "/v2/stocks/bars?"
_BAD_ANSWER_TRIES = 3  # a proxy's page in place of the answer passes; a server that speaks another language does not
_FORGOTTEN = 300.0  # seconds without a failure, after which the next one is a new outage
_EMPTY_PAGES = 100  # in a row, each with a token: no field report knows more than a few
_SYMBOLS_PER_REQUEST = 500


_DECODING = threading.BoundedSemaphore(os.cpu_count() or 1)
"""As many pages are decoded at once as there are cores: more threads would only be in each other's way."""


class AlpacaClient:
    """Historical bars from Alpaca. Safe to share between threads.

    Args:
        api_key: with *api_secret*; both default to the environment or a ``.env`` file (`find_credentials`).
        api_secret: see *api_key*.
        feed: of the bars when a call names none; None is the consolidated tape (``sip``).
        base_url: default ``APCA_API_DATA_URL`` or ``https://data.alpaca.markets``; plain http only to this machine.
        requests_per_minute: an upper bound beside the account's own limit, which is learned.
        connections: kept open at most; the number of threads that will ask at once.
        policy: when to ask again, and when to give up.
        transport: in place of HTTP (tests).

    Raises:
        ConfigError: no credentials, or a URL that would send them in the clear.
    """

    def __init__(
        self,
        api_key: str | None = None,
        api_secret: str | None = None,
        feed: object = None,
        base_url: str | None = None,
        *,
        requests_per_minute: int | None = None,
        connections: int = 16,
        policy: RetryPolicy | None = None,
        transport: Transport | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        import os

        self.feed = Feed.parse(feed)
        self.base_url = check_data_url(base_url or os.environ.get("APCA_API_DATA_URL") or DATA_URL)
        credentials = _credentials(api_key, api_secret)
        self.credentials_source = credentials.source
        self.policy = policy or RetryPolicy()
        self.pace = Pace(requests_per_minute)
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
        self._recent_refused = False
        self._server_time: datetime | None = None

    def __repr__(self) -> str:
        return f"AlpacaClient({self.base_url!r}, feed={self.feed.value!r})"

    def __enter__(self) -> AlpacaClient:
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
    def recent_refused(self) -> bool:
        """Whether the account's plan refused the latest 15 minutes, so that ends are clamped."""
        return self._recent_refused

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

    def fetch_bars(
        self,
        symbols: str | Iterable[str],
        start: DateLike,
        end: DateLike | None = None,
        timeframe: object = "1Min",
        *,
        feed: object = None,
        adjustment: object = None,
        asof: date | str | None = None,
        currency: str | None = None,
    ) -> pd.DataFrame:
        """Return the bars of one or several symbols that start inside the range.

        Follows pages to the end, so one call may cost many requests (10,000 bars each). A symbol without bars has no rows;
        that does not tell a holiday from an unknown symbol. Bars whose interval has not ended are left out.

        Args:
            symbols: as Alpaca writes them (``BRK.B``).
            start: a New York calendar day, or an aware instant.
            end: a day (included) or an aware instant (excluded); None is now.
            timeframe: ``1Min`` to ``59Min``, ``1Hour`` to ``23Hour``, ``1Day``, ``1Week``, months; alpaca-py's own too.
            feed: None is the client's; ``delayed_sip`` is the consolidated tape up to 16 minutes ago.
            adjustment: ``raw`` (default), ``split``, ``dividend``, ``spin-off``, a list of them, or ``all``.
            asof: the day whose symbol mapping is used, ``-`` for none.
            currency: ISO-4217; None is US dollars.

        Returns:
            Index levels ``symbol`` and ``timestamp`` (UTC, ns), sorted; columns ``open high low close volume trade_count
            vwap``, float64. ``attrs["data_engine"]`` says which bars these are; `ParquetStorage.store` reads it.

        Raises:
            InputError: an argument cannot be used; nothing was sent.
            InvalidSymbol: Alpaca refused a symbol as malformed.
            CredentialsRefused: the keys were not accepted.
            SourceUnavailable: no usable answer after bounded retries.
        """
        from data_engine.bars import to_frame
        from data_engine.marks import MARK, mark

        names = [symbols] if isinstance(symbols, str) else list(symbols)
        wanted = tuple(dict.fromkeys(check_symbol(name) for name in names))
        chosen = self.feed if feed is None else Feed.parse(feed)
        dataset = Dataset(Timeframe.parse(timeframe), Adjustment.parse(adjustment), chosen)
        now = self.now()
        span = parse_span(start, end, now=now).range
        tables: dict[str, list[Any]] = {}
        for first in range(0, len(wanted), _SYMBOLS_PER_REQUEST):
            request = self.request(
                wanted[first : first + _SYMBOLS_PER_REQUEST], dataset, span, delayed=chosen is Feed.DELAYED_SIP, now=now
            )
            if request is None:
                continue
            for page in self.pages(replace(request, asof=parse_asof(asof), currency=parse_currency(currency))):
                for symbol, bars in page.bars():
                    tables.setdefault(symbol, []).append(bars)
        frame = to_frame(_whole_bars(tables, dataset.timeframe, span, now))
        frame.attrs[MARK] = mark(dataset, asof, currency)
        return frame

    def request(
        self, symbols: Sequence[str], dataset: Dataset, span: Any, *, delayed: bool = False, now: datetime | None = None
    ) -> BarsRequest | None:
        """Return the request that brings every whole bar starting in *span*, or None where all of it is still to come.

        The range is widened to whole bars, since a bar cut by the edge of a request could be made of half its trades, and
        clamped to now (16 minutes ago with *delayed*, or once the plan has refused more recent data).
        """
        from data_engine.wire import BarsRequest

        now = now or self.now()
        end = now - DELAY if (delayed or self._recent_refused) and dataset.feed in (Feed.SIP, Feed.ACCOUNT) else now
        clamped = dataset.timeframe.widen(span).before(end)
        return BarsRequest(tuple(symbols), dataset, clamped) if clamped else None

    def pages(self, request: BarsRequest) -> Iterator[Page]:
        """Yield the pages of the answer to *request* until the server says that there are no more.

        Symbols come in ascending order, each symbol's bars in time order; a symbol may straddle pages. Short and empty
        pages with a token are not the end.

        Raises:
            BadAnswer: a page cannot be trusted, or the pages do not end.
            SourceError: as `fetch_bars`.
        """
        token: str | None = None
        seen: set[str] = set()
        empty = 0
        last: dict[str, int] = {}
        while True:
            try:
                page = self._page(request, token)
            except RecentDataRefused:
                if token is not None:
                    raise  # other parameters would not fit the token
                clamped = self._clamp(request)
                if clamped is None:
                    return
                request = clamped
                continue
            _in_sequence(page, last, request)
            yield page
            if page.token is None:
                return
            empty = 0 if page.runs else empty + 1
            # A page without bars may name itself again; one with bars that does would bring them for ever.
            again = page.token in seen and not (page.token == token and not page.runs)
            if again or empty > _EMPTY_PAGES:
                raise BadAnswer(f"the pages do not end (answer to: {request})")
            token = page.token
            seen.add(token)

    def _clamp(self, request: BarsRequest) -> BarsRequest | None:
        """Return *request* without the latest minutes, once; the plan's refusal is remembered for all later requests."""
        with self._lock:
            self._recent_refused = True
        span = request.span.before(self.now() - DELAY)
        if span == request.span:
            raise RecentDataRefused(
                "the plan does not permit recent SIP data, though the end was 16 minutes ago; is this machine's clock right?",
                status=403,
            )
        return replace(request, span=span) if span else None

    def _page(self, request: BarsRequest, token: str | None) -> Page:
        from data_engine.wire import read_page

        failures = 0
        while True:
            answer = self._answer(request, token)
            try:
                if "json" not in answer.headers.get("content-type", ""):
                    kind = answer.headers.get("content-type") or "no content type"
                    raise BadAnswer(f"an answer of {kind} where JSON was due (answer to: {request})")
                with _DECODING:
                    return read_page(answer.body, request)
            except BadAnswer:
                failures += 1
                if failures >= _BAD_ANSWER_TRIES:
                    raise
                self._wait(self.policy.wait(failures, random.random()))  # noqa: S311 - jitter is no secret

    def _answer(self, request: BarsRequest, token: str | None) -> Answer:
        """Return the first answer 200, asking again where that can help."""
        path = _BARS + request.query(token)
        failures = 0
        while True:
            answer = self._send(path)
            hint = None
            if isinstance(answer, Answer):
                if answer.status == 200:
                    self._reached()
                    self._server_time = server_time(answer.headers) or self._server_time
                    return answer
                self._raise_for_good(answer, request)
                what = "API rate limit exceeded" if answer.status == 429 else f"the server answered {answer.status}"
                hint = hinted_wait(answer.headers, time.time())
            else:
                what = str(answer)
            self._count_failure(what)
            if isinstance(answer, Answer) and answer.status == 429:
                continue  # pacing makes everybody wait
            failures += 1
            if failures >= self.policy.tries:
                raise SourceUnavailable(f"{what}, {failures} times (asked for: {request})")
            self._wait(max(hint or 0.0, self.policy.wait(failures, random.random())))  # noqa: S311 - jitter is no secret

    def _raise_for_good(self, answer: Answer, request: BarsRequest) -> None:
        """Raise what asking again would not change. A server that repeats the credentials is not quoted with them."""
        try:
            raise_for_good(replace(answer, body=self._credentials.redact(answer.body)), request)
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

    def _send(self, path: str) -> Answer | TransportFailed:
        answer: Answer | TransportFailed | None = None
        wait = self.pace.reserve(time.monotonic())
        try:
            self._wait(wait)
            while left := self.pace.pause_left(time.monotonic()):
                self._wait(left)
            with self._lock:
                self._requests += 1
            try:
                answer = self._transport.get(path)
            except TransportFailed as error:
                answer = error
        finally:
            known = answer if isinstance(answer, Answer) else None
            self.pace.answered(
                time.monotonic(), known.status if known else None, known.headers if known else {}, unix=time.time()
            )
        return answer

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds) if seconds > 0 else self._stop.is_set():
            raise Interrupted("interrupted")


def _in_sequence(page: Page, last: dict[str, int], request: BarsRequest) -> None:
    """Check that a symbol's bars go on where its last page ended; remember where they end now."""
    times = page.times
    for symbol, start, stop in page.runs:
        if symbol in last and int(times[start]) <= last[symbol]:
            raise BadAnswer(f"{symbol}: a page repeats bars of an earlier one (answer to: {request})")
        last[symbol] = int(times[stop - 1])


def _whole_bars(tables: dict[str, list[Any]], timeframe: Timeframe, span: Any, now: datetime) -> Iterator[tuple[str, Any]]:
    """Yield each symbol's bars that start inside *span* and had ended at *now*."""
    import pyarrow as pa

    from data_engine.bars import within

    kept = span.before(timeframe.floor(now))
    for symbol, pieces in tables.items():
        bars = pa.concat_tables(pieces)
        yield symbol, within(bars, kept) if kept else bars.slice(0, 0)


def _credentials(key: str | None, secret: str | None) -> Credentials:
    if key is not None or secret is not None:
        return given_credentials(key, secret)
    found = find_credentials()
    if found is None:
        raise ConfigError(missing_credentials_message())
    return found
