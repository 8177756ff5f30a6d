"""The run log of a store: every run is in it, and none depends on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from data_engine.errors import CredentialsRefused, Interrupted, StoreError
from data_engine.ingest.progress import NoProgress
from data_engine.ingest.run_log import KEY, RunLog
from data_engine.sandbox import Sandbox, SimulatedMarket
from data_engine.store.local_files import LocalFiles
from running import SECRET, Clock, account, here, names_of, pipeline_of

NOW = datetime(2024, 6, 10, 12, tzinfo=UTC)


@pytest.fixture
def server() -> Iterator[Sandbox]:
    with Sandbox(SimulatedMarket(), clock=lambda: NOW) as sandbox:
        yield sandbox


def runs_in(base: Path) -> list[dict[str, Any]]:
    """Return the run log without the code that wrote it, the latest last."""
    path = base / KEY
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_each_run_leaves_a_line(server: Sandbox, tmp_path: Path) -> None:
    pipeline = pipeline_of(server, tmp_path, Clock(NOW))
    first = pipeline.ingest_symbols(["AAPL", "ZZZQ"], "2024-06-03", "2024-06-03", index_name="two")
    pipeline.ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03", refetch=True)
    update = pipeline.update(["AAPL"])

    lines = runs_in(tmp_path)
    assert [(line["command"], line["index"], line["state"]) for line in lines] == [
        ("ingest", "two", "failed"),
        ("refetch", None, "done"),
        ("update", None, "done"),
    ]
    one = lines[0]
    assert one["began"] == "2024-06-10T12:00:00Z"
    assert one["asked"][0]["named"] == ["AAPL", "ZZZQ"]
    assert (one["asked"][0]["start"], one["asked"][0]["end"]) == ("2024-06-03T04:00:00Z", "2024-06-04T04:00:00Z")
    assert (one["added"], one["requests"]) == (first["bars_written"], first["requests"])
    assert one["failures"] == [{"code": "no_data", "message": "No data available", "symbols": 1, "named": ["ZZZQ"]}]
    assert lines[2]["added"] == update["bars_written"] > 0
    assert [run.command for run in RunLog(LocalFiles(tmp_path)).read()] == ["update", "refetch", "ingest"]


def test_a_run_that_requested_nothing_is_there_too(server: Sandbox, tmp_path: Path) -> None:
    pipeline = pipeline_of(server, tmp_path, Clock(NOW))
    for _ in range(2):
        pipeline.ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")

    again = runs_in(tmp_path)[-1]
    assert (again["requests"], again["asked"][0]["complete"], again["succeeded"]) == (0, 1, 1)


def test_a_dry_run_leaves_none(server: Sandbox, tmp_path: Path) -> None:
    where = ("--start", "2024-06-03", "--end", "2024-06-03", "--base-path", tmp_path / "store")
    here("ingest", "AAPL", *where, "--dry-run", url=server.url)

    assert not (tmp_path / "store").exists()


def test_refused_keys_are_a_run_that_stopped_and_no_secret_is_written(tmp_path: Path) -> None:
    with Sandbox(SimulatedMarket(), clock=lambda: NOW, keys={"another": "pair"}) as server, pytest.raises(CredentialsRefused):
        pipeline_of(server, tmp_path, Clock(NOW)).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")

    (line,) = runs_in(tmp_path)
    assert (line["state"], line["error"][0], line["succeeded"], line["failed"]) == ("stopped", "credentials_refused", 0, 1)
    assert SECRET not in (tmp_path / KEY).read_text()


class InterruptingProgress(NoProgress):
    """Presses Ctrl-C when the first responses are in."""

    def update(self, state: object) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_run_is_interrupted(server: Sandbox, tmp_path: Path) -> None:
    pipeline = pipeline_of(server, tmp_path, Clock(NOW), progress=InterruptingProgress())
    with pytest.raises(Interrupted):
        pipeline.ingest_symbols(names_of(8), "2024-05-01", "2024-06-03")

    (line,) = runs_in(tmp_path)
    assert (line["state"], line["error"][0]) == ("interrupted", "interrupted")


def test_a_run_log_that_cannot_be_written_fails_no_run(server: Sandbox, tmp_path: Path) -> None:
    (tmp_path / KEY).mkdir(parents=True)  # a folder is there

    class RecordingProgress(NoProgress):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    progress = RecordingProgress()
    report = pipeline_of(server, tmp_path, Clock(NOW), progress=progress).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")

    assert report["successful"] == ["AAPL"]
    assert len(progress.notes) == 1
    assert "could not be added" in progress.notes[0]
    with pytest.raises(StoreError):
        RunLog(LocalFiles(tmp_path)).read()


def test_bad_input_leaves_no_line(server: Sandbox, tmp_path: Path) -> None:
    base = tmp_path / "store"
    words = ("ingest", "AAPL", "--base-path", base)
    env = account(server.url)
    codes = [here(*words, env=env).code, here(*words, "--start", "nonsense", env=env).code]

    assert codes == [2, 2]
    assert not base.exists()


def test_of_a_night_without_a_line_status_says_only_that_no_run_is_recorded(server: Sandbox, tmp_path: Path) -> None:
    """The update began, and left no line: it had no keys."""
    pipeline_of(server, tmp_path, Clock(NOW)).ingest_symbols(["AAPL"], "2024-06-03", "2024-06-03")
    line = {**runs_in(tmp_path)[0], "began": f"{datetime.now(UTC) - timedelta(days=12):%Y-%m-%dT%H:%M:%SZ}"}
    (tmp_path / KEY).write_text(json.dumps(line) + "\n")
    assert here("update", "--base-path", tmp_path, env={"APCA_API_DATA_URL": server.url}).code == 2

    nights = [text for text in here("status", "--runs", "--base-path", tmp_path).out.splitlines() if text.startswith("No run")]
    assert nights
    assert all(text.startswith("No run is recorded after the session of ") for text in nights)


def test_without_a_run_log_there_are_no_runs(tmp_path: Path) -> None:
    assert RunLog(LocalFiles(tmp_path)).read() == []
