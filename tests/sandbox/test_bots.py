"""What bots ask beside history: the latest bars, the calendar and the clock, judged by alpaca-py and by another calendar."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import exchange_calendars
import pandas as pd
import pytest
from alpaca.common.exceptions import APIError

from data_engine.sandbox import Sandbox, SimulatedMarket
from running import Clock

from .calls import KEYS

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of the websockets that alpaca-py imports beside
    from alpaca.data.enums import DataFeed
    from alpaca.data.historical import StockHistoricalDataClient
    from alpaca.data.requests import StockBarsRequest, StockLatestBarRequest
    from alpaca.data.timeframe import TimeFrame
    from alpaca.trading.client import TradingClient
    from alpaca.trading.requests import GetCalendarRequest

NEW_YORK = ZoneInfo("America/New_York")
BOTS = Path(__file__).parents[2] / "examples" / "bots"


def at(text: str) -> datetime:
    """Return a wall-clock time in New York."""
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).astimezone(UTC)


@pytest.fixture(scope="module")
def exchange() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the pandas that it was not written for
        return exchange_calendars.get_calendar("XNYS", start="2015-12-01", end="2027-06-30")


def clients(server: Sandbox) -> tuple[TradingClient, StockHistoricalDataClient]:
    trading = TradingClient("key", "secret", url_override=server.url)
    return trading, StockHistoricalDataClient("key", "secret", url_override=server.url)


# ------------------------------------------------------------------------------------------------------------- latest bars


def test_alpacas_client_gets_the_last_minute_that_has_ended_of_each_symbol(described: Any, call: Any) -> None:
    now = at("2024-06-05 10:17:42")
    with Sandbox(SimulatedMarket(), clock=Clock(now)) as server:
        _, data = clients(server)
        latest = data.get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols=["AAPL", "ILLIQ", "ZZZQ"]))
        history = data.get_stock_bars(
            StockBarsRequest(symbol_or_symbols=["AAPL", "ILLIQ"], timeframe=TimeFrame.Minute, start=now - timedelta(days=4))
        )

        assert {symbol: bar.model_dump() for symbol, bar in latest.items()} == {
            symbol: history[symbol][-1].model_dump() for symbol in ("AAPL", "ILLIQ")
        }
        assert latest["AAPL"].timestamp == at("2024-06-05 10:16:00")
        raw = call(server).get("/v2/stocks/bars/latest", symbols="AAPL,ZZZQ", currency="USD").json
        described(raw, "stock_latest_bars_resp")
        assert raw["currency"] == "USD"
        assert set(raw["bars"]) == {"AAPL"}


@pytest.mark.parametrize(
    ("now", "last"),
    [("2024-06-10 03:00", "2024-06-07 19"), ("2024-07-06 12:00", "2024-07-05 19"), ("2024-07-03 23:00", "2024-07-03 16")],
)
def test_while_nothing_trades_the_latest_bar_is_of_the_last_session(now: str, last: str) -> None:
    with Sandbox(SimulatedMarket(), clock=Clock(at(now))) as server:
        bar = clients(server)[1].get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols="AAPL"))["AAPL"]

        assert f"{bar.timestamp.astimezone(NEW_YORK):%Y-%m-%d %H}" == last


def test_an_old_file_still_has_a_latest_bar(three_symbols: Any) -> None:
    with Sandbox(three_symbols, clock=Clock(at("2026-11-02 11:00"))) as server:
        bar = clients(server)[1].get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols="NVDA"))["NVDA"]

        assert (bar.timestamp, bar.open, bar.volume) == (datetime(2024, 6, 3, 19, 59, tzinfo=UTC), 399.0, 39000)


def test_a_free_plan_gets_iex_by_default_the_tape_fifteen_minutes_late_and_not_at_once() -> None:
    now = at("2024-06-05 10:17:42")
    with Sandbox(SimulatedMarket(), clock=Clock(now), plan="free") as server:
        _, data = clients(server)

        def latest(**feed: Any) -> Any:
            return data.get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols="AAPL", **feed))["AAPL"]

        assert latest().model_dump() == latest(feed=DataFeed.IEX).model_dump()
        assert latest(feed=DataFeed.DELAYED_SIP).timestamp == at("2024-06-05 10:01:00")
        with pytest.raises(APIError) as refused:
            latest(feed=DataFeed.SIP)
        assert refused.value.status_code == 403


@pytest.mark.parametrize(
    "query", [{}, {"symbols": "aapl"}, {"symbols": "AAPL", "feed": "all"}, {"symbols": "AAPL", "currency": "x"}]
)
def test_a_wrong_request_for_the_latest_bars_is_refused(query: dict[str, str], call: Any) -> None:
    with Sandbox(SimulatedMarket()) as server:
        assert call(server).get("/v2/stocks/bars/latest", **query).status == 400


# -------------------------------------------------------------------------------------------------------- calendar and clock


def test_the_calendar_is_the_exchanges(exchange: Any) -> None:
    with Sandbox(SimulatedMarket()) as server:
        trading, _ = clients(server)
        found = trading.get_calendar(GetCalendarRequest(start=date(2016, 1, 1), end=date(2026, 12, 31)))

    expected = exchange.schedule.loc["2016-01-01":"2026-12-31", ["open", "close"]]
    assert [(day.date, day.open, day.close) for day in found] == [
        (session.date(), *(edge.tz_convert(NEW_YORK).tz_localize(None).to_pydatetime() for edge in edges))
        for session, *edges in expected.itertuples()
    ]


def test_rows_of_the_calendar_are_those_that_were_recorded(shared: Path, call: Any) -> None:
    recorded = json.loads((shared / "data/alpaca/samples/mdp_calendar.json").read_text(encoding="utf-8"))
    with Sandbox(SimulatedMarket()) as server:
        caller = call(server)
        for row in recorded:
            assert caller.get("/v2/calendar", start=row["date"], end=row["date"]).json == [row]
            settled = caller.get("/v2/calendar", start=row["settlement_date"], end=row["settlement_date"], date_type="SETTLEMENT")
            assert row in settled.json
        assert caller.get("/v2/calendar", start="2024-02-30").status == 422
        assert caller.get("/v2/calendar", date_type="HOLIDAY").status == 422


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the pandas that exchange_calendars was not written for
def test_the_clock_is_open_in_regular_hours_and_names_the_next_open_and_close(exchange: Any, call: Any) -> None:
    clock = Clock(at("2024-07-01 00:00"))
    with Sandbox(SimulatedMarket(), clock=clock) as server:
        trading, _ = clients(server)
        # A holiday, a half day before it, a weekend, both edges of a session, and the night when clocks change.
        for text in (
            "2024-07-01 09:29", "2024-07-01 09:30", "2024-07-01 15:59", "2024-07-01 16:00", "2024-07-03 12:59",
            "2024-07-03 13:00", "2024-07-04 11:00", "2024-07-06 11:00", "2024-11-02 23:00",
        ):  # fmt: skip
            clock.now = at(text)
            minute = pd.Timestamp(clock.now)
            stated = trading.get_clock()

            assert stated.timestamp == clock.now
            assert stated.is_open == exchange.is_open_on_minute(minute)
            assert stated.next_open == exchange.next_open(minute)
            assert stated.next_close == exchange.next_close(minute)
        raw = call(server).get("/v2/clock").json
        assert raw["next_open"] == "2024-11-04T09:30:00-05:00"


def test_the_trading_host_has_no_limit_of_the_data_host_and_the_same_keys(call: Any) -> None:
    with Sandbox(SimulatedMarket(), rate=60, burst=1, keys={"K": "S"}) as server:
        caller, signed = call(server), {"APCA-API-KEY-ID": "K", "APCA-API-SECRET-KEY": "S"}

        assert [caller.get("/v2/clock", headers=signed).status for _ in range(3)] == [200] * 3
        assert caller.get("/v2/clock", headers=KEYS).status == 401


# ------------------------------------------------------------------------------------------------------------------- a bot


def test_a_bot_of_alpaca_py_runs_unchanged_against_the_sandbox(call: Any) -> None:
    now = at("2024-06-05 15:31:10")
    with Sandbox(SimulatedMarket(), clock=Clock(now)) as server:
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", str(BOTS / "on_the_sandbox.py"), str(BOTS / "moving_averages.py"), "AAPL", "KO"],
            env={**os.environ, "APCA_API_DATA_URL": server.url, "ALPACA_API_KEY": "any", "ALPACA_SECRET_KEY": "any"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        closes = {
            symbol: [bar["c"] for bar in call(server).walk(symbols=symbol, timeframe="1Min", start="2024-06-05")[symbol]]
            for symbol in ("AAPL", "KO")
        }

    assert ran.returncode == 0, ran.stderr
    first, *judged = ran.stdout.splitlines()
    assert first == "open; session 2024-06-05, 09:30 to 16:00"
    for line, (symbol, prices) in zip(judged, closes.items(), strict=True):
        fast, slow = (sum(prices[-count:]) / count for count in (20, 60))
        assert line.split()[0] == symbol
        assert line.endswith(f" {prices[-1]:.2f}: {'long' if fast > slow else 'flat'}")
    assert {record.path for record in server.requests} == {
        "/v2/clock", "/v2/calendar", "/v2/stocks/bars", "/v2/stocks/bars/latest",
    }  # fmt: skip
