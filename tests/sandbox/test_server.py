"""The server over real HTTP, judged by Alpaca's own client and the published description of its responses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import warnings
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from data_engine.market.series import RAW, Timeframe
from data_engine.market.time_range import TimeRange
from data_engine.sandbox import Sandbox, SimulatedMarket

from .calls import KEYS, NOW, Caller

DAY = {"timeframe": "1Min", "start": "2024-06-03", "end": "2024-06-03"}
THREE = {"symbols": "NVDA,AAPL,MSFT", **DAY}


def at(hour, minute):
    return f"2024-06-03T{hour:02}:{minute:02}:00Z"


def test_one_budget_of_rows_is_spent_symbol_after_symbol(three_symbols, call):
    with Sandbox(three_symbols) as sandbox:
        caller, pages, token = call(sandbox), [], {}
        while token is not None:
            page = caller.get(**THREE, limit="500", **token).json
            pages.append({symbol: len(rows) for symbol, rows in page["bars"].items()})
            token = {"page_token": page["next_page_token"]} if page["next_page_token"] else None

    assert pages == [{"AAPL": 390, "MSFT": 110}, {"MSFT": 280, "NVDA": 220}, {"NVDA": 170}]  # as recorded


def test_a_page_that_is_exactly_full_is_the_last(three_symbols, call):
    with Sandbox(three_symbols) as sandbox:
        assert call(sandbox).get(**THREE, limit="1170").json["next_page_token"] is None


def test_a_token_points_to_the_next_symbol_when_one_ends_with_the_page(three_symbols, call):
    with Sandbox(three_symbols) as sandbox:
        caller = call(sandbox)
        token = caller.get(**THREE, limit="390").json["next_page_token"]

        assert list(caller.get(**THREE, limit="390", page_token=token).json["bars"]) == ["MSFT"]


def test_the_form_of_a_page_is_compact_and_alphabetical(three_symbols, call):
    with Sandbox(three_symbols) as sandbox:
        response = call(sandbox).get(symbols="AAPL", **DAY, limit="1")
    bar = b'{"c":11,"h":11.5,"l":9.25,"n":1,"o":10,"t":"2024-06-03T13:30:00Z","v":100,"vw":10.5833}'
    token = b'"QUFQTHxNfDE3MTc0MjE0NjAwMDAwMDAwMDA="'

    assert b'{"bars":{"AAPL":[' + bar + b']},"next_page_token":' + token + b"}" == response.body


def test_both_ends_are_included(three_symbols, call):
    with Sandbox(three_symbols) as sandbox:
        bars = call(sandbox).get(symbols="AAPL", timeframe="1Min", start=at(13, 31), end=at(13, 33)).json["bars"]["AAPL"]

    assert [at(13, 31), at(13, 32), at(13, 33)] == [bar["t"] for bar in bars]


def test_a_start_within_a_minute_excludes_its_bar(three_symbols, call):
    with Sandbox(three_symbols) as sandbox:
        start, end = "2024-06-03T13:30:00.000000001Z", "2024-06-03T13:31:59.999999999Z"
        bars = call(sandbox).get(symbols="AAPL", timeframe="1Min", start=start, end=end).json["bars"]["AAPL"]

    assert [at(13, 31)] == [bar["t"] for bar in bars]


def test_descending_pages_hold_the_same_bars_the_other_way_round(three_symbols, call):
    with Sandbox(three_symbols) as sandbox:
        up = call(sandbox).walk(**THREE, limit="130")
        down = call(sandbox).walk(**THREE, limit="130", sort="desc")

    assert {symbol: rows[::-1] for symbol, rows in up.items()} == down


def test_nothing_found_is_an_empty_object_or_null(three_symbols, call):
    with Sandbox(three_symbols) as sandbox:
        caller = call(sandbox)
        several = caller.get(symbols="ZZZQQXNOTAREALTICKER", **DAY)
        single = caller.get("/v2/stocks/TSLA/bars", **DAY)
        partly = caller.get(symbols="AAPL,TSLA", **DAY).json

    assert several.body == b'{"bars":{},"next_page_token":null}'
    assert single.body == b'{"bars":null,"next_page_token":null,"symbol":"TSLA"}'
    assert list(partly["bars"]) == ["AAPL"]


def test_the_single_symbol_endpoint_pages_too(three_symbols, call):
    with Sandbox(three_symbols) as sandbox:
        caller = call(sandbox)
        first = caller.get("/v2/stocks/AAPL/bars", **DAY, limit="200", currency="EUR").json
        second = caller.get("/v2/stocks/AAPL/bars", **DAY, limit="200", page_token=first["next_page_token"]).json

    assert (first["symbol"], len(first["bars"]), first["currency"]) == ("AAPL", 200, "EUR")
    assert (len(second["bars"]), second["next_page_token"]) == (190, None)


def test_a_refusal_is_json(three_symbols, call):
    with Sandbox(three_symbols) as sandbox:
        caller = call(sandbox)
        bad = caller.get(symbols="AAPL,BRK-B", **DAY)
        elsewhere = caller.get("/v2/stocks/trades", **DAY)

    assert (bad.status, bad.body) == (400, b'{"message":"invalid symbol: BRK-B"}')
    assert (elsewhere.status, elsewhere.headers["content-type"].split(";")[0]) == (404, "application/json")


@pytest.mark.parametrize("headers", [{}, {**KEYS, "APCA-API-SECRET-KEY": "wrong"}, {"Authorization": "Basic a2V5Ondyb25n"}])
def test_wrong_and_missing_keys_get_a_page_of_html(three_symbols, call, headers):
    with Sandbox(three_symbols, keys={"key": "secret"}) as sandbox:
        response = call(sandbox).get(headers=headers, symbols="BRK-B")

    assert (response.status, response.headers["content-type"]) == (401, "text/html")
    assert b"401 Authorization Required" in response.body


@pytest.mark.parametrize("headers", [KEYS, {"Authorization": "Basic a2V5OnNlY3JldA=="}])
def test_right_keys_are_let_in(three_symbols, call, headers):
    with Sandbox(three_symbols, keys={"key": "secret"}) as sandbox:
        assert call(sandbox).get(headers=headers, **THREE).status == 200


def test_any_keys_will_do_unless_some_are_named(three_symbols, call):
    with Sandbox(three_symbols) as sandbox:
        caller = call(sandbox)

        assert [caller.get(**THREE, headers=h).status for h in (KEYS, {**KEYS, "APCA-API-KEY-ID": ""})] == [200, 401]


def test_the_free_plan_may_not_ask_for_the_latest_minutes(call):
    with Sandbox(SimulatedMarket(), plan="free", clock=lambda: datetime(2024, 6, 3, 16, tzinfo=UTC)) as sandbox:
        caller = call(sandbox)
        late = caller.get(symbols="AAPL", timeframe="1Min", start=at(15, 0), end=at(15, 46))
        early = caller.get(symbols="AAPL", timeframe="1Min", start=at(15, 0), end=at(15, 44)).json["bars"]["AAPL"]
        open_end = caller.get(symbols="AAPL", timeframe="1Min", start=at(15, 0)).json["bars"]["AAPL"]
        malformed = caller.get(symbols="A-B", timeframe="1Min", start=at(15, 0), end=at(15, 46))

    assert (late.status, late.message) == (403, "subscription does not permit querying recent SIP data")
    assert (at(15, 44), at(15, 45)) == (early[-1]["t"], open_end[-1]["t"])
    assert malformed.status == 400


def test_a_forming_bar_appears_when_its_minute_has_ended(call):
    clock = [datetime(2024, 6, 3, 16, 0, 30, tzinfo=UTC)]
    with Sandbox(SimulatedMarket(), clock=lambda: clock[0]) as sandbox:
        caller = call(sandbox)
        first = caller.get(symbols="AAPL", **DAY).json["bars"]["AAPL"][-1]["t"]
        clock[0] = datetime(2024, 6, 3, 16, 1, 0, tzinfo=UTC)
        second = caller.get(symbols="AAPL", **DAY).json["bars"]["AAPL"][-1]["t"]

    assert (at(15, 59), at(16, 0)) == (first, second)


def test_the_rate_limit_is_a_bucket_that_refills(three_symbols, call):
    seconds = [0.0]
    with Sandbox(three_symbols, rate=60, burst=3, monotonic=lambda: seconds[0]) as sandbox:
        caller = call(sandbox)
        burst = [caller.get(**THREE) for _ in range(4)]
        seconds[0] = 2.0
        later = [caller.get(**THREE).status for _ in range(3)]

    assert [response.status for response in burst] == [200, 200, 200, 429]
    assert [response.headers["x-ratelimit-remaining"] for response in burst[:3]] == ["2", "1", "0"]
    assert burst[3].body == b'{"message": "too many requests."}'
    assert not [name for name in burst[3].headers if name.startswith("x-ratelimit") or name == "retry-after"]
    assert later == [200, 200, 429]


@pytest.mark.parametrize("settings", [{"rate": 60, "limit_headers": False}, {}])
def test_there_may_be_no_limit_headers(three_symbols, call, settings):
    with Sandbox(three_symbols, **settings) as sandbox:
        assert "x-ratelimit-limit" not in call(sandbox).get(**THREE).headers


def test_wrong_keys_cost_no_token(three_symbols, call):
    with Sandbox(three_symbols, rate=60, burst=1, monotonic=lambda: 0.0) as sandbox:
        caller = call(sandbox)

        assert [caller.get(**THREE, headers=h).status for h in ({}, KEYS, KEYS)] == [401, 200, 429]


def test_large_responses_are_compressed_if_accepted(three_symbols, call):
    with Sandbox(three_symbols) as sandbox:
        caller = call(sandbox)
        plain, packed = caller.get(**THREE), caller.get(**THREE, gzip=True)
        small = caller.get(symbols="ZZZ", **DAY, gzip=True)

    assert plain.body == packed.body
    assert len(packed.raw) < len(plain.raw) / 3
    assert "content-encoding" not in small.headers


def test_responses_say_where_their_bars_come_from(three_symbols, call):
    with Sandbox(three_symbols) as replay, Sandbox(SimulatedMarket()) as market:
        headers_of = [call(sandbox).get(symbols="ZZZ", **DAY).headers for sandbox in (replay, market)]

    assert [headers["x-sandbox"] for headers in headers_of] == ["replay three.parquet", "simulated market"]
    assert {"data-engine-sandbox"} == {headers["server"] for headers in headers_of}


def test_requests_are_recorded(three_symbols, call):
    seen = []
    with Sandbox(three_symbols, on_request=seen.append) as sandbox:
        caller = call(sandbox)
        caller.get(**THREE, limit="1000")
        caller.get("/v2/stocks/A-B/bars", **DAY)
        records = sandbox.requests

    assert records == seen
    assert [(record.number, record.status, record.rows) for record in records] == [(1, 200, 1000), (2, 400, 0)]
    assert records[0].query["symbols"] == "NVDA,AAPL,MSFT"
    assert dict(sandbox.counts) == {200: 1, 400: 1, "rows": 1000}
    assert len({record.thread for record in records}) == 1


def test_many_clients_are_served_at_once(three_symbols):
    found, threads = [], []
    with Sandbox(three_symbols) as sandbox:

        def ask():
            caller = Caller(sandbox.url)
            try:
                found.append([caller.get(**THREE, limit="10000").body for _ in range(5)])
            finally:
                caller.connection.close()

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

    assert len(found) == 16
    assert len({body for bodies in found for body in bodies}) == 1
    assert len({record.thread for record in sandbox.requests}) == 16


def test_a_very_long_request_line_is_refused(three_symbols, call):
    with Sandbox(three_symbols, max_target=4000) as sandbox:
        assert call(sandbox).get(symbols=",".join(["AAPL"] * 1000), **DAY).status == 414


def test_a_broken_off_request_harms_no_other(three_symbols, call):
    with Sandbox(three_symbols) as sandbox:
        rude = call(sandbox)
        rude.connection.connect()
        rude.connection.sock.sendall(b"GET /v2/stocks/bars HTTP/1.1\r\nHost: x")
        rude.connection.close()

        assert call(sandbox).get(**THREE).status == 200


def test_open_connections_end_with_the_sandbox(three_symbols, call):
    with Sandbox(three_symbols) as sandbox:
        caller = call(sandbox)
        caller.get(**THREE)

    assert caller.connection.sock.recv(1) == b""


def ask_with_alpaca_py(alpaca, sandbox, **words):
    from alpaca.data.requests import StockBarsRequest
    from alpaca.data.timeframe import TimeFrame

    client = alpaca.StockHistoricalDataClient("key", "secret", url_override=sandbox.url, raw_data=True)
    found = client.get_stock_bars(StockBarsRequest(timeframe=TimeFrame.Minute, **words))
    client._session.close()
    return found


def test_alpaca_py_pages_through_the_simulated_market_and_gets_every_row(alpaca):
    symbols = ["AAPL", "BRK.B", "KO", "ZZZT"]
    span = TimeRange(datetime(2024, 6, 3, tzinfo=UTC), datetime(2024, 6, 15, tzinfo=UTC))
    market = SimulatedMarket()
    with Sandbox(market) as sandbox:
        found = ask_with_alpaca_py(alpaca, sandbox, symbol_or_symbols=symbols, start=span.start, end=span.end)
        pages = len(sandbox.requests)

    assert pages > 1
    assert {"AAPL", "BRK.B", "KO"} == set(found)
    for symbol, rows in found.items():
        bars = market.bars(symbol, Timeframe(1, "Min"), span, adjustment=RAW, feed="sip", now=NOW)
        timestamps = [f"{stamp}Z" for stamp in bars.start.astype("datetime64[ns]").astype("datetime64[s]")]
        assert timestamps == [row["t"] for row in rows]
        for name, column in zip("ohlcvn", bars.values[:6], strict=True):
            assert column.tolist() == [row[name] for row in rows]
        assert bars.vwap.tolist() == [row["vw"] for row in rows]
        assert all(isinstance(row[name], int) for row in rows for name in "vn")


def test_alpaca_py_makes_its_own_types_of_the_responses(alpaca, three_symbols):
    from alpaca.data.requests import StockBarsRequest
    from alpaca.data.timeframe import TimeFrame

    with Sandbox(three_symbols) as sandbox:
        client = alpaca.StockHistoricalDataClient("key", "secret", url_override=sandbox.url)
        request = StockBarsRequest(
            symbol_or_symbols=["AAPL", "NVDA"], timeframe=TimeFrame.Minute, start=datetime(2024, 6, 3), limit=500
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # alpaca-py's use of pandas
            frame = client.get_stock_bars(request).df
        client._session.close()

    assert frame.shape == (500, 7)
    assert (frame.iloc[0]["open"], frame.iloc[0]["volume"]) == (10.0, 100.0)


def test_importing_the_package_is_light():
    program = "import sys, data_engine.sandbox; print(sorted({'numpy', 'pyarrow', 'pandas', 'isal'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("timeframe", ["1Min", "15Min", "1Hour", "1Day", "1Week", "1Month"])
def test_responses_match_the_published_description(described, call, timeframe):
    query = {"timeframe": timeframe, "start": "2024-01-02", "end": "2024-03-28", "adjustment": "all", "limit": "300"}
    with Sandbox(SimulatedMarket()) as sandbox:
        caller = call(sandbox)
        several = caller.get(symbols="AAPL,GE,KO", **query).json
        single = caller.get("/v2/stocks/NVDA/bars", **query, currency="USD").json

    described(several, "stock_bars_resp")
    described(single, "stock_bars_resp_single")
    for rows in (*several["bars"].values(), single["bars"]):
        assert rows
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:00Z", row["t"]) for row in rows)
        assert all(earlier["t"] < later["t"] for earlier, later in pairwise(rows))


def test_recorded_refusals_are_worded_alike(shared, three_symbols, call):
    recorded = {
        entry["body"]
        for entry in json.loads((shared / "data" / "alpaca" / "samples" / "errors.json").read_text(encoding="utf-8"))
        if entry["status"] == 400 and "code=400" not in entry["body"]
    }
    provoking = [
        {**THREE, "end": "2024-06-02"},
        {**THREE, "start": "not-a-date"},
        {**THREE, "timeframe": "3Fortnight"},
        DAY,
        {**THREE, "limit": "10001"},
        {**DAY, "symbols": "AAPL,BRK-B"},
        {**THREE, "feed": "delayed_sip"},
    ]
    with Sandbox(three_symbols) as sandbox:
        caller = call(sandbox)
        response = {caller.get(**query).body.decode() for query in provoking}

    assert recorded == response
