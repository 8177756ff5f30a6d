"""The store of bars: what was stored is what is loaded, whatever was stored before, and nothing else is claimed.

All of it on every kind of place; what is there is read from a copy of plain files, as anybody could make one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine import FrameWarning, IncompleteWarning, ParquetStorage
from data_engine.errors import DamagedFile, InputError, StoreError
from data_engine.market.bar_frame import from_frame, to_frame
from data_engine.market.bars import EMPTY, VALUES, Changes, timestamps_us
from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange, difference
from data_engine.read import open_query
from data_engine.store.coverage import Coverage
from data_engine.store.dated_ranges import Tentative
from data_engine.store.file_edit import WriteResult
from data_engine.store.partitions import Partition, Period
from real_data import bars_of, real
from stores import Place, not_on_moto

# Most of these tests ask for more than they stored; tests/read/test_completeness.py is about what is said then.
pytestmark = pytest.mark.filterwarnings("ignore::data_engine.IncompleteWarning")

MINUTES = Dataset(Timeframe.parse("1Min"))
DAYS = Dataset(Timeframe.parse("1Day"))
A = Series("A", MINUTES)
JUNE = Period(2024, 6)


class PlacedStorage(ParquetStorage):
    """A store that knows the place that it is in."""

    def __init__(self, place: Place) -> None:
        super().__init__(files=place.files)
        self.place = place


@pytest.fixture
def storage(place) -> PlacedStorage:
    return PlacedStorage(place)


def assert_in(message: str, *named: str) -> None:
    assert [word for word in named if word not in message] == [], message


def assert_named(caught: pytest.ExceptionInfo[Exception], *named: str) -> None:
    """The error names each value at fault, and what to do."""
    assert_in(str(caught.value), *named)


def nothing_is_there(storage: PlacedStorage) -> bool:
    return storage.place.content() == {} and not (storage.place.on_disk and Path(storage.place.base).exists())


def frame(symbol: str, *timestamps: str, price: float = 1.0) -> pd.DataFrame:
    """Return bars of one symbol at these times (UTC), all values *price*."""
    index = pd.MultiIndex.from_product([[symbol], pd.to_datetime(list(timestamps), utc=True)], names=["symbol", "timestamp"])
    return pd.DataFrame(price, index=index, columns=list(VALUES))


def bars_at(*timestamps: str, price: float = 1.0):
    return from_frame(frame("A", *timestamps, price=price))["A"]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def between(start: str, end: str) -> TimeRange:
    return TimeRange(at(start), at(end))


def closes(bars: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Return the closing prices by symbol and minute, without pandas' own idea of equality."""
    return {(symbol, f"{timestamp:%Y-%m-%d %H:%M}"): price for (symbol, timestamp), price in bars["close"].items()}


def contents(storage: PlacedStorage) -> dict[str, bytes]:
    """Return the bytes of every Parquet file, found by its name as any reader would."""
    return {key: data for key, data in storage.place.content().items() if key.endswith(".parquet")}


class Reader:
    """DuckDB over files, in UTC: the other road to every expected value."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")

    def rows(self, sql: str) -> list[tuple]:
        return self.connection.execute(sql).fetchall()

    def frame(self, sql: str) -> pd.DataFrame:
        """Return rows of symbol, timestamp and values as a user's frame."""
        return self.connection.sql(sql).to_arrow_table().to_pandas().set_index(["symbol", "timestamp"])

    def store(self, storage: PlacedStorage, dataset: str = "equities_1min") -> str:
        """Return SQL for all rows of a dataset, read as the README tells users to."""
        pinned = "hive_partitioning = true, hive_types = {'symbol': VARCHAR}"
        files = f"read_parquet('{storage.place.copy()}/{dataset}/**/*.parquet', {pinned})"
        return f"SELECT symbol, timestamp, {', '.join(VALUES)} FROM {files}"

    def difference(self, left: str, right: str) -> list[tuple]:
        """Return the rows that are in one result alone, with how often."""
        return self.rows(f"(({left}) EXCEPT ALL ({right})) UNION ALL (({right}) EXCEPT ALL ({left})) LIMIT 5")


@pytest.fixture
def reader():
    reader = Reader()
    yield reader
    reader.connection.close()


EIGHT = "minute/polygon_sip_ext_8sym_20240603_20240816.parquet"


# ---------------------------------------------------------------------------------------------- real bars, there and back


def test_a_file_of_real_bars_is_read_back_by_everyone(storage, reader):
    """The clock changes of 2024: rows, values and order, through DuckDB, Polars and `load`."""
    source = bars_of("minute/polygon_sip_ext_dst_4sym_202403_202411.parquet")
    bars = reader.frame(source)
    written = storage.store(bars)

    assert written == WriteResult(rows=len(bars), changes=Changes(len(bars)))
    assert reader.difference(source, reader.store(storage)) == []
    polars = pl.scan_parquet(
        storage.place.copy() / "equities_1min", hive_schema={"symbol": pl.String, "year": pl.Int32, "month": pl.Int32}
    )
    ordered = polars.select("symbol", "timestamp", *VALUES).sort("symbol", "timestamp").collect()
    assert ordered.rows() == pl.from_pandas(bars.reset_index()).sort("symbol", "timestamp").rows()
    loaded = storage.load(bars.index.get_level_values("symbol").unique(), "2024-01-01", "2024-12-31")
    pd.testing.assert_frame_equal(loaded, bars.sort_index(), check_index_type=False, check_like=False)


def test_fractional_volumes_survive(storage, reader):
    source = bars_of("minute/polygon_sip_ext_fracvol_3sym_202602.parquet")
    assert reader.rows(f"SELECT count(*) > 0 FROM ({source}) WHERE volume != floor(volume)") == [(True,)]
    storage.store(reader.frame(source))

    assert reader.difference(source, reader.store(storage)) == []


def test_daily_bars_lie_in_a_file_a_year(storage, reader):
    """A ``date`` of the file is midnight in New York, as Alpaca timestamps it."""
    path = real("daily/tiingo_raw_adj_12sym_20240401_20260331.parquet")
    source = (
        "SELECT symbol, (date::DATE::TIMESTAMP AT TIME ZONE 'America/New_York') AS timestamp, open, high, low, close,"
        f" volume::DOUBLE AS volume, 1.0::DOUBLE AS trade_count, close AS vwap FROM '{path}'"
    )
    bars = reader.frame(source)
    storage.store(bars, timeframe="1Day")

    assert reader.difference(source, reader.store(storage, "equities_1day")) == []
    expected = {
        f"equities_1day/symbol={symbol}/year={year}/data.parquet"
        for symbol, year in reader.rows(f"SELECT DISTINCT symbol, year(date::DATE) FROM '{path}'")
    }
    assert set(contents(storage)) == expected


def test_a_day_that_is_fetched_again_leaves_the_rest_of_its_month(storage, reader):
    """June of eight symbols, then 2024-06-10 again with other values, fewer bars, and one that is new."""
    june = f"SELECT * FROM ({bars_of(EIGHT)}) WHERE timestamp < TIMESTAMPTZ '2024-07-01 00:00:00Z'"
    again = (
        f"SELECT * REPLACE (close + 0.01 AS close, volume + 1 AS volume) FROM ({june})"
        " WHERE timestamp::DATE = DATE '2024-06-10' AND minute(timestamp) % 3 != 0"
        " UNION ALL SELECT 'SPCX', TIMESTAMPTZ '2024-06-10 08:00:00Z', 1, 2, 0.5, 1.5, 100, 1, 1.1"
    )
    storage.store(reader.frame(june))
    written = storage.store(reader.frame(again))

    merged = (
        f"({again}) UNION ALL SELECT * FROM ({june}) WHERE (symbol, timestamp) NOT IN (SELECT (symbol, timestamp) FROM ({again}))"
    )
    assert reader.difference(merged, reader.store(storage)) == []
    ((revised,),) = reader.rows(
        f"SELECT count(*) FROM ({again}) WHERE (symbol, timestamp) IN (SELECT (symbol, timestamp) FROM ({june}))"
    )
    assert (written.changes.added, written.changes.revised, written.changes.vanished) == (1, revised, 0)
    assert written.rows == reader.rows(f"SELECT count(*) FROM ({merged})")[0][0]


def test_of_bars_that_were_fetched_several_times_the_latest_win(storage, reader):
    """Real revisions: yfinance, asked up to three times about the same minutes."""
    path = real("minute/yfinance_rth_8sym_202603_multifetch.parquet")
    source = bars_of("minute/yfinance_rth_8sym_202603_multifetch.parquet").replace("FROM read", ", fetched_at FROM read")
    fetches = [timestamp for (timestamp,) in reader.rows(f"SELECT DISTINCT fetched_at FROM '{path}' ORDER BY 1")]
    for timestamp in fetches:
        storage.store(reader.frame(f"SELECT * EXCLUDE fetched_at FROM ({source}) WHERE fetched_at = '{timestamp}'"))

    newest = "row_number() OVER (PARTITION BY symbol, timestamp ORDER BY fetched_at DESC) = 1"
    latest = f"SELECT * EXCLUDE fetched_at FROM ({source}) QUALIFY {newest}"
    assert len(fetches) == 3
    assert reader.difference(latest, reader.store(storage)) == []


def test_storing_twice_is_storing_once(storage, reader):
    bars = reader.frame(bars_of("minute/alpaca_iex_SPY_202506.parquet").replace("greatest(1, floor(volume / 100))", "1"))
    first = storage.store(bars)
    before = contents(storage)
    second = storage.store(bars)

    assert (first.changes.added, second) == (len(bars), WriteResult(rows=first.rows))
    assert contents(storage) == before


def test_any_order_and_cutting_gives_the_same_bytes(new_place, reader):
    """Whole; by day, backwards; by symbol in four threads and twice over."""
    not_on_moto(new_place())
    bars = reader.frame(f"SELECT * FROM ({bars_of(EIGHT)}) WHERE symbol IN ('AAPL', 'SPCX', 'ACHR') AND timestamp < '2024-07-10'")
    whole, by_day, in_threads = (PlacedStorage(new_place()) for _ in range(3))
    whole.store(bars)
    days = bars.index.get_level_values("timestamp").date
    for day in sorted(set(days), reverse=True):
        by_day.store(bars[days == day])
    pieces = [bars.iloc[at::4] for at in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(in_threads.store, pieces * 2))

    assert len(contents(whole)) == 6
    assert contents(whole) == contents(by_day) == contents(in_threads)


# ------------------------------------------------------------------------------------------------------------- upserting

a_minute = st.integers(0, 90 * 24 * 60)
some_bars = st.dictionaries(
    st.tuples(st.sampled_from(["A", "NA", "2330"]), a_minute), st.sampled_from([1.0, 2.0, 2.5]), min_size=1, max_size=8
)


def test_the_store_is_a_dictionary_of_bars(new_place):
    """One row per (symbol, timestamp); the new one wins."""

    @settings(max_examples=20 if new_place().on_disk else 5, deadline=None)
    @given(st.lists(some_bars, min_size=1, max_size=4))
    def check(batches):
        behaves_as_a_dictionary(PlacedStorage(new_place()), batches)

    check()


def behaves_as_a_dictionary(storage, batches):
    expected = {}
    for batch in batches:
        stored = [
            frame(symbol, str(at("2024-05-15") + timedelta(minutes=minute)), price=price)
            for (symbol, minute), price in batch.items()
        ]
        storage.store(pd.concat(stored))
        expected.update(batch)

    loaded = storage.load(["A", "NA", "2330"], "2024-05-01", "2024-09-01")
    moments = {
        (symbol, f"{at('2024-05-15') + timedelta(minutes=minute):%Y-%m-%d %H:%M}"): price
        for (symbol, minute), price in expected.items()
    }
    assert closes(loaded) == moments
    assert list(closes(loaded)) == sorted(moments)


def test_a_frame_with_one_bad_symbol_stores_nothing(storage):
    good, bad = frame("A", "2024-06-03T14:00"), frame("A B", "2024-06-03T14:00")

    with pytest.raises(InputError, match="'A B'"):
        storage.store(pd.concat([good, bad]))
    assert nothing_is_there(storage)


def test_two_spellings_of_one_symbol_lose_no_bar(storage):
    storage.store(pd.concat([frame("AAPL", "2024-06-03T14:00"), frame("aapl", "2024-06-03T14:01", price=2.0)]))

    assert closes(storage.load("AAPL", "2024-06-03", "2024-06-03")) == {
        ("AAPL", "2024-06-03 14:00"): 1.0,
        ("AAPL", "2024-06-03 14:01"): 2.0,
    }


def test_an_empty_frame_stores_nothing(storage):
    assert storage.store(pd.DataFrame()) == storage.store(to_frame([])) == WriteResult()
    assert nothing_is_there(storage)


def test_storing_claims_no_coverage_but_notes_what_is_there(storage):
    storage.store(frame("A", "2024-06-03T14:00", "2024-06-04T14:00", "2024-07-01T14:00"))
    known = storage.bars.coverage.read(A)

    assert known.wanted == known.covered == known.provisional == ()
    assert known.rows == {JUNE: 2, Period(2024, 7): 1}
    assert (known.first_bar, known.last_bar, known.bars) == (at("2024-06-03T14:00"), at("2024-07-01T14:00"), 3)


STRANGE = ["CON", "NA", "TRUE", "INF", "2330", "NULL", "NAN", "BRK.B", "BRK/B", "BF-B", "A+B"]


def test_symbols_that_readers_take_for_something_else_survive(storage, reader):
    storage.store(pd.concat([frame(symbol, "2024-06-03T14:00", price=number) for number, symbol in enumerate(STRANGE)]))

    expected = {(symbol, "2024-06-03 14:00"): float(number) for number, symbol in enumerate(STRANGE)}
    assert closes(storage.load(STRANGE, "2024-06-03", "2024-06-03")) == expected
    assert dict(reader.rows(f"SELECT symbol, close FROM ({reader.store(storage)})")) == {
        symbol: price for (symbol, _), price in expected.items()
    }
    assert storage.bars.symbols(MINUTES) == sorted(STRANGE)


# ------------------------------------------------------------------------------------------------ which bars these are


def marked(bars: pd.DataFrame, **mark: object) -> pd.DataFrame:
    bars.attrs["data_engine"] = {"timeframe": "1Min", "feed": "sip", "adjustment": "raw", "asof": None, "currency": None, **mark}
    return bars


@pytest.mark.parametrize(
    ("mark", "arguments", "dataset"),
    [
        pytest.param(None, {}, "equities_1min", id="minutes-of-the-tape-unless-said"),
        pytest.param({}, {}, "equities_1min", id="the-mark-says-the-same"),
        pytest.param(
            {"timeframe": "5Min", "feed": "iex", "adjustment": "split"}, {}, "equities_5min_split_iex", id="the-mark-decides"
        ),
        pytest.param(
            None, {"timeframe": "5Min", "feed": "iex", "adjustment": "all"}, "equities_5min_all_iex", id="arguments-decide"
        ),
        pytest.param({"feed": "iex"}, {"feed": "IEX", "timeframe": "1min"}, "equities_1min_iex", id="both-agree-in-other-words"),
        pytest.param({"feed": "delayed_sip"}, {"feed": "sip"}, "equities_1min", id="delayed-is-the-tape"),
        pytest.param({"currency": "USD"}, {}, "equities_1min", id="dollars"),
        pytest.param({"feed": "account"}, {}, "equities_1min_account", id="the-account's-own-feed"),
    ],
)
def test_bars_land_in_the_dataset_that_they_are_of(storage, mark, arguments, dataset):
    bars = frame("A", "2024-06-03T14:00")
    storage.store(bars if mark is None else marked(bars, **mark), **arguments)

    assert list(contents(storage)) == [f"{dataset}/symbol=A/year=2024/month=06/data.parquet"]


@pytest.mark.parametrize(
    ("mark", "arguments", "named"),
    [
        ({"timeframe": "1Day"}, {"timeframe": "1Min"}, ["timeframe='1Min'", "timeframe='1Day'"]),
        ({"feed": "iex"}, {"feed": "sip"}, ["feed='sip'", "feed='iex'"]),
        ({"adjustment": "all"}, {"adjustment": "raw"}, ["adjustment='raw'", "adjustment='all'"]),
        ({"asof": "2020-01-01"}, {}, ["asof", "2020-01-01"]),
        ({"asof": "-"}, {}, ["asof", "-"]),
        ({"currency": "EUR"}, {}, ["currency", "EUR"]),
        (None, {"timeframe": "61Min"}, ["timeframe", "61Min"]),
        (None, {"feed": "nasdaq"}, ["feed", "nasdaq"]),
    ],
)
def test_contradictions_are_refused_before_anything_is_written(storage, mark, arguments, named):
    bars = frame("A", "2024-06-03T14:00")
    with pytest.raises(InputError) as caught:
        storage.store(bars if mark is None else marked(bars, **mark), **arguments)

    assert_named(caught, *named)
    assert nothing_is_there(storage)


def test_loaded_bars_carry_their_mark_into_the_next_store(storage, new_place):
    storage.store(frame("A", "2024-06-03T04:00", "2024-06-04T04:00"), timeframe="1Day", adjustment="split", feed="iex")
    loaded = storage.load("A", "2024-06-03", "2024-06-04", timeframe="1Day", adjustment="split", feed="iex")
    other = PlacedStorage(new_place())
    other.store(loaded)

    assert contents(other) == contents(storage) != {}
    with pytest.raises(InputError, match=r"timeframe='1Min'.*timeframe='1Day'"):
        other.store(loaded, timeframe="1Min")


DAILY = ["midnight", "timeframe='1Day'"]


@pytest.mark.parametrize(
    ("timeframe", "timestamps", "named"),
    [
        pytest.param("1Min", ["2024-06-03T04:00", "2024-06-04T04:00"], DAILY, id="days-among-minutes"),
        pytest.param("1Hour", ["2024-06-03T04:00", "2024-12-03T05:00"], DAILY, id="days-among-hours"),
        pytest.param("1Min", ["2024-06-03T04:00"], DAILY, id="one-day-among-minutes"),
        pytest.param("1Min", ["2024-06-03T00:00", "2024-06-04T00:00"], DAILY, id="days-of-utc-among-minutes"),
        pytest.param(
            "1Min",
            ["2024-06-03T14:00:30"],
            ["A", "2024-06-03T14:00:30Z", "1Min"],
            id="half-a-minute",
        ),
        pytest.param(
            "5Min",
            ["2024-06-03T14:00", "2024-06-03T14:01"],
            ["2024-06-03T14:01:00Z", "5Min"],
            id="minutes-among-five-minutes",
        ),
        pytest.param("1Hour", ["2024-06-03T13:30"], ["2024-06-03T13:30:00Z", "1Hour"], id="half-past"),
        pytest.param(
            "7Hour",
            ["2024-06-03T13:00"],
            ["2024-06-03T13:00:00Z", "7Hour"],
            id="seven-hours-count-from-midnight",
        ),
        pytest.param(
            "1Day",
            ["2024-06-03T04:00", "2024-06-04T00:00"],
            ["2024-06-04T00:00:00Z", "1Day"],
            id="midnight-utc",
        ),
        pytest.param("1Day", ["2024-06-03T04:00:00.000001"], ["2024-06-03T04:00:00.000001Z", "1Day"], id="a-microsecond-late"),
        pytest.param("1Week", ["2024-06-04T04:00"], ["2024-06-04T04:00:00Z", "1Week"], id="a-tuesday"),
        pytest.param("3Month", ["2024-06-01T04:00"], ["2024-06-01T04:00:00Z", "3Month"], id="june-is-no-quarter"),
    ],
)
def test_timestamps_that_cannot_be_of_the_timeframe_are_refused(storage, timeframe, timestamps, named):
    with pytest.raises(InputError) as caught:
        storage.store(frame("A", *timestamps), timeframe=timeframe)
    assert_named(caught, *named)

    assert nothing_is_there(storage)


@pytest.mark.parametrize(
    ("timeframe", "timestamps"),
    [
        pytest.param("1Min", ["2024-06-03T04:00", "2024-06-03T08:00"], id="a-minute-at-midnight-among-others"),
        pytest.param("1Min", ["2024-06-03T00:00"], id="eight-in-the-evening"),
        pytest.param("7Hour", ["2024-06-03T14:00", "2024-06-03T21:00", "2024-06-04T00:00"], id="seven-hours"),
        pytest.param("1Day", ["2024-03-08T05:00", "2024-03-11T04:00"], id="days-across-the-clock-change"),
        pytest.param("1Week", ["2024-06-03T04:00"], id="a-monday"),
        pytest.param("1Month", ["2024-11-01T04:00", "2024-12-01T05:00"], id="months-across-the-clock-change"),
        pytest.param("12Month", ["2024-01-01T05:00"], id="a-year"),
    ],
)
def test_timestamps_of_the_timeframe_are_taken(storage, timeframe, timestamps):
    assert storage.store(frame("A", *timestamps), timeframe=timeframe).changes.added == len(timestamps)


@pytest.mark.parametrize("feed", ["boats", "account"])
def test_a_feed_that_trades_overnight_may_have_one_midnight_and_not_two(storage, feed):
    assert storage.store(frame("A", "2024-06-03T04:00"), feed=feed).changes.added == 1
    with pytest.raises(InputError) as caught:
        storage.store(frame("A", "2024-06-03T04:00", "2024-06-04T04:00"), feed=feed)
    assert_named(caught, *DAILY)


def test_one_day_of_many_symbols_does_not_land_among_minutes(storage):
    """What alpaca-py's ``.df`` gives for a list of symbols and one day of daily bars, which nobody has marked."""
    with pytest.raises(InputError, match="timeframe='1Day'"):
        storage.store(pd.concat([frame(symbol, "2024-06-03T04:00") for symbol in ("AAPL", "MSFT", "NVDA")]))


# ----------------------------------------------------------------------------------------------------- what `store` says


def test_rows_that_are_folded_are_counted_and_named_if_they_differ(storage):
    """A file that was appended to itself, and one that was appended with other values."""
    session = [f"2024-06-03T{14 + at // 60:02d}:{at % 60:02d}" for at in range(390)]
    once, other = frame("A", *session), frame("A", *session, price=2.0)
    twice = storage.store(pd.concat([once, once]), timeframe="1Min")
    assert (twice.rows, twice.folded) == (390, 390)

    with pytest.warns(FrameWarning, match="390 of 780 rows differ"):
        again = storage.store(pd.concat([once, other]), timeframe="1Min")
    assert (again.rows, again.folded, again.changes.revised) == (390, 390, 390)
    assert set(storage.load("A", "2024-06-03")["close"]) == {2.0}


def test_a_frame_that_does_not_say_what_it_is_is_named_once(storage):
    with pytest.warns(FrameWarning, match=r"equities_1min; pass timeframe='1Min'"):
        storage.store(frame("A", "2024-06-03T14:00"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        storage.store(frame("A", "2024-06-03T14:01"))
        ParquetStorage(files=storage.files).store(frame("A", "2024-06-03T14:02"), "1Min")
        ParquetStorage(files=storage.files).store(storage.load("A", "2024-06-03"))
        ParquetStorage(files=storage.files).store(pd.DataFrame())


@pytest.mark.parametrize(("minutes", "longer"), [(60, "1Hour"), (30, "30Min"), (15, "15Min"), (5, "5Min")])
def test_longer_bars_that_nothing_marks_are_noticed(storage, minutes, longer):
    """Sixteen hours are no minutes; who says that they are is believed."""
    stamps = [str(at("2024-06-03T08:00") + timedelta(minutes=minutes * number)) for number in range(16)]
    with pytest.raises(InputError, match=f"16 timestamps .*timeframe='{longer}'"):
        storage.store(frame("A", *stamps))
    assert nothing_is_there(storage)
    assert storage.store(frame("A", *stamps), timeframe="1Min").rows == 16


def test_one_timestamp_off_the_grid_is_counted_among_all(storage):
    stamps = [str(at("2024-06-03T08:00") + timedelta(minutes=number)) for number in range(500)]
    stray = "2024-06-03 20:00:30+00:00"
    with pytest.raises(InputError) as caught:
        storage.store(pd.concat([frame("A", *stamps), frame("B", *stamps, stray)]))
    assert_named(caught, "1 of 1,001 timestamps", "B at 2024-06-03T20:00:30Z", "leave these rows out")
    with pytest.raises(InputError, match=r"400 of 500 timestamps .*pass the timeframe"):
        storage.store(frame("A", *stamps), timeframe="5Min")


def test_timestamps_come_in_the_zone_that_is_asked_for(storage):
    storage.store(frame("A", *EDGES), "1Min")
    utc, local = (storage.load("A", "2024-06-03", "2024-06-04", tz=zone) for zone in (None, "America/New_York"))

    assert str(local.index.dtypes["timestamp"]) == "datetime64[ns, America/New_York]"
    pd.testing.assert_frame_equal(local.tz_convert("UTC", level="timestamp"), utc)
    with pytest.raises(InputError, match="tz 'Mars'"):
        storage.load("A", "2024-06-03", tz="Mars")


# --------------------------------------------------------------------------------------------------------------- loading

EDGES = ["2024-06-03T03:59", "2024-06-03T04:00", "2024-06-03T14:00", "2024-06-04T03:59", "2024-06-04T04:00", "2024-06-05T00:00"]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        pytest.param("2024-06-03", "2024-06-03", EDGES[1:4], id="a-day-of-new-york"),
        pytest.param("2024-06-03", "2024-06-04", EDGES[1:6], id="the-end-day-is-included"),
        pytest.param(date(2024, 6, 3), date(2024, 6, 3), EDGES[1:4], id="dates"),
        pytest.param(datetime(2024, 6, 3), datetime(2024, 6, 3), EDGES[1:4], id="naive-midnights-are-days"),
        pytest.param("2024-06-03T04:00:00Z", "2024-06-04T03:59:00Z", EDGES[1:3], id="an-instant-is-excluded"),
        pytest.param(at("2024-06-03T14:00"), "2024-06-03", EDGES[2:4], id="an-instant-to-a-day"),
        pytest.param(pd.Timestamp("2024-06-03T10:00", tz="America/New_York"), None, EDGES[2:], id="from-an-instant-to-now"),
        pytest.param("2024-06-01", "2024-06-02", EDGES[:1], id="a-sunday-ends-at-midnight-of-new-york"),
        pytest.param("2023-01-01", "2023-12-31", [], id="a-year-without-bars"),
    ],
)
def test_dates_are_days_of_new_york_and_included(storage, start, end, expected):
    storage.store(frame("A", *EDGES))

    assert list(closes(storage.load("A", start, end))) == [("A", timestamp.replace("T", " ")) for timestamp in expected]


@pytest.mark.parametrize(
    ("start", "end"), [("2024-06-04", "2024-06-03"), ("June", None), (datetime(2024, 6, 3, 10), None), ("2190-01-01", None)]
)
def test_dates_that_make_no_range_are_refused(storage, start, end):
    storage.store(frame("A", *EDGES))

    with pytest.raises(InputError, match=r"start|end"):
        storage.load("A", start, end)


@pytest.mark.parametrize("columns", [["close"], ["vwap", "open"], ("volume",), [], ["close", "close"], "close"])
def test_some_columns(storage, columns):
    storage.store(frame("A", "2024-06-03T14:00", "2024-07-03T14:00", "2024-08-01T14:00", price=2.0))
    loaded = storage.load("A", "2024-06-01", "2024-08-31", columns=columns)

    expected = [columns] if isinstance(columns, str) else list(dict.fromkeys(columns))
    assert (list(loaded.columns), len(loaded)) == (expected, 3)
    assert loaded.to_numpy().tolist() == [[2.0] * len(expected)] * 3


@pytest.mark.parametrize("columns", [["price"], ["close", "timestamp"], "price"])
def test_columns_that_there_are_not_are_refused(storage, columns):
    with pytest.raises(InputError, match="open, high, low, close, volume, trade_count, vwap"):
        storage.load("A", "2024-06-01", columns=columns)


def test_several_symbols_come_sorted_whatever_the_order_and_case(storage):
    storage.store(pd.concat([frame(symbol, "2024-06-03T14:00", "2024-07-03T14:00") for symbol in ("B", "A", "C")]))
    loaded = storage.load(["b", "A", "B", "NONE"], "2024-06-01", "2024-07-31")

    assert [symbol for symbol, _ in closes(loaded)] == ["A", "A", "B", "B"]
    pd.testing.assert_frame_equal(
        storage.load(iter(["A"]), "2024-06-01", "2024-07-31"), loaded.loc[["A"]], check_index_type=False
    )


@pytest.mark.parametrize("symbols", [[], "NONE", ["NONE", "NEITHER"]])
def test_no_rows_have_the_same_shape(storage, symbols):
    storage.store(frame("A", "2024-06-03T14:00"))
    loaded, some = storage.load(symbols, "2024-06-03", "2024-06-03"), storage.load("A", "2024-06-03", "2024-06-03")

    assert (len(loaded), loaded.index.names, list(loaded.columns)) == (0, ["symbol", "timestamp"], list(VALUES))
    assert dict(loaded.dtypes) == dict(some.dtypes)
    assert str(loaded.index.dtypes["timestamp"]) == str(some.index.dtypes["timestamp"]) == "datetime64[ns, UTC]"


def test_datasets_do_not_meet(storage):
    day = ["2024-06-03T04:00", "2024-06-04T04:00"]
    kinds = [{}, {"feed": "iex"}, {"adjustment": "split"}, {"timeframe": "5Min"}]
    for price, kind in enumerate(kinds):
        storage.store(frame("A", "2024-06-03T14:00", price=price), **kind)
    storage.store(frame("A", *day, price=9.0), timeframe="1Day")

    for price, kind in enumerate(kinds):
        prices = {"prices": "vendor"} if "adjustment" in kind else {}
        assert closes(storage.load("A", "2024-06-03", "2024-06-03", **kind, **prices)) == {("A", "2024-06-03 14:00"): price}
    assert closes(storage.load("A", "2024-06-03", "2024-06-03", timeframe="day")) == {("A", "2024-06-03 04:00"): 9.0}


def test_where_there_is_no_store_it_says_so_and_makes_none(storage):
    with pytest.raises(StoreError, match=re.escape(storage.place.base)):
        storage.load("A", "2024-06-03", "2024-06-03")

    assert not storage.bars.exists()
    assert nothing_is_there(storage)
    assert repr(storage) == f"PlacedStorage({storage.place.base!r})"


# ------------------------------------------------------------------------------------------------------ what is not whole


@pytest.fixture
def broken_off(storage) -> ParquetStorage:
    """A store in which June was wanted and only its first week came; 2024-06-19 is a holiday."""
    storage.store(frame("A", "2024-06-03T14:00"))
    wanted, covered = between("2024-06-01T04:00", "2024-07-01T04:00"), between("2024-06-01T04:00", "2024-06-08T04:00")
    storage.bars.coverage.update(A, lambda known: Coverage(A, (wanted,), (covered,), rows=known.rows))
    return storage


WHAT_IS_LEFT = ["A in equities_1min", "2024-06-08T04:00:00Z .. 2024-07-01T04:00:00Z", "`data-engine update A`"]


def test_a_range_that_is_not_whole_is_named_in_a_warning_at_the_caller(broken_off):
    with pytest.warns(IncompleteWarning) as caught:
        loaded = broken_off.load("A", "2024-06-01", "2024-06-30")

    assert len(caught) == 1
    assert_in(str(caught[0].message), *WHAT_IS_LEFT)
    assert caught[0].filename == __file__
    assert len(loaded) == 1


def test_a_range_that_is_not_whole_can_be_an_error_or_nothing(broken_off):
    with pytest.raises(StoreError) as caught:
        broken_off.load("A", "2024-06-01", "2024-06-30", incomplete="raise")
    assert_named(caught, *WHAT_IS_LEFT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(broken_off.load("A", "2024-06-01", "2024-06-30", incomplete="ignore")) == 1
    with pytest.raises(InputError, match=r"incomplete='quiet'.*warn, raise, ignore"):
        broken_off.load("A", "2024-06-01", incomplete="quiet")


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param("2024-06-01", "2024-06-07", id="what-is-covered"),
        pytest.param("2024-06-08", "2024-06-09", id="a-weekend-that-is-not-covered"),
        pytest.param("2024-06-19", "2024-06-19", id="a-holiday-that-is-not-covered"),
    ],
)
def test_what_lacks_nothing_that_can_have_bars_is_not_warned_of(broken_off, start, end):
    assert broken_off.load("A", start, end, incomplete="raise") is not None


def test_a_provisional_tail_is_there(broken_off):
    rest = between("2024-06-08T04:00", "2024-07-01T04:00")
    broken_off.bars.coverage.update(A, lambda known: Coverage(A, known.wanted, known.covered, (rest,)))

    assert len(broken_off.load("A", "2024-06-01", "2024-06-30", incomplete="raise")) == 1


def evening(storage: ParquetStorage, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Store what an update at 20:45 on Friday 2024-06-07 leaves of daily bars; return how they are loaded later."""
    days = Series("A", DAYS)
    storage.store(frame("A", "2024-06-05T04:00", "2024-06-06T04:00"), timeframe="1Day")
    wanted, tail = between("2024-06-05T04:00", "2024-06-08T00:45"), between("2024-06-06T04:00", "2024-06-07T04:00")
    covered = between("2024-06-05T04:00", "2024-06-06T04:00")
    storage.bars.coverage.update(days, lambda known: replace(known, wanted=(wanted,), covered=(covered,), provisional=(tail,)))

    def load(now: str) -> object:
        with monkeypatch.context() as patched:
            patched.setattr(open_query, "datetime", FixedClock(at(now)))
            return storage.load("A", "2024-06-05", timeframe="1Day", incomplete="raise")

    return load


class FixedClock:
    """Stands for `datetime` in a module that asks only for the time."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self, zone: object) -> datetime:
        return self._now


def test_a_bar_under_way_is_not_missing_and_is_named_once_it_has_ended(storage, monkeypatch):
    """On Friday evening the day's bar has not ended; all weekend it is owed, and `raise` says so."""
    load = evening(storage, monkeypatch)

    assert len(load("2024-06-08T00:45")) == 2
    for weekend in ("2024-06-08T04:00", "2024-06-09T12:00"):
        with pytest.raises(StoreError) as caught:
            load(weekend)
        assert_named(caught, "A in equities_1day", "2024-06-07T04:00:00Z .. 2024-06-08T00:45:00Z")


def test_what_another_process_was_asked_for_is_missing_at_once(storage):
    """A run writes it down in a file of its own; the store is open here already."""
    storage.store(frame("A", "2024-06-03T14:00"))
    assert len(storage.load("A", "2024-06-03")) == 1
    ParquetStorage(files=storage.files).bars.coverage.requested.add({A: (between("2024-06-04T04:00", "2024-06-05T04:00"),)})

    with pytest.warns(IncompleteWarning) as caught:
        storage.load("A", "2024-06-03")
    assert_in(str(caught[0].message), "A in equities_1min", "2024-06-04T04:00:00Z .. 2024-06-05T04:00:00Z")


def test_tentative_emptiness_is_not_missing(storage):
    storage.store(frame("A", "2024-06-05T14:00"))
    june = between("2024-06-01T04:00", "2024-07-01T04:00")
    empty = Tentative(between("2024-06-01T04:00", "2024-06-05T14:00"), at("2024-06-06"))
    storage.bars.coverage.update(A, lambda known: replace(known, wanted=(june,), covered=(june,), tentative=(empty,)))

    assert len(storage.load("A", "2024-06-01", "2024-06-30", incomplete="raise")) == 1


def test_a_file_that_a_killed_run_has_removed_is_no_lost_file(storage):
    storage.store(frame("A", "2024-06-05T14:00"))
    june = between("2024-06-01T04:00", "2024-07-01T04:00")
    storage.bars.coverage.update(A, lambda known: replace(known.with_changing([JUNE]), wanted=(june,), covered=(june,)))
    storage.files.delete(Partition(A, JUNE).key)

    assert len(storage.load("A", "2024-06-01", "2024-06-30", incomplete="raise")) == 0


def test_many_holes_are_counted_and_the_command_names_the_dataset(storage):
    series = Series("BRK.B", Dataset(Timeframe.parse("1Day"), Adjustment.parse("split"), Feed.IEX))
    days = [between(f"2024-06-{day:02d}T04:00", f"2024-06-{day + 1:02d}T04:00") for day in (3, 5, 7, 11, 13)]
    rest = difference((between("2024-06-01T04:00", "2024-07-01T04:00"),), days)
    storage.bars.coverage.update(series, lambda _: Coverage(series, tuple(days), rest))

    with pytest.raises(StoreError) as caught:
        storage.load("BRK.B", "2024-06-01", "2024-06-30", timeframe="1Day", adjustment="split", feed="iex", incomplete="raise")
    command = "`data-engine update BRK.B --timeframe 1Day --adjustment split --feed iex`"
    assert_named(caught, "BRK.B in equities_1day_split_iex", f"{days[0]}, {days[1]}, {days[2]}", "2 more", command)
    assert str(days[3]) not in str(caught.value)


# -------------------------------------------------------------------------------------------------------- file by file


def test_a_write_says_what_it_did(storage):
    steps = [
        (bars_at("2024-06-03T14:00", "2024-06-03T14:01"), {}, WriteResult(2, Changes(added=2))),
        (bars_at("2024-06-03T14:01", "2024-06-03T14:02", price=2.0), {}, WriteResult(3, Changes(added=1, revised=1))),
        (bars_at("2024-06-03T14:01", price=2.0), {}, WriteResult(3)),
        (bars_at("2024-06-03T14:01", price=2.0), {"answered": JUNE.span}, WriteResult(3)),
        (EMPTY, {}, WriteResult(3)),
    ]

    assert [storage.bars.write(A, JUNE, bars, **how) for bars, how, _ in steps] == [expected for *_, expected in steps]
    assert storage.bars.write(A, JUNE, EMPTY, answered=between("2024-06-03T14:01", "2024-06-03T14:02")).lacking == 1


def test_a_complete_response_judges_what_it_lacks(storage):
    storage.bars.write(A, JUNE, bars_at("2024-06-03T14:00", "2024-06-03T14:01", "2024-06-03T14:02"))
    came = timestamps_us(bars_at("2024-06-03T14:01"))
    first, nothing = between("2024-06-03T14:00", "2024-06-03T14:01"), timestamps_us(EMPTY)

    assert storage.bars.settle(A, JUNE, came, JUNE.span) == WriteResult(3, Changes(vanished=2))
    assert storage.bars.settle(A, JUNE, came, first) == WriteResult(3, Changes(vanished=1))
    assert storage.bars.settle(A, JUNE, came, JUNE.span, (first,)) == WriteResult(2, Changes(vanished=1, removed=1))
    assert storage.bars.settle(A, JUNE, nothing, JUNE.span, (JUNE.span,)) == WriteResult(0, Changes(removed=2))
    assert contents(storage) == {}


def test_a_write_that_changes_nothing_does_not_touch_the_file(storage):
    bars = bars_at("2024-06-03T14:00")
    storage.bars.write(A, JUNE, bars)
    before = storage.place.mark(Partition(A, JUNE).key)
    storage.bars.write(A, JUNE, bars)

    assert storage.place.mark(Partition(A, JUNE).key) == before


def test_what_was_written_can_be_added_up():
    assert WriteResult(1, Changes(2, 3, 4)) + WriteResult(10, Changes(20, 30, 40)) == WriteResult(11, Changes(22, 33, 44))


def test_the_files_of_a_store_are_listed(storage):
    for symbol in ("B", "A.B", "A"):
        storage.store(frame(symbol, "2023-12-29T15:00", "2024-06-03T14:00"))
    storage.store(frame("Z", "2024-06-03T04:00", "2024-06-04T04:00"), timeframe="1Day")
    storage.place.put("equities_1min/README.txt", b"not ours")

    assert storage.bars.symbols(MINUTES) == ["A", "A.B", "B"]
    assert storage.bars.symbols(DAYS) == ["Z"]
    assert storage.bars.symbols(Dataset(Timeframe.parse("5Min"))) == []
    assert list(storage.bars.partitions(MINUTES, "B")) == [
        Partition(Series("B", MINUTES), period) for period in (Period(2023, 12), JUNE)
    ]
    assert len(list(storage.bars.partitions(MINUTES))) == 6
    assert list(storage.bars.periods(A, between("2024-01-01", "2025-01-01"))) == [JUNE]
    assert storage.bars.read(A, Period(2024, 1)).equals(EMPTY)
    assert storage.bars.read(A, Period(2024, 1), ["timestamp"]).equals(EMPTY.select(["timestamp"]))


# ---------------------------------------------------------------------------------------------------- several at once

SEVENTY_FIVE = [f"2024-06-03T14:{number:02d}" for number in range(60)] + [f"2024-06-04T14:{number:02d}" for number in range(15)]

STORE_SOME = """
import sys
from datetime import datetime
import pandas as pd
from data_engine import ParquetStorage
base, *timestamps = sys.argv[1:]
storage = ParquetStorage(base)
storage.files.get("none")
print("here", flush=True), sys.stdin.readline()
for timestamp in timestamps:
    row = {"symbol": "A", "timestamp": pd.Timestamp(timestamp, tz="UTC")}
    values = dict.fromkeys(("open", "high", "low", "close", "volume", "trade_count", "vwap"), 1.0)
    storage.store(pd.DataFrame([{**row, **values}]))
"""


def check_seventy_five(storage, reader):
    """All bars are there, and are counted as often as they are there."""
    expected = [("A", f"{timestamp.replace('T', ' ')}:00+00") for timestamp in SEVENTY_FIVE]
    assert reader.rows(f"SELECT symbol, timestamp::VARCHAR FROM ({reader.store(storage)}) ORDER BY ALL") == expected
    assert storage.bars.coverage.read(A).rows == {JUNE: 75}


def test_of_75_updates_of_one_month_by_three_processes_75_are_kept(shared_place, reader):
    """Blind puts lost 46 of them."""
    not_on_moto(shared_place)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", STORE_SOME, shared_place.base, *SEVENTY_FIVE[number::3]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for child in children:
        assert child.stdout.readline() == "here\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=120)

    assert [child.returncode for child in children] == [0, 0, 0]
    check_seventy_five(PlacedStorage(shared_place), reader)


def test_of_75_updates_of_one_month_by_three_objects_75_are_kept(place, reader):
    """Each in its own thread, and each with files of its own: as far apart as one process allows."""
    not_on_moto(place)
    others = [ParquetStorage(files=place.open()) for _ in range(3)]

    def work(number: int) -> None:
        for timestamp in SEVENTY_FIVE[number::3]:
            others[number].store(frame("A", timestamp))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))

    check_seventy_five(PlacedStorage(place), reader)


# ------------------------------------------------------------------------------------------------------------- removing


def covered(storage: ParquetStorage, start: str, end: str) -> None:
    span = between(start, end)

    def change(known: Coverage) -> Coverage:
        return known.wanting(span).answered(span, final_before=span.end, now=span.end, counts={})

    storage.bars.coverage.update(A, change)


THREE_MONTHS = ["2024-05-31T14:00", "2024-06-03T14:00", "2024-06-28T14:00", "2024-07-01T14:00"]


@pytest.fixture
def three_months(storage) -> ParquetStorage:
    storage.store(pd.concat([frame("A", *THREE_MONTHS), frame("B", *THREE_MONTHS)]))
    covered(storage, "2024-05-01", "2024-08-01")
    return storage


@pytest.mark.parametrize(
    ("start", "end", "left"),
    [
        pytest.param("2024-06-03T14:00", "2024-06-28T14:00", [0, 2, 3], id="half-open"),
        pytest.param("2024-06-01", "2024-07-01", [0, 3], id="a-month"),
        pytest.param("2024-06-04", "2024-07-02", [0, 1], id="the-end"),
        pytest.param("2024-06-10", "2024-06-11", [0, 1, 2, 3], id="nothing"),
    ],
)
def test_removing_takes_bars_and_coverage_out_and_nothing_else(three_months, start, end, left):
    span = between(start, end)
    removed = three_months.bars.remove(A, span)
    known = three_months.bars.coverage.read(A)

    assert removed == 4 - len(left)
    expected = [("A", THREE_MONTHS[index].replace("T", " ")) for index in left]
    assert list(closes(three_months.load("A", "2024-01-01", "2024-12-31", incomplete="ignore"))) == expected
    assert known.covered == known.wanted == (TimeRange(at("2024-05-01"), span.start), TimeRange(span.end, at("2024-08-01")))
    counts = pd.Series([THREE_MONTHS[index][:7] for index in left]).value_counts()
    assert {f"{period.year}-{period.month:02d}": count for period, count in known.rows.items()} == dict(counts)
    assert len(three_months.load("B", "2024-01-01", "2024-12-31")) == 4


def test_removing_everything_leaves_no_trace_of_the_series(three_months):
    assert three_months.bars.remove(A, between("2000-01-01", "2100-01-01")) == 4
    assert [key for key in three_months.place.content() if "symbol=A" in key] == []
    assert three_months.bars.remove(A, between("2000-01-01", "2100-01-01")) == 0
    assert len(three_months.load("B", "2024-01-01", "2024-12-31")) == 4


def test_removing_the_first_bars_does_not_make_the_rest_be_asked_for_again(three_months):
    three_months.bars.remove(A, between("2024-05-01", "2024-06-01"))
    known = three_months.bars.coverage.read(A)

    assert known.missing(known.wanted) == ()
    assert (known.first_bar, known.last_bar) == (at("2024-06-03T14:00"), at("2024-07-01T14:00"))


# --------------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[: len(data) // 2], id="cut-in-half"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: b"PAR1" * 100, id="garbage"),
    ],
)
def test_a_damaged_file_is_named_and_left_as_it_is(storage, damage: Callable[[bytes], bytes]):
    storage.store(pd.concat([frame("A", "2024-06-03T14:00", "2024-07-03T14:00"), frame("B", "2024-06-03T14:00")]))
    key = Partition(A, JUNE).key
    damaged = damage(contents(storage)[key])
    if not damaged and not storage.place.on_disk:
        pytest.skip("an empty object is no file")
    storage.place.put(key, damaged)

    for use in (
        lambda: storage.load("A", "2024-06-03", "2024-06-03"),
        lambda: storage.load(["A", "B"], "2024-06-03", "2024-07-31", columns=["close"]),
        lambda: storage.store(frame("A", "2024-06-04T14:00")),
        lambda: storage.bars.remove(A, JUNE.span),
    ):
        with pytest.raises(DamagedFile, match=re.escape(f"{storage.place.base}/{key}")):
            use()
    assert contents(storage).get(key, b"") == damaged  # an empty file is not listed there
    assert len(storage.load("A", "2024-07-01", "2024-07-31")) == len(storage.load("B", "2024-06-03", "2024-06-03")) == 1


def test_a_failed_removal_has_withdrawn_the_coverage_first(three_months):
    """What is claimed must be there; what is there may be unclaimed."""
    three_months.place.put(Partition(A, JUNE).key, b"damaged")
    with pytest.raises(DamagedFile):
        three_months.bars.remove(A, JUNE.span)

    left = three_months.bars.coverage.read(A).covered
    assert left == (between("2024-05-01", "2024-06-01"), between("2024-07-01", "2024-08-01"))


def test_a_store_that_was_copied_is_the_same_store(three_months, tmp_path):
    """Also one that was copied from a bucket to a disk."""
    shutil.copytree(three_months.place.copy(), tmp_path / "copy", copy_function=shutil.copyfile)
    copy = ParquetStorage(tmp_path / "copy")

    found = {path.relative_to(tmp_path / "copy").as_posix(): path.read_bytes() for path in tmp_path.glob("copy/**/*.parquet")}
    assert found == contents(three_months)
    assert copy.bars.coverage.read(A) == three_months.bars.coverage.read(A)
    pd.testing.assert_frame_equal(copy.load(["A", "B"], "2024-01-01"), three_months.load(["A", "B"], "2024-01-01"))
