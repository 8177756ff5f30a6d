"""The rate limiter in a scheduler: what workers claim, what is returned when one dies, and how a run ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

pytest.importorskip("distributed", reason="Dask's distributed is not installed: pip install 'data-engine[dask]'")

from data_engine.ingest.dask.shared_rate_limit import ClusterTally, SchedulerRateLimiter

LIMIT = {"x-ratelimit-limit": "100", "x-ratelimit-remaining": "50"}


def call(handler: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(handler)


@pytest.fixture
def limiter() -> SchedulerRateLimiter:
    limiter = SchedulerRateLimiter()
    limiter.begin("run", "client", None)
    return limiter


def claim(limiter: SchedulerRateLimiter, worker: str, times: int = 1) -> list[Any]:
    return [call(limiter.data_engine_acquire("run", worker)) for _ in range(times)]


def test_workers_draw_on_one_bucket(limiter: SchedulerRateLimiter) -> None:
    claim(limiter, "a")
    call(limiter.data_engine_answered("run", "a", 200, LIMIT))

    waits = claim(limiter, "a", 30) + claim(limiter, "b", 30)

    # 50 are left, and one is kept back; the next ones come at 100 a minute.
    assert waits[:49] == [0.0] * 49
    assert waits[49:] == sorted(waits[49:])
    assert waits[59] == pytest.approx(11 * 60 / 99, abs=0.7)
    assert limiter.tally("run", 4) == ClusterTally(4, requests=61, pages=1, allowed=pytest.approx(99))  # type: ignore[arg-type]


@pytest.mark.parametrize("died", [True, False])
def test_the_claims_of_a_dead_worker_are_returned(limiter: SchedulerRateLimiter, died: bool) -> None:
    claim(limiter, "a", 50)
    claim(limiter, "b")
    if died:
        limiter.remove_worker(None, "a", stimulus_id="x")  # type: ignore[arg-type]
    call(limiter.data_engine_answered("run", "b", 200, LIMIT))

    # The response does not count the requests in flight: 50 are left, or none.
    assert (claim(limiter, "b", 40)[-1] == 0.0) == died


def test_a_worker_that_was_given_up_and_comes_back_counts_for_nothing(limiter: SchedulerRateLimiter) -> None:
    claim(limiter, "a", 2)
    limiter.remove_worker(None, "a", stimulus_id="x")  # type: ignore[arg-type]
    for _ in range(5):
        call(limiter.data_engine_answered("run", "a", 200, {"x-ratelimit-limit": "1", "x-ratelimit-remaining": "0"}))

    assert limiter.tally("run", 1) == ClusterTally(1, requests=2)


def test_a_429_to_one_makes_all_wait(limiter: SchedulerRateLimiter) -> None:
    claim(limiter, "a")
    call(limiter.data_engine_answered("run", "a", 429, {"retry-after": "7"}))

    assert call(limiter.data_engine_pause_left("run")) == pytest.approx(7, abs=0.5)
    assert claim(limiter, "b")[0] >= 6


def test_the_users_maximum_holds_for_the_whole_cluster() -> None:
    limiter = SchedulerRateLimiter()
    limiter.begin("run", "client", 600)

    waits = claim(limiter, "a", 10) + claim(limiter, "b", 10)

    assert waits[:10] == [0.0] * 10
    assert waits[19] == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("how", ["ended", "forgotten", "client-gone", "never-begun"])
def test_no_worker_may_send_for_a_run_that_has_ended(limiter: SchedulerRateLimiter, how: str) -> None:
    run = "another" if how == "never-begun" else "run"
    claim(limiter, "a")
    if how == "ended":
        limiter.end("run")
    elif how == "forgotten":
        limiter.forget("run")
    elif how == "client-gone":
        limiter.remove_client(None, "another client")  # type: ignore[arg-type]
        assert claim(limiter, "a") == [0.0]
        limiter.remove_client(None, "client")  # type: ignore[arg-type]

    assert call(limiter.data_engine_acquire(run, "a")) is None
    assert call(limiter.data_engine_pause_left(run)) is None
    call(limiter.data_engine_answered(run, "a", 200, {}))  # raises nothing


def test_responses_count_after_the_end(limiter: SchedulerRateLimiter) -> None:
    claim(limiter, "a")
    limiter.end("run")
    call(limiter.data_engine_answered("run", "a", 200, {}))

    assert limiter.tally("run", 1) == ClusterTally(1, requests=1, pages=1)


def test_a_second_client_finds_the_limiter_that_is_there() -> None:
    assert SchedulerRateLimiter.idempotent
