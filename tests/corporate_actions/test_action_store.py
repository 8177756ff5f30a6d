"""Stored corporate actions: replaced whole; a damaged file does not affect others. On every kind of place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.symbol_actions import SymbolActions, key
from data_engine.corporate_actions.ticker_changes import TickerChange, TickerChanges
from data_engine.errors import DamagedFile
from data_engine.market.corporate_action import CEASED, Action, decode
from data_engine.market.time_range import new_york_days

FB = decode("name_change", {"old_symbol": "FB", "new_symbol": "META", "process_date": "2022-06-09"})


def dividend(number: int) -> Action:
    return decode(
        "cash_dividend", {"symbol": "A", "ex_date": "2024-05-10", "process_date": "2024-05-16", "rate": number, "id": f"{number}"}
    )


@pytest.fixture
def store(place) -> ActionStore:
    return ActionStore(place.files)


def test_of_an_unknown_symbol_nothing_is_known_and_nothing_is_made(store, place):
    assert store.read("A") == SymbolActions("A")
    assert store.update("A", lambda known: known) == SymbolActions("A")
    assert (store.symbols(), store.ticker_changes(), place.content()) == ([], TickerChanges(), {})


def test_an_update_is_read_back_with_by_whom(store, place):
    made = store.update("BRK.B", lambda known: known.mentioned([dividend(1)]))

    assert made.by.startswith("data-engine ")
    assert ActionStore(place.open()).read("BRK.B") == made
    assert list(place.content()) == [key("BRK.B")]
    assert store.symbols() == ["BRK.B"]


def test_renames_are_found_under_both_names(store):
    store.update("META", lambda known: known.mentioned([FB]))
    store.update("A", lambda known: known.mentioned([dividend(1)]))

    rename = TickerChange("FB", "META", date(2022, 6, 9))
    assert store.ticker_changes() == TickerChanges({"FB": (rename,), "META": (rename,)})
    assert (store.ticker_changes().of("FB"), store.ticker_changes().of("A")) == ((rename,), ())


@pytest.mark.parametrize("kind", CEASED)
def test_ends_are_found_in_every_kind_of_record(store, kind):
    subject = "acquiree_symbol" if "merger" in kind else "old_symbol" if kind == "unit_split" else "symbol"
    record = {subject: "S", "process_date": "2023-07-20"}
    store.update("S", lambda known: known.mentioned([decode(kind, record)]))

    assert [(one.old, one.new, one.kind) for one in store.ticker_changes().of("S")] == [("S", None, kind)]


def test_the_known_days_are_read_without_the_actions(store):
    days = new_york_days(date(2024, 1, 2), date(2024, 5, 31))
    now = datetime(2024, 6, 3, 20, tzinfo=UTC)
    made = store.update("A", lambda known: known.answered(days, (days,), [dividend(1), dividend(2)], now=now)[0])

    assert len(made.actions) == 2
    assert store.known_days("A") == replace(made, actions=())
    assert store.known_days("NONE") == SymbolActions("NONE")


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: data[5:], lambda data: b"[]"])
def test_where_a_book_is_damaged_no_rename_is_known_and_that_is_said(store, place, damage):
    store.update("A", lambda known: known.mentioned([dividend(1)]))
    place.put(key("A"), damage(place.content()[key("A")]))

    assert list(store.ticker_changes().unreadable) == ["A"]


def test_threads_lose_none_of_each_others_actions(store):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: store.update("A", lambda known: known.mentioned([dividend(number)])), range(1, 13)))

    assert [action.record["rate"] for action in sorted(store.read("A").actions, key=lambda one: one.record["rate"])] == [
        *range(1, 13)
    ]


def test_a_damaged_file_is_named_and_left_alone(store, place):
    place.put(key("A"), b"{")
    store.update("B", lambda known: known.mentioned([dividend(1)]))

    with pytest.raises(DamagedFile, match=r"corporate actions of A.*symbol=A\.json.*`data-engine actions`"):
        store.read("A")
    with pytest.raises(DamagedFile):
        store.update("A", lambda known: known.mentioned([dividend(1)]))
    assert place.content()[key("A")] == b"{"
    assert len(store.read("B").actions) == 1
