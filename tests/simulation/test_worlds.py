"""The first seeds; `make fuzz` goes on with fresh ones, and `python -m tests.simulation SEED` replays one."""

from __future__ import annotations

import pytest

from .seeds import run, shrink


@pytest.mark.parametrize("seed", range(2, 12))
def test_no_world_is_violated(seed: int) -> None:
    failed = run(seed)

    assert failed is None, str(shrink(failed, tries=60))
