"""What a command says that it has written is what the run log says of it, whatever ended it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_engine.errors import StoreError
from data_engine.sandbox import Replay, Sandbox
from running import Clock, here, pipeline_of, write_minutes

DAYS = [date(2024, 5, day) for day in (28, 29, 30, 31)]
RANGE = ("--start", "2024-05-28", "--end", "2024-05-31")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return a store of two series of which Alpaca has something else later."""
    clock = Clock(datetime(2024, 6, 20, 15, tzinfo=UTC))
    path = write_minutes(tmp_path / "bars.parquet", ["AAA", "BBB"], DAYS)
    with Sandbox(Replay(path), clock=clock) as server:
        pipeline_of(server, tmp_path / "store", clock).ingest_symbols(["AAA", "BBB"], RANGE[1], RANGE[3])
    return tmp_path / "store"


@pytest.fixture
def later(base: Path) -> Iterator[Sandbox]:
    """Alpaca as it is later: of both on the 28th, 14:05 is revised, 14:07 is gone and 15:09 is new."""
    frame = pd.read_parquet(base.parent / "bars.parquet")
    at = frame["timestamp"]
    frame.loc[at == "2024-05-28 14:05:00+00:00", "close"] += 0.25
    gone = at == "2024-05-28 14:07:00+00:00"
    new = frame[gone].assign(timestamp=pd.Timestamp("2024-05-28 15:09:00+00:00"))
    frame = pd.concat([frame[~gone], new]).sort_values(["symbol", "timestamp"])
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), base.parent / "later.parquet")
    with Sandbox(Replay(base.parent / "later.parquet")) as server:
        yield server


def last_runs(base: Path, count: int) -> list[dict[str, Any]]:
    """Return the last lines of the run log, the latest first."""
    return list(here("status", "--runs", "--json", "--base-path", base, env={}).json["runs"][:count])


def agrees(line: dict[str, Any], shown: dict[str, Any]) -> bool:
    """Tell whether a line of the run log and the JSON of a command count the same bars and requests."""
    removed = shown["bars_removed"] if "bars_removed" in shown else shown["removed"]
    counted = (line["added"] + line["revised"], line["removed"], line["requests"], line["failed"])
    return counted == (shown["bars_written"], removed, shown["requests"], len(shown["failed"]))


@pytest.mark.parametrize(
    ("words", "written", "removed"),
    [
        (("ingest", "AAA", "BBB", *RANGE, "--no-actions"), 0, 0),
        (("ingest", "AAA", "BBB", *RANGE, "--no-actions", "--refetch", "--accept-removals"), 4, 2),
        (("update", "--no-actions"), 0, 0),
        (("recheck",), 2, 0),
        (("recheck", "--minutes", "5", "--accept"), 4, 2),
        (("audit", "--sample", "50", "--seed", "1"), 2, 0),
        (("audit", "--sample", "50", "--seed", "1", "--accept"), 4, 0),
    ],
)
def test_the_run_log_counts_the_bars_that_the_command_counts(
    base: Path, later: Sandbox, words: tuple[str, ...], written: int, removed: int
) -> None:
    ran = here(*words, "--json", "--base-path", base, url=later.url)
    (line,) = last_runs(base, 1)

    assert ran.code == 0, ran.text
    assert line["command"] in {words[0], "refetch"}
    assert (line["added"] + line["revised"], line["removed"]) == (written, removed)
    assert agrees(line, ran.json)
    assert line["pages"] <= line["requests"]
    assert (line["pages"] > 0) == (line["requests"] > 0)


def test_what_is_accepted_without_a_request_is_in_the_run_log(base: Path, later: Sandbox) -> None:
    here("recheck", "--base-path", base, url=later.url)
    ran = here("recheck", "--accept", "--json", "--base-path", base, url=later.url)
    line, before = last_runs(base, 2)

    assert (before["added"], before["revised"], before["vanished"]) == (2, 0, 2)
    assert (line["command"], line["state"], line["requests"], line["succeeded"]) == ("recheck", "done", 0, 2)
    assert (line["added"], line["revised"], line["removed"], line["vanished"]) == (0, 2, 2, 0)
    assert agrees(line, ran.json)


def test_an_update_with_a_recheck_leaves_a_line_for_each(base: Path, later: Sandbox) -> None:
    ran = here("update", "--no-actions", "--recheck", "5", "--json", "--base-path", base, url=later.url)
    again, update = last_runs(base, 2)

    assert (update["command"], again["command"], again["added"]) == ("update", "recheck", 2)
    assert agrees(update, ran.json)
    assert agrees(again, ran.json["recheck"])


@pytest.mark.parametrize("raised", [StoreError("the disk is full"), KeyboardInterrupt(), RuntimeError("a mistake")])
def test_what_was_done_until_an_error_is_told_and_in_the_run_log(
    base: Path, later: Sandbox, raised: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bars of the first series are taken over, those of the second are not."""
    from data_engine.ingest import conflicting_bars

    real = conflicting_bars._accept

    def failing(storage: Any, series: Any, changes: Any, **options: Any) -> None:
        if series.symbol == "BBB":
            raise raised
        real(storage, series, changes, **options)

    monkeypatch.setattr(conflicting_bars, "_accept", failing)
    ran = here("recheck", "--minutes", "5", "--accept", "--json", "--base-path", base, url=later.url)
    (line,) = last_runs(base, 1)

    assert (line["added"], line["revised"], line["removed"]) == (2, 1, 1)
    assert line["state"] == ("interrupted" if isinstance(raised, KeyboardInterrupt) else "stopped")
    assert ran.code == {StoreError: 4, KeyboardInterrupt: 130, RuntimeError: 1}[type(raised)]
    if ran.code != 1:  # of a mistake of the program, only the run log tells
        assert agrees(line, ran.json)
        assert ran.json["error"]["code"] == line["error"][0]


def test_an_error_after_a_recheck_prints_what_was_stored_as_text_too(
    base: Path, later: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr("data_engine.ingest.recheck.accept_conflicts", full)
    ran = here("recheck", "--minutes", "5", "--accept", "--base-path", base, url=later.url)

    assert ran.code == 4
    assert "Stored: 2 bars" in ran.out
    assert "the disk is full" in ran.err


def test_keys_that_are_lacking_leave_no_line(base: Path, later: Sandbox) -> None:
    before = last_runs(base, 500)
    assert [here(*words, "--base-path", base, env={}).code for words in (("recheck",), ("audit",))] == [2, 2]
    assert last_runs(base, 500) == before
