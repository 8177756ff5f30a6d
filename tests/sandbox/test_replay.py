"""Real bars from files: what is read, what is derived, what is aggregated."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_engine.errors import InputError, MissingFileError
from data_engine.market.series import RAW, Adjustment, Timeframe
from data_engine.market.time_range import TimeRange
from data_engine.sandbox import Replay, Sandbox
from data_engine.sandbox.splits import Split

from .calls import minutes_of, write_bars

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EVER = TimeRange(datetime(1990, 1, 1, tzinfo=UTC), NOW)


def bars(source, symbol, timeframe, *, adjustment=RAW, now=NOW, span=EVER):
    return source.bars(symbol, Timeframe.parse(timeframe), span, adjustment=adjustment, feed="sip", now=now)


def timestamps(found):
    return [str(stamp) for stamp in found.start.astype("datetime64[ns]").astype("datetime64[m]")]


def test_count_and_average_are_derived_where_the_file_has_none(tmp_path):
    start = datetime(2024, 6, 3, 8, tzinfo=UTC)
    source = Replay(
        write_bars(
            tmp_path / "a.parquet", [("A", start, 1.0, 2.0, 0.5, 1.1, 299.5), ("A", start.replace(minute=1), 1, 1, 1, 1, 7)]
        )
    )
    found = bars(source, "A", "1Min")

    assert found.trade_count.tolist() == [2.0, 1.0]
    assert found.vwap.tolist() == [1.2, 1.0]


def test_of_equal_rows_the_later_one_is_served_in_order_of_time(tmp_path):
    late, early = (datetime(2024, 6, 3, 14, minute, tzinfo=UTC) for minute in (9, 5))
    rows = [("B", late, 1, 1, 1, 1, 1), ("A", late, 2, 2, 2, 2, 2), ("B", early, 3, 3, 3, 3, 3), ("B", late, 4, 4, 4, 4, 4)]
    source = Replay(write_bars(tmp_path / "a.parquet", rows))

    assert source.symbols == ("A", "B")
    assert bars(source, "B", "1Min").close.tolist() == [3.0, 4.0]


def test_rows_without_a_price_are_left_out_and_no_volume_is_none(tmp_path):
    rows = minutes_of("A", 3)
    rows[1] = (*rows[1][:2], None, *rows[1][3:])
    rows[2] = (*rows[2][:6], None)
    found = bars(Replay(write_bars(tmp_path / "a.parquet", rows)), "A", "1Min")

    assert found.volume.tolist() == [100.0, 0.0]


def test_labels_at_the_end_of_a_minute_are_moved_to_its_start(tmp_path):
    path = write_bars(tmp_path / "a.parquet", minutes_of("A", 2))

    assert timestamps(bars(Replay(path, end_label=True), "A", "1Min")) == ["2024-06-03T13:29", "2024-06-03T13:30"]


def test_a_date_is_midnight_in_new_york_and_makes_daily_bars(tmp_path):
    rows = [("A", day, 1, 2, 1, 2, 10) for day in (date(2024, 3, 8), date(2024, 3, 11), date(2024, 3, 12))]
    source = Replay(write_bars(tmp_path / "a.parquet", rows, column="date"))

    assert timestamps(bars(source, "A", "1Day")) == ["2024-03-08T05:00", "2024-03-11T04:00", "2024-03-12T04:00"]
    assert timestamps(bars(source, "A", "1Week")) == ["2024-03-04T05:00", "2024-03-11T04:00"]
    assert len(bars(source, "A", "1Min")) == 0


def test_a_day_has_the_regular_sessions_prices_and_all_its_volume(tmp_path):
    def at(hour, minute, price):
        return ("A", datetime(2024, 6, 3, hour, minute, tzinfo=UTC), price, price + 0.5, price - 0.5, price, 100)

    rows = [at(8, 0, 1.0), at(13, 29, 2.0), at(13, 30, 5.0), at(19, 59, 6.0), at(20, 0, 99.0)]
    found = bars(Replay(write_bars(tmp_path / "a.parquet", rows)), "A", "1Day")

    assert timestamps(found) == ["2024-06-03T04:00"]
    assert [float(column[0]) for column in found.values] == [5.0, 6.5, 4.5, 6.0, 500.0, 5.0, 5.5]


def test_a_half_day_ends_at_one_o_clock(tmp_path):
    def at(hour, minute, price):
        return ("A", datetime(2024, 11, 29, hour, minute, tzinfo=UTC), price, price, price, price, 100)

    found = bars(Replay(write_bars(tmp_path / "a.parquet", [at(14, 30, 1.0), at(17, 59, 2.0), at(18, 0, 3.0)])), "A", "1Day")

    assert (found.close[0], found.volume[0]) == (2.0, 300.0)


def test_quarters_of_an_hour_are_made_of_minutes(tmp_path):
    found = bars(Replay(write_bars(tmp_path / "a.parquet", minutes_of("A", 20))), "A", "15Min")

    assert timestamps(found) == ["2024-06-03T13:30", "2024-06-03T13:45"]
    assert tuple(c.tolist() for c in found.values[:4]) == ([10.0, 25.0], [25.5, 30.5], [9.25, 24.25], [25.0, 30.0])
    assert found.volume.tolist() == [12_000.0, 9_000.0]


def test_a_bar_is_whole_however_the_span_cuts_it(tmp_path):
    source = Replay(write_bars(tmp_path / "a.parquet", minutes_of("A", 20)))
    span = TimeRange(datetime(2024, 6, 3, 13, 40, tzinfo=UTC), datetime(2024, 6, 3, 13, 46, tzinfo=UTC))

    assert bars(source, "A", "15Min", span=span).volume.tolist() == [9_000.0]


def test_a_bar_that_has_not_ended_is_not_served(tmp_path):
    source = Replay(write_bars(tmp_path / "a.parquet", minutes_of("A", 20)))

    assert len(bars(source, "A", "1Min", now=datetime(2024, 6, 3, 13, 34, 59, tzinfo=UTC))) == 4
    assert len(bars(source, "A", "1Min", now=datetime(2024, 6, 3, 13, 35, tzinfo=UTC))) == 5


@pytest.mark.parametrize(
    ("raw", "split"),
    [
        pytest.param((1146.5, 1158.1915, 1140.45, 1148.25), (114.65, 115.82, 114.05, 114.83), id="recorded-from-the-service"),
    ],
)
def test_a_split_changes_the_bars_before_it(tmp_path, raw, split):
    rows = [("NVDA", date(2024, 6, 7), *raw, 48785033), ("NVDA", date(2024, 6, 10), 120.371, 121, 117.01, 121.79, 10)]
    source = Replay(write_bars(tmp_path / "a.parquet", rows, column="date"), splits={"NVDA": (Split(date(2024, 6, 10), 10),)})
    found = bars(source, "NVDA", "1Day", adjustment=Adjustment.parse("split"))

    assert split == tuple(float(column[0]) for column in found.values[:4])
    assert found.volume.tolist() == [487850330.0, 10.0]
    assert found.open[1] == 120.371
    assert raw[0] == bars(source, "NVDA", "1Day").open[0]
    assert raw[0] == bars(source, "NVDA", "1Day", adjustment=Adjustment.parse("dividend")).open[0]


def test_fractions_of_shares_survive(tmp_path, call):
    rows = minutes_of("A", 2)
    odd = [0.1 + 0.2, 12345.678901]
    path = write_bars(tmp_path / "a.parquet", [(*row[:6], volume) for row, volume in zip(rows, odd, strict=True)])
    with Sandbox(Replay(path)) as sandbox:
        response = call(sandbox).get(symbols="A", timeframe="1Min", start="2024-06-03")

    assert odd == [bar["v"] for bar in response.json["bars"]["A"]]


def test_every_row_of_a_real_file_is_served_exactly(shared, call):
    path = shared / "data" / "minute" / "polygon_sip_ext_8sym_20240603_20240816.parquet"
    table = pq.read_table(path)
    with Sandbox(Replay(path)) as sandbox:
        walked = call(sandbox).walk(symbols="NVDA,AAPL", timeframe="1Min", start="2024-06-03", end="2024-08-16", limit="10000")

    for symbol, rows in walked.items():
        theirs = table.filter(pc.equal(table["symbol"], symbol))
        starts = np.array([row["t"][:-1] for row in rows], "datetime64[us]").astype("int64")
        assert np.array_equal(theirs["timestamp"].cast("int64").to_numpy(), starts)
        for name in ("open", "high", "low", "close", "volume"):
            assert theirs[name].to_pylist() == [row[name[0]] for row in rows]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.parquet"):
        Replay(tmp_path / "none.parquet")


def test_a_file_without_the_columns_is_refused(tmp_path):
    path = write_bars(tmp_path / "a.parquet", minutes_of("A", 1))
    pq.write_table(pq.read_table(path).drop_columns(["open"]), path)
    with pytest.raises(InputError, match="open"):
        Replay(path)
