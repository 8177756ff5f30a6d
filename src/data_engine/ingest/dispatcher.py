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

from data_engine.errors import DataEngineError, Interrupted
from data_engine.ingest.plan import FetchTask, IngestionPlan
from data_engine.ingest.progress import Progress, ProgressState
from data_engine.ingest.task import Reason, TaskResult
from data_engine.ingest.worker_pool import WorkerPool
from data_engine.market.series import Series

_STOP_SECONDS = 4.0  # after Ctrl-C, for what is in flight to be stored

_TICK_SECONDS = 0.2


@dataclass(slots=True)
class RunState:
    """What a run knows while it goes on.

    Attributes:
        left: per series, how many tasks are still to be done.
        failed: code and message, by series. Threads that share it add to it while they are at work.
        rebased: adjusted series whose stored prices no longer equal the vendor's.
        held: bars in the store, by series, as last seen.
        written: bars added or revised, by series.
        added: bars that are new, in all.
        revised: bars that changed, in all.
        vanished: stored bars that the vendor no longer has.
        fatal: what ended the whole run; tasks that were merely interrupted because of it do not count.
    """

    left: dict[Series, int] = field(default_factory=dict)
    failed: dict[Series, Reason] = field(default_factory=dict)
    price_base_changed: set[Series] = field(default_factory=set)
    held: dict[Series, int] = field(default_factory=dict)
    written: dict[Series, int] = field(default_factory=dict)
    added: int = 0
    revised: int = 0
    vanished: int = 0
    fatal: DataEngineError | None = None

    def take(self, task: FetchTask, result: TaskResult) -> None:
        """Add what came of one task."""
        self.failed.update(result.failed)
        self.price_base_changed |= result.price_base_changed
        self.held.update(result.held)
        for series, written in result.written.items():
            self.written[series] = self.written.get(series, 0) + written
        self.added += result.added
        self.revised += result.revised
        self.vanished += result.vanished
        if result.fatal is None:
            for symbol in task.symbols:
                self.left[Series(symbol, task.dataset)] -= 1
        elif self.fatal is None or isinstance(self.fatal, Interrupted):
            self.fatal = result.fatal


class Dispatcher:
    """Has the tasks of a plan done.

    Args:
        runner: does them; the caller closes it.
        progress: is told.
        workers: among how many the work is divided.
    """

    def __init__(self, runner: WorkerPool, progress: Progress, *, workers: int) -> None:
        self.found = RunState()
        self.tally = runner.tally()
        self.progress = progress
        self.workers = workers
        self._runner = runner
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long this has been going on."""
        return time.monotonic() - self._started

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
        expected = sum(plan.requests for plan in plans) + self.tally.pages
        tasks = (task for plan in plans for task in plan.tasks)
        alone: deque[FetchTask] = deque()
        running: dict[Future[Any], FetchTask] = {}
        try:
            while self._fill(running, tasks, alone):
                # With a time-out: without one, Ctrl-C would wait on Windows, and the display would stand still.
                for future in wait(running, timeout=_TICK_SECONDS, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    result = self._runner.collect(future, task)
                    if result is None:
                        alone.append(task)
                    else:
                        self.found.take(task, result)
                self.tally = self._runner.tally()
                if self.found.fatal is not None:
                    raise self.found.fatal
                self.progress.update(self._standing(total, expected))
        except BaseException as error:
            self._end(running)
            if isinstance(error, DataEngineError) and self.found.fatal is not None and self.found.fatal is not error:
                raise self.found.fatal from None
            raise

    def _fill(self, running: dict[Future[Any], FetchTask], tasks: Iterator[FetchTask], alone: deque[FetchTask]) -> bool:
        """Keep a few tasks waiting for who is free next; return whether anything is under way."""
        while len(running) < self._runner.window and (task := next(tasks, None)) is not None:
            running[self._runner.submit(task, self.found.failed)] = task
        if not running and alone:
            task = alone.popleft()
            running[self._runner.submit(task, self.found.failed)] = task
        return bool(running)

    def _end(self, running: dict[Future[Any], FetchTask]) -> None:
        """Stop what is under way, and take what still comes of it: bars that had arrived are stored, and count."""
        self._runner.stop()
        for future in wait(running, timeout=_STOP_SECONDS).done:
            if not future.cancelled() and future.exception() is None:
                result = self._runner.collect(future, running[future])
                if result is not None:
                    self.found.take(running[future], result)
        for future in running:
            future.cancel()
        with suppress(DataEngineError):
            self.tally = self._runner.tally()

    def _standing(self, total: int, expected: int) -> ProgressState:
        found, tally, seconds = self.found, self.tally, self.seconds
        failed = len(found.failed)
        waiting = sum(1 for series, tasks in found.left.items() if tasks and series not in found.failed)
        return ProgressState(
            total=total,
            successful=total - failed - waiting,
            failed=failed,
            pages=tally.pages,
            pages_expected=expected,
            bars=tally.bars,
            seconds=seconds,
            per_minute=60 * tally.requests / max(seconds, 1.0),
            allowed=tally.allowed,
        )
