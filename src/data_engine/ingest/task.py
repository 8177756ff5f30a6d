"""One task from its first request to what came of it: `run_task`. Threads call it here, the processes of a cluster call it there.

One task's failure is data: its symbols fail, their neighbours go on. What ends the whole run (refused credentials, a full disk,
a service that is down, a stop) comes back as `TaskResult.fatal`, with all that was done until then.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from data_engine.errors import (
    BadAnswer,
    ClockError,
    CredentialsRefused,
    DataEngineError,
    Failure,
    Interrupted,
    InvalidSymbol,
    OutOfOrder,
    RequestRefused,
    ServiceDown,
    SourceError,
    SourceUnavailable,
    UriTooLong,
)
from data_engine.ingest.chain import remaining_tasks
from data_engine.ingest.drift import Rechecked
from data_engine.ingest.empty_sessions import EmptySession
from data_engine.ingest.page_writer import PageWriter
from data_engine.ingest.plan import FetchTask
from data_engine.ingest.recheck_writer import RecheckWriter
from data_engine.ingest.series_files import LONG_GROUP_BARS
from data_engine.ingest.source import BarSource
from data_engine.market.bars import NO_CHANGES, Changes
from data_engine.market.series import Series
from data_engine.market.symbol import suggestion
from data_engine.market.time_range import TimeRange, iso
from data_engine.store.bar_store import BarStore

MOST_AHEAD = timedelta(minutes=2)
"""By how much this machine's clock may be ahead of Alpaca's."""

_WITNESSES = 4  # symbols that are requested one by one to learn whether the service answers at all


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What holds for every task of a run. A small value: it may travel.

    Attributes:
        now: when the run began; nothing later is asked for or stored.
        delayed: whether the end of every request is clamped to 16 minutes ago.
        refetch: whether stored bars are being asked for again.
        accept_removals: whether those that no longer come are taken out.
        recheck: Whether covered ranges are fetched again to compare them (`RecheckWriter`).
        actor: Whom the history of the store names, such as ``update of 2024-01-31T02:00:00Z``.
        group_bars: How many bars of few files wait in a task until they are written.
    """

    now: datetime
    delayed: bool = False
    refetch: bool = False
    accept_removals: bool = False
    recheck: bool = False
    actor: str = "ingest"
    group_bars: int = LONG_GROUP_BARS


@dataclass(slots=True)
class TaskResult:
    """What came of one task: counts, and no bar. A small value: it may travel.

    Attributes:
        failed: why, by series.
        basis_changed: adjusted series whose stored prices no longer equal the vendor's.
        basis_same: Where the bars of adjusted series were only compared, and are as they are stored.
        forming: series of which a bar came that had not ended.
        empty: recent sessions of which no bar came to series that traded lately, by series and day.
        unknown: the names of fields of bars that were passed over.
        undated: whether the source did not say what time it is.
        written: bars added or revised, by series.
        vanished: stored bars that complete responses lacked and that were kept, by series.
        changes: of bars, in all.
        rechecked: What was compared, by series.
        pages: answers.
        bars: that arrived.
        fatal: what ends the whole run; the task is not finished then.
    """

    failed: dict[Series, Failure] = field(default_factory=dict)
    basis_changed: set[Series] = field(default_factory=set)
    basis_same: set[tuple[Series, TimeRange]] = field(default_factory=set)
    forming: set[Series] = field(default_factory=set)
    empty: dict[Series, list[EmptySession]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    undated: bool = False
    written: dict[Series, int] = field(default_factory=dict)
    vanished: dict[Series, int] = field(default_factory=dict)
    changes: Changes = NO_CHANGES
    rechecked: dict[Series, Rechecked] = field(default_factory=dict)
    pages: int = 0
    bars: int = 0
    fatal: DataEngineError | None = None


def run_task(
    task: FetchTask,
    source: BarSource,
    storage: BarStore,
    options: RunOptions,
    failed: MutableMapping[Series, Failure],
    on_page: Callable[[int], None] | None = None,
) -> TaskResult:
    """Fetch all that a task asks for and keep it, and whatever it falls into when a part of it fails.

    Args:
        task: what to ask for.
        source: answers.
        storage: keeps.
        options: of the run.
        failed: series that are known to fail are not asked for; those that fail here are added.
        on_page: told of every page, with how many bars of it belong to the task.
    """
    work = _Work(source, storage, options, failed, on_page)
    try:
        work.all_of(task)
    except DataEngineError as error:
        work.result.fatal = error
    return work.result


class _Work:
    """A task that is being done."""

    def __init__(
        self,
        source: BarSource,
        storage: BarStore,
        options: RunOptions,
        failed: MutableMapping[Series, Failure],
        on_page: Callable[[int], None] | None,
    ) -> None:
        self.result = TaskResult()
        self._source = source
        self._storage = storage
        self._options = options
        self._failed = failed
        self._on_page = on_page

    def all_of(self, task: FetchTask) -> None:
        stack = [task]
        while stack:
            part = stack.pop()
            good = tuple(name for name in part.symbols if Series(name, part.dataset) not in self._failed)
            if good:
                part = part.with_symbols(good, estimate=part.estimate)
                left, error = self._chain(part)
                if left and error is not None:
                    stack += self._after(list(remaining_tasks(part, left)), error)

    def _chain(self, task: FetchTask) -> tuple[dict[str, TimeRange], SourceError | None]:
        """Fetch one chain of pages and keep its bars; return what is left to ask, and why."""
        options = self._options
        writer = self._writer(task)
        left: dict[str, TimeRange] = {}
        trouble: SourceError | None = None
        try:
            for chain in writer.chains():
                request = self._source.request(
                    chain.symbols, task.dataset, chain.range, delayed=options.delayed, now=options.now, asof=task.asof
                )
                if request is None:
                    return {}, None
                for page in self._source.pages(request):
                    self._check_clock()
                    bars = writer.take(page, dated=self._source.server_time is not None)
                    self.result.pages += 1
                    self.result.bars += bars
                    self.result.unknown.update(page.unknown)
                    if self._on_page is not None:
                        self._on_page(bars)
            writer.complete()
        except (CredentialsRefused, ServiceDown, Interrupted):
            writer.abort()
            raise
        except SourceError as error:
            if isinstance(error, OutOfOrder):
                writer.distrust()
            left, trouble = writer.abort(), error
        finally:
            self._note(task, writer)
        return left, trouble

    def _writer(self, task: FetchTask) -> PageWriter | RecheckWriter:
        options = self._options
        if options.recheck:
            return RecheckWriter(self._storage, task, now=options.now)
        return PageWriter(
            self._storage,
            task,
            now=options.now,
            refetch=options.refetch,
            accept_removals=options.accept_removals,
            group_bars=options.group_bars,
        )

    def _check_clock(self) -> None:
        """Refuse to go on with a clock that is ahead: what has not happened yet would count as final, and empty."""
        server, now = self._source.server_time, self._options.now
        if server is not None and now - server > MOST_AHEAD:
            here = iso(now.replace(microsecond=0))
            raise ClockError(f"this machine's clock is ahead of Alpaca's: {here} here, {iso(server)} there; set it right")

    def _note(self, task: FetchTask, writer: PageWriter | RecheckWriter) -> None:
        result = self.result
        for symbol, changes in writer.changes.items():
            series = Series(symbol, task.dataset)
            if changes.written:
                result.written[series] = result.written.get(series, 0) + changes.written
            if changes.vanished:
                result.vanished[series] = result.vanished.get(series, 0) + changes.vanished
            result.changes += changes
        for symbol, rechecked in writer.rechecked.items() if isinstance(writer, RecheckWriter) else ():
            series = Series(symbol, task.dataset)
            result.rechecked[series] = result.rechecked.get(series, Rechecked()) + rechecked
        result.undated |= self._source.server_time is None and result.pages > 0
        result.forming.update(Series(symbol, task.dataset) for symbol in writer.forming)
        for symbol, empty in writer.empty.items():
            result.empty.setdefault(Series(symbol, task.dataset), []).extend(empty)
        for symbol, damage in writer.damaged.items():
            self._fail(Series(symbol, task.dataset), damage)
        result.basis_changed.update(Series(symbol, task.dataset) for symbol in writer.basis_changed)
        compared = {
            (Series(symbol, task.dataset), task.own_overlaps[symbol]) for symbol in writer.basis_same if task.compare_only
        }
        result.basis_same.update(compared)

    def _fail(self, series: Series, error: DataEngineError) -> None:
        """Note that a series cannot be completed, with what its name may have been meant to be."""
        meant = suggestion(series.symbol) if isinstance(error, InvalidSymbol) else None
        failure = Failure(error.code, str(error) + (f"; did you mean {meant}?" if meant else ""))
        self._failed[series] = self.result.failed[series] = failure

    def _after(self, rest: list[FetchTask], error: SourceError) -> list[FetchTask]:
        """Return how to go on with what a broken chain has left: one symbol's fault must not be its neighbours'."""
        dataset = rest[0].dataset
        if isinstance(error, InvalidSymbol):
            self._fail(Series(error.symbol, dataset), error)
            return rest
        if may_be_outage(error):
            return self._after_witness(rest, error)
        return self._split(rest, error)

    def _after_witness(self, rest: list[FetchTask], error: SourceError) -> list[FetchTask]:
        """Return how to go on if the service may be down: what fails for every symbol is not split, but fails as a whole."""
        alone = [part.with_symbols((name,), estimate=part.estimate / len(part.symbols)) for part in rest for name in part.symbols]
        if len(alone) == 1:
            return self._split(rest, error)
        several = min(_WITNESSES, len(alone))
        asked: set[str] = set()
        answered = False
        while not answered and len(asked) < several:
            witness = alone[len(asked) * (len(alone) - 1) // (several - 1)]  # the first, the last, and some between
            asked.update(witness.symbols)
            answered = self._answers(witness)
        names = [(part, tuple(name for name in part.symbols if name not in asked)) for part in rest]
        left = [part.with_symbols(those, estimate=part.estimate) for part, those in names if those]
        if answered:
            return [half for part in left for half in _halves(part)]  # one symbol that is left has not been asked alone
        for part in left:
            for symbol in part.symbols:
                self._fail(Series(symbol, part.dataset), error)
        return []

    def _answers(self, witness: FetchTask) -> bool:
        """Fetch a task of one symbol; return whether it got any response."""
        before = self.result.pages
        left, error = self._chain(witness)
        if error is None:
            return True
        for symbol in left:
            self._fail(Series(symbol, witness.dataset), error)
        return self.result.pages > before or not may_be_outage(error)

    def _split(self, rest: list[FetchTask], error: SourceError) -> list[FetchTask]:
        dataset = rest[0].dataset
        parts: list[FetchTask] = []
        for task in rest:
            if len(task.symbols) > 1 and may_split(error):
                parts += _halves(task)
            elif len(rest) > 1 and may_split(error):
                parts.append(task)  # the one that broke off in the middle, now alone
            else:
                for symbol in task.symbols:
                    self._fail(Series(symbol, dataset), error)
        return parts


def _halves(task: FetchTask) -> list[FetchTask]:
    """Return a task as two of half the symbols each, or as it is if it has one symbol."""
    middle = len(task.symbols) // 2
    halves = [half for half in (task.symbols[:middle], task.symbols[middle:]) if half]
    return [task.with_symbols(half, estimate=task.estimate / len(halves)) for half in halves]


def may_be_outage(error: SourceError) -> bool:
    """Tell whether the service may fail for all symbols alike: nothing else got a response since this request began to fail."""
    return isinstance(error, (SourceUnavailable, BadAnswer)) and not error.isolated


def may_split(error: SourceError) -> bool:
    """Tell whether fewer symbols in the request may get another answer. A plan that lacks a feed lacks it for all of them."""
    if isinstance(error, RequestRefused) and not isinstance(error, UriTooLong):
        return error.concerns_symbols
    return isinstance(error, (UriTooLong, SourceUnavailable, BadAnswer))
