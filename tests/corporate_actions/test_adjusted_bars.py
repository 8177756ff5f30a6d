"""Stored raw bars, adjusted as they are read: what that needs of the store, and what is missing said with its command."""

from __future__ import annotations

import re
import shlex
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
from data_engine.corporate_actions.adjusted_bars import adjusting_step, dataset_to_read
from data_engine.corporate_actions.adjustment import TIINGO
from data_engine.corporate_actions.symbol_actions import SymbolActions
from data_engine.errors import InputError, StoreError
from data_engine.market.bars import EMPTY
from data_engine.market.corporate_action import Action, decode
from data_engine.market.series import Adjustment, Dataset, Series, Timeframe
from data_engine.market.time_range import new_york_days
from data_engine.read.parquet_storage import IncompleteWarning
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
    step = adjusting_step(storage.bars, MINUTES, adjustment, as_of, **more)
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
    assert adjusting_step(storage.bars, MINUTES, ALL, TODAY)("NVDA", EMPTY) is EMPTY


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
    put(storage, "AAPL", {"2024-05-10 15:59": 80.0, "2024-05-13 12:00": 78.0})
    announce(storage, "AAPL", dividend("AAPL", "2024-05-13", 2.0))

    assert adjusted(storage, "AAPL", convention=TIINGO) == [80 / (1 + 2 / 78), 78.0]


def test_a_close_that_is_not_stored_is_an_error_that_names_the_command(storage):
    put(storage, "AAPL", {"2024-05-08 15:59": 80.0, "2024-05-13 12:00": 78.0})
    announce(storage, "AAPL", dividend("AAPL", "2024-05-13", 2.0))

    with pytest.raises(
        StoreError, match=r"close of AAPL on 2024-05-10.*ingest AAPL --start 2024-05-10 --end 2024-05-10 --timeframe 1Day"
    ):
        adjusted(storage, "AAPL")


def test_a_stock_that_rested_for_days_is_measured_by_its_last_trade(storage):
    """The sessions between are known to have no bar: they are covered."""
    put(storage, "THIN", {"2024-05-08 12:00": 80.0, "2024-05-13 12:00": 78.0})
    announce(storage, "THIN", dividend("THIN", "2024-05-13", 2.0))
    span = new_york_days(date(2024, 5, 8), date(2024, 5, 13))

    def cover(known: Coverage) -> Coverage:
        return replace(known, covered=(span,), wanted=(span,))

    storage.bars.coverage.update(Series("THIN", MINUTES), cover)

    assert adjusted(storage, "THIN") == [78.0, 78.0]


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
    with pytest.raises(StoreError, match=r"close of SOLV on 2024-04-01.*ingest SOLV --start 2024-04-01 --end 2024-04-01"):
        adjusted(storage, "MMM")

    put(storage, "SOLV", {"2024-04-01": 80.0}, "1Day")
    assert adjusted(storage, "MMM") == [80.0, 82.0]


# ------------------------------------------------------------------------------------------------------------------ renames


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


def test_raw_bars_are_read_as_they_are(storage):
    assert dataset_to_read(storage.bars, MINUTES, now=NOW) == (MINUTES, None)


def test_the_vendors_adjusted_bars_are_read_where_there_are_some_and_no_day_is_named(storage):
    put(storage, "NVDA", {"2024-06-07 12:00": 1200.0})
    announce(storage, "NVDA", split("NVDA", "2024-06-10", 10))
    vendors = Dataset(Timeframe.parse("1Min"), SPLIT)
    dataset, step = dataset_to_read(storage.bars, vendors, now=NOW)
    assert (dataset, step is None) == (MINUTES, False)

    bars = storage.load("NVDA", "2024-06-07", "2024-06-07")
    bars.attrs.clear()
    storage.store(bars, adjustment="split")

    assert dataset_to_read(storage.bars, vendors, now=NOW) == (vendors, None)
    dataset, step = dataset_to_read(storage.bars, vendors, date(2024, 6, 9), now=NOW)
    assert (dataset, step is None) == (MINUTES, False)


def test_whose_raw_bars_could_be_adjusted_is_not_silently_left_out_of_the_vendors(storage):
    """A dataset is read as a whole: of two price bases, one answer is never made."""
    for symbol, more in (("NVDA", {}), ("AAPL", {}), ("MSFT", {"adjustment": "split"})):
        put(storage, symbol, {"2024-06-07 12:00": 1200.0}, **more)

    with pytest.warns(IncompleteWarning, match=r"AAPL .*equities_1min_split.*as_of="):
        made = storage.load(["AAPL", "MSFT"], "2024-06-07", "2024-06-07", adjustment="split")
    assert set(made.index.get_level_values("symbol")) == {"MSFT"}
    with pytest.raises(StoreError, match=r"AAPL .*equities_1min_split"):
        storage.load("AAPL", "2024-06-07", "2024-06-07", adjustment="split", incomplete="raise")
    assert len(storage.load("MSFT", "2024-06-07", "2024-06-07", adjustment="split", incomplete="raise")) == 1


def test_a_day_to_come_is_refused(storage):
    with pytest.raises(InputError, match="as_of 2024-06-29 "):
        dataset_to_read(storage.bars, Dataset(Timeframe.parse("1Min"), SPLIT), TODAY + timedelta(days=1), now=NOW)


def test_weeks_are_refused(storage):
    with pytest.raises(InputError, match="1Week"):
        dataset_to_read(storage.bars, Dataset(Timeframe.parse("1Week"), SPLIT), now=NOW)


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
    with pytest.raises(InputError, match=r"'mine'.* previous close, tiingo"):
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
            name, "2024-04-01", "2026-03-31", timeframe="1Day", adjustment="all", as_of="2026-03-31", convention=TIINGO
        )["close"].to_numpy()
        worst = max(worst, float(np.max(np.abs(made / rows.sort_values("date").adj_close.to_numpy() - 1))))

    assert worst < 1e-9
