"""Bars against sanity: what is flagged, what is not, and how little of the real tape is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.market.bars import VALUES, make_table, take, to_micros
from data_engine.market.corporate_action import Action, decode
from data_engine.market.series import Adjustment, Dataset, Timeframe
from data_engine.market.time_range import TimeRange, new_york_days
from data_engine.verify.file_bars import FileBars
from data_engine.verify.known_actions import KnownActions
from data_engine.verify.price_checks import Flag, PriceChecks
from real_data import bars_of

MINUTES, DAYS = (Dataset(Timeframe.parse(text)) for text in ("1Min", "1Day"))
SPLIT_ADJUSTED = Dataset(Timeframe.parse("1Min"), Adjustment.parse("split"))
OPEN = datetime(2024, 6, 3, 13, 30, tzinfo=UTC)  # a Monday, 09:30 New York


def table(rows: list[dict[str, float]], first: datetime = OPEN, step: timedelta = timedelta(minutes=1)) -> pa.Table:
    """Return bars in a row; what a row does not say is that of an ordinary bar."""
    usual = {"open": 10.0, "high": 10.5, "low": 9.5, "close": 10.0, "volume": 100.0, "trade_count": 3.0, "vwap": 10.0}
    times = np.array([to_micros(first + number * step) for number in range(len(rows))], np.int64)
    return make_table(times, [np.array([{**usual, **row}[name] for row in rows]) for name in VALUES])


def flags(
    *tables: pa.Table, dataset: Dataset = MINUTES, actions: Sequence[Action] = (), covered: Sequence[TimeRange] | None = None
) -> dict[str, int]:
    check = PriceChecks(dataset, KnownActions(actions, dataset.adjustment), covered)
    for one in tables:
        check.add(FileBars.of(one, dataset))
    return {flag.code: flag.count for flag in check.flags}


def split(new: float, old: float, day: str = "2024-06-04") -> Action:
    kind = "forward_split" if new > old else "reverse_split"
    record = {"id": f"{new}:{old}", "symbol": "A", "new_rate": new, "old_rate": old, "ex_date": day, "process_date": day}
    return decode(kind, record)


def paid(kind: str, day: str = "2024-06-04", **fields: object) -> Action:
    return decode(kind, {"symbol": "A", "ex_date": day, "process_date": day, **fields})


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
    check.add(FileBars.of(table([{"open": 11.0}] * 5), MINUTES))

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


def test_a_split_explains_a_jump_only_on_its_day_and_only_by_its_ratio():
    jump = two_sessions(100.0, 10.0)

    assert flags(*jump, actions=[split(10, 1)]) == {}
    assert flags(*jump, actions=[split(10, 1, "2024-06-03")]) == {"price_jump": 1}
    assert flags(*jump, actions=[split(10, 1, "2024-06-05")]) == {"price_jump": 1}
    assert flags(*jump, actions=[split(8, 1)]) == {}, "the price moves, too"
    assert flags(*jump, actions=[split(5, 1)]) == {"price_jump": 1}, "half of the fall is not explained"
    assert flags(*jump, actions=[split(5, 1), split(2, 1)]) == {}
    assert flags(*jump, actions=[split(10, 1), split(10.0001, 1)]) == {}, "a vendor has it twice"
    assert flags(*two_sessions(100.0, 10.0), dataset=SPLIT_ADJUSTED, actions=[split(10, 1)]) == {"price_jump": 1}


@pytest.mark.parametrize(
    ("kind", "fields", "close", "opens", "jumps"),
    [
        ("cash_dividend", {"rate": 40.0}, 100.0, 60.0, 0),
        ("cash_dividend", {"rate": 0.25}, 100.0, 60.0, 1),  # today any action of the day silenced it
        ("cash_dividend", {"rate": 40.0}, 100.0, 140.0, 1),
        ("stock_dividend", {"rate": 1.0}, 100.0, 50.0, 0),
        ("spin_off", {"source_symbol": "A", "new_symbol": "B", "new_rate": 1, "source_rate": 1}, 100.0, 60.0, 0),
        ("spin_off", {"source_symbol": "A", "new_symbol": "B", "new_rate": 1, "source_rate": 1}, 100.0, 140.0, 1),
        ("name_change", {"old_symbol": "A", "new_symbol": "B"}, 100.0, 60.0, 1),
        ("stock_merger", {"acquiree_symbol": "A", "acquirer_symbol": "B"}, 100.0, 60.0, 1),
    ],
)
def test_an_action_silences_a_jump_only_if_it_explains_it(kind, fields, close, opens, jumps):
    found = flags(*two_sessions(close, opens), actions=[paid(kind, **fields)])

    assert found == ({"price_jump": 1} if jumps else {})


@pytest.mark.parametrize(
    ("action", "close", "opens", "contradicted"),
    [
        (split(15, 1), 0.10, 1.50, True),  # the record the wrong way round
        (split(1, 15), 0.10, 1.50, False),
        (split(1, 15), 0.10, 1.20, False),
        (split(1, 15), 0.10, 0.10, True),
        (split(10, 1), 100.0, 100.5, True),
        (split(2, 1), 100.0, 99.0, True),
        (split(3, 2), 100.0, 100.0, True),
        (split(5, 4), 100.0, 100.0, False),  # within what prices do
        (split(2, 1), 100.0, 44.0, False),
    ],
)
def test_a_ratio_that_the_prices_contradict_is_named(action, close, opens, contradicted):
    found = flags(*two_sessions(close, opens), actions=[action])

    assert found.get("split_contradicted", 0) == contradicted
    assert found == ({"split_contradicted": 1} if contradicted else {}), "named once, not also as a jump"


def test_a_fall_beside_a_split_is_a_jump_as_it_is_without_one():
    assert flags(*two_sessions(0.10, 0.97), actions=[split(1, 15)]) == {"price_jump": 1}, "1.50 is what the split explains"


def test_a_split_on_a_saturday_is_judged_by_mondays_open():
    friday = table([{"close": 100.0, "high": 100.0, "open": 100.0, "low": 99.0, "vwap": 99.5}], OPEN - timedelta(days=3))
    monday = table([{}] * 3)

    assert flags(friday, monday, actions=[split(10, 1, "2024-06-01")]) == {}
    assert flags(friday, monday, actions=[split(10, 1, "2024-06-04")]) == {"price_jump": 1}


def test_a_fall_that_the_bars_after_hours_walk_through_is_no_jump():
    """Results come after the close: the price falls in bars that others saw."""

    def at(price: float, first: datetime) -> pa.Table:
        return table([dict.fromkeys(("open", "high", "low", "close", "vwap"), price)], first)

    evening = [at(price, OPEN + timedelta(hours=7 + number)) for number, price in enumerate((9.0, 8.0))]
    monday, tuesday = at(10.0, OPEN), at(7.0, OPEN + timedelta(days=1))

    assert flags(monday, tuesday) == {"price_jump": 1}
    assert flags(monday, *evening, tuesday) == {}
    assert flags(pa.concat_tables([monday, *evening, tuesday])) == {}
    assert flags(monday, evening[0], at(6.0, OPEN + timedelta(hours=8)), tuesday) == {"price_jump": 1}, "one step is too long"


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
        ("minute/polygon_sip_ext_8sym_20240603_20240816.parquet", MINUTES, {}),
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


def test_the_split_of_aapl_is_explained_by_its_ratio():
    tables = real_tables("minute/lean_algoseek_ext_AAPL2014_SPY2013_SHY2008.parquet")

    assert sum(flags(one, actions=[split(7, 1, "2014-06-09")]).get("price_jump", 0) for one in tables) == 0


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


DAY = timedelta(days=1)


def test_prices_are_compared_over_the_time_that_is_held_only():
    """Between two requested ranges are months of which nothing is known; a ticker that was given to another company is."""
    first = table([{"close": 8.5, "high": 11.0, "low": 8.0}], datetime(2019, 1, 4, 5, tzinfo=UTC), DAY)
    later = table([dict.fromkeys(("open", "high", "low", "close", "vwap"), 55.0)], datetime(2024, 6, 3, 4, tzinfo=UTC), DAY)
    year = (new_york_days(date(2019, 1, 1), date(2019, 12, 31)), new_york_days(date(2024, 1, 1), date(2024, 12, 31)))
    whole = (new_york_days(date(2019, 1, 1), date(2024, 12, 31)),)

    assert flags(first, later, dataset=DAYS, covered=whole).get("price_jump") == 1, "held, and empty for five years"
    assert flags(first, later, dataset=DAYS, covered=year).get("price_jump") is None
    assert flags(first, later, dataset=DAYS).get("price_jump") is None, "without coverage, nothing is known of the years between"


# Bars right after each other


def minutes_at(*prices: float, first: datetime = OPEN, step: timedelta = timedelta(minutes=1)) -> pa.Table:
    """Return bars that each open where the last one closed, up to a hundredth of a percent."""
    rows = [
        {"open": price * 1.0001, "high": price * 1.001, "low": price * 0.999, "close": price, "vwap": price} for price in prices
    ]
    return table(rows, first, step)


def test_a_close_of_a_fifth_too_much_is_a_break():
    whole = minutes_at(*[10.0] * 30)
    wrong = whole.to_pylist()
    wrong[12] |= {"close": 12.0, "high": 12.0}
    found = flags(pa.Table.from_pylist(wrong, schema=whole.schema))

    assert found == {"price_break": 1}


@pytest.mark.parametrize(("factor", "breaks"), [(1.07, 0), (1.09, 2), (2.0, 2), (0.9, 2), (0.95, 0)])
def test_a_stretch_on_another_level_has_two_breaks(factor, breaks):
    prices = [10.0] * 10 + [10.0 * factor] * 10 + [10.0] * 10

    assert flags(minutes_at(*prices)).get("price_break", 0) == breaks


def test_a_step_before_the_open_or_after_a_pause_is_no_break():
    before = datetime(2024, 6, 3, 12, tzinfo=UTC)
    halted = pa.concat_tables([minutes_at(*[10.0] * 10), minutes_at(*[12.0] * 10, first=OPEN + timedelta(minutes=15))])

    assert flags(minutes_at(*[10.0] * 5, *[12.0] * 5, first=before)) == {}
    assert flags(halted) == {}, "trading resumes at another price"


def test_prices_that_always_move_in_large_steps_have_no_break():
    assert flags(minutes_at(*[0.010, 0.011] * 20)) == {}


@pytest.mark.parametrize(("row", "found"), [({"high": 20.0}, 1), ({"low": 1.0}, 1), ({"high": 12.5}, 0), ({"low": 8.2}, 0)])
def test_a_high_or_low_that_no_other_price_is_near_is_a_wick(row, found):
    usual = {"open": 10.0, "high": 10.05, "low": 9.95, "close": 10.0, "vwap": 10.0}
    bars = [dict(usual) for _ in range(20)]
    bars[7] |= row

    assert flags(table(bars)) == ({"price_wick": 1} if found else {})
    bars[8] |= row
    assert flags(table(bars)) == {}, "two in a row were there"
