"""Corporate actions as values: the documented records, recorded answers, and records that lack something."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.alpaca.actions_protocol import ActionsRequest, read_actions
from data_engine.errors import BadAnswer
from data_engine.market.corporate_action import (
    Action,
    CashDividend,
    NameChange,
    SpinOff,
    Split,
    StockDividend,
    decode,
    encode,
    restore,
)
from real_data import real

REQUEST = ActionsRequest(("AAPL", "MSFT"), date(2024, 1, 1), date(2024, 12, 31))


def body(token: str | None = None, **lists: Any) -> bytes:
    return json.dumps({"corporate_actions": lists, "next_page_token": token}).encode()


def test_a_request_asks_by_process_date_both_ends_included():
    assert REQUEST.target() == "/v1/corporate-actions?symbols=AAPL,MSFT&start=2024-01-01&end=2024-12-31&limit=1000&sort=asc"
    assert REQUEST.target("a=b").endswith("&sort=asc&page_token=a%3Db")
    assert str(REQUEST) == "corporate actions of AAPL, MSFT, processed 2024-01-01 to 2024-12-31"


# The examples of the published description, in its field names.
EXAMPLES = [
    (
        "forward_split",
        {"symbol": "SRE", "ex_date": "2023-08-22", "new_rate": 2, "old_rate": 1, "process_date": "2023-08-22"},
        Split(2, 1),
        "SRE: 2-for-1 split on 2023-08-22",
    ),
    (
        "reverse_split",
        {"symbol": "MNTS", "ex_date": "2023-08-24", "new_rate": 1, "old_rate": 50, "process_date": "2023-08-24"},
        Split(1, 50),
        "MNTS: 1-for-50 split on 2023-08-24",
    ),
    (
        "cash_dividend",
        {"symbol": "FCF", "ex_date": "2023-05-04", "rate": 0.125, "process_date": "2023-05-19"},
        CashDividend(0.125),
        "FCF: dividend of 0.125 USD on 2023-05-04",
    ),
    (
        "stock_dividend",
        {"symbol": "MSBC", "ex_date": "2023-05-19", "rate": 0.05, "process_date": "2023-05-19"},
        StockDividend(0.05),
        "MSBC: stock dividend of 0.05 on 2023-05-19",
    ),
    (
        "spin_off",
        {
            "source_symbol": "JUPW", "source_rate": 19.35, "new_symbol": "SRM", "new_rate": 1,
            "ex_date": "2023-08-15", "process_date": "2023-08-15",
        },
        SpinOff("SRM", 1 / 19.35),
        "JUPW: spin-off of SRM on 2023-08-15",
    ),
    (
        "name_change",
        {"old_symbol": "FB", "new_symbol": "META", "process_date": "2022-06-09"},
        NameChange("FB", "META"),
        "FB renamed to META on 2022-06-09",
    ),
    (
        "unit_split",
        {
            "old_symbol": "TPBAU", "old_rate": 1, "new_symbol": "LVRO", "new_rate": 1, "alternate_symbol": "LVROW",
            "alternate_rate": 0.3333, "effective_date": "2023-03-01", "process_date": "2023-03-01",
        },
        None,
        "TPBAU: unit split on 2023-03-01",
    ),
    (
        "stock_merger",
        {
            "acquiree_symbol": "LSI", "acquiree_rate": 1, "acquirer_symbol": "EXR", "acquirer_rate": 0.895,
            "effective_date": "2023-07-20", "process_date": "2023-07-20",
        },
        None,
        "LSI: stock merger on 2023-07-20",
    ),
    ("a_kind_to_come", {"symbol": "X", "process_date": "2030-01-01", "how": ["ever"]}, None, "X: a kind to come on 2030-01-01"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "record", "event", "said"), EXAMPLES, ids=[kind for kind, *_ in EXAMPLES])
def test_a_record_is_read_and_kept_as_it_came(kind, record, event, said):
    action = decode(kind, record)

    assert (action.kind, action.event, action.flaw, str(action)) == (kind, event, None, said)
    assert action.process_date == date.fromisoformat(record["process_date"])
    assert action.record == record
    assert encode(action) == {"type": kind, **record}
    assert restore(json.loads(json.dumps(encode(action)))) == action


def test_ratios():
    assert (Split(10, 1).ratio, Split(1, 8).ratio, StockDividend(0.05).ratio) == (10.0, 0.125, 1.05)


def test_the_first_symbol_is_the_one_whose_shares_it_is_about():
    by_kind = {kind: decode(kind, record).symbols for kind, record, _, _ in EXAMPLES}

    assert by_kind["spin_off"] == ("JUPW", "SRM")
    assert by_kind["name_change"] == ("FB", "META")
    assert by_kind["stock_merger"] == ("LSI", "EXR")
    assert by_kind["unit_split"] == ("TPBAU", "LVRO", "LVROW")


def test_units_that_go_on_alone_are_a_split():
    record = {"old_symbol": "U", "old_rate": 1, "new_symbol": "U", "new_rate": 2, "effective_date": "2023-03-01"}
    action = decode("unit_split", {**record, "process_date": "2023-03-01"})

    assert (action.event, action.ex_date) == (Split(2, 1), date(2023, 3, 1))


def test_a_rate_may_be_text():
    record = {"symbol": "A", "ex_date": "2023-05-04", "rate": "0.24", "process_date": "2023-05-19", "currency": "USD"}

    assert decode("cash_dividend", record).event == CashDividend(0.24)


@pytest.mark.parametrize(
    ("kind", "record", "flaw"),
    [
        ("cash_dividend", {"symbol": "A", "rate": 0.1, "process_date": "2024-05-16"}, "no ex-date"),
        ("cash_dividend", {"symbol": "A", "ex_date": "2024-05-10", "process_date": "2024-05-16"}, "rate is None"),
        ("cash_dividend", {"symbol": "A", "rate": -1, "ex_date": "2024-05-10", "process_date": "2024-05-16"}, "rate is -1"),
        ("cash_dividend", {"symbol": "A", "rate": 1, "ex_date": "soon", "process_date": "2024-05-16"}, "ex_date is 'soon'"),
        (
            "forward_split",
            {"symbol": "A", "new_rate": 2, "old_rate": 0, "ex_date": "2024-05-10", "process_date": "2024-05-16"},
            "old_rate is 0",
        ),
        ("name_change", {"new_symbol": "B", "process_date": "2024-05-16"}, "no old_symbol or no new_symbol"),
    ],
)
def test_an_incomplete_record_is_kept_and_names_its_flaw(kind, record, flaw):
    action = decode(kind, record)

    assert (action.event, action.flaw, action.record) == (None, flaw, record)


def test_an_id_makes_it_the_same_action_and_else_all_it_says():
    record = {"symbol": "A", "rate": 0.1, "ex_date": "2024-05-10", "process_date": "2024-05-16"}
    changed = {**record, "rate": 0.2}

    assert decode("cash_dividend", {**record, "id": "1"}).key == decode("cash_dividend", {**changed, "id": "1"}).key
    assert decode("cash_dividend", record).key != decode("cash_dividend", changed).key
    assert decode("cash_dividend", record).key == decode("cash_dividend", dict(reversed(record.items()))).key


# ------------------------------------------------------------------------------------------------------------------- pages


def test_a_page_has_actions_of_all_kinds_sorted_by_day():
    dividends = [{"symbol": "AAPL", "rate": 0.25, "ex_date": "2024-08-12", "process_date": "2024-08-15"}]
    splits = [{"symbol": "AAPL", "new_rate": 4, "old_rate": 1, "ex_date": "2024-03-01", "process_date": "2024-03-01"}]
    page = read_actions(body("next", cash_dividends=dividends, forward_splits=splits, spin_offs=[]), REQUEST)

    assert [action.kind for action in page.actions] == ["forward_split", "cash_dividend"]
    assert page.token == "next"


@pytest.mark.parametrize(
    "nothing", [b'{"corporate_actions":{},"next_page_token":null}', b'{"corporate_actions":null,"next_page_token":null}']
)
def test_an_empty_page_is_a_page(nothing):
    assert read_actions(nothing, REQUEST).actions == ()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"<html>", "not JSON"),
        (b"[]", "not an object"),
        (b'{"corporate_actions":{}}', "not an object"),
        (b'{"corporate_actions":{},"next_page_token":""}', "next_page_token is ''"),
        (b'{"corporate_actions":{"cash_dividends":{}},"next_page_token":null}', "not an object of lists"),
        (body(cash_dividends=[7]), "a record of kind cash_dividend is int"),
        (body(cash_dividends=[{"rate": 1, "process_date": "2024-05-16"}]), "names no symbol"),
    ],
)
def test_an_answer_that_cannot_be_trusted_is_refused(answer, said):
    with pytest.raises(BadAnswer, match=said):
        read_actions(answer, REQUEST)


@pytest.mark.parametrize("day", ["0000-00-00", None, "", "2024-02-30", "2023-12-31", 16, "next week"])
def test_a_record_without_a_usable_process_date_breaks_its_own_symbols_only(day):
    """The other record of the page is read; of a merger, the shares that are exchanged are concerned, and not the acquirer's."""
    good = {"rate": 1, "ex_date": "2024-05-10", "process_date": "2024-05-16"}
    page = read_actions(
        body(
            cash_dividends=[{"symbol": "AAPL", **good, "process_date": day}, {"symbol": "KO", **good}],
            name_changes=[{"old_symbol": "FB", "new_symbol": "META", "process_date": day}],
            stock_mergers=[{"acquiree_symbol": "LSI", "acquirer_symbol": "EXR", "process_date": day}],
        ),
        REQUEST,
    )

    assert [action.symbol for action in page.actions] == ["KO"]
    assert sorted(page.broken) == ["AAPL", "FB", "LSI", "META"]
    assert "cash_dividend of AAPL" in page.broken["AAPL"] or "process_date" in page.broken["AAPL"]


def test_a_recorded_answer_is_read_and_nothing_of_it_is_lost():
    """The Go SDK's recording, of an older form without ids: counted with json alone."""
    recorded = real("alpaca/samples/gosdk_corporate_actions.json").read_bytes()
    lists = json.loads(recorded)["corporate_actions"]
    page = read_actions(recorded, ActionsRequest(("ANY",), date(2024, 3, 11), date(2024, 3, 14)))

    kinds = [action.kind for action in page.actions]
    assert {f"{kind}s": kinds.count(kind) for kind in set(kinds)} == {name: len(records) for name, records in lists.items()}
    assert [str(one) for one in page.actions if isinstance(one.event, Split)] == [
        "FBL: 5-for-1 split on 2024-03-13",
        "NVDL: 6-for-1 split on 2024-03-13",
    ]
    assert "ESAC renamed to ZEO on 2024-03-14" in [str(one) for one in page.actions]


@given(
    st.sampled_from([kind for kind, *_ in EXAMPLES]),
    st.dictionaries(
        st.sampled_from(["symbol", "old_symbol", "new_symbol", "ex_date", "rate", "new_rate", "old_rate", "currency", "id"]),
        st.none() | st.booleans() | st.floats() | st.text() | st.integers() | st.lists(st.integers()) | st.just("2024-05-10"),
    ),
)
def test_whatever_a_record_says_it_is_read_or_refused(kind, record):
    try:
        action = decode(kind, {**record, "process_date": "2024-05-16"})
    except ValueError:
        return
    assert isinstance(action, Action)
    assert action.event is None or action.flaw is None
