"""The sandbox's corporate actions: filters, pages, refusals; alpaca-py reads them, and they match the published description."""

from __future__ import annotations

import json
from datetime import date

import pytest

from data_engine.errors import InputError, MissingFileError
from data_engine.sandbox import Announcements, Faults, Replay, Sandbox, SimulatedMarket
from data_engine.sandbox.corporate_actions import TYPES
from data_engine.sandbox.splits import Split

from .calls import NOW, minutes_of, write_bars

PATH = "/v1/corporate-actions"
EVER = {"start": "2010-01-01", "end": "2030-12-31"}
RECORDS = {
    "cash_dividends": [
        {"symbol": "AAPL", "rate": 0.25, "ex_date": "2024-05-10", "process_date": "2024-05-16"},
        {"symbol": "MSFT", "rate": 0.75, "ex_date": "2024-05-15", "process_date": "2024-06-13"},
    ],
    "forward_splits": [
        {"symbol": "NVDA", "new_rate": 10, "old_rate": 1, "ex_date": "2024-06-10", "process_date": "2024-06-10"},
    ],
    "reverse_splits": [{"symbol": "GE", "new_rate": 1, "old_rate": 8, "ex_date": "2021-08-02", "process_date": "2021-08-02"}],
    "name_changes": [{"old_symbol": "FB", "new_symbol": "META", "process_date": "2022-06-09"}],
    "spin_offs": [
        {
            "source_symbol": "MMM", "source_rate": 4, "new_symbol": "SOLV", "new_rate": 1,
            "ex_date": "2024-04-01", "process_date": "2024-04-01",
        },
    ],
    "stock_dividends": [{"symbol": "MSBC", "rate": 0.05, "ex_date": "2023-05-19", "process_date": "2023-05-19"}],
    "cash_mergers": [
        {"acquiree_symbol": "GLOP", "rate": 5.37, "effective_date": "2023-07-17", "process_date": "2023-07-17"},
    ],
    "worthless_removals": [{"symbol": "BLPH", "process_date": "2024-12-19"}],
}  # fmt: skip


@pytest.fixture
def announcing(three_symbols):
    with Sandbox(three_symbols, actions=Announcements(RECORDS), clock=lambda: NOW) as sandbox:
        yield sandbox


def test_a_response_has_a_list_for_each_type_and_null_on_the_last_page(announcing, call):
    response = call(announcing).get(PATH, **EVER).json

    assert response["next_page_token"] is None
    found = {name: len(records) for name, records in response["corporate_actions"].items()}
    assert found == {name: len(records) for name, records in RECORDS.items()}
    for name, records in RECORDS.items():
        for sent, record in zip(response["corporate_actions"][name], records, strict=True):
            assert record.items() <= sent.items()


def test_responses_match_the_published_description(described, announcing, call):
    described(call(announcing).get(PATH, **EVER).json, "corporate_actions_resp")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"symbols": "AAPL"}, ["AAPL"]),
        ({"symbols": "META"}, ["FB"]),
        ({"symbols": "FB,SOLV"}, ["FB", "MMM"]),
        ({"symbols": "KO"}, []),
        ({"types": "forward_split,reverse_split"}, ["GE", "NVDA"]),
        ({"types": "cash_dividend", "symbols": "MSFT,GE"}, ["MSFT"]),
        ({"start": "2024-05-17", "end": "2024-06-13"}, ["MSFT", "NVDA"]),
        ({"start": "2024-05-16", "end": "2024-05-16"}, ["AAPL"]),
        ({"start": "2024-05-10", "end": "2024-05-15"}, []),
    ],
)
def test_filters_go_by_process_date_symbol_and_type(announcing, call, query, expected):
    lists = call(announcing).get(PATH, **{**EVER, **query}).json["corporate_actions"]
    names = [r.get("symbol") or r.get("old_symbol") or r.get("source_symbol") for records in lists.values() for r in records]

    assert sorted(names) == expected


def test_without_dates_today_is_requested(three_symbols, call):
    today = {
        "worthless_removals": [{"symbol": name, "process_date": day} for name, day in (("A", "2024-06-15"), ("B", "2024-06-14"))]
    }
    with Sandbox(three_symbols, actions=Announcements(today), clock=lambda: NOW) as sandbox:
        lists = call(sandbox).get(PATH).json["corporate_actions"]

    assert [record["symbol"] for record in lists["worthless_removals"]] == ["A"]


@pytest.mark.parametrize("sort", ["asc", "desc"])
@pytest.mark.parametrize("faults", [None, "short=0.3,empty=0.3"])
def test_pages_hold_everything_once_in_order_of_process_dates(three_symbols, call, sort, faults):
    seen, query = [], {**EVER, "limit": "2", "sort": sort}
    drawn = Faults.parse(faults) if faults else None
    with Sandbox(three_symbols, actions=Announcements(RECORDS), faults=drawn) as sandbox:
        caller = call(sandbox)
        while True:
            response = caller.get(PATH, **query).json
            page = [record["process_date"] for records in response["corporate_actions"].values() for record in records]
            assert len(page) <= 2
            seen += sorted(page, reverse=sort == "desc")
            if response["next_page_token"] is None:
                break
            query["page_token"] = response["next_page_token"]

    every = [record["process_date"] for records in RECORDS.values() for record in records]
    assert seen == sorted(every, reverse=sort == "desc")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"limit": "1001"}, "invalid limit: larger than the allowed maximum of 1000"),
        ({"limit": "0"}, "invalid limit: smaller than the allowed minimum of 1"),
        ({"types": "forward_split,dividend"}, "invalid type: dividend"),
        ({"symbols": "AAPL,BRK-B"}, "invalid symbol: BRK-B"),
        ({"start": "2024-05-16", "end": "2024-05-15"}, "end should not be before start"),
        ({"start": "2024-02-30"}, None),
        ({"region": "mars"}, "invalid region: mars"),
        ({"sort": "up"}, "invalid sort: up"),
        ({"page_token": "undefined"}, "invalid page_token: undefined"),
        ({"ids": "x", "symbols": "AAPL"}, "ids is mutually exclusive with all other filters"),
    ],
)
def test_a_bad_parameter_is_refused(announcing, call, query, message):
    response = call(announcing).get(PATH, **query)

    assert response.status == 400
    assert message is None or response.message == message
    assert message is not None or response.message.startswith("Invalid format for parameter start: error parsing '2024-02-30'")


def test_keys_and_limits_hold_here_too(three_symbols, call):
    with Sandbox(three_symbols, keys={"key": "secret"}, rate=60, burst=1) as sandbox:
        caller = call(sandbox)
        assert caller.get(PATH, headers={"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "wrong"}).status == 401
        assert caller.get(PATH).headers["x-ratelimit-limit"] == "60"
        assert caller.get(PATH).status == 429


def test_ids_name_actions_whatever_their_dates(announcing, call):
    caller = call(announcing)
    made = caller.get(PATH, **EVER, types="name_change").json["corporate_actions"]["name_changes"][0]

    assert caller.get(PATH, ids=made["id"]).json["corporate_actions"] == {"name_changes": [made]}
    assert caller.get(PATH, **EVER, cusips=made["new_cusip"]).json["corporate_actions"] == {"name_changes": [made]}


def test_alpaca_py_reads_every_type(announcing, alpaca):
    from alpaca.data.historical.corporate_actions import CorporateActionsClient
    from alpaca.data.requests import CorporateActionsRequest

    client = CorporateActionsClient("key", "secret", url_override=announcing.url)
    found = client.get_corporate_actions(CorporateActionsRequest(start=date(2010, 1, 1), end=date(2030, 1, 1))).data
    client._session.close()

    assert {name: len(ones) for name, ones in found.items()} == {name: len(records) for name, records in RECORDS.items()}
    split = found["forward_splits"][0]
    assert (split.symbol, split.new_rate, split.old_rate, split.ex_date) == ("NVDA", 10.0, 1.0, date(2024, 6, 10))
    assert (found["cash_dividends"][0].rate, found["cash_dividends"][0].special) == (0.25, False)
    assert (found["name_changes"][0].old_symbol, found["spin_offs"][0].source_rate) == ("FB", 4.0)


def test_the_markets_splits_and_ticker_changes_are_announced(call):
    with Sandbox(SimulatedMarket()) as sandbox:
        lists = call(sandbox).get(PATH, symbols="AAPL,GE,FB", **EVER).json["corporate_actions"]

    assert [(r["ex_date"], r["new_rate"], r["old_rate"]) for r in lists["forward_splits"]] == [
        ("2014-06-09", 7, 1),
        ("2020-08-31", 4, 1),
    ]
    assert [(r["symbol"], r["old_rate"]) for r in lists["reverse_splits"]] == [("GE", 8)]
    assert [(r["old_symbol"], r["new_symbol"]) for r in lists["name_changes"]] == [("FB", "META")]


def test_a_replays_splits_are_announced(tmp_path, call):
    bars = write_bars(tmp_path / "bars.parquet", minutes_of("NVDA", 3))
    with Sandbox(Replay(bars, splits={"NVDA": [Split(date(2024, 6, 10), 10)]})) as sandbox:
        lists = call(sandbox).get(PATH, **EVER).json["corporate_actions"]

    assert [record["symbol"] for record in lists["forward_splits"]] == ["NVDA"]


def test_a_file_has_the_shape_of_a_response(tmp_path):
    path = tmp_path / "actions.json"
    path.write_text(json.dumps({"corporate_actions": RECORDS, "next_page_token": None}))
    from data_engine.sandbox.corporate_actions import ActionsRequest

    query = ActionsRequest(date(2000, 1, 1), date(2100, 1, 1), 1000)
    assert Announcements.read(path).page(query) == Announcements(RECORDS).page(query)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "/v1/corporate-actions"),
        ("{", "/v1/corporate-actions"),
        ('{"corporate_actions": {"dividends": [{}]}}', "'dividends'.*cash_dividends"),
        ('{"corporate_actions": {"cash_dividends": [{"symbol": "A"}]}}', "cash_dividends.*process_date"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, text, said):
    path = tmp_path / "actions.json"
    path.write_text(text)

    with pytest.raises(InputError, match=said):
        Announcements.read(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere\.json"):
        Announcements.read(tmp_path / "nowhere.json")


def test_the_types_are_the_documented_ones(shared):
    text = (shared / "data" / "alpaca" / "alpaca-data-openapi.yaml").read_text("utf-8")
    listed = text[text.index("    cas_types:") :].split("example:")[0]

    assert [line.strip(" -") for line in listed.splitlines() if line.startswith("          - ")] == list(TYPES)
