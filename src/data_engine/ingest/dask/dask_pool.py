"""The workers of a Dask cluster as a `WorkerPool`: tasks go out, counts come back, bars go from the workers to the store.

Dask is touched here, in `dask_worker` and in `cluster_pace`, and nowhere else, through its ``concurrent.futures`` executor. What
it promises is that a task is done at least once: the task of a worker that was killed is done again elsewhere, and one that was
given up may come back and do it a second time. The store's merges make that harmless.
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import platform
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from data_engine.errors import ConfigError, Failure, Interrupted, StoreError
from data_engine.ingest.plan import FetchTask
from data_engine.ingest.task import RunOptions, TaskResult
from data_engine.ingest.worker_pool import LOCAL, RUN_MARKERS, Tally, WorkersLost
from data_engine.market.series import Series
from data_engine.store.bar_store import BarStore
from data_engine.version import __version__

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

    from data_engine.ingest.dask.dask_worker import Handed


PATIENCE = 60.0
"""Seconds without any worker, after which a run gives up."""

_CONNECT_SECONDS = 10.0

_CHECK_SECONDS = 20.0  # for every worker to say whether it can take part

_LOOK_SECONDS = 0.5  # between two questions to the scheduler

_MOST_TRIES = 3  # of a task whose worker lost the scheduler on the way

_NOT_TAKEN = (AttributeError, KeyError, TypeError, ValueError, RuntimeError, AssertionError)
"""What comes back from a scheduler that does not know our plugin's way of talking to workers."""

_MISSING = "--dask needs Dask's distributed, which is not installed: pip install 'data-engine[dask]'"

_NO_GUARD = "A script that uses dask='local' makes its calls below: if __name__ == \"__main__\":"


class DaskPool:
    """The workers of a Dask cluster. They make their own clients, with the credentials of their own environment.

    Args:
        address: of the scheduler, or `LOCAL`.
        storage: where the workers write; its location must mean the same to all of them.
        options: of the run.
        workers: of a local cluster: how many requests may be under way at once.
        data_url: where bars come from; the workers' environment must say the same.
        requests_per_minute: an upper bound for the whole cluster; None learns the account's limit.
        note: told what is worth saying.
        patience: seconds to wait for a worker where there is none; None is a minute.

    Raises:
        ConfigError: ``distributed`` is not installed, no scheduler answers, or a worker cannot take part.
        WorkersLost: no worker came.
    """

    def __init__(
        self,
        address: str,
        storage: BarStore,
        options: RunOptions,
        *,
        workers: int,
        data_url: str,
        requests_per_minute: int | None = None,
        note: Callable[[str], None] = lambda text: None,  # noqa: ARG005
        patience: float | None = None,
    ) -> None:
        from data_engine.ingest.dask.dask_worker import Order

        _check_installed()
        self._files = storage.files
        self._check_place()
        self._address = address
        self._patience = PATIENCE if patience is None else patience
        self._opened = self._stopped = self._signed = False
        self._tries: Counter[FetchTask] = Counter()
        self._by_process: dict[str, int] = {}
        self._requests = self._pages = self._bars = self._under_way = self._threads = 0
        self._allowed: float | None = None
        self._recent_refused = False
        self._seen = self._looked = time.monotonic()
        self._cluster: LocalCluster | None = None
        self._client: Client | None = None
        run = uuid.uuid4().hex
        try:
            client = self._client = self._connect(workers)
            self._threads = self._wait_for_workers(client, note)
            shared = self._share_pace(client, run, requests_per_minute)
            self._check(client, data_url)
            processes = len(client.nthreads())
        except BaseException:
            self.close()
            raise
        share = None
        if not shared:
            share = None if requests_per_minute is None else max(1, requests_per_minute // max(1, processes))
            note(_alone_note(processes, share))
        self._order = Order(
            run, __version__, storage.files.location, f"{RUN_MARKERS}/{run}.json", data_url, options, shared, share
        )
        self._executor = client.get_executor(pure=False)  # pure: five equal tasks would be done once
        self._tally = Tally()
        self._opened = True

    @property
    def window(self) -> int:
        """Twice as many tasks as the cluster has threads."""
        return 2 * max(1, self._threads)

    def submit(self, task: FetchTask, failed: Mapping[Series, Failure]) -> Future[Handed]:
        """Have a task done by some worker; what is known to fail by now is not asked for."""
        from data_engine.ingest.dask.dask_worker import work

        if not self._signed:
            self._sign()
        named = {series: failed[series] for name in task.symbols if (series := Series(name, task.dataset)) in failed}
        self._under_way += 1
        order = self._order
        if self._recent_refused:  # by one process: the others need not find out for themselves
            order = replace(order, options=replace(order.options, delayed=True))
        return self._executor.submit(work, order, task, named)  # type: ignore[no-any-return]

    def collect(self, future: Future[Handed], task: FetchTask) -> TaskResult | None:
        """Return what came of a task; None where its worker died or lost the scheduler, and it is tried once more, alone."""
        from distributed import KilledWorker

        self._under_way -= 1
        self._tries[task] += 1
        try:
            handed = future.result()
        except CancelledError:
            return TaskResult(fatal=self._lost("the scheduler is gone"))
        except KilledWorker as error:
            # Beside a task that kills its worker all others of that worker look as bad; alone, each shows what it is.
            if self._tries[task] == 1:
                return None
            failure = Failure(
                "worker_died",
                f"the workers died while they fetched this, {error.allowed_failures + 1} times in a row; look at their logs, "
                "and at their memory limit",
            )
            return TaskResult(failed={Series(symbol, task.dataset): failure for symbol in task.symbols})
        except ImportError as error:
            return TaskResult(fatal=ConfigError(f"a Dask worker cannot run this version of data_engine: {error}"))
        if isinstance(handed.result.fatal, Interrupted) and not self._stopped:
            if self._tries[task] < _MOST_TRIES:
                return None
            return TaskResult(fatal=self._lost("workers cannot reach the scheduler"))
        del self._tries[task]
        self._bars += handed.result.bars
        if not self._order.shared:
            self._by_process[handed.process] = max(handed.requests, self._by_process.get(handed.process, 0))
            self._requests = sum(self._by_process.values())
            self._pages += handed.result.pages
        self._recent_refused |= handed.recent_refused
        return handed.result

    def tally(self) -> Tally:
        """Return how far it has come: by the request where the scheduler holds the pace, else by the task.

        Raises:
            WorkersLost: there has been no worker for too long.
        """
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS or self._stopped or not self._under_way:
            self._looked = now
            self._look(now)
        return self._tally

    def stop(self) -> None:
        """Have nothing more sent: workers that ask for their next request are told that the run has ended."""
        from data_engine.ingest.dask import shared_rate_limit as cluster_pace

        self._stopped = True
        if self._order.shared:
            self._tell_scheduler(cluster_pace.end, self._order.run)

    def close(self) -> None:
        """Leave the cluster, and end it if it is our own."""
        from data_engine.ingest.dask import shared_rate_limit as cluster_pace

        try:
            if self._signed:
                with suppress(StoreError):  # then the next run removes it
                    self._files.delete(self._order.run_marker)
            if self._opened and self._order.shared:
                self._tell_scheduler(cluster_pace.forget, self._order.run)
        finally:
            if self._client is not None:
                self._client.close(timeout=2)
            if self._cluster is not None:
                self._cluster.close(timeout=5)

    # ------------------------------------------------------------------------------------------------------------ the cluster

    def _check_place(self) -> None:
        """Raise `ConfigError` where other processes cannot write to the store."""
        location = self._files.location
        if self._files.folder is None and not location.startswith("s3://"):
            raise ConfigError(f"the store {location} is this process's own; --dask needs a folder or an s3:// address")
        if (caution := self._files.write_warning()) is not None:
            raise ConfigError(f"--dask needs a store that many processes can write to. {caution}")

    def _sign(self) -> None:
        """Leave a sign in the store, by which a worker knows that it sees the same one. The caller holds the store."""
        words = {"host": platform.node(), "pid": os.getpid(), "by": f"data-engine {__version__}"}
        self._files.update(self._order.run_marker, lambda _: json.dumps(words).encode())
        self._signed = True

    def _connect(self, workers: int) -> Client:
        from distributed import Client

        if self._address == LOCAL:
            self._cluster = _local_cluster(workers)
        try:
            return Client(self._cluster or self._address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise ConfigError(
                f"--dask {self._address}: no Dask scheduler answers there ({type(error).__name__}); "
                "start one with `dask scheduler`"
            ) from error

    def _wait_for_workers(self, client: Client, note: Callable[[str], None]) -> int:
        """Return the cluster's threads, as soon as there is any."""
        threads: int = sum(client.nthreads().values())
        if not threads:
            note(f"No worker is at {self._address} yet; waiting up to {self._patience:g} s for one")
            try:
                client.wait_for_workers(1, timeout=self._patience)
            except TimeoutError as error:
                raise self._lost(f"no worker came within {self._patience:g} s") from error
            threads = sum(client.nthreads().values())
        return threads

    def _check(self, client: Client, data_url: str) -> None:
        """Raise `ConfigError` where a worker cannot take part. One that does not answer is not waited for."""
        from data_engine.ingest.dask.dask_worker import objection

        asked = {
            client.get_executor(pure=False, workers=[worker]).submit(objection, __version__, data_url): worker
            for worker in client.nthreads()
        }
        reasons = {}
        for future in wait(asked, timeout=_CHECK_SECONDS).done:
            if future.cancelled():
                continue
            if (error := future.exception()) is not None:
                reasons[asked[future]] = f"data_engine {__version__} cannot be used there: {error}"
            elif (reason := future.result()) is not None:
                reasons[asked[future]] = reason
        if reasons:
            lines = [f"the Dask worker {worker} cannot take part: {reason}" for worker, reason in sorted(reasons.items())]
            raise ConfigError("\n".join(lines[:5] + [f"and {len(lines) - 5} more"] * (len(lines) > 5)))

    def _share_pace(self, client: Client, run: str, requests_per_minute: int | None) -> bool:
        """Put the pace of this run into the scheduler; return whether it is there."""
        from data_engine.ingest.dask import shared_rate_limit as cluster_pace

        try:
            version = client.run_on_scheduler(cluster_pace.installed)
        except ImportError as error:
            raise ConfigError(
                f"the Dask scheduler at {self._address} cannot import data_engine: {error}; install it there"
            ) from error
        if version != __version__:
            raise ConfigError(
                f"the Dask scheduler at {self._address} has data_engine {version}, and this is {__version__}; "
                "install the same version everywhere"
            )
        try:
            client.register_plugin(cluster_pace.ClusterPace(), name=cluster_pace.NAME)
            client.run_on_scheduler(cluster_pace.begin, run, client.id, requests_per_minute)
        except _NOT_TAKEN:
            return False
        return True

    def _tell_scheduler(self, function: Callable[..., Any], *words: Any) -> Any:
        """Call a function in the scheduler; return None where the scheduler is not there any more."""
        if self._client is None or self._client.status != "running":
            return None
        with suppress(OSError, TimeoutError):
            return self._client.run_on_scheduler(function, *words)
        return None

    def _look(self, now: float) -> None:
        from data_engine.ingest.dask import shared_rate_limit as cluster_pace

        told = self._tell_scheduler(cluster_pace.tally, self._order.run)
        if told is not None:
            self._threads = told.threads
            self._seen = now if told.threads else self._seen
            if self._order.shared:
                self._requests, self._pages, self._allowed = told.requests, told.pages, told.allowed
        self._tally = Tally(self._requests, self._pages, self._bars, self._allowed, self._recent_refused)
        if self._under_way and not self._stopped and now - self._seen > self._patience:
            raise self._lost(f"no worker has been there for {self._patience:g} s")

    def _lost(self, why: str) -> WorkersLost:
        return WorkersLost(f"Dask at {self._address}: {why}; what had arrived is stored, and the same command goes on from here")


def _check_installed() -> None:
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise ConfigError(_MISSING) from error


def _local_cluster(workers: int) -> LocalCluster:
    """Return a cluster of one process per core on this machine, for *workers* requests at once."""
    import dask
    from dask.system import CPU_COUNT
    from distributed import LocalCluster

    # Dask starts its workers anew from this program, which must not start a cluster in its turn.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(_NO_GUARD)
    processes = max(1, min(CPU_COUNT, workers))
    try:
        with dask.config.set({"distributed.scheduler.worker-ttl": "60s"}):
            return LocalCluster(
                n_workers=processes,
                threads_per_worker=math.ceil(workers / processes),
                processes=True,
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
                preload=["data_engine.ingest.dask.dask_worker"],
            )
    except RuntimeError as error:
        raise ConfigError(f"--dask local: the workers cannot be started ({error}). {_NO_GUARD}") from error


def _alone_note(processes: int, share: int | None) -> str:
    """Say how the limit is kept to without the scheduler's help."""
    if share is None:
        return (
            f"The Dask scheduler does not share the account's limit: each of {processes} worker processes learns it by itself, "
            "and some requests will be refused; --requests-per-minute gives each of them an equal share"
        )
    return (
        f"The Dask scheduler does not share the account's limit: each of {processes} worker processes keeps to "
        f"{share} requests a minute"
    )
