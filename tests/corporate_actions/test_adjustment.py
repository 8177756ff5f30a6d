"""Adjusting: against brute force in pandas, Tiingo's own adjusted columns, and real minutes across real splits."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.corporate_actions.adjustment import EX_CLOSE, PRIOR_CLOSE, Factors, adjust, check_adjustable, factors
from data_engine.corporate_actions.payout_prices import Price
from data_engine.errors import InputError
from data_engine.market.bars import BAR_SCHEMA, EMPTY
from data_engine.market.corporate_action import Action, decode
from data_engine.market.series import Adjustment, Dataset, Feed, Timeframe
from real_data import real

NEW_YORK = ZoneInfo("America/New_York")
PRICES = ["open", "high", "low", "close", "vwap"]
ALL, SPLIT, DIVIDEND, SPIN_OFF = (Adjustment.parse(word) for word in ("all", "split", "dividend", "spin-off"))
FAR = date(2200, 1, 1)


def split(day: str, new: float, old: float = 1, symbol: str = "A") -> Action:
    kind = "forward_split" if new > old else "reverse_split"
    return decode(kind, {"symbol": symbol, "ex_date": day, "process_date": day, "new_rate": new, "old_rate": old})


def dividend(day: str, rate: float, **more: Any) -> Action:
    return decode("cash_dividend", {"symbol": "A", "ex_date": day, "process_date": day, "rate": rate, **more})


def spin_off(day: str, new: str, new_rate: float, source_rate: float = 1) -> Action:
    rates = {"new_rate": new_rate, "source_rate": source_rate}
    return decode("spin_off", {"source_symbol": "A", "new_symbol": new, "ex_date": day, "process_date": day, **rates})


def bars(stamps: list[datetime], price: float = 100.0, volume: float = 1000.0) -> pa.Table:
    """Bars of one price, so that an adjusted one is its factor."""
    columns = [[price] * len(stamps)] * 4 + [[volume] * len(stamps), [7.0] * len(stamps), [price] * len(stamps)]
    return pa.Table.from_arrays([pa.array(stamps, BAR_SCHEMA.field(0).type), *map(pa.array, columns)], schema=BAR_SCHEMA)


def at(day: str, clock: str = "12:00") -> datetime:
    return datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=NEW_YORK).astimezone(UTC)


def column(table: pa.Table, name: str) -> list[float]:
    return table.column(name).to_pylist()


# ------------------------------------------------------------------------------------------------------------------ splits


def test_a_split_divides_prices_and_multiplies_volume_before_midnight_in_new_york():
    stamps = [at("2024-06-07", "19:59"), at("2024-06-09", "23:59"), at("2024-06-10", "00:00"), at("2024-06-10", "04:00")]
    made = adjust(bars(stamps), factors([split("2024-06-10", 10)], SPLIT, FAR))

    for name in PRICES:
        assert column(made, name) == [10.0, 10.0, 100.0, 100.0]
    assert column(made, "volume") == [10_000.0, 10_000.0, 1000.0, 1000.0]
    assert column(made, "trade_count") == [7.0] * 4
    assert column(made, "timestamp") == stamps
    assert made.schema == BAR_SCHEMA


def test_midnight_is_new_yorks_in_winter_too():
    stamps = [at("2024-02-25", "23:59"), at("2024-02-26", "00:00")]

    assert column(adjust(bars(stamps), factors([split("2024-02-26", 3)], SPLIT, FAR)), "close") == [100 / 3, 100.0]


def test_a_reverse_split_multiplies_the_price_and_leaves_fractions_of_shares():
    made = adjust(bars([at("2021-07-30")], volume=1001.0), factors([split("2021-08-02", 1, 8)], SPLIT, FAR))

    assert (column(made, "close"), column(made, "volume")) == ([800.0], [125.125])


def test_a_stock_dividend_is_a_split():
    stock = decode("stock_dividend", {"symbol": "A", "rate": 0.25, "ex_date": "2023-05-19", "process_date": "2023-05-19"})
    made = adjust(bars([at("2023-05-18")]), factors([stock], SPLIT, FAR))

    assert (column(made, "close"), column(made, "volume")) == ([80.0], [1250.0])


def test_splits_multiply():
    actions = [split("2014-06-09", 7), split("2020-08-31", 4)]
    stamps = [at("2014-06-06"), at("2014-06-09"), at("2020-08-28"), at("2020-08-31")]

    assert column(adjust(bars(stamps, 280.0), factors(actions, SPLIT, FAR)), "close") == [10.0, 70.0, 70.0, 280.0]


def test_a_price_is_divided_not_multiplied_by_an_inverse():
    """1208.88 / 10 has one nearest number, and 1208.88 * 0.1 is another."""
    assert 1208.88 * 0.1 != 1208.88 / 10
    made = adjust(bars([at("2024-06-07")], 1208.88), factors([split("2024-06-10", 10)], SPLIT, FAR))

    assert column(made, "close") == [1208.88 / 10]


def test_nothing_is_rounded():
    made = adjust(bars([at("2024-06-07")], 1140.45), factors([split("2024-06-10", 10)], SPLIT, FAR))

    assert column(made, "close") == [114.045]  # Alpaca says 114.05


def test_a_split_after_as_of_is_not_applied():
    actions = [split("2014-06-09", 7), split("2020-08-31", 4)]
    table = bars([at("2014-06-06"), at("2020-08-28")], 280.0)

    assert column(adjust(table, factors(actions, SPLIT, date(2020, 8, 30))), "close") == [40.0, 280.0]
    assert column(adjust(table, factors(actions, SPLIT, date(2020, 8, 31))), "close") == [10.0, 70.0]


def test_where_nothing_changes_the_table_is_the_same_one():
    table = bars([at("2024-06-10")])

    assert adjust(table, factors([split("2024-06-10", 10)], SPLIT, FAR)) is table
    assert adjust(table, Factors()) is table
    assert adjust(EMPTY, factors([split("2024-06-10", 10)], SPLIT, FAR)) is EMPTY


def test_some_columns_can_be_adjusted_alone():
    table = bars([at("2024-06-07"), at("2024-06-10")]).select(["timestamp", "volume", "close"])
    made = adjust(table, factors([split("2024-06-10", 10)], SPLIT, FAR))

    assert made.column_names == ["timestamp", "volume", "close"]
    assert (column(made, "volume"), column(made, "close")) == ([10_000.0, 1000.0], [10.0, 100.0])


# ---------------------------------------------------------------------------------------------------------------- dividends


def test_a_dividend_is_measured_by_the_close_before_and_leaves_the_volume():
    made = adjust(
        bars([at("2024-05-09"), at("2024-05-10")]),
        factors([dividend("2024-05-10", 2.5)], DIVIDEND, FAR, closes={date(2024, 5, 10): 50.0}),
    )

    assert column(made, "close") == [95.0, 100.0]
    assert column(made, "volume") == [1000.0, 1000.0]


def test_tiingo_measures_by_the_close_of_the_ex_date():
    made = adjust(
        bars([at("2024-05-09")]),
        factors([dividend("2024-05-10", 2.5)], DIVIDEND, FAR, closes={date(2024, 5, 10): 47.5}, convention=EX_CLOSE),
    )

    assert column(made, "close") == [pytest.approx(100 * 47.5 / 50, rel=1e-15)]


def test_dividends_of_one_day_are_one_payment():
    closes = {date(2024, 5, 10): 10.0}
    both = [dividend("2024-05-10", 1.0, id="a"), dividend("2024-05-10", 4.0, special=True, id="b")]

    assert factors(both, DIVIDEND, FAR, closes=closes).cash == (0.5,)


def test_a_dividend_that_is_recorded_twice_counts_once():
    twice = [dividend("2024-05-10", 1.0, id="a"), dividend("2024-05-10", 1.0, id="b")]

    assert factors(twice, DIVIDEND, FAR, closes={date(2024, 5, 10): 10.0}).cash == (0.9,)


@pytest.mark.parametrize("adjustment", [ALL, DIVIDEND])
def test_a_dividend_on_the_day_of_a_split_is_for_the_new_shares(adjustment):
    """1 dollar for a share of 10, of which there was one tenth as many at 100 the day before."""
    actions = [split("2024-05-10", 10), dividend("2024-05-10", 1.0)]
    close = Price(date(2024, 5, 9), 100.0).per_share(date(2024, 5, 10), actions)

    assert factors(actions, adjustment, FAR, closes={date(2024, 5, 10): close}).cash == (0.9,)


def test_a_price_of_another_day_is_per_share_as_shares_are_by_the_splits_between():
    """1-for-4 on the 8th, 10-for-1 on the 10th and a stock dividend of one for one on the 14th: 1 share, 0.25, 2.5, then 5."""
    stock = decode("stock_dividend", {"symbol": "A", "rate": 1.0, "ex_date": "2024-05-14", "process_date": "2024-05-14"})
    actions = [split("2024-05-08", 1, 4), split("2024-05-10", 10), split("2024-05-10", 20, 2), stock]
    ninth = Price(date(2024, 5, 9), 100.0)

    assert [ninth.per_share(date(2024, 5, day), actions) for day in (7, 8, 9, 10, 13, 14)] == [
        25.0,
        100.0,
        100.0,
        10.0,
        10.0,
        5.0,
    ]
    torn = [*actions, split("2024-05-10", 5)]
    assert ninth.per_share(date(2024, 5, 8), torn) == 100.0
    with pytest.raises(InputError, match="cannot both be"):
        ninth.per_share(date(2024, 5, 10), torn)


def test_split_dividend_and_all_choose():
    actions = [split("2024-05-10", 10), dividend("2024-08-09", 1.0)]
    closes = {date(2024, 8, 9): 10.0}

    assert factors(actions, SPLIT, FAR) == Factors((date(2024, 5, 10),), (10.0,), (1.0,))
    assert factors(actions, DIVIDEND, FAR, closes=closes) == Factors((date(2024, 8, 9),), (1.0,), (0.9,))
    both = Factors((date(2024, 5, 10), date(2024, 8, 9)), (10.0, 1.0), (0.9, 0.9))
    assert factors(actions, ALL, FAR, closes=closes) == both
    assert factors(actions, Adjustment.parse("split,dividend"), FAR, closes=closes) == both


def test_a_spin_off_is_a_payment_in_shares_of_known_value():
    """One share for four, worth 80 each, by a close of 100."""
    made = factors(
        [spin_off("2024-04-01", "SOLV", 1, 4)],
        SPIN_OFF,
        FAR,
        closes={date(2024, 4, 1): 100.0},
        values={("SOLV", date(2024, 4, 1)): 80.0},
    )

    assert (made.cash, made.shares) == ((0.8,), (1.0,))


@pytest.mark.parametrize(
    ("action", "closes", "said"),
    [
        (dividend("2024-05-10", 1.0), {}, "2024-05-10: the close before"),
        (dividend("2024-05-10", 9.0), {date(2024, 5, 10): 8.0}, "2024-05-10: 9 .* 8"),
        (
            dividend("2024-05-10", 1.0, currency="CAD"),
            {date(2024, 5, 10): 8.0},
            "dividend of 1 CAD on 2024-05-10",
        ),
        (spin_off("2024-05-10", "NEW", 1), {date(2024, 5, 10): 8.0}, "spin-off of NEW on 2024-05-10"),
        (
            decode("cash_dividend", {"symbol": "A", "rate": 1, "process_date": "2024-05-16"}),
            {},
            "has no ex-date",
        ),
    ],
    ids=["no-close", "more-than-the-share", "currency", "spin-off", "no-ex-date"],
)
def test_what_cannot_be_applied_is_an_error_that_names_it(action, closes, said):
    with pytest.raises(InputError, match=said):
        factors([action], ALL, FAR, closes=closes)


def test_what_came_before_the_first_bar_needs_no_close():
    assert factors([dividend("2024-05-10", 1.0)], ALL, FAR, after=date(2024, 5, 10)) == Factors()


@pytest.mark.parametrize("kind", ["stock_merger", "rights_distribution", "redemption", "name_change"])
def test_other_kinds_change_no_price(kind):
    record = {
        "symbol": "A",
        "old_symbol": "A",
        "new_symbol": "B",
        "process_date": "2024-05-10",
        "ex_date": "2024-05-10",
        "rate": 1,
    }

    assert factors([decode(kind, record)], ALL, FAR) == Factors()


def test_an_unknown_convention_is_refused():
    with pytest.raises(InputError, match=r"'crsp'.*previous close, tiingo"):
        factors([], ALL, FAR, convention="crsp")


@pytest.mark.parametrize("timeframe", ["1Min", "30Min", "1Hour", "4Hour", "1Day"])
def test_bars_within_a_new_york_day_can_be_adjusted(timeframe):
    check_adjustable(Dataset(Timeframe.parse(timeframe)))


@pytest.mark.parametrize(
    "dataset",
    [
        Dataset(Timeframe.parse("1Week")),
        Dataset(Timeframe.parse("12Hour")),
        Dataset(Timeframe.parse("1Min"), SPLIT),
        Dataset(Timeframe.parse("1Min"), feed=Feed.BOATS),
    ],
    ids=str,
)
def test_others_cannot(dataset):
    with pytest.raises(InputError, match="adjust"):
        check_adjustable(dataset)


# -------------------------------------------------------------------------------------------------------------- brute force


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Action], dict[date, float], date, list[datetime]]:
    first = date(2020, 1, 1)
    days = draw(st.lists(st.integers(1, 700), min_size=0, max_size=8, unique=True))
    actions, closes = [], {}
    for number in days:
        day = first + timedelta(days=number)
        if draw(st.booleans()):
            new, old = draw(st.sampled_from([(2, 1), (10, 1), (3, 2), (1, 8), (1, 50)]))
            actions.append(split(day.isoformat(), new, old))
        else:
            closes[day] = draw(st.floats(1.0, 1000.0))
            actions.append(dividend(day.isoformat(), closes[day] * draw(st.floats(0.0, 0.5))))
    minutes = draw(st.lists(st.integers(0, 730 * 24 * 60), min_size=1, max_size=40, unique=True))
    as_of = first + timedelta(days=draw(st.integers(0, 740)))
    return actions, closes, as_of, [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=m) for m in sorted(minutes)]


@given(histories())
def test_any_history_equals_brute_force(history):
    """One bar after the other, one action after the other, on New York's calendar."""
    actions, closes, as_of, stamps = history
    made = adjust(bars(stamps), factors(actions, ALL, as_of, closes=closes))

    for row, stamp in enumerate(stamps):
        price, volume = 100.0, 1000.0
        for action in actions:
            if stamp.astimezone(NEW_YORK).date() < action.ex_date <= as_of:
                if action.kind == "cash_dividend":
                    price *= 1 - action.record["rate"] / closes[action.ex_date]
                else:
                    price *= action.record["old_rate"] / action.record["new_rate"]
                    volume *= action.record["new_rate"] / action.record["old_rate"]
        assert column(made, "close")[row] == pytest.approx(price, rel=1e-12)
        assert column(made, "volume")[row] == pytest.approx(volume, rel=1e-12)


# ---------------------------------------------------------------------------------------------------------------- real data


def tiingo() -> dict[str, pd.DataFrame]:
    frame = pq.read_table(real("daily/tiingo_raw_adj_12sym_20240401_20260331.parquet")).to_pandas()
    return {str(symbol): rows.sort_values("date").reset_index(drop=True) for symbol, rows in frame.groupby("symbol")}


def as_bars(rows: pd.DataFrame) -> pa.Table:
    stamps = pd.to_datetime(rows["date"]).dt.tz_localize(NEW_YORK).dt.tz_convert("UTC").dt.as_unit("us")
    values = [rows[name].to_numpy(float) for name in ("open", "high", "low", "close", "volume")]
    filled = [*values, np.ones(len(rows)), values[3]]
    return pa.Table.from_arrays([pa.array(stamps, BAR_SCHEMA.field(0).type), *map(pa.array, filled)], schema=BAR_SCHEMA)


def actions_of(rows: pd.DataFrame) -> list[Action]:
    made = [dividend(str(row.date), row.div_cash) for row in rows.itertuples() if row.div_cash]
    return made + [split(str(row.date), row.split_factor) for row in rows.itertuples() if row.split_factor != 1]


def errors(rows: pd.DataFrame, convention: str) -> float:
    """Return the largest relative difference between our adjusted prices and Tiingo's."""
    closes = rows.close if convention == EX_CLOSE else rows.close.shift()
    known = {day: float(close) for day, close in zip(rows.date, closes, strict=True)}
    made = adjust(as_bars(rows), factors(actions_of(rows), ALL, FAR, closes=known, convention=convention))
    worst = 0.0
    for name in ("open", "high", "low", "close"):
        ours, theirs = np.array(column(made, name)), rows[f"adj_{name}"].to_numpy(float)
        worst = max(worst, float(np.max(np.abs(ours / theirs - 1))))
    # Tiingo's adjusted volume is a whole number.
    assert np.array_equal(np.array(column(made, "volume")), rows.adj_volume.to_numpy(float))
    return worst


def test_tiingos_adjusted_columns_come_out_under_tiingos_convention(record_property):
    worst = max(errors(rows, EX_CLOSE) for rows in tiingo().values())

    record_property("largest relative error", worst)
    assert worst < 1e-9


def test_the_usual_convention_lies_within_a_fifth_of_a_percent_of_tiingos(record_property):
    worst = max(errors(rows, PRIOR_CLOSE) for rows in tiingo().values())

    record_property("largest relative error", worst)
    assert 1e-9 < worst < 2e-3


def minutes(name: str, symbol: str) -> tuple[pd.DataFrame, pa.Table]:
    frame = pq.read_table(real(name), filters=[("symbol", "=", symbol)]).to_pandas().sort_values("timestamp")
    frame = frame.reset_index(drop=True)
    frame["trade_count"] = np.maximum(1, np.floor(frame.volume / 100))
    frame["vwap"] = ((frame.high + frame.low + frame.close) / 3).round(4)
    columns = [
        pa.array(frame[name].astype("float64")) for name in ("open", "high", "low", "close", "volume", "trade_count", "vwap")
    ]
    stamps = pa.array(frame.timestamp.dt.as_unit("us"), BAR_SCHEMA.field(0).type)
    return frame, pa.Table.from_arrays([stamps, *columns], schema=BAR_SCHEMA)


def split_by_hand(frame: pd.DataFrame, day: str, ratio: int) -> tuple[pd.DataFrame, pd.Series]:
    """Return what pandas makes of raw minutes, and which of them lie before the split."""
    before = frame.timestamp < pd.Timestamp(day, tz=NEW_YORK)
    assert 0 < before.sum() < len(frame)
    expected = frame[[*PRICES, "volume", "trade_count"]].copy()
    for name in PRICES:
        expected[name] = frame[name].where(~before, frame[name] / ratio)
    expected["volume"] = frame.volume.where(~before, frame.volume * ratio).astype(float)
    return expected, before


def test_apples_real_minutes_go_on_across_its_seven_for_one_split():
    """The file holds raw bars. The first minute at the new price opens at the old one, as LEAN has it: closes are compared."""
    frame, table = minutes("minute/lean_algoseek_ext_AAPL2014_SPY2013_SHY2008.parquet", "AAPL")
    made = adjust(table, factors([split("2014-06-09", 7)], SPLIT, FAR)).to_pandas()

    expected, before = split_by_hand(frame, "2014-06-09", 7)
    pd.testing.assert_frame_equal(made[list(expected)], expected, check_exact=True)
    raw_step, step = (rows.close[~before].iloc[0] / rows.close[before].iloc[-1] for rows in (frame, made))
    assert (raw_step < 0.15, abs(step - 1) < 0.005) == (True, True)
    days = made.groupby(frame.timestamp.dt.tz_convert(NEW_YORK).dt.date).volume.sum()
    assert list(days.round()) == [7 * 10_850_763, 7 * 12_518_331, 75_637_706]  # raw volumes, summed in SQL


@pytest.mark.parametrize(("symbol", "day"), [("NVDA", "2024-06-10"), ("MSTR", "2024-08-08")])
def test_real_minutes_of_a_ten_for_one_split_come_out_as_the_vendor_adjusted_them(symbol, day):
    """The file is split-adjusted already: made raw again (prices have at most four decimals), it must come out as it was."""
    frame, _ = minutes("minute/polygon_sip_ext_8sym_20240603_20240816.parquet", symbol)
    before = frame.timestamp < pd.Timestamp(day, tz=NEW_YORK)
    raw = frame.copy()
    for name in PRICES:
        raw[name] = frame[name].where(~before, (frame[name] * 10).round(6))
    raw["volume"] = frame.volume.where(~before, frame.volume / 10).astype(float)
    columns = [
        pa.array(raw[name].astype("float64")) for name in ("open", "high", "low", "close", "volume", "trade_count", "vwap")
    ]
    table = pa.Table.from_arrays(
        [pa.array(raw.timestamp.dt.as_unit("us"), BAR_SCHEMA.field(0).type), *columns], schema=BAR_SCHEMA
    )
    made = adjust(table, factors([split(day, 10)], SPLIT, FAR)).to_pandas()

    expected, _ = split_by_hand(raw, day, 10)
    pd.testing.assert_frame_equal(made[list(expected)], expected, check_exact=True)
    for name in (*PRICES, "volume"):
        assert np.max(np.abs(made[name] / frame[name] - 1)) < 1e-12
    raw_step, step = (rows.open[~before].iloc[0] / rows.close[before].iloc[-1] for rows in (raw, made))
    assert (raw_step < 0.12, abs(step - 1) < 0.1) == (True, True)


def test_a_symbol_year_of_minutes_takes_little_time():
    """Relative to reading the file, so that a slow machine does not matter: less than the time to decode it from Parquet."""
    path = real("minute/polygon_sip_ext_SPY_2024.parquet")
    _, table = minutes("minute/polygon_sip_ext_SPY_2024.parquet", "SPY")
    actions = [split("2024-06-10", 10), *(dividend(f"2024-{month:02d}-15", 1.5) for month in (3, 6, 9, 12))]
    closes = {action.day: 500.0 for action in actions}
    made = factors(actions, ALL, FAR, closes=closes)

    def best(what: Any) -> float:
        taken = []
        for _ in range(5):
            begun = time.perf_counter()
            what()
            taken.append(time.perf_counter() - begun)
        return min(taken)

    assert table.num_rows > 190_000
    assert best(lambda: adjust(table, made)) < best(lambda: pq.read_table(path))
