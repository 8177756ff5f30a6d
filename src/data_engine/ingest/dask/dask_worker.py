"""What runs in a worker process of a Dask cluster: `work` does one task, with a client and a storage of the process's own.

Credentials come from the worker's own environment and never travel. Only imported where a cluster is used.
"""

from __future__ import annotations

import os
import platform
import signal
import threading
import uuid
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

_MOST_BENCHES = 8  # runs that may go on in one cluster at once


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker must know of a run. It travels with every task, and holds no secret.

    Attributes:
        run: its name.
        version: of data_engine that the client has.
        location: of the store: a path that means the same on every worker, or an ``s3://`` address.
        sign: a file that is in this store while the run goes on, and in no other.
        data_url: where the client thinks that the bars come from.
        options: for every task.
        shared: whether the scheduler holds the pace.
        requests_per_minute: where it does not: an upper bound for this process.
    """

    run: str
    version: str
    location: str
    run_marker: str
    data_url: str
    options: RunOptions
    shared: bool
    requests_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Handed:
    """What a worker hands back.

    Attributes:
        result: of the task.
        process: whose *requests* these are.
        requests: sent by the process for this run so far.
        recent_refused: whether the account's plan refused the latest minutes.
    """

    result: TaskResult
    process: str = _PROCESS
    requests: int = 0
    recent_refused: bool = False


@dataclass(frozen=True, slots=True)
class _Bench:
    """What a process has for one run."""

    client: AlpacaClient
    storage: BarStore


class MarkedFiles:
    """The files of a store, to be written while a run goes on: a process that slept over its end changes nothing any more.

    Nobody holds the store for it then: another run may have replaced or removed what it was about to add to.

    Args:
        files: of the store.
        sign: a file that is among them while the run goes on.
    """

    def __init__(self, files: FileStore, sign: str) -> None:
        self._files = files
        self._sign = sign

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def update(self, key: str, change: Change) -> bool:
        """Replace a file by what *change* makes of its content.

        Raises:
            Interrupted: the run has ended; nothing was written.
            StoreError: as the store's own.
        """

        def signed(content: bytes | None) -> bytes | None:
            made = change(content)
            if made is not None and self._files.get(self._sign) is None:
                raise Interrupted("the run has ended")
            return made

        return self._files.update(key, signed)


_benches: dict[str, _Bench] = {}

_lock = threading.Lock()


def dask_setup(worker: object) -> None:  # noqa: ARG001 - Dask's way to prepare a worker of a local cluster
    """Leave Ctrl-C to the client: a terminal sends it to all processes, and a worker still has bars to store."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def work(order: Order, task: FetchTask, failed: dict[Series, Failure]) -> Handed:
    """Do one task in a worker process. Everything that goes wrong is in the result.

    Args:
        order: of the run.
        task: to be done.
        failed: series of the task that are known to fail.
    """
    try:
        with _lock:
            bench = _benches.get(order.run) or _set_up(order)
    except DataEngineError as error:
        return Handed(TaskResult(fatal=error))
    result = run_task(task, bench.client, bench.storage, order.options, failed)
    if result.fatal is not None and not isinstance(result.fatal, Interrupted):
        bench.client.stop()  # what comes after it in this process is not even begun
    return Handed(result, _PROCESS, bench.client.requests, bench.client.recent_refused)


def objection(version: str, data_url: str) -> str | None:
    """Return why this process cannot work for a client, or None where it can.

    Args:
        version: of data_engine that the client has.
        data_url: where the client thinks that the bars come from.
    """
    if version != __version__:
        return f"it has data_engine {__version__}, and this is {version}; install the same version everywhere"
    try:
        if find_credentials() is None:
            return (
                "its environment holds no credentials: set ALPACA_API_KEY and ALPACA_SECRET_KEY where the worker is started; "
                "they are never sent to it"
            )
        ours = check_data_url(os.environ.get("APCA_API_DATA_URL") or DATA_URL)
    except ConfigError as error:
        return str(error)
    if ours != data_url:
        return f"it takes bars from {ours}, and this from {data_url}; set APCA_API_DATA_URL to the same everywhere"
    return None


def _set_up(order: Order) -> _Bench:
    """Make the client and the storage of this process for a run.

    Raises:
        ConfigError: this process cannot work for it.
        StoreError: its store cannot be read.
    """
    from distributed import get_worker

    worker = get_worker()
    here = f"the Dask worker {worker.address} on {platform.node()}"
    if (reason := objection(order.version, order.data_url)) is not None:
        raise ConfigError(f"{here} cannot take part: {reason}")
    files = open_file_store(parse_location(order.location, None, Path()))
    if files.get(order.run_marker) is None:
        raise ConfigError(
            f"{here} does not see the store {order.location}: it needs a disk that all workers and this machine share, "
            "under the same path, or an s3:// address"
        )
    storage = BarStore(cast("FileStore", MarkedFiles(files, order.run_marker)))
    client = AlpacaClient(
        base_url=order.data_url, requests_per_minute=order.requests_per_minute, connections=max(1, worker.state.nthreads)
    )
    if order.shared:
        from data_engine.ingest.dask.shared_rate_limit import SharedPace

        client.rate_limiter = SharedPace(order.run, worker)
    while len(_benches) >= _MOST_BENCHES:
        del _benches[next(iter(_benches))]
    return _benches.setdefault(order.run, _Bench(client, storage))
