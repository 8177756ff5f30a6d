"""What a request may say, and the wording of the refusals."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest

from data_engine.market.series import Timeframe
from data_engine.sandbox.protocol import BarsRequest, Refusal, Token, nanoseconds

NOW = datetime(2024, 6, 15, 12, 34, 56, tzinfo=UTC)
MINIMAL = {"symbols": "AAPL", "timeframe": "1Min", "start": "2024-06-03", "end": "2024-06-03"}


def parse(**changed: str) -> BarsRequest:
    return BarsRequest.parse({**MINIMAL, **changed}, now=NOW)


def ns(*words: int) -> int:
    return nanoseconds(datetime(*words, tzinfo=UTC))  # type: ignore[misc, arg-type]


def test_a_date_is_a_new_york_day_and_the_end_day_is_whole():
    asked = parse(start="2024-06-03", end="2024-06-04")

    assert (ns(2024, 6, 3, 4), ns(2024, 6, 5, 4) - 1) == (asked.start, asked.end)


def test_a_date_in_winter_begins_an_hour_later():
    assert ns(2024, 1, 8, 5) == parse(start="2024-01-08").start


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("2024-06-03T13:30:00Z", ns(2024, 6, 3, 13, 30), id="zulu"),
        pytest.param("2024-06-03T09:30:00-04:00", ns(2024, 6, 3, 13, 30), id="offset"),
        pytest.param("2024-06-03T19:00:00+05:30", ns(2024, 6, 3, 13, 30), id="half-hour-offset"),
        pytest.param("2024-06-03T13:30:00.5Z", ns(2024, 6, 3, 13, 30) + 500_000_000, id="tenths"),
        pytest.param("2024-06-03T13:30:00.123456789Z", ns(2024, 6, 3, 13, 30) + 123_456_789, id="nanoseconds"),
    ],
)
def test_instants_are_read_to_the_nanosecond(text, expected):
    assert expected == parse(start=text).start


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"symbols": ""}, "Invalid format for parameter symbols: query parameter 'symbols' is required"),
        (
            {"start": "not-a-date"},
            "Invalid format for parameter start: error parsing 'not-a-date' as RFC3339 or 2006-01-02 time: "
            'parsing time "not-a-date" as "2006-01-02": cannot parse "not-a-date" as "2006"',
        ),
        (
            {"end": "2024-6-3"},
            "Invalid format for parameter end: error parsing '2024-6-3' as RFC3339 or 2006-01-02 time: "
            'parsing time "2024-6-3" as "2006-01-02": cannot parse "6-3" as "01"',
        ),
        (
            {"start": "2024-13-01"},
            "Invalid format for parameter start: error parsing '2024-13-01' as RFC3339 or 2006-01-02 time: "
            'parsing time "2024-13-01": month out of range',
        ),
        (
            {"start": "2024-06-03 10:00"},
            "Invalid format for parameter start: error parsing '2024-06-03 10:00' as RFC3339 or 2006-01-02 time: "
            'parsing time "2024-06-03 10:00": extra text: " 10:00"',
        ),
        ({"timeframe": "3Fortnight"}, "invalid timeframe: 3Fortnight"),
        ({"timeframe": "30Sec"}, "invalid timeframe: 30Sec"),
        ({"timeframe": "1min"}, "invalid timeframe: 1min"),
        ({"timeframe": "60Min"}, "invalid timeframe: 60Min"),
        ({"timeframe": "5Month"}, "invalid timeframe: 5Month"),
        ({"limit": "10001"}, "invalid limit: larger than the allowed maximum of 10000"),
        ({"symbols": "AAPL,BRK-B,3USL"}, "invalid symbol: BRK-B"),
        ({"symbols": "ZZ9,AAPL,A_B"}, "invalid symbol: ZZ9"),
        ({"symbols": "SAAB-B.ST"}, "invalid symbol: SAAB-B.ST"),
        ({"feed": "delayed_sip"}, "invalid feed: delayed_sip"),
        ({"adjustment": "raw,split"}, "invalid adjustment: raw,split"),
        ({"sort": "up"}, "invalid sort: up"),
        ({"end": "2024-06-02"}, "end should not be before start"),
        ({"page_token": "undefined"}, "invalid page_token: undefined"),
    ],
)
def test_a_bad_parameter_is_refused_in_the_services_words(changed, message):
    with pytest.raises(Refusal) as refused:
        parse(**changed)

    assert (400, message) == (refused.value.status, refused.value.message)


def test_a_limit_is_a_thousand_unless_said():
    assert (parse().limit, parse(limit="10000").limit) == (1000, 10_000)


@pytest.mark.parametrize("limit", ["0", "-5", "many", "1.5"])
def test_a_limit_that_is_no_number_of_bars_is_refused(limit):
    with pytest.raises(Refusal):
        parse(limit=limit)


def test_symbols_are_sorted_and_folded():
    assert parse(symbols="IRRX.WS,AAPL,BRK.B,AAPL").symbols == ("AAPL", "BRK.B", "IRRX.WS")


@pytest.mark.parametrize(
    ("text", "expected"), [("1T", "1Min"), ("4H", "4Hour"), ("1D", "1Day"), ("1W", "1Week"), ("3M", "3Month")]
)
def test_timeframes_have_short_names(text, expected):
    assert Timeframe.parse(expected) == parse(timeframe=text).timeframe


def test_adjustments_may_be_listed():
    assert str(parse(adjustment="spin-off,split").adjustment) == "split,spin-off"


def test_without_bounds_today_until_now_is_requested():
    asked = BarsRequest.parse({"symbols": "AAPL", "timeframe": "1Min"}, now=NOW)

    assert (ns(2024, 6, 15, 4), nanoseconds(NOW), False) == (asked.start, asked.end, asked.end_given)


def test_without_real_time_access_the_end_is_a_quarter_of_an_hour_ago():
    asked = BarsRequest.parse({"symbols": "AAPL", "timeframe": "1Min"}, now=NOW, delayed=True)
    at_night = BarsRequest.parse(
        {"symbols": "AAPL", "timeframe": "1Min"}, now=datetime(2024, 6, 15, 4, 5, tzinfo=UTC), delayed=True
    )

    assert nanoseconds(NOW - timedelta(minutes=15)) == asked.end
    assert at_night.start == at_night.end == ns(2024, 6, 15, 3, 50)


@pytest.mark.parametrize(
    ("age", "feed", "refused"),
    [(16, "sip", False), (15, "sip", False), (14, "sip", True), (14, "", True), (-600, "sip", True), (0, "iex", False)],
)
def test_recent_consolidated_bars_need_a_plan(age, feed, refused):
    end = (NOW - timedelta(minutes=age)).isoformat()
    asked = BarsRequest.parse({**MINIMAL, "end": end, "feed": feed}, now=NOW, delayed=True)
    if not refused:
        asked.check_recency(NOW)
        return
    with pytest.raises(Refusal) as refusal:
        asked.check_recency(NOW)

    assert (refusal.value.status, refusal.value.message) == (403, "subscription does not permit querying recent SIP data")


def test_a_token_names_the_next_bar():
    token = Token("AAPL", "M", 1780320120000000000)

    assert str(token) == "QUFQTHxNfDE3ODAzMjAxMjAwMDAwMDAwMDA="  # recorded
    assert token == Token.parse(str(token))


@pytest.mark.parametrize("decoded", ["AAPL|M", "AAPL|X|1", "AAPL|M|soon", "AAPL|D|1717387200000000000"])
def test_a_token_of_another_kind_is_refused(decoded):
    with pytest.raises(Refusal, match="invalid page_token"):
        parse(page_token=base64.b64encode(decoded.encode()).decode())
