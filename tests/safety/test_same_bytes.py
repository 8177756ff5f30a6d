"""Same bars, same bytes: however they came."""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from data_engine.read.parquet_storage import ParquetStorage

from .harness import Stage, check_whole, drafts_on, same, snapshot, truth_of
from .market import FIRST, LAST, START, SYMBOLS

MANY = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def expected(stage: Stage, tmp_path_factory):
    base = tmp_path_factory.mktemp("undisturbed")
    stage.forks.run(replace(stage.job(), base=str(base)))
    return snapshot(base)


@pytest.fixture(scope="module")
def whole(stage: Stage) -> pd.DataFrame:
    flat = [(symbol, stamp, *values) for symbol, bars in truth_of(stage.original).items() for stamp, values in bars.items()]
    columns = ["symbol", "timestamp", "open", "high", "low", "close", "volume", "trade_count", "vwap"]
    frame = pd.DataFrame(flat, columns=columns)
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], unit="us", utc=True)
    return frame


a_day = st.dates(FIRST, LAST - timedelta(days=1))


@st.composite
def a_way(draw):
    """A row of ingestions that together ask for everything: days cut anywhere, in any order, some killed, some twice."""
    edges = sorted(set(draw(st.lists(a_day, max_size=3))))
    starts = [date.fromisoformat(START), *(edge + timedelta(days=1) for edge in edges)]
    pieces = [(start.isoformat(), end) for start, end in zip(starts, [*(edge.isoformat() for edge in edges), None], strict=True)]
    jobs = []
    for start, end in draw(st.permutations(pieces)):
        symbols = tuple(draw(st.permutations(SYMBOLS)))
        cut = draw(st.integers(0, len(symbols) - 1))
        for group in filter(None, (symbols[:cut], symbols[cut:])):
            how = {"workers": draw(st.sampled_from([1, 2, 3, 8])), "limit": draw(st.sampled_from([37, 100, 1000, 10_000]))}
            if draw(st.integers(0, 3)) == 0:
                how |= {
                    "point": draw(st.sampled_from(["after bars", "before move", "after coverage"])),
                    "nth": draw(st.integers(1, 6)),
                }
            jobs.append({"start": start, "end": end, "symbols": group, **how})
    return jobs


@MANY
@given(jobs=a_way())
def test_any_order_cutting_worker_count_page_size_and_interruption(stage, expected, jobs):
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        again = [{**fields, "point": None} for fields in jobs]
        for fields in [*jobs, *again]:
            told = stage.forks.run(replace(stage.job(), base=folder, **fields))
            note(f"{fields} -> {told.get('code')} {told.get('requests')}")
            if told["killed"]:
                check_whole(base, [truth_of(stage.original)])

        assert drafts_on(base) == []
        # ZZZ has no data in the last piece, or in all: the message is of the last run.
        assert snapshot(base).without("failure").differences(expected.without("failure")) == []


@settings(MANY, max_examples=12)
@given(seed=st.integers(0, 2**32), pieces=st.integers(1, 12))
def test_frames_stored_in_any_order_and_pieces_are_the_files_of_an_ingestion(expected, whole, seed, pieces):
    """The rows shuffled, cut, and some of them stored twice."""
    chance = random.Random(seed)
    order = list(range(len(whole)))
    chance.shuffle(order)
    edges = [0, *sorted(chance.randrange(len(order)) for _ in range(pieces - 1)), len(order)]
    with tempfile.TemporaryDirectory() as folder:
        storage = ParquetStorage(folder)
        for first, last in pairwise(edges):
            storage.store(whole.iloc[order[first:last] + order[:50]])
        found = snapshot(Path(folder))

    assert found.files == {name: data for name, data in expected.files.items() if "equities" in name}


def test_a_frame_on_top_of_an_ingestion_and_the_other_way_round(stage, expected, whole, tmp_path):
    some = whole.sample(frac=0.4, random_state=1)
    ParquetStorage(tmp_path / "before").store(some)
    stage.forks.run(replace(stage.job(), base=str(tmp_path / "before")))
    stage.forks.run(replace(stage.job(), base=str(tmp_path / "after")))
    ParquetStorage(tmp_path / "after").store(some)

    # Nobody vouches for the files that a frame came into last, though they are the same.
    same(tmp_path / "before", expected)
    assert snapshot(tmp_path / "after").without("files").differences(expected.without("files")) == []


def test_an_ingestion_that_is_repeated_changes_nothing(stage, expected, tmp_path):
    base = tmp_path / "store"
    first = stage.forks.run(replace(stage.job(), base=str(base)))
    stamps = {path: path.stat().st_mtime_ns for path in base.rglob("*.parquet")}
    second = stage.forks.run(replace(stage.job(), base=str(base)))

    assert {path: path.stat().st_mtime_ns for path in base.rglob("*.parquet")} == stamps
    assert second["requests"] <= len(SYMBOLS) < first["requests"]
    assert second["bars_written"] == 0
    same(base, expected)


def test_a_store_that_was_copied_goes_on_as_the_same_store(stage, expected, tmp_path):
    stage.forks.run(replace(stage.job(end="2024-05-20"), base=str(tmp_path / "here")))
    # As a plain copy does it: without the locks, and with new times.
    shutil.copytree(
        tmp_path / "here", tmp_path / "there", ignore=shutil.ignore_patterns("locks", "drafts"), copy_function=shutil.copyfile
    )
    stage.forks.run(replace(stage.job(), base=str(tmp_path / "there")))

    same(tmp_path / "there", expected)


def test_a_refetch_of_revised_bars_ends_in_the_files_of_a_first_ingestion_of_them(stage, tmp_path):
    """With removals accepted; otherwise bars that the vendor no longer has would stay."""
    url = stage.sandboxes[1].url
    stage.forks.run(replace(stage.job(), base=str(tmp_path / "refetched")))
    stage.forks.run(replace(stage.job(url=url, refetch=True), base=str(tmp_path / "refetched")))
    stage.forks.run(replace(stage.job(url=url), base=str(tmp_path / "first")))

    assert snapshot(tmp_path / "refetched").files == snapshot(tmp_path / "first").files
    check_whole(tmp_path / "refetched", [truth_of(stage.revised)])


def test_a_new_price_base_ends_in_the_files_of_a_first_ingestion_of_it(stage, tmp_path):
    url = stage.sandboxes[2].url
    stage.forks.run(replace(stage.job(end="2024-05-20", adjustment="split"), base=str(tmp_path / "rebased")))
    stage.forks.run(replace(stage.job(url=url, adjustment="split"), base=str(tmp_path / "rebased")))
    stage.forks.run(replace(stage.job(url=url, adjustment="split"), base=str(tmp_path / "first")))

    assert snapshot(tmp_path / "rebased").differences(snapshot(tmp_path / "first")) == []
