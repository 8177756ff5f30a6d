"""Reading: every form of an answer is the same, sessions are whole, few files are read at once, and nothing is cut unsaid."""

from __future__ import annotations

import inspect
import sys
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_engine import IncompleteWarning, ParquetStorage
from data_engine.errors import ConfigError, DamagedFile, InputError, StoreError
from data_engine.market.bars import EMPTY, VALUES
from data_engine.market.series import Dataset, Series, Timeframe
from data_engine.market.time_range import TimeRange
from data_engine.read.bar_query import BarQuery, ReadOptions
from data_engine.read.bar_reader import batches, steps, whole_symbols
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Partition, Period
from data_engine.universe.index_store import MetadataStore
from real_data import bars_of

# Most of these tests ask for more than they stored; tests/read/test_completeness.py is about what is said then.
pytestmark = pytest.mark.filterwarnings("ignore::data_engine.IncompleteWarning")

MINUTES = Dataset(Timeframe.parse("1Min"))
A = Series("A", MINUTES)
HALF_DAYS = "minute/polygon_sip_ext_halfday_3sym_20241125_20241231.parquet"
CHANGES = "minute/polygon_sip_ext_dst_4sym_202403_202411.parquet"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def between(start: str, end: str) -> TimeRange:
    return TimeRange(at(start), at(end))


def frame(symbol: str, stamps, prices=None) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([[symbol], pd.to_datetime(list(stamps), utc=True)], names=["symbol", "timestamp"])
    values = np.arange(len(index), dtype=float) % 97 + 1 if prices is None else prices
    return pd.DataFrame({name: values + place for place, name in enumerate(VALUES)}, index=index)


def simulated(storage: ParquetStorage) -> ParquetStorage:
    """Store minutes round the clock, every third one, of two symbols from the end of January to the beginning of March."""
    stamps = pd.date_range("2024-01-30", "2024-03-03", freq="3min", inclusive="left", tz="UTC")
    storage.store(frame("A", stamps))
    storage.store(frame("BRK.B", stamps[::7]))
    storage.store(frame("A", pd.date_range("2023-12-27 05:00", "2024-01-05 05:00", tz="UTC")), timeframe="1Day")
    return storage


@pytest.fixture
def storage(place) -> ParquetStorage:
    return simulated(ParquetStorage(files=place.files))


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> ParquetStorage:
    return simulated(ParquetStorage(tmp_path_factory.mktemp("query") / "store"))


@pytest.fixture(scope="module")
def real_store(tmp_path_factory) -> ParquetStorage:
    """Real bars of half days (to New Year's Eve, whose evening is 2025 in UTC) and of both clock changes."""
    storage = ParquetStorage(tmp_path_factory.mktemp("real") / "store")
    for name in (CHANGES, HALF_DAYS):
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            bars = connection.sql(bars_of(name)).to_arrow_table().to_pandas()
        storage.store(bars.set_index(["symbol", "timestamp"]))
    return storage


class Watched:
    """Files that record which of them were read."""

    def __init__(self, files) -> None:
        self._files = files
        self.read: list[str] = []

    def __getattr__(self, name: str):
        return getattr(self._files, name)

    def get(self, key: str) -> bytes | None:
        self.read.append(key)
        return self._files.get(key)


def flat(bars: pd.DataFrame) -> pd.DataFrame:
    """Return a frame of `load` as Arrow tables become: columns, microseconds."""
    made = bars.reset_index()
    return made.assign(symbol=made["symbol"].astype("str"), timestamp=made["timestamp"].dt.as_unit("us"))


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(
        found.assign(symbol=found["symbol"].astype("str")), expected, check_exact=True, check_index_type=False
    )


# -------------------------------------------------------------------------------------------------------------- one answer

QUESTIONS = {
    "all": (("A", "2024-01-01", "2024-12-31"), {}),
    "symbols": ((["BRK.B", "a", "NONE"], "2024-02-01", "2024-02-20"), {}),
    "instants": (("A", "2024-02-01T00:07:00Z", "2024-02-20T17:00:00Z"), {}),
    "columns": (("A", "2024-02-01", "2024-02-20"), {"columns": ["close", "open"]}),
    "no-columns": (("A", "2024-02-01", "2024-02-20"), {"columns": []}),
    "regular": ((["A", "BRK.B"], "2024-01-31", "2024-03-01"), {"session": "regular"}),
    "extended": ((["A", "BRK.B"], "2024-01-31", "2024-03-01"), {"session": "extended", "columns": ["volume"]}),
    "quarters": ((["A", "BRK.B"], "2024-01-31", "2024-03-01"), {"resample": "15Min"}),
    "hours": (("A", "2024-01-31T15:00:00Z", "2024-02-15T15:00:00Z"), {"resample": "1Hour", "session": "extended"}),
    "days": ((["A", "BRK.B"], "2024-01-01", "2024-12-31"), {"resample": "1Day", "columns": ["vwap"]}),
    "daily-bars": (("A", "2023-12-28", "2024-01-03"), {"timeframe": "1Day"}),
    "one-file": (("A", "2024-02-05", "2024-02-06"), {}),
    "nothing": (("NONE", "2024-02-05", "2024-02-06"), {}),
    "a-weekend": (("A", "2024-02-03", "2024-02-04"), {"session": "regular"}),
    "no-symbol": (([], "2024-02-05", "2024-02-06"), {"resample": "5Min"}),
}


@pytest.mark.parametrize(("arguments", "options"), QUESTIONS.values(), ids=QUESTIONS)
def test_every_form_is_the_same_answer(storage, arguments, options):
    expected = flat(storage.load(*arguments, **options))
    table = storage.load_arrow(*arguments, **options)
    parts = list(storage.batches(*arguments, **options))
    names = ["symbol", "timestamp", *options.get("columns", VALUES)]

    assert table.schema.names == names
    assert [str(kind) for kind in table.schema.types] == ["string", "timestamp[us, tz=UTC]", *["double"] * (len(names) - 2)]
    same(table.to_pandas(), expected)
    assert pa.concat_tables([table.slice(0, 0), *(part for _, part in parts)]).combine_chunks().equals(table.combine_chunks())
    assert storage.load_polars(*arguments, **options).equals(pl.DataFrame(table))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        relation = storage.relation(*arguments, **options, connection=connection)
        assert relation.columns == names
        ordered = relation.order("symbol, timestamp").to_arrow_table()
        same(ordered.to_pandas(), expected)
        assert relation.aggregate("count(*)").fetchall() == [(len(expected),)], "a relation can be executed again"


def test_what_was_asked_here_is_something():
    """A test of equal answers proves nothing where all are empty."""
    empty = {"nothing", "a-weekend", "no-symbol"}
    assert empty < set(QUESTIONS)


@pytest.mark.parametrize("name", [name for name in QUESTIONS if name not in ("nothing", "a-weekend", "no-symbol")])
def test_questions_have_answers(local, name):
    arguments, options = QUESTIONS[name]

    assert len(local.load(*arguments, **options)) > 0


@pytest.mark.parametrize("session", ["all", "regular", "extended"])
def test_real_bars_are_those_of_sql_over_the_files(real_store, session):
    """The clock of New York in DuckDB's own words."""
    files = f"read_parquet('{real_store.files.folder}/equities_1min/**/*.parquet', hive_types = {{'symbol': VARCHAR}})"
    minute = "(hour(ny) * 60 + minute(ny))"
    half = "(ny::DATE IN (DATE '2024-11-29', DATE '2024-12-24'))"
    inside = {
        "all": "true",
        "regular": f"{minute} >= 570 AND {minute} < if({half}, 780, 960)",
        "extended": f"{minute} >= 240 AND {minute} < if({half}, 1020, 1200)",
    }[session]
    loaded = real_store.load_arrow(["AAPL", "ACHR", "SPCX", "SPY"], "2024-03-01", "2024-12-31", session=session)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        expected = (
            f"SELECT symbol, timestamp, {', '.join(VALUES)} FROM"
            f" (SELECT *, timestamp AT TIME ZONE 'America/New_York' AS ny FROM {files}) WHERE {inside}"
        )
        left = connection.sql(f"({expected}) EXCEPT ALL (FROM loaded)").fetchall()
        right = connection.sql(f"(FROM loaded) EXCEPT ALL ({expected})").fetchall()
        assert (left, right) == ([], [])
    assert loaded.num_rows > 40_000


# ------------------------------------------------------------------------------------------------------- whole sessions


@pytest.mark.parametrize("day", ["2024-11-08", "2024-11-29", "2024-12-31"])
def test_the_evening_of_a_month_is_whole_whatever_the_file(real_store, day):
    """New Year's Eve ends at 01:00 UTC of 2025, in the next year's file; the half day of November does not reach so far."""
    with duckdb.connect() as connection:
        source = " UNION ".join(f"({bars_of(name)})" for name in (CHANGES, HALF_DAYS))
        local = f"SELECT *, timestamp AT TIME ZONE 'America/New_York' AS ny FROM ({source}) WHERE symbol = 'AAPL'"
        close = "17:00" if day == "2024-11-29" else "20:00"
        inside = f"ny >= '{day} 04:00' AND ny < '{day} {close}'"
        ((volume, last),) = connection.sql(
            f"SELECT sum(volume), strftime(max(ny), '%H:%M') FROM ({local}) WHERE {inside}"
        ).fetchall()
    loaded = real_store.load("AAPL", day, day, resample="1Day", session="extended")
    (part,) = real_store.batches("AAPL", day, day, resample="1Day", session="extended")

    assert last > "16:30"
    assert loaded["volume"].tolist() == part[1].column("volume").to_pylist() == [volume]
    assert str(loaded.index[0][1].tz_convert("America/New_York")) == f"{day} 00:00:00-05:00"


def test_no_session_is_in_two_pieces(local):
    days = [
        {stamp.date() for stamp in part.column("timestamp").to_pandas().dt.tz_convert("America/New_York")}
        for symbol, part in local.batches("A", "2024-01-01", "2024-12-31")
    ]

    assert len(days) == 3
    assert sum(map(len, days)) == len(set().union(*days))


def test_pieces_come_by_symbol_and_time_and_none_is_empty(local):
    parts = list(local.batches(["BRK.B", "A"], "2024-01-01", "2024-12-31", session="regular"))
    firsts = [(symbol, part.column("timestamp")[0].as_py()) for symbol, part in parts]

    assert [symbol for symbol, _ in parts] == ["A", "A", "A", "BRK.B", "BRK.B", "BRK.B"]
    assert firsts == sorted(firsts)
    assert all(part.num_rows and part.column("symbol").unique().to_pylist() == [symbol] for symbol, part in parts)


an_instant = st.integers(0, 34 * 24 * 12).map(lambda n: at("2024-01-29T23:00") + timedelta(minutes=5 * n))
a_which = st.fixed_dictionaries(
    {"session": st.sampled_from(["regular", "extended"]), "resample": st.sampled_from([None, "15Min", "1Hour", "1Day"])}
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(an_instant, min_size=3, max_size=5, unique=True), a_which)
def test_a_range_that_is_cut_anywhere_gives_each_bar_once_and_whole(local, instants, options):
    edges = sorted(instants)
    whole = local.load_arrow("A", edges[0], edges[-1], **options)
    cut = [local.load_arrow("A", start, end, **options) for start, end in pairwise(edges)]

    assert pa.concat_tables(cut).combine_chunks().equals(whole.combine_chunks())


def test_a_computed_bar_is_whole_though_the_range_ends_in_it(local):
    hour = local.load("A", "2024-02-05T14:30:00Z", "2024-02-05T15:00:00Z", resample="1Hour")
    minutes = local.load("A", "2024-02-05T14:30:00Z", "2024-02-05T15:30:00Z")

    assert hour["volume"].tolist() == [minutes["volume"].sum()]
    assert len(local.load("A", "2024-02-05T14:31:00Z", "2024-02-05T15:00:00Z", resample="1Hour")) == 0


@pytest.mark.parametrize(
    ("now", "last"),
    [
        pytest.param("2024-02-05T15:44", "2024-02-05T15:15", id="a-bar-is-under-way"),
        pytest.param("2024-02-05T15:45", "2024-02-05T15:30", id="it-has-just-ended"),
        pytest.param("2024-02-05T22:00", "2024-02-05T20:45", id="after-the-close"),
        pytest.param("2024-02-05T12:00", "2024-02-02T20:45", id="before-the-open"),
    ],
)
def test_a_bar_that_is_under_way_is_left_out(local, now, last):
    query = BarQuery.parse("A", "2024-02-01", None, now=at(now), resample="15Min")
    ((_, table),) = whole_symbols(local.bars, query)

    assert table.column("timestamp")[-1].as_py() == at(last)
    assert pa.concat_tables(part for _, part in batches(local.bars, query)).equals(table)


@pytest.mark.parametrize("start", ["2024-02-05", "2024-02-05T15:00:00Z"])
def test_todays_bar_is_left_out_until_the_close(local, start):
    def days(now: str) -> int:
        query = BarQuery.parse("A", start, None, now=at(now), resample="1Day")
        return sum(table.num_rows for _, table in whole_symbols(local.bars, query))

    assert (days("2024-02-05T20:59"), days("2024-02-05T21:00")) == (0, 1 if start == "2024-02-05" else 0)


# ------------------------------------------------------------------------------------------------------- what is read


def test_what_was_not_chosen_is_read_where_it_is_needed_and_not_given(local):
    query = BarQuery.parse("A", "2024-02-05", "2024-02-06", now=at("2025-01-01"), columns=["vwap"], resample="15Min")

    assert (query.columns, query.needed) == (("vwap",), ("volume", "vwap"))
    assert local.load("A", "2024-02-05", "2024-02-06", columns=["vwap"], resample="15Min").columns.tolist() == ["vwap"]
    assert steps(BarQuery.parse("A", "2024-02-05", now=at("2025-01-01"), end=None)) == ()


@pytest.mark.parametrize("new_place", ["memory"], indirect=True)
def test_few_files_are_read_before_their_pieces_are_asked_for(place):
    storage = ParquetStorage(files=Watched(place.files))
    months = pd.date_range("2016-01-15 15:00", "2020-12-15 15:00", freq="MS", tz="UTC") + timedelta(hours=15)
    storage.store(frame("A", months), timeframe="1Min")
    storage.files.read.clear()
    parts = storage.batches("A", "2016-01-01", "2020-12-31", incomplete="ignore")
    assert storage.files.read == []
    for given_ in range(1, 20):
        next(parts)
        assert len(storage.files.read) <= given_ + 4
    parts.close()
    assert len(storage.files.read) <= 24


@pytest.mark.parametrize("new_place", ["disk", "memory"], indirect=True)
@pytest.mark.parametrize("options", [{}, {"session": "regular"}, {"resample": "1Hour"}])
def test_a_relation_reads_nothing_until_it_is_asked_and_the_files_anew_each_time(place, options):
    storage = simulated(ParquetStorage(files=Watched(place.files)))
    storage.files.read.clear()
    with duckdb.connect() as connection:
        relation = storage.relation("A", "2024-02-05", "2024-02-05", connection=connection, incomplete="ignore", **options)
        assert storage.files.read == []
        before = relation.aggregate("count(*)").fetchall()
        storage.store(frame("A", ["2024-02-05T15:01"]))
        after = relation.aggregate("count(*)").fetchall()

    assert after[0][0] == before[0][0] + ("resample" not in options)


def test_a_relation_is_named_in_sql_of_the_connection_of_duckdb_itself(local):
    bars = local.relation("A", "2024-02-01", "2024-02-29", session="regular")  # noqa: F841
    days = local.relation("A", "2024-02-01", "2024-02-29", resample="1Day")
    found = duckdb.sql("SELECT max(high), sum(volume), count(DISTINCT timestamp::DATE) FROM bars").fetchall()

    assert found == days.aggregate("max(high), sum(volume), count(*)").fetchall()


def test_duckdb_reads_only_the_columns_that_are_used(local):
    relation = local.relation("A", "2024-02-01", "2024-02-29")
    plan = relation.aggregate("avg(close)").explain()

    assert "READ_PARQUET" in plan
    assert "high" not in plan


def test_a_store_inside_something_like_a_partition_has_relations_too(tmp_path):
    storage = simulated(ParquetStorage(tmp_path / "year=old" / "store"))
    arguments = ("A", "2024-02-01", "2024-02-29")
    with duckdb.connect() as connection:
        assert storage.relation(*arguments, connection=connection).to_arrow_table().num_rows == len(storage.load(*arguments)) > 0


def test_a_relation_whose_first_file_is_damaged_says_so_when_it_is_asked(tmp_path):
    storage = simulated(ParquetStorage(tmp_path / "store"))
    key = "equities_1min/symbol=A/year=2024/month=01/data.parquet"
    (tmp_path / "store" / key).write_bytes(b"damaged")
    with duckdb.connect() as connection:
        relation = storage.relation("A", "2024-01-01", "2024-12-31", connection=connection)
        with pytest.raises(duckdb.Error, match=key):
            relation.fetchall()


@pytest.mark.parametrize("options", [{}, {"session": "regular"}])
def test_a_damaged_file_is_named_in_every_form(tmp_path, options):
    storage = simulated(ParquetStorage(tmp_path / "store"))
    key = "equities_1min/symbol=A/year=2024/month=02/data.parquet"
    (tmp_path / "store" / key).write_bytes(b"damaged")
    arguments = ("A", "2024-01-01", "2024-12-31")

    for form in (storage.load, storage.load_arrow, storage.load_polars):
        with pytest.raises(DamagedFile, match=key):
            form(*arguments, **options)
    with pytest.raises(DamagedFile, match=key):
        list(storage.batches(*arguments, **options))
    with duckdb.connect() as connection, pytest.raises(duckdb.Error, match=key):
        storage.relation(*arguments, **options, connection=connection).fetchall()


# ---------------------------------------------------------------------------------------------------- what is not whole


def forms(storage: ParquetStorage) -> dict[str, object]:
    return {name: getattr(storage, name) for name in ("load", "load_arrow", "load_polars", "relation", "batches")}


@pytest.fixture
def broken_off(tmp_path) -> ParquetStorage:
    """A store in which 2024-02-05 was requested until noon in New York (17:00 UTC), and came until 15:37 UTC."""
    storage = ParquetStorage(tmp_path / "store")
    storage.store(frame("A", pd.date_range("2024-02-05 09:00", "2024-02-05 15:37", freq="min", inclusive="left")))
    wanted, covered = between("2024-02-05T05:00", "2024-02-05T17:00"), between("2024-02-05T05:00", "2024-02-05T15:37")
    storage.bars.coverage.update(A, lambda known: Coverage(A, (wanted,), (covered,), rows=known.rows))
    return storage


@pytest.mark.parametrize("form", ["load", "load_arrow", "load_polars", "relation", "batches"])
def test_every_form_names_what_is_not_whole_at_its_caller(broken_off, form):
    with pytest.warns(IncompleteWarning, match="A in equities_1min .*2024-02-05T15:37:00Z .*`data-engine update A`") as caught:
        forms(broken_off)[form]("A", "2024-02-05T05:00Z", "2024-02-05T17:00Z", resample="15Min")
    assert {warning.filename for warning in caught} == {__file__}
    with pytest.raises(StoreError, match="2024-02-05T15:37:00Z"):
        forms(broken_off)[form]("A", "2024-02-05", "2024-02-05", incomplete="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forms(broken_off)[form]("A", "2024-02-05", "2024-02-05", resample="15Min", incomplete="ignore")


def messages(storage: ParquetStorage, *arguments, **options) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        storage.load(*arguments, **options)
    return [str(warning.message) for warning in caught]


@pytest.fixture
def until_noon(broken_off) -> ParquetStorage:
    """The same store, where all that was requested has come: until 15:37 UTC, some of it still provisional."""
    wanted = between("2024-02-05T14:40", "2024-02-05T15:37")
    covered, tail = between("2024-02-05T14:40", "2024-02-05T15:00"), between("2024-02-05T15:00", "2024-02-05T15:37")
    broken_off.bars.coverage.update(A, lambda known: Coverage(A, (wanted,), (covered,), (tail,), rows=known.rows))
    return broken_off


def test_a_computed_bar_that_lacks_minutes_at_either_end_is_named(until_noon):
    (text,) = messages(until_noon, "A", "2024-02-05T14:30Z", "2024-02-05T15:45Z", resample="15Min")

    lacking = "2024-02-05T14:30:00Z .. 2024-02-05T14:40:00Z, 2024-02-05T15:37:00Z .. 2024-02-05T15:45:00Z"
    named = [lacking, "15Min bars", "`data-engine ingest A --start 2024-02-05 --end 2024-02-05`"]
    assert [word for word in named if word not in text] == []
    with pytest.raises(StoreError, match=r"2024-02-05T15:37:00Z \.\. 2024-02-05T21:00:00Z.*1Day bars"):
        until_noon.load("A", "2024-02-05", "2024-02-05", resample="1Day", incomplete="raise")


@pytest.mark.parametrize(
    ("start", "end", "options"),
    [
        pytest.param("2024-02-05T14:45:00Z", "2024-02-05T15:30:00Z", {"resample": "15Min"}, id="bars-that-lack-nothing"),
        pytest.param("2024-02-05T14:40:00Z", "2024-02-05T15:37:00Z", {"resample": "1Min"}, id="bars-of-a-minute"),
    ],
)
def test_where_no_bar_of_the_answer_lacks_minutes_nothing_is_said(until_noon, start, end, options):
    assert messages(until_noon, "A", start, end, **options) == []


def test_minutes_that_were_stored_without_a_claim_are_not_missed(local):
    """`store` claims nothing; what a user brought is taken for what it is, from the first bar to the last."""
    assert messages(local, "A", "2024-01-30", "2024-03-02", resample="1Day") == []


# ------------------------------------------------------------------------------------------------- what cannot be used


@pytest.mark.parametrize("session", ["regular", "extended"])
@pytest.mark.parametrize("timeframe", ["1Day", "1Week", "3Month"])
def test_days_and_longer_have_no_hours(local, session, timeframe):
    with pytest.raises(InputError, match=rf"{session}.*{timeframe}"):
        local.load("A", "2024-01-01", "2024-01-05", timeframe=timeframe, session=session)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"session": "night"}, "'night'.*all, regular, extended"),
        ({"resample": "15Min", "session": "all"}, "session='regular' or 'extended'"),
        ({"resample": "2Day"}, "'2Day'.*390Min"),
        ({"resample": "1Day", "timeframe": "1Day"}, "1Day bars.*timeframe='1Min'"),
        ({"resample": "15Min", "timeframe": "1Hour"}, "15Min.*1Hour bars.*timeframe='1Min'"),
        ({"columns": ["price"]}, "price.*open, high, low, close, volume, trade_count, vwap"),
        ({"incomplete": "quiet"}, "'quiet'.*warn, raise, ignore"),
    ],
)
@pytest.mark.parametrize("form", ["load", "load_arrow", "load_polars", "relation", "batches"])
def test_arguments_that_cannot_be_used_are_refused_at_once_by_every_form(local, form, options, why):
    with pytest.raises(InputError, match=why):
        forms(local)[form]("A", "2024-02-05", "2024-02-06", **options)


@pytest.mark.parametrize("form", ["load", "load_arrow", "load_polars", "relation", "batches"])
def test_every_form_says_that_there_is_no_store(tmp_path: Path, form):
    with pytest.raises(StoreError, match="nowhere"):
        forms(ParquetStorage(tmp_path / "nowhere"))[form]("A", "2024-02-05", "2024-02-06")


@pytest.mark.parametrize("resample", ["15Min", "1Day"])
def test_computed_bars_are_not_stored_as_the_vendors(local, tmp_path, resample):
    bars = local.load("A", "2024-02-05", "2024-02-06", resample=resample)

    with pytest.raises(InputError, match=f"{resample} bars of regular sessions from 1Min bars"):
        ParquetStorage(tmp_path / "other").store(bars)


def test_chosen_minutes_are_the_vendors_and_may_be_stored(local, tmp_path):
    bars = local.load("A", "2024-02-05", "2024-02-06", session="regular")

    assert ParquetStorage(tmp_path / "other").store(bars).rows == len(bars) > 0


def test_without_polars_it_says_how_to_install_it(local, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)

    with pytest.raises(ConfigError, match="`pip install polars`") as caught:
        local.load_polars("A", "2024-02-05", "2024-02-06")
    assert caught.value.exit_code == 2


def test_every_form_takes_the_same_arguments():
    parameters = inspect.signature(ParquetStorage.load).parameters.values()

    assert {one.name for one in parameters if one.kind is one.KEYWORD_ONLY} - {"tz"} == set(ReadOptions.__annotations__)


def test_the_schema_of_nothing_is_that_of_something(local):
    nothing = local.load_arrow("NONE", "2024-02-05", "2024-02-06")

    assert nothing.schema == local.load_arrow("A", "2024-02-05", "2024-02-06").schema
    assert nothing.drop_columns("symbol").schema == EMPTY.schema


# ------------------------------------------------------------------------------------------------- members of an index


@pytest.fixture
def indexed(storage, tmp_path) -> ParquetStorage:
    """`two`: A left it for BRK.B on 15 February; GONE, whose bars nobody has, was in it until 7 February."""
    changes, first = tmp_path / "changes.csv", tmp_path / "first.csv"
    changes.write_text("date,action,symbol\n2024-02-07,removed,GONE\n2024-02-15,removed,A\n2024-02-15,added,BRK.B\n")
    first.write_text("symbol\nA\nGONE\n")
    MetadataStore(files=storage.files).import_history("two", str(changes), members=str(first), as_of="2024-02-01", force=True)
    return storage


def members_by_hand(bars: pd.DataFrame) -> pd.DataFrame:
    """What `two` holds, day by day of New York."""
    day = bars["timestamp"].dt.tz_convert("America/New_York").dt.strftime("%Y-%m-%d")
    return bars[((bars["symbol"] == "A") & (day < "2024-02-15")) | ((bars["symbol"] == "BRK.B") & (day >= "2024-02-15"))]


@pytest.mark.parametrize("resample", [None, "15Min", "1Day"])
def test_each_day_has_the_bars_of_those_who_were_members_then(indexed, resample):
    options = {"resample": resample, "incomplete": "ignore"}
    every = indexed.load(["A", "BRK.B"], "2024-02-05", "2024-02-20", **options).reset_index()
    found = indexed.load(index="two", start="2024-02-05", end="2024-02-20", **options).reset_index()

    pd.testing.assert_frame_equal(found, members_by_hand(every).reset_index(drop=True), check_dtype=False)
    assert set(found["symbol"]) == {"A", "BRK.B"}


def test_the_forms_agree_on_members_too(indexed):
    options = {"index": "two", "start": "2024-02-05", "end": "2024-02-20", "incomplete": "ignore"}
    table = indexed.load_arrow(**options)

    assert indexed.load_polars(**options).to_arrow().cast(table.schema).equals(table)
    assert pa.concat_tables(piece for _, piece in indexed.batches(**options)).equals(table)
    with duckdb.connect() as connection:
        assert indexed.relation(**options, connection=connection).count("*").fetchall() == [(table.num_rows,)]


def test_of_symbols_and_an_index_those_in_both(indexed):
    found = indexed.load(["A", "OTHER"], "2024-02-14", "2024-02-16", index="two", incomplete="ignore").reset_index()

    assert set(found["symbol"]) == {"A"}
    assert found["timestamp"].max() < pd.Timestamp("2024-02-15", tz="America/New_York")


def test_members_without_bars_are_named_though_nobody_asked_for_them(indexed):
    """What lacks is the losers, as a rule: an answer without them would look better than it was."""
    covered = between("2024-01-30 05:00", "2024-03-01 05:00")
    for symbol in ("A", "BRK.B"):
        series = Series(symbol, MINUTES)
        indexed.bars.coverage.update(series, lambda known: replace(known, wanted=(covered,), covered=(covered,)))

    with pytest.raises(StoreError, match="1 of the 3 members of two ") as caught:
        indexed.load(index="two", start="2024-02-05", end="2024-02-20", incomplete="raise")
    assert "GONE@2024-02-06 2024-02-05T05:00:00Z .. 2024-02-07T05:00:00Z" in str(caught.value)
    assert "`data-engine ingest --index two --ever --start 2024-02-05`" in str(caught.value)
    assert indexed.load(index="two", start="2024-02-07", end="2024-02-20", incomplete="raise").size > 0


def test_what_an_index_was_before_it_is_known_is_an_error(indexed):
    with pytest.raises(InputError, match=r"two.*2024-02-01"):
        indexed.load(index="two", start="2024-01-31", end="2024-02-20")
    with pytest.raises(InputError, match=r"three.*two"):
        indexed.load(index="three", start="2024-02-05")


def test_it_says_what_is_missing_where_nobody_or_no_day_is_named(storage):
    with pytest.raises(InputError, match=r"symbols.*index"):
        storage.load(start="2024-02-05")
    with pytest.raises(InputError, match="start"):
        storage.load("A")


def test_a_file_that_is_counted_and_not_there_is_named(storage):
    """A month that a person, or a disk, has taken away must not read as a month without trades."""
    storage.files.delete(Partition(A, Period(2024, 2)).key)

    with pytest.raises(StoreError, match=r" [0-9,]+ .*month=02/data\.parquet"):
        storage.load("A", "2024-01-30", "2024-03-01", incomplete="raise")
    with pytest.warns(IncompleteWarning, match="`data-engine verify A --repair`"):
        left = storage.load("A", "2024-01-30", "2024-03-01").index.get_level_values("timestamp")
    assert set(left.month) == {1, 3}
    assert messages(storage, "A", "2024-01-30", "2024-01-30") == []
