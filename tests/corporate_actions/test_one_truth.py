"""A record of a corporate action has one truth: what Alpaca withdraws or revises is so in every file that has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.fetch_actions import ActionsReport, fetch_actions
from data_engine.corporate_actions.symbol_actions import SymbolActions, key
from data_engine.errors import BadAnswer
from data_engine.market.corporate_action import Action, decode
from data_engine.market.time_range import new_york_days
from data_engine.store.local_files import LocalFiles

NOW = datetime(2024, 6, 28, 20, tzinfo=UTC)
SPAN = new_york_days(date(2024, 1, 2), date(2024, 6, 28))


def rename(new: str = "NEW", day: str = "2024-06-18") -> Action:
    return decode("name_change", {"id": "r1", "old_symbol": "OLD", "new_symbol": new, "process_date": day})


def dividend(symbol: str) -> Action:
    return decode(
        "cash_dividend", {"id": "d1", "symbol": symbol, "ex_date": "2024-06-03", "process_date": "2024-06-20", "rate": 2}
    )


MERGER = decode(
    "cash_merger",
    {"id": "m1", "acquiree_symbol": "T", "acquirer_symbol": "ACQ", "process_date": "2024-06-18", "effective_date": "2024-06-18"},
)


class Alpaca:
    """A service with some actions: the response for a symbol has those that name it, or only those of its own shares."""

    requests = 0

    def __init__(self, *actions: Action, own_only: bool = False, down: str | None = None) -> None:
        self.actions, self.own_only, self.down = actions, own_only, down

    def corporate_actions(self, symbols: Sequence[str], first: date, last: date, *, broken: Any = None) -> tuple[Action, ...]:
        self.requests += 1
        if self.down in symbols:
            raise BadAnswer("not now")
        names = [(action, action.symbols[:1] if self.own_only else action.symbols) for action in self.actions]
        return tuple(action for action, of in names if set(of) & set(symbols) and first <= action.process_date <= last)


@pytest.fixture
def store(tmp_path: Path) -> ActionStore:
    return ActionStore(LocalFiles(tmp_path / "store"))


def fetch(store: ActionStore, alpaca: Alpaca, *symbols: str, hours: int = 0, again: bool = False) -> ActionsReport:
    wanted = dict.fromkeys(symbols, SPAN)
    return fetch_actions(store, alpaca, wanted, now=NOW + timedelta(hours=hours), again=again)  # type: ignore[arg-type]


def content(store: ActionStore) -> dict[str, list[str]]:
    return {symbol: [str(action) for action in store.read(symbol).actions] for symbol in store.symbols()}


@pytest.mark.parametrize("asked", [("OLD",), ("NEW",), ("OLD", "NEW"), ("NEW", "OLD")])
@pytest.mark.parametrize("again", [False, True])
def test_a_withdrawn_rename_is_in_force_nowhere_whichever_ticker_is_requested(store, asked, again):
    fetch(store, Alpaca(rename()), "OLD")
    assert [str(one) for one in store.ticker_changes().of("OLD")] == ["OLD renamed to NEW on 2024-06-18"]
    report = fetch(store, Alpaca(), *asked, hours=1, again=again)

    assert [str(one) for one in report.withdrawn] == ["OLD renamed to NEW on 2024-06-18"]
    assert (report.renames, store.ticker_changes().by_symbol.get("OLD", ())) == ((), ())
    assert content(store) == {"OLD": [], "NEW": []}


@pytest.mark.parametrize("asked", ["T", "ACQ"])
def test_a_withdrawn_merger_does_not_stay_with_the_acquirer(store, asked):
    fetch(store, Alpaca(MERGER), "ACQ")
    assert [one.old for one in store.ticker_changes().of("T")] == ["T"]
    report = fetch(store, Alpaca(), asked, hours=1)

    assert [str(one) for one in report.withdrawn] == ["T: cash merger on 2024-06-18"]
    assert content(store) == {"T": [], "ACQ": []}


def test_what_an_earlier_version_has_left_in_one_file_goes_with_the_next_response(store):
    """The record is in NEW's file only: OLD's does not say that NEW has it."""
    fetch(store, Alpaca(), "OLD")
    store.update("NEW", lambda known: known.mentioned([rename()]))
    fetch(store, Alpaca(), "OLD", hours=1)

    assert content(store) == {"OLD": [], "NEW": []}


@pytest.mark.parametrize("asked", ["OLD", "NEW"])
def test_a_revised_rename_is_revised_in_every_file(store, asked):
    fetch(store, Alpaca(rename()), "OLD")
    fetch(store, Alpaca(rename("OTHER", "2024-06-19")), asked, hours=1)

    found = content(store)
    assert (found["OLD"], found["NEW"]) == (["OLD renamed to OTHER on 2024-06-19"], [])
    assert found["OTHER"] == found["OLD"]


def test_what_the_symbol_of_its_shares_still_has_is_not_withdrawn(store):
    """One response of two symbols brought it; that for the acquirer alone is no proof against it."""
    fetch(store, Alpaca(MERGER), "T", "ACQ")
    report = fetch(store, Alpaca(MERGER, own_only=True), "ACQ", hours=1)

    assert (report.withdrawn, report.added) == ([], {})
    assert content(store) == {"ACQ": [str(MERGER)], "T": [str(MERGER)]}


def test_a_symbol_fails_if_it_cannot_be_known_whether_its_action_is_withdrawn(store):
    fetch(store, Alpaca(rename()), "OLD")
    report = fetch(store, Alpaca(down="OLD"), "NEW", "KO", hours=1)

    assert [(symbol, code) for symbol, code, _ in report.failed if symbol in ("NEW", "KO")] == [("NEW", "bad_answer")]
    assert content(store) == {"NEW": [str(rename())], "OLD": [str(rename())], "KO": []}


def test_an_action_beyond_the_requested_days_is_not_withdrawn(store):
    """The response for OLD has the last month only; the rename of March is no matter of its."""
    fetch(store, Alpaca(rename(day="2024-03-11")), "OLD")
    fetch(store, Alpaca(), "OLD", hours=1)

    assert content(store) == {symbol: ["OLD renamed to NEW on 2024-03-11"] for symbol in ("NEW", "OLD")}


def test_a_damaged_file_of_another_symbol_fails_nothing(store, tmp_path):
    fetch(store, Alpaca(MERGER), "ACQ")
    (tmp_path / "store" / key("T")).write_bytes(b"{")

    assert fetch(store, Alpaca(MERGER), "ACQ", hours=1, again=True).failed == []


class Killed(ActionStore):
    """A store whose process is killed after some files."""

    left = 0

    def update(self, symbol: str, change: Callable[[SymbolActions], SymbolActions]) -> SymbolActions:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return super().update(symbol, change)


@pytest.mark.parametrize("files", range(4))
@pytest.mark.parametrize("asked", [("OLD",), ("NEW",), ("OLD", "NEW")])
@pytest.mark.parametrize("after", [(), (rename("OTHER", "2024-06-19"),)], ids=["withdrawn", "revised"])
def test_after_a_kill_between_the_files_the_next_run_ends_the_same(tmp_path, files, asked, after):
    ends = []
    for kills in (False, True):
        local = LocalFiles(tmp_path / f"{kills}")
        fetch(ActionStore(local), Alpaca(rename()), "OLD")
        if kills:
            killed = Killed(local)
            killed.left = files
            with suppress(KeyboardInterrupt):
                fetch(killed, Alpaca(*after), *asked, hours=1, again=True)
        fetch(ActionStore(local), Alpaca(*after), *asked, hours=2, again=True)
        ends.append((content(ActionStore(local)), ActionStore(local).ticker_changes()))

    assert ends[0] == ends[1]


@pytest.mark.parametrize("order", [("KO", "PEP"), ("PEP", "KO")])
@pytest.mark.parametrize(("before", "after"), [("KO", "PEP"), ("PEP", "KO")])
def test_an_action_that_moves_to_another_symbol_is_one_added_and_one_withdrawn(store, order, before, after):
    fetch(store, Alpaca(dividend(before)), *order)
    report = fetch(store, Alpaca(dividend(after)), *order, hours=1)

    assert report.added == {"cash_dividend": 1}
    assert [str(one) for one in report.withdrawn] == [f"{before}: dividend of 2 USD on 2024-06-03"]
    assert content(store) == {after: [f"{after}: dividend of 2 USD on 2024-06-03"], before: []}
