"""Two runs on one store: nobody's bars are lost, nobody waits for ever, and who cannot work says so."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_engine import IngestionPipeline, StoreBusyWarning
from data_engine.errors import InputError, StoreBusy
from data_engine.read.parquet_storage import ParquetStorage
from data_engine.store import local_files
from data_engine.store.local_files import LocalFiles

from .driver import Job, pipeline_of
from .harness import Children, Stage, bars_on, check_whole, coverage_on, same, served, snapshot, truth_of
from .market import MIDDLE, SYMBOLS

ROUNDS = 20

posix = pytest.mark.skipif(os.name == "nt", reason="processes are stopped by a signal of POSIX")


@pytest.fixture(scope="module")
def expected(stage: Stage, tmp_path_factory):
    base = tmp_path_factory.mktemp("undisturbed")
    told = stage.forks.run(replace(stage.job(), base=str(base)))
    assert told["code"] == 1
    return snapshot(base)


def both(stage: Stage, other: Children, first: Job, second: Job) -> tuple[dict, dict]:
    stage.forks.start(first)
    other.start(second)
    return stage.forks.finish(), other.finish()


def test_two_processes_with_the_same_symbols(stage, other, expected, tmp_path):
    """Between them they ask hardly more than one: the second finds what the first has brought."""
    alone = stage.forks.run(replace(stage.job(), base=str(tmp_path / "alone")))["requests"]
    for number in range(ROUNDS):
        base = tmp_path / str(number)
        job = replace(stage.job(), base=str(base))
        told = both(stage, other, job, job)

        assert [one["code"] for one in told] == [1, 1], told  # ZZZ has no data
        # Only what is provisional or recently empty is asked for twice.
        assert sum(one["requests"] for one in told) <= alone + 2 * len(SYMBOLS)
        same(base, expected)


def test_two_processes_with_different_symbols(stage, other, expected, tmp_path):
    halves = SYMBOLS[:3], SYMBOLS[3:]
    for number in range(ROUNDS):
        base = tmp_path / str(number)
        first, second = (replace(stage.job(symbols=half), base=str(base)) for half in halves)
        told = both(stage, other, first, second)

        assert [one["code"] for one in told] == [0, 1], told
        same(base, expected)


def test_two_processes_with_different_ranges_of_the_same_files(stage, other, expected, tmp_path):
    for number in range(5):
        base = tmp_path / str(number)
        told = both(
            stage,
            other,
            replace(stage.job(end=MIDDLE), base=str(base)),
            replace(stage.job(start="2024-05-09"), base=str(base)),
        )

        assert {one["code"] for one in told} <= {0, 1}, told
        assert {name: data for name, data in snapshot(base).files.items() if "equities" in name} == expected.files
        check_whole(base, [truth_of(stage.original)])


def test_whoever_does_not_want_to_wait_is_told_that_the_store_is_busy(stage, other, tmp_path):
    """The first run holds the store until the second has been refused: its server answers only then."""
    refused, asked = threading.Event(), threading.Event()

    def hold_back(_record) -> None:
        asked.set()
        refused.wait(30)

    base = tmp_path / "store"
    with served(stage.original, on_request=hold_back) as slow:
        stage.forks.start(replace(stage.job(url=slow.url), base=str(base)))
        assert asked.wait(30)
        before = snapshot(base)
        told = other.run(replace(stage.job(), base=str(base), wait=0.0))
        after = snapshot(base)
        refused.set()
        first = stage.forks.finish()

    assert (told["code"], told["kind"]) == (7, "StoreBusy")
    assert str(base) in told["error"]
    assert before.differences(after) == []
    assert first["code"] == 1


def test_a_run_waits_for_a_run_that_is_killed_and_then_works(stage, other, expected, tmp_path):
    """The kernel lets go of the locks of the dead: nobody has to clean up."""
    asked = threading.Event()
    forever = threading.Event()

    def hold_back(_record) -> None:
        asked.set()
        forever.wait(5)

    base = tmp_path / "store"
    with served(stage.original, on_request=hold_back) as slow:
        stage.forks.start(replace(stage.job(url=slow.url), base=str(base), after=1.0))
        assert asked.wait(30)
        started = time.monotonic()
        told = other.run(replace(stage.job(), base=str(base)))
        assert stage.forks.finish() == {"killed": True}
        forever.set()

    assert told["code"] == 1
    assert time.monotonic() - started < 20
    same(base, expected)


def test_a_lock_of_a_file_whose_owner_was_killed_blocks_nobody(stage, expected, tmp_path):
    base = tmp_path / "store"
    for nth in (2, 5, 9):  # the first lock is that of the run, later ones are those of single files
        assert stage.forks.run(replace(stage.job(), base=str(base), point="lock held", nth=nth))["killed"]
        files = LocalFiles(base, lock_seconds=0.0)
        for stripe in range(64):
            with files._locks.stripe(stripe, seconds=0.0):
                pass
        with files.lock("run", seconds=0.0):
            pass
    stage.forks.run(replace(stage.job(), base=str(base)))

    same(base, expected)


HOLDER = """
import os, signal, sys
from data_engine.store import local_files
from data_engine.store.local_files import LocalFiles
with LocalFiles(sys.argv[1])._locked(sys.argv[2]):
    os.write(1, b"held")
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A process that was stopped (SIGSTOP) while it held the lock of a bar file of AAPL."""
    monkeypatch.setattr(local_files, "_UNSAID_SECONDS", 0.01)
    base, key = tmp_path / "store", "equities_1min/symbol=AAPL/year=2024/month=05/data.parquet"
    child = subprocess.Popen([sys.executable, "-c", HOLDER, base, key], stdout=subprocess.PIPE)
    try:
        assert child.stdout.read(4) == b"held"
        yield base, child
    finally:
        child.kill()
        child.communicate(timeout=60)


@posix
def test_store_beside_a_stopped_run_says_each_time_that_it_waits_and_ends_when_it_was_told_to(stopped):
    base, _ = stopped
    with warnings.catch_warnings(record=True, action="default") as told:
        for _ in range(2):
            with pytest.raises(StoreBusy, match=r"0\.05 s.*wait=") as caught:
                ParquetStorage(base).store(frame("AAPL", 0, 3, 5.0), "1Min", wait=0.05)
    ParquetStorage(base).store(frame("KO", 0, 3, 5.0), "1Min", wait=0)  # its file is not locked

    assert caught.value.exit_code == 7
    assert [(one.category, str(base) in str(one.message)) for one in told] == [(StoreBusyWarning, True)] * 2
    assert {one.filename for one in told} == {__file__}
    assert [path.parts[-4] for path in base.rglob("*.parquet")] == ["symbol=KO"]


@posix
def test_store_that_does_not_want_to_wait_is_refused_without_a_word(stopped):
    with pytest.raises(StoreBusy, match="waited 0 s"):
        ParquetStorage(stopped[0]).store(frame("AAPL", 0, 3, 5.0), "1Min", wait=0)


@posix
def test_store_goes_on_when_the_stopped_run_has_ended(stopped, monkeypatch):
    """Being told to wait is what ends the other: so this one has certainly waited."""
    base, child = stopped
    with warnings.catch_warnings(action="default"):
        monkeypatch.setattr(warnings, "showwarning", lambda *_: child.kill())
        stored = ParquetStorage(base).store(frame("AAPL", 0, 3, 5.0), "1Min")

    assert stored.rows == 3


@pytest.mark.parametrize("wait", [-1, float("nan"), float("inf"), "10", None, 1e300])
def test_a_wait_that_is_no_number_of_seconds_is_refused(tmp_path, wait):
    with pytest.raises(InputError, match="wait must be a number of seconds from 0"):
        ParquetStorage(tmp_path).store(frame("AAPL", 0, 3, 5.0), "1Min", wait=wait)
    with pytest.raises(InputError, match="wait must be a number of seconds from 0"):
        IngestionPipeline(base_path=tmp_path, wait=wait)
    assert list(tmp_path.iterdir()) == []


def test_two_pipelines_in_one_process_on_one_storage(stage, expected, tmp_path):
    for number in range(5):
        base = tmp_path / str(number)
        storage = ParquetStorage(base)
        halves = SYMBOLS[:4], SYMBOLS[2:]

        def ingest(symbols, base=base, storage=storage):
            job = replace(stage.job(symbols=symbols), base=str(base))
            return pipeline_of(job, storage=storage).ingest_symbols(symbols, job.start)

        with ThreadPoolExecutor(2) as pool:
            reports = list(pool.map(ingest, halves))

        assert [report["codes"] for report in reports] == [{}, {"ZZZ": "no_data"}]
        same(base, expected)


def test_a_pipeline_that_finds_its_own_process_at_work_is_refused_when_it_does_not_wait(stage, tmp_path):
    job = replace(stage.job(), base=str(tmp_path / "store"), wait=0.0)
    pipeline = pipeline_of(job)
    with pipeline.storage.files.lock("run", seconds=0), pytest.raises(StoreBusy, match="store"):
        pipeline.ingest_symbols(SYMBOLS, job.start)

    assert not list((tmp_path / "store").rglob("*.parquet"))


def frame(symbol: str, first: int, count: int, close: float) -> pd.DataFrame:
    stamps = pd.to_datetime(1_714_572_000 + 60 * (first + np.arange(count)), unit="s", utc=True)
    values = {"open": 1.0, "high": 9.0, "low": 1.0, "close": close, "volume": 5.0, "trade_count": 1.0, "vwap": 2.0}
    return pd.DataFrame({"symbol": symbol, "timestamp": stamps, **values})


def test_frames_that_many_threads_store_are_all_there(tmp_path):
    """Each holds every eighth minute of the same month of the same symbols."""
    storage = ParquetStorage(tmp_path / "store")
    pieces = [frame(symbol, first, 40, float(first)) for symbol in ("A", "B") for first in range(0, 640, 40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(storage.store, pieces))
    expected = ParquetStorage(tmp_path / "expected")
    expected.store(pd.concat(pieces))

    assert snapshot(tmp_path / "store").differences(snapshot(tmp_path / "expected")) == []
    assert len(bars_on(tmp_path / "store", "A")) == 640


def test_frames_that_two_processes_store_are_all_there(stage, other, tmp_path):
    base = tmp_path / "store"
    for number in range(ROUNDS):
        jobs = []
        for side in (0, 1):
            path = tmp_path / f"{side}.pkl"
            frame("A", (2 * number + side) * 30, 30, 5.0).to_pickle(path)
            jobs.append(replace(stage.job(), action="store", base=str(base), frame=str(path)))
        assert [told["code"] for told in both(stage, other, *jobs)] == [0, 0]

    assert len(bars_on(base, "A")) == 2 * ROUNDS * 30
    assert coverage_on(base, "A")["bars"] == 2 * ROUNDS * 30


def test_frames_stored_during_an_ingestion_are_all_there(stage, tmp_path):
    """`store` needs no hold on the store: single files are locked, and nothing is lost in either."""
    base = tmp_path / "store"
    path = tmp_path / "frame.pkl"
    frame("AAPL", -50_000, 30, 5.0).to_pickle(path)  # in March: another file, but the same coverage
    stage.forks.start(replace(stage.job(), base=str(base)))
    storage = ParquetStorage(base)
    for first in range(0, 300, 30):
        storage.store(frame("AAPL", -50_000 + first, 30, 5.0))
        storage.store(frame("MSFT", first, 30, 5.0))
    assert stage.forks.finish()["code"] == 1

    truth = truth_of(stage.original)["AAPL"]
    found = bars_on(base, "AAPL")
    assert {stamp: values for stamp, values in found.items() if stamp in truth} == truth
    assert len(found) == len(truth) + 300
    assert coverage_on(base, "AAPL")["bars"] == len(found)
    assert len(bars_on(base, "MSFT")) == 300


def test_readers_see_whole_files_while_a_run_writes_them(stage, tmp_path):
    base = tmp_path / "store"
    truth = truth_of(stage.original)
    stage.forks.start(replace(stage.job(limit=20), base=str(base)))
    looks = 0
    finished = threading.Thread(target=lambda: answers.append(stage.forks.finish()))
    answers: list[dict] = []
    finished.start()
    while finished.is_alive():
        for path in list(Path(base).glob("equities_1min/**/*.parquet")):
            symbol = path.parts[-4].removeprefix("symbol=")
            assert bars_on(base, symbol).items() <= truth[symbol].items()
            looks += 1
    finished.join()

    assert answers[0]["code"] == 1
    assert looks > 0
