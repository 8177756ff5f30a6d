"""Bars against sanity: what is flagged, what is not, and how little of the real tape is."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.market.bars import VALUES, make_table, take, to_micros
from data_engine.market.series import Dataset, Timeframe
from data_engine.verify.price_checks import Flag, PriceChecks
from real_data import bars_of

MINUTES, DAYS = (Dataset(Timeframe.parse(text)) for text in ("1Min", "1Day"))
OPEN = datetime(2024, 6, 3, 13, 30, tzinfo=UTC)  # a Monday, 09:30 New York


def table(rows: list[dict[str, float]], first: datetime = OPEN, step: timedelta = timedelta(minutes=1)) -> pa.Table:
    """Return bars in a row; what a row does not say is that of an ordinary bar."""
    usual = {"open": 10.0, "high": 10.5, "low": 9.5, "close": 10.0, "volume": 100.0, "trade_count": 3.0, "vwap": 10.0}
    times = np.array([to_micros(first + number * step) for number in range(len(rows))], np.int64)
    return make_table(times, [np.array([{**usual, **row}[name] for row in rows]) for name in VALUES])


def flags(*tables: pa.Table, dataset: Dataset = MINUTES, ex_dates: tuple[date, ...] = ()) -> dict[str, int]:
    check = PriceChecks(dataset, ex_dates)
    for one in tables:
        check.add(one)
    return {flag.code: flag.count for flag in check.flags}


# One bar


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"open": 10.6}, "price_order"),
        ({"open": 9.4}, "price_order"),
        ({"close": 10.51}, "price_order"),
        ({"close": 9.49}, "price_order"),
        ({"low": 0.0}, "price_not_positive"),
        ({"low": -1.0}, "price_not_positive"),
        ({"volume": -1.0}, "volume_negative"),
        ({"trade_count": -1.0}, "volume_negative"),
        ({"vwap": 10.6}, "vwap_outside"),
        ({"vwap": 9.4}, "vwap_outside"),
    ],
)
def test_an_odd_bar_is_flagged_once_by_its_own_rule(row, code):
    assert flags(table([{}, row, {}])) == {code: 1}


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"open": 10.5, "close": 9.5},
        {"open": 10.0, "high": 10.0, "low": 10.0, "close": 10.0},
        {"volume": 0.0, "trade_count": 0.0},
        {"vwap": 10.5001},
        {"vwap": 9.4999},
        {"open": 0.0001, "high": 0.0001, "low": 0.0001, "close": 0.0001, "vwap": 0.00015},
    ],
    ids=str,
)
def test_an_ordinary_bar_is_not(row):
    assert flags(table([row] * 3)) == {}


prices = st.floats(0.5, 2.0)
a_bar = st.fixed_dictionaries(dict.fromkeys(("open", "high", "low", "close"), prices) | {"volume": st.floats(-1, 5)})


@given(st.lists(a_bar, max_size=30), st.integers(0, 30))
def test_every_rule_about_one_bar_counts_what_a_loop_counts(rows, cut):
    whole = table([{**row, "vwap": row["close"]} for row in rows])
    order = sum(
        1 for row in rows if not (row["low"] <= min(row["open"], row["close"]) and max(row["open"], row["close"]) <= row["high"])
    )
    outside = sum(1 for row in rows if not row["low"] - 2.1e-4 - 2e-4 <= row["close"] <= row["high"] + 2.1e-4 + 2e-4)
    found = flags(whole.slice(0, cut), whole.slice(cut))

    assert found.get("price_order", 0) == order
    assert found.get("volume_negative", 0) == sum(1 for row in rows if row["volume"] < 0)
    assert outside <= found.get("vwap_outside", 0) <= order


def test_a_few_examples_are_kept_and_all_are_counted():
    check = PriceChecks(MINUTES)
    check.add(table([{"open": 11.0}] * 5))

    (flag,) = check.flags
    assert flag == Flag("price_order", 5, flag.examples)
    assert [text[:20] for text in flag.examples] == [f"2024-06-03T13:3{n}:00Z" for n in range(3)]
    assert str(flag).endswith("and 2 more")
    assert "open 11 high 10.5 low 9.5 close 10" in str(flag)


def test_no_bar_is_no_flag():
    assert flags(table([])) == {}


# Bars beside each other


def two_sessions(close: float, opens: float) -> tuple[pa.Table, pa.Table]:
    """Return Monday's and Tuesday's first minutes; what happens before the open does not count."""
    before_the_open = datetime(2024, 6, 4, 12, tzinfo=UTC)
    monday = [{"open": close, "high": close, "low": close, "close": close, "vwap": close}] * 3
    tuesday = [{"open": opens, "high": opens, "low": opens, "close": opens, "vwap": opens}] * 3
    return pa.concat_tables([table(monday), table(monday[:1], before_the_open)]), table(tuesday, OPEN + timedelta(days=1))


@pytest.mark.parametrize(
    ("close", "opens", "jumps"),
    [(10.0, 12.9, 0), (10.0, 13.1, 1), (13.0, 10.01, 0), (13.0, 9.99, 1), (100.0, 10.0, 1), (0.001, 10.0, 1)],
)
def test_a_jump_is_between_the_sessions_last_and_first_regular_prices(close, opens, jumps):
    first, second = two_sessions(close, opens)

    assert flags(first, second).get("price_jump", 0) == jumps
    assert flags(pa.concat_tables([first, second])).get("price_jump", 0) == jumps, "wherever the files are cut"


def test_a_corporate_action_explains_a_jump_only_on_its_day():
    first, second = two_sessions(100.0, 10.0)

    assert flags(first, second, ex_dates=(date(2024, 6, 4),)) == {}
    assert flags(first, second, ex_dates=(date(2024, 6, 3), date(2024, 6, 5))) == {"price_jump": 1}


def test_days_jump_from_close_to_open():
    midnight = datetime(2024, 6, 3, 4, tzinfo=UTC)
    rows = [{"close": 10.0}, {"open": 14.0, "high": 14.0, "close": 10.0}, {"open": 10.0}]

    assert flags(table(rows, midnight, timedelta(days=1)), dataset=DAYS) == {"price_jump": 1}


def test_one_bar_far_from_both_neighbours_is_a_spike():
    spike = {"open": 20.0, "high": 20.0, "low": 20.0, "close": 20.0, "vwap": 20.0}

    assert flags(table([{}, {}, spike, {}, {}])) == {"price_spike": 1}
    assert flags(table([{}, {}, spike, spike, {}])) == {}, "two in a row may be a price"


# The real tape


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("minute/polygon_sip_ext_8sym_20240603_20240816.parquet", MINUTES, {"price_jump": 2}),
        ("minute/polygon_sip_ext_SPY_2024.parquet", MINUTES, {}),
        ("minute/polygon_sip_ext_halfday_3sym_20241125_20241231.parquet", MINUTES, {}),
        ("minute/polygon_sip_ext_fracvol_3sym_202602.parquet", MINUTES, {}),
        ("minute/alpaca_iex_SPY_202506.parquet", MINUTES, {}),
        ("minute/lean_algoseek_ext_AAPL2014_SPY2013_SHY2008.parquet", MINUTES, {"price_jump": 1}),  # AAPL 7:1
    ],
)
def test_almost_no_real_bar_is_flagged(name, kind, expected):
    found: dict[str, int] = {}
    for one in real_tables(name):
        for code, count in flags(one, dataset=kind).items():
            found[code] = found.get(code, 0) + count

    assert found == expected


def test_the_split_of_aapl_is_explained_by_its_ex_date():
    tables = real_tables("minute/lean_algoseek_ext_AAPL2014_SPY2013_SHY2008.parquet")

    assert sum(flags(one, ex_dates=(date(2014, 6, 9),)).get("price_jump", 0) for one in tables) == 0


def real_tables(name: str) -> list[pa.Table]:
    """Return the real bars of each symbol."""
    made = []
    query = bars_of(name)
    for (symbol,) in duckdb.sql(f"SELECT DISTINCT symbol FROM ({query}) ORDER BY 1").fetchall():
        rows = duckdb.sql(
            f"SELECT epoch_us(timestamp) t, {', '.join(VALUES)} FROM ({query}) WHERE symbol = '{symbol}'"
        ).fetchnumpy()
        one = make_table(np.asarray(rows["t"]), [np.asarray(rows[name], float) for name in VALUES])
        made.append(take(one, np.argsort(np.asarray(rows["t"]))))
    return made


def test_prices_far_apart_in_time_are_no_jump():
    """Between two requested ranges are months that are not requested."""
    first, day = table([{"close": 10.0}], datetime(2024, 1, 5, 5, tzinfo=UTC), timedelta(days=1)), timedelta(days=1)
    twice = [{"open": 20.0, "high": 20.0}]
    near = table(twice, datetime(2024, 2, 2, 5, tzinfo=UTC), day)
    far = table(twice, datetime(2024, 6, 3, 4, tzinfo=UTC), day)

    assert flags(first, near, dataset=DAYS).get("price_jump") == 1
    assert flags(first, far, dataset=DAYS).get("price_jump") is None
