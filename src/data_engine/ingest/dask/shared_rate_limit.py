"""The account's limit, shared by a whole Dask cluster: one `RateLimiter` inside the scheduler, which every worker asks.

`ClusterPace` is a plugin of the scheduler. It answers the workers' calls through the scheduler's table of handlers, as Dask's own
semaphores do. `SharedPace` is what a worker's client gets in place of a `RateLimiter` of its own. What a worker claimed and never
answered for is given back when the worker dies; a run whose client has gone is ended, and nobody sends another request for it.

Only imported where a cluster is used: it needs ``distributed``.
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


NAME = "data-engine-pace"

_SLICE = 1.0  # seconds that a worker waits at most before it asks whether the run still goes on

_SHORT = 0.25  # seconds in which a 429 to somebody else is not waited for

_CALL_SECONDS = 90.0  # for an answer of the scheduler: longer than a connection that is cut takes to be noticed

_TELLING = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after")


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
        threads: of all workers.
        requests: claimed.
        pages: answers 200.
        allowed: requests per minute that are kept to; None where nothing limits.
    """

    threads: int
    requests: int = 0
    pages: int = 0
    allowed: float | None = None


class ClusterPace(SchedulerPlugin):
    """Holds the pace of every run that goes on in a cluster."""

    idempotent = True  # a second client finds the first one's

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}

    async def start(self, scheduler: Scheduler) -> None:
        """Answer the workers from now on."""
        for handler in (self.data_engine_reserve, self.data_engine_pause, self.data_engine_answered):
            scheduler.handlers[handler.__name__] = handler

    def begin(self, run: str, client: str, requests_per_minute: int | None) -> None:
        """Expect claims for a run."""
        self._runs[run] = _Run(client, RateLimiter(requests_per_minute))

    def end(self, run: str) -> None:
        """Refuse all further claims for a run; answers still count."""
        if run in self._runs:
            self._runs[run].ended = True

    def forget(self, run: str) -> None:
        """Know nothing more of a run."""
        self._runs.pop(run, None)

    def tally(self, run: str, threads: int) -> ClusterTally:
        """Return how far a run has come."""
        one = self._runs.get(run)
        return ClusterTally(threads, one.requests, one.pages, one.rate_limiter.allowed) if one else ClusterTally(threads)

    async def data_engine_reserve(self, run: str, worker: str) -> float | None:
        """Claim a worker's next request; return how many seconds from now it may be sent, None where the run has ended."""
        one = self._going(run)
        if one is None:
            return None
        one.claims[worker] += 1
        one.requests += 1
        return one.rate_limiter.acquire(time.monotonic())

    async def data_engine_pause(self, run: str) -> float | None:
        """Return for how many more seconds nobody may send, None where the run has ended."""
        one = self._going(run)
        return one.rate_limiter.pause_left(time.monotonic()) if one else None

    async def data_engine_answered(self, run: str, worker: str, status: int | None, headers: dict[str, str]) -> None:
        """Learn from the answer to a request that was claimed."""
        one = self._runs.get(run)
        if one is not None and one.claims[worker] > 0:  # a worker that was given up may come back
            one.claims[worker] -= 1
            one.pages += status == 200
            one.rate_limiter.answered(time.monotonic(), status, headers, unix=time.time())

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:  # noqa: ARG002
        """Give back what a worker that has gone had claimed."""
        for one in self._runs.values():
            for _claim in range(one.claims.pop(worker, 0)):
                one.rate_limiter.answered(time.monotonic(), None, {}, unix=time.time())

    def remove_client(self, scheduler: Scheduler, client: str) -> None:  # noqa: ARG002
        """End the runs of a client that has gone."""
        for run in [run for run, one in self._runs.items() if one.client == client]:
            self.forget(run)

    def _going(self, run: str) -> _Run | None:
        one = self._runs.get(run)
        return None if one is None or one.ended else one


# Called in the scheduler, which fills in itself.


def installed(dask_scheduler: Scheduler | None = None) -> str:  # noqa: ARG001
    """Return the version of data_engine that the scheduler has."""
    return __version__


def begin(run: str, client: str, requests_per_minute: int | None, dask_scheduler: Scheduler | None = None) -> None:
    """Have the scheduler's plugin expect a run.

    Raises:
        KeyError: the scheduler has no such plugin.
    """
    assert dask_scheduler is not None  # noqa: S101
    plugin = dask_scheduler.plugins[NAME]
    assert isinstance(plugin, ClusterPace)  # noqa: S101
    plugin.begin(run, client, requests_per_minute)


def end(run: str, dask_scheduler: Scheduler | None = None) -> None:
    """Have the scheduler's plugin refuse further claims for a run."""
    if (plugin := _plugin(dask_scheduler)) is not None:
        plugin.end(run)


def forget(run: str, dask_scheduler: Scheduler | None = None) -> None:
    """Have the scheduler's plugin know nothing more of a run."""
    if (plugin := _plugin(dask_scheduler)) is not None:
        plugin.forget(run)


def tally(run: str, dask_scheduler: Scheduler | None = None) -> ClusterTally:
    """Return how far a run has come; without the plugin, how many threads there are."""
    assert dask_scheduler is not None  # noqa: S101
    threads = sum(worker.nthreads for worker in dask_scheduler.workers.values())
    plugin = _plugin(dask_scheduler)
    return ClusterTally(threads) if plugin is None else plugin.tally(run, threads)


def _plugin(scheduler: Scheduler | None) -> ClusterPace | None:
    plugin = None if scheduler is None else scheduler.plugins.get(NAME)
    return plugin if isinstance(plugin, ClusterPace) else None


class SharedPace(RateLimiter):
    """A worker's share of the cluster's pace: every claim is the scheduler's answer.

    Args:
        run: for which the worker asks.
        worker: this process, which knows the scheduler.
    """

    def __init__(self, run: str, worker: Worker) -> None:
        super().__init__()
        self._run = run
        self._worker = worker
        self._mine = threading.local()  # when the thread's claim is due

    def acquire(self, now: float) -> float:
        """Claim the next request; return how many seconds from *now* to wait at most, before `pause_left` is asked.

        Raises:
            Interrupted: the run has ended, or the scheduler does not answer.
        """
        wait: float = self._ask("data_engine_reserve", worker=self._worker.address)
        self._mine.due = now + wait if wait > _SHORT else None
        return min(wait, _SLICE)

    def pause_left(self, now: float) -> float:
        """Return for how many more seconds the thread may not send.

        Raises:
            Interrupted: as `reserve`.
        """
        if self._mine.due is None:
            return 0.0
        due: float = self._mine.due
        return min(max(self._ask("data_engine_pause"), due - now, 0.0), _SLICE)

    def answered(self, now: float, status: int | None, headers: Mapping[str, str], *, unix: float) -> None:  # noqa: ARG002
        """Tell the scheduler of an answer; where it is not there any more, nobody is told."""
        telling = {name: headers[name] for name in _TELLING if name in headers}
        self._call("data_engine_answered", worker=self._worker.address, status=status, headers=telling)

    def _ask(self, operation: str, **words: Any) -> float:
        answer = self._call(operation, **words)
        if answer is None:
            raise Interrupted("interrupted")
        return float(answer)

    def _call(self, operation: str, **words: Any) -> Any:
        """Return the scheduler's answer; None where it gives none."""
        call = getattr(self._worker.scheduler, operation)(run=self._run, **words)
        loop: asyncio.AbstractEventLoop = self._worker.loop.asyncio_loop  # type: ignore[attr-defined]
        try:
            return asyncio.run_coroutine_threadsafe(call, loop).result(_CALL_SECONDS)
        except (OSError, TimeoutError, CancelledError, RuntimeError):  # the connection broke; the worker is being closed
            return None
