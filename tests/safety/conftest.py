"""One stage for all tests of a worker process: starting it costs a second."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .harness import Children, Stage, children, staged


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    with staged() as made:
        yield made


@pytest.fixture(scope="session")
def other() -> Iterator[Children]:
    """A second process that forks, for two runs at once."""
    with children() as made:
        yield made
