"""The walk over a plan: tasks on threads, what a failure means, and what came of it.

One task's failure is data: the symbol fails, its neighbours go on. The run's failure is an exception: refused credentials, a
full disk, a service that is down, Ctrl-C.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from data_engine.alpaca import AlpacaClient
from data_engine.chain import ChainWriter, unfinished
from data_engine.coverage import Coverage
from data_engine.errors import (
    BadAnswer,
    ClockError,
    CredentialsRefused,
    DataEngineError,
    Interrupted,
    InvalidSymbol,
    RequestRefused,
    ServiceDown,
    SourceError,
    SourceUnavailable,
    UriTooLong,
)
from data_engine.planning import FetchTask, IngestionPlan
from data_engine.progress import Progress, Standing
from data_engine.ranges import TimeRange, iso
from data_engine.series import Series
from data_engine.storage import ParquetStorage
from data_engine.symbols import suggestion

_STOP_SECONDS = 4.0  # after Ctrl-C, for what is in flight to be stored
_TICK_SECONDS = 0.2
_AHEAD = timedelta(minutes=2)


@dataclass(slots=True)
class Findings:
    """What a run knows while it goes on. Changed by many threads, under *lock*.

    Attributes:
        left: per series, how many tasks are still to be done.
        failed: code and message, by series.
        rebased: adjusted series whose stored prices no longer equal the vendor's.
        known: coverage, by series, as last seen.
        written: bars added or revised, by series.
        added: bars that are new, in all.
        revised: bars that changed, in all.
        vanished: stored bars that the vendor no longer has.
        pages: answers.
        bars: that arrived.
        fatal: what ended the whole run, first of all; the tasks beside it are then merely interrupted.
    """

    left: dict[Series, int] = field(default_factory=dict)
    failed: dict[Series, tuple[str, str]] = field(default_factory=dict)
    rebased: set[Series] = field(default_factory=set)
    known: dict[Series, Coverage] = field(default_factory=dict)
    written: dict[Series, int] = field(default_factory=dict)
    added: int = 0
    revised: int = 0
    vanished: int = 0
    pages: int = 0
    bars: int = 0
    fatal: DataEngineError | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, series: Series, error: DataEngineError) -> None:
        """Note that a series cannot be completed, with what its name may have been meant to be."""
        meant = suggestion(series.symbol) if isinstance(error, InvalidSymbol) else None
        with self.lock:
            self.failed[series] = (error.code, str(error) + (f"; did you mean {meant}?" if meant else ""))


class Fetching:
    """Does the tasks of a plan, a bounded number at a time.

    Args:
        client: asks.
        storage: keeps.
        progress: is told.
        workers: threads.
        now: when the run began; nothing later is asked for or stored.
        delayed: whether the end of every request is clamped to 16 minutes ago.
        refetch: whether stored bars are being asked for again.
        accept_removals: whether those that no longer come are taken out.
    """

    def __init__(
        self,
        client: AlpacaClient,
        storage: ParquetStorage,
        progress: Progress,
        *,
        workers: int,
        now: datetime,
        delayed: bool = False,
        refetch: bool = False,
        accept_removals: bool = False,
    ) -> None:
        self.found = Findings()
        self._client = client
        self._storage = storage
        self.progress = progress
        self.workers = workers
        self._now = now
        self._delayed = delayed
        self._refetch = refetch
        self._accept_removals = accept_removals
        self._started = time.monotonic()
        self._requests_before = client.requests
        client.resume()

    @property
    def seconds(self) -> float:
        """How long this has been going on."""
        return time.monotonic() - self._started

    @property
    def recent_refused(self) -> bool:
        """Whether the account's plan refused the latest minutes."""
        return self._client.recent_refused

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        return self._client.requests - self._requests_before

    def work(self, plans: Sequence[IngestionPlan], total: int) -> None:
        """Do the tasks of *plans* in order.

        Args:
            plans: of one or several datasets.
            total: how many series the run is about, complete ones included.

        Raises:
            DataEngineError: the run cannot go on.
            KeyboardInterrupt: Ctrl-C; what had arrived is stored.
        """
        for plan in plans:
            for symbol, count in plan.outstanding.items():
                self.found.left[Series(symbol, plan.dataset)] = count
        expected = sum(plan.requests for plan in plans) + self.found.pages
        tasks = (task for plan in plans for task in plan.tasks)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="ingest")
        running: set[Future[None]] = set()
        try:
            while self._fill(pool, running, tasks):
                # With a time-out: without one, Ctrl-C would wait on Windows, and the display would stand still.
                done, running = wait(running, timeout=_TICK_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                self.progress.moved(self._standing(total, expected))
        except BaseException as error:
            self._client.stop()
            for future in running:
                future.cancel()
            wait(running, timeout=_STOP_SECONDS)
            if self.found.fatal is not None and self.found.fatal is not error:
                raise self.found.fatal from None
            raise
        finally:
            if all(future.done() for future in running):
                self._client.resume()  # the client may be the caller's, who goes on with it
            pool.shutdown(wait=False, cancel_futures=True)

    def _fill(self, pool: ThreadPoolExecutor, running: set[Future[None]], tasks: Iterator[FetchTask]) -> bool:
        """Keep a few tasks waiting for a free thread; return whether anything is under way."""
        while len(running) < 2 * self.workers and (task := next(tasks, None)) is not None:
            running.add(pool.submit(self._fetch, task))
        return bool(running)

    def _fetch(self, task: FetchTask) -> None:
        """Do one task; what ends the run stops the neighbours at once, before this thread can take another task."""
        try:
            self._fetch_all(task)
        except Interrupted:
            raise
        except DataEngineError as error:
            with self.found.lock:
                self.found.fatal = self.found.fatal or error
            self._client.stop()
            raise

    def _fetch_all(self, task: FetchTask) -> None:
        """Do one task, and whatever it falls into when a part of it fails."""
        found = self.found
        stack = [task]
        while stack:
            part = stack.pop()
            with found.lock:
                good = tuple(name for name in part.symbols if Series(name, part.dataset) not in found.failed)
            if good:
                part = replace(part, symbols=good)
                left, error = self._chain(part)
                if left and error is not None:
                    stack += self._after(list(unfinished(part, left)), error)
        with found.lock:
            for symbol in task.symbols:
                found.left[Series(symbol, task.dataset)] -= 1

    def _chain(self, task: FetchTask) -> tuple[dict[str, TimeRange], SourceError | None]:
        """Fetch one chain of pages and keep its bars; return what is left to ask, and why."""
        writer = ChainWriter(self._storage, task, now=self._now, refetch=self._refetch, accept_removals=self._accept_removals)
        left: dict[str, TimeRange] = {}
        trouble: SourceError | None = None
        known: dict[str, Coverage] = {}
        try:
            for span in writer.spans():
                request = self._client.request(task.symbols, task.dataset, span, delayed=self._delayed, now=self._now)
                if request is None:
                    return {}, None
                for page in self._client.pages(request):
                    self._check_clock()
                    bars = writer.take(page)
                    with self.found.lock:
                        self.found.pages += 1
                        self.found.bars += bars
            known = writer.complete()
        except (CredentialsRefused, ServiceDown, Interrupted):
            writer.break_off()
            raise
        except SourceError as error:
            left, trouble = writer.break_off(), error
        finally:
            self._note(task, writer, known)
        return left, trouble

    def _check_clock(self) -> None:
        """Refuse to go on with a clock that is ahead: what has not happened yet would count as final, and empty."""
        server = self._client.server_time
        if server is not None and self._now - server > _AHEAD:
            here = iso(self._now.replace(microsecond=0))
            raise ClockError(f"this machine's clock is ahead of Alpaca's: {here} here, {iso(server)} there; set it right")

    def _note(self, task: FetchTask, writer: ChainWriter, known: dict[str, Coverage]) -> None:
        found = self.found
        with found.lock:
            for symbol, coverage in known.items():
                found.known[Series(symbol, task.dataset)] = coverage
            for symbol, written in writer.written.items():
                series = Series(symbol, task.dataset)
                found.written[series] = found.written.get(series, 0) + written.added + written.revised
                found.added += written.added
                found.revised += written.revised
                found.vanished += written.vanished
            for symbol, damage in writer.damaged.items():
                found.failed[Series(symbol, task.dataset)] = (damage.code, str(damage))
            found.rebased.update(Series(symbol, task.dataset) for symbol in writer.rebased)

    def _after(self, rest: list[FetchTask], error: SourceError) -> list[FetchTask]:
        """Return how to go on with what a broken chain has left: one symbol's fault must not be its neighbours'."""
        dataset = rest[0].dataset
        if isinstance(error, InvalidSymbol):
            self.found.fail(Series(error.symbol, dataset), error)
            return rest
        parts: list[FetchTask] = []
        for task in rest:
            if len(task.symbols) > 1 and _may_concern_one(error):
                middle = len(task.symbols) // 2
                halves = (task.symbols[:middle], task.symbols[middle:])
                parts += [replace(task, symbols=half, estimate=task.estimate / 2) for half in halves]
            elif len(rest) > 1 and _may_concern_one(error):
                parts.append(task)  # the one that broke off in the middle, now alone
            else:
                for symbol in task.symbols:
                    self.found.fail(Series(symbol, dataset), error)
        return parts

    def _standing(self, total: int, expected: int) -> Standing:
        found = self.found
        with found.lock:
            failed = len(found.failed)
            waiting = sum(1 for series, tasks in found.left.items() if tasks and series not in found.failed)
            seconds = self.seconds
            return Standing(
                total=total,
                successful=total - failed - waiting,
                failed=failed,
                pages=found.pages,
                pages_expected=expected,
                bars=found.bars,
                seconds=seconds,
                per_minute=60 * self.requests / max(seconds, 1.0),
                allowed=self._client.pace.allowed,
            )


def _may_concern_one(error: SourceError) -> bool:
    """Tell whether fewer symbols in the request may get another answer. A plan that lacks a feed lacks it for all of them."""
    if isinstance(error, RequestRefused) and not isinstance(error, UriTooLong):
        return error.concerns_symbols
    return isinstance(error, (UriTooLong, SourceUnavailable, BadAnswer))
