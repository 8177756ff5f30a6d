"""Run the tasks of a run on the workers of a Dask cluster: `DaskPool`, a `WorkerPool`.

Tasks go out and counts come back; bars go from the workers to the store. Dask's ``concurrent.futures`` executor promises that a
task is done at least once: the task of a killed worker is done again elsewhere, and a worker that was given up may come back and
do it a second time. The merges of the store make that harmless.
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import platform
import threading
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
from data_engine.market.wording import and_more
from data_engine.store.bar_store import BarStore
from data_engine.version import __version__, written_by

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

    from data_engine.ingest.dask.dask_worker import WorkerResult


PATIENCE = 60.0
"""Seconds without any worker after which a run ends."""

_CONNECT_SECONDS = 10.0

_CHECK_SECONDS = 20.0  # for every worker to report whether it can take part

_TICK_SECONDS = 0.05

_POLL_SECONDS = 0.5  # between two requests to the scheduler

_WRITING_SECONDS = 25.0  # for workers that are in the midst of a write when the run is stopped

_LEAVE_SECONDS = 1.0  # that the end of a stopped run waits for them; then the store stays locked without it

_MAX_TRIES = 3  # of a task whose worker lost the scheduler

_PLUGIN_REFUSED = (AttributeError, KeyError, TypeError, ValueError, RuntimeError, AssertionError)
"""What a scheduler raises that does not accept our plugin or its handlers."""

_MISSING = "cannot use --dask: Dask's distributed is not installed; run `pip install '.[dask]'`"

_NO_GUARD = "in a script, put the calls that use dask='local' below: if __name__ == \"__main__\":"

_REPEAT = "what had arrived is stored; run the same command again to continue"


class DaskPool:
    """The workers of a Dask cluster. They make their own clients, with the credentials of their own environment.

    Args:
        address: The address of the scheduler, or `LOCAL`.
        storage: The store that the workers write to; its location must mean the same to all of them.
        options: The options of the run.
        workers: The number of concurrent requests of a local cluster.
        data_url: The URL of the bars; the workers' environment must have the same.
        requests_per_minute: The maximum for the whole cluster. If None, the account's limit is learned.
        note: The function that is called with each note.
        patience: The seconds to wait for a first worker. If None, a minute.

    Raises:
        ConfigError: If ``distributed`` is not installed, no scheduler responds, or a worker cannot take part.
        WorkersLost: If no worker came.
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
        from data_engine.ingest.dask.dask_worker import RunSpec

        _check_installed()
        self._files = storage.files
        self._check_location()
        self._address = address
        self._patience = PATIENCE if patience is None else patience
        self._stopped = self._marked = False
        self._tries: Counter[FetchTask] = Counter()
        self._requests: dict[str, int] = {}  # by process
        self._pending = self._threads = 0
        self._tally = Tally()
        self._worker_seen = self._polled = time.monotonic()
        self._cluster: LocalCluster | None = None
        self._client: Client | None = None
        run = uuid.uuid4().hex
        self._spec = RunSpec(run, __version__, self._files.location, f"{RUN_MARKERS}/{run}.json", data_url, options)
        try:
            client = self._client = self._connect(workers)
            self._threads = self._wait_for_workers(client, note)
            shared = self._share_rate_limit(client, requests_per_minute)
            self._spec = replace(self._spec, shared=shared)
            self._check_workers(client)
            processes = len(client.nthreads())
        except BaseException:
            self.close()
            raise
        if not shared:
            share = None if requests_per_minute is None else max(1, requests_per_minute // max(1, processes))
            self._spec = replace(self._spec, requests_per_minute=share)
            note(_not_shared_note(processes, share))
        self._executor = client.get_executor(pure=False)  # pure: five equal tasks would be done once

    @property
    def window(self) -> int:
        """Twice as many tasks as the cluster has threads."""
        return 2 * max(1, self._threads)

    def use(self, options: RunOptions) -> None:
        """Take the options of the run, which were decided inside the store's lock."""
        self._spec = replace(self._spec, options=options)

    def submit(self, task: FetchTask, failed: Mapping[Series, Failure]) -> Future[WorkerResult]:
        """Have a worker run a task; series that are known to fail by now are not requested."""
        from data_engine.ingest.dask.dask_worker import run_worker_task

        if not self._marked:
            self._mark()
        of_task = {series: failed[series] for name in task.symbols if (series := Series(name, task.dataset)) in failed}
        self._pending += 1
        spec = self._spec
        if self._tally.recent_refused:  # by one process: the others need not find out for themselves
            spec = replace(spec, options=replace(spec.options, delayed=True))
        return self._executor.submit(run_worker_task, spec, task, of_task)  # type: ignore[no-any-return]

    def collect(self, future: Future[WorkerResult], task: FetchTask) -> TaskResult | None:
        """Return the result of a task; None if its worker died or lost the scheduler, and it is to be tried again, alone."""
        from distributed import KilledWorker

        self._pending -= 1
        self._tries[task] += 1
        try:
            returned = future.result()
        except CancelledError:
            return TaskResult(fatal=self._lost("the scheduler is gone"))
        except KilledWorker as error:
            # Beside a task that kills its worker all others of that worker look as bad; alone, each shows what it is.
            return None if self._tries[task] == 1 else _killed(task, error.allowed_failures + 1)
        except ImportError as error:
            return TaskResult(fatal=ConfigError(f"cannot use a Dask worker: it cannot run this version of data_engine: {error}"))
        if isinstance(returned.result.fatal, Interrupted) and not self._stopped:
            if self._tries[task] < _MAX_TRIES:
                return None
            return TaskResult(fatal=self._lost("workers cannot reach the scheduler"))
        del self._tries[task]
        self._count(returned)
        return returned.result

    def tally(self) -> Tally:
        """Return how far the run has come: by request if the scheduler shares the rate limit, else by task.

        Raises:
            WorkersLost: If there has been no worker for too long.
        """
        now = time.monotonic()
        if now - self._polled > _POLL_SECONDS or self._stopped or not self._pending:
            self._polled = now
            self._poll(now)
        return self._tally

    def stop(self) -> None:
        """Have workers send nothing more: the next claim of each is refused."""
        self._stopped = True
        self._call_plugin("end")

    def close(self) -> Future[None] | None:
        """Refuse further writes of the workers, leave the cluster, and end a local one."""
        if self._marked:
            with suppress(StoreError):  # then the next run removes it
                self._files.delete(self._spec.run_marker)
        if not self._marked or not self._stopped or self._cluster is not None:
            self._leave()  # every task was collected, or the processes end here
            return None
        ended: Future[None] = Future()
        thread = threading.Thread(target=self._leave, args=(ended,), name="ingest-end")
        thread.start()
        thread.join(_LEAVE_SECONDS)
        return None if ended.done() else ended

    def _leave(self, ended: Future[None] | None = None) -> None:
        """Leave the cluster; with *ended*, when no worker is in the midst of a write that was begun before."""
        try:
            if ended is not None:
                self._wait_for_writers()
            self._call_plugin("forget")
        finally:
            if ended is not None:
                ended.set_result(None)
            if self._client is not None:
                self._client.close(timeout=2)
            if self._cluster is not None:
                self._cluster.close(timeout=5)

    def _wait_for_writers(self) -> None:
        from data_engine.ingest.dask.dask_worker import writing

        client, until = self._client, time.monotonic() + _WRITING_SECONDS
        while client is not None and client.status == "running" and (left := until - time.monotonic()) > 0:
            with suppress(OSError, TimeoutError, RuntimeError):
                counts = client.sync(client._run, writing, self._spec.run_marker, on_error="ignore", callback_timeout=left)
                if not any(counts.values()):
                    return
            time.sleep(_TICK_SECONDS)

    def _count(self, returned: WorkerResult) -> None:
        result, tally = returned.result, self._tally
        refused = tally.recent_refused or returned.recent_refused
        self._tally = replace(tally, bars=tally.bars + result.bars, recent_refused=refused)
        if not self._spec.shared:
            self._requests[returned.process] = max(returned.requests, self._requests.get(returned.process, 0))
            self._tally = replace(self._tally, requests=sum(self._requests.values()), pages=tally.pages + result.pages)

    # ------------------------------------------------------------------------------------------------------------ the cluster

    def _check_location(self) -> None:
        """Raise `ConfigError` if other processes cannot write to the store."""
        location = self._files.location
        if self._files.folder is None and not location.startswith("s3://"):
            raise ConfigError(f"cannot use --dask: only this process sees the store {location}; use a folder or an s3:// URL")
        if (warning := self._files.write_warning()) is not None:
            raise ConfigError(f"cannot use --dask: many processes cannot write to the store. {warning}")

    def _mark(self) -> None:
        """Write the run marker, by which a worker recognizes the store. The caller has locked the store."""
        fields = {"host": platform.node(), "pid": os.getpid(), "by": written_by()}
        self._files.update(self._spec.run_marker, lambda _: json.dumps(fields).encode())
        self._marked = True

    def _connect(self, workers: int) -> Client:
        from distributed import Client

        if self._address == LOCAL:
            self._cluster = _local_cluster(workers)
        try:
            return Client(self._cluster or self._address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise ConfigError(
                f"cannot use --dask {self._address}: no Dask scheduler responds ({type(error).__name__}); "
                "start one with `dask scheduler`"
            ) from error

    def _wait_for_workers(self, client: Client, note: Callable[[str], None]) -> int:
        """Return the number of threads of the cluster, as soon as there is any."""
        threads: int = sum(client.nthreads().values())
        if not threads:
            note(f"{self._address} has no worker yet; waiting up to {self._patience:g} s for one")
            try:
                client.wait_for_workers(1, timeout=self._patience)
            except TimeoutError as error:
                raise self._lost(f"no worker came within {self._patience:g} s") from error
            threads = sum(client.nthreads().values())
        return threads

    def _check_workers(self, client: Client) -> None:
        """Raise `ConfigError` if a worker cannot take part. One that does not respond is not waited for."""
        from data_engine.ingest.dask.dask_worker import incompatibility

        workers = {
            client.get_executor(pure=False, workers=[worker]).submit(incompatibility, __version__, self._spec.data_url): worker
            for worker in client.nthreads()
        }
        refused = [
            f"cannot use the Dask worker {workers[future]}: {reason}"
            for future in wait(workers, timeout=_CHECK_SECONDS).done
            if (reason := _refusal(future)) is not None
        ]
        if refused:
            raise ConfigError(and_more(sorted(refused), 5, separator="\n"))

    def _share_rate_limit(self, client: Client, requests_per_minute: int | None) -> bool:
        """Put the rate limiter of this run into the scheduler; return whether the scheduler accepted it."""
        from data_engine.ingest.dask.shared_rate_limit import NAME, SchedulerRateLimiter, call_plugin, installed_version

        refusal = f"cannot use the Dask scheduler at {self._address}"
        try:
            version = client.run_on_scheduler(installed_version)
        except ImportError as error:
            raise ConfigError(f"{refusal}: it cannot import data_engine ({error}); install it there") from error
        if version != __version__:
            raise ConfigError(f"{refusal}: it has data_engine {version}, not {__version__}; install the same version everywhere")
        try:
            client.register_plugin(SchedulerRateLimiter(), name=NAME)
            client.run_on_scheduler(call_plugin, "begin", self._spec.run, client.id, requests_per_minute)
        except _PLUGIN_REFUSED:
            return False
        return True

    def _call_plugin(self, method: str) -> None:
        """Call a method of the plugin for this run, if the scheduler has the plugin."""
        from data_engine.ingest.dask.shared_rate_limit import call_plugin

        if self._spec.shared:
            self._call_scheduler(call_plugin, method, self._spec.run)

    def _call_scheduler(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the scheduler; return None if the scheduler, or its plugin, is gone."""
        if self._client is None or self._client.status != "running":
            return None
        with suppress(OSError, TimeoutError, RuntimeError):
            return self._client.run_on_scheduler(function, *arguments)
        return None

    def _poll(self, now: float) -> None:
        from data_engine.ingest.dask import shared_rate_limit

        known = self._call_scheduler(shared_rate_limit.tally, self._spec.run)
        if known is not None:
            self._threads = known.threads
            self._worker_seen = now if known.threads else self._worker_seen
            if self._spec.shared:
                self._tally = replace(self._tally, requests=known.requests, pages=known.pages, allowed=known.allowed)
        if self._pending and not self._stopped and now - self._worker_seen > self._patience:
            raise self._lost(f"there has been no worker for {self._patience:g} s")

    def _lost(self, cause: str) -> WorkersLost:
        return WorkersLost(f"cannot continue on Dask at {self._address}: {cause}; {_REPEAT}")


def _check_installed() -> None:
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise ConfigError(_MISSING) from error


def _killed(task: FetchTask, times: int) -> TaskResult:
    message = f"the Dask workers that fetched this died {times} times in a row; look at their logs and memory limit"
    return TaskResult(failed={Series(symbol, task.dataset): Failure("worker_died", message) for symbol in task.symbols})


def _refusal(future: Future[str | None]) -> str | None:
    """Return why a worker cannot take part, or None if it can or did not report."""
    if future.cancelled():
        return None
    error = future.exception()
    return future.result() if error is None else f"it cannot run data_engine {__version__}: {error}"


def _local_cluster(workers: int) -> LocalCluster:
    """Return a cluster of one process per core on this machine, for *workers* concurrent requests."""
    import dask
    from dask.system import CPU_COUNT
    from distributed import LocalCluster

    # Dask starts its workers from this program, which must not start a cluster in its turn.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(f"cannot start Dask workers: they run this program again; {_NO_GUARD}")
    processes = max(1, min(CPU_COUNT, workers))
    try:
        with dask.config.set({"distributed.scheduler.worker-ttl": "60s"}):
            return LocalCluster(
                n_workers=processes,
                threads_per_worker=math.ceil(workers / processes),
                processes=True,
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": ":0"},  # any port; else a second cluster here warns of the first
                silence_logs=logging.CRITICAL,
                preload=["data_engine.ingest.dask.dask_worker"],
            )
    except RuntimeError as error:
        cause = str(error).removesuffix(".")
        raise ConfigError(f"cannot start Dask workers: {cause}; {_NO_GUARD}") from error


def _not_shared_note(processes: int, share: int | None) -> str:
    """Return a note on how a run keeps to the rate limit without the scheduler."""
    each = f"The Dask scheduler does not share the account's rate limit: each of {processes} worker processes"
    if share is None:
        return f"{each} learns it separately, and Alpaca refuses some requests; pass --requests-per-minute to divide it equally"
    return f"{each} sends up to {share} requests per minute"
