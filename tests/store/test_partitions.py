"""Where bars lie: names and what they stand for undo each other, for every symbol and every reader."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path, PurePosixPath, PureWindowsPath

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange
from data_engine.store.partitions import Partition, Period, decode_symbol, encode_symbol, periods, series_folder

MINUTES = Dataset(Timeframe.parse("1Min"))
DAYS = Dataset(Timeframe.parse("1Day"))

STRANGE = ["CON", "NUL", "NA", "NAN", "NULL", "TRUE", "INF", "2330", "1E5", "2024-01-01", "BRK.B", "BRK/B", "BF-B", "A+B", "A B"]
STRANGE += [
    "../x",
    "a/b",
    "..",
    ".",
    "x.",
    "100%",
    "%2F",
    "a=b",
    "ü",
    "日本",
    "🚀",
    "a\\b",
    "a:b",
    "*",
    "?",
    "[x]",
    "'",
    '"',
    "x\n",
]

a_symbol = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
a_dataset = st.builds(
    Dataset,
    st.sampled_from(["1Min", "7Min", "1Hour", "23Hour", "1Day", "1Week", "1Month", "12Month"]).map(Timeframe.parse),
    st.sampled_from(["raw", "all", "split", "dividend", "spin-off", "split,dividend", "split,dividend,spin-off"]).map(
        Adjustment.parse
    ),
    st.sampled_from(Feed),
)
an_instant = st.datetimes(datetime(1971, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC))
a_partition = st.builds(
    lambda symbol, dataset, instant: Partition(Series(symbol, dataset), Period.of(instant, dataset)),
    a_symbol,
    a_dataset,
    an_instant,
)


# Names


@pytest.mark.parametrize(
    ("symbol", "timeframe", "instant", "key"),
    [
        ("AAPL", "1Min", datetime(2024, 1, 31, 23, 59), "equities_1min/symbol=AAPL/year=2024/month=01/data.parquet"),
        ("AAPL", "1Hour", datetime(2024, 12, 1), "equities_1hour/symbol=AAPL/year=2024/month=12/data.parquet"),
        ("BRK.B", "1Day", datetime(2024, 12, 31), "equities_1day/symbol=BRK.B/year=2024/data.parquet"),
        ("BRK/B", "1Month", datetime(2024, 1, 1), "equities_1month/symbol=BRK%2FB/year=2024/data.parquet"),
        ("X.", "1Week", datetime(2024, 1, 1), "equities_1week/symbol=X%2E/year=2024/data.parquet"),
    ],
)
def test_the_layout_is_the_one_that_is_promised(symbol, timeframe, instant, key):
    dataset = Dataset(Timeframe.parse(timeframe))
    partition = Partition(Series(symbol, dataset), Period.of(instant.replace(tzinfo=UTC), dataset))

    assert partition.key == key
    assert key.startswith(series_folder(partition.series) + "/")


@given(a_partition)
def test_a_key_can_be_read_back(partition):
    assert Partition.parse(partition.key) == partition


@given(a_symbol)
@example("CON")
@example("NA")
@example("BRK.B")
@example("../x")
@example("a/b")
@example("日本")
@example("x.")
@example(".")
@example("..")
def test_an_encoded_symbol_is_one_plain_part_of_a_path_on_every_system(symbol):
    text = encode_symbol(symbol)

    assert decode_symbol(text) == symbol
    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set('/\\:*?"<>| ')
    assert not text.endswith(".")
    folder = f"symbol={text}"
    assert PurePosixPath(folder).parts == PureWindowsPath(folder).parts == (folder,)


@given(a_symbol, a_symbol)
def test_two_symbols_never_share_a_folder(one, other):
    assert (series_folder(Series(one, DAYS)) == series_folder(Series(other, DAYS))) is (one == other)


@pytest.mark.parametrize("key", [
    pytest.param("equities_1min/symbol=A/year=2024/month=13/data.parquet", id="month-13"),
    pytest.param("equities_1min/symbol=A/year=2024/month=00/data.parquet", id="month-0"),
    pytest.param("equities_1min/symbol=A/year=2024/month=1/data.parquet", id="month-of-one-digit"),
    pytest.param("equities_1min/symbol=A/year=2024/data.parquet", id="minutes-without-a-month"),
    pytest.param("equities_1day/symbol=A/year=2024/month=01/data.parquet", id="days-with-a-month"),
    pytest.param("equities_1min/symbol=/year=2024/month=01/data.parquet", id="no-symbol"),
    pytest.param("equities_1min/symbol=BRK%2EB/year=2024/month=01/data.parquet", id="another-spelling-of-BRK.B"),
    pytest.param("equities_1min/symbol=a%2fb/year=2024/month=01/data.parquet", id="small-hex-digits"),
    pytest.param("equities_1min/symbol=%FF/year=2024/month=01/data.parquet", id="no-utf-8"),
    pytest.param("equities_1min/symbol=X./year=2024/month=01/data.parquet", id="a-trailing-dot"),
    pytest.param("equities_1min/symbol=A/year=٢٠٢٤/month=01/data.parquet", id="arabic-digits"),
    pytest.param("equities_61min/symbol=A/year=2024/month=01/data.parquet", id="no-such-timeframe"),
    pytest.param("equities_1Min/symbol=A/year=2024/month=01/data.parquet", id="capitals"),
    pytest.param("equities_1min/symbol=A/year=2024/month=01/other.parquet", id="another-file"),
    pytest.param("equities_1min/symbol=A/year=2024/month=01/data.parquet.tmp", id="a-longer-name"),
    pytest.param("x/equities_1min/symbol=A/year=2024/month=01/data.parquet", id="a-longer-path"),
    pytest.param("equities_1min/symbol=A/year=2024/month=01/data.parquet\n", id="a-line-end"),
    pytest.param("metadata/coverage/equities_1min/symbol=A.json", id="coverage"),
    pytest.param("", id="nothing"),
])  # fmt: skip
def test_what_is_no_key_of_ours_is_none(key):
    assert Partition.parse(key) is None


# Readers


def written(base: Path, symbols: list[str]) -> None:
    """Write one small file per symbol, in which the symbol stands too, so that a reader's two columns can be compared."""
    for symbol in symbols:
        path = base / Partition(Series(symbol, MINUTES), Period(2024, 6)).key
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({"truth": [symbol]}), path)


def as_duckdb_sees(base: Path) -> list[tuple[str, str]]:
    with duckdb.connect() as connection:
        files = f"read_parquet('{base}/equities_1min/**/*.parquet', hive_partitioning = true, hive_types = {{'symbol': VARCHAR}})"
        return sorted(connection.execute(f"SELECT truth, symbol FROM {files}").fetchall())


def as_pyarrow_sees(base: Path) -> list[tuple[str, str]]:
    hive = pa.dataset.partitioning(
        pa.schema([("symbol", pa.string()), ("year", pa.int32()), ("month", pa.int32())]), flavor="hive"
    )
    table = pa.dataset.dataset(base / "equities_1min", partitioning=hive).to_table(columns=["truth", "symbol"])
    return sorted(zip(*table.to_pydict().values(), strict=True))


def as_polars_sees(base: Path) -> list[tuple[str, str]]:
    schema = {"symbol": pl.String, "year": pl.Int32, "month": pl.Int32}
    frame = pl.scan_parquet(base / "equities_1min", hive_partitioning=True, hive_schema=schema).select("truth", "symbol")
    return sorted(frame.collect().rows())


def test_readers_of_hive_partitions_decode_every_strange_symbol(tmp_path):
    written(tmp_path, STRANGE)

    expected = sorted((symbol, symbol) for symbol in STRANGE)
    assert as_duckdb_sees(tmp_path) == expected
    assert as_pyarrow_sees(tmp_path) == expected
    assert as_polars_sees(tmp_path) == expected


@settings(max_examples=15, deadline=None)
@given(st.lists(a_symbol, min_size=1, max_size=8, unique=True))
def test_readers_of_hive_partitions_decode_any_symbol(symbols):
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder), symbols)

        assert as_duckdb_sees(Path(folder)) == as_pyarrow_sees(Path(folder)) == sorted((symbol, symbol) for symbol in symbols)


# Periods


@given(an_instant, a_dataset)
def test_a_period_holds_the_instants_of_its_month_or_year(instant, dataset):
    period = Period.of(instant, dataset)

    assert instant in period.span
    assert period.start == period.span.start
    assert period.span.end == period.next().start
    if dataset.timeframe.intraday:
        assert (period.year, period.month) == (instant.year, instant.month)
    else:
        assert (period.year, period.month) == (instant.year, None)


def test_periods_follow_each_other_in_order():
    months = [Period(2023, 11)]
    while months[-1] != Period(2024, 2):
        months.append(months[-1].next())

    assert months == sorted(months) == [Period(2023, 11), Period(2023, 12), Period(2024, 1), Period(2024, 2)]
    assert Period(2023, None).next() == Period(2024, None)
    assert str(Period(2024, 2).span) == "2024-02-01T00:00:00Z .. 2024-03-01T00:00:00Z"
    assert str(Period(2024, None).span) == "2024-01-01T00:00:00Z .. 2025-01-01T00:00:00Z"


@given(an_instant, st.timedeltas(timedelta(microseconds=1), timedelta(days=1500)), a_dataset)
def test_periods_tile_a_span(start, length, dataset):
    """They follow each other without a gap, hold all of it, and none lies outside."""
    span = TimeRange(start, start + length)
    found = list(periods(span, dataset))

    assert all(one.span.end == other.start for one, other in pairwise(found))
    assert found[0].start <= span.start < found[0].span.end
    assert found[-1].start < span.end <= found[-1].span.end


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        pytest.param(datetime(2024, 1, 31, 23, 59), datetime(2024, 2, 1), [Period(2024, 1)], id="an-end-at-the-edge-is-outside"),
        pytest.param(datetime(2024, 1, 31), datetime(2024, 2, 1, 0, 1), [Period(2024, 1), Period(2024, 2)], id="one-minute-over"),
        pytest.param(datetime(2024, 2, 1), datetime(2024, 2, 2), [Period(2024, 2)], id="a-start-at-the-edge-is-inside"),
        pytest.param(datetime(2023, 12, 31), datetime(2024, 1, 2), [Period(2023, 12), Period(2024, 1)], id="new-year"),
    ],
)
def test_only_periods_that_a_span_touches(start, end, expected):
    assert list(periods(TimeRange(start.replace(tzinfo=UTC), end.replace(tzinfo=UTC)), MINUTES)) == expected
