"""The table of bars: merging as a dictionary would, the same bytes for the same rows, and frames there and back."""

from __future__ import annotations

import io
import math
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.errors import InputError
from data_engine.market.bar_frame import from_frame, to_frame
from data_engine.market.bar_parquet import from_parquet, to_parquet
from data_engine.market.bars import (
    BAR_SCHEMA,
    EMPTY,
    TIMESTAMP,
    VALUES,
    merge,
    problems,
    timestamps_us,
    to_micros,
    within,
    without,
)
from data_engine.market.time_range import TimeRange
from real_data import bars_of, real

NOON = datetime(2024, 6, 3, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

Rows = dict[int, tuple[float, ...]]
"""Bars as a plain dictionary: the minute after noon, and the seven values."""


def table(rows: Rows) -> pa.Table:
    times = [NOON + minute * MINUTE for minute in sorted(rows)]
    columns = list(zip(*(rows[minute] for minute in sorted(rows)), strict=True)) or [()] * len(VALUES)
    return pa.table([pa.array(times, TIMESTAMP), *(pa.array(column, pa.float64()) for column in columns)], schema=BAR_SCHEMA)


def rows_of(bars: pa.Table) -> Rows:
    assert bars.schema == BAR_SCHEMA
    listed = [((row["timestamp"] - NOON) // MINUTE, tuple(row[name] for name in VALUES)) for row in bars.to_pylist()]
    assert [minute for minute, _ in listed] == sorted({minute for minute, _ in listed})
    return dict(listed)


def between(start: int, end: int) -> TimeRange:
    return TimeRange(NOON + start * MINUTE, NOON + end * MINUTE)


def simple(*minutes: int, price: float = 1.0) -> pa.Table:
    return table(dict.fromkeys(minutes, (price,) * 7))


# Few prices, so that equal rows come up too. No negative zero: no price is one, and it equals the other.
a_value = st.sampled_from([0.0, 1.0, 1.5, 1e-9, 123456789.25])
a_row = st.tuples(*[a_value] * 7)
some_rows = st.dictionaries(st.integers(0, 40), a_row, max_size=20)
a_span = st.tuples(st.integers(-1, 42), st.integers(-1, 42)).filter(lambda pair: pair[0] < pair[1])


# Merging


@given(some_rows, some_rows)
def test_merging_is_updating_a_dictionary(stored, fetched):
    """One row per timestamp, sorted, and the new one wins."""
    merged = merge(table(stored), table(fetched))

    assert rows_of(merged.table) == {**stored, **fetched}
    assert merged.changes.added == len(fetched.keys() - stored.keys())
    assert merged.changes.revised == sum(stored[minute] != fetched[minute] for minute in stored.keys() & fetched.keys())
    assert merged.changes.vanished == 0
    assert bool(merged.changes.written) is (rows_of(merged.table) != stored)


@given(some_rows, some_rows)
def test_merging_twice_is_merging_once(stored, fetched):
    once = merge(table(stored), table(fetched)).table
    twice = merge(once, table(fetched))

    assert not twice.changes.written
    assert (twice.changes.added, twice.changes.revised) == (0, 0)
    assert to_parquet(twice.table) == to_parquet(once)


@given(some_rows, st.lists(st.integers(0, 3), min_size=41, max_size=41), st.permutations(range(4)))
def test_bars_that_come_in_pieces_and_any_order_give_the_same_bytes(rows, owners, order):
    pieces = [{minute: row for minute, row in rows.items() if owners[minute] == piece} for piece in range(4)]
    merged = EMPTY
    for piece in order:
        merged = merge(merged, table(pieces[piece])).table

    assert to_parquet(merged) == to_parquet(table(rows))


@given(some_rows, some_rows, a_span)
def test_stored_bars_that_a_response_lacks_are_kept_and_counted(stored, fetched, span):
    fetched = {minute: row for minute, row in fetched.items() if span[0] <= minute < span[1]}
    merged = merge(table(stored), table(fetched), between(*span))

    assert rows_of(merged.table) == {**stored, **fetched}
    assert merged.changes.vanished == len({minute for minute in stored if span[0] <= minute < span[1]} - fetched.keys())


def test_what_is_merged_is_not_changed():
    stored, fetched = simple(1, 2, 3), simple(2, 4, price=9.0)
    before = stored.to_pydict(), fetched.to_pydict()
    merge(stored, fetched, between(0, 5))

    assert (stored.to_pydict(), fetched.to_pydict()) == before


@given(some_rows, a_span, some_rows)
def test_taking_out_a_range_leaves_what_is_outside_and_what_is_to_be_kept(rows, span, kept):
    left = without(table(rows), between(*span), table(kept))

    assert rows_of(left) == {minute: row for minute, row in rows.items() if not span[0] <= minute < span[1] or minute in kept}


@given(some_rows, a_span)
def test_within_a_range_are_the_bars_that_start_inside(rows, span):
    inside = within(table(rows), between(*span))

    assert rows_of(inside) == {minute: row for minute, row in rows.items() if span[0] <= minute < span[1]}


@given(st.datetimes(datetime(1970, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC)))
def test_an_instant_is_a_number_of_microseconds_exactly(instant):
    assert to_micros(instant) == np.datetime64(instant.replace(tzinfo=None), "us").astype("int64")
    assert timestamps_us(pa.table({"timestamp": pa.array([instant], TIMESTAMP)})).tolist() == [to_micros(instant)]


# As Parquet


@given(some_rows, st.lists(st.integers(0, 20), max_size=6))
def test_the_same_rows_in_other_chunks_are_the_same_bytes(rows, cuts):
    whole = table(rows)
    edges = [0, *sorted(min(cut, whole.num_rows) for cut in cuts), whole.num_rows]
    chunked = pa.concat_tables([EMPTY, *(whole.slice(a, b - a) for a, b in pairwise(edges))])

    assert to_parquet(chunked) == to_parquet(whole)
    assert from_parquet(to_parquet(chunked)).equals(whole)


def test_the_same_real_rows_in_other_chunks_are_the_same_bytes():
    """A month of SPY, in pieces of a page, of a day, of a row each for the first hundred, and as a slice of more."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        source = bars_of("minute/polygon_sip_ext_SPY_2024.parquet")
        everything = pa.table(connection.sql(f"SELECT * EXCLUDE symbol FROM ({source}) ORDER BY timestamp").to_arrow_table())
    everything = pa.table([column.combine_chunks() for column in everything.columns], schema=BAR_SCHEMA)
    start, count = 40_000, 17_000
    month = everything.slice(start, count)
    copied = month.take(pa.array(np.arange(count)))
    pages = pa.concat_tables([copied.slice(at, 10_000) for at in range(0, count, 10_000)])
    days = pa.concat_tables([copied.slice(at, 960) for at in range(0, count, 960)])
    ragged = pa.concat_tables([*(copied.slice(at, 1) for at in range(100)), copied.slice(100)])

    assert {to_parquet(form) for form in (month, pages, days, ragged)} == {to_parquet(copied)}
    assert from_parquet(to_parquet(month)).equals(copied)


SAMPLE: Rows = {
    0: (190.25, 191.0, 190.0, 190.5, 1200.5, 17.0, 190.4375),
    1: (0.0001, 1e6, 0.0001, 3.3, 0.0, 0.0, 1 / 3),
    719: (1.0, 2.0, 0.5, 1.5, 1e12, 3e6, 1.1),
}
SAMPLE_INSTANTS = [NOON + minute * MINUTE for minute in SAMPLE]


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "bars.parquet"
    path.write_bytes(to_parquet(table(SAMPLE)))
    return path


def test_pyarrow_reads_the_declared_schema(sample):
    with pq.ParquetFile(sample) as file:
        assert file.schema_arrow == BAR_SCHEMA
        assert file.metadata.num_row_groups == 1
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
        assert rows_of(file.read()) == SAMPLE


def test_duckdb_reads_instants_and_doubles(sample):
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        described = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE FROM '{sample}'").fetchall()}
        rows = connection.execute(f"SELECT * REPLACE (epoch_us(timestamp) AS timestamp) FROM '{sample}'").fetchall()
        # What breaks where stamps have nanoseconds.
        (year, hour, later) = connection.execute(
            f"SELECT year(timestamp), date_trunc('hour', timestamp) = TIMESTAMPTZ '2024-06-03 12:00:00Z',"
            f" timestamp + INTERVAL 1 MINUTE > TIMESTAMPTZ '2024-06-03 12:00:30Z' FROM '{sample}' LIMIT 1"
        ).fetchone()

    assert described == {"timestamp": "TIMESTAMP WITH TIME ZONE", **dict.fromkeys(VALUES, "DOUBLE")}
    assert rows == [(to_micros(NOON + minute * MINUTE), *row) for minute, row in SAMPLE.items()]
    assert (year, hour, later) == (2024, True, True)


def test_pandas_reads_utc_and_float64(sample):
    frame = pd.read_parquet(sample)

    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        "timestamp": "datetime64[us, UTC]",
        **dict.fromkeys(VALUES, "float64"),
    }
    assert frame["timestamp"].tolist() == SAMPLE_INSTANTS
    assert [tuple(row) for row in frame[list(VALUES)].to_numpy().tolist()] == list(SAMPLE.values())


def test_polars_reads_utc_and_float64(sample):
    frame = pl.read_parquet(sample)

    assert frame.schema == {"timestamp": pl.Datetime("us", "UTC"), **dict.fromkeys(VALUES, pl.Float64)}
    assert frame.rows() == [(NOON + minute * MINUTE, *row) for minute, row in SAMPLE.items()]


def test_some_columns_come_in_the_requested_order():
    found = from_parquet(to_parquet(table(SAMPLE)), ["vwap", "timestamp", "open"])

    assert found.column_names == ["vwap", "timestamp", "open"]
    assert found.column("vwap").to_pylist() == [row[6] for row in SAMPLE.values()]
    assert found.column("open").to_pylist() == [row[0] for row in SAMPLE.values()]


@given(some_rows, a_span)
def test_a_file_that_has_no_bar_in_a_range_may_be_passed_over_and_no_other(rows, span):
    data, inside = to_parquet(table(rows)), {minute for minute in rows if span[0] <= minute < span[1]}
    for threads in (False, True):
        found = from_parquet(data, within=between(*span), threads=threads)
        assert rows_of(within(found, between(*span))) == {minute: rows[minute] for minute in inside}
        if not rows or max(rows) < span[0] or min(rows) >= span[1]:
            assert found.equals(EMPTY)


def test_a_file_that_is_not_decoded_has_the_requested_columns():
    found = from_parquet(to_parquet(simple(1, 2)), ["close", "timestamp"], within=between(3, 4))

    assert (found.num_rows, found.schema) == (0, pa.schema([BAR_SCHEMA.field("close"), BAR_SCHEMA.field("timestamp")]))


def as_bytes(other: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(other, sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"", "not a readable Parquet file", id="empty"),
        pytest.param(b"PAR1 no PAR1", "not a readable Parquet file", id="garbage"),
        pytest.param(to_parquet(table(SAMPLE))[:-1], "not a readable Parquet file", id="the-last-byte-is-missing"),
        pytest.param(to_parquet(table(SAMPLE))[100:], "not a readable Parquet file", id="the-first-bytes-are-missing"),
        pytest.param(as_bytes(table(SAMPLE).drop_columns("vwap")), "its columns are", id="a-column-is-missing"),
        pytest.param(as_bytes(table(SAMPLE).rename_columns(["t", *VALUES])), "its columns are", id="another-name"),
        pytest.param(
            as_bytes(pd.DataFrame({"timestamp": [1], **{name: [1.0] for name in VALUES}}).pipe(pa.Table.from_pandas)),
            "its columns are .*timestamp: int64",
            id="another-type",
        ),
    ],
)
def test_what_is_no_file_of_bars_is_refused(data, why):
    with pytest.raises(ValueError, match=f"^{why}"):
        from_parquet(data)


# What cannot be bars


@given(some_rows)
def test_sorted_finite_rows_are_no_problem(rows):
    assert problems(table(rows)) is None


@pytest.mark.parametrize(
    ("minutes", "why"),
    [
        pytest.param([0, 2, 2], "row 2 is a second bar of 2024-06-03T12:02:00.000000Z", id="twice"),
        pytest.param([0, 3, 2], "row 2 is not after 2024-06-03T12:03:00.000000Z", id="backwards"),
        pytest.param([5, 3, 3], "row 1 is not after 2024-06-03T12:05:00.000000Z", id="the-first-problem-is-named"),
    ],
)
def test_bars_out_of_order_are_a_problem(minutes, why):
    assert problems(pa.concat_tables([simple(minute) for minute in minutes])) == why


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_a_problem(name, value):
    bars = simple(0, 1, 2)
    spoilt = bars.set_column(bars.column_names.index(name), BAR_SCHEMA.field(name), pa.array([1.0, value, 1.0]))

    assert problems(spoilt) == f"{name} at 2024-06-03T12:01:00.000000Z is not a number"


# As a frame


def assert_shape(frame: pd.DataFrame, columns: tuple[str, ...] = VALUES) -> None:
    """Hold a frame against the contract: levels, their types, order, and the columns' types."""
    assert frame.index.names == ["symbol", "timestamp"]
    assert str(frame.index.levels[1].dtype) == "datetime64[ns, UTC]"
    assert str(frame.index.dtypes["timestamp"]) == "datetime64[ns, UTC]"
    assert frame.index.is_monotonic_increasing
    assert frame.index.is_unique
    assert list(frame.columns) == list(columns)
    assert set(map(str, frame.dtypes)) <= {"float64"}


some_symbols = st.dictionaries(st.sampled_from(["A", "AAPL", "BRK.B", "NA", "TRUE", "2330"]), some_rows, max_size=4)


@given(some_symbols)
def test_a_frame_and_back_is_the_same_bars(symbols):
    tables = {symbol: table(rows) for symbol, rows in symbols.items()}
    frame = to_frame(tables.items())

    assert_shape(frame)
    expected = [(s, NOON + m * MINUTE, *rows[m]) for s, rows in sorted(symbols.items()) for m in sorted(rows)]
    assert [tuple(row) for row in frame.reset_index().itertuples(index=False)] == expected
    assert {symbol: rows_of(bars) for symbol, bars in from_frame(frame).items()} == {
        s: rows for s, rows in symbols.items() if rows
    }


@given(some_symbols, st.integers(0, 20), st.booleans())
def test_a_frame_that_is_filled_table_by_table_is_the_same(symbols, rows, finer):
    """However many rows were expected; its index is that which pandas makes."""
    tables = {symbol: table(bars) for symbol, bars in sorted(symbols.items())}
    if finer:  # not on whole minutes
        tables = {name: bars.set_column(0, bars.schema.field(0), _a_second_later(bars)) for name, bars in tables.items()}
    frame = to_frame(iter(tables.items()), rows=rows)

    pd.testing.assert_frame_equal(frame, to_frame(tables.items()))
    made = pd.MultiIndex.from_arrays([frame.index.get_level_values(level) for level in (0, 1)], names=frame.index.names)
    assert [list(level) for level in frame.index.levels] == [list(level) for level in made.levels]
    assert [list(code) for code in frame.index.codes] == [list(code) for code in made.codes]


def _a_second_later(bars: pa.Table) -> pa.Array:
    micros = bars.column("timestamp").cast(pa.int64()).to_numpy() + 1_000_000
    return pa.array(micros).cast(bars.schema.field("timestamp").type)


@pytest.mark.parametrize("tables", [[], [("AAPL", EMPTY)]], ids=["no-symbol", "a-symbol-without-bars"])
@pytest.mark.parametrize("columns", [VALUES, ("close", "open"), ()], ids=["all", "two", "none"])
def test_a_frame_without_bars_keeps_its_columns_and_levels(tables, columns):
    frame = to_frame(((symbol, bars.select(["timestamp", *columns])) for symbol, bars in tables), columns)

    assert len(frame) == 0
    assert_shape(frame, columns)
    if columns == VALUES:
        assert from_frame(frame) == {}


def test_a_frame_does_not_share_memory_with_its_table():
    bars = simple(0, 1)
    frame = to_frame([("A", bars)])
    frame.loc[:, "open"] = 99.0

    assert rows_of(bars) == {0: (1.0,) * 7, 1: (1.0,) * 7}


def test_a_frame_of_real_bars_is_what_duckdb_reads():
    path = real("minute/alpaca_iex_SPY_202506.parquet")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        expected = connection.execute(
            f"SELECT epoch_us(timestamp), * EXCLUDE (symbol, timestamp) FROM '{path}' ORDER BY 1"
        ).fetchall()
    flat = pd.read_parquet(path)
    frame = to_frame(from_frame(flat.sample(frac=1, random_state=1)).items())

    assert_shape(frame)
    assert frame.index.get_level_values("symbol").unique().tolist() == ["SPY"]
    stamps_read = frame.index.get_level_values("timestamp").as_unit("us").asi8.tolist()
    assert [(at, *row) for at, row in zip(stamps_read, frame.to_numpy().tolist(), strict=True)] == [
        tuple(map(float, row)) for row in expected
    ]


# From a user's frame


def flat(**changes: object) -> pd.DataFrame:
    """Return two bars of A with columns in place of levels."""
    columns = {
        "symbol": ["A", "A"],
        "timestamp": pd.to_datetime(["2024-06-03T12:00Z", "2024-06-03T12:01Z"]),
        **{name: [1.0, 2.0] for name in VALUES},
    }
    return pd.DataFrame({**columns, **changes})


EXPECTED = {"A": {0: (1.0,) * 7, 1: (2.0,) * 7}}


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(flat(), id="columns"),
        pytest.param(flat().set_index(["symbol", "timestamp"]), id="levels"),
        pytest.param(flat().set_index(["timestamp", "symbol"]), id="levels-the-other-way-round"),
        pytest.param(flat().set_index("timestamp"), id="one-level-one-column"),
        pytest.param(flat().set_index("symbol"), id="the-other-level"),
        pytest.param(flat().iloc[::-1], id="unsorted"),
        pytest.param(flat(extra=["x", "y"]), id="further-columns"),
        pytest.param(flat().astype(dict.fromkeys(VALUES, "int64")), id="integers"),
        pytest.param(flat().astype(dict.fromkeys(VALUES, "Float64")), id="nullable-numbers"),
        pytest.param(flat().astype({"symbol": "category"}), id="categories"),
        pytest.param(flat().astype({"symbol": object}), id="object-symbols"),
        pytest.param(flat().assign(timestamp=lambda f: f["timestamp"].dt.tz_convert("America/New_York")), id="new-york"),
        pytest.param(flat().assign(timestamp=lambda f: f["timestamp"].dt.as_unit("s")), id="seconds"),
        pytest.param(flat().assign(timestamp=lambda f: f["timestamp"].dt.as_unit("ns")), id="nanoseconds"),
        pytest.param(pd.concat([flat(open=[7.0, 7.0]), flat()]), id="the-later-of-two-rows-wins"),
    ],
)
def test_frames_that_hold_the_same_bars(frame):
    before = frame.copy()

    assert {symbol: rows_of(bars) for symbol, bars in from_frame(frame).items()} == EXPECTED
    pd.testing.assert_frame_equal(frame, before)


def test_the_later_of_two_rows_wins_also_in_the_middle_of_real_duplicates():
    """DIS of 2018 has real duplicate rows: a dictionary filled from top to bottom says which remain."""
    frame = pd.read_parquet(real("minute/unknownvendor_rth_10sym_2018_ENDLABEL.parquet"))
    frame = frame[frame["symbol"] == "DIS"].assign(trade_count=1.0, vwap=range(int((frame["symbol"] == "DIS").sum())))
    assert frame.duplicated(["symbol", "timestamp"]).any()

    expected = dict(
        zip(
            frame["timestamp"].dt.as_unit("us").astype("int64"),
            frame[list(VALUES)].astype(float).itertuples(index=False, name=None),
            strict=True,
        )
    )
    (bars,) = from_frame(frame).values()
    values = zip(*(bars.column(name).to_pylist() for name in VALUES), strict=True)
    assert list(zip(timestamps_us(bars).tolist(), values, strict=True)) == sorted(expected.items())


def test_an_empty_answer_of_alpaca_py_holds_no_bars():
    """Its ``.df`` has neither columns nor levels then."""
    assert from_frame(pd.DataFrame()) == {}


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        pytest.param([1, 2], "a list", id="a-list"),
        pytest.param(None, "a NoneType", id="nothing"),
        pytest.param(flat()["open"], "a Series", id="a-column"),
        pytest.param(
            flat().drop(columns=["vwap", "trade_count"]),
            "trade_count, vwap; they have symbol, timestamp, open, high, low, close, volume",
            id="missing-columns",
        ),
        pytest.param(
            flat().rename(columns={"symbol": "ticker"}).drop(columns=list(VALUES[1:])),
            "symbol, high, low, close, volume, trade_count, vwap; they have ticker, timestamp, open",
            id="another-name",
        ),
        pytest.param(flat().iloc[:0].drop(columns="vwap").set_index("symbol"), "vwap; they have", id="empty-but-wrong"),
        pytest.param(
            flat().assign(timestamp=lambda f: f["timestamp"].dt.tz_localize(None)),
            "datetime64[",
            id="naive",
        ),
        pytest.param(flat(timestamp=["2024-06-03", "2024-06-04"]), "use pd.to_datetime(..., utc=True)", id="text-for-times"),
        pytest.param(flat(timestamp=[1, 2]), "int64; use pd.to_datetime(..., utc=True)", id="numbers-for-times"),
        pytest.param(flat(timestamp=pd.to_datetime(["2024-06-03T12:00Z", None])), "NaT", id="no-time"),
        pytest.param(
            flat(timestamp=pd.DatetimeIndex(["2024-06-03T12:00:00.000000001Z", "2024-06-03T12:01:00.000000000Z"])),
            "microsecond",
            id="nanoseconds",
        ),
        pytest.param(flat(close=[1.0, math.nan]), "A: close at 2024-06-03T12:01:00.000000Z", id="nan"),
        pytest.param(flat(close=[1.0, None]), "A: close at 2024-06-03T12:01:00.000000Z", id="null"),
        pytest.param(flat(volume=[math.inf, 1.0]), "A: volume at 2024-06-03T12:00:00.000000Z", id="infinite"),
        pytest.param(flat(open=["a", "b"]), "'a'", id="text-for-prices"),
        pytest.param(flat(symbol=[2330, 2330]), "2330", id="a-number-for-a-symbol"),
        pytest.param(flat(symbol=["A", None]), "symbol", id="no-symbol"),
    ],
)
def test_frames_that_cannot_be_bars_are_refused(frame, why):
    with pytest.raises(InputError, match=re.escape(why)):
        from_frame(frame)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(flat().set_index("symbol", drop=False), id="a-name-is-level-and-column"),
        pytest.param(pd.concat([flat(), flat()[["open"]]], axis=1), id="a-column-twice"),
    ],
)
def test_ambiguous_frames_are_refused_in_our_words(frame):
    with pytest.raises(InputError, match="twice"):
        from_frame(frame)
