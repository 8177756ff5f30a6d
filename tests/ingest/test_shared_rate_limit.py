"""The pace inside a scheduler: what workers claim, what dead ones give back, and who is told that a run has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

pytest.importorskip("distributed", reason="Dask's distributed is not installed: pip install 'data-engine[dask]'")

from data_engine.ingest.dask.shared_rate_limit import ClusterPace, ClusterTally

LIMIT = {"x-ratelimit-limit": "100", "x-ratelimit-remaining": "50"}


def ask(call: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(call)


@pytest.fixture
def pace() -> ClusterPace:
    made = ClusterPace()
    made.begin("run", "client", None)
    return made


def claim(pace: ClusterPace, worker: str, times: int = 1) -> list[Any]:
    return [ask(pace.data_engine_reserve("run", worker)) for _ in range(times)]


def test_workers_draw_on_one_bucket(pace: ClusterPace) -> None:
    claim(pace, "a")
    ask(pace.data_engine_answered("run", "a", 200, LIMIT))

    waits = claim(pace, "a", 30) + claim(pace, "b", 30)

    # 50 are left, and one is kept back; the next ones come at 100 a minute.
    assert waits[:49] == [0.0] * 49
    assert waits[49:] == sorted(waits[49:])
    assert waits[59] == pytest.approx(11 * 60 / 99, abs=0.7)
    assert pace.tally("run", 4) == ClusterTally(4, requests=61, pages=1, allowed=pytest.approx(99))  # type: ignore[arg-type]


@pytest.mark.parametrize("died", [True, False])
def test_what_a_dead_worker_had_claimed_is_given_back(pace: ClusterPace, died: bool) -> None:
    claim(pace, "a", 50)
    claim(pace, "b")
    if died:
        pace.remove_worker(None, "a", stimulus_id="x")  # type: ignore[arg-type]
    ask(pace.data_engine_answered("run", "b", 200, LIMIT))

    # The answer does not count what is under way: 50 are left, or none.
    assert (claim(pace, "b", 40)[-1] == 0.0) == died


def test_a_worker_that_was_given_up_and_comes_back_counts_for_nothing(pace: ClusterPace) -> None:
    claim(pace, "a", 2)
    pace.remove_worker(None, "a", stimulus_id="x")  # type: ignore[arg-type]
    for _ in range(5):
        ask(pace.data_engine_answered("run", "a", 200, {"x-ratelimit-limit": "1", "x-ratelimit-remaining": "0"}))

    assert pace.tally("run", 1) == ClusterTally(1, requests=2)


def test_a_429_to_one_makes_all_wait(pace: ClusterPace) -> None:
    claim(pace, "a")
    ask(pace.data_engine_answered("run", "a", 429, {"retry-after": "7"}))

    assert ask(pace.data_engine_pause("run")) == pytest.approx(7, abs=0.5)
    assert claim(pace, "b")[0] >= 6


def test_the_users_bound_is_the_clusters() -> None:
    pace = ClusterPace()
    pace.begin("run", "client", 600)

    waits = claim(pace, "a", 10) + claim(pace, "b", 10)

    assert waits[:10] == [0.0] * 10
    assert waits[19] == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("how", ["ended", "forgotten", "client-gone", "never-begun"])
def test_nobody_may_send_for_a_run_that_has_ended(pace: ClusterPace, how: str) -> None:
    run = "another" if how == "never-begun" else "run"
    claim(pace, "a")
    if how == "ended":
        pace.end("run")
    elif how == "forgotten":
        pace.forget("run")
    elif how == "client-gone":
        pace.remove_client(None, "another client")  # type: ignore[arg-type]
        assert claim(pace, "a") == [0.0]
        pace.remove_client(None, "client")  # type: ignore[arg-type]

    assert ask(pace.data_engine_reserve(run, "a")) is None
    assert ask(pace.data_engine_pause(run)) is None
    ask(pace.data_engine_answered(run, "a", 200, {}))  # is heard without complaint


def test_answers_count_after_the_end(pace: ClusterPace) -> None:
    claim(pace, "a")
    pace.end("run")
    ask(pace.data_engine_answered("run", "a", 200, {}))

    assert pace.tally("run", 1) == ClusterTally(1, requests=1, pages=1)


def test_a_second_client_finds_the_pace_that_is_there() -> None:
    assert ClusterPace.idempotent
