"""Fetch historical bars and corporate actions from Alpaca: `AlpacaClient`.

The client decides what to request and whether pages fit together; `http_client` sends the requests, and `bars_protocol` and
`actions_protocol` read the pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from data_engine.alpaca.actions_protocol import ActionsRequest, read_actions
from data_engine.alpaca.http_client import ApiSession
from data_engine.alpaca.page_format import MOST_UNKNOWN, unusable
from data_engine.alpaca.rate_limit import RateLimiter
from data_engine.alpaca.retry import RetryPolicy
from data_engine.alpaca.transport import Transport
from data_engine.errors import BadAnswer, InputError, OutOfOrder, RecentDataRefused
from data_engine.market.corporate_action import Action
from data_engine.market.dates import DateLike, parse_asof, parse_span
from data_engine.market.series import Adjustment, Dataset, Feed, Timeframe, parse_currency
from data_engine.market.symbol import asof_day, check_symbol, ticker_of

if TYPE_CHECKING:
    import pandas as pd

    from data_engine.alpaca.bars_protocol import BarsRequest
    from data_engine.market.bars_page import BarsPage
    from data_engine.market.time_range import TimeRange
from data_engine.market.wording import and_more

DELAY = timedelta(minutes=16)
"""Plans without real-time data may read the consolidated tape up to 15 minutes ago; one more for clocks that differ."""

_SYMBOLS_PER_REQUEST = 500

_LONGEST_NAME = 40  # of a field that is shown


class AlpacaClient:
    """Historical bars and corporate actions from Alpaca. Safe to share between threads; each process makes its own.

    Example:
        >>> with AlpacaClient() as client:
        ...     bars = client.fetch_bars("AAPL", "2024-01-01", "2024-12-31", "1Day")

    Args:
        api_key: The key. If None, like *api_secret* from the environment or a ``.env`` file.
        api_secret: The secret of the key.
        feed: The feed of calls that name none. If None, the consolidated tape (``sip``).
        base_url: The address. If None, ``APCA_API_DATA_URL`` or ``https://data.alpaca.markets``; plain http only to this machine.
        requests_per_minute: An upper bound. If None, only the account's own limit, which is learned.
        connections: The maximum number of open connections; the number of threads that send at once.
        policy: The rule for repeating requests. If None, the defaults of `RetryPolicy`.
        transport: The network, for tests. If None, HTTP.
        now: The clock.

    Attributes:
        feed: The feed of calls that name none.
        base_url: The address of the server.
        credentials_source: The place that the credentials come from, for people.

    Raises:
        ConfigError: If there are no credentials, or the URL would send them unencrypted.
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
        self.feed = Feed.parse(feed)
        self._session = ApiSession(
            api_key,
            api_secret,
            base_url,
            requests_per_minute=requests_per_minute,
            connections=connections,
            policy=policy,
            transport=transport,
        )
        self.base_url = self._session.base_url
        self.credentials_source = self._session.credentials_source
        self._now = now

    def __repr__(self) -> str:
        return f"AlpacaClient({self.base_url!r}, feed={self.feed.value!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self) -> Self:
        """Return a client for one run: of the same account and connections, with its own counts and its own `stop`.

        It can be begun from a client that was stopped.
        """
        run = copy(self)
        run._session = self._session.begin()
        return run

    def close(self) -> None:
        """Close the connections, which the runs that began here share."""
        self._session.close()

    def stop(self, *, at_once: bool = False) -> None:
        """Send nothing more, for ever: pending and later requests raise `Interrupted`. Runs that began here are stopped too.

        Args:
            at_once: Whether requests that were sent are broken off. If not, their responses still count.
        """
        self._session.stop(at_once=at_once)

    @property
    def rate_limiter(self) -> RateLimiter:
        """The account's rate limit. It may be replaced by one that several processes share."""
        return self._session.rate_limiter

    @rate_limiter.setter
    def rate_limiter(self, rate_limiter: RateLimiter) -> None:
        self._session.rate_limiter = rate_limiter

    @property
    def requests(self) -> int:
        """The number of requests sent so far, answered or not; those of the runs that began here are among them."""
        return self._session.requests

    @property
    def allowed(self) -> float | None:
        """The requests per minute that are kept to; None where nothing limits."""
        return self.rate_limiter.allowed

    @property
    def server_time(self) -> datetime | None:
        """The server's time at its last response, UTC; None before the first, or if it does not say."""
        return self._session.server_time

    @property
    def recent_refused(self) -> bool:
        """Whether the account's plan refused the latest 15 minutes, so that ends are truncated."""
        return self._session.recent_refused

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
        """Return the bars of one or several symbols that start inside a range.

        Follows pages to the end, so one call may cost many requests (10,000 bars each). Bars whose interval has not ended are
        left out.

        Args:
            symbols: One or several symbols, as Alpaca writes them (``BRK.B``); ``S@2020-04-01`` is the security that had the
                ticker S on that day.
            start: A New York calendar day, or an aware instant.
            end: A New York calendar day (included), or an aware instant (excluded). If None, now.
            timeframe: ``1Min`` to ``59Min``, ``1Hour`` to ``23Hour``, ``1Day``, ``1Week`` or months; alpaca-py's own too.
            feed: The feed; ``delayed_sip`` is the consolidated tape up to 16 minutes ago. If None, the client's.
            adjustment: ``raw``, ``split``, ``dividend``, ``spin-off``, a list of them, or ``all``. If None, ``raw``.
            asof: The day whose owners of the symbols are meant, or ``-`` for no symbol mapping. If None, today.
            currency: The currency of the prices, ISO 4217. If None, US dollars.

        Returns:
            A frame with index levels ``symbol`` and ``timestamp`` (UTC, ns), sorted, and columns ``open high low close volume
            trade_count vwap``, all float64. A symbol without bars has no rows: a holiday and an unknown symbol look alike.
            ``attrs["data_engine"]`` identifies the dataset; `ParquetStorage.store` reads it.

        Raises:
            InputError: If an argument cannot be used; nothing was sent.
            InvalidSymbol: If Alpaca refuses a symbol as malformed.
            CredentialsRefused: If Alpaca refuses the credentials.
            SourceUnavailable: If there is no usable response after bounded retries.
        """
        from data_engine.market.bar_frame import ATTRS_KEY, frame_identity, to_frame

        requested = _symbols(symbols)
        feed_used = self.feed if feed is None else Feed.parse(feed)
        dataset = Dataset(Timeframe.parse(timeframe), Adjustment.parse(adjustment), feed_used)
        options: dict[str, Any] = {"currency": parse_currency(currency)}
        if asof is not None:
            if any(asof_day(symbol) for symbol in requested):
                raise InputError(f"cannot use asof {asof} with {and_more(requested, 3)}: a symbol with @ names its day")
            options["asof"] = parse_asof(asof)
        now = self._now()
        span = parse_span(start, end, now=now).range
        tables: dict[str, list[Any]] = {}
        for some in _requests(requested):
            request = self.request(some, dataset, span, delayed=feed_used is Feed.DELAYED_SIP, now=now)
            for page in self.pages(replace(request, **options)) if request else ():
                for symbol, bars in page.bars():
                    tables.setdefault(symbol, []).append(bars)
        frame = to_frame(_whole_bars(tables, dataset.timeframe, span, now))
        frame.attrs[ATTRS_KEY] = frame_identity(dataset, asof, currency)
        return frame

    def request(
        self,
        symbols: Sequence[str],
        dataset: Dataset,
        span: TimeRange,
        *,
        delayed: bool = False,
        now: datetime | None = None,
        asof: date | None = None,
    ) -> BarsRequest | None:
        """Return the request for every whole bar that starts in a range, or None if all of it is still to come.

        The range is widened to whole bars, since a bar cut by the edge of a request could be made of half its trades, and
        truncated to now (16 minutes ago with *delayed*, or once the plan has refused more recent data).

        Args:
            symbols: Symbols in ascending order.
            dataset: Their timeframe, adjustment and feed.
            span: Half-open range, UTC.
            delayed: Whether to end before the latest minutes, which a plan may not permit.
            now: The end of the range at the latest. If None, the client's clock.
            asof: The day whose owners of the symbols are meant. If None, today. With ``S@DATE`` among them, that day.

        Raises:
            InputError: If the symbols name another day than *asof*, or several.
        """
        from data_engine.alpaca.bars_protocol import BarsRequest

        end = now or self._now()
        if (delayed or self.recent_refused) and dataset.feed in (Feed.SIP, Feed.ACCOUNT):
            end -= DELAY
        truncated = dataset.timeframe.widen(span).before(end)
        days = {day for symbol in symbols if (day := asof_day(symbol)) is not None} | ({asof} if asof else set())
        if len(days) > 1:
            raise InputError(f"cannot request {and_more(symbols, 3)} together: they are meant as of {and_more(sorted(days), 3)}")
        return BarsRequest(tuple(symbols), dataset, truncated, asof=next(iter(days), None)) if truncated else None

    def pages(self, request: BarsRequest) -> Iterator[BarsPage]:
        """Yield the pages of the response to a request until Alpaca says that there are no more.

        Symbols come in ascending order, the bars of a symbol in order of time; a symbol may span pages. Short and empty pages
        with a token are not the end.

        Raises:
            BadAnswer: If a page cannot be trusted, or the pages do not end.
            SourceError: If Alpaca refuses, or gives no usable response.
            Interrupted: If `stop` was called.
        """
        from data_engine.alpaca.bars_protocol import read_page

        token: str | None = None
        last: dict[str, int] = {}
        try:
            for page in self._session.pages(request, read_page, lambda page: not page.slices):
                _check_sequence(page, last, request)
                token = page.token
                yield replace(page, unknown=self._shown(page.unknown)) if page.unknown else page
        except RecentDataRefused:
            if token is not None:
                raise  # other parameters would not fit the token
            truncated = self._without_recent(request)
            if truncated:
                yield from self.pages(truncated)

    def _shown(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return names that a server sent as they can be shown."""
        return tuple(self._session.quotable(name)[:_LONGEST_NAME] for name in names[:MOST_UNKNOWN])

    def corporate_actions(
        self, symbols: str | Iterable[str], first: date, last: date, *, broken: dict[str, str] | None = None
    ) -> tuple[Action, ...]:
        """Return the corporate actions of one or several symbols that are processed in a range of days.

        Alpaca goes by process date, which for a dividend is the day it is paid, weeks after its ex-date. Follows pages to the
        end (1,000 actions each).

        Args:
            symbols: One or several symbols, as Alpaca writes them.
            first: The first process date.
            last: The last process date, included; it may lie in the future.
            broken: Receives why records of a symbol cannot be used (such as a process date of ``0000-00-00``). If None, such a
                record is an error.

        Returns:
            Actions of all kinds, those that change no price included, sorted by day.

        Raises:
            InputError: If a symbol cannot be one; nothing was sent.
            BadAnswer: If a page cannot be trusted, or the pages do not end.
            SourceError: If Alpaca refuses, or gives no usable response.
        """
        actions: dict[str, Action] = {}
        request = ActionsRequest(tuple(dict.fromkeys(map(ticker_of, _symbols(symbols)))), first, last)
        for page in self._session.pages(request, read_actions, lambda page: not (page.actions or page.broken)):
            if page.broken and broken is None:
                raise BadAnswer(next(iter(page.broken.values())))
            (broken if broken is not None else {}).update(page.broken)
            actions.update((action.key, action) for action in page.actions)
        return tuple(sorted(actions.values(), key=lambda action: action.order))

    def _without_recent(self, request: BarsRequest) -> BarsRequest | None:
        """Return *request* without the latest minutes; the plan's refusal is remembered for all later requests."""
        self._session.recent_refused = True
        span = request.span.before(self._now() - DELAY)
        if span == request.span:
            raise RecentDataRefused(
                f"cannot fetch {request}: the plan does not permit recent SIP data, though the range ends 16 minutes ago by this "
                "machine's clock; set the clock right",
                status=403,
            )
        return replace(request, span=span) if span else None


def _symbols(symbols: str | Iterable[str]) -> tuple[str, ...]:
    """Return one or several symbols, checked, each once."""
    return tuple(dict.fromkeys(map(check_symbol, [symbols] if isinstance(symbols, str) else symbols)))


def _requests(symbols: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the symbols of each request: few enough, and of one day."""
    by_day: dict[date | None, list[str]] = {}
    for symbol in symbols:
        by_day.setdefault(asof_day(symbol), []).append(symbol)
    for alike in by_day.values():
        for first in range(0, len(alike), _SYMBOLS_PER_REQUEST):
            yield tuple(alike[first : first + _SYMBOLS_PER_REQUEST])


def _check_sequence(page: BarsPage, last: dict[str, int], request: BarsRequest) -> None:
    """Check that the bars of each symbol go on where its last page ended; remember in *last* where they end now."""
    times = page.times
    for symbol, start, stop in page.slices:
        if symbol in last and int(times[start]) <= last[symbol]:
            raise unusable(request, f"a page repeats bars of {symbol} from an earlier one", OutOfOrder)
        last[symbol] = int(times[stop - 1])


def _whole_bars(tables: dict[str, list[Any]], timeframe: Timeframe, span: TimeRange, now: datetime) -> Iterator[tuple[str, Any]]:
    """Yield each symbol's bars that start inside *span* and had ended at *now*."""
    import pyarrow as pa

    from data_engine.market.bars import within

    ended = span.before(timeframe.floor(now))
    for symbol, pieces in tables.items():
        bars = pa.concat_tables(pieces)
        yield symbol, within(bars, ended) if ended else bars.slice(0, 0)
