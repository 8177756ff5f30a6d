"""The questions of agents: an answer never contradicts the store's own load, its status, or DuckDB over its files."""

from __future__ import annotations

import warnings
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from data_engine import ParquetStorage
from data_engine.agents.store_tools import StoreTools
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.errors import StoreError
from data_engine.market.corporate_action import decode
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import new_york_days
from data_engine.store.conflicts import Conflict, conflict_file
from data_engine.store.selection import DatasetFilter
from data_engine.verify.status import series_status

WARNINGS = ("AdjustmentWarning", "ConflictWarning")  # of `ParquetStorage.load`, which no agent sees

pytestmark = [pytest.mark.filterwarnings(f"ignore::data_engine.read.frame_warnings.{one}") for one in WARNINGS]

DAILY = Dataset(Timeframe.parse("1Day"))
WEEK = ("2024-06-03", "2024-06-07")
SPAN = new_york_days(date(2024, 6, 3), date(2024, 6, 7))


@pytest.fixture
def storage(tmp_path: Path) -> ParquetStorage:
    """A store that holds a week of June 2024 of AAPL and MSFT whole, as days, with the corporate actions: none."""
    made = ParquetStorage(tmp_path / "store")
    days = pd.bdate_range(*WEEK, tz="America/New_York").tz_convert("UTC")
    now, known = datetime.now(UTC), new_york_days(date(2024, 1, 1), datetime.now(UTC).date())
    for symbol in ("AAPL", "MSFT"):
        index = pd.MultiIndex.from_product([[symbol], days], names=["symbol", "timestamp"])
        prices = {name: [100.0 + at for at in range(5)] for name in ("open", "high", "low", "close", "vwap")}
        made.store(pd.DataFrame({**prices, "volume": 1000.0, "trade_count": 7.0}, index=index), timeframe="1Day")
        made.bars.coverage.update(
            Series(symbol, DAILY), lambda one: one.wanting(SPAN).answered(SPAN, final_before=now, now=now, counts={})
        )
        ActionStore(made.files).update(symbol, lambda one: one.answered(known, one.to_fetch(known), [], now=now)[0])
    return made


def make_conflicts(storage: ParquetStorage, symbol: str) -> None:
    """Let the second and the third bar of the week be ones that Alpaca has revised and dropped."""
    now, series = datetime.now(UTC), Series(symbol, DAILY)
    times = [time.to_pydatetime() for _, time in storage.load(symbol, *WEEK, timeframe="1Day").index]
    found = (Conflict(times[1], (55.0,) * 7, now), Conflict(times[2], None, now))
    conflict_file(storage.files, series).update(lambda _: found)
    storage.bars.coverage.update(series, lambda known: replace(known, conflicting=2))


def split_actions(storage: ParquetStorage) -> None:
    """Let a split of AAPL be fetched, whose ex-date is in the week."""
    day = "2024-06-05"
    action = decode("forward_split", {"symbol": "AAPL", "ex_date": day, "process_date": day, "new_rate": 2, "old_rate": 1})
    ActionStore(storage.files).update("AAPL", lambda known: replace(known, actions=(action,)))


def test_a_query_of_all_symbols_is_not_whole_if_a_requested_series_has_no_bar(storage):
    storage.bars.coverage.update(Series("NVDA", DAILY), lambda known: known.wanting(SPAN))
    sql = "SELECT count(DISTINCT symbol) FROM bars_1day"
    (lacking,) = [
        one.series.symbol for one in series_status(storage.bars, DatasetFilter.parse(None), now=datetime.now(UTC)) if one.missing
    ]
    with pytest.raises(StoreError, match=lacking):
        StoreTools(storage).query(sql, *WEEK)

    part = StoreTools(storage).query(sql, *WEEK, allow_incomplete=True)
    files = f"{storage.files.folder}/equities_1day/**/*.parquet"
    assert part["rows"] == [list(row) for row in duckdb.sql(f"SELECT count(DISTINCT symbol) FROM '{files}'").fetchall()]
    assert (part["complete"], lacking in part["missing"]) == (False, True)
    assert part["scope"][0]["symbols"] == ["AAPL", "MSFT", lacking]


def test_a_series_that_was_requested_after_the_server_started_is_missed(storage):
    tools, sql = StoreTools(storage), "SELECT count(*) FROM bars_1day"
    assert tools.query(sql, *WEEK)["complete"]
    other = ParquetStorage(storage.files.folder)
    other.bars.coverage.requested.replace({Series("NVDA", DAILY): (SPAN,)})
    assert "NVDA" in tools.query(sql, *WEEK, allow_incomplete=True)["missing"]


@pytest.mark.parametrize("adjustment", ["raw", "split"])
def test_the_sessions_of_adjusted_bars_are_those_that_are_stored(storage, adjustment):
    answer = StoreTools(storage).sessions(["AAPL"], *WEEK, timeframe="1Day", adjustment=adjustment)
    states = storage.sessions("AAPL", *WEEK, timeframe="1Day", adjustment=adjustment)["state"]
    assert [row[2] for row in answer["rows"]] == list(states)
    assert answer["complete"] == (answer["missing"] is None) == all(states == "final")
    assert answer["scope"]["dataset"] == f"equities_1day{'' if adjustment == 'raw' else '_split'}"


@pytest.mark.parametrize("tool", ["bars", "sessions", "query"])
def test_an_answer_tells_of_conflicting_bars(storage, tool):
    before = ask(storage, tool)
    make_conflicts(storage, "AAPL")
    answer = ask(storage, tool)
    with pytest.warns(match="differ from Alpaca"):
        loaded = storage.load(["AAPL", "MSFT"], *WEEK, timeframe="1Day")
    assert (before["conflicting"], before["notes"]) == (0, [])
    assert answer["conflicting"] == loaded.attrs["data_engine"]["conflicting"] == 2
    (note,) = answer["notes"]
    assert "AAPL (2)" in note
    if tool != "sessions":  # whose coverage has been written since
        assert answer["rows"] == before["rows"]


def test_what_the_load_of_adjusted_bars_warns_of_is_in_the_notes(storage):
    split_actions(storage)  # of which the prices know nothing
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = storage.load("AAPL", *WEEK, timeframe="1Day", adjustment="split")
    answer = StoreTools(storage).bars(["AAPL"], *WEEK, "1Day", adjustment="split")
    assert [row[5] for row in answer["rows"]] == loaded["close"].tolist()
    assert answer["notes"] == [str(one.message) for one in caught] != []


def test_the_digest_of_computed_prices_changes_with_the_corporate_actions(storage):
    tools, adjusted, raw = StoreTools(storage), [], []
    for change in (lambda: None, lambda: split_actions(storage)):
        change()
        adjusted.append(tools.bars(["AAPL"], *WEEK, "1Day", adjustment="split"))
        raw.append(tools.bars(["AAPL"], *WEEK, "1Day"))
    again = tools.bars(["AAPL"], *WEEK, "1Day", adjustment="split")
    assert adjusted[0]["rows"] != adjusted[1]["rows"]
    assert adjusted[0]["digest"] != adjusted[1]["digest"] == again["digest"]
    assert raw[0]["digest"] == raw[1]["digest"]


@pytest.mark.parametrize("what", ["coverage", "actions", "conflicts"])
def test_what_is_known_of_the_bars_changes_while_they_are_read_and_gives_no_answer(storage, monkeypatch, what):
    hole, real = new_york_days(date(2024, 6, 5), date(2024, 6, 5)), ParquetStorage.load

    def meanwhile(self: ParquetStorage, *arguments: Any, **options: Any) -> pd.DataFrame:
        found = real(self, *arguments, **options)
        monkeypatch.undo()
        if what == "coverage":
            storage.bars.coverage.update(Series("AAPL", DAILY), lambda known: known.unclaimed(hole))
        elif what == "actions":
            split_actions(storage)
        else:
            make_conflicts(storage, "AAPL")
        return found

    monkeypatch.setattr(ParquetStorage, "load", meanwhile)
    with pytest.raises(StoreError, match="changed"):
        StoreTools(storage).bars(["AAPL"], *WEEK, "1Day", adjustment="split")


def ask(storage: ParquetStorage, tool: str) -> dict[str, Any]:
    """Return the answer of a tool about the week."""
    first, *rest = ("SELECT symbol, timestamp, close FROM bars_1day ORDER BY ALL",) if tool == "query" else (["AAPL", "MSFT"],)
    more: dict[str, Any] = {"symbols": ["AAPL", "MSFT"]} if tool == "query" else {"timeframe": "1Day"}
    found: dict[str, Any] = getattr(StoreTools(storage), tool)(first, *rest, *WEEK, **more)
    return found
