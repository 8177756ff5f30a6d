"""Who does the tasks of a run: the seam, and `ThreadPool`, the threads of this process; `ingest.dask.dask_pool` has a cluster."""

from __future__ import annotations

import threading
from collections.abc import MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from data_engine.errors import DataEngineError, Failure, Interrupted
from data_engine.ingest.plan import FetchTask
from data_engine.ingest.source import BarSource
from data_engine.ingest.task import RunOptions, TaskResult, run_task
from data_engine.market.series import Series
from data_engine.store.bar_store import BarStore

LOCAL = "local"
"""In place of the address of a Dask scheduler: a cluster of this machine's cores, for one run."""

RUN_MARKERS = "metadata/runs"
"""Where a run whose workers are elsewhere leaves its sign in the store; they write only while it is there."""


class WorkersLost(DataEngineError):
    """Nobody is left to do the tasks: the scheduler of the cluster is gone, or all its workers are."""

    code = "workers_lost"


@dataclass(frozen=True, slots=True)
class Tally:
    """How far a run has come, as its runner sees it.

    Attributes:
        requests: sent.
        pages: answers.
        bars: that arrived.
        allowed: requests per minute that are kept to; None where nothing limits.
        recent_refused: whether the account's plan refused the latest minutes, so that ends are clamped.
    """

    requests: int = 0
    pages: int = 0
    bars: int = 0
    allowed: float | None = None
    recent_refused: bool = False


class WorkerPool(Protocol):
    """Whoever does tasks, many at a time. Used from the thread that runs the pipeline only."""

    @property
    def window(self) -> int:
        """How many tasks may be submitted and not collected: enough that nobody waits for one."""

    def submit(self, task: FetchTask, failed: MutableMapping[Series, Failure]) -> Future[Any]:
        """Have a task done. Series in *failed* are not asked for; the mapping may be added to."""

    def collect(self, future: Future[Any], task: FetchTask) -> TaskResult | None:
        """Return what came of a task whose future is done; None where it is to be done again, with nothing beside it."""

    def tally(self) -> Tally:
        """Return how far it has come.

        Raises:
            WorkersLost: nobody is left to do what is under way.
        """

    def stop(self) -> None:
        """Have nothing more sent: what is under way ends soon, with `Interrupted`."""

    def close(self) -> None:
        """Let go of threads and connections."""


class ThreadPool:
    """Threads of this process, which share a client and a storage.

    Args:
        source: answers. It may be the caller's, who goes on with it.
        storage: keeps.
        options: of the run.
        workers: threads.
    """

    def __init__(self, source: BarSource, storage: BarStore, options: RunOptions, workers: int) -> None:
        self._source = source
        self._storage = storage
        self._options = options
        self._lock = threading.Lock()
        self._pages = 0
        self._bars = 0
        self._requests_before = source.requests
        self._futures: set[Future[TaskResult]] = set()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="ingest")
        self.window = 2 * workers
        source.resume()

    def submit(self, task: FetchTask, failed: MutableMapping[Series, Failure]) -> Future[TaskResult]:
        """Have a task done; what fails is in *failed* at once, for the tasks beside it."""
        future = self._pool.submit(self._do, task, failed)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def collect(self, future: Future[TaskResult], task: FetchTask) -> TaskResult:  # noqa: ARG002 - others need the task
        """Return what came of a task."""
        return future.result()

    def tally(self) -> Tally:
        """Return how far it has come, by the page."""
        source = self._source
        with self._lock:
            return Tally(
                source.requests - self._requests_before,
                self._pages,
                self._bars,
                source.allowed,
                source.recent_refused,
            )

    def stop(self) -> None:
        """Have nothing more sent."""
        self._source.stop()

    def close(self) -> None:
        """Let the threads end. The client may send again, unless one of them is still at it."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if all(future.done() for future in tuple(self._futures)):
            self._source.resume()

    def _do(self, task: FetchTask, failed: MutableMapping[Series, Failure]) -> TaskResult:
        result = run_task(task, self._source, self._storage, self._options, failed, self._on_page)
        if result.fatal is not None and not isinstance(result.fatal, Interrupted):
            self._source.stop()  # at once, before this thread can take another task
        return result

    def _on_page(self, bars: int) -> None:
        with self._lock:
            self._pages += 1
            self._bars += bars
