"""Share the account's rate limit in a Dask cluster: one `RateLimiter` in the scheduler, which every worker asks.

`SchedulerRateLimiter` is a plugin of the scheduler. It answers calls of the workers through the scheduler's table of handlers, as
Dask's own semaphores do. `SharedRateLimiter` is the `RateLimiter` of a worker's client. What a worker claimed and never answered
for is returned when the worker dies. The run of a client that is gone has ended, and no worker sends a request for it.

Import it only for a cluster: it needs ``distributed``.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distributed import SchedulerPlugin

from data_engine.alpaca.rate_limit import RateLimiter
from data_engine.errors import Interrupted
from data_engine.version import __version__

if TYPE_CHECKING:
    from distributed import Scheduler, Worker


NAME = "data-engine-rate-limiter"

_SLICE = 1.0  # maximum seconds that a worker waits before it asks again whether the run still goes on

_SHORT = 0.25  # wait in seconds that is too short to ask whether another worker met a 429

_CALL_SECONDS = 90.0  # for a response of the scheduler: longer than it takes to notice a broken connection

_LIMIT_HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after")


@dataclass(slots=True)
class _Run:
    """One run of one client, as the scheduler sees it."""

    client: str
    rate_limiter: RateLimiter
    claims: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    pages: int = 0
    ended: bool = False


@dataclass(frozen=True, slots=True)
class ClusterTally:
    """What the scheduler knows of a run.

    Attributes:
        threads: The number of threads of all workers.
        requests: The number of requests claimed.
        pages: The number of responses with status 200.
        allowed: The requests per minute that are kept to. None if nothing limits.
    """

    threads: int
    requests: int = 0
    pages: int = 0
    allowed: float | None = None


class SchedulerRateLimiter(SchedulerPlugin):
    """Keeps every run in a cluster to its rate limit."""

    idempotent = True  # a second client finds the plugin of the first

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}

    async def start(self, scheduler: Scheduler) -> None:
        """Answer calls of the workers from now on."""
        for handler in (self.data_engine_acquire, self.data_engine_pause_left, self.data_engine_answered):
            scheduler.handlers[handler.__name__] = handler

    def begin(self, run: str, client: str, requests_per_minute: int | None) -> None:
        """Accept claims for a run."""
        self._runs[run] = _Run(client, RateLimiter(requests_per_minute))

    def end(self, run: str) -> None:
        """Refuse further claims for a run; responses still count."""
        if run in self._runs:
            self._runs[run].ended = True

    def forget(self, run: str) -> None:
        """Delete what is known of a run."""
        self._runs.pop(run, None)

    def tally(self, run: str, threads: int) -> ClusterTally:
        """Return how far a run has come."""
        known = self._runs.get(run)
        return ClusterTally(threads, known.requests, known.pages, known.rate_limiter.allowed) if known else ClusterTally(threads)

    async def data_engine_acquire(self, run: str, worker: str) -> float | None:
        """Claim a worker's next request; return the seconds until it may be sent, or None if the run has ended."""
        active = self._active(run)
        if active is None:
            return None
        active.claims[worker] += 1
        active.requests += 1
        return active.rate_limiter.acquire(time.monotonic())

    async def data_engine_pause_left(self, run: str) -> float | None:
        """Return the seconds that all requests must still wait, or None if the run has ended."""
        active = self._active(run)
        return active.rate_limiter.pause_left(time.monotonic()) if active else None

    async def data_engine_answered(self, run: str, worker: str, status: int | None, headers: dict[str, str]) -> None:
        """Learn from the response to a request that was claimed."""
        known = self._runs.get(run)
        if known is not None and known.claims[worker] > 0:  # a worker that was given up may come back
            known.claims[worker] -= 1
            known.pages += status == 200
            known.rate_limiter.answered(time.monotonic(), status, headers, unix=time.time())

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:  # noqa: ARG002
        """Return the claims of a worker that is gone."""
        for known in self._runs.values():
            for _claim in range(known.claims.pop(worker, 0)):
                known.rate_limiter.answered(time.monotonic(), None, {}, unix=time.time())

    def remove_client(self, scheduler: Scheduler, client: str) -> None:  # noqa: ARG002
        """Forget the runs of a client that is gone."""
        self._runs = {run: known for run, known in self._runs.items() if known.client != client}

    def _active(self, run: str) -> _Run | None:
        known = self._runs.get(run)
        return None if known is None or known.ended else known


# `Client.run_on_scheduler` calls these in the scheduler, and passes it as *dask_scheduler*.


def installed_version(dask_scheduler: Scheduler | None = None) -> str:  # noqa: ARG001
    """Return the version of data_engine that the scheduler has."""
    return __version__


def call_plugin(method: str, *arguments: Any, dask_scheduler: Scheduler | None = None) -> None:
    """Call a method of the `SchedulerRateLimiter` of the scheduler.

    Raises:
        RuntimeError: If the scheduler has no such plugin.
    """
    plugin = _plugin(dask_scheduler)
    if plugin is None:
        raise RuntimeError(f"no plugin {NAME}")
    getattr(plugin, method)(*arguments)


def tally(run: str, dask_scheduler: Scheduler | None = None) -> ClusterTally:
    """Return how far a run has come; without the plugin, only the number of threads."""
    assert dask_scheduler is not None  # noqa: S101
    threads = sum(worker.nthreads for worker in dask_scheduler.workers.values())
    plugin = _plugin(dask_scheduler)
    return ClusterTally(threads) if plugin is None else plugin.tally(run, threads)


def _plugin(scheduler: Scheduler | None) -> SchedulerRateLimiter | None:
    plugin = None if scheduler is None else scheduler.plugins.get(NAME)
    return plugin if isinstance(plugin, SchedulerRateLimiter) else None


class SharedRateLimiter(RateLimiter):
    """The `RateLimiter` of a worker: the scheduler decides on every claim.

    Args:
        run: The run that the worker's requests belong to.
        worker: The Dask worker of this process.
    """

    def __init__(self, run: str, worker: Worker) -> None:
        super().__init__()
        self._run = run
        self._worker = worker
        self._thread = threading.local()  # its `due`: when the claim of the thread may be sent

    def acquire(self, now: float) -> float:
        """Claim the next request; return the seconds from *now* to wait before `pause_left` is called.

        Raises:
            Interrupted: If the run has ended, or the scheduler does not respond.
        """
        wait = self._seconds("data_engine_acquire", worker=self._worker.address)
        self._thread.due = now + wait if wait > _SHORT else None
        return min(wait, _SLICE)

    def pause_left(self, now: float) -> float:
        """Return the seconds that the thread must still wait.

        Raises:
            Interrupted: If the run has ended, or the scheduler does not respond.
        """
        if self._thread.due is None:
            return 0.0
        due: float = self._thread.due
        return min(max(self._seconds("data_engine_pause_left"), due - now, 0.0), _SLICE)

    def answered(self, now: float, status: int | None, headers: Mapping[str, str], *, unix: float) -> None:  # noqa: ARG002
        """Pass a response on to the scheduler; do nothing if it is gone."""
        stated = {name: headers[name] for name in _LIMIT_HEADERS if name in headers}
        self._call("data_engine_answered", worker=self._worker.address, status=status, headers=stated)

    def _seconds(self, handler: str, **arguments: Any) -> float:
        seconds = self._call(handler, **arguments)
        if seconds is None:
            raise Interrupted("interrupted")
        return float(seconds)

    def _call(self, handler: str, **arguments: Any) -> Any:
        """Call a handler of the scheduler; return None if it does not respond."""
        call = getattr(self._worker.scheduler, handler)(run=self._run, **arguments)
        loop: asyncio.AbstractEventLoop = self._worker.loop.asyncio_loop  # type: ignore[attr-defined]
        try:
            return asyncio.run_coroutine_threadsafe(call, loop).result(_CALL_SECONDS)
        except (OSError, TimeoutError, CancelledError, RuntimeError):  # the connection broke, or the worker is being closed
            return None
