"""Alpaca's market-data API, as far as historical bars and corporate actions go: `AlpacaClient`.

The client follows pages to the end. What a request means and how a page reads is `wire`'s, and `actions`'s; how one page is
asked for until it comes is `asking`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from data_engine.alpaca.actions_protocol import ActionsRequest, read_actions
from data_engine.alpaca.http_client import ApiSession
from data_engine.alpaca.retry import RetryPolicy
from data_engine.alpaca.transport import Transport
from data_engine.errors import BadAnswer, RecentDataRefused
from data_engine.market.corporate_action import Action
from data_engine.market.dates import DateLike, parse_asof, parse_span
from data_engine.market.series import Adjustment, Dataset, Feed, Timeframe, parse_currency
from data_engine.market.symbol import check_symbol

if TYPE_CHECKING:
    import pandas as pd

    from data_engine.alpaca.bars_protocol import BarsRequest
    from data_engine.market.bars_page import BarsPage


DELAY = timedelta(minutes=16)
"""Plans without real-time data may read the consolidated tape up to 15 minutes ago; one more for clocks that differ."""

_EMPTY_PAGES = 100  # in a row, each with a token: no field report knows more than a few

_SYMBOLS_PER_REQUEST = 500


class AlpacaClient(ApiSession):
    """Historical bars and corporate actions from Alpaca. Safe to share between threads.

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
        self.feed = Feed.parse(feed)
        super().__init__(
            api_key,
            api_secret,
            base_url,
            requests_per_minute=requests_per_minute,
            connections=connections,
            policy=policy,
            transport=transport,
            now=now,
        )
        self._recent_refused = False

    def __repr__(self) -> str:
        return f"AlpacaClient({self.base_url!r}, feed={self.feed.value!r})"

    @property
    def recent_refused(self) -> bool:
        """Whether the account's plan refused the latest 15 minutes, so that ends are clamped."""
        return self._recent_refused

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
        from data_engine.market.bar_frame import ATTRS_KEY, frame_identity, to_frame

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
        frame.attrs[ATTRS_KEY] = frame_identity(dataset, asof, currency)
        return frame

    def request(
        self,
        symbols: Sequence[str],
        dataset: Dataset,
        span: Any,
        *,
        delayed: bool = False,
        now: datetime | None = None,
        asof: date | None = None,
    ) -> BarsRequest | None:
        """Return the request that brings every whole bar starting in *span*, or None where all of it is still to come.

        The range is widened to whole bars, since a bar cut by the edge of a request could be made of half its trades, and
        clamped to now (16 minutes ago with *delayed*, or once the plan has refused more recent data).
        """
        from data_engine.alpaca.bars_protocol import BarsRequest

        now = now or self.now()
        end = now - DELAY if (delayed or self._recent_refused) and dataset.feed in (Feed.SIP, Feed.ACCOUNT) else now
        clamped = dataset.timeframe.widen(span).before(end)
        return BarsRequest(tuple(symbols), dataset, clamped, asof=asof) if clamped else None

    def pages(self, request: BarsRequest) -> Iterator[BarsPage]:
        """Yield the pages of the answer to *request* until the server says that there are no more.

        Symbols come in ascending order, each symbol's bars in time order; a symbol may straddle pages. Short and empty
        pages with a token are not the end.

        Raises:
            BadAnswer: a page cannot be trusted, or the pages do not end.
            SourceError: as `fetch_bars`.
        """
        from data_engine.alpaca.bars_protocol import read_page

        token: str | None = None
        seen: set[str] = set()
        empty = 0
        last: dict[str, int] = {}
        while True:
            try:
                page = self.get_json(request, token, partial(read_page, request=request))
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
            empty = 0 if page.slices else empty + 1
            # A page without bars may name itself again; one with bars that does would bring them for ever.
            again = page.token in seen and not (page.token == token and not page.slices)
            if again or empty > _EMPTY_PAGES:
                raise BadAnswer(f"the pages do not end (answer to: {request})")
            token = page.token
            seen.add(token)

    def corporate_actions(self, symbols: str | Iterable[str], first: date, last: date) -> tuple[Action, ...]:
        """Return the corporate actions of one or several symbols that are processed from *first* to *last*, both included.

        The vendor goes by process date, which for a dividend is the day it is paid, weeks after its ex-date; *last* may lie in
        the future. Follows pages to the end (1,000 actions each).

        Returns:
            Actions of all kinds, those that change no price included, sorted by day.

        Raises:
            InputError: a symbol cannot be one; nothing was sent.
            BadAnswer: a page cannot be trusted, or the pages do not end.
            SourceError: as `fetch_bars`.
        """
        names = [symbols] if isinstance(symbols, str) else list(symbols)
        request = ActionsRequest(tuple(dict.fromkeys(check_symbol(name) for name in names)), first, last)
        found: dict[str, Action] = {}
        token: str | None = None
        seen: set[str] = set()
        empty = 0
        while True:
            page = self.get_json(request, token, partial(read_actions, request=request))
            found.update((action.key, action) for action in page.actions)
            if page.token is None:
                return tuple(sorted(found.values(), key=lambda action: action.order))
            empty = 0 if page.actions else empty + 1
            # As with bars: an empty page may name itself again, for a while.
            if (page.token in seen and not (page.token == token and not page.actions)) or empty > _EMPTY_PAGES:
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


def _in_sequence(page: BarsPage, last: dict[str, int], request: BarsRequest) -> None:
    """Check that a symbol's bars go on where its last page ended; remember where they end now."""
    times = page.times
    for symbol, start, stop in page.slices:
        if symbol in last and int(times[start]) <= last[symbol]:
            raise BadAnswer(f"{symbol}: a page repeats bars of an earlier one (answer to: {request})")
        last[symbol] = int(times[stop - 1])


def _whole_bars(tables: dict[str, list[Any]], timeframe: Timeframe, span: Any, now: datetime) -> Iterator[tuple[str, Any]]:
    """Yield each symbol's bars that start inside *span* and had ended at *now*."""
    import pyarrow as pa

    from data_engine.market.bars import within

    kept = span.before(timeframe.floor(now))
    for symbol, pieces in tables.items():
        bars = pa.concat_tables(pieces)
        yield symbol, within(bars, kept) if kept else bars.slice(0, 0)
