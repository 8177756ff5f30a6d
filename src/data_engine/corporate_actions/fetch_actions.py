"""Fetch corporate actions into a store, in few requests.

Symbols that miss the same process dates share requests. The earlier and later tickers of a security are fetched, too: Alpaca
records an action under the ticker of its day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from itertools import chain
from typing import Any

from data_engine.alpaca.client import AlpacaClient
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.symbol_actions import Response, SymbolActions, days
from data_engine.corporate_actions.ticker_changes import TickerChange, ticker_changes_of
from data_engine.errors import (
    BadAnswer,
    DamagedFile,
    Failure,
    InvalidSymbol,
    RequestRefused,
    ServiceDown,
    SourceUnavailable,
    StoreError,
    UriTooLong,
)
from data_engine.market.corporate_action import Action, concerned_symbols
from data_engine.market.time_range import TimeRange, new_york_date, new_york_days, union

_MOST_SYMBOLS, _MOST_CHARACTERS = 200, 2500  # per request; Alpaca splits a response of a thousand actions into pages anyway


@dataclass(slots=True)
class ActionsReport:
    """The result of fetching corporate actions.

    Attributes:
        symbols: The requested symbols, in order.
        added: The number of new or revised actions, by kind.
        held: The number of actions that are stored for the symbols now, by kind.
        withdrawn: The actions that were stored and that Alpaca no longer has.
        renames: The ticker changes of the symbols, and the ends of securities, in order of time.
        related_symbols: The other tickers of the same securities, whose actions were fetched, too.
        local: The local changes of the symbols, as text.
        failed: A symbol, a code and a message for each failure.
        requests: The number of requests.
    """

    symbols: tuple[str, ...]
    added: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    withdrawn: list[Action] = field(default_factory=list)
    renames: tuple[TickerChange, ...] = ()
    related_symbols: tuple[str, ...] = ()
    local: tuple[str, ...] = ()
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    requests: int = 0

    def count(self, before: Iterable[Action], after: Iterable[Action]) -> None:
        """Count what a call has changed, from all actions of before and after it; one that moved to another symbol is in both."""
        known = set(before)
        there = {(action.key, action.symbols): action for action in after}
        self.added.update(action.kind for action in there.values() if action not in known)
        gone = {(action.key, action.symbols): action for action in known if (action.key, action.symbols) not in there}
        self.withdrawn += sorted(gone.values(), key=lambda action: action.order)

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``actions --json`` prints."""
        failed = {symbol for symbol, _, _ in self.failed}
        return {
            "successful": [symbol for symbol in self.symbols if symbol not in failed],
            "failed": [{"symbol": symbol, "code": code, "message": message} for symbol, code, message in self.failed],
            "added": dict(sorted(self.added.items())),
            "held": dict(sorted(self.held.items())),
            "withdrawn": [str(action) for action in self.withdrawn],
            "renames": [{"old": one.old, "new": one.new, "date": one.day} for one in self.renames if one.new],
            "ended": [{"symbol": one.old, **one.to_json()} for one in self.renames if not one.new],
            "further_symbols": list(self.related_symbols),
            "local": list(self.local),
            "requests": self.requests,
        }


def fetch_actions(
    store: ActionStore, client: AlpacaClient, wanted: Mapping[str, TimeRange], *, now: datetime, again: bool = False
) -> ActionsReport:
    """Fetch and store all actions whose ex-dates lie in a range; settled process dates are not requested again.

    Args:
        store: The store of the actions; the caller has its lock.
        client: The client of Alpaca.
        wanted: The requested days (whole New York days) of each symbol.
        now: The current instant.
        again: Whether to request settled process dates, too.

    Raises:
        CredentialsRefused: If Alpaca refuses the keys.
        ServiceDown: If there is no usable response for minutes.
        StoreError: If the store cannot be written.
    """
    fetch = _Fetch(store, client, ActionsReport(tuple(wanted)), now)
    before = client.requests
    done: dict[str, TimeRange] = {}
    todo = dict(wanted)
    try:
        while todo:
            fetch.fetch(todo, again=again)
            done.update(todo)
            todo = {symbol: span for symbol, span in _related(done, fetch.known).items() if done.get(symbol) != span}
    finally:
        fetch.report.requests = client.requests - before
    fetch.report.related_symbols = tuple(sorted(symbol for symbol in done if symbol not in wanted))
    fetch.report.count(chain.from_iterable(fetch.before.values()), (one for book in fetch.known.values() for one in book.actions))
    books = [fetch.known[symbol] for symbol in sorted(done) if symbol in fetch.known]
    # A ticker change is among the actions of both its tickers, and counted once.
    fetch.report.held.update(action.kind for action in {one.key: one for book in books for one in book.actions}.values())
    fetch.report.renames = ticker_changes_of({one.key: one for book in books for one in book.counted}.values())
    fetch.report.local = tuple(change.text(book.symbol) for book in books for change in book.local)
    return fetch.report


@dataclass(frozen=True, slots=True)
class _Fetch:
    """One call of `fetch_actions`.

    Attributes:
        store: The store of the actions.
        client: The client of Alpaca.
        report: The result so far.
        now: The current instant.
        known: The actions in each file that was read or changed, by its symbol.
        before: The actions that they had before the call.
        shared: The actions that name several symbols, in each file that has any.
    """

    store: ActionStore
    client: AlpacaClient
    report: ActionsReport
    now: datetime
    known: dict[str, SymbolActions] = field(default_factory=dict)
    before: dict[str, tuple[Action, ...]] = field(default_factory=dict)
    shared: dict[str, tuple[Action, ...]] = field(default_factory=dict)

    def fetch(self, wanted: Mapping[str, TimeRange], *, again: bool) -> None:
        """Fetch and store what is missing of some symbols; those that miss the same process dates share requests."""
        by_ranges: dict[tuple[TimeRange, ...], list[str]] = {}
        for symbol, span in wanted.items():
            try:
                known = self.known[symbol] = self.store.read(symbol)
                self.before.setdefault(symbol, known.actions)
            except StoreError as error:
                self.report.failed.append((symbol, error.code, str(error)))
                continue
            ranges = SymbolActions(symbol).to_fetch(span) if again else known.to_fetch(span, self.now)
            if ranges:
                by_ranges.setdefault(ranges, []).append(symbol)
            elif known.missing(span):
                self._store((symbol,), wanted, Response(frozenset(), (), {}))
        if by_ranges and not self.shared:
            self.shared.update(self.store.shared_actions())
        for ranges, symbols in by_ranges.items():
            for batch in _batches(symbols):
                for answered, found, failure in _answers(self.client, batch, ranges):
                    if failure is None:
                        self._judge(answered, wanted, Response(frozenset(answered), ranges, {one.key: one for one in found}))
                    self.report.failed += [(symbol, failure.code, failure.message) for symbol in answered if failure]

    def _judge(self, symbols: Sequence[str], wanted: Mapping[str, TimeRange], response: Response) -> None:
        """Store a response for its symbols, once it is known whether what it lacks is withdrawn.

        The symbol whose shares an action concerns decides on that: if the response is for others that the action names, it is
        requested, too. If that fails, so do the symbols that depend on it.
        """
        lacking = [action for actions in self._shared_of(symbols) for action in actions if response.lacks(action)]
        owners = sorted({action.symbol for action in lacking} - response.symbols)
        keys = {action.key for action in lacking}
        failed: dict[str, Failure] = {}
        for batch in _batches(owners):
            for answered, found, failure in _answers(self.client, batch, response.requested):
                if failure is None or failure.code == InvalidSymbol.code:  # what cannot be requested has no actions
                    more = {one.key: one for one in found if one.key in keys}
                    response = Response(response.symbols.union(answered), response.requested, {**response.found, **more})
                else:
                    failed.update(dict.fromkeys(answered, failure))
        named = {name: failed[one.symbol] for one in lacking if one.symbol in failed for name in one.symbols if name in symbols}
        self.report.failed += [(symbol, named[symbol].code, named[symbol].message) for symbol in symbols if symbol in named]
        self._store([symbol for symbol in symbols if symbol not in named], wanted, response)

    def _shared_of(self, symbols: Sequence[str]) -> Iterator[tuple[Action, ...]]:
        """Yield the actions that name several symbols, of all files, and all of some symbols."""
        yield from self.shared.values()
        yield from (self.known[symbol].shared for symbol in symbols)

    def _store(self, symbols: Sequence[str], wanted: Mapping[str, TimeRange], response: Response) -> None:
        """Store a response for its symbols; what it says of actions of other symbols is stored for those.

        The others come first: after a kill between the files, the symbols are requested again, and tell the same.
        """
        more: dict[str, list[Action]] = {symbol: [] for symbol in self.shared}
        for action in response.found.values():
            for name in concerned_symbols(action.kind, action.record):
                more.setdefault(name, []).append(action)
        for symbol in [one for one in more if one not in symbols]:
            if more[symbol] or any(response.latest(action) != action for action in self.shared[symbol]):
                with suppress(DamagedFile):  # a matter of that symbol's own
                    self._update(symbol, partial(_mention, response=response, found=more[symbol]))
        for symbol in symbols:
            self._update(symbol, partial(_answer, wanted=wanted[symbol], response=response, now=self.now))

    def _update(self, symbol: str, change: Callable[[SymbolActions], SymbolActions]) -> None:
        if symbol not in self.before:
            self.before[symbol] = self.store.read(symbol).actions
        self.known[symbol] = self.store.update(symbol, change)
        self.shared[symbol] = self.known[symbol].shared


def _mention(known: SymbolActions, *, response: Response, found: Sequence[Action]) -> SymbolActions:
    """Return the actions of a symbol after a response for others."""
    return known.revised(response).mentioned(found)


def _answer(known: SymbolActions, *, wanted: TimeRange, response: Response, now: datetime) -> SymbolActions:
    """Return the actions of a symbol after a response for it."""
    found = [action for action in response.found.values() if known.symbol in action.symbols]
    return known.revised(response).answered(wanted, response.requested, found, now=now)[0]


def _answers(
    client: AlpacaClient, symbols: Sequence[str], ranges: tuple[TimeRange, ...]
) -> Iterator[tuple[Sequence[str], Sequence[Action], Failure | None]]:
    """Yield symbols with their actions, or with the failure of their request.

    A symbol must not fail for the fault of another: a request that is refused for its symbols is repeated in halves, until the
    symbol at fault is separate; a record that cannot be used fails the symbols that it concerns.
    """
    broken: dict[str, str] = {}
    try:
        found = [action for span in ranges for action in client.corporate_actions(symbols, *days(span), broken=broken)]
    except InvalidSymbol as error:
        yield [error.symbol], (), Failure.of(error)
        rest = [symbol for symbol in symbols if symbol != error.symbol]
        if rest:
            yield from _answers(client, rest, ranges)
    except (UriTooLong, RequestRefused) as error:
        if len(symbols) == 1 or not (isinstance(error, UriTooLong) or error.concerns_symbols):
            yield symbols, (), Failure.of(error)
            return
        middle = len(symbols) // 2
        yield from _answers(client, symbols[:middle], ranges)
        yield from _answers(client, symbols[middle:], ranges)
    except ServiceDown:
        raise
    except (SourceUnavailable, BadAnswer) as error:
        yield symbols, (), Failure.of(error)
    else:
        for symbol in symbols:
            if symbol in broken:
                yield [symbol], (), Failure(BadAnswer.code, broken[symbol])
        whole = [symbol for symbol in symbols if symbol not in broken]
        if whole:
            yield whole, found, None


def _related(done: Mapping[str, TimeRange], known: Mapping[str, SymbolActions]) -> dict[str, TimeRange]:
    """Return the other tickers of the securities, each with the days on which they may have had it."""
    found: dict[str, list[TimeRange]] = {}
    for symbol, span in done.items():
        first, last = days(span)
        for rename in ticker_changes_of(known[symbol].counted) if symbol in known else ():
            if rename.new == symbol and first <= rename.day:
                found.setdefault(rename.old, []).append(new_york_days(first, min(rename.day, last)))
            elif rename.old == symbol and rename.new is not None and rename.day <= last:
                found.setdefault(rename.new, []).append(new_york_days(max(rename.day, first), last))
    hulls = {symbol: union([*spans, *([done[symbol]] if symbol in done else [])]) for symbol, spans in found.items()}
    return {symbol: TimeRange(spans[0].start, spans[-1].end) for symbol, spans in hulls.items()}


def _batches(symbols: Sequence[str]) -> Iterator[list[str]]:
    """Split symbols into as few requests as their number and length allow."""
    batch: list[str] = []
    for symbol in symbols:
        if batch and (len(batch) >= _MOST_SYMBOLS or sum(len(name) + 1 for name in batch) + len(symbol) > _MOST_CHARACTERS):
            yield batch
            batch = []
        batch.append(symbol)
    if batch:
        yield batch


def whole_days(start: datetime, end: datetime) -> TimeRange:
    """Return the New York days that a range of instants overlaps."""
    first: date = new_york_date(start)
    return new_york_days(first, max(first, days(TimeRange(start, end))[1]))
