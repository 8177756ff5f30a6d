"""Run tasks in a worker process of a Dask cluster, with a client and a store of its own.

Credentials come from the worker's environment and are never sent. Import it only for a cluster.
"""

from __future__ import annotations

import os
import platform
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from data_engine.alpaca.client import AlpacaClient
from data_engine.alpaca.credentials import DATA_URL, check_data_url, find_credentials
from data_engine.errors import ConfigError, DataEngineError, Failure, Interrupted
from data_engine.ingest.plan import FetchTask
from data_engine.ingest.task import RunOptions, TaskResult, run_task
from data_engine.market.series import Series
from data_engine.store.bar_store import BarStore
from data_engine.store.file_store import Change, FileStore
from data_engine.store.location import open_file_store, parse_location
from data_engine.version import __version__

_PROCESS = uuid.uuid4().hex

_MAX_RUNS = 8  # runs of one cluster that a process keeps a client for


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a worker must know of a run. It is sent with every task and contains no secret.

    Attributes:
        run: The name of the run.
        version: The version of data_engine that the client has.
        location: The location of the store: a path that means the same on every worker, or an ``s3://`` URL.
        run_marker: The key of a file that this store, and no other, has while the run goes on.
        data_url: The URL of the bars that the client uses.
        options: The options of the run.
        shared: Whether the scheduler keeps the run to its rate limit.
        requests_per_minute: The maximum for this process if the scheduler does not. If None, there is none.
    """

    run: str
    version: str
    location: str
    run_marker: str
    data_url: str
    options: RunOptions
    shared: bool = False
    requests_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerResult:
    """What a worker returns for a task.

    Attributes:
        result: The result of the task.
        process: The process that sent *requests*.
        requests: The number of requests that the process has sent for this run so far.
        recent_refused: Whether the account's plan refused the latest minutes.
    """

    result: TaskResult
    process: str = _PROCESS
    requests: int = 0
    recent_refused: bool = False


@dataclass(frozen=True, slots=True)
class _Resources:
    """What a process has for one run."""

    client: AlpacaClient
    storage: BarStore


class MarkedFiles:
    """The files of a store, writable only while a run goes on.

    A process that slept over the end of its run must not write: the store is no longer locked for it, and another run may have
    replaced or removed what it was about to add to.

    Args:
        files: The files of the store.
        run_marker: The key of a file that exists while the run goes on.
    """

    def __init__(self, files: FileStore, run_marker: str) -> None:
        self._files = files
        self._run_marker = run_marker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def update(self, key: str, change: Change) -> bool:
        """Replace a file by what *change* returns for its content.

        Raises:
            Interrupted: If the run has ended; nothing was written.
            StoreError: If the file cannot be written.
        """

        def checked(content: bytes | None) -> bytes | None:
            changed = change(content)
            if changed is not None:
                self._check()
            return changed

        with self._counted():
            return self._files.update(key, checked)

    def update_many(self, changes: Mapping[str, Change]) -> dict[str, DataEngineError]:
        """Replace files together; return the errors of single files.

        Raises:
            Interrupted: If the run has ended; files that had not been replaced by then are as they were.
            StoreError: If the files cannot be written.
        """
        with self._counted():
            return self._files.update_many(changes, before_move=self._check)

    def delete(self, key: str) -> bool:
        """Remove a file; return whether there was one.

        Raises:
            Interrupted: If the run has ended; nothing was removed.
            StoreError: If the file cannot be removed.
        """
        with self._counted():
            self._check()
            return self._files.delete(key)

    def _check(self) -> None:
        if self._files.get(self._run_marker) is None:
            raise Interrupted("the run has ended")

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a write from before it is checked until after it is done, so that `writing` misses none."""
        with _counting:
            _writing[self._run_marker] += 1
        try:
            yield
        finally:
            with _counting:
                _writing[self._run_marker] -= 1


def writing(run_marker: str) -> int:
    """Return how many writes of a run are under way in this process."""
    return _writing[run_marker]


_writing: Counter[str] = Counter()

_counting = threading.Lock()

_resources: dict[str, _Resources] = {}

_lock = threading.Lock()


def dask_setup(worker: object) -> None:  # noqa: ARG001 - Dask calls it to prepare a worker of a local cluster
    """Ignore Ctrl-C: a terminal sends it to all processes, and a worker must still store the bars that arrived."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_worker_task(spec: RunSpec, task: FetchTask, failed: dict[Series, Failure]) -> WorkerResult:
    """Run one task in a worker process. Every error is in the result.

    Args:
        spec: The run of the task.
        task: The task.
        failed: The series of the task that are known to fail; they are not requested.
    """
    try:
        with _lock:
            resources = _resources.get(spec.run) or _set_up(spec)
    except DataEngineError as error:
        return WorkerResult(TaskResult(fatal=error))
    client = resources.client
    result = run_task(task, client, resources.storage, spec.options, failed)
    if result.fatal is not None and not isinstance(result.fatal, Interrupted):
        client.stop()  # later tasks of the run send nothing in this process
    return WorkerResult(result, requests=client.requests, recent_refused=client.recent_refused)


def incompatibility(version: str, data_url: str) -> str | None:
    """Return why this process cannot work for a client, or None if it can.

    Args:
        version: The version of data_engine that the client has.
        data_url: The URL of the bars that the client uses.
    """
    if version != __version__:
        return f"it has data_engine {__version__}, not {version}; install the same version everywhere"
    try:
        if find_credentials() is None:
            return (
                "its environment has no credentials, which are never sent; "
                "set ALPACA_API_KEY and ALPACA_SECRET_KEY where the worker is started"
            )
        worker_url = check_data_url(os.environ.get("APCA_API_DATA_URL") or DATA_URL)
    except ConfigError as error:
        return str(error)
    if worker_url != data_url:
        return f"it fetches bars from {worker_url}, not {data_url}; set APCA_API_DATA_URL to the same everywhere"
    return None


def _set_up(spec: RunSpec) -> _Resources:
    """Make the client and the store of this process for a run.

    Raises:
        ConfigError: If this process cannot work for it.
        StoreError: If its store cannot be read.
    """
    from distributed import get_worker

    worker = get_worker()
    refusal = f"cannot use the Dask worker {worker.address} on {platform.node()}"
    if (reason := incompatibility(spec.version, spec.data_url)) is not None:
        raise ConfigError(f"{refusal}: {reason}")
    files = open_file_store(parse_location(spec.location, None, Path()))
    if files.get(spec.run_marker) is None:
        raise ConfigError(
            f"{refusal}: it does not see the store {spec.location}; "
            "use a disk that all workers and this machine share under the same path, or an s3:// URL"
        )
    storage = BarStore(cast("FileStore", MarkedFiles(files.acting(spec.options.actor), spec.run_marker)))
    storage.coverage.requested.refresh()  # which the run has written before its first task
    client = AlpacaClient(
        base_url=spec.data_url, requests_per_minute=spec.requests_per_minute, connections=max(1, worker.state.nthreads)
    )
    if spec.shared:
        from data_engine.ingest.dask.shared_rate_limit import SharedRateLimiter

        client.rate_limiter = SharedRateLimiter(spec.run, worker)
    while len(_resources) >= _MAX_RUNS:
        del _resources[next(iter(_resources))]
    return _resources.setdefault(spec.run, _Resources(client, storage))
