"""Bars of sessions computed from minutes: against pandas on real bars, and loops without numpy on made-up ones."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.errors import InputError
from data_engine.market.bars import EMPTY, VALUES, make_table
from data_engine.market.exchange_calendar import sessions
from data_engine.market.resampling import Resampling, check_within_sessions, resample
from data_engine.market.series import Timeframe
from data_engine.market.session_hours import Hours, in_hours
from data_engine.market.time_range import TimeRange
from real_data import bars_of

NEW_YORK = ZoneInfo("America/New_York")
MINUTE = Timeframe(1, "Min")
REGULAR, EXTENDED = Hours.REGULAR, Hours.EXTENDED
HALF_DAYS = [date(2024, 7, 3), date(2024, 11, 29), date(2024, 12, 24)]
OPENS = {REGULAR: 570, EXTENDED: 240}
CLOSES = {REGULAR: (960, 780), EXTENDED: (1200, 1020)}
REAL = {
    "clock-changes": "minute/polygon_sip_ext_dst_4sym_202403_202411.parquet",
    "half-days": "minute/polygon_sip_ext_halfday_3sym_20241125_20241231.parquet",
    "a-summer": "minute/polygon_sip_ext_8sym_20240603_20240816.parquet",
}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def between(start: str, end: str) -> TimeRange:
    return TimeRange(at(start), at(end))


def every(value: str, hours: Hours = REGULAR) -> Resampling:
    return Resampling.parse(value, hours, MINUTE)


def bars_at(*rows: tuple) -> pa.Table:
    """Return minutes of (time in UTC, open, high, low, close, volume, trade_count, vwap)."""
    times = pd.to_datetime([row[0] for row in rows], utc=True).as_unit("us").asi8
    return make_table(times, [np.array([float(row[place]) for row in rows]) for place in range(1, 8)])


def rows_of(table: pa.Table) -> list[tuple]:
    stamps = [stamp.strftime("%Y-%m-%d %H:%M") for stamp in table.column("timestamp").to_pylist()]
    return list(zip(stamps, *(table.column(name).to_pylist() for name in table.column_names[1:]), strict=True))


def flat(stamp: str, price: float = 1.0, volume: float = 10.0) -> tuple:
    return (stamp, price, price, price, price, volume, 1.0, price)


# ---------------------------------------------------------------------------------------------------- against brute force


def by_pandas(minutes: pd.DataFrame, step: int | None, hours: Hours) -> pd.DataFrame:
    """Compute the bars of one symbol by pandas' clock and grouping."""
    local = minutes["timestamp"].dt.tz_convert("America/New_York")
    minute, day = local.dt.hour * 60 + local.dt.minute, local.dt.date
    close, early = CLOSES[hours]
    inside = (minute >= OPENS[hours]) & (minute < close) & ~(day.isin(HALF_DAYS) & (minute >= early))
    slot = (minute - OPENS[hours]) // step if step else minute * 0
    rows = minutes.assign(day=day, slot=slot, money=minutes["volume"] * minutes["vwap"])[inside]
    made = rows.groupby(["day", "slot"], sort=True).agg(
        open=("open", "first"),
        high=("high", "max"),
        low=("low", "min"),
        close=("close", "last"),
        volume=("volume", "sum"),
        trade_count=("trade_count", "sum"),
        money=("money", "sum"),
    )
    made = made.reset_index()
    clock = pd.to_timedelta(made["slot"] * step + OPENS[hours] if step else made["slot"], unit="min")
    stamps = (pd.to_datetime(made["day"]) + clock).dt.tz_localize("America/New_York").dt.tz_convert("UTC").dt.as_unit("us")
    made = made.assign(timestamp=stamps, vwap=made["money"] / made["volume"])
    return made[["timestamp", *VALUES]]


@pytest.mark.parametrize("step", [1, 5, 15, 30, 60, 7, 130, 390, None])
@pytest.mark.parametrize("hours", [REGULAR, EXTENDED])
@pytest.mark.parametrize("name", REAL.values(), ids=REAL)
def test_real_bars_are_grouped_as_pandas_groups_them(name, hours, step):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        table = connection.sql(f"SELECT * FROM ({bars_of(name)}) ORDER BY symbol, timestamp").to_arrow_table()
    frame = table.to_pandas()
    for symbol, minutes in frame.groupby("symbol"):
        start = int(minutes.index[0])
        one = table.slice(start, len(minutes)).drop_columns("symbol").cast(EMPTY.schema)
        found = resample(one, Resampling(step, hours)).to_pandas()
        expected = by_pandas(minutes.reset_index(drop=True), step, hours)

        assert len(found) > 0, symbol
        exact = ["timestamp", *VALUES[:-1]]
        pd.testing.assert_frame_equal(found[exact], expected[exact], check_exact=True)
        np.testing.assert_allclose(found["vwap"], expected["vwap"], rtol=1e-12)
        assert found["volume"].sum() == in_hours(one, hours).to_pandas()["volume"].sum()


prices = st.floats(0.01, 1000, allow_nan=False)
a_bar = st.tuples(prices, prices, prices, prices, st.sampled_from([0.0, 1.0, 0.25, 100.0, 12345.0]), st.integers(0, 9), prices)
# From the Friday before the clocks change to the Monday after Thanksgiving's half day.
some_minutes = st.dictionaries(st.integers(0, 34 * 1440 - 1), a_bar, max_size=60)
# Crowded: a few hours of one day, where many minutes share a bar.
crowded_minutes = st.dictionaries(st.integers(28 * 1440 + 8 * 60, 28 * 1440 + 14 * 60), a_bar, max_size=60)
a_step = st.one_of(st.sampled_from([5, 15, 30, 60]), st.integers(1, 390), st.none())


def table_of(minutes: dict[int, tuple]) -> pa.Table:
    start = datetime(2024, 11, 1, 4, tzinfo=UTC)
    return bars_at(*((start + timedelta(minutes=minute), *bar) for minute, bar in sorted(minutes.items())))


def by_loop(table: pa.Table, step: int | None, hours: Hours) -> dict[datetime, dict[str, float]]:
    groups: dict[datetime, list[dict]] = defaultdict(list)
    for row in table.to_pylist():
        local = row["timestamp"].astimezone(NEW_YORK)
        day, minute = local.date(), local.hour * 60 + local.minute
        close = CLOSES[hours][day in HALF_DAYS]
        if day.weekday() < 5 and day != date(2024, 11, 28) and OPENS[hours] <= minute < close:
            start = 0 if step is None else minute - (minute - OPENS[hours]) % step
            groups[datetime(day.year, day.month, day.day, start // 60, start % 60, tzinfo=NEW_YORK).astimezone(UTC)].append(row)
    made = {}
    for stamp, rows in groups.items():
        shares = sum(row["volume"] for row in rows)
        vwap = sum(row["volume"] * row["vwap"] for row in rows) / shares if shares else sum(r["vwap"] for r in rows) / len(rows)
        made[stamp] = {
            "open": rows[0]["open"],
            "high": max(row["high"] for row in rows),
            "low": min(row["low"] for row in rows),
            "close": rows[-1]["close"],
            "volume": shares,
            "trade_count": sum(row["trade_count"] for row in rows),
            "vwap": pytest.approx(vwap, rel=1e-12),
        }
    return made


@given(st.one_of(some_minutes, crowded_minutes), a_step, st.sampled_from([REGULAR, EXTENDED]))
def test_made_up_bars_are_what_a_loop_makes(minutes, step, hours):
    table = table_of(minutes)
    found = resample(table, Resampling(step, hours)).to_pylist()

    assert [row["timestamp"] for row in found] == sorted(row["timestamp"] for row in found)
    assert {row.pop("timestamp"): row for row in found} == by_loop(table, step, hours)


@given(st.one_of(some_minutes, crowded_minutes), st.sampled_from([(5, 15), (15, 60), (30, 390), (15, None)]))
def test_bars_of_bars_are_bars_of_minutes(minutes, pair):
    fine, coarse = (Resampling(step, REGULAR) for step in pair)
    table = table_of(minutes)
    direct, by_way = resample(table, coarse), resample(resample(table, fine), coarse)

    exact = ["timestamp", "open", "high", "low", "close", "volume", "trade_count"]
    assert by_way.select(exact).equals(direct.select(exact))


@given(st.one_of(some_minutes, crowded_minutes), a_step, st.sampled_from([REGULAR, EXTENDED]))
def test_each_day_alone_is_the_same_as_all_days_at_once(minutes, step, hours):
    table, bars = table_of(minutes), Resampling(step, hours)
    days = [stamp.astimezone(NEW_YORK).date() for stamp in table.column("timestamp").to_pylist()]
    alone = [resample(table.take([place for place, of in enumerate(days) if of == day]), bars) for day in sorted(set(days))]

    assert pa.concat_tables([EMPTY, *alone]).equals(resample(table, bars))


@given(st.one_of(some_minutes, crowded_minutes), st.sampled_from([REGULAR, EXTENDED]))
def test_bars_of_a_minute_are_the_minutes_of_the_sessions(minutes, hours):
    table = table_of(minutes)

    assert resample(table, Resampling(1, hours)).equals(in_hours(table, hours))


# ------------------------------------------------------------------------------------------------------- what a bar is


def test_a_bar_is_first_highest_lowest_last_and_sums():
    minutes = bars_at(
        ("2024-06-03 13:30", 10, 12, 9, 11, 100, 5, 10.5),
        ("2024-06-03 13:34", 11, 15, 10, 14, 300, 7, 12.5),
        ("2024-06-03 13:35", 14, 14, 8, 9, 50, 1, 11),
    )

    assert rows_of(resample(minutes, every("5Min"))) == [
        ("2024-06-03 13:30", 10, 15, 9, 14, 400, 12, 12.0),
        ("2024-06-03 13:35", 14, 14, 8, 9, 50, 1, 11),
    ]


def test_hours_are_counted_from_the_open_and_the_last_is_short():
    minutes = bars_at(
        *(flat(f"2024-06-03 {time}") for time in ("13:29", "13:30", "14:29", "14:30", "19:29", "19:30", "19:59", "20:00"))
    )

    found = [(row[0], row[5]) for row in rows_of(resample(minutes, every("1Hour")))]
    assert found == [("2024-06-03 13:30", 20), ("2024-06-03 14:30", 10), ("2024-06-03 18:30", 10), ("2024-06-03 19:30", 20)]


def test_extended_sessions_are_counted_from_four_in_the_morning():
    minutes = bars_at(*(flat(f"2024-06-03 {time}") for time in ("08:00", "08:59", "13:30", "23:59")), flat("2024-06-04 00:00"))

    found = [(row[0], row[5]) for row in rows_of(resample(minutes, every("90Min", EXTENDED)))]
    assert found == [("2024-06-03 08:00", 20), ("2024-06-03 12:30", 10), ("2024-06-03 23:00", 10)]


def test_a_winter_evening_belongs_to_the_day_of_new_york():
    """19:59 in New York on the last day of January is February in UTC, and in another file."""
    minutes = bars_at(flat("2024-01-31 09:00"), flat("2024-02-01 00:59"), flat("2024-02-01 09:00"))

    found = [(row[0], row[5]) for row in rows_of(resample(minutes, every("1Day", EXTENDED)))]
    assert found == [("2024-01-31 05:00", 20), ("2024-02-01 05:00", 10)]


def test_days_are_stamped_at_midnight_in_new_york_as_the_vendor_does():
    minutes = bars_at(
        *(
            flat(stamp)
            for stamp in ("2024-03-08 14:30", "2024-03-08 20:59", "2024-03-11 13:30", "2024-11-29 17:59", "2024-11-29 18:00")
        )
    )

    assert [(row[0], row[5]) for row in rows_of(resample(minutes, every("1Day")))] == [
        ("2024-03-08 05:00", 20),
        ("2024-03-11 04:00", 10),
        ("2024-11-29 05:00", 10),
    ]


def test_where_no_shares_were_traded_vwap_is_the_mean_of_the_minutes():
    minutes = bars_at(
        ("2024-06-03 13:30", 1, 1, 1, 1, 0, 0, 2), ("2024-06-03 13:31", 1, 1, 1, 1, 0, 0, 5), flat("2024-06-03 13:35", 7, 0)
    )

    assert [row[-1] for row in rows_of(resample(minutes, every("5Min")))] == [3.5, 7]


@given(prices, st.lists(st.floats(0.001, 1e9), min_size=1, max_size=5))
def test_vwap_of_one_price_is_that_price(price, volumes):
    minutes = bars_at(*(flat(f"2024-06-03 13:3{place}", price, volume) for place, volume in enumerate(volumes)))

    assert rows_of(resample(minutes, every("5Min")))[0][-1] == price


@pytest.mark.parametrize("names", [[], ["close"], ["low", "volume"], ["volume", "vwap"], ["vwap", "volume"]])
def test_columns_stay_those_that_came(names):
    table = table_of({minute: (5, 6, 4, 5, minute % 7, 2, 5 + minute % 3) for minute in range(3 * 1440, 5 * 1440)})
    whole = resample(table, every("15Min"))

    assert whole.num_rows == 52
    assert resample(table.select(["timestamp", *names]), every("15Min")).equals(whole.select(["timestamp", *names]))


def test_vwap_needs_volume():
    assert every("15Min").needs(["vwap", "open"]) == ("open", "volume", "vwap")
    assert every("15Min").needs(["close"]) == ("close",)


def test_no_minutes_are_no_bars():
    for table in (EMPTY, bars_at(flat("2024-06-02 15:00")), EMPTY.select(["timestamp"])):
        assert resample(table, every("15Min")).equals(table.slice(0, 0))


# --------------------------------------------------------------------------------------------------- what can be asked for


@pytest.mark.parametrize(
    ("value", "hours", "minutes"),
    [
        ("15Min", REGULAR, 15),
        ("5 minutes", REGULAR, 5),
        ("min", REGULAR, 1),
        ("1Hour", REGULAR, 60),
        ("6H", REGULAR, 360),
        (" 90min ", REGULAR, 90),
        ("390Min", REGULAR, 390),
        ("960Min", EXTENDED, 960),
        ("1Day", REGULAR, None),
        ("day", EXTENDED, None),
        (Timeframe(30, "Min"), REGULAR, 30),
        (Timeframe(1, "Day"), REGULAR, None),
    ],
)
def test_bars_are_read_as_people_write_them(value, hours, minutes):
    assert Resampling.parse(value, hours, MINUTE) == Resampling(minutes, hours)
    assert Resampling.parse(str(Resampling(minutes, hours)), hours, MINUTE) == Resampling(minutes, hours)


def test_the_vendors_own_timeframes_are_read():
    alpaca = pytest.importorskip("alpaca.data.timeframe")

    assert Resampling.parse(alpaca.TimeFrame(15, alpaca.TimeFrameUnit.Minute), REGULAR, MINUTE) == Resampling(15, REGULAR)
    assert Resampling.parse(alpaca.TimeFrame.Day, REGULAR, MINUTE) == Resampling(None, REGULAR)


@pytest.mark.parametrize(
    "value", ["391Min", "7Hour", "0Min", "2Day", "1Week", "1Month", "quarter", "", 15, "15", "-5Min", "1.5Hour"]
)
def test_bars_that_no_session_has_are_refused(value):
    with pytest.raises(InputError, match="1Min to 390Min"):
        Resampling.parse(value, REGULAR, MINUTE)


@pytest.mark.parametrize(
    ("value", "hours", "source"),
    [("15Min", REGULAR, "5Min"), ("1Hour", REGULAR, "30Min"), ("1Day", EXTENDED, "1Hour"), ("2Hour", EXTENDED, "20Min")],
)
def test_bars_can_be_made_of_longer_ones_that_fit(value, hours, source):
    assert str(Resampling.parse(value, hours, Timeframe.parse(source))) == value.replace("Hour", "0Min").replace(
        "10Min", "60Min"
    ).replace("20Min", "120Min")


@pytest.mark.parametrize(
    ("value", "hours", "source"),
    [
        pytest.param("15Min", REGULAR, "10Min", id="does-not-divide-the-bar"),
        pytest.param("1Hour", REGULAR, "1Hour", id="lies-over-the-open"),
        pytest.param("1Day", REGULAR, "7Min", id="lies-over-the-close"),
        pytest.param("8Hour", EXTENDED, "2Hour", id="two-hours"),
        pytest.param("1Day", REGULAR, "1Day", id="days"),
    ],
)
def test_bars_that_do_not_fit_are_refused(value, hours, source):
    with pytest.raises(InputError, match=f"{value} bars .* {source} bars.*timeframe='1Min'"):
        Resampling.parse(value, hours, Timeframe.parse(source))


def test_all_hours_have_no_open():
    with pytest.raises(InputError, match="session='regular' or 'extended'"):
        Resampling.parse("15Min", Hours.ALL, MINUTE)


# ------------------------------------------------------------------------------------------------------------- edges of bars


@pytest.mark.parametrize(
    ("bars", "moment", "stamp", "made_of"),
    [
        pytest.param(
            every("1Hour"), "2024-06-03 14:00", "2024-06-03 13:30", ("2024-06-03 13:30", "2024-06-03 14:30"), id="inside"
        ),
        pytest.param(
            every("1Hour"), "2024-06-03 19:59", "2024-06-03 19:30", ("2024-06-03 19:30", "2024-06-03 20:00"), id="the-short-one"
        ),
        pytest.param(
            every("1Hour"), "2024-11-29 17:45", "2024-11-29 17:30", ("2024-11-29 17:30", "2024-11-29 18:00"), id="of-a-half-day"
        ),
        pytest.param(every("1Day"), "2024-06-03 14:00", "2024-06-03 04:00", ("2024-06-03 13:30", "2024-06-03 20:00"), id="a-day"),
        pytest.param(
            every("1Day", EXTENDED),
            "2024-02-01 00:30",
            "2024-01-31 05:00",
            ("2024-01-31 09:00", "2024-02-01 01:00"),
            id="an-evening",
        ),
    ],
)
def test_the_bar_of_a_moment(bars, moment, stamp, made_of):
    assert bars.bar_at(at(moment)) == (at(stamp), between(*made_of))
    assert bars.before_forming(at(moment)) == at(stamp)


@pytest.mark.parametrize("moment", ["2024-06-03 13:29", "2024-06-03 20:00", "2024-06-02 15:00", "2024-06-19 15:00"])
def test_outside_sessions_no_bar_is_under_way(moment):
    assert every("1Hour").bar_at(at(moment)) is every("1Day").bar_at(at(moment)) is None
    assert every("1Hour").before_forming(at(moment)) == at(moment)


@pytest.mark.parametrize(
    ("bars", "moment", "end"),
    [
        pytest.param(every("1Hour"), "2024-06-03 14:00", "2024-06-03 14:30", id="the-bar-goes-on"),
        pytest.param(every("1Hour"), "2024-06-03 14:30", "2024-06-03 14:30", id="it-has-just-ended"),
        pytest.param(every("1Hour"), "2024-06-03 13:30", "2024-06-03 13:30", id="none-has-begun"),
        pytest.param(every("1Day"), "2024-06-03 08:00", "2024-06-03 20:00", id="a-day-is-stamped-before-its-open"),
        pytest.param(every("1Day"), "2024-06-03 04:00", "2024-06-03 04:00", id="midnight"),
        pytest.param(every("1Day"), "2024-06-03 22:00", "2024-06-03 22:00", id="after-the-close"),
        pytest.param(every("1Day"), "2024-06-02 12:00", "2024-06-02 12:00", id="a-sunday"),
    ],
)
def test_what_the_last_bar_before_a_moment_needs(bars, moment, end):
    assert bars.end_before(at(moment)) == at(end)


# ------------------------------------------------------------------------------------------------- vwap of zero, and edges


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        pytest.param([(240.0, 1000.0, 0.0), (241.0, 1000.0, 241.0)], 241.0, id="one-of-two-is-zero"),
        pytest.param([(240.0, 1000.0, 0.0), (241.0, 1000.0, 241.0), (243.0, 3000.0, 243.0)], 242.5, id="one-of-three"),
        pytest.param([(240.0, 0.0, 0.0), (241.0, 0.0, 241.0), (243.0, 0.0, 243.0)], 242.0, id="no-shares"),
        pytest.param([(240.0, 1000.0, 0.0), (241.0, 0.0, 241.0)], 241.0, id="the-other-one-has-no-shares"),
        pytest.param([(240.0, 1000.0, 0.0), (241.0, 1000.0, 0.0)], 0.0, id="all-are-zero"),
    ],
)
def test_a_vwap_of_zero_weighs_nothing(minutes, expected):
    """Alpaca sends `vw` and `n` of zero for some bars; a price of zero is none."""
    times = np.array([1_717_421_400_000_000 + 60_000_000 * number for number in range(len(minutes))], np.int64)
    price, volume, vwap = (np.array(column) for column in zip(*minutes, strict=True))
    table = make_table(times, [price, price, price, price, volume, np.zeros(times.size), vwap])

    assert resample(table, Resampling(5, Hours.REGULAR)).column("vwap").to_pylist() == [expected]


@pytest.mark.parametrize(("timeframe", "hours", "fits"), [
    ("1Hour", "regular", False), ("1Hour", "extended", True), ("30Min", "regular", True), ("2Hour", "extended", False),
    ("7Min", "regular", False), ("15Min", "regular", True), ("1Hour", "all", True), ("1Day", "all", True),
])  # fmt: skip
def test_stored_bars_that_cross_the_edges_of_a_session_cannot_be_selected(timeframe, hours, fits):
    """Brute force: whether a bar of midnight UTC's grid has the open or the close of a session of a year inside it."""
    length, kind = Timeframe.parse(timeframe), Hours.parse(hours)
    days = [] if kind is Hours.ALL else list(sessions(date(2024, 1, 1), date(2024, 12, 31)))
    edges = [edge for day in days for edge in (kind.of(day).start, kind.of(day).end)]
    assert all(length.floor(edge) == edge for edge in edges) == fits
    if fits:
        check_within_sessions(length, kind)
    else:
        with pytest.raises(InputError, match=f"resample='{timeframe}'"):
            check_within_sessions(length, kind)


@pytest.mark.parametrize("value", ["15m", "15T", pd.Timedelta("15min"), np.timedelta64(15, "m"), "15 minutes"])
def test_lengths_are_written_as_pandas_writes_them(value):
    assert Resampling.parse(value, Hours.REGULAR, Timeframe.parse("1Min")) == Resampling(15, Hours.REGULAR)
    assert Resampling.parse("1d", Hours.REGULAR, Timeframe.parse("1Min")) == Resampling(None, Hours.REGULAR)
    assert Resampling.parse(pd.Timedelta("90min"), Hours.REGULAR, Timeframe.parse("1Min")) == Resampling(90, Hours.REGULAR)
    with pytest.raises(InputError, match="1Month"):
        Resampling.parse("1M", Hours.REGULAR, Timeframe.parse("1Min"))
