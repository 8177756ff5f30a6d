"""A clean environment for every test, and how hard hypothesis tries."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

from stores import moto, new_place, place, seaweedfs, shared_place  # noqa: F401 - fixtures

hypothesis.settings.register_profile("default", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.register_profile(
    "fuzz", deadline=None, max_examples=2000, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

_OF_EVERY_SERVICE = ("store", "safety")
"""Where the promises of a `FileStore` are tried. Elsewhere one service of S3 is enough; `make fuzz` tries all everywhere."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what tries the same with a second service of S3, and of many cases of one kind all but one of so many."""
    if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz":
        return
    again = [item for item in items if _service_of(item) == "moto" and item.path.parent.name not in _OF_EVERY_SERVICE]
    cases: Counter[str] = Counter()
    for item in items:
        share = item.get_closest_marker("one_of")
        if share is not None:
            name = item.nodeid.partition("[")[0]
            if cases[name] % share.args[0]:
                again.append(item)
            cases[name] += 1
    config.hook.pytest_deselected(items=again)
    left_out = set(again)
    items[:] = [item for item in items if item not in left_out]


def _service_of(item: pytest.Item) -> object:
    return item.callspec.params.get("new_place") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No keys and settings of whoever runs the tests, and nothing written outside the test's own folder."""
    for name in os.environ:
        if name.startswith(("ALPACA_", "APCA_", "AWS_", "DATA_ENGINE_", "XDG_")):
            monkeypatch.delenv(name)
    for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
