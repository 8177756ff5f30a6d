"""Corporate actions brought into a store: what is to be asked, in few requests, and what came of it.

Symbols that miss the same process dates share requests. A security's earlier and later tickers come along, since the actions of
its past are recorded under the ticker of then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from data_engine.alpaca.client import AlpacaClient
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.symbol_actions import SymbolActions, days
from data_engine.corporate_actions.ticker_changes import TickerChange, renames_of
from data_engine.errors import BadAnswer, InvalidSymbol, RequestRefused, ServiceDown, SourceUnavailable, StoreError, UriTooLong
from data_engine.market.corporate_action import Action
from data_engine.market.time_range import TimeRange, new_york_date, new_york_days, union

_MOST_SYMBOLS, _MOST_CHARACTERS = 200, 2500  # of one request; an answer of a thousand actions is split in pages anyway


@dataclass(slots=True)
class ActionsReport:
    """What came of bringing corporate actions into a store.

    Attributes:
        symbols: that were wanted, in order.
        added: actions that were not held before, or not so; by kind.
        held: actions that the books of the symbols hold now, by kind.
        withdrawn: actions that were held and that the vendor no longer has.
        renames: name changes of the symbols, in order of time.
        kin: further tickers of the same securities, whose actions were brought along.
        failed: symbol, code and message.
        requests: that were sent.
    """

    symbols: tuple[str, ...]
    added: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    withdrawn: list[Action] = field(default_factory=list)
    renames: tuple[TickerChange, ...] = ()
    related_symbols: tuple[str, ...] = ()
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    requests: int = 0
    _told: set[str] = field(default_factory=set, repr=False)

    def tell(self, new: Iterable[Action], gone: Iterable[Action]) -> None:
        """Count what changed in one book; an action of two symbols is in two books, and counted once."""
        fresh = [action for action in new if action.key not in self._told]
        self.added.update(action.kind for action in fresh)
        lost = [action for action in gone if action.key not in self._told]
        self.withdrawn += lost
        self._told.update(action.key for action in (*fresh, *lost))

    def to_json(self) -> dict[str, Any]:
        """Return the fields that ``actions --json`` prints."""
        lost = {symbol for symbol, _, _ in self.failed}
        return {
            "successful": [symbol for symbol in self.symbols if symbol not in lost],
            "failed": [{"symbol": symbol, "code": code, "message": message} for symbol, code, message in self.failed],
            "added": dict(sorted(self.added.items())),
            "held": dict(sorted(self.held.items())),
            "withdrawn": [str(action) for action in self.withdrawn],
            "renames": [{"old": one.old, "new": one.new, "date": one.day} for one in self.renames],
            "further_symbols": list(self.related_symbols),
            "requests": self.requests,
        }


def gather(
    store: ActionStore, client: AlpacaClient, wanted: Mapping[str, TimeRange], *, now: datetime, again: bool = False
) -> ActionsReport:
    """Bring all actions whose ex-dates lie in a range into the store; what is settled is not asked for again.

    Args:
        store: of the actions; the caller holds it against other runs.
        client: of Alpaca.
        wanted: whole New York days, by symbol.
        now: the current instant.
        again: ask for everything, settled or not.

    Raises:
        CredentialsRefused: the keys were not accepted.
        ServiceDown: no usable answer for minutes.
        StoreError: the store cannot be written.
    """
    made = ActionsReport(tuple(wanted))
    before = client.requests
    books: dict[str, SymbolActions] = {}
    done: dict[str, TimeRange] = {}
    todo = dict(wanted)
    try:
        while todo:
            _bring(store, client, todo, made, books, now=now, again=again)
            done.update(todo)
            todo = {symbol: span for symbol, span in _kin(done, books).items() if done.get(symbol) != span}
    finally:
        made.requests = client.requests - before
    made.related_symbols = tuple(sorted(symbol for symbol in done if symbol not in wanted))
    # A rename is in the books of both its tickers, and counted once.
    every = {action.key: action for book in books.values() for action in book.actions}
    made.held.update(action.kind for action in every.values())
    made.renames = renames_of(every.values())
    return made


def _bring(
    store: ActionStore,
    client: AlpacaClient,
    wanted: Mapping[str, TimeRange],
    made: ActionsReport,
    books: dict[str, SymbolActions],
    *,
    now: datetime,
    again: bool,
) -> None:
    """Ask for what the books of some symbols lack, and write it down."""
    asks: dict[str, tuple[TimeRange, ...]] = {}
    for symbol, span in wanted.items():
        try:
            known = store.read(symbol)
        except StoreError as error:
            made.failed.append((symbol, error.code, str(error)))
            continue
        books[symbol] = known
        asks[symbol] = (SymbolActions(symbol) if again else known).to_ask(span)
        if not asks[symbol] and known.lacking(span):
            books[symbol] = store.update(symbol, lambda book, span=span: book.answered(span, (), (), now=now)[0])  # type: ignore[misc]
    for ranges, symbols in _alike(asks):
        for batch in _batches(symbols):
            for answered, found, failure in _answers(client, batch, ranges):
                if failure is not None:
                    made.failed += [(symbol, failure[0], failure[1]) for symbol in answered]
                else:
                    _keep(store, answered, wanted, ranges, found, made, books, now=now)


def _keep(
    store: ActionStore,
    symbols: Sequence[str],
    wanted: Mapping[str, TimeRange],
    asked: tuple[TimeRange, ...],
    found: Sequence[Action],
    made: ActionsReport,
    books: dict[str, SymbolActions],
    *,
    now: datetime,
) -> None:
    """Write one answer into the books of its symbols; what it says of others goes into theirs."""
    by_symbol: dict[str, list[Action]] = {}
    for action in found:
        ours = [symbol for symbol in symbols if symbol in action.symbols]
        for symbol in ours or [action.symbol]:
            by_symbol.setdefault(symbol, []).append(action)
    for symbol in dict.fromkeys((*symbols, *by_symbol)):
        new: tuple[Action, ...] = ()
        gone: tuple[Action, ...] = ()

        def change(book: SymbolActions, symbol: str = symbol) -> SymbolActions:
            nonlocal new, gone
            if symbol not in symbols:
                return book.mentioned(by_symbol[symbol])
            changed, new, gone = book.answered(wanted[symbol], asked, by_symbol.get(symbol, ()), now=now)
            return changed

        books[symbol] = store.update(symbol, change)
        made.tell(new, gone)


def _answers(
    client: AlpacaClient, symbols: Sequence[str], ranges: tuple[TimeRange, ...]
) -> Iterator[tuple[Sequence[str], Sequence[Action], tuple[str, str] | None]]:
    """Yield symbols with their actions, or with code and message of why they have none.

    One symbol's fault is not its neighbours': a request that fails for its symbols is asked in halves until the one that
    spoils it is alone.
    """
    try:
        found = [action for span in ranges for action in client.corporate_actions(symbols, *days(span))]
    except InvalidSymbol as error:
        yield [error.symbol], (), (error.code, str(error))
        rest = [symbol for symbol in symbols if symbol != error.symbol]
        if rest:
            yield from _answers(client, rest, ranges)
    except (UriTooLong, RequestRefused) as error:
        if len(symbols) == 1 or not (isinstance(error, UriTooLong) or error.concerns_symbols):
            yield symbols, (), (error.code, str(error))
            return
        middle = len(symbols) // 2
        yield from _answers(client, symbols[:middle], ranges)
        yield from _answers(client, symbols[middle:], ranges)
    except ServiceDown:
        raise
    except (SourceUnavailable, BadAnswer) as error:
        yield symbols, (), (error.code, str(error))
    else:
        yield symbols, found, None


def _kin(done: Mapping[str, TimeRange], books: Mapping[str, SymbolActions]) -> dict[str, TimeRange]:
    """Return further tickers of the securities, each with the days on which they may have had it, and those wanted anyway."""
    found: dict[str, list[TimeRange]] = {}
    for symbol, span in done.items():
        first, last = days(span)
        for rename in renames_of(books[symbol].actions) if symbol in books else ():
            if rename.new == symbol and first <= rename.day:
                found.setdefault(rename.old, []).append(new_york_days(first, min(rename.day, last)))
            elif rename.old == symbol and rename.day <= last:
                found.setdefault(rename.new, []).append(new_york_days(max(rename.day, first), last))
    hulls = {symbol: union([*spans, *([done[symbol]] if symbol in done else [])]) for symbol, spans in found.items()}
    return {symbol: TimeRange(spans[0].start, spans[-1].end) for symbol, spans in hulls.items()}


def _alike(asks: Mapping[str, tuple[TimeRange, ...]]) -> Iterable[tuple[tuple[TimeRange, ...], list[str]]]:
    by_ranges: dict[tuple[TimeRange, ...], list[str]] = {}
    for symbol, ranges in asks.items():
        if ranges:
            by_ranges.setdefault(ranges, []).append(symbol)
    return by_ranges.items()


def _batches(symbols: Sequence[str]) -> Iterator[list[str]]:
    """Cut symbols into as few equal requests as their length allows."""
    batch: list[str] = []
    for symbol in symbols:
        if batch and (len(batch) >= _MOST_SYMBOLS or sum(len(name) + 1 for name in batch) + len(symbol) > _MOST_CHARACTERS):
            yield batch
            batch = []
        batch.append(symbol)
    if batch:
        yield batch


def whole_days(start: datetime, end: datetime) -> TimeRange:
    """Return the New York days that a range of instants touches."""
    first: date = new_york_date(start)
    return new_york_days(first, max(first, days(TimeRange(start, end))[1]))
