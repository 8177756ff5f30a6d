"""What the stored actions say of themselves: splits that cannot both be, local changes, series that outlast their security."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.local_actions import LocalChange
from data_engine.market.corporate_action import Action, decode
from data_engine.market.series import Series
from data_engine.store.bar_store import BarStore
from data_engine.store.local_files import LocalFiles
from data_engine.store.selection import DatasetFilter
from data_engine.verify.verify import verify

from .damages import SESSIONS
from .test_damages import DAYS, NOW
from .test_series_life import daily, put

CODES = ("actions_suspect", "actions_local", "ticker_reassigned")


@pytest.fixture
def storage(tmp_path: Path) -> BarStore:
    return BarStore(LocalFiles(tmp_path))


def split(day: date, new: int, number: int = 1) -> Action:
    record = {
        "symbol": "A",
        "new_rate": new,
        "old_rate": 1,
        "ex_date": str(day),
        "process_date": str(day),
        "id": f"{day} {number}",
    }
    return decode("forward_split", record)


def merger(day: date) -> Action:
    return decode("stock_merger", {"acquiree_symbol": "A", "acquirer_symbol": "B", "process_date": str(day), "id": "m"})


def announce(storage: BarStore, *actions: Action, symbol: str = "A", **more: Any) -> None:
    ActionStore(storage.files).update(symbol, lambda known: replace(known, actions=actions, **more))


def found(storage: BarStore) -> list[tuple[str, str]]:
    """Return code and message of what is found about actions."""
    findings = verify(storage, DatasetFilter(), now=NOW).findings
    return [(one.code, one.message) for one in findings if one.code in CODES]


def test_two_splits_of_one_day_are_named_once_whatever_the_number_of_series(storage: BarStore) -> None:
    put(storage, Series("A", DAYS), daily(SESSIONS[:40]))
    put(storage, Series(f"A@{SESSIONS[40]}", DAYS), daily(SESSIONS[:40]))
    announce(storage, split(SESSIONS[10], 2), split(SESSIONS[10], 3, 2))

    ((code, message),) = found(storage)
    assert (code, "cannot both be" in message, str(SESSIONS[10]) in message) == ("actions_suspect", True, True)


@pytest.mark.parametrize(("apart", "codes"), [(1, ["actions_suspect"]), (9, [])])
def test_a_split_a_session_after_another_of_its_ratio_is_named(storage: BarStore, apart: int, codes: list[str]) -> None:
    put(storage, Series("A", DAYS), daily(SESSIONS[:40]))
    announce(storage, split(SESSIONS[10], 2), split(SESSIONS[10 + apart], 2))

    assert [code for code, _ in found(storage)] == codes


def test_an_end_that_is_dropped_locally_does_not_count_and_the_change_is_listed(storage: BarStore) -> None:
    """The merger is in the files of both its symbols; it is dropped under the one that it would end."""
    day = SESSIONS[20]
    put(storage, Series("A", DAYS), daily(SESSIONS[:40]))
    announce(storage, merger(day))
    announce(storage, merger(day), symbol="B")
    ((code, message),) = found(storage)
    assert (code, f"A merged into B on {day}" in message, f"--start {SESSIONS[21]}" in message) == (
        "ticker_reassigned",
        True,
        True,
    )

    announce(storage, merger(day), local=(LocalChange(day, ("end",), None, "it trades on", NOW),))
    ((code, message),) = found(storage)
    assert (code, "it trades on" in message) == ("actions_local", True)
