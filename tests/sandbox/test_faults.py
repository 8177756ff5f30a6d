"""Faults on purpose: repeatable, at the given share, and as they look to a client."""

from __future__ import annotations

import http.client
import threading
import zlib
from collections import Counter

import pytest

from data_engine.errors import InputError
from data_engine.sandbox import Faults, Sandbox
from data_engine.sandbox.faults import KINDS

QUERY = {"symbols": "AAPL,MSFT,NVDA", "timeframe": "1Min", "start": "2024-06-03", "end": "2024-06-03", "limit": "900"}


def broken(kind, **settings):
    return Faults({kind: 1.0}, **settings)


def test_a_specification_names_kinds_and_shares():
    faults = Faults.parse("429=0.05, reset=0.05,all=0.13")

    assert set(KINDS) == set(faults.probabilities)
    assert faults.probabilities["reset"] == pytest.approx(0.06)
    assert faults.probabilities["short"] == pytest.approx(0.01)


@pytest.mark.parametrize("spec", ["flood=0.1", "429", "429=often", "429=0.6,500=0.6", "429=-1"])
def test_a_specification_that_makes_no_sense_is_refused(spec):
    with pytest.raises(InputError):
        Faults.parse(spec)


def test_the_same_seed_draws_the_same_faults_in_the_given_share():
    first, again, other = (Faults.parse("429=0.1,reset=0.2", seed=seed) for seed in (1, 1, 2))
    drawn = [first.draw(number) for number in range(5000)]
    counts = Counter(drawn)

    assert drawn == [again.draw(number) for number in range(5000)]
    assert drawn != [other.draw(number) for number in range(5000)]
    assert abs(counts["429"] - 500) < 100
    assert abs(counts["reset"] - 1000) < 150


@pytest.mark.parametrize(
    ("kind", "status", "html", "header"),
    [
        ("429", 429, False, None),
        ("429_reset", 429, False, "x-ratelimit-reset"),
        ("429_retry_after", 429, False, "retry-after"),
        ("500", 500, False, None),
        ("502", 502, True, None),
        ("503", 503, True, None),
        ("504", 504, True, None),
    ],
)
def test_a_refusal_looks_like_the_services(three_symbols, call, kind, status, html, header):
    with Sandbox(three_symbols, faults=broken(kind, retry_after=7)) as sandbox:
        response = call(sandbox).get(**QUERY)
    hints = {"retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}

    assert (status, html) == (response.status, response.headers["content-type"].startswith("text/html"))
    assert {header} <= set(response.headers) if header else hints.isdisjoint(response.headers)
    assert status != 429 or response.body == b'{"message": "too many requests."}'
    assert [kind] == [record.fault for record in sandbox.requests]


@pytest.mark.parametrize("gzip", [True, False])
def test_a_reset_breaks_the_body_off(three_symbols, call, gzip):
    with Sandbox(three_symbols, faults=broken("reset")) as sandbox:
        with pytest.raises((ConnectionError, http.client.IncompleteRead)):
            call(sandbox).get(**QUERY, gzip=gzip)
        sandbox.faults = Faults()
        assert call(sandbox).get(**QUERY).status == 200


def test_a_stalled_body_stays_away_until_the_client_goes(three_symbols, call):
    with Sandbox(three_symbols, faults=broken("stall")) as sandbox:
        caller = call(sandbox)
        caller.connection.timeout = 0.3
        with pytest.raises(TimeoutError):
            caller.get(**QUERY)


def test_a_stalled_body_may_end_in_a_hang_up(three_symbols, call):
    with Sandbox(three_symbols, faults=broken("stall", stall_seconds=0.05)) as sandbox, pytest.raises(http.client.IncompleteRead):
        call(sandbox).get(**QUERY)


def test_closing_the_sandbox_ends_a_stall(three_symbols, call):
    sandbox = Sandbox(three_symbols, faults=broken("stall"))
    sandbox.start()
    caller, ended = call(sandbox), []

    def ask():
        try:
            caller.get(**QUERY)
        except (ConnectionError, http.client.IncompleteRead) as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not sandbox.requests:
        thread.join(0.01)
    sandbox.close()
    thread.join(10)

    assert not thread.is_alive()
    assert len(ended) == 1


def test_half_a_compressed_body_says_that_it_is_whole(three_symbols, call):
    with Sandbox(three_symbols, faults=broken("cut_gzip")) as sandbox:
        caller = call(sandbox)
        with pytest.raises(zlib.error, match="incomplete"):
            caller.get(**QUERY, gzip=True)
        assert (
            caller.get(path="/v2/stocks/bars", symbols="ZZZ", timeframe="1Day", start="1990-01-01", end="1990-01-01").status
            == 200
        )


def test_a_response_may_be_uncompressed_though_gzip_is_accepted(three_symbols, call):
    with Sandbox(three_symbols, faults=broken("identity")) as sandbox:
        response = call(sandbox).get(**QUERY, gzip=True)

    assert "content-encoding" not in response.headers
    assert response.raw == response.body


def test_short_and_empty_pages_carry_a_token_and_lose_nothing(three_symbols, call):
    plain = {**QUERY, "limit": "200"}
    with Sandbox(three_symbols) as sandbox:
        expected = call(sandbox).walk(**plain)
    with Sandbox(three_symbols, faults=Faults({"short": 0.4, "empty": 0.4})) as sandbox:
        found = call(sandbox).walk(**plain)
        rows = [(record.fault, record.rows) for record in sandbox.requests]

    assert expected == found
    assert sandbox.counts["rows"] == 1170
    assert ("empty", 0) in rows
    assert ("short", 66) in rows


def test_a_symbol_may_spoil_every_request_that_names_it(three_symbols, call):
    with Sandbox(three_symbols, faults=Faults(fail_symbols={"MSFT"})) as sandbox:
        caller = call(sandbox)
        statuses = [caller.get(**{**QUERY, "symbols": names}).status for names in ("AAPL,MSFT", "AAPL", "MSFT", "NVDA")]
        single = caller.get("/v2/stocks/MSFT/bars", timeframe="1Min", start="2024-06-03").status

    assert [*statuses, single] == [500, 200, 500, 200, 500]


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_a_status_may_be_given_always(three_symbols, call, status):
    with Sandbox(three_symbols, faults=Faults(always=status)) as sandbox:
        caller = call(sandbox)

        assert [status, status] == [caller.get(**QUERY).status for _ in range(2)]
        sandbox.faults = Faults()
        assert caller.get(**QUERY).status == 200
