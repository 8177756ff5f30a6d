"""The vendor: a `BarSource` that answers from the truth, fails by the seed, and remembers what it said."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np

from data_engine.errors import (
    BadAnswer,
    CredentialsRefused,
    Interrupted,
    InvalidSymbol,
    ServiceDown,
    SourceUnavailable,
)
from data_engine.market.bars import EMPTY, make_table
from data_engine.market.bars_page import BarsPage
from data_engine.market.corporate_action import Action, decode
from data_engine.market.series import Dataset, Feed
from data_engine.market.time_range import TimeRange

from .market import NEW_YORK, Market, Values, floor, instant, micros, next_bar
from .scheduler import Scheduler

DELAY = timedelta(minutes=16)

Bars = dict[int, tuple[Values, frozenset[int]]]


@dataclass(repr=False)
class Faults:
    """What goes wrong in a step.

    Attributes:
        page: The share of pages at which a request breaks off.
        outage: Whether every request fails.
        outage_at: The number of the request from which on every one fails.
        stop_at: The number of the request at which the client is stopped.
        bad_symbols: The symbols that are refused as malformed.
        broken_symbols: The symbols with which no request is answered.
        credentials_at: The number of the request from which on the keys are refused.
        down_at: The number of the request from which on the service is down.
        free_plan: Whether the latest minutes are refused.
        dated: Whether responses say what time it is.
        lands_at: The number of the request at which corporate actions of the day begin to be adjusted by.
        page_bars: The most bars on a page.
    """

    page: float = 0.0
    outage: bool = False
    outage_at: int | None = None
    stop_at: int | None = None
    bad_symbols: tuple[str, ...] = ()
    broken_symbols: tuple[str, ...] = ()
    credentials_at: int | None = None
    down_at: int | None = None
    free_plan: bool = False
    dated: bool = True
    lands_at: int | None = None
    page_bars: int = 40

    def __repr__(self) -> str:
        plain = Faults()
        return f"Faults({', '.join(f'{name}={value!r}' for name, value in vars(self).items() if value != getattr(plain, name))})"

    @property
    def fatal(self) -> bool:
        """Whether anything may fail."""
        at = (self.outage_at, self.stop_at, self.credentials_at, self.down_at)
        fails = self.page or self.outage or self.bad_symbols or self.broken_symbols
        return bool(fails or any(number is not None for number in at))


@dataclass(eq=False)
class Ask:
    """One request, and what was said to it.

    Attributes:
        symbols: Ascending.
        dataset: Of the bars.
        span: The range that was asked for, before it was widened.
        wide: The range that the vendor answers.
        now: The instant up to which bars have ended.
        asof: The day of the owners.
        said: The bars that were sent, by symbol.
        pages: How many.
        complete: Whether all of them were.
        last: The symbol of the last bar that was sent.
        dated: Whether the time was said.
        run: The process that asked.
        bars: The bars that were to be sent, by symbol.
        thread: The thread that asked.
        wire: The request of the client, if there is one.
    """

    symbols: tuple[str, ...]
    dataset: Dataset
    span: TimeRange
    wide: TimeRange
    now: int
    asof: date | None
    said: dict[str, Bars] = field(default_factory=dict)
    pages: int = 0
    complete: bool = False
    last: str = ""
    dated: bool = True
    run: object = None
    bars: dict[str, Bars] = field(default_factory=dict)
    thread: object = None
    wire: Any = None

    def answered(self, symbol: str) -> tuple[int, int] | None:
        """Return the range of a symbol that was answered in full; bars that have not ended are none of it."""
        start, end = micros(self.span.start), min(micros(self.span.end), micros(self.wide.end))
        end = min(end, floor(min(self.now, micros(self.wide.end)), self.dataset.timeframe))
        if not self.pages:
            return None
        if not self.complete:
            said = self.said.get(symbol)
            if not said or symbol > self.last:
                return None
            if symbol == self.last:
                end = min(end, next_bar(max(said), self.dataset.timeframe))
        return (start, end) if start < end else None

    @property
    def newest(self) -> int | None:
        """The newest bar that was sent."""
        return max((max(bars) for bars in self.said.values() if bars), default=None)


@dataclass
class _Told:
    """What all runs of a step share."""

    scheduler: Scheduler | None = None
    clock: int = 0
    faults: Faults = field(default_factory=Faults)
    base: int | None = None
    random: random.Random = field(default_factory=random.Random)
    asks: list[Ask] = field(default_factory=list)
    sent: int = 0
    refused: bool = False
    answered: bool = False
    runs: list[Any] = field(default_factory=list)


def _reached(number: int | None, sent: int) -> bool:
    return number is not None and sent >= number


class Vendor:
    """Answers from a market.

    Args:
        market: The truth.
    """

    feed = Feed.SIP
    credentials_source = "the simulation"

    def __init__(self, market: Market) -> None:
        self.market = market
        self.requests = 0
        self.stopped = False
        self._told = _Told()
        self._opened = 0

    def open(self, scheduler: Scheduler, clock: int, faults: Faults, seed: object) -> None:
        """Open for a step, at a vendor whose time is *clock*."""
        # What was adjusted by in an earlier step stays so.
        base = max(clock - 86_400_000_000, self._opened) if faults.lands_at is not None else None
        self._opened = clock
        self._told = _Told(scheduler, clock, faults, base, random.Random(f"vendor {seed}"))
        self.requests, self.stopped = 0, False

    def begin(self) -> Vendor:
        """Return a client for one run."""
        run = copy(self)
        run.requests, run.stopped = 0, False
        self._told.runs.append(run)
        return run

    def stop_all(self) -> None:
        """Stop all runs of the step."""
        for run in self._told.runs:
            run.stop()

    @property
    def scheduler(self) -> Scheduler | None:
        return self._told.scheduler

    @property
    def now(self) -> int:
        """The vendor's time: that of the step, and what has passed in suspend."""
        told = self._told
        return told.clock + (int(told.scheduler.suspended) * 1_000_000 if told.scheduler is not None else 0)

    @property
    def asks(self) -> list[Ask]:
        """All requests of the step, in order."""
        return self._told.asks

    @property
    def sent(self) -> int:
        """How many requests were sent in the step, by all runs."""
        return self._told.sent

    @property
    def allowed(self) -> float | None:
        return None

    @property
    def recent_refused(self) -> bool:
        return self._told.refused

    @property
    def server_time(self) -> datetime | None:
        told = self._told
        return instant(self.now) if told.faults.dated and told.answered else None

    def request(
        self,
        symbols: Sequence[str],
        dataset: Dataset,
        span: TimeRange,
        *,
        delayed: bool = False,
        now: datetime | None = None,
        asof: date | None = None,
    ) -> Ask | None:
        told = self._told
        end = now or instant(told.clock)
        if (delayed or told.refused) and dataset.feed in (Feed.SIP, Feed.ACCOUNT):
            end -= DELAY
        wide = dataset.timeframe.widen(span).before(end)
        return None if wide is None else Ask(tuple(symbols), dataset, span, wide, micros(now or instant(told.clock)), asof)

    def corporate_actions(
        self, symbols: Sequence[str], first: date, last: date, *, broken: dict[str, str] | None = None
    ) -> tuple[Action, ...]:
        """Return the records that the vendor has by now; requests for them are no `Ask`."""
        told = self._told
        self._begin_request()
        if told.faults.outage or told.random.random() < told.faults.page:
            raise SourceUnavailable("no usable answer")
        today = instant(self.now).astimezone(NEW_YORK).date()
        known = [decode(kind, record) for since, kind, record in self.market.records if since <= today]
        return tuple(one for one in known if first <= one.process_date <= last and {*one.symbols} & {*symbols})

    def pages(self, request: Ask) -> Iterator[BarsPage]:
        told = self._told
        assert told.scheduler is not None
        thread = told.scheduler.current
        request.run, request.thread = thread.process.name if thread else None, thread
        request.dated = told.faults.dated
        told.asks.append(request)
        self._send(request)
        if told.faults.free_plan and micros(request.wide.end) > self.now - 15 * 60_000_000:
            told.refused = True
            wide = request.wide.before(instant(self.now) - DELAY)
            if wide is None:
                return
            request.wide = wide
        now = self.now
        cuts = self.cuts(self._bars(request, now))
        for number, (symbol, rows) in enumerate(cuts):
            if number:
                self._send(request)
            request.bars = self._bars(request, now)  # adjusted as it is done by now
            token = str(number) if number + 1 < len(cuts) else None
            page = _page(with_values(rows, request.bars), token, request.wide.end)
            self._say(request, symbol, page, more=token is not None)
            yield page

    def _begin_request(self) -> None:
        assert self._told.scheduler is not None
        self._told.scheduler.seam()
        if self.stopped:
            raise Interrupted("interrupted")
        self.requests += 1

    def _send(self, request: Ask) -> None:
        """Send one request: it may fail."""
        told = self._told
        self._begin_request()
        told.sent += 1
        faults, sent = told.faults, told.sent
        if faults.lands_at is not None and sent >= faults.lands_at:
            told.base = None
        if faults.stop_at is not None and sent >= faults.stop_at:
            self.stopped = True
            raise Interrupted("interrupted")
        if _reached(faults.credentials_at, sent):
            raise CredentialsRefused("the keys are refused")
        if _reached(faults.down_at, sent):
            raise ServiceDown("the service is down")
        if faults.outage or _reached(faults.outage_at, sent):
            raise SourceUnavailable("no usable answer")
        for symbol in request.symbols:
            if symbol in faults.bad_symbols:
                raise InvalidSymbol(symbol)
            if symbol in faults.broken_symbols:
                raise SourceUnavailable(f"no usable answer with {symbol}")
        if told.random.random() < faults.page:
            kind = told.random.choice((SourceUnavailable, BadAnswer))
            raise kind("no usable answer")

    def _say(self, request: Ask, last: str, page: BarsPage, *, more: bool) -> None:
        self._told.answered = True
        request.pages += 1
        request.last = last or request.last
        request.complete = not more
        for symbol, table in page.bars():
            said = request.said.setdefault(symbol, {})
            for stamp in table.column("timestamp").cast("int64").to_pylist():
                said[stamp] = request.bars[symbol][stamp]

    def _bars(self, request: Ask, now: int) -> dict[str, Bars]:
        start, end = micros(request.wide.start), micros(request.wide.end)
        dataset, told = request.dataset, self._told
        return {
            symbol: self.market.bars(owner, dataset.timeframe, dataset.adjustment, start, end, now, told.base)
            for symbol in request.symbols
            if (owner := self.market.owner(symbol, request.asof, now)) is not None
        }

    def cuts(self, bars: dict[str, Bars]) -> list[tuple[str, list[tuple[str, int, Values]]]]:
        """Return the rows of each page, with its last symbol: pages are cut anywhere, and some are empty."""
        draw, most = self._told.random, self._told.faults.page_bars
        rows = [(symbol, stamp, values) for symbol in sorted(bars) for stamp, (values, _) in bars[symbol].items()]
        cuts, done = [], 0
        while done < len(rows):
            step = draw.randint(0 if draw.random() < 0.1 else 1, most)
            cuts.append(rows[done : done + step])
            done += step
        if not cuts or draw.random() < 0.1:
            cuts.append([])
        return [(cut[-1][0] if cut else "", cut) for cut in cuts]

    def stop(self, *, at_once: bool = False) -> None:
        self.stopped = True


def with_values(rows: list[tuple[str, int, Values]], bars: dict[str, Bars]) -> list[tuple[str, int, Values]]:
    """Return the rows of a page with the values that its bars have now."""
    return [(symbol, stamp, bars[symbol][stamp][0]) for symbol, stamp, _ in rows]


def _page(rows: list[tuple[str, int, Values]], token: str | None, until: datetime) -> BarsPage:
    if not rows:
        return BarsPage(EMPTY, (), token, 20, until)
    slices: list[tuple[str, int, int]] = []
    for number, (symbol, _, _) in enumerate(rows):
        if slices and slices[-1][0] == symbol:
            slices[-1] = (symbol, slices[-1][1], number + 1)
        else:
            slices.append((symbol, number, number + 1))
    stamps = np.array([stamp for _, stamp, _ in rows], np.int64)
    columns = np.array([values for _, _, values in rows], np.float64).T
    return BarsPage(make_table(stamps, list(columns)), tuple(slices), token, 20 * len(rows), until)
