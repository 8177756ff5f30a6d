"""The first seeds, and fresh ones; `make fuzz` goes on with them, and `python -m tests.simulation SEED` replays one."""

from __future__ import annotations

import os
import time

import pytest

from .seeds import PLACES, make_world, run, shrink


@pytest.mark.parametrize("seed", range(2, 6))
def test_no_world_is_violated(seed: int) -> None:
    failed = run(seed)

    assert failed is None, str(shrink(failed, tries=60))


def test_a_seed_gives_the_same_world_each_time() -> None:
    """Else no failure could be replayed."""
    logs = []
    for _ in range(2):
        world = make_world(20)
        run(20, world=world)
        logs.append(world.log)

    assert logs[0] == logs[1]


def test_all_places_and_both_vendors_come_up() -> None:
    made = [make_world(seed) for seed in range(200)]

    assert {world.place for world in made} == set(PLACES)
    assert {type(world.vendor).__name__ for world in made} == {"Vendor", "WireVendor"}


@pytest.mark.skipif(not float(os.environ.get("SIMULATION_SECONDS", "0")), reason="set SIMULATION_SECONDS=60")
@pytest.mark.parametrize("share", range(2))
def test_no_fresh_world_is_violated(share: int) -> None:
    """Seeds that nobody has tried, for so many seconds: one after the other from a number of the system."""
    first = int.from_bytes(os.urandom(6), "big")
    end = time.monotonic() + float(os.environ["SIMULATION_SECONDS"])
    seed = first
    while time.monotonic() < end:
        failed = run(seed)
        assert failed is None, f"replay with: python -m tests.simulation {seed}\n{shrink(failed, tries=40)}"
        seed += 1

    assert seed > first, f"share {share}"
