"""Local changes of corporate actions: which of Alpaca's records count, whatever comes later."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from data_engine.corporate_actions import local_actions
from data_engine.corporate_actions.local_actions import KINDS, LocalChange, counted, local_action, with_change, without
from data_engine.corporate_actions.symbol_actions import SymbolActions, dump, load
from data_engine.errors import InputError
from data_engine.market.corporate_action import Action, decode
from data_engine.market.time_range import new_york_days

AT = datetime(2024, 6, 12, 15, tzinfo=UTC)
DAY = date(2024, 6, 10)


def split(new: float, symbol: str = "NVDA", day: str = "2024-06-10") -> Action:
    return decode("forward_split", {"symbol": symbol, "ex_date": day, "process_date": day, "new_rate": new, "old_rate": 1})


def dividend(day: str = "2024-06-10") -> Action:
    return decode("cash_dividend", {"symbol": "NVDA", "ex_date": day, "process_date": day, "rate": 0.1})


def changed(kinds: tuple[str, ...], action: Action | None = None) -> LocalChange:
    return LocalChange(DAY, kinds, action, "by hand", AT)


OURS = local_action("forward_split", "NVDA", DAY, {"new_rate": 10, "old_rate": 1})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param([], ["10", "div", "other"], id="none"),
        pytest.param([changed(("split",))], ["div", "other"], id="the-split-is-dropped"),
        pytest.param([changed(KINDS)], ["other"], id="all-of-the-day-are"),
        pytest.param([changed(("split",), OURS)], ["div", "ours", "other"], id="the-split-is-replaced"),
        pytest.param([changed(("spin-off",))], ["10", "div", "other"], id="another-kind"),
        pytest.param([replace(changed(KINDS), ex_date=date(2024, 6, 11))], ["10", "div", "other"], id="another-day"),
    ],
)
def test_what_counts(changes, expected):
    vendor = {"10": split(10), "div": dividend(), "other": dividend("2024-09-12")}
    names = {one.key: name for name, one in vendor.items()} | {OURS.key: "ours"}
    found = counted(tuple(vendor.values()), {"NVDA": changes}, "NVDA")

    assert sorted(names[one.key] for one in found) == sorted(expected)
    assert [one.day for one in found] == sorted(one.day for one in found)


def test_an_action_of_another_symbol_is_not_replaced():
    child = split(3, "CHILD")

    assert counted((child,), {"NVDA": [changed(KINDS)]}, "NVDA") == (child,)


def test_a_later_change_replaces_what_an_earlier_one_says_of_its_kinds():
    both = with_change(with_change((), changed(("split", "dividend"))), changed(("split",), OURS))

    assert [(one.kinds, one.action is None) for one in both] == [(("dividend",), True), (("split",), False)]
    assert without(both, DAY) == ()
    assert without(both, DAY, ("dividend",)) == both[1:]
    assert without(both, date(2024, 6, 11)) == both


def test_changes_are_kept_in_the_file_and_by_a_response():
    book = SymbolActions("NVDA", local=(changed(("split",), OURS), replace(changed(("dividend",)), ex_date=date(2024, 6, 11))))
    again = load(dump(book), "NVDA")
    assert again.local == book.local
    assert [one.local for one in again.counted] == [True]
    assert b'"local"' not in dump(SymbolActions("NVDA"))

    days = new_york_days(date(2024, 6, 1), date(2024, 6, 11))
    answered, new, gone = again.answered(days, again.to_fetch(days), [split(20)], now=AT)
    assert (len(new), gone) == (1, ())
    assert [str(one) for one in answered.actions] == ["NVDA: 20-for-1 split on 2024-06-10"]
    assert [str(one) for one in answered.counted] == ["NVDA: 10-for-1 split on 2024-06-10"]


@pytest.mark.parametrize("rows", [[{}], [{"ex_date": "someday"}], ["text"], [None]])
def test_a_file_with_other_changes_is_damaged(rows):
    with pytest.raises((ValueError, KeyError, TypeError)):
        local_actions.load(rows)


def test_a_value_that_cannot_be_used_is_named():
    with pytest.raises(InputError, match="rate is 'much'"):
        local_action("cash_dividend", "NVDA", DAY, {"rate": "much"})
    child = local_action("spin_off", "MMM", DAY, {"new_symbol": "SOLV", "new_rate": "0.25", "source_rate": 1})
    assert (child.symbol, str(child.event), child.local) == ("MMM", "spin-off of SOLV", True)
