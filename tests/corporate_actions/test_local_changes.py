"""Local changes of corporate actions in a store: every reader has one view, whatever file a record or a change is in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from data_engine import ParquetStorage
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.fetch_actions import fetch_actions
from data_engine.corporate_actions.local_actions import LocalChange, local_action, with_change
from data_engine.corporate_actions.symbol_actions import key
from data_engine.market.corporate_action import Action, decode
from data_engine.market.time_range import new_york_days

NOW = datetime(2024, 6, 28, 20, tzinfo=UTC)
SPAN = new_york_days(date(2014, 1, 1), date(2024, 6, 28))
RENAMED = date(2022, 6, 9)

RENAME = decode("name_change", {"id": "r1", "old_symbol": "OLD", "new_symbol": "NEW", "process_date": "2022-06-09"})


def split(kind: str, symbol: str, day: str, new: float, old: float = 1, **more: Any) -> Action:
    rates = {"ex_date": day, "process_date": day, "new_rate": new, "old_rate": old}
    return decode(kind, {"symbol": symbol, **rates, **more})


REVERSE = split("reverse_split", "OLD", "2022-06-09", 1, 10, new_symbol="NEW")


class Alpaca:
    """A service with some actions."""

    requests = 0

    def __init__(self, actions: Iterable[Action]) -> None:
        self.actions = tuple(actions)

    def corporate_actions(self, symbols: Iterable[str], first: date, last: date, *, broken: Any = None) -> tuple[Action, ...]:
        wanted = set(symbols)
        return tuple(one for one in self.actions if wanted & set(one.symbols) and first <= one.process_date <= last)


@pytest.fixture
def storage(tmp_path: Path) -> ParquetStorage:
    return ParquetStorage(tmp_path / "store")


def put(storage: ParquetStorage, symbol: str, bars: dict[str, float]) -> None:
    """Store minutes of one price each; the times are of New York in summer."""
    stamps = pd.DatetimeIndex([pd.Timestamp(f"{text}-04:00").tz_convert("UTC") for text in bars]).as_unit("ns")
    index = pd.MultiIndex.from_arrays([[symbol] * len(bars), stamps], names=["symbol", "timestamp"])
    prices = {name: list(bars.values()) for name in ("open", "high", "low", "close", "vwap")}
    storage.store(pd.DataFrame({**prices, "volume": 1000.0, "trade_count": 7.0}, index=index), timeframe="1Min")


def announce(storage: ParquetStorage, *actions: Action) -> Any:
    wanted = dict.fromkeys(sorted({symbol for one in actions for symbol in one.symbols}), SPAN)
    return fetch_actions(ActionStore(storage.files), Alpaca(actions), wanted, now=NOW, again=True)  # type: ignore[arg-type]


def change(storage: ParquetStorage, symbol: str, day: date, kind: str, action: Action | None = None) -> None:
    made = LocalChange(day, (kind,), action, "by hand", NOW)
    ActionStore(storage.files).update(symbol, lambda known: replace(known, local=with_change(known.local, made)))


def closes(storage: ParquetStorage, symbol: str) -> list[float]:
    frame = storage.load(symbol, "2022-06-01", "2023-06-30", adjustment="split", as_of="2024-06-28", incomplete="ignore")
    return [float(value) for value in frame["close"]]


def renames(storage: ParquetStorage, *actions: Action) -> list[bool]:
    """Return whether a new ticker is known to each reader of changes."""
    store = ActionStore(storage.files)
    readers = [
        store.changes_of("OLD"),
        store.changes_of("NEW"),
        store.ticker_changes().of("OLD"),
        store.ticker_changes().of("NEW"),
    ]
    return [any(one.new for one in found) for found in (*readers, announce(storage, *actions).renames)]


@pytest.mark.parametrize("ticker", ["OLD", "NEW"])
def test_a_dropped_rename_counts_for_no_reader_under_whichever_ticker_it_is_dropped(storage, ticker):
    """A split of 10 under the old ticker is of another security then."""
    earlier = split("forward_split", "OLD", "2022-06-06", 10)
    put(storage, "NEW", {"2022-06-01 12:00": 100.0, "2022-06-10 12:00": 100.0})
    announce(storage, RENAME, earlier)
    assert (closes(storage, "NEW"), renames(storage, RENAME, earlier)) == ([100.0 / 10, 100.0], [True] * 5)
    change(storage, ticker, RENAMED, "name-change")

    assert (closes(storage, "NEW"), renames(storage, RENAME, earlier)) == ([100.0, 100.0], [False] * 5)


def test_a_drop_reaches_a_record_that_its_own_file_has_not(storage):
    announce(storage, RENAME)
    change(storage, "OLD", RENAMED, "name-change")
    store = ActionStore(storage.files)
    store.update("OLD", lambda known: replace(known, actions=()))

    assert (store.read("NEW").counted, store.ticker_changes().of("OLD"), store.changes_of("NEW")) == ((), (), ())


def test_a_damaged_file_of_another_symbol_is_a_matter_of_that_symbols(storage, tmp_path):
    announce(storage, RENAME)
    (tmp_path / "store" / key("OLD")).write_bytes(b'{\n "local": [')

    store = ActionStore(storage.files)
    assert [str(one) for one in store.read("NEW").counted] == ["OLD renamed to NEW on 2022-06-09"]
    assert list(store.ticker_changes().unreadable) == ["OLD"]


@pytest.mark.parametrize("ticker", ["OLD", "NEW"])
def test_a_split_that_brings_a_new_ticker_is_replaced_without_the_ticker(storage, ticker):
    """One share of 1.0 becomes a fifteenth, and three of those in March: 1 * 15 / 3 = 5."""
    later = split("forward_split", "NEW", "2023-03-13", 3)
    put(storage, "OLD", {"2022-06-08 12:00": 1.0})
    announce(storage, REVERSE, later)
    assert closes(storage, "OLD") == [pytest.approx(1.0 * 10 / 3)]
    change(storage, ticker, RENAMED, "split", local_action("reverse_split", ticker, RENAMED, {"new_rate": 1, "old_rate": 15}))

    assert closes(storage, "OLD") == [pytest.approx(1.0 * 15 / 3)]
    assert renames(storage, REVERSE, later) == [True] * 5


@pytest.mark.parametrize("ticker", ["OLD", "NEW"])
def test_a_new_ticker_of_a_split_is_dropped_without_the_split(storage, ticker):
    """The split of 3 is of another security then: 1 * 10 = 10."""
    later = split("forward_split", "NEW", "2023-03-13", 3)
    put(storage, "OLD", {"2022-06-08 12:00": 1.0})
    announce(storage, REVERSE, later)
    change(storage, ticker, RENAMED, "name-change")

    assert closes(storage, "OLD") == [pytest.approx(1.0 * 10)]
    assert renames(storage, REVERSE, later) == [False] * 5


def test_both_effects_of_a_split_are_dropped_one_after_the_other(storage):
    announce(storage, REVERSE)
    for kind in ("split", "name-change"):
        change(storage, "OLD", RENAMED, kind)

    assert [ActionStore(storage.files).read(symbol).counted for symbol in ("OLD", "NEW")] == [(), ()]


def test_the_end_of_a_unit_that_is_split_into_its_parts_is_dropped(storage):
    parts = {"old_symbol": "U", "new_symbol": "V", "alternate_symbol": "VW", "old_rate": 1, "new_rate": 1, "alternate_rate": 0.5}
    announce(storage, decode("unit_split", {**parts, "effective_date": "2023-03-01", "process_date": "2023-03-01"}))
    store = ActionStore(storage.files)
    assert [str(one) for one in store.changes_of("U")] == ["U split into its parts, now V on 2023-03-01"]
    change(storage, "U", date(2023, 3, 1), "split")
    assert len(store.changes_of("U")) == 1
    change(storage, "U", date(2023, 3, 1), "end")

    assert (store.changes_of("U"), store.ticker_changes().of("U")) == ((), ())


def test_an_end_is_not_dropped_under_the_acquirer(storage):
    merged = {"acquiree_symbol": "T", "acquirer_symbol": "ACQ", "process_date": "2023-03-01", "effective_date": "2023-03-01"}
    announce(storage, decode("cash_merger", merged))
    change(storage, "ACQ", date(2023, 3, 1), "end")

    assert [one.old for one in ActionStore(storage.files).ticker_changes().of("T")] == ["T"]
