"""Stored raw bars, adjusted as they are read: what that needs of the store, and what is missing said with its command."""

from __future__ import annotations

import re
import shlex
import warnings
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_engine import ParquetStorage
from data_engine.cli import program
from data_engine.corporate_actions.action_store import ActionStore
from data_engine.corporate_actions.adjusted_bars import COMPUTED, VENDOR, Adjuster, Road, choose_road
from data_engine.corporate_actions.adjustment import EX_CLOSE, PRIOR_CLOSE
from data_engine.corporate_actions.ex_dates import EARLY, LATE, possible_ex_dates
from data_engine.corporate_actions.payout_prices import PayoutPrices
from data_engine.corporate_actions.suspect_actions import contradicted, doubtful_splits
from data_engine.corporate_actions.symbol_actions import SymbolActions
from data_engine.errors import InputError, StoreError
from data_engine.market.bars import EMPTY
from data_engine.market.corporate_action import Action, decode
from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange, new_york_days
from data_engine.read import open_query
from data_engine.read.frame_warnings import AdjustmentWarning, IncompleteWarning
from data_engine.read.holdings import Holdings
from data_engine.store.coverage import Coverage
from real_data import real

NEW_YORK = ZoneInfo("America/New_York")
MINUTES, DAYS = (Dataset(Timeframe.parse(name)) for name in ("1Min", "1Day"))
ALL, SPLIT = Adjustment.parse("all"), Adjustment.parse("split")
NOW = datetime(2024, 6, 28, 20, tzinfo=UTC)
TODAY = date(2024, 6, 28)


@pytest.fixture
def storage(tmp_path: Path) -> ParquetStorage:
    return ParquetStorage(tmp_path / "store")


@pytest.fixture
def friday(monkeypatch: pytest.MonkeyPatch) -> None:
    """`load` is called on 2024-06-28, at 16:00 in New York."""

    class Clock:
        @staticmethod
        def now(zone: object) -> datetime:
            return NOW

    monkeypatch.setattr(open_query, "datetime", Clock)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).astimezone(UTC)


def put(storage: ParquetStorage, symbol: str, bars: dict[str, float], timeframe: str = "1Min", **more: Any) -> None:
    """Store bars of one price each."""
    stamps = pd.DatetimeIndex([at(text) for text in bars]).as_unit("ns")
    index = pd.MultiIndex.from_arrays([[symbol] * len(bars), stamps], names=["symbol", "timestamp"])
    prices = {name: list(bars.values()) for name in ("open", "high", "low", "close", "vwap")}
    storage.store(pd.DataFrame({**prices, "volume": 1000.0, "trade_count": 7.0}, index=index), timeframe=timeframe, **more)


def announce(
    storage: ParquetStorage, symbol: str, *actions: Action, first: str = "2014-01-01", last: date = TODAY, now: datetime = NOW
) -> None:
    span = new_york_days(date.fromisoformat(first), last)

    def change(known: SymbolActions) -> SymbolActions:
        return known.answered(span, known.to_fetch(span), actions, now=now)[0]

    ActionStore(storage.files).update(symbol, change)


def dividend(symbol: str, day: str, rate: float) -> Action:
    return decode("cash_dividend", {"symbol": symbol, "ex_date": day, "process_date": day, "rate": rate})


def split(symbol: str, day: str, new: float) -> Action:
    return decode("forward_split", {"symbol": symbol, "ex_date": day, "process_date": day, "new_rate": new, "old_rate": 1})


FB = decode("name_change", {"old_symbol": "FB", "new_symbol": "META", "process_date": "2022-06-09"})


def adjusted(storage: ParquetStorage, symbol: str, as_of: date = TODAY, adjustment: Adjustment = ALL, **more: Any) -> list[float]:
    """Return the adjusted closes of all minutes of a symbol."""
    step = Adjuster(storage.bars, MINUTES, adjustment, as_of, today=TODAY, **more).step
    series = Series(symbol, MINUTES)
    tables = [storage.bars.read(series, part.period) for part in storage.bars.partitions(MINUTES, symbol)]
    made: list[float] = step(symbol, pa.concat_tables(tables)).column("close").to_pylist()
    return made


def test_a_split_is_applied_as_of_a_day(storage):
    put(storage, "NVDA", {"2024-06-07 12:00": 1200.0, "2024-06-10 12:00": 120.0})
    announce(storage, "NVDA", split("NVDA", "2024-06-10", 10))

    assert adjusted(storage, "NVDA") == [120.0, 120.0]
    assert adjusted(storage, "NVDA", date(2024, 6, 10)) == [120.0, 120.0]
    assert adjusted(storage, "NVDA", date(2024, 6, 9)) == [1200.0, 120.0]


def test_a_table_without_bars_needs_nothing(storage):
    assert Adjuster(storage.bars, MINUTES, ALL, TODAY).step("NVDA", EMPTY) is EMPTY


# --------------------------------------------------------------------------------------------------------- what is not known


def test_without_actions_it_is_an_error_that_names_the_command(storage):
    put(storage, "AAPL", {"2024-05-09 12:00": 100.0})

    with pytest.raises(StoreError, match=r"AAPL.* 2024-05-10 to 2024-06-28") as caught:
        adjusted(storage, "AAPL")
    command = re.search("`data-engine (.*?)`", str(caught.value))
    assert command is not None
    name, *words = shlex.split(command[1])
    # Below the program, as when it runs: click keeps the first help option that it makes for a command.
    above = program.make_context("data-engine", [name], resilient_parsing=True)
    parsed = program.commands[name].make_context(name, words, parent=above, resilient_parsing=True).params
    assert (parsed["symbols"], parsed["start"]) == (("AAPL",), "2024-05-10")


@pytest.mark.parametrize(
    ("first", "last", "as_of", "missing"),
    [
        ("2024-05-10", TODAY, TODAY, None),
        ("2024-05-13", TODAY, TODAY, "2024-05-10 to 2024-05-12"),
        ("2024-05-01", date(2024, 6, 27), TODAY, "2024-06-28 to 2024-06-28"),
        ("2024-05-01", date(2024, 6, 27), date(2024, 6, 27), None),
        ("2024-05-01", date(2024, 6, 21), date(2024, 6, 23), None),  # a weekend is nobody's ex-date
        ("2024-06-01", TODAY, date(2024, 5, 9), None),  # nothing lies between the bar and as_of
    ],
)
def test_what_lies_between_the_first_bar_and_as_of_must_be_known(storage, first, last, as_of, missing):
    put(storage, "AAPL", {"2024-05-09 12:00": 100.0})
    announce(storage, "AAPL", first=first, last=last)

    if missing is None:
        assert adjusted(storage, "AAPL", as_of) == [100.0]
    else:
        with pytest.raises(StoreError, match=f" {missing}; "):
            adjusted(storage, "AAPL", as_of)


# ------------------------------------------------------------------------------------------------------------------- closes


def test_a_dividend_is_measured_by_the_last_regular_minute_before(storage):
    """80 at 15:59 on Friday, 90 after hours; ex on Monday."""
    bars = {"2024-05-10 15:59": 80.0, "2024-05-10 16:00": 90.0, "2024-05-13 04:00": 78.0}
    put(storage, "AAPL", bars)
    announce(storage, "AAPL", dividend("AAPL", "2024-05-13", 2.0))

    assert adjusted(storage, "AAPL") == [80 * 0.975, 90 * 0.975, 78.0]


def test_daily_bars_come_first(storage):
    put(storage, "AAPL", {"2024-05-10 15:59": 80.0, "2024-05-13 12:00": 78.0})
    put(storage, "AAPL", {"2024-05-10": 100.0}, "1Day")
    announce(storage, "AAPL", dividend("AAPL", "2024-05-13", 2.0))

    assert adjusted(storage, "AAPL") == [80 * 0.98, 78.0]


def test_tiingo_needs_the_close_of_the_ex_date(storage):
    put(storage, "AAPL", {"2024-05-10 15:59": 80.0, "2024-05-13 15:59": 78.0})
    announce(storage, "AAPL", dividend("AAPL", "2024-05-13", 2.0))

    assert adjusted(storage, "AAPL", convention=EX_CLOSE) == [80 / (1 + 2 / 78), 78.0]


def test_a_close_that_is_not_stored_is_an_error_that_names_the_command(storage):
    put(storage, "AAPL", {"2024-05-08 15:59": 80.0, "2024-05-13 12:00": 78.0})
    announce(storage, "AAPL", dividend("AAPL", "2024-05-13", 2.0))

    with pytest.raises(
        StoreError, match=r"close of AAPL on 2024-05-10.*ingest AAPL --start 2024-05-10 --end 2024-05-10 --timeframe 1Day"
    ):
        adjusted(storage, "AAPL")


def covered_until(storage: ParquetStorage, symbol: str, end: datetime, *, provisional: bool = False) -> None:
    span = TimeRange(at("2024-05-01"), end)
    more = {"provisional": (span,)} if provisional else {"covered": (span,)}
    storage.bars.coverage.update(Series(symbol, MINUTES), lambda known: replace(known, wanted=(span,), **more))


@pytest.mark.parametrize("provisional", [False, True])
def test_a_session_that_is_stored_in_part_has_no_close(storage, provisional):
    """Minutes came until 10:00; the price of 09:59 is not what the dividend is measured by."""
    put(storage, "AAPL", {"2024-05-09 15:59": 81.0, "2024-05-10 09:59": 80.0, "2024-05-13 15:59": 78.0})
    announce(storage, "AAPL", dividend("AAPL", "2024-05-13", 2.0))
    covered_until(storage, "AAPL", at("2024-05-10 10:00"), provisional=provisional)
    with pytest.raises(StoreError, match=r"AAPL on 2024-05-10 .*ingest AAPL --start 2024-05-10 --end 2024-05-10 --"):
        adjusted(storage, "AAPL")

    put(storage, "AAPL", {"2024-05-10": 100.0}, "1Day")
    assert adjusted(storage, "AAPL") == [81 * 0.98, 80 * 0.98, 78.0]


def test_minutes_that_are_covered_to_the_close_have_one_though_the_last_ones_are_empty(storage):
    put(storage, "AAPL", {"2024-05-10 09:59": 80.0, "2024-05-13 15:59": 78.0})
    announce(storage, "AAPL", dividend("AAPL", "2024-05-13", 2.0))
    covered_until(storage, "AAPL", at("2024-05-10 16:00"))

    assert adjusted(storage, "AAPL") == [80 * 0.975, 78.0]


def test_the_close_of_a_half_day_is_at_one(storage):
    put(storage, "AAPL", {"2024-07-03 12:59": 80.0, "2024-07-05 15:59": 78.0})
    announce(storage, "AAPL", dividend("AAPL", "2024-07-05", 2.0), last=date(2024, 7, 8), now=NOW + timedelta(days=10))

    assert adjusted(storage, "AAPL", date(2024, 7, 8)) == [80 * 0.975, 78.0]


@pytest.mark.parametrize("convention", [PRIOR_CLOSE, EX_CLOSE])
def test_an_ex_date_on_a_saturday_is_measured_by_the_sessions_around_it(storage, convention):
    put(storage, "AAPL", {"2024-05-10 15:59": 80.0, "2024-05-13 15:59": 78.0})
    announce(storage, "AAPL", dividend("AAPL", "2024-05-11", 2.0))

    assert adjusted(storage, "AAPL", convention=convention) == [
        80 * (0.975 if convention == PRIOR_CLOSE else 1 / (1 + 2 / 78)),
        78.0,
    ]


def test_a_stock_that_rested_for_days_is_measured_by_its_last_trade(storage):
    """The sessions between are known to have no bar: they are covered."""
    put(storage, "THIN", {"2024-05-08 12:00": 80.0, "2024-05-13 12:00": 78.0})
    announce(storage, "THIN", dividend("THIN", "2024-05-13", 2.0))
    span = new_york_days(date(2024, 5, 8), date(2024, 5, 13))

    def cover(known: Coverage) -> Coverage:
        return replace(known, covered=(span,), wanted=(span,))

    storage.bars.coverage.update(Series("THIN", MINUTES), cover)

    assert adjusted(storage, "THIN") == [78.0, 78.0]


def rested(storage: ParquetStorage, symbol: str, first: date, last: date, dataset: Dataset = MINUTES) -> None:
    """Cover some days: the sessions that have no bar are known to have none."""
    span = new_york_days(first, last)
    storage.bars.coverage.update(Series(symbol, dataset), lambda known: replace(known, covered=(span,), wanted=(span,)))


@pytest.mark.parametrize("day", ["2024-05-10", "2024-05-11", "2024-05-13"])
def test_a_split_between_the_measured_close_and_the_ex_date_counts(storage, day):
    """100 before 10-for-1 is 10 a share, and half a dollar of it leaves 9.5; the stock rested, or the 11th is a Saturday."""
    put(storage, "THIN", {"2024-05-08 12:00": 100.0, "2024-05-13 12:00": 9.5})
    rested(storage, "THIN", date(2024, 5, 8), date(2024, 5, 13))
    announce(storage, "THIN", split("THIN", day, 10), dividend("THIN", "2024-05-13", 0.5))

    assert adjusted(storage, "THIN") == [9.5, 9.5]
    assert adjusted(storage, "THIN", adjustment=Adjustment.parse("dividend")) == [95.0, 9.5]


@pytest.mark.parametrize("convention", [PRIOR_CLOSE, EX_CLOSE])
def test_a_split_between_the_ex_date_and_the_measured_close_counts(storage, convention):
    """5 dollars a share of 100, on a Saturday; on Monday 10-for-1: 9.5 a new share are 95 an old one."""
    put(storage, "AAPL", {"2024-05-10 15:59": 100.0, "2024-05-13 15:59": 9.5})
    announce(storage, "AAPL", split("AAPL", "2024-05-13", 10), dividend("AAPL", "2024-05-11", 5.0))

    assert adjusted(storage, "AAPL", convention=convention) == [pytest.approx(9.5, rel=1e-15), 9.5]


def test_splits_between_the_ex_date_and_the_measured_close_must_be_known(storage):
    """As of the Saturday of the ex-date nothing of Monday is asked, but Monday's close is: is it of the same shares?"""
    put(storage, "AAPL", {"2024-05-10 15:59": 100.0, "2024-05-13 15:59": 9.5})
    announce(storage, "AAPL", dividend("AAPL", "2024-05-11", 5.0), last=date(2024, 5, 11))

    with pytest.raises(
        StoreError, match=r"no corporate actions of AAPL for 2024-05-1\d to 2024-05-13; run `data-engine actions AAPL"
    ):
        adjusted(storage, "AAPL", date(2024, 5, 11), convention=EX_CLOSE)


def test_a_split_of_a_spun_off_company_before_its_first_trade_counts(storage):
    """A share of SOLV for one is 10 on the second, after 2-for-1 on that day: 20 on the first, of 100."""
    record = {"source_symbol": "MMM", "source_rate": 1, "new_symbol": "SOLV", "new_rate": 1}
    put(storage, "MMM", {"2024-03-28 15:59": 100.0, "2024-04-01 15:59": 80.0})
    announce(storage, "MMM", decode("spin_off", {**record, "ex_date": "2024-04-01", "process_date": "2024-04-01"}))
    put(storage, "SOLV", {"2024-04-02": 10.0}, "1Day")
    rested(storage, "SOLV", date(2024, 3, 25), date(2024, 4, 5), DAYS)
    announce(storage, "SOLV", split("SOLV", "2024-04-02", 2))

    assert adjusted(storage, "MMM") == [80.0, 80.0]


def rename(old: str, new: str, day: str) -> Action:
    return decode("name_change", {"old_symbol": old, "new_symbol": new, "process_date": day})


def spin_off(storage: ParquetStorage, symbol: str, child: str) -> None:
    """Store bars of 100 and 80 around a spin-off of one share for one, on 2024-03-01."""
    record = {"source_symbol": symbol, "source_rate": 1, "new_symbol": child, "new_rate": 1}
    put(storage, symbol, {"2024-02-29 15:59": 100.0, "2024-03-01 15:59": 80.0})
    announce(storage, symbol, decode("spin_off", {**record, "ex_date": "2024-03-01", "process_date": "2024-03-01"}))


MOVED = [rename("CH", "NEWCH", "2024-04-01"), rename("OTHER", "CH", "2024-05-01")]


def reused(storage: ParquetStorage, *changes: Action) -> None:
    """CH was spun off on 2024-03-01, and the series CH is that of a company at 1 dollar, which took the ticker since."""
    spin_off(storage, "P", "CH")
    put(storage, "CH", {"2024-03-01": 1.0, "2024-05-02": 1.0}, "1Day")
    for symbol in ("CH", "NEWCH", "OTHER"):
        announce(storage, symbol, *(one for one in changes if symbol in one.symbols))


@pytest.mark.parametrize("name", ["NEWCH", "CH@2024-03-01", "CH@2024-03-31"])
def test_a_spun_off_company_is_found_under_its_names_and_not_by_its_ticker(storage, name):
    """The company is worth 20 of 100; the one that has its ticker now, 1."""
    reused(storage, *MOVED)
    with pytest.raises(
        StoreError, match=r"close of CH@2024-03-31 on 2024-03-01.*`data-engine ingest CH@2024-03-31 --start 2024-03-01 "
    ):
        adjusted(storage, "P")

    put(storage, name, {"2024-03-01": 20.0}, "1Day")
    assert adjusted(storage, "P") == [80.0, 80.0]


def test_a_ticker_that_was_taken_long_after_a_spin_off_is_another_companys(storage):
    """No action tells when the spun-off company left CH: as of the spin-off, Alpaca answers for it."""
    reused(storage, MOVED[1])
    with pytest.raises(StoreError, match=r"`data-engine ingest CH@2024-03-01 --start 2024-03-01 "):
        adjusted(storage, "P")

    put(storage, "CH@2024-03-01", {"2024-03-01": 20.0}, "1Day")
    assert adjusted(storage, "P") == [80.0, 80.0]


def test_a_spun_off_company_that_had_a_ticker_of_its_own_for_days_is_itself(storage):
    spin_off(storage, "P", "CH")
    announce(storage, "CH", rename("CHV", "CH", "2024-03-05"))
    announce(storage, "CHV", rename("CHV", "CH", "2024-03-05"))
    put(storage, "CH", {"2024-03-01": 20.0}, "1Day")

    assert adjusted(storage, "P") == [80.0, 80.0]


def test_a_spun_off_company_that_was_bought_keeps_its_series(storage):
    bought = decode("cash_merger", {"acquiree_symbol": "CH", "effective_date": "2024-05-01", "process_date": "2024-05-01"})
    spin_off(storage, "P", "CH")
    announce(storage, "CH", bought)
    put(storage, "CH", {"2024-03-01": 20.0, "2024-04-30": 21.0}, "1Day")

    assert adjusted(storage, "P") == [80.0, 80.0]


def test_the_series_of_a_former_owner_has_no_price_of_a_company_that_took_its_ticker(storage):
    """NEWCH was another's until the 20th of March, and is the spun-off company's since April: the series is of January."""
    left, taken = rename("NEWCH", "GONE", "2024-03-20"), MOVED[0]
    spin_off(storage, "P", "CH")
    put(storage, "NEWCH", {"2024-03-01": 1.0}, "1Day")
    storage.bars.coverage.update(Series("NEWCH", DAYS), lambda known: replace(known, begun=datetime(2024, 1, 2, tzinfo=UTC)))
    announce(storage, "CH", taken)
    announce(storage, "NEWCH", left, taken)

    with pytest.raises(StoreError, match="close of CH@2024-03-31 on 2024-03-01"):
        adjusted(storage, "P")


def test_two_splits_near_each_other_do_not_contradict_the_closes_around_them(storage):
    """100 before 10-for-1 on the 10th and 2-for-1 on the 13th, 5 after: the stock did not trade between."""
    put(storage, "THIN", {"2024-05-08": 100.0, "2024-05-13": 5.0}, "1Day")
    rested(storage, "THIN", date(2024, 5, 8), date(2024, 5, 13), DAYS)
    both = [split("THIN", "2024-05-10", 10), split("THIN", "2024-05-13", 2)]
    prices = PayoutPrices(storage.bars, Feed.SIP, TODAY)

    assert list(contradicted(both, prices, "THIN")) == []
    wrong = list(contradicted([both[0], split("THIN", "2024-05-13", 20)], prices, "THIN"))
    assert len(wrong) == 2, "the closes do not tell which of the two is wrong"


def test_splits_need_no_close(storage):
    put(storage, "AAPL", {"2024-05-13 12:00": 78.0})
    announce(storage, "AAPL", dividend("AAPL", "2024-06-13", 2.0))

    assert adjusted(storage, "AAPL", adjustment=SPLIT) == [78.0]


def test_a_spin_off_is_worth_what_its_shares_closed_at(storage):
    action = decode(
        "spin_off",
        {
            "source_symbol": "MMM", "source_rate": 4, "new_symbol": "SOLV", "new_rate": 1,
            "ex_date": "2024-04-01", "process_date": "2024-04-01",
        },
    )  # fmt: skip
    put(storage, "MMM", {"2024-03-28 15:59": 100.0, "2024-04-01 12:00": 82.0})
    announce(storage, "MMM", action)
    with pytest.raises(StoreError, match=r"close of SOLV on 2024-04-01.*ingest SOLV --start 2024-04-01 --end 2024-04-06"):
        adjusted(storage, "MMM")

    put(storage, "SOLV", {"2024-04-01": 80.0}, "1Day")
    with pytest.raises(
        StoreError, match=r"no corporate actions of SOLV for 2024-04-01 to .*`data-engine actions SOLV --start 2024-04-01`"
    ):
        adjusted(storage, "MMM")  # whose SOLV is, is not known: the ticker may have passed to another company
    announce(storage, "SOLV", first="2024-04-01")
    assert adjusted(storage, "MMM") == [80.0, 82.0]


@pytest.mark.parametrize("answered", [True, False])
def test_a_spun_off_company_that_trades_a_day_later_has_the_price_of_that_day(storage, answered):
    """That it did not trade before must be known: by an answer, not by the absence of bars."""
    record = {"source_symbol": "MMM", "source_rate": 4, "new_symbol": "SOLV", "new_rate": 1}
    action = decode("spin_off", {**record, "ex_date": "2024-03-30", "process_date": "2024-04-01"})  # a Saturday
    put(storage, "MMM", {"2024-03-28 15:59": 100.0, "2024-04-01 15:59": 82.0})
    announce(storage, "MMM", action)
    put(storage, "SOLV", {"2024-04-02": 80.0}, "1Day")
    announce(storage, "SOLV")
    if answered:
        span = new_york_days(date(2024, 3, 25), date(2024, 4, 5))
        storage.bars.coverage.update(Series("SOLV", DAYS), lambda known: replace(known, wanted=(span,), covered=(span,)))
        assert adjusted(storage, "MMM") == [80.0, 82.0]
    else:
        with pytest.raises(StoreError, match=r"SOLV on 2024-04-01 .*`data-engine ingest SOLV --start 2024-04-01 --end 2024-04-0"):
            adjusted(storage, "MMM")


def test_all_that_is_lacking_is_in_one_error_with_one_command(storage, friday):
    for symbol, day in (("AAPL", "2024-05-09"), ("MSFT", "2024-05-14"), ("KO", "2024-06-13")):
        put(storage, symbol, {f"{day} 12:00": 100.0})
    week = ("2024-05-09", "2024-06-13")
    options: dict[str, Any] = {"adjustment": "all", "incomplete": "ignore"}
    with pytest.raises(StoreError) as caught:
        storage.load(["AAPL", "KO", "MSFT"], *week, **options)
    assert re.findall("`(data-engine .*?)`", str(caught.value)) == ["data-engine actions AAPL KO MSFT --start 2024-05-10"]

    announce(storage, "AAPL", dividend("AAPL", "2024-05-10", 2.0), dividend("AAPL", "2024-06-10", 2.0))
    announce(storage, "MSFT", dividend("MSFT", "2024-05-15", 2.0))
    announce(storage, "KO")
    with pytest.raises(StoreError) as caught:
        storage.load(["AAPL", "KO", "MSFT"], *week, **options)
    (command,) = re.findall("`(data-engine .*?)`", str(caught.value))
    assert command == "data-engine ingest AAPL MSFT --start 2024-05-09 --end 2024-06-07 --timeframe 1Day"

    for symbol, bars in (("AAPL", {"2024-05-09": 100.0, "2024-06-07": 100.0}), ("MSFT", {"2024-05-14": 100.0})):
        put(storage, symbol, bars, "1Day")  # what the command brings
    made = storage.load(["AAPL", "KO", "MSFT"], *week, **options)
    assert made["close"].tolist() == pytest.approx([100 * 0.98 * 0.98, 100.0, 98.0])


def without_ex_date(kind: str, symbol: str, processed: str, **values: Any) -> Action:
    return decode(kind, {"symbol": symbol, "process_date": processed, **values})


@pytest.mark.parametrize(
    ("processed", "fails"),
    [
        ("2024-06-14", True),  # after as_of: a dividend is paid weeks after its ex-date
        ("2024-05-15", True),
        ("2024-04-06", True),  # 31 days before the 7th of May, the day after the first bar
        ("2024-04-05", False),
        ("2025-05-21", True),  # 366 days after the 20th of May, as_of
        ("2025-05-22", False),
    ],
)
def test_a_record_without_an_ex_date_is_an_error_if_that_may_be_in_the_range(storage, processed, fails):
    """Ex-dates are from 366 days before the process date to 31 days after it, as they are asked for."""
    put(storage, "P", {"2024-05-06 15:59": 100.0})
    announce(storage, "P", without_ex_date("cash_dividend", "P", processed, rate=2.0))

    if not fails:
        assert adjusted(storage, "P", date(2024, 5, 20)) == [100.0]
        return
    assert adjusted(storage, "P", date(2024, 5, 20), adjustment=SPLIT) == [100.0]
    with pytest.raises(InputError, match="no ex-date") as caught:
        adjusted(storage, "P", date(2024, 5, 20))
    drop, put_right = re.findall("`data-engine (.*?)`", str(caught.value))
    assert drop == f"actions drop P --ex-date {processed} --kind dividend"
    assert put_right == "actions set P --ex-date YYYY-MM-DD"


def test_ex_dates_are_searched_for_where_they_are_asked_for():
    day = date(2024, 6, 28)
    first, last = possible_ex_dates(without_ex_date("cash_dividend", "P", "2024-06-28", rate=2.0))

    assert (day - LATE, day + EARLY) == (first, last)


def test_a_record_without_an_ex_date_may_be_of_the_time_before_a_rename(storage):
    """OLD's dividend is paid eleven days after it is NEW: its ex-date may have been OLD's."""
    rename = decode("name_change", {"old_symbol": "OLD", "new_symbol": "NEW", "process_date": "2022-06-09"})
    put(storage, "NEW", {"2022-06-03 15:59": 100.0})
    announce(storage, "NEW", rename)
    announce(storage, "OLD", rename, without_ex_date("cash_dividend", "OLD", "2022-06-20", rate=2.0))

    with pytest.raises(InputError, match="OLD: cash dividend of an unknown ex-date"):
        adjusted(storage, "NEW")


def test_a_split_without_an_ex_date_may_lie_between_a_close_and_its_dividend(storage):
    """What the price is per new share is unknown, also where splits are not applied."""
    put(storage, "AAPL", {"2024-05-10 15:59": 80.0})
    torn = without_ex_date("forward_split", "AAPL", "2024-05-13", new_rate=10, old_rate=1)
    announce(storage, "AAPL", torn, dividend("AAPL", "2024-05-13", 2.0))

    with pytest.raises(InputError, match="AAPL: forward split of an unknown ex-date"):
        adjusted(storage, "AAPL", adjustment=Adjustment.parse("dividend"))


def test_one_payout_in_another_currency_does_not_fail_the_others(storage, friday):
    for symbol in ("KO", "NVO"):
        put(storage, symbol, {"2024-05-09 12:00": 100.0})
        paid = replace_id(dividend("NVO", "2024-06-10", 2.0), "x", currency="DKK")
        announce(storage, symbol, *[paid] * (symbol == "NVO"))
    with pytest.raises(InputError, match=r"NVO: dividend of 2 DKK on 2024-06-10.*unadjustable='drop'"):
        storage.load(["KO", "NVO"], "2024-05-09", "2024-05-09", adjustment="all")
    with pytest.warns(AdjustmentWarning, match=r"1 of 2 symbols left out: NVO: .*DKK"):
        made = storage.load(["KO", "NVO"], "2024-05-09", "2024-05-09", adjustment="all", unadjustable="drop")
    assert made.index.get_level_values("symbol").tolist() == ["KO"]
    assert len(storage.load(["KO", "NVO"], "2024-05-09", "2024-05-09", adjustment="split")) == 2
    with pytest.raises(InputError, match=r"unadjustable='keep'.*raise, drop"):
        storage.load("KO", "2024-05-09", adjustment="all", unadjustable="keep")


# ------------------------------------------------------------------------------------------------------- doubtful records


def test_two_different_splits_of_one_day_are_an_error_that_names_both(storage):
    put(storage, "NVDA", {"2024-06-07 12:00": 1200.0})
    announce(storage, "NVDA", split("NVDA", "2024-06-10", 10), replace_id(split("NVDA", "2024-06-10", 20), "other"))
    with pytest.raises(InputError, match=r"10-for-1 split .* 20-for-1 split .*actions set NVDA --ex-date 2024-06-10"):
        adjusted(storage, "NVDA")


def replace_id(action: Action, name: str, **more: Any) -> Action:
    return decode(action.kind, {**action.record, **more, "id": name})


def test_the_same_ratio_in_other_numbers_is_one_split(storage):
    put(storage, "NVDA", {"2024-06-07 12:00": 1200.0})
    twin = replace_id(split("NVDA", "2024-06-10", 10), "other", new_rate=20, old_rate=2)
    announce(storage, "NVDA", split("NVDA", "2024-06-10", 10), twin)

    assert adjusted(storage, "NVDA") == [120.0]


def test_the_same_dividend_rounded_twice_is_one(storage):
    put(storage, "AAPL", {"2024-05-10 15:59": 90.0})
    once, again = dividend("AAPL", "2024-05-13", 0.9), replace_id(dividend("AAPL", "2024-05-13", 0.900001), "other")
    other = replace_id(dividend("AAPL", "2024-05-13", 0.9), "special", special=True)
    announce(storage, "AAPL", once, again)
    assert adjusted(storage, "AAPL") == [pytest.approx(90 - 0.9, abs=1e-5)]

    announce(storage, "AAPL", once, other)
    assert adjusted(storage, "AAPL") == [pytest.approx(90 - 1.8)]


@pytest.mark.parametrize(
    ("before", "after", "kind", "new", "old", "named"),
    [
        pytest.param(0.10, 1.50, "forward_split", 15, 1, True, id="an-inverted-reverse-split"),
        pytest.param(0.10, 1.50, "reverse_split", 1, 15, False, id="the-reverse-split-as-it-was"),
        pytest.param(1200.0, 121.0, "forward_split", 10, 1, False, id="a-split"),
        pytest.param(1200.0, 1190.0, "forward_split", 10, 1, True, id="a-split-that-was-not"),
        pytest.param(15.0, 9.5, "reverse_split", 1, 2, True, id="half-way-the-wrong-way"),
        pytest.param(15.0, 22.5, "reverse_split", 1, 2, False, id="a-fall-by-a-quarter-on-the-day"),
        pytest.param(100.0, 103.0, "stock_dividend", None, None, False, id="too-small-to-tell"),
    ],
)
def test_a_ratio_that_the_prices_contradict_is_named(storage, friday, before, after, kind, new, old, named):
    rates = {"rate": 0.05} if new is None else {"new_rate": new, "old_rate": old}
    action = decode(kind, {"symbol": "X", "ex_date": "2024-06-10", "process_date": "2024-06-10", **rates})
    put(storage, "X", {"2024-06-07 15:59": before, "2024-06-10 15:59": after})
    announce(storage, "X", action)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        storage.load("X", "2024-06-07", "2024-06-10", adjustment="split")

    assert [one.category for one in caught] == [AdjustmentWarning] * named
    assert all(f"from {before:g} to {after:g}" in str(one.message) and "actions set X" in str(one.message) for one in caught)


def test_a_split_a_day_after_another_of_its_ratio_is_suspect(storage, friday):
    put(storage, "NVDA", {"2024-06-07 12:00": 1200.0})
    announce(storage, "NVDA", split("NVDA", "2024-06-10", 10), split("NVDA", "2024-06-11", 10))

    with pytest.warns(AdjustmentWarning, match=r"NVDA: 10-for-1 split on 2024-06-10 and on 2024-06-11 .*actions drop NVDA"):
        storage.load("NVDA", "2024-06-07", "2024-06-07", adjustment="split")


def test_the_doubts_about_a_symbol_can_be_had_without_its_bars(storage):
    def doubts(symbol):
        return doubtful_splits(ActionStore(storage.files).read(symbol), TODAY)

    announce(storage, "X", split("X", "2024-06-10", 10), split("Y", "2024-06-10", 3))
    assert doubts("X") == []
    announce(storage, "X", split("X", "2024-06-10", 10), split("X", "2024-06-11", 10))
    assert [text[:37] for text in doubts("X")] == ["X: 10-for-1 split on 2024-06-10 and o"]
    announce(storage, "X", split("X", "2024-06-10", 10), replace_id(split("X", "2024-06-10", 20), "other"))
    assert "cannot both be" in doubts("X")[0]
    assert doubts("NONE") == []


def test_real_splits_are_not_doubted(storage):
    """Every split of twelve symbols in two years, of Tiingo's raw closes."""
    frame = pq.read_table(real("daily/tiingo_raw_adj_12sym_20240401_20260331.parquet")).to_pandas()
    stamps = pd.to_datetime(frame["date"]).dt.tz_localize(NEW_YORK).dt.tz_convert("UTC")
    bars = frame.assign(timestamp=stamps, vwap=frame.close, trade_count=1.0)
    storage.store(
        bars[["symbol", "timestamp", "open", "high", "low", "close", "volume", "trade_count", "vwap"]], timeframe="1Day"
    )
    splits = [(str(row.symbol), str(row.date), row.split_factor) for row in frame[frame["split_factor"] != 1].itertuples()]
    prices = PayoutPrices(storage.bars, Feed.SIP, TODAY)
    doubts = [list(contradicted([split(*one)], prices, one[0])) for one in splits]
    inverted = [list(contradicted([split(name, day, 1 / ratio)], prices, name)) for name, day, ratio in splits]

    assert len(splits) >= 1
    assert doubts == [[]] * len(splits)
    assert [len(texts) for texts in inverted] == [1] * len(splits)


def test_as_of_before_the_end_mixes_two_bases_if_an_action_lies_between(split_week):
    with pytest.warns(AdjustmentWarning, match=r"as_of 2024-06-07 is before NVDA: 10-for-1 split on 2024-06-10"):
        split_week.load("NVDA", **{**AS_OF, "as_of": "2024-06-07"})
    later = {"as_of": "2024-06-07"}
    for options in ({"as_of": "2024-06-10"}, {**later, "end": "2024-06-07"}, {**later, "adjustment": "spin-off"}):
        split_week.load("NVDA", **{**AS_OF, **options})


# ------------------------------------------------------------------------------------------------------------------ renames


def test_on_the_day_of_a_swap_an_action_is_of_the_security_that_has_the_ticker_then(storage):
    """On 2024-06-10, S became OLD, and N became S. A split of that day under S is of what was N."""
    swap = [
        decode("name_change", {"old_symbol": "S", "new_symbol": "OLD", "process_date": "2024-06-10"}),
        decode("name_change", {"old_symbol": "N", "new_symbol": "S", "process_date": "2024-06-10"}),
    ]
    for symbol in ("OLD", "S"):
        put(storage, symbol, {"2024-06-07 12:00": 100.0, "2024-06-10 12:00": 50.0})
    announce(storage, "S", *swap, split("S", "2024-06-10", 2))
    announce(storage, "OLD", swap[0])
    announce(storage, "N", swap[1])

    assert adjusted(storage, "S") == [50.0, 50.0]
    assert adjusted(storage, "OLD") == [100.0, 50.0]


def test_the_past_of_a_renamed_security_is_under_its_earlier_name(storage):
    """META's series has FB's bars; a split of FB's is recorded as FB's."""
    put(storage, "META", {"2020-01-02 12:00": 400.0, "2021-01-04 12:00": 200.0, "2023-01-03 12:00": 100.0})
    announce(storage, "META", FB, split("META", "2022-12-01", 2))
    with pytest.raises(StoreError, match=r"FB.* 2020-01-03 to 2022-06-09.*`data-engine actions FB --start 2020-01-03`"):
        adjusted(storage, "META")

    announce(storage, "FB", FB, split("FB", "2020-06-01", 2), last=date(2022, 6, 9))
    assert adjusted(storage, "META") == [100.0, 100.0, 100.0]


def test_a_series_under_the_old_name_is_adjusted_by_what_came_later(storage):
    put(storage, "FB", {"2021-01-04 12:00": 200.0})
    announce(storage, "FB", FB, split("FB", "2023-06-01", 50), first="2021-01-01")  # the next owner's
    announce(storage, "META", FB, split("META", "2022-12-01", 2), first="2022-06-09")

    assert adjusted(storage, "FB") == [100.0]


def test_what_the_ticker_did_before_is_not_the_securitys(storage):
    """METV was META until 2022-01-31; its split is none of Facebook's."""
    metv = decode("name_change", {"old_symbol": "META", "new_symbol": "METV", "process_date": "2022-01-31"})
    put(storage, "META", {"2021-10-01 12:00": 340.0, "2023-01-03 12:00": 120.0})
    announce(storage, "META", FB, metv, split("META", "2022-01-03", 4), first="2021-01-01")
    announce(storage, "FB", FB, first="2021-01-01", last=date(2022, 6, 9))

    assert adjusted(storage, "META") == [340.0, 120.0]


# ---------------------------------------------------------------------------------------------------------------- the choice


def held(storage: ParquetStorage) -> Any:
    return Holdings(storage.bars).is_held


def test_raw_bars_are_read_as_they_are(storage):
    assert choose_road(MINUTES, ["NVDA"], held(storage), now=NOW) == Road(MINUTES)


@pytest.mark.parametrize(
    ("stored", "asked", "more", "expected"),
    [
        pytest.param({"NVDA": ["raw"]}, ["NVDA"], {}, COMPUTED, id="raw"),
        pytest.param({"NVDA": ["split"]}, ["NVDA"], {}, VENDOR, id="the-vendors"),
        pytest.param({"NVDA": ["raw", "split"]}, ["NVDA"], {}, COMPUTED, id="both"),
        pytest.param({"NVDA": ["raw"], "MSFT": ["split"]}, ["MSFT"], {}, VENDOR, id="another-symbol-does-not-matter"),
        pytest.param({"NVDA": ["raw"], "MSFT": ["split"]}, ["MSFT", "NVDA"], {}, COMPUTED, id="one-road-for-all"),
        pytest.param({}, ["NVDA"], {}, VENDOR, id="nothing"),
        pytest.param({"NVDA": ["raw", "split"]}, ["NVDA"], {"prices": VENDOR}, VENDOR, id="the-vendors-are-wanted"),
        pytest.param({"NVDA": ["split"]}, ["NVDA"], {"prices": COMPUTED}, COMPUTED, id="computed-ones-are-wanted"),
        pytest.param({"NVDA": ["split"]}, ["NVDA"], {"as_of": date(2024, 6, 9)}, COMPUTED, id="as-of-a-day"),
    ],
)
def test_all_symbols_of_a_call_take_one_road(storage, stored, asked, more, expected):
    for symbol, kinds in stored.items():
        for adjustment in kinds:
            put(storage, symbol, {"2024-06-07 12:00": 1200.0}, adjustment=adjustment)
    road = choose_road(Dataset(Timeframe.parse("1Min"), SPLIT), asked, held(storage), now=NOW, **more)

    assert road.prices == expected
    assert str(road.dataset.adjustment) == ("raw" if expected == COMPUTED else "split")
    assert road.as_of == (more.get("as_of", TODAY) if expected == COMPUTED else None)


@pytest.mark.parametrize("intruder", ["MSFT", "TSLA"])
def test_one_split_adjusted_day_hides_no_raw_bar(storage, friday, intruder):
    """One day of the vendor's, of a symbol of the call or of another one, takes nothing away."""
    for symbol in ("MSFT", "NVDA"):
        put(storage, symbol, {f"2024-06-{day:02d} 12:00": 100.0 for day in (3, 4, 5, 6, 7)})
        announce(storage, symbol)
    before = storage.load(["MSFT", "NVDA"], "2024-06-03", "2024-06-07", adjustment="split")
    put(storage, intruder, {"2024-06-04 12:00": 7.0}, adjustment="split")
    after = storage.load(["MSFT", "NVDA"], "2024-06-03", "2024-06-07", adjustment="split")

    assert len(before) == 10
    pd.testing.assert_frame_equal(before, after)
    assert after.attrs["data_engine"]["prices"] == "computed"


def test_what_the_road_lacks_is_missing(storage, friday):
    """NVDA is raw, MSFT the vendor's: a call takes one road, and says what is not on it."""
    put(storage, "NVDA", {"2024-06-07 12:00": 1200.0})
    put(storage, "MSFT", {"2024-06-07 12:00": 400.0}, adjustment="split")
    announce(storage, "NVDA", split("NVDA", "2024-06-10", 10))
    with pytest.warns(IncompleteWarning, match="MSFT in equities_1min is missing .*`data-engine ingest MSFT --start 2024-06-07"):
        made = storage.load(["MSFT", "NVDA"], "2024-06-07", "2024-06-07", adjustment="split")
    assert made["close"].tolist() == [120.0]
    with pytest.warns(IncompleteWarning, match="NVDA in equities_1min_split is missing .*--adjustment split"):
        made = storage.load(["MSFT", "NVDA"], "2024-06-07", "2024-06-07", adjustment="split", prices="vendor")
    assert made["close"].tolist() == [400.0]
    assert made.attrs["data_engine"]["prices"] == "vendor"


def test_weeks_of_the_vendors_are_read_though_raw_ones_are_stored(storage):
    for adjustment in ("raw", "split"):
        put(storage, "NVDA", {"2024-06-03": 1200.0}, "1Week", adjustment=adjustment)
    weeks = Dataset(Timeframe.parse("1Week"), SPLIT)

    assert choose_road(weeks, ["NVDA"], held(storage), now=NOW).prices == VENDOR
    with pytest.raises(InputError, match="1Week"):
        choose_road(weeks, ["NVDA"], held(storage), now=NOW, prices=COMPUTED)


def test_roads_that_cannot_be_meant_are_refused(storage):
    put(storage, "NVDA", {"2024-06-07 12:00": 1200.0})
    for options, named in (
        ({"prices": "computed"}, "prices='computed'.*raw"),
        ({"prices": "mine", "adjustment": "split"}, "'mine'.*computed, vendor"),
        ({"prices": "vendor", "adjustment": "split", "as_of": "2024-06-07"}, "vendor.*2024-06-07"),
    ):
        with pytest.raises(InputError, match=named):
            storage.load("NVDA", "2024-06-07", **options)


def test_a_day_to_come_is_refused(storage):
    with pytest.raises(InputError, match="as_of 2024-06-29 "):
        choose_road(Dataset(Timeframe.parse("1Min"), SPLIT), [], held(storage), now=NOW, as_of=TODAY + timedelta(days=1))


def test_weeks_are_refused(storage):
    put(storage, "NVDA", {"2024-06-03": 1200.0}, "1Week")
    with pytest.raises(InputError, match="1Week"):
        choose_road(Dataset(Timeframe.parse("1Week"), SPLIT), ["NVDA"], held(storage), now=NOW)


# ------------------------------------------------------------------------------------------ booked under another ticker


TURNED = rename("OLD", "NEW", "2022-06-09")


def booked(symbol: str, ex_date: str, processed: str) -> Action:
    return decode("cash_dividend", {"symbol": symbol, "ex_date": ex_date, "process_date": processed, "rate": 2.0})


@pytest.mark.parametrize("series", ["OLD", "NEW"])
@pytest.mark.parametrize(
    "records",
    [
        [booked("NEW", "2022-06-06", "2022-06-20")],  # ex under the old ticker, booked under the new one
        [booked("OLD", "2022-06-06", "2022-06-20")],
        [booked("NEW", "2022-06-06", "2022-06-20"), booked("OLD", "2022-06-06", "2022-06-20")],
    ],
    ids=["new", "old", "both"],
)
def test_a_dividend_whose_ticker_changes_before_it_is_booked_is_applied_once(storage, series, records):
    """2 of 100 on the 6th of June; on the 9th OLD becomes NEW, and the dividend is booked on the 20th."""
    put(storage, series, {"2022-06-03 15:59": 100.0, "2022-06-06 15:59": 98.0})
    for symbol in ("OLD", "NEW"):
        announce(storage, symbol, TURNED, *(one for one in records if one.symbol == symbol))

    assert adjusted(storage, series) == [98.0, 98.0]


def test_a_dividend_that_is_booked_before_a_rename_and_goes_ex_after_it_is_applied(storage):
    """A due-bill dividend: paid on the 7th under OLD, ex on the 13th, when it is NEW."""
    put(storage, "NEW", {"2022-06-10 15:59": 100.0, "2022-06-13 15:59": 98.0})
    announce(storage, "OLD", TURNED, booked("OLD", "2022-06-13", "2022-06-07"))
    announce(storage, "NEW", TURNED)

    assert adjusted(storage, "NEW") == [98.0, 98.0]


def test_a_dividend_of_a_ticker_that_another_security_had_on_the_ex_date_is_that_ones_and_named(storage):
    """OTHER was NEW until the 8th: the dividend of the 6th is OTHER's, booked when OLD is NEW; nobody can be sure."""
    left = rename("NEW", "OTHER", "2022-06-08")
    put(storage, "OLD", {"2022-06-03 15:59": 100.0, "2022-06-06 15:59": 100.0})
    put(storage, "OTHER", {"2022-06-03 15:59": 50.0, "2022-06-06 15:59": 48.0})
    announce(storage, "NEW", left, TURNED, booked("NEW", "2022-06-06", "2022-06-20"))
    announce(storage, "OLD", TURNED)
    announce(storage, "OTHER", left)

    options: dict[str, Any] = {"adjustment": "all", "as_of": "2022-06-30", "incomplete": "ignore"}
    with pytest.warns(
        AdjustmentWarning, match="NEW: dividend of 2 USD on 2022-06-06 is of .* or of OLD,.* 2022-06-20,.* not applied"
    ):
        made = storage.load("OLD", "2022-06-03", "2022-06-06", **options)
    assert made["close"].tolist() == [100.0, 100.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", AdjustmentWarning)
        assert storage.load("OTHER", "2022-06-03", "2022-06-06", **options)["close"].tolist() == [48.0, 48.0]


# ----------------------------------------------------------------------------------------------------------------- by `load`


@pytest.fixture
def split_week(storage) -> ParquetStorage:
    """Five minutes on each side of a ten-for-one split, and after the close before it."""
    for day, price in (("07", 1200.0), ("10", 120.0)):
        put(storage, "NVDA", {f"2024-06-{day} {clock}": price for clock in ("09:30", "09:31", "09:44", "15:59", "17:00")})
    announce(storage, "NVDA", split("NVDA", "2024-06-10", 10))
    return storage


WEEK: dict[str, Any] = {"start": "2024-06-07", "end": "2024-06-10"}
AS_OF: dict[str, Any] = {**WEEK, "adjustment": "split", "as_of": "2024-06-10"}


def test_load_adjusts_as_it_reads(split_week):
    raw = split_week.load("NVDA", **WEEK)
    made = split_week.load("NVDA", **AS_OF)

    before = raw.index.get_level_values("timestamp") < pd.Timestamp("2024-06-10", tz=NEW_YORK)
    expected = raw.copy()
    expected.loc[before, ["open", "high", "low", "close", "vwap"]] /= 10
    expected.loc[before, "volume"] *= 10
    pd.testing.assert_frame_equal(made, expected)
    with pytest.warns(AdjustmentWarning, match="as_of 2024-06-09 is before NVDA: 10-for-1 split on 2024-06-10"):
        pd.testing.assert_frame_equal(split_week.load("NVDA", **{**AS_OF, "as_of": date(2024, 6, 9)}), raw)
    pd.testing.assert_frame_equal(split_week.load("NVDA", **WEEK), raw)


def test_every_form_is_adjusted(split_week):
    table = split_week.load_arrow("NVDA", **AS_OF, columns=["close"])

    assert table.column("close").to_pylist() == [120.0] * 10
    assert split_week.load_polars("NVDA", **AS_OF, columns=["close"])["close"].to_list() == [120.0] * 10
    assert pa.concat_tables(piece for _, piece in split_week.batches("NVDA", **AS_OF, columns=["close"])).equals(table)
    with duckdb.connect() as connection:
        found = split_week.relation("NVDA", **AS_OF, connection=connection).aggregate("max(high), min(low), sum(volume)")
        assert found.fetchall() == [(120.0, 120.0, 5 * 10_000.0 + 5 * 1000.0)]


def test_longer_bars_are_made_of_adjusted_minutes(split_week):
    made = split_week.load("NVDA", **AS_OF, resample="15Min", columns=["high", "low", "volume"], incomplete="ignore")

    assert made["high"].tolist() == made["low"].tolist() == [120.0] * 4
    assert made["volume"].tolist() == [30_000.0, 10_000.0, 3000.0, 1000.0]


def test_adjusted_bars_are_not_stored_as_the_vendors(split_week, tmp_path):
    with pytest.raises(InputError, match=r"adjusted \(split\) as of 2024-06-10"):
        ParquetStorage(tmp_path / "other").store(split_week.load("NVDA", **AS_OF))


def test_load_names_the_command_that_fetches_actions(storage):
    put(storage, "AAPL", {"2024-05-09 12:00": 100.0})

    with pytest.raises(StoreError, match="`data-engine actions AAPL --start 2024-05-10`"):
        storage.load("AAPL", "2024-05-09", "2024-05-09", adjustment="all", as_of="2024-06-28")


def test_what_cannot_be_meant_is_refused(split_week):
    with pytest.raises(InputError, match=r"as_of='2024-06-10'.*adjustment"):
        split_week.load("NVDA", **WEEK, as_of="2024-06-10")
    with pytest.raises(InputError, match=r"'mine'.* prior_close, ex_close"):
        split_week.load("NVDA", **AS_OF, convention="mine")
    with pytest.raises(InputError, match=r"as_of.*2024-06-10T12:00:00Z"):
        split_week.load("NVDA", **{**AS_OF, "as_of": "2024-06-10T12:00:00Z"})


# ----------------------------------------------------------------------------------------------------------------- real data


def test_tiingos_columns_come_out_of_a_store(storage):
    """Raw daily bars and actions in, Tiingo's adjusted closes out: the closes are found in the store itself."""
    frame = pq.read_table(real("daily/tiingo_raw_adj_12sym_20240401_20260331.parquet")).to_pandas()
    stamps = pd.to_datetime(frame["date"]).dt.tz_localize(NEW_YORK).dt.tz_convert("UTC")
    bars = frame.assign(timestamp=stamps, vwap=frame.close, trade_count=1.0)
    columns = ["symbol", "timestamp", "open", "high", "low", "close", "volume", "trade_count", "vwap"]
    storage.store(bars[columns], timeframe="1Day")
    worst = 0.0
    for symbol, rows in frame.groupby("symbol"):
        name = str(symbol)
        actions = [dividend(name, str(row.date), row.div_cash) for row in rows.itertuples() if row.div_cash]
        actions += [split(name, str(row.date), row.split_factor) for row in rows.itertuples() if row.split_factor != 1]
        announce(storage, name, *actions, first="2024-04-01", last=date(2026, 3, 31), now=datetime(2026, 4, 1, 20, tzinfo=UTC))
        made = storage.load(
            name, "2024-04-01", rows.date.max(), timeframe="1Day", adjustment="all", as_of="2026-03-31", convention=EX_CLOSE
        )["close"].to_numpy()
        worst = max(worst, float(np.max(np.abs(made / rows.sort_values("date").adj_close.to_numpy() - 1))))

    assert worst < 1e-9
