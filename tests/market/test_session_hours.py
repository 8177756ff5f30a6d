"""Session hours: which bars start inside, against pandas' clock in New York, an independent calendar, and real bars."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.errors import InputError
from data_engine.market.bars import EMPTY, VALUES, make_table
from data_engine.market.session_hours import Hours, in_hours, session_rows
from real_data import bars_of

HALF_DAYS = [date(2024, 7, 3), date(2024, 11, 29), date(2024, 12, 24)]


def micros_of(*stamps: str) -> np.ndarray:
    return pd.to_datetime(list(stamps), utc=True).as_unit("us").asi8


def table_at(*stamps: str) -> pa.Table:
    times = micros_of(*stamps)
    return make_table(times, [np.arange(times.size, dtype=float)] * len(VALUES))


def times_of(table: pa.Table) -> list[str]:
    return [stamp.strftime("%Y-%m-%d %H:%M") for stamp in table.column("timestamp").to_pylist()]


def by_the_clock(stamps: pd.Series, hours: Hours) -> pd.Series:
    """Tell by pandas' own clock which stamps are inside; they are of sessions of 2024, or of their nights."""
    local = stamps.dt.tz_convert("America/New_York")
    minute = local.dt.hour * 60 + local.dt.minute
    half = local.dt.date.isin(HALF_DAYS)
    opens, closes, early = (570, 960, 780) if hours is Hours.REGULAR else (240, 1200, 1020)
    return (minute >= opens) & (minute < closes) & ~(half & (minute >= early))


REAL = [
    "minute/polygon_sip_ext_dst_4sym_202403_202411.parquet",
    "minute/polygon_sip_ext_halfday_3sym_20241125_20241231.parquet",
    "minute/polygon_sip_ext_8sym_20240603_20240816.parquet",
]


@pytest.mark.parametrize("hours", [Hours.REGULAR, Hours.EXTENDED])
@pytest.mark.parametrize("name", REAL)
def test_real_bars_are_inside_by_a_clock_in_new_york(name, hours):
    source = bars_of(name)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        symbols = [symbol for (symbol,) in connection.sql(f"SELECT DISTINCT symbol FROM ({source}) ORDER BY 1").fetchall()]
        for symbol in symbols:
            sql = f"SELECT * EXCLUDE symbol FROM ({source}) WHERE symbol = '{symbol}' ORDER BY timestamp"
            table = connection.sql(sql).to_arrow_table()
            frame = table.to_pandas()
            expected = frame[by_the_clock(frame["timestamp"], hours)].reset_index(drop=True)
            found = in_hours(table, hours)
            assert found.num_rows > 0
            pd.testing.assert_frame_equal(found.to_pandas(), expected)


@pytest.mark.parametrize(
    ("hours", "inside"),
    [
        pytest.param(Hours.REGULAR, ["2024-11-01 13:30", "2024-11-01 19:59", "2024-11-04 14:30"], id="regular"),
        pytest.param(
            Hours.EXTENDED,
            [
                *(f"2024-11-01 {time}" for time in ("08:00", "13:29", "13:30", "19:59", "20:00", "23:59")),
                *("2024-11-04 13:30", "2024-11-04 14:30", "2024-11-05 00:59"),
            ],
            id="extended",
        ),
    ],
)
def test_hours_follow_the_clock_of_new_york_over_a_change(hours, inside):
    """Summer time ended on Sunday, 2024-11-03; Monday's evening ends on Tuesday in UTC."""
    friday = ["07:59", "08:00", "13:29", "13:30", "19:59", "20:00", "23:59"]
    stamps = [f"2024-11-01 {time}" for time in friday] + ["2024-11-02 00:00", "2024-11-03 15:00", "2024-11-04 08:59"]
    stamps += ["2024-11-04 13:30", "2024-11-04 14:30", "2024-11-05 00:59", "2024-11-05 01:00"]

    assert times_of(in_hours(table_at(*stamps), hours)) == inside


@pytest.mark.parametrize(
    ("hours", "last"), [pytest.param(Hours.REGULAR, "17:59", id="13:00"), pytest.param(Hours.EXTENDED, "21:59", id="17:00")]
)
def test_a_half_day_closes_early(hours, last):
    """The day after Thanksgiving; on the holiday itself nothing is inside."""
    minutes = pd.date_range("2024-11-28 05:00", "2024-11-30 05:00", freq="min", inclusive="left").strftime("%Y-%m-%d %H:%M")
    found = times_of(in_hours(table_at(*minutes), hours))

    assert (found[0][:10], found[-1]) == ("2024-11-29", f"2024-11-29 {last}")


def test_all_hours_are_every_bar_and_the_same_table():
    table = table_at("2024-11-02 00:00", "2024-11-03 15:00")

    assert in_hours(table, Hours.ALL) is table


def test_where_every_bar_is_inside_nothing_is_copied():
    table = table_at("2024-11-04 14:30", "2024-11-05 14:30")

    assert in_hours(table, Hours.REGULAR) is table


@pytest.mark.parametrize("hours", [Hours.REGULAR, Hours.EXTENDED])
def test_no_bars_and_none_inside_are_tables_of_the_same_columns(hours):
    for table in (EMPTY, table_at("2024-11-02 15:00"), table_at("2024-11-02 15:00").select(["timestamp", "close"])):
        found = in_hours(table, hours)
        assert (found.num_rows, found.schema) == (0, table.schema)


def test_columns_in_pieces_are_put_together():
    table = pa.concat_tables([table_at("2024-11-04 12:00", "2024-11-04 14:30"), table_at("2024-11-04 15:00", "2024-11-05 01:00")])

    assert in_hours(table, Hours.REGULAR).select(["timestamp", "close"]).to_pydict() == {
        "timestamp": [datetime(2024, 11, 4, 14, 30, tzinfo=UTC), datetime(2024, 11, 4, 15, tzinfo=UTC)],
        "close": [1.0, 0.0],
    }


def test_sessions_are_found_with_their_midnights_and_places():
    times = micros_of("2024-03-08 14:30", "2024-03-08 20:59", "2024-03-09 15:00", "2024-03-11 13:30", "2024-03-11 20:00")
    found = session_rows(times, Hours.REGULAR)

    assert found.midnights.tolist() == micros_of("2024-03-08 05:00", "2024-03-11 04:00").tolist()
    assert found.opens.tolist() == micros_of("2024-03-08 14:30", "2024-03-11 13:30").tolist()
    assert (found.starts.tolist(), found.stops.tolist()) == ([0, 3], [2, 4])


@pytest.fixture(scope="module")
def judge() -> list[tuple[float, float]]:
    """The opens and closes of another package, as seconds since 1970."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses what pandas has deprecated
        import exchange_calendars

        schedule = exchange_calendars.get_calendar("XNYS", start="2016-01-01", end="2026-06-30").schedule
        return [
            (opens.timestamp(), closes.timestamp()) for opens, closes in zip(schedule["open"], schedule["close"], strict=True)
        ]


@given(st.sets(st.integers(0, 10 * 365 * 1440), min_size=1, max_size=40))
def test_ten_years_are_inside_as_the_judges_calendar_says(judge, minutes):
    stamps = [datetime(2016, 1, 4, tzinfo=UTC) + timedelta(minutes=minute) for minute in sorted(minutes)]
    table = table_at(*(stamp.isoformat() for stamp in stamps))

    expected = []
    for stamp in stamps:
        opens, closes = judge[max(0, bisect_right(judge, (stamp.timestamp(), float("inf"))) - 1)]
        expected += [f"{stamp:%Y-%m-%d %H:%M}"] if opens <= stamp.timestamp() < closes else []
    assert times_of(in_hours(table, Hours.REGULAR)) == expected


@pytest.mark.parametrize("value", ["pre", "Regular", None, 1, ""])
def test_other_hours_are_refused(value):
    with pytest.raises(InputError, match=r"session .* all, regular, extended"):
        Hours.parse(value)


def test_hours_are_read():
    assert [Hours.parse(value) for value in ("all", "regular", "extended", Hours.REGULAR)] == [*Hours, Hours.REGULAR]
