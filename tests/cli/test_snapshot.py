"""``snapshot``: names for what a store held, on the command line and wherever ``as_stored_on`` is taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from data_engine import ParquetStorage
from data_engine.errors import InputError
from data_engine.store.history.record import FOLDER
from frames import bars
from real_data import real
from running import COLUMNS, Ran, here

MULTIFETCH = "minute/yfinance_rth_8sym_202603_multifetch.parquet"


def run(base: Path, *words: str) -> Ran:
    return here(*words, "--base-path", str(base))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A store with a snapshot ``march``, and changes after it."""
    base = tmp_path / "store"
    storage = ParquetStorage(base)
    storage.store(bars("A", "2024-06-03 13:30", 5, 1.0), "1Min")
    assert run(base, "snapshot", "create", "march").code == 0
    storage.store(bars("A", "2024-06-03 13:32", 9, 2.0), "1Min")
    storage.store(bars("B", "2024-06-03 13:30", 5, 3.0), "1Min")
    return base


def test_a_snapshot_is_read_by_its_name_wherever_an_instant_is(base, tmp_path):
    storage = ParquetStorage(base)
    then = storage.load("A", "2024-06-03", "2024-06-03", incomplete="ignore", as_stored_on="march")
    sql = "SELECT count(*) AS n, sum(close) AS s FROM bars_1min"

    assert then["close"].tolist() == [1.0] * 5
    assert run(base, "query", sql, "--json", "--as-stored-on", "march").json["rows"] == [[5, 5.0]]
    assert run(base, "query", sql, "--json").json["rows"] == [[16, 2.0 + 18.0 + 15.0]]
    assert run(base, "status", "--digest", "--as-stored-on", "march").out.split() == [listed(base)[0]["digest"]]
    assert [one["symbol"] for one in run(base, "status", "--json", "--as-stored-on", "march").json["series"]] == ["A"]
    with pytest.raises(InputError, match=r"april.*march"):
        storage.load("A", "2024-06-03", as_stored_on="april")
    assert run(base, "query", sql, "--as-stored-on", "april").code == 2


def listed(base: Path) -> list[dict[str, object]]:
    found = run(base, "snapshot", "list", "--json").json["snapshots"]
    assert isinstance(found, list)
    return found


def test_the_digest_of_a_snapshot_is_the_one_that_was_said_then(tmp_path):
    base, said = tmp_path / "store", []
    storage = ParquetStorage(base)
    for number in range(3):
        storage.store(bars("A", f"2024-06-0{3 + number} 13:30", 5, float(number)), "1Min")
        run(base, "snapshot", "create", f"s{number}")
        said.append(run(base, "status", "--digest").out.strip())

    assert len(set(said)) == 3
    assert [one["digest"] for one in listed(base)] == said
    assert [(one["bars"], one["series"], one["readable"]) for one in listed(base)] == [(5, 1, True), (10, 1, True), (15, 1, True)]


def test_the_gate_before_trading_says_of_a_past_instant_what_it_said_then(tmp_path):
    base, said = tmp_path / "store", {}
    storage = ParquetStorage(base)
    days = pd.bdate_range("2024-06-03", "2024-06-18", tz="America/New_York").tz_convert("UTC")
    for name, count in (("fewer", 11), ("more", 12)):
        index = pd.MultiIndex.from_product([["A"], days[:count]], names=["symbol", "timestamp"])
        storage.store(pd.DataFrame(1.0, index=index, columns=list(COLUMNS)), "1Day")
        run(base, "snapshot", "create", name)
        gate = run(base, "status", "--session", "2024-06-18", "--json")
        said[name] = gate.code, gate.out
    assert said["fewer"] != said["more"]

    for name, expected in said.items():
        gate = run(base, "status", "--session", "2024-06-18", "--json", "--as-stored-on", name)
        assert (gate.code, gate.out) == expected


def test_a_name_that_could_be_a_date_or_no_file_is_refused(base):
    before = sorted(base.rglob("*"))
    for name in ("2024-01-31", "20240131", "2024-W05-1", "2024-01-31T00:00", "a/b", "../a", "", ".a", "nul", "x" * 101):
        refused = run(base, "snapshot", "create", name, "--json")
        assert (refused.code, refused.json["error"]["code"]) == (2, "bad_input"), name

    assert sorted(base.rglob("*")) == before


def test_a_name_is_given_once(base):
    content = (base / "metadata/snapshots/march.json").read_bytes()

    assert run(base, "snapshot", "create", "march").code == 2
    assert run(base, "snapshot", "create", "March").code == 2  # one file on macOS and Windows
    assert (base / "metadata/snapshots/march.json").read_bytes() == content


def test_a_copy_on_another_machine_is_verified_and_damage_is_found(base, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(base, copy)
    shutil.rmtree(base)
    assert run(copy, "snapshot", "verify").code == 0
    file = copy / "metadata/snapshots/march.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps({**fields, "digest": "0" * 32}))
    differs = run(copy, "snapshot", "verify", "march", "--json")

    assert (differs.code, differs.json["snapshots"][0]["state"]) == (5, "differs")
    assert differs.json["snapshots"][0]["found"] == fields["digest"]


def test_what_can_no_longer_be_read_is_said_and_is_no_match(base):
    by_hand = base / "equities_1min/symbol=A/year=2024/month=06/data.parquet"
    by_hand.write_bytes((base / "equities_1min/symbol=B/year=2024/month=06/data.parquet").read_bytes())
    broken = run(base, "snapshot", "verify", "--json")
    assert (broken.code, broken.json["snapshots"][0]["state"]) == (4, "unreadable")
    for record in (base / FOLDER).iterdir():
        record.unlink()

    assert [one["readable"] for one in listed(base)] == [False]
    assert run(base, "snapshot", "verify").code == 4
    refused = run(base, "snapshot", "create", "june", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (2, "bad_input")


def test_each_fetch_of_real_bars_can_be_had_again_as_it_was(tmp_path):
    path, base = real(MULTIFETCH), tmp_path / "store"
    columns = "symbol, timestamp, open, high, low, close, volume::DOUBLE AS volume, 1.0::DOUBLE AS trade_count, close AS vwap"
    source = f"read_parquet('{path}')"
    fetches = [at for (at,) in duckdb.sql(f"SELECT DISTINCT fetched_at FROM {source} ORDER BY ALL").fetchall()]
    storage, states, held = ParquetStorage(base), list[pd.DataFrame](), pd.DataFrame()
    for number, fetched in enumerate(fetches):
        rows = duckdb.sql(f"SELECT {columns} FROM {source} WHERE fetched_at = '{fetched}' ORDER BY ALL").df()
        rows["timestamp"] = rows["timestamp"].dt.tz_convert("UTC")
        frame = rows.set_index(["symbol", "timestamp"])
        storage.store(frame, "1Min")
        run(base, "snapshot", "create", f"fetch-{number}")
        held = pd.concat([held, frame])
        held = held[~held.index.duplicated(keep="last")].sort_index()
        states.append(held)
    assert [one.equals(held) for one in states].count(True) < len(states) - 1

    symbols = sorted(held.index.unique("symbol"))
    for number, state in enumerate(states):
        then = storage.load(symbols, "2026-03-01", "2026-03-31", incomplete="ignore", as_stored_on=f"fetch-{number}")
        pd.testing.assert_frame_equal(then, state, check_index_type=False, check_exact=True)
    assert run(base, "snapshot", "verify").code == 0
