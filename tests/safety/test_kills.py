"""A process that is killed, wherever it was, loses nothing, claims nothing that is not there, and leaves nothing behind.

`fuzz.py` does the same thousands of times.
"""

from __future__ import annotations

import json
import os
import random
import signal
from dataclasses import replace
from zlib import crc32

import pytest

from .driver import POINTS
from .harness import Scenario, Stage, bars_on, check_killed, coverage_on, drafts_on, same, snapshot, truth_of
from .market import SYMBOLS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks and SIGKILL are POSIX")

SCENARIOS = ("first", "extend", "update", "refetch", "rebase", "remove")


@pytest.fixture(scope="module")
def scenarios(stage: Stage) -> dict[str, Scenario]:
    return {name: stage.scenario(name) for name in SCENARIOS}


def test_the_scenarios_pass_every_kill_point(scenarios):
    """A point that nothing passes would prove nothing; the names say which function of the source has moved."""
    passed = set().union(*(scenario.points for scenario in scenarios.values()))

    assert passed == set(POINTS)


def test_the_scenarios_do_what_they_are_named_for(stage, scenarios):
    ends = {name: scenario.expected for name, scenario in scenarios.items()}
    april = "equities_1min/symbol=CON/year=2024/month=04/data.parquet"

    assert [path.name for path in scenarios["first"].template.rglob("*")] == []
    assert ends["first"].files["metadata/indices/six.csv"].splitlines()[1:] == [name.encode() for name in SYMBOLS]
    assert april in ends["first"].files
    assert april not in ends["refetch"].files
    assert ends["extend"].differences(ends["update"]) == []
    bars = {name: data for name, data in ends["first"].files.items() if "equities" in name}
    assert bars == ends["extend"].files
    assert truth_of(stage.split, adjustment="split")["AAPL"] != truth_of(stage.original)["AAPL"]
    assert ends["remove"].files.keys() < ends["first"].files.keys()


# Each at the first time, at the last and somewhere between: some are the only ones of their kind.
DEATHS = [
    (name, point)
    for name in ("first", "refetch", "rebase")
    for point in POINTS
    if (point != "after mkdir" if name == "refetch" else "removal" not in point)
]
DEATHS += [
    ("extend", "after bars"),
    ("extend", "before coverage"),
    ("update", "after coverage"),
    ("update", "before move"),
    ("remove", "after coverage"),
    ("remove", "before removal"),
]


@pytest.mark.one_of(2)
@pytest.mark.parametrize(("name", "point"), DEATHS, ids=[f"{name}-{point}" for name, point in DEATHS])
def test_a_run_that_is_killed_is_completed_by_the_next(stage, scenarios, tmp_path, name, point):
    scenario = scenarios[name]
    seed = crc32(f"{name} {point}".encode())
    nth = random.Random(seed).randint(1, scenario.points[point])
    # How often a point is passed depends on the threads, since they decide which writes share a flush. Where a run ends
    # before it has passed the point `nth` times, nobody was killed, and an earlier time is tried.
    while not scenario.kill(stage.forks, tmp_path, [{"point": point, "nth": nth}]):
        assert nth > 1, f"seed {seed}: nothing passed {point}"
        nth -= (nth + 9) // 10


@pytest.mark.parametrize("name", ["refetch", "remove"])
def test_a_file_that_was_taken_away_before_the_kill_is_no_longer_counted(stage, scenarios, tmp_path, name):
    assert scenarios[name].kill(stage.forks, tmp_path, [{"point": "after removal", "nth": 1}]) == 1


@pytest.mark.one_of(3)  # so that the scenarios differ
@pytest.mark.parametrize("seed", range(8))
def test_runs_that_are_killed_again_and_again_at_any_time(stage, scenarios, tmp_path, seed):
    chance = random.Random(seed)
    scenario = scenarios[("first", "extend", "update", "rebase")[seed % 4]]
    deaths = [{"after": chance.uniform(0, scenario.seconds)} for _ in range(3)]

    scenario.kill(stage.forks, tmp_path, deaths)


def test_drafts_of_the_killed_are_never_read_and_go_with_the_next_run(stage, scenarios, tmp_path):
    """One is torn, and one is of a process that was killed in another scenario: a whole file of bars, but not of this store."""
    scenario = scenarios["first"]
    base = tmp_path / "store"
    stage.forks.run(replace(scenario.job, base=str(base), point="torn draft", nth=5))
    assert len(drafts_on(base)) >= 1
    foreign = next(iter(scenario.expected.files.values()))
    (base / "metadata" / "drafts" / "07-0123456789abcdef0123456789abcdef.tmp").write_bytes(foreign)
    check_killed(base, scenario.truths)
    stage.forks.run(replace(scenario.job, base=str(base)))

    same(base, scenario.expected)


def test_what_a_killed_backfill_still_owes_is_known_to_update(stage, scenarios, tmp_path):
    """Also what no file and no request had come to yet when it died."""
    scenario = scenarios["first"]
    base = tmp_path / "store"
    stage.forks.run(replace(scenario.job, base=str(base), point="before request", nth=1))
    (requested,) = (base / "metadata" / "wanted").glob("*.json")
    assert {symbol for row in json.loads(requested.read_text())["requested"] for symbol in row["symbols"]} == set(SYMBOLS)
    assert not any(coverage_on(base, symbol).get("covered") for symbol in SYMBOLS)
    told = stage.forks.run(replace(scenario.job, base=str(base), action="update"))

    assert told["code"] in (0, 1)
    same(base, scenario.expected)


def test_the_next_run_asks_only_for_what_is_not_there(stage, scenarios, tmp_path):
    scenario = scenarios["first"]
    base = tmp_path / "store"
    whole = scenario.points["before request"]
    stage.forks.run(replace(scenario.job, base=str(base), point="after coverage", nth=11))
    covered = [symbol for symbol in SYMBOLS if coverage_on(base, symbol)["covered"]]
    told = stage.forks.run(replace(scenario.job, base=str(base)))

    assert covered
    assert told["requests"] < whole
    same(base, scenario.expected)


def test_a_kill_while_a_frame_is_stored_leaves_each_file_as_it_was_or_as_it_should_be(stage, tmp_path):
    frame, rows = frame_of(stage)
    path = tmp_path / "frame.pkl"
    frame.to_pickle(path)
    job = replace(stage.job(), action="store", frame=str(path))
    stage.forks.run(replace(job, base=str(tmp_path / "undisturbed")))
    expected = snapshot(tmp_path / "undisturbed")
    for point in ("before draft", "torn draft", "before move", "moved", "after bars", "before coverage", "after coverage"):
        base = tmp_path / point
        assert stage.forks.run(replace(job, base=str(base), point=point, nth=2))["killed"]
        check_killed(base, [rows], claims=False)
        assert all(not coverage_on(base, symbol).get("covered") for symbol in SYMBOLS)
        stage.forks.run(replace(job, base=str(base)))
        stage.forks.run(replace(stage.job(symbols=("ZZZ",)), base=str(base)))  # the next run, which cleans up
        assert drafts_on(base) == []
        assert {name: data for name, data in snapshot(base).files.items() if name in expected.files} == expected.files
        assert all(bars_on(base, symbol) == rows[symbol] for symbol in SYMBOLS if symbol != "ZZZ")


def frame_of(stage):
    import pandas as pd

    rows = truth_of(stage.original)
    flat = [(symbol, stamp, *values) for symbol, bars in rows.items() for stamp, values in bars.items()]
    columns = ["symbol", "timestamp", "open", "high", "low", "close", "volume", "trade_count", "vwap"]
    frame = pd.DataFrame(flat, columns=columns)
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], unit="us", utc=True)
    return frame, rows


def test_a_kill_is_a_kill(stage, tmp_path):
    """The harness itself: a child that is to die at the first point leaves nothing but what came before."""
    told = stage.forks.run(replace(stage.job(), base=str(tmp_path / "store"), point="after mkdir", nth=1))

    assert told == {"killed": True}
    assert signal.SIGKILL == 9
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
