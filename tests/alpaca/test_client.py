"""The client: the same bars as alpaca-py's own client, through every fault; and no secret anywhere."""

from __future__ import annotations

import json
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from data_engine import AlpacaClient
from data_engine.alpaca import http_client
from data_engine.alpaca.bars_protocol import BarsRequest
from data_engine.alpaca.rate_limit import RateLimiter
from data_engine.alpaca.retry import RetryPolicy
from data_engine.alpaca.transport import Call, Response, TransportFailed
from data_engine.errors import (
    BadAnswer,
    ConfigError,
    CredentialsRefused,
    DataEngineError,
    InputError,
    Interrupted,
    InvalidSymbol,
    RecentDataRefused,
    RequestRefused,
    ServiceDown,
    SourceError,
    SourceUnavailable,
    UriTooLong,
)
from data_engine.market.series import Dataset, Timeframe
from data_engine.market.time_range import TimeRange
from data_engine.sandbox import Faults, Replay, Sandbox, SimulatedMarket
from data_engine.sandbox.splits import Split
from hostile import Hostile, Play, bar, gzipped, http, page
from real_data import FOLDER

KEY, SECRET = "PKTESTKEY0123456789", "s3cretSECRETs3cretSECRET"
QUICK = RetryPolicy(base=0.001, cap=0.002)
COLUMNS = ["open", "high", "low", "close", "volume", "trade_count", "vwap"]
DAY = TimeRange(datetime(2024, 6, 3, 4, tzinfo=UTC), datetime(2024, 6, 4, 4, tzinfo=UTC))
REQUEST = BarsRequest(("AAPL", "MSFT"), Dataset(Timeframe.parse("1Min")), DAY)
REAL = FOLDER / "minute" / "polygon_sip_ext_8sym_20240603_20240816.parquet"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch, tmp_path):
    """Neither the developer's keys nor a .env file beside the tests have a say."""
    for name in ("ALPACA_API_KEY", "ALPACA_SECRET_KEY", "APCA_API_KEY_ID", "APCA_API_SECRET_KEY", "APCA_API_DATA_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def connect():
    """Clients that are closed at the end of the test."""
    made: list[AlpacaClient] = []

    def client_of(server: Sandbox | Hostile | str, **options: object) -> AlpacaClient:
        url = server if isinstance(server, str) else server.url
        made.append(AlpacaClient(KEY, SECRET, base_url=url, **{"policy": QUICK, **options}))
        return made[-1]

    yield client_of
    for client in made:
        client.close()


@pytest.fixture(scope="module")
def real() -> Replay:
    """The real file of eight symbols, with NVDA's split of June 2024."""
    if not REAL.is_file():
        pytest.skip("the shared folder of real bars is not here")
    return Replay(REAL, splits={"NVDA": [Split(date(2024, 6, 10), 10)]})


@pytest.fixture(scope="module")
def sandbox(real):
    with Sandbox(real, keys={KEY: SECRET}) as server:
        yield server


@pytest.fixture(scope="module")
def market() -> SimulatedMarket:
    return SimulatedMarket()


def statuses(server: Sandbox) -> list[int]:
    return [record.status for record in server.requests]


# The same bars as alpaca-py


@pytest.fixture(scope="module")
def theirs(sandbox):
    """Send the same request with alpaca-py's client; its ends are included, so they are a microsecond before ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its websockets are deprecated
        from alpaca.data.enums import Adjustment
        from alpaca.data.historical import StockHistoricalDataClient
        from alpaca.data.requests import StockBarsRequest
        from alpaca.data.timeframe import TimeFrame, TimeFrameUnit
    client = StockHistoricalDataClient(KEY, SECRET, url_override=sandbox.url)
    units = {"Min": TimeFrameUnit.Minute, "Hour": TimeFrameUnit.Hour, "Day": TimeFrameUnit.Day, "Week": TimeFrameUnit.Week}

    def fetch(symbols: list[str], start: datetime, end: datetime, timeframe: str, adjustment: str) -> tuple[object, pd.DataFrame]:
        parsed = Timeframe.parse(timeframe)
        frame = TimeFrame(parsed.amount, units[parsed.unit])
        request = StockBarsRequest(
            symbol_or_symbols=symbols,
            start=start,
            end=end - timedelta(microseconds=1),
            timeframe=frame,
            adjustment=Adjustment(adjustment),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls pandas in ways that pandas has deprecated
            return frame, client.get_stock_bars(request).df

    yield fetch
    client._session.close()


def utc(*numbers: int) -> datetime:
    return datetime(*numbers, tzinfo=UTC)


SAME = {
    "a-morning": (["AAPL"], utc(2024, 6, 3, 8), utc(2024, 6, 3, 14, 30), "1Min", "raw"),
    "pages-and-symbols": (["SPCX", "ARM", "MSTR"], utc(2024, 6, 3), utc(2024, 7, 6), "1Min", "raw"),
    "symbols-given-backwards": (["NVDA", "AAPL"], utc(2024, 6, 10), utc(2024, 6, 12), "1Min", "raw"),
    "a-class-share-without-bars": (["AAPL", "BRK.B"], utc(2024, 6, 10), utc(2024, 6, 11), "1Min", "raw"),
    "five-minutes": (["AAPL", "ACHR"], utc(2024, 6, 3), utc(2024, 6, 8), "5Min", "raw"),
    "an-hour": (["INTC"], utc(2024, 6, 3), utc(2024, 8, 17), "1Hour", "raw"),
    "days": (["AAPL", "NVDA", "SPY"], utc(2024, 6, 3, 4), utc(2024, 8, 17, 4), "1Day", "raw"),
    "weeks": (["AAPL"], utc(2024, 6, 3, 4), utc(2024, 8, 12, 4), "1Week", "raw"),
    "split-minutes": (["NVDA"], utc(2024, 6, 7), utc(2024, 6, 11), "1Min", "split"),
    "all-days": (["NVDA", "SPY"], utc(2024, 6, 3, 4), utc(2024, 6, 15, 4), "1Day", "all"),
}


@pytest.mark.parametrize(("symbols", "start", "end", "timeframe", "adjustment"), SAME.values(), ids=SAME)
def test_bars_are_those_of_alpaca_py(connect, sandbox, theirs, symbols, start, end, timeframe, adjustment):
    frame, expected = theirs(symbols, start, end, timeframe, adjustment)
    # Its zone is pydantic's own UTC, its unit the microsecond.
    expected.index = expected.index.set_levels(expected.index.levels[1].as_unit("ns").tz_convert("UTC"), level=1)

    ours = connect(sandbox).fetch_bars(symbols, start, end, timeframe, adjustment=adjustment)
    assert_frame_equal(ours, expected, check_exact=True)
    assert_frame_equal(ours, connect(sandbox).fetch_bars(symbols, start, end, frame, adjustment=adjustment))


@pytest.mark.parametrize("symbols", [["ZZZZ"], ["AAPL", "SPY"]])
def test_no_bars_is_an_empty_frame_with_columns_where_alpaca_pys_has_none(connect, sandbox, theirs, symbols):
    start, end = utc(2024, 6, 1), utc(2024, 6, 2)  # a Saturday
    ours = connect(sandbox).fetch_bars(symbols, start, end)

    assert theirs(symbols, start, end, "1Min", "raw")[1].empty
    assert (len(ours), list(ours.columns), ours.index.names) == (0, COLUMNS, ["symbol", "timestamp"])
    assert {str(dtype) for dtype in ours.dtypes} == {"float64"}
    assert str(ours.index.levels[1].dtype) == "datetime64[ns, UTC]"


def test_a_plain_day_is_new_yorks_whole_day(connect, sandbox):
    day = connect(sandbox).fetch_bars("AAPL", "2024-06-03", "2024-06-03")

    assert_frame_equal(day, connect(sandbox).fetch_bars(["aapl"], utc(2024, 6, 3, 4), utc(2024, 6, 4, 4)))


def test_every_bar_of_the_file_comes(connect, sandbox, real):
    """All eight symbols, 27 pages: against pandas reading the same file."""
    expected = pd.read_parquet(REAL).set_index(["symbol", "timestamp"]).sort_index()
    sandbox.forget()
    bars = connect(sandbox).fetch_bars(real.symbols, "2024-06-03", "2024-08-16")

    assert sandbox.counts[200] == -(-len(expected) // 10_000)
    for column in ("open", "high", "low", "close", "volume"):
        assert (bars[column].to_numpy() == expected[column].to_numpy()).all()
    assert [(s, t.value) for s, t in bars.index] == [(s, t.value) for s, t in expected.index.set_levels(
        expected.index.levels[1].as_unit("ns"), level=1)]  # fmt: skip


def test_a_frame_says_which_bars_it_holds(connect, sandbox):
    bars = connect(sandbox, feed="iex").fetch_bars("AAPL", "2024-06-03", "2024-06-03", "1Day", adjustment="split", asof="-")

    assert bars.attrs["data_engine"] == {
        "timeframe": "1Day", "feed": "iex", "adjustment": "split", "asof": "-", "currency": None,
    }  # fmt: skip


def test_options_are_sent_in_the_words_of_the_api(connect, sandbox):
    sandbox.forget()
    connect(sandbox).fetch_bars(
        "AAPL", "2024-06-03", "2024-06-03", feed="boats", adjustment="dividend", asof=date(2024, 6, 3), currency="usd"
    )

    (record,) = sandbox.requests
    assert record.query == {
        "symbols": "AAPL", "timeframe": "1Min", "start": "2024-06-03T04:00:00Z", "end": "2024-06-04T03:59:59.999999999Z",
        "limit": "10000", "adjustment": "dividend", "feed": "boats", "asof": "2024-06-03", "currency": "USD", "sort": "asc",
    }  # fmt: skip


def test_symbols_are_requested_once_and_five_hundred_at_a_time(connect, sandbox):
    names = [f"{a}{b}{c}" for a in "ABCDEFGHIJ" for b in "ABCDEFGHIJ" for c in "UVWXYZ"]
    sandbox.forget()
    connect(sandbox).fetch_bars([*names, *names[:9]], "2024-06-03", "2024-06-03")

    chunks = [record.query["symbols"].split(",") for record in sandbox.requests]
    assert ([len(chunk) for chunk in chunks], [name for chunk in chunks for name in chunk]) == ([500, 100], names)


def test_a_range_is_widened_to_whole_bars_and_the_surplus_is_dropped(connect, sandbox):
    """A bar cut by the edge of a request could be made of half its trades."""
    client = connect(sandbox)
    whole = client.fetch_bars("AAPL", utc(2024, 6, 3, 13), utc(2024, 6, 3, 15), "1Hour")
    sandbox.forget()
    part = client.fetch_bars("AAPL", utc(2024, 6, 3, 13, 10), utc(2024, 6, 3, 14, 10), "1Hour")

    assert sandbox.requests[0].query["start"] == "2024-06-03T13:00:00Z"
    assert sandbox.requests[0].query["end"] == "2024-06-03T14:59:59.999999999Z"
    assert_frame_equal(part, whole.iloc[1:2], check_index_type=False)


# The present


def test_a_bar_whose_interval_has_not_ended_is_left_out(connect, market):
    now = utc(2024, 6, 3, 15, 7, 30)
    with Sandbox(market, clock=lambda: now + timedelta(minutes=9)) as server:  # whose clock is ahead of ours
        bars = connect(server, now=lambda: now).fetch_bars("AAPL", utc(2024, 6, 3, 15), None, "5Min")

    assert [stamp for _, stamp in bars.index] == [pd.Timestamp("2024-06-03 15:00", tz="UTC")]


def test_recent_data_that_the_plan_refuses_is_left_out_once_and_for_all(connect, market):
    now = utc(2024, 6, 3, 18)
    with Sandbox(market, plan="free", clock=lambda: now) as server:
        client = connect(server, now=lambda: now)
        first = client.fetch_bars("AAPL", "2024-06-03")
        second = client.fetch_bars("AAPL", "2024-06-03")

    assert statuses(server) == [403, 200, 200]
    assert client.recent_refused
    assert first.index[-1][1] == pd.Timestamp("2024-06-03 17:43", tz="UTC")
    assert_frame_equal(first, second)


def test_another_feed_is_not_truncated(connect, market):
    now = utc(2024, 6, 3, 18)
    with Sandbox(market, plan="free", clock=lambda: now) as server:
        client = connect(server, now=lambda: now)
        client.fetch_bars("AAPL", "2024-06-03")
        client.fetch_bars("AAPL", "2024-06-03", feed="iex")

    assert server.requests[-1].query["end"] == "2024-06-03T17:59:59.999999999Z"


def test_a_range_of_recent_minutes_alone_is_empty_after_the_refusal(connect, market):
    now = utc(2024, 6, 3, 18)
    with Sandbox(market, plan="free", clock=lambda: now) as server:
        client = connect(server, now=lambda: now)
        sizes = [len(client.fetch_bars("AAPL", now - timedelta(minutes=10))) for _ in range(2)]

    assert (sizes, statuses(server)) == ([0, 0], [403])


def test_delayed_sip_is_sip_up_to_sixteen_minutes_ago(connect, market):
    now = utc(2024, 6, 3, 18)
    with Sandbox(market, plan="free", clock=lambda: now) as server:
        bars = connect(server, now=lambda: now).fetch_bars("AAPL", "2024-06-03", feed="delayed_sip")

    assert [(r.status, r.query["feed"], r.query["end"]) for r in server.requests] == [
        (200, "sip", "2024-06-03T17:43:59.999999999Z")
    ]
    assert bars.attrs["data_engine"]["feed"] == "sip"


def test_a_clock_that_is_wrong_is_suspected(connect, market):
    now = utc(2024, 6, 3, 18)
    with Sandbox(market, plan="free", clock=lambda: now - timedelta(hours=1)) as server:
        with pytest.raises(RecentDataRefused, match=r"1Min bars of AAPL.*clock"):
            connect(server, now=lambda: now).fetch_bars("AAPL", "2024-06-03")

        assert statuses(server) == [403, 403]


# Faults that pass


@pytest.mark.parametrize(
    ("play", "requests"),
    [
        (http(500, b'{"message":"internal server error occurred"}'), 2),
        (http(502, b"<html><title>502 Bad Gateway</title></html>", "text/html"), 2),
        (http(503, b"<html>", "text/html"), 2),
        (http(504, b"<html>", "text/html"), 2),
        (http(408), 2),
        (Play(http(body=b"half", headers=[("Content-Length", "99")]), "reset"), 2),
        (Play(http(body=b"half", headers=[("Content-Length", "99")]), "close"), 2),
        (gzipped(b"x" * 1000, 20), 2),
        (http(200, b"<html>captive portal</html>", "text/html"), 2),
        (http(200, b"{}", None), 2),
        (http(200, b'{"bars":{"AAPL":[{"c":NaN}]},"next_page_token":null}'), 2),
    ],
    ids=["500", "502", "503", "504", "408", "reset", "cut", "cut-gzip", "html", "no-content-type", "bad-page"],
)  # fmt: skip
def test_a_passing_failure_is_repeated(connect, play, requests):
    good = page({"AAPL": [bar("2024-06-03T08:00:00Z")]})
    with Hostile(play, good) as server:
        client = connect(server)
        bars = client.fetch_bars("AAPL", "2024-06-03", "2024-06-03")

    assert (len(bars), client.requests, len(server.requests)) == (1, requests, requests)
    assert server.requests[0].target == server.requests[1].target


def test_the_limit_is_learned_from_ordinary_responses(connect, market):
    with Sandbox(market, rate=1000) as server:
        client = connect(server)
        client.fetch_bars("AAPL", "2024-06-03", "2024-06-03")

        assert client.rate_limiter.limit == 1000


def test_all_faults_at_once_change_no_bar(connect, market):
    faults = Faults({"500": 0.1, "503": 0.1, "reset": 0.1, "cut_gzip": 0.1, "identity": 0.1, "short": 0.2})
    span = ("2024-06-03", "2024-06-21")
    with Sandbox(market) as calm, Sandbox(market, faults=faults) as rough:
        expected = connect(calm).fetch_bars(["AAPL", "MSFT", "F"], *span)
        bars = connect(rough, policy=replace(QUICK, tries=50)).fetch_bars(["AAPL", "MSFT", "F"], *span)

    assert_frame_equal(bars, expected)
    assert len(expected) > 20_000


def test_short_and_empty_pages_are_not_the_end(connect):
    plays = [
        page({}, "a"), page({"AAPL": [bar("2024-06-03T08:00:00Z")]}, "b"), page({}, "c"), page({}, "d"),
        page({"AAPL": [bar("2024-06-03T08:01:00Z")], "MSFT": [bar("2024-06-03T08:00:00Z")]}, "e"), page({}),
    ]  # fmt: skip
    with Hostile(*plays) as server:
        bars = connect(server).fetch_bars(["AAPL", "MSFT"], "2024-06-03", "2024-06-03")

    assert [(symbol, stamp.minute) for symbol, stamp in bars.index] == [("AAPL", 0), ("AAPL", 1), ("MSFT", 0)]
    assert [request.target.partition("&page_token=")[2] for request in server.requests] == ["", "a", "b", "c", "d", "e"]


@pytest.mark.parametrize("again", [1, 5])
def test_an_empty_page_may_repeat_the_token_of_its_request(connect, again):
    """It says where the bars begin, as the sandbox's fault does: nothing was skipped, nothing is wrong."""
    plays = [page({}, "a")] * (1 + again)
    with Hostile(*plays, page({"AAPL": [bar("2024-06-03T08:00:00Z")]})) as server:
        assert len(connect(server).fetch_bars("AAPL", "2024-06-03", "2024-06-03")) == 1


# Refusals


@pytest.mark.parametrize(
    ("play", "error", "said"),
    [
        (http(401, b"<html><head><title>401 Authorization Required</title></head></html>", "text/html"), CredentialsRefused,
         "401: 401 Authorization Required"),
        (http(401, b'{"message":"unauthorized"}'), CredentialsRefused, "401: unauthorized"),
        (http(403, b'{"message":"forbidden."}'), CredentialsRefused, "403: forbidden."),
        (http(403, b"<html><title>403 Forbidden</title></html>", "text/html"), CredentialsRefused,
         "403: 403 Forbidden"),
        (http(400, b'{"message":"invalid symbol: MSFT"}'), InvalidSymbol, "invalid symbol: MSFT"),
        (http(400, b'{"message":"code=400, message=invalid symbol: MSFT"}'), InvalidSymbol, "invalid symbol: MSFT"),
        (http(400, b'{"message":"invalid symbol: OTHER"}'), RequestRefused, "invalid symbol: OTHER"),
        (http(400, b'{"message":"end should not be before start"}'), RequestRefused, "400: end should not be before start"),
        (http(403, b'{"message":"subscription does not permit otc data"}'), RequestRefused, "does not permit otc"),
        (http(404, b"{}"), RequestRefused, "404"),
        (http(422, b'{"message":"no"}'), RequestRefused, "422: no"),
        (http(204, kind=None), RequestRefused, "204"),
        (http(414, b"<html>", "text/html"), UriTooLong, "2 symbols"),
        (http(413), UriTooLong, "2 symbols"),
        (http(431), UriTooLong, "2 symbols"),
        (http(302, headers=[("Location", "http://127.0.0.1:9/")]), BadAnswer, "302"),
    ],
)  # fmt: skip
def test_what_a_repetition_would_not_change_is_requested_once(connect, play, error, said):
    with Hostile(play) as server:
        client = connect(server)
        with pytest.raises(error) as caught:
            list(client.pages(REQUEST))

    assert type(caught.value) is error
    assert said in str(caught.value)
    assert str(REQUEST) in str(caught.value) or error not in (RequestRefused, BadAnswer)
    assert (len(server.requests), client.requests) == (1, 1)


def test_wrong_keys_are_refused_by_the_sandbox_at_once(market):
    with Sandbox(market, keys={KEY: "another"}) as server, AlpacaClient(KEY, SECRET, base_url=server.url) as client:
        with pytest.raises(CredentialsRefused):
            client.fetch_bars("AAPL", "2024-06-03", "2024-06-03")

        assert statuses(server) == [401]


def test_a_malformed_symbol_is_named(connect, market):
    with Sandbox(market) as server, pytest.raises(InvalidSymbol) as caught:
        connect(server).fetch_bars(["AAPL", "BRK-B"], "2024-06-03", "2024-06-03")

    assert caught.value.symbol == "BRK-B"


def test_a_former_owner_is_named_as_it_was_asked_for(connect, market):
    with Sandbox(market) as server:
        with pytest.raises(InvalidSymbol) as caught:
            connect(server).fetch_bars(["AAPL@2024-06-03", "BRK-B@2024-06-03"], "2024-06-03", "2024-06-03")
        assert caught.value.symbol == "BRK-B@2024-06-03"
        client = connect(server)
        frame = client.fetch_bars(["AAPL@2024-06-03", "AAPL", "MSFT@2024-06-04"], "2024-06-03", "2024-06-03", "1Day")
        assert list(frame.index.levels[0]) == ["AAPL", "AAPL@2024-06-03", "MSFT@2024-06-04"]
        queries = {(one.query["symbols"], one.query.get("asof")) for one in server.requests}
        assert queries >= {("AAPL", None), ("AAPL", "2024-06-03"), ("MSFT", "2024-06-04")}
        sent = len(server.requests)
        with pytest.raises(InputError, match="@"):
            client.fetch_bars("AAPL@2024-06-03", "2024-06-03", asof="2024-06-04")
        assert len(server.requests) == sent


def test_a_request_line_that_is_too_long_is_said_so(connect, market):
    with Sandbox(market, max_target=100) as server, pytest.raises(UriTooLong):
        connect(server).fetch_bars("AAPL", "2024-06-03", "2024-06-03")


@pytest.mark.parametrize(
    ("play", "tries"),
    [(http(503), 6), (Play(b"", "close"), 6), (http(200, b"<html>", "text/html"), 3), (http(200, b"{}"), 3)],
    ids=["503", "closed", "html", "bad-page"],
)
def test_tries_are_bounded(connect, play, tries):
    with Hostile(play) as server, pytest.raises((SourceUnavailable, BadAnswer)) as caught:
        connect(server).fetch_bars("AAPL", "2024-06-03", "2024-06-03")

    assert len(server.requests) == tries
    assert "1Min bars of AAPL, 2024-06-03T04:00:00Z .. 2024-06-04T04:00:00Z" in str(caught.value)
    assert not isinstance(caught.value, ServiceDown)


class Scripted:
    """A transport that needs no network: plays responses, the last one for ever, and records the requests."""

    def __init__(self, *responses: Response | TransportFailed) -> None:
        self.responses = list(responses)
        self.targets: list[str] = []

    def get(self, path_and_query: str, call: Call | None = None) -> Response:
        self.targets.append(path_and_query)
        played = self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]
        if isinstance(played, TransportFailed):
            raise played
        return played

    def close(self) -> None:
        """Nothing is open."""


def response(status: int, body: str = '{"bars":{},"next_page_token":null}', **headers: str) -> Response:
    named = {"content-type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    return Response(status, named, body.encode(), len(body))


class Virtual:
    """A clock that goes on only while the client waits. Stands in for the module `time` and for the client's event."""

    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return 5000.0 + self.passed

    def time(self) -> float:
        return 1_717_400_000.0 + self.passed

    def wait(self, seconds: float) -> bool:
        self.passed += seconds
        return False

    def is_set(self) -> bool:
        return False


@pytest.fixture
def virtual(monkeypatch):
    """Clients over scripted responses, and their clock."""
    clock = Virtual()
    monkeypatch.setattr(http_client, "time", clock)

    def client_of(*responses: Response | TransportFailed, **options: object) -> tuple[AlpacaClient, Scripted, Virtual]:
        transport = Scripted(*responses)
        client = AlpacaClient(KEY, SECRET, transport=transport, **options)
        client._session._stop = clock
        return client, transport, clock

    return client_of


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({}, 1), ({"retry_after": "7"}, 7), ({"x_ratelimit_reset": "1717400012"}, 12)],
    ids=["says-nothing", "retry-after", "reset"],
)
def test_a_429_is_waited_out_and_repeated(virtual, headers, seconds):
    client, transport, clock = virtual(response(429, **headers), response(200))
    client.fetch_bars("AAPL", "2024-06-03", "2024-06-03")

    assert transport.targets[0] == transport.targets[1]
    assert (len(transport.targets), client.requests) == (2, 2)
    assert clock.passed >= seconds


def test_one_429_costs_seconds(virtual):
    client, _, clock = virtual(response(429), response(200))
    client.fetch_bars("AAPL", "2024-06-03", "2024-06-03")

    assert clock.passed <= 5


def test_tries_of_429_are_not_counted(virtual):
    client, transport, _ = virtual(*[response(429, retry_after="0")] * 12, response(200))
    client.fetch_bars("AAPL", "2024-06-03", "2024-06-03")

    assert len(transport.targets) == 13


@pytest.mark.parametrize(
    "failure", [response(429), response(503), TransportFailed("the server stopped responding")], ids=["429", "503", "silent"]
)
def test_a_service_that_is_down_ends_the_run(virtual, failure):
    """After ten minutes without any usable response, however many tries each request has."""
    client, _, clock = virtual(failure, policy=RetryPolicy(tries=10**9))
    with pytest.raises(ServiceDown, match=r"6[0-9][0-9] s\b") as caught:
        client.fetch_bars("AAPL", "2024-06-03", "2024-06-03")

    assert 600 <= clock.passed <= 700
    assert caught.value.exit_code == 6


def test_one_usable_response_starts_the_ten_minutes_anew(virtual):
    client, _, clock = virtual(
        *[response(503)] * 30, response(200), *[response(503)] * 30, response(200), policy=RetryPolicy(tries=99)
    )
    for _ in range(2):
        client.fetch_bars("AAPL", "2024-06-03", "2024-06-03")

    assert clock.passed > 600


def test_an_outage_long_ago_does_not_shorten_the_next(virtual):
    """A notebook fails, and runs again an hour later: the second request has all its tries."""
    client, _, clock = virtual(*[response(503)] * 3, response(503), response(200), policy=RetryPolicy(tries=3))
    with pytest.raises(SourceUnavailable):
        client.fetch_bars("AAPL", "2024-06-03", "2024-06-03")
    clock.passed += 3600

    assert client.fetch_bars("AAPL", "2024-06-03", "2024-06-03").empty


# Hostile chains of pages


def test_a_token_that_comes_again_is_an_end(connect):
    with Hostile(page({}, "a"), page({}, "b"), page({}, "a")) as server, pytest.raises(BadAnswer):
        list(connect(server).pages(REQUEST))

    assert len(server.requests) == 3


def test_empty_pages_without_end_are_an_end():
    transport = Scripted(*[response(200, json.dumps({"bars": {}, "next_page_token": str(n)})) for n in range(1000)])
    with pytest.raises(BadAnswer):
        list(AlpacaClient(KEY, SECRET, transport=transport).pages(REQUEST))

    assert len(transport.targets) == 101


def test_pages_with_bars_end_where_the_range_does():
    """Tokens without end, and a bar in each page: the bars must move on, and the range does not."""
    first = datetime(2024, 6, 3, 4, tzinfo=UTC)
    pages = [{"AAPL": [bar((first + timedelta(minutes=n)).strftime("%Y-%m-%dT%H:%M:%SZ"))]} for n in range(2000)]
    transport = Scripted(
        *[response(200, json.dumps({"bars": bars, "next_page_token": str(n)})) for n, bars in enumerate(pages)] * 3
    )
    with pytest.raises(BadAnswer, match=r"AAPL: the bar at 2024-06-04T04:0"):
        list(AlpacaClient(KEY, SECRET, transport=transport, policy=QUICK).pages(REQUEST))


@pytest.mark.parametrize(
    "again", [["2024-06-03T08:01:00Z"], ["2024-06-03T08:00:00Z"], ["2024-06-03T08:01:00Z", "2024-06-03T08:02:00Z"]]
)
def test_bars_of_an_earlier_page_are_refused(again):
    pages = [["2024-06-03T08:00:00Z", "2024-06-03T08:01:00Z"], again]
    responses = [
        response(200, json.dumps({"bars": {"AAPL": [bar(stamp) for stamp in stamps]}, "next_page_token": token}))
        for stamps, token in zip(pages, ("a", None), strict=True)
    ]
    with pytest.raises(BadAnswer, match="AAPL"):
        list(AlpacaClient(KEY, SECRET, transport=Scripted(*responses)).pages(REQUEST))


def test_pages_are_yielded_as_they_come():
    """What arrived before a failure is the caller's."""
    responses = [
        response(200, json.dumps({"bars": {"AAPL": [bar("2024-06-03T08:00:00Z")]}, "next_page_token": "a"})),
        response(401),
    ]
    pages = AlpacaClient(KEY, SECRET, transport=Scripted(*responses)).pages(REQUEST)

    assert next(pages).slices == (("AAPL", 0, 1),)
    with pytest.raises(CredentialsRefused):
        next(pages)


# Stopping


def test_a_stopped_client_sends_nothing():
    transport = Scripted(response(200))
    client = AlpacaClient(KEY, SECRET, transport=transport)
    client.stop()
    with pytest.raises(Interrupted):
        client.fetch_bars("AAPL", "2024-06-03", "2024-06-03")
    assert transport.targets == []

    assert client.begin().fetch_bars("AAPL", "2024-06-03", "2024-06-03").empty
    with pytest.raises(Interrupted):
        client.fetch_bars("AAPL", "2024-06-03", "2024-06-03")


def test_a_run_that_was_stopped_is_never_woken_by_a_later_one():
    transport = Scripted(response(200))
    client = AlpacaClient(KEY, SECRET, transport=transport)
    first = client.begin()
    list(first.pages(REQUEST))
    first.stop()
    second = client.begin()
    list(second.pages(REQUEST))

    with pytest.raises(Interrupted):
        list(first.pages(REQUEST))
    assert (first.requests, second.requests, client.requests, len(transport.targets)) == (1, 1, 2, 2)


def test_stopping_a_client_stops_the_runs_that_began_with_it():
    client = AlpacaClient(KEY, SECRET, transport=Scripted(response(200)))
    runs = [client.begin(), client.begin().begin()]
    client.stop()

    for run in runs:
        with pytest.raises(Interrupted):
            list(run.pages(REQUEST))
    assert list(client.begin().pages(REQUEST))


def test_runs_share_what_is_known_of_the_account():
    client = AlpacaClient(KEY, SECRET, transport=Scripted(response(200)))
    run = client.begin()
    run._session.recent_refused = True
    run.rate_limiter = RateLimiter(7)

    assert client.recent_refused
    assert client.begin().rate_limiter is client.rate_limiter is run.rate_limiter


def test_stopping_at_once_breaks_off_what_was_sent(connect, market):
    sent = threading.Event()
    with Sandbox(market, faults=Faults(always="stall"), on_request=lambda record: sent.set()) as server:
        run = connect(server).begin()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(lambda: list(run.pages(REQUEST)))
            assert sent.wait(20)
            started = time.monotonic()
            run.stop(at_once=True)
            with pytest.raises(Interrupted):
                future.result(20)

    assert time.monotonic() - started < 5
    assert len(server.requests) == 1


# Outages


class ByName:
    """A transport that answers by the name of the symbol: with what *answers* has for it, or 503."""

    def __init__(self, answers: dict[str, Response]) -> None:
        self.answers = answers
        self.sent: Counter[str] = Counter()

    def get(self, path_and_query: str, call: Call | None = None) -> Response:
        symbol = path_and_query.split("symbols=")[1].split("&")[0]
        self.sent[symbol] += 1
        time.sleep(0.002)
        return self.answers.get(symbol, response(503))

    def close(self) -> None:
        """Nothing is open."""


def outcomes(client: AlpacaClient, *symbols: str, until: Callable[[], bool] = lambda: True) -> list[BaseException]:
    """Fetch each symbol in a thread of its own, all at once, those that are answered again and again; return the failures."""

    def fetch(symbol: str) -> BaseException | None:
        request = replace(REQUEST, symbols=(symbol,))
        try:
            list(client.pages(request))
            while not until():
                list(client.pages(request))
        except SourceError as error:
            return error
        return None

    with ThreadPoolExecutor(len(symbols)) as pool:
        return [error for error in pool.map(fetch, symbols) if error is not None]


def test_a_request_that_fails_while_others_are_answered_is_told_from_an_outage():
    transport = ByName({"GOOD": response(200)})
    client = AlpacaClient(KEY, SECRET, transport=transport, policy=QUICK)
    (error,) = outcomes(client, "BAD", "GOOD", until=lambda: transport.sent["BAD"] >= QUICK.tries)

    assert error.isolated
    assert transport.sent["BAD"] == QUICK.tries


def test_a_request_that_fails_alone_tells_nothing():
    transport = ByName({})
    (error,) = outcomes(AlpacaClient(KEY, SECRET, transport=transport, policy=QUICK), "BAD")

    assert (type(error), error.isolated, transport.sent["BAD"]) == (SourceUnavailable, False, QUICK.tries)


def test_in_an_outage_a_request_is_tried_for_longer():
    """It is over sooner or later, and then no symbol has failed."""
    transport = ByName({"WARM": response(200)})
    client = AlpacaClient(KEY, SECRET, transport=transport, policy=QUICK)
    assert outcomes(client, "WARM") == []
    errors = outcomes(client, "BAD", "WORSE", "WORST")

    assert [error.isolated for error in errors] == [False] * 3
    assert max(transport.sent.values()) == 3 * QUICK.tries


def test_a_service_that_never_answered_any_request_of_a_run_is_down():
    transport = ByName({})
    errors = outcomes(AlpacaClient(KEY, SECRET, transport=transport, policy=QUICK), "BAD", "WORSE", "WORST")

    assert ServiceDown in map(type, errors)
    assert max(transport.sent.values()) <= 2 * QUICK.tries


def test_stopping_wakes_a_request_that_waits_for_its_next_try(connect, market):
    sent, caught = threading.Event(), []
    with Sandbox(market, faults=Faults(always=503), on_request=lambda record: sent.set()) as server:
        client = connect(server, policy=RetryPolicy(base=1e6, cap=1e6))

        def fetch() -> None:
            with pytest.raises(Interrupted) as info:
                client.fetch_bars("AAPL", "2024-06-03", "2024-06-03")
            caught.append(info.value)

        thread = threading.Thread(target=fetch)
        thread.start()
        assert sent.wait(20)
        client.stop()
        thread.join(20)

    assert [type(error) for error in caught] == [Interrupted]


def test_interruptions_leave_no_trace_in_the_rate_limiter(monkeypatch):
    clock = Virtual()
    monkeypatch.setattr(http_client, "time", clock)
    client = AlpacaClient(KEY, SECRET, transport=Scripted(response(200, x_ratelimit_limit="60", x_ratelimit_remaining="59")))
    client.stop()
    for _ in range(100):
        with pytest.raises(Interrupted):
            list(client.pages(REQUEST))
    list(client.begin().pages(REQUEST))

    assert client.rate_limiter.acquire(clock.monotonic()) == 0.0


# Arguments


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("not a symbol!", "2024-06-03"), {}),
        (("AAPL", "2024-06-07", "2024-06-03"), {}),
        (("AAPL", "2090-01-01"), {}),
        (("AAPL", "2024-06-03", None, "30Sec"), {}),
        (("AAPL", "2024-06-03"), {"feed": "overnight"}),
        (("AAPL", "2024-06-03"), {"adjustment": "merger"}),
        (("AAPL", "2024-06-03"), {"asof": "someday"}),
        (("AAPL", "2024-06-03"), {"currency": "DOLLAR"}),
    ],
)
def test_a_bad_argument_is_refused_before_anything_is_sent(arguments, options):
    transport = Scripted()
    with pytest.raises(InputError):
        AlpacaClient(KEY, SECRET, transport=transport).fetch_bars(*arguments, **options)

    assert transport.targets == []


@pytest.mark.parametrize("pair", [(KEY, None), (None, SECRET), (KEY, ""), ("", SECRET)])
def test_half_a_pair_of_credentials_is_refused(pair, monkeypatch):
    monkeypatch.setenv("ALPACA_API_KEY", "other")
    monkeypatch.setenv("ALPACA_SECRET_KEY", "others")
    with pytest.raises(ConfigError, match=r"api_key and api_secret") as caught:
        AlpacaClient(*pair)

    assert not any(secret in str(caught.value) for secret in pair if secret)


def test_without_credentials_the_message_says_what_to_do():
    with pytest.raises(ConfigError, match=r"(?s)ALPACA_API_KEY.*ALPACA_SECRET_KEY.*data-engine demo"):
        AlpacaClient()


def test_credentials_and_address_come_from_the_environment(monkeypatch, market):
    with Sandbox(market, keys={KEY: SECRET}) as server:
        monkeypatch.setenv("APCA_API_KEY_ID", KEY)
        monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET)
        monkeypatch.setenv("APCA_API_DATA_URL", server.url)
        with AlpacaClient() as client:
            assert not client.fetch_bars("AAPL", "2024-06-03", "2024-06-03").empty


@pytest.mark.parametrize("url", ["http://data.alpaca.markets", "http://10.0.0.1:8080", "ftp://127.0.0.1", "https://u:p@host"])
def test_keys_are_sent_unencrypted_only_to_this_machine(url):
    with pytest.raises(ConfigError):
        AlpacaClient(KEY, SECRET, base_url=url)


# Secrets


def texts_of(error: BaseException) -> str:
    """All that a traceback may print, with the local variables of our own frames."""
    parts = ["".join(traceback.format_exception(error)), str(error), repr(error), repr(error.args), repr(vars(error))]
    link: BaseException | None = error
    while link is not None:
        for frame, _ in traceback.walk_tb(link.__traceback__):
            if frame.f_globals.get("__name__", "").startswith("data_engine"):
                parts.append(repr(frame.f_locals))
        link = link.__cause__ or link.__context__
    return "\n".join(parts)


FAILING = {
    "refused": http(401, b"<html><title>401</title></html>", "text/html"),
    "bad-request": http(400, b'{"message":"end should not be before start"}'),
    "redirect": http(302, headers=[("Location", "http://127.0.0.1:9/")]),
    "down": http(503),
    "closed": Play(b"", "close"),
    "no-http": Play(b"SSH-2.0\r\n", "close"),
    "reset": Play(http(body=b"half", headers=[("Content-Length", "99")]), "reset"),
    "bad-gzip": http(body=b"x", headers=[("Content-Encoding", "gzip")]),
    "bad-page": page({"OTHER": [bar("2024-06-03T08:00:00Z")]}),
}


@pytest.mark.parametrize("play", FAILING.values(), ids=FAILING)
def test_no_secret_is_in_an_error_or_its_traceback(connect, caplog, play):
    with Hostile(play) as server, pytest.raises(DataEngineError) as caught:
        connect(server).fetch_bars("AAPL", "2024-06-03", "2024-06-03")

    everything = texts_of(caught.value) + caplog.text
    assert (KEY in everything, SECRET in everything) == (False, False)
    assert (server.requests[0].headers["apca-api-key-id"], server.requests[0].headers["apca-api-secret-key"]) == (KEY, SECRET)


def test_no_secret_is_in_what_a_client_shows(connect, sandbox):
    client = connect(sandbox)
    shown = " ".join([repr(client), str(client), f"{client}", repr(vars(client)), client.credentials_source])

    assert (KEY in shown, SECRET in shown) == (False, False)
    assert repr(client) == f"AlpacaClient({sandbox.url!r}, feed='sip')"


def test_a_server_that_repeats_the_keys_is_not_quoted(connect):
    refusal = http(403, json.dumps({"message": f"key {KEY} with secret {SECRET} is not known"}).encode())
    with Hostile(refusal) as server, pytest.raises(DataEngineError) as caught:
        connect(server).fetch_bars("AAPL", "2024-06-03", "2024-06-03")

    assert (KEY in str(caught.value), SECRET in str(caught.value)) == (False, False)


@pytest.mark.parametrize("tail", ["\n", " \n", "\r\n"], ids=["line-end", "space", "of-windows"])
def test_what_a_key_read_from_a_file_ends_with_is_cut_off(market, tail):
    with Sandbox(market, keys={KEY: SECRET}) as server, AlpacaClient(KEY + tail, SECRET + tail, base_url=server.url) as client:
        assert not client.fetch_bars("AAPL", "2024-06-03", "2024-06-03").empty


@pytest.mark.parametrize("tail", ["\r\nX: y", " y", "\x7f", "ключ"], ids=["two-lines", "two-words", "control", "letters"])
@pytest.mark.parametrize("name", ["api_key", "api_secret"])
def test_a_secret_that_cannot_be_sent_is_refused_without_showing_it(name, tail):
    pair = {"api_key": KEY, "api_secret": SECRET}
    with pytest.raises(ConfigError, match=name) as caught:
        AlpacaClient(**{**pair, name: pair[name] + tail})

    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(vars(caught.value))
    assert (KEY in shown, SECRET in shown) == (False, False)


# The server's clock


def test_the_server_says_what_time_it_is(market):
    noon = datetime(2024, 6, 5, 16, tzinfo=UTC)
    with Sandbox(market, clock=lambda: noon) as server, AlpacaClient(KEY, SECRET, base_url=server.url) as client:
        before = client.server_time
        client.fetch_bars("AAPL", "2024-06-03", "2024-06-03")

    assert (before, client.server_time) == (None, noon)


@pytest.mark.parametrize("headers", [[], [("Date", "yesterday")], [("Date", "Mon, 99 Jun 2024 12:00:00 GMT")]])
def test_a_server_without_a_clock_is_no_fault(connect, headers):
    with Hostile(http(body=b'{"bars":{},"next_page_token":null}', headers=headers)) as server:
        client = connect(server)
        client.fetch_bars("AAPL", "2024-06-03", "2024-06-03")

    assert client.server_time is None
