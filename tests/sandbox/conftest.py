"""What the sandbox's tests share."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_engine.sandbox import Replay, Sandbox
from real_data import FOLDER

from .calls import Caller, minutes_of, write_bars


@pytest.fixture
def call() -> Iterator[Callable[[Sandbox], Caller]]:
    """Connections that are closed at the end of the test."""
    callers: list[Caller] = []

    def connect(sandbox: Sandbox) -> Caller:
        callers.append(Caller(sandbox.url))
        return callers[-1]

    yield connect
    for caller in callers:
        caller.connection.close()


@pytest.fixture
def three_symbols(tmp_path: Path) -> Replay:
    """AAPL, MSFT and NVDA with 390 minutes each: the walk that was recorded from the service."""
    return Replay(write_bars(tmp_path / "three.parquet", [row for s in ("AAPL", "MSFT", "NVDA") for row in minutes_of(s, 390)]))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of facts and recordings that lies beside the project."""
    folder = FOLDER.parent
    if not folder.is_dir():
        pytest.skip("the shared folder of recordings is not here")
    return folder


@pytest.fixture(scope="session")
def alpaca() -> Any:
    """alpaca-py's client and request, whose import warns of deprecations that are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        historical = pytest.importorskip("alpaca.data.historical")
        pytest.importorskip("alpaca.data.requests")
        return historical


@pytest.fixture(scope="session")
def described(shared):
    """A check of a response against a schema of the published description."""
    jsonschema = pytest.importorskip("jsonschema")
    yaml = pytest.importorskip("yaml")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document = yaml.load((shared / "data" / "alpaca" / "alpaca-data-openapi.yaml").read_text(encoding="utf-8"), loader)
    components = json.loads(json.dumps(document["components"], default=str))
    components["schemas"]["next_page_token"]["type"] = ["string", "null"]  # "nullable" is OpenAPI's word, not JSON Schema's

    def check(response, name):
        schema = {"$ref": f"#/components/schemas/{name}", "components": components}
        jsonschema.Draft202012Validator(schema).validate(response)

    return check
