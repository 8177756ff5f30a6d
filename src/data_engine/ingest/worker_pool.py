"""Who does the tasks of a run: the seam, and `ThreadPool`, the threads of this process; `ingest.dask.dask_pool` has a cluster."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, cast

from data_engine.errors import ConfigError, DataEngineError, Failure, Interrupted
from data_engine.ingest.plan import FetchTask
from data_engine.ingest.source import BarSource
from data_engine.ingest.task import RunOptions, TaskResult, run_task
from data_engine.market.series import Series
from data_engine.store.bar_store import BarStore
from data_engine.store.file_store import Change, FileStore

_WRITING_SECONDS = 25.0
"""How long threads that were stopped may still store what has arrived, after the seconds that the dispatcher has waited."""

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

    def close(self) -> Future[None] | None:
        """Let go of threads and connections.

        Returns:
            A future that is done once nothing of the run can write any more, which takes 30 seconds at most if nothing hangs;
            the store must be locked until then. None if nothing can write already.
        """


class Epoch:
    """The time of one run, after whose end nothing is written for it. Safe to share between threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._writing = 0
        self._ended = False

    def enter(self) -> None:
        """Begin a write, for whose `leave` the end of the run waits.

        Raises:
            Interrupted: If the run has ended.
        """
        with self._changed:
            if self._ended:
                raise Interrupted("the run has ended")
            self._writing += 1

    def leave(self) -> None:
        """End a write."""
        with self._changed:
            self._writing -= 1
            self._changed.notify_all()

    def end(self) -> None:
        """Refuse further writes, and wait for those that were begun."""
        with self._changed:
            self._ended = True
            self._changed.wait_for(lambda: not self._writing)


class RunFiles:
    """The files of a store, which change only as long as a run lasts.

    Args:
        files: The files of the store.
        epoch: The run.
    """

    def __init__(self, files: FileStore, epoch: Epoch) -> None:
        self._files = files
        self._epoch = epoch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def update(self, key: str, change: Change) -> bool:
        """Replace a file by what *change* returns for its content.

        Raises:
            Interrupted: If the run has ended; nothing was written.
            StoreError: If the file cannot be written.
        """
        begun = 0

        def of_run(content: bytes | None) -> bytes | None:
            nonlocal begun
            self._epoch.enter()  # only now: who waits for the lock of a file does not write yet
            begun += 1
            return change(content)

        try:
            return self._files.update(key, of_run)
        finally:
            for _ in range(begun):
                self._epoch.leave()

    def update_many(self, changes: Mapping[str, Change]) -> dict[str, DataEngineError]:
        """Replace files together; return the errors of single files.

        Raises:
            Interrupted: If the run has ended; files that had not been replaced by then are as they were.
            StoreError: If the files cannot be written.
        """
        with ExitStack() as writes:

            def enter() -> None:
                self._epoch.enter()
                writes.callback(self._epoch.leave)

            return self._files.update_many(changes, before_move=enter)

    def delete(self, key: str) -> bool:
        """Remove a file; return whether there was one.

        Raises:
            Interrupted: If the run has ended; nothing was removed.
            StoreError: If the file cannot be removed.
        """
        self._epoch.enter()
        try:
            return self._files.delete(key)
        finally:
            self._epoch.leave()


def _storage_of_run(storage: BarStore, epoch: Epoch, actor: str) -> BarStore:
    """Return a store that writes only as long as a run lasts."""
    return storage.writing_to(cast("FileStore", RunFiles(storage.files.acting(actor), epoch)))


class ThreadPool:
    """Threads of this process, which share a client and a storage.

    What they send and write belongs to this run: once it has ended they do neither, however long one of them was held up.

    Args:
        source: answers. It may be the caller's, who goes on with it.
        storage: keeps.
        options: of the run.
        workers: threads.
    """

    def __init__(self, source: BarSource, storage: BarStore, options: RunOptions, workers: int) -> None:
        self._source = source.begin()
        self._epoch = Epoch()
        self._storage = _storage_of_run(storage, self._epoch, options.actor)
        self._options = options
        self._lock = threading.Lock()
        self._pages = 0
        self._bars = 0
        self._futures: set[Future[TaskResult]] = set()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="ingest")
        self.window = 2 * workers

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
                source.requests,
                self._pages,
                self._bars,
                source.allowed,
                source.recent_refused,
            )

    def stop(self) -> None:
        """Have nothing more sent."""
        self._source.stop()

    def close(self) -> Future[None] | None:
        """Let the threads end: break off their requests, give them time to store what has arrived, then refuse their writes."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._source.stop(at_once=True)
        left = [future for future in tuple(self._futures) if not future.done()]
        if not left:
            self._epoch.end()
            return None
        ended: Future[None] = Future()
        threading.Thread(target=self._wait_for, args=(left, ended), name="ingest-end").start()
        return ended

    def _wait_for(self, left: list[Future[TaskResult]], ended: Future[None]) -> None:
        wait(left, timeout=_WRITING_SECONDS)
        self._epoch.end()
        ended.set_result(None)

    def _do(self, task: FetchTask, failed: MutableMapping[Series, Failure]) -> TaskResult:
        result = run_task(task, self._source, self._storage, self._options, failed, self._on_page)
        if result.fatal is not None and not isinstance(result.fatal, Interrupted):
            self._source.stop()  # at once, before this thread can take another task
        return result

    def _on_page(self, bars: int) -> None:
        with self._lock:
            self._pages += 1
            self._bars += bars


def check_address(address: object) -> str:
    """Return the address of a Dask scheduler, or ``local``.

    Raises:
        ConfigError: it is neither.
    """
    text = address.strip() if isinstance(address, str) else ""
    if text != LOCAL and not re.fullmatch(r"(tcp|tls|ws|wss|ucx|ucxx)://[^\s/]+", text):
        raise ConfigError(f"--dask {address!r}: name a scheduler, as in tcp://host:8786, or say local")
    return text
