"""``history``: what came, went and changed of a symbol's bars, when, and by whom, against what the test itself has written."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_engine import ParquetStorage
from data_engine.cli import main
from data_engine.store.history import compaction
from data_engine.store.history.record import FOLDER
from frames import bars
from running import Ran, here

HANDS = ("store", "remove")


def run(base: Path, *words: str) -> Ran:
    return here(*words, "--base-path", str(base))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "store"


def stored_closes(base: Path) -> dict[pd.Timestamp, float]:
    """Return the stored bars of A, read with pandas alone."""
    files = sorted(base.glob("equities_1min/symbol=A/*/*/data.parquet"))
    return {stamp: close for file in files for stamp, close in pd.read_parquet(file).set_index("timestamp")["close"].items()}


def difference(old: dict[pd.Timestamp, float], new: dict[pd.Timestamp, float]) -> dict[str, object]:
    added, removed = new.keys() - old.keys(), old.keys() - new.keys()
    revised = {stamp for stamp in old.keys() & new.keys() if old[stamp] != new[stamp]}
    touched = sorted(added | removed | revised)
    ends = [stamp.tz_localize(None).isoformat() + "Z" for stamp in (touched[0], touched[-1])]
    return {"added": len(added), "revised": len(revised), "removed": len(removed), "first_bar": ends[0], "last_bar": ends[1]}


def test_each_commit_is_a_line_with_the_bars_that_it_changed(base):
    storage, rng = ParquetStorage(base), np.random.default_rng(5)
    expected: list[dict[str, object]] = []
    for number in range(8):
        old = stored_closes(base)
        if number == 5:
            assert run(base, "remove", "A", "--start", "2024-06-28", "--end", "2024-06-28").code == 0
        else:
            first = pd.Timestamp("2024-06-28 13:30") + pd.Timedelta(minutes=int(rng.integers(0, 20)), days=3 * (number % 2))
            storage.store(bars("A", str(first), 30, float(number)), "1Min")
        expected.append({**difference(old, stored_closes(base)), "actor": HANDS[number == 5]})
    found = run(base, "history", "a", "--json").json

    assert [{name: one[name] for name in expected[0]} for one in found["changes"]] == expected[::-1]
    assert (found["beginnings"], found["logged_revisions"]) == ([], [])
    lines = run(base, "history", "A").out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [one["instant"] for one in found["changes"]]
    july = run(base, "history", "A", "--start", "2024-07-01", "--json").json["changes"]
    assert len(july) == 3  # calls 1, 3 and 7 stored bars of July 1
    assert all(one["first_bar"] >= "2024-07-01" for one in july)


def test_the_instant_of_a_line_is_that_of_the_state_with_it(base):
    storage = ParquetStorage(base)
    states = []
    for price in (1.0, 2.0, 3.0):
        storage.store(bars("A", "2024-06-03 13:30", 3 + int(price), price), "1Min")
        states.append(stored_closes(base))
    instants = [one["instant"] for one in run(base, "history", "A", "--json").json["changes"]][::-1]

    for instant, state in zip(instants, states, strict=True):
        then = storage.load("A", "2024-06-03", "2024-06-03", incomplete="ignore", as_stored_on=instant)
        assert dict(then["close"].droplevel("symbol")) == state


def test_series_of_one_symbol_are_told_apart_and_can_be_chosen(base):
    storage = ParquetStorage(base)
    storage.store(bars("A", "2024-06-03 13:30", 3, 1.0), "1Min")
    storage.store(bars("A", "2024-06-03 04:00", 2, 1.0, "1D"), "1Day")
    storage.store(bars("B", "2024-06-03 13:30", 3, 1.0), "1Min")

    assert [(one["dataset"], one["added"]) for one in run(base, "history", "A", "--json").json["changes"]] == [
        ("equities_1day", 2),
        ("equities_1min", 3),
    ]
    assert len(run(base, "history", "A", "--timeframe", "1Day").out.splitlines()) == 1
    assert len(run(base, "history", "A", "B").out.splitlines()) == 3


def test_files_from_before_the_history_are_a_line_of_their_own(base):
    storage = ParquetStorage(base)
    storage.store(bars("A", "2024-05-03 13:30", 7, 1.0), "1Min")
    storage.store(bars("A", "2024-06-03 13:30", 5, 1.0), "1Min")
    for record in (base / FOLDER).iterdir():  # as an older version would have left it
        record.unlink()
    assert run(base, "history", "A").code == 0
    storage = ParquetStorage(base)
    storage.store(bars("A", "2024-06-03 13:34", 3, 2.0), "1Min")
    found = run(base, "history", "A", "--json").json

    assert [(one["added"], one["revised"], one["removed"]) for one in found["changes"]] == [(2, 1, 0)]
    (begun,) = found["beginnings"]
    assert (begun["instant"], begun["files"], begun["bars"]) == (found["history_begins"], 2, 12)


def test_a_file_that_a_hand_has_replaced_is_named_and_what_is_known_is_told(base):
    storage = ParquetStorage(base)
    for month in (5, 6):
        storage.store(bars("A", f"2024-{month:02}-03 13:30", 5, 1.0), "1Min")
    by_hand = base / "equities_1min/symbol=A/year=2024/month=06/data.parquet"
    by_hand.write_bytes((base / "equities_1min/symbol=A/year=2024/month=05/data.parquet").read_bytes())
    found = run(base, "history", "A", "--json").json

    assert [one["last_bar"][:7] for one in found["changes"]] == ["2024-05"]
    assert [(one["instant"], one["files"], one["bars"]) for one in found["beginnings"]] == [(None, 1, None)]
    assert "no record explains" in run(base, "history", "A").out


def test_a_removed_symbol_still_has_a_history_and_an_unknown_one_is_refused(base):
    storage = ParquetStorage(base)
    storage.store(bars("A", "2024-06-03 13:30", 5, 1.0), "1Min")
    storage.store(bars("B", "2024-06-03 13:30", 5, 1.0), "1Min")
    run(base, "remove", "A")

    assert [one["removed"] for one in run(base, "history", "A", "--json").json["changes"]] == [5, 0]
    unknown = run(base, "history", "AA", "--json")
    assert (unknown.code, unknown.json["error"]["code"]) == (2, "bad_input")
    assert main(["history"]) == 2


def test_the_log_of_revisions_of_an_earlier_version_is_read(base):
    ParquetStorage(base).store(bars("A", "2024-06-03 13:30", 5, 1.0), "1Min")
    log = base / "metadata/revisions/equities_1min.csv"
    log.parent.mkdir()
    rows = [
        "2026-11-25T13:42:06Z,A,2024-06-03T13:30:00Z,revised,close,1.0,1.5",
        "2026-11-25T13:42:06Z,A,2024-06-03T13:30:00Z,revised,high,1.0,1.5",
        "2026-11-25T13:42:06Z,B,2024-06-03T13:30:00Z,revised,close,1.0,1.5",
        "2026-11-26T13:42:06Z,A,2024-06-03T13:31:00Z,vanished,close,1.0,",
        "2026-11-26T13:42:06Z,A,2024-07-03T13:31:00Z,vanished,close,1.0,",
    ]
    log.write_text("\n".join(["seen,symbol,timestamp,change,field,old,new", *rows]) + "\n")
    found = run(base, "history", "A", "--end", "2024-06-30", "--json").json["logged_revisions"]

    assert [(one["seen"], one["revised"], one["appeared"], one["vanished"]) for one in found] == [
        ("2026-11-26T13:42:06Z", 0, 0, 1),
        ("2026-11-25T13:42:06Z", 1, 0, 0),
    ]
    log.write_text("nonsense\n")
    assert json.loads(run(base, "history", "A", "--json").out)["error"]["code"] == "damaged_file"


def test_a_forgotten_removal_is_a_line_without_its_bars_and_what_was_pruned_is_none(base, monkeypatch):
    monkeypatch.setattr(compaction, "AGE", timedelta(0))
    storage = ParquetStorage(base)
    storage.store(bars("A", "2024-06-03 13:30", 5, 1.0), "1Min")
    storage.store(bars("B", "2024-06-03 13:30", 5, 1.0), "1Min")
    run(base, "remove", "A", "--forget")
    storage.store(bars("A", "2024-06-03 13:30", 3, 2.0), "1Min")
    found = run(base, "history", "A", "--json").json

    assert [(one["actor"], one["added"], one["files_not_kept"]) for one in found["changes"]] == [
        ("store", 3, 0),
        ("remove", 0, 1),
    ]
    assert [(one["instant"], one["bars"]) for one in found["beginnings"]] == [(found["changes"][1]["instant"], None)]
    assert "old bars not kept" in run(base, "history", "A").out
    assert run(base, "history", "prune", "--before", found["changes"][0]["instant"]).code == 0
    pruned = run(base, "history", "A", "--json").json
    assert (pruned["changes"], pruned["history_begins"]) == ([], found["changes"][0]["instant"])
    assert [(one["instant"], one["bars"]) for one in pruned["beginnings"]] == [(pruned["history_begins"], 3)]
