"""The walk over a plan: tasks handed to whoever does them, a bounded number at a time, and what came of it.

One task's failure is data: the symbol fails, its neighbours go on. The run's failure is an exception: refused credentials, a
full disk, a service that is down, Ctrl-C.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from data_engine.errors import DataEngineError, Failure, Interrupted
from data_engine.ingest.drift import Rechecked
from data_engine.ingest.empty_sessions import EmptySession
from data_engine.ingest.page_estimate import PageEstimate
from data_engine.ingest.plan import FetchTask, IngestionPlan
from data_engine.ingest.progress import Progress, ProgressState
from data_engine.ingest.task import TaskResult
from data_engine.ingest.worker_pool import WorkerPool
from data_engine.market.bars import NO_CHANGES, Changes
from data_engine.market.series import Series
from data_engine.market.time_range import TimeRange

_STOP_SECONDS = 3.5  # after Ctrl-C, for what is in flight to arrive and be stored

_TICK_SECONDS = 0.2


@dataclass(slots=True)
class RunState:
    """What a run knows while it goes on. What it ends with is read from the store, not from here.

    Attributes:
        left: How many tasks are still to be done, by series; for progress.
        taken: How often that has changed.
        failed: Why series fail. Threads that share it add to it while they are at work.
        basis_changed: Adjusted series whose stored prices no longer equal the source's.
        basis_same: Where the bars of adjusted series were only compared, and are as they are stored.
        forming: Series of which a bar came that had not ended.
        empty: Recent sessions of which no bar came to series that traded lately, by series and day.
        unknown: The names of fields of bars that were passed over.
        undated: Whether the source did not say what time it is.
        written: The bars added or revised, by series.
        vanished: The stored bars that complete responses lacked and that were kept, by series.
        changes: How bars have changed, in all.
        rechecked: What was compared with what is stored, by series.
        fatal: What ended the whole run; tasks that were merely interrupted because of it do not count.
    """

    left: dict[Series, int] = field(default_factory=dict)
    taken: int = 0
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
    fatal: DataEngineError | None = None

    def take(self, task: FetchTask, result: TaskResult) -> None:
        """Add what came of one task."""
        self.taken += 1
        self.failed.update(result.failed)
        self.basis_changed |= result.basis_changed
        self.basis_same |= result.basis_same
        self.forming |= result.forming
        for series, parts in result.empty.items():
            self.empty.setdefault(series, []).extend(parts)
        self.unknown |= result.unknown
        self.undated |= result.undated
        for series, written in result.written.items():
            self.written[series] = self.written.get(series, 0) + written
        for series, vanished in result.vanished.items():
            self.vanished[series] = self.vanished.get(series, 0) + vanished
        self.changes += result.changes
        for series, rechecked in result.rechecked.items():
            self.rechecked[series] = self.rechecked.get(series, Rechecked()) + rechecked
        if result.fatal is None:
            for symbol in task.symbols:
                self.left[Series(symbol, task.dataset)] -= 1
        elif self.fatal is None or isinstance(self.fatal, Interrupted):
            self.fatal = result.fatal


class Dispatcher:
    """Has the tasks of a plan done.

    Args:
        pool: does them; the caller closes it.
        progress: is told.
        workers: among how many the work is divided.
    """

    def __init__(self, pool: WorkerPool, progress: Progress, *, workers: int) -> None:
        self.state = RunState()
        self.tally = pool.tally()
        self.progress = progress
        self.workers = workers
        self._pool = pool
        self._total = 0
        self._estimate = PageEstimate()
        self._planned: dict[FetchTask, int] = {}
        self._counted = (-1, -1), 0  # what the last count of waiting series was made of, and the count
        self._shown = 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long this has been going on."""
        return time.monotonic() - self._started

    def begin(self, plans: Sequence[IngestionPlan], total: int) -> None:
        """Show what is to be done, before the first of it is.

        Args:
            plans: of one or several datasets.
            total: how many series the run is about, complete ones included.
        """
        for plan in plans:
            for symbol, count in plan.outstanding.items():
                self.state.left[Series(symbol, plan.dataset)] = count
        self.state.taken += 1
        self._total = total
        self._planned = {task: task.pages(plan.page_limit) for plan in plans for task in plan.tasks}
        self._estimate = PageEstimate(self.tally.pages, [self._planned[task] for plan in plans for task in plan.tasks])
        self.show()

    def show(self) -> None:
        """Tell the progress how far the run has come."""
        self._shown = time.monotonic()
        self.progress.update(self._progress_state())

    def tick(self) -> None:
        """Tell the progress unless it was told just now; for steps before the first request that come by the thousand."""
        if time.monotonic() - self._shown >= _TICK_SECONDS:
            self.show()

    def work(self, plans: Sequence[IngestionPlan], total: int) -> None:
        """Do the tasks of *plans* in order.

        Args:
            plans: of one or several datasets.
            total: how many series the run is about, complete ones included.

        Raises:
            DataEngineError: the run cannot go on.
            KeyboardInterrupt: Ctrl-C; what had arrived is stored.
        """
        self.begin(plans, total)
        tasks = (task for plan in plans for task in plan.tasks)
        alone: deque[FetchTask] = deque()
        running: dict[Future[Any], FetchTask] = {}
        try:
            while self._fill(running, tasks, alone):
                # With a time-out: without one, Ctrl-C would wait on Windows, and the display would stand still.
                for future in wait(running, timeout=_TICK_SECONDS, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    result = self._pool.collect(future, task)
                    if result is None:
                        alone.append(task)
                        self._estimate.restart(self._planned[task])
                    else:
                        self.state.take(task, result)
                        self._estimate.finish(self._planned[task], result.pages)
                self.tally = self._pool.tally()
                if self.state.fatal is not None:
                    raise self.state.fatal
                self.show()
        except BaseException as error:
            self._end(running)
            if isinstance(error, DataEngineError) and self.state.fatal is not None and self.state.fatal is not error:
                raise self.state.fatal from None
            raise

    def _fill(self, running: dict[Future[Any], FetchTask], tasks: Iterator[FetchTask], alone: deque[FetchTask]) -> bool:
        """Keep a few tasks waiting for who is free next; return whether anything is under way."""
        while len(running) < self._pool.window and (task := next(tasks, None)) is not None:
            self._submit(task, running)
        if not running and alone:
            self._submit(alone.popleft(), running)
        return bool(running)

    def _submit(self, task: FetchTask, running: dict[Future[Any], FetchTask]) -> None:
        running[self._pool.submit(task, self.state.failed)] = task
        self._estimate.start(self._planned[task])

    def _end(self, running: dict[Future[Any], FetchTask]) -> None:
        """Stop what is under way, and take what still comes of it: bars that had arrived are stored, and count."""
        self._pool.stop()
        for future in wait(running, timeout=_STOP_SECONDS).done:
            if not future.cancelled() and future.exception() is None:
                result = self._pool.collect(future, running[future])
                if result is not None:
                    self.state.take(running[future], result)
        for future in running:
            future.cancel()
        with suppress(DataEngineError):
            self.tally = self._pool.tally()

    def _waiting(self) -> int:
        """Return how many series have tasks left and have not failed; counted anew if either has changed."""
        state = self.state
        made_of = state.taken, len(state.failed)
        if self._counted[0] != made_of:
            waiting = sum(1 for series, tasks in state.left.items() if tasks and series not in state.failed)
            self._counted = made_of, waiting
        return self._counted[1]

    def _progress_state(self) -> ProgressState:
        state, tally, seconds, total = self.state, self.tally, self.seconds, self._total
        failed = len(state.failed)
        waiting = self._waiting()
        return ProgressState(
            total=total,
            successful=total - failed - waiting,
            failed=failed,
            pages=tally.pages,
            pages_expected=self._estimate.expected(tally.pages),
            bars=tally.bars,
            seconds=seconds,
            per_minute=60 * tally.requests / max(seconds, 1.0),
            allowed=tally.allowed,
        )
