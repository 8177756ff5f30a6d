"""The same in a bucket, on SeaweedFS: processes that are killed, and processes that meet, lose nothing and claim nothing false.

What must come of it is what came of the same run on a disk: the same files, byte for byte, and the same coverage.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stores import Place, place_on, variables

from .harness import Children, Scenario, Stage, check_killed, children, same, snapshot
from .market import SYMBOLS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks and SIGKILL are POSIX")

LEASE = 0.6


@pytest.fixture(scope="module")
def forks(seaweedfs) -> Iterator[tuple[Children, Children]]:
    """Two processes that fork, and know where the bucket is."""
    with variables(seaweedfs.env), children() as first, children() as second:
        yield first, second


@pytest.fixture
def bucket(seaweedfs, tmp_path_factory) -> Place:
    return place_on("seaweedfs", seaweedfs, iter(lambda: tmp_path_factory.mktemp("copy"), None))


@pytest.fixture(scope="module")
def scenarios(stage: Stage) -> dict[str, Scenario]:
    return {name: stage.scenario(name) for name in ("first", "update", "refetch", "remove")}


def fill(bucket: Place, template: Path) -> None:
    for path in sorted(template.rglob("*")):
        if path.is_file() and path.suffix != ".lock":
            bucket.put(path.relative_to(template).as_posix(), path.read_bytes())


@pytest.mark.one_of(3)  # so that the scenarios differ
@pytest.mark.parametrize("seed", range(8))
def test_runs_that_are_killed_again_and_again_at_any_time(forks, scenarios, bucket, seed):
    chance = random.Random(seed)
    scenario = scenarios[("first", "update", "refetch", "remove")[seed % 4]]
    fill(bucket, scenario.template)
    job = replace(scenario.job, base=bucket.base, lease=LEASE)
    for _ in range(3):
        # A little more than on a disk: the process has to find out about the service first.
        forks[0].run(replace(job, after=chance.uniform(0, scenario.seconds + 0.5)))
        check_killed(bucket.copy(), scenario.truths, scenario.dataset, claims=scenario.claims)
        job = replace(scenario.again, base=bucket.base, lease=LEASE)
    told = forks[0].run(job)

    assert told["code"] in (0, 1), told
    found = bucket.copy()
    check_killed(found, scenario.truths[-1:], scenario.dataset)
    same(found, scenario.expected)


@pytest.mark.parametrize(
    "point", ["before bars", "after bars", "before coverage", "after coverage", "before request", "after request"]
)
def test_a_run_that_is_killed_is_completed_by_the_next(forks, scenarios, bucket, point):
    """At chosen points, too: random ones may miss the moment between the bars and the claim."""
    scenario = scenarios["first"]
    job = replace(scenario.job, base=bucket.base, lease=LEASE)
    assert forks[0].run(replace(job, point=point, nth=max(1, scenario.points[point] // 2)))["killed"]
    check_killed(bucket.copy(), scenario.truths)
    assert forks[0].run(job)["code"] == 1  # ZZZ has no data

    same(bucket.copy(), scenario.expected)


def test_two_processes_with_the_same_symbols(forks, scenarios, bucket):
    scenario = scenarios["first"]
    job = replace(scenario.job, base=bucket.base)
    for one in forks:
        one.start(job)
    told = [one.finish() for one in forks]

    assert [one["code"] for one in told] == [1, 1], told
    # The second waits, and finds what the first has brought. Only what is provisional or recently empty is asked for twice.
    assert sum(one["requests"] for one in told) <= scenario.points["before request"] + 2 * len(SYMBOLS)
    same(bucket.copy(), scenario.expected)


def test_two_processes_with_different_symbols_one_of_which_does_not_wait(forks, scenarios, bucket):
    halves = SYMBOLS[:3], SYMBOLS[3:]
    jobs = [replace(scenarios["first"].job, base=bucket.base, symbols=half, index=None, wait=0.0) for half in halves]
    for one, job in zip(forks, jobs, strict=True):
        one.start(job)
    told = [one.finish() for one in forks]
    refused = [number for number, one in enumerate(told) if one["code"] == 7]
    assert len(refused) <= 1
    for number in refused:
        assert told[number]["kind"] == "StoreBusy"
        assert forks[number].run(jobs[number])["code"] in (0, 1)

    files = {name: data for name, data in scenarios["first"].expected.files.items() if name.startswith("equities")}
    assert snapshot(bucket.copy()).files == files
