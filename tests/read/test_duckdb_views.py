"""DuckDB over a store: the views show what the files hold, and nothing can be changed through them."""

from __future__ import annotations

import _thread
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from data_engine import ParquetStorage
from data_engine.errors import InputError
from data_engine.market.bars import VALUES
from data_engine.market.series import Adjustment, Dataset, Feed, Series, Timeframe
from data_engine.market.time_range import TimeRange
from data_engine.read import view_files
from data_engine.read.duckdb_views import connect, datasets, explain, interruptible, run, view_name
from data_engine.store.coverage import Coverage
from data_engine.store.partitions import Period

MINUTES = Dataset(Timeframe.parse("1Min"))
A = Series("A", MINUTES)
NOW = datetime(2024, 12, 2, 15, tzinfo=UTC)
COLUMNS = ["symbol", "timestamp", *VALUES, "year"]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def between(start: str, end: str) -> TimeRange:
    return TimeRange(at(start), at(end))


def frame(symbol: str, *timestamps: str, price: float = 1.0) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([[symbol], pd.to_datetime(list(timestamps), utc=True)], names=["symbol", "timestamp"])
    return pd.DataFrame(price, index=index, columns=list(VALUES))


def filled(base: Path) -> ParquetStorage:
    return fill(ParquetStorage(base))


def fill(storage: ParquetStorage) -> ParquetStorage:
    """Store minutes of three symbols in two months, and days of one."""
    for price, symbol in enumerate(("A", "2330", "INF")):
        storage.store(frame(symbol, "2024-06-03T14:00", "2024-06-28T14:00", "2024-07-01T14:00", price=price))
    storage.store(frame("A", "2024-06-03T04:00", "2024-06-04T04:00", price=9.0), timeframe="1Day", adjustment="split", feed="iex")
    return storage


@pytest.fixture
def storage(place) -> ParquetStorage:
    return fill(ParquetStorage(files=place.files))


@pytest.fixture
def connection(storage) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(storage.bars, coverage_at=NOW) as open_:
        yield open_


def test_a_view_is_named_after_its_dataset():
    feeds = {"": Feed.SIP, "_iex": Feed.IEX, "_account": Feed.ACCOUNT}
    adjustments = {"": "raw", "_all": "all", "_spin_off": "spin-off", "_split_dividend": "split,dividend"}
    expected = {
        f"bars_{timeframe.lower()}{event}{source}": Dataset(Timeframe.parse(timeframe), Adjustment.parse(adjustment), feed)
        for timeframe in ("1Min", "5Min", "1Hour", "1Day", "12Month")
        for event, adjustment in adjustments.items()
        for source, feed in feeds.items()
    }

    assert {view_name(dataset): dataset for dataset in expected.values()} == expected
    assert all(re.fullmatch("[a-z0-9_]+", name) for name in expected), "a name that needs no quotes"


def test_there_is_a_view_per_dataset_and_the_coverage(storage, connection):
    assert [view_name(dataset) for dataset in datasets(storage.bars)] == ["bars_1day_split_iex", "bars_1min"]
    tables = run(connection, "SELECT table_name FROM information_schema.tables ORDER BY 1").fetchall()
    assert {"bars_1day_split_iex", "bars_1min"} <= {name for (name,) in tables}
    assert run(connection, "FROM coverage").fetchall() == []


def test_a_dataset_without_files_has_no_view(storage):
    storage.bars.remove(Series("A", datasets(storage.bars)[0]), between("2000-01-01", "2100-01-01"))
    wanted = Series("A", Dataset(Timeframe.parse("5Min")))
    storage.bars.coverage.update(wanted, lambda known: known.wanting(between("2024-01-01", "2024-02-01")))

    assert [view_name(dataset) for dataset in datasets(storage.bars)] == ["bars_1min"]
    with connect(storage.bars, coverage_at=NOW) as open_:
        assert run(open_, "SELECT dataset, state FROM coverage").fetchall() == [("equities_5min", "missing")]


def test_a_view_shows_every_bar_with_typed_columns(connection):
    described = {name: kind for name, kind, *_ in run(connection, "DESCRIBE bars_1min").fetchall()}
    rows = run(connection, "SELECT symbol, epoch(timestamp), close, year, month FROM bars_1min ORDER BY ALL").fetchall()

    values = {"symbol": "VARCHAR", "timestamp": "TIMESTAMP WITH TIME ZONE", **dict.fromkeys(VALUES, "DOUBLE")}
    assert described == {**values, "year": "INTEGER", "month": "INTEGER"}
    timestamps = ["2024-06-03T14:00", "2024-06-28T14:00", "2024-07-01T14:00"]
    assert rows == [
        (symbol, at(timestamp).timestamp(), price, 2024, at(timestamp).month)
        for symbol, price in (("2330", 1.0), ("A", 0.0), ("INF", 2.0))
        for timestamp in timestamps
    ]
    assert run(connection, "FROM bars_1day_split_iex").columns == COLUMNS


def test_a_symbol_of_digits_stays_text_also_where_it_is_alone(place):
    """DuckDB would read ``symbol=2330`` as a number."""
    storage = ParquetStorage(files=place.files)
    storage.store(frame("2330", "2024-06-03T14:00"))
    with connect(storage.bars, coverage_at=NOW) as open_:
        assert run(open_, "SELECT symbol, typeof(symbol) FROM bars_1min WHERE symbol = '2330'").fetchall() == [
            ("2330", "VARCHAR")
        ]


def test_times_are_shown_in_utc(connection):
    assert run(connection, "SELECT min(timestamp)::VARCHAR FROM bars_1min").fetchall() == [("2024-06-03 14:00:00+00",)]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        pytest.param(between("2024-06-03T14:00", "2024-06-28T14:00"), 3, id="half-open"),
        pytest.param(between("2024-06-28T14:00", "2024-07-01T14:01"), 6, id="across-two-files"),
        pytest.param(between("2020-01-01", "2021-01-01"), 0, id="no-bar"),
        pytest.param(between("2000-01-01", "2100-01-01"), 9, id="every-bar"),
    ],
)
def test_views_of_a_span_hold_the_bars_that_start_inside(storage, span, expected):
    with connect(storage.bars, span) as open_:
        assert run(open_, "SELECT count(*), count(DISTINCT symbol) FROM bars_1min").fetchall() == [
            (expected, 3 if expected else 0)
        ]
        assert run(open_, "FROM bars_1min").columns == [*COLUMNS, "month"]
        assert run(open_, "SELECT count(*) FROM bars_1min WHERE symbol = 'A'").fetchall() == [(expected // 3,)]


def test_the_coverage_is_a_table(storage):
    wanted, covered, tail = (between("2024-06-01", day) for day in ("2024-08-01", "2024-06-10", "2024-06-12"))
    storage.bars.coverage.update(
        A, lambda known: Coverage(A, (wanted,), (covered,), (TimeRange(covered.end, tail.end),), rows=known.rows)
    )
    with connect(storage.bars, coverage_at=NOW) as open_:
        rows = run(
            open_, "SELECT * REPLACE (epoch(range_start) AS range_start, epoch(range_end) AS range_end) FROM coverage"
        ).fetchall()
        types = [str(kind) for kind in run(open_, "FROM coverage").types]

    edges = [at(text).timestamp() for text in ("2024-06-01", "2024-06-10", "2024-06-12", "2024-08-01")]
    assert rows == [
        ("equities_1min", "A", state, start, end)
        for state, start, end in zip(("covered", "provisional", "missing"), edges, edges[1:], strict=False)
    ]
    assert types == ["VARCHAR", "VARCHAR", "VARCHAR", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP WITH TIME ZONE"]


def test_a_bar_that_has_not_ended_is_not_missing_in_the_coverage(storage):
    days = Series("A", Dataset(Timeframe.parse("1Day")))
    storage.bars.coverage.update(days, lambda known: known.wanting(between("2024-06-05T04:00", "2024-06-06T20:00")))

    missing = "SELECT epoch(range_end) FROM coverage WHERE dataset = 'equities_1day'"
    for now, expected in (("2024-06-06T20:00", ["2024-06-06T04:00"]), ("2024-06-07T05:00", ["2024-06-06T20:00"])):
        with connect(storage.bars, coverage_at=at(now)) as open_:
            assert run(open_, missing).fetchall() == [(at(end).timestamp(),) for end in expected]


def test_a_series_that_is_only_requested_is_in_the_coverage(storage):
    """Another process has written down what it was asked for, and brought nothing yet."""
    with connect(storage.bars, coverage_at=NOW):
        ParquetStorage(files=storage.files).bars.coverage.requested.add(
            {Series("B", MINUTES): (between("2024-01-01", "2024-02-01"),)}
        )
    with connect(storage.bars, coverage_at=NOW) as open_:
        assert run(open_, "SELECT symbol, state FROM coverage").fetchall() == [("B", "missing")]


def test_the_coverage_can_be_left_out(storage):
    with connect(storage.bars) as open_, pytest.raises(InputError, match="coverage"):
        run(open_, "FROM coverage")


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        pytest.param("SELECT * FROM bars_5min", "bars_5min does not exist", id="no-such-view"),
        pytest.param("SELECT price FROM bars_1min", "price", id="no-such-column"),
        pytest.param("SELEKT 1", "syntax error", id="no-sql"),
        pytest.param("SELECT 'a' FROM", "syntax error", id="half-a-statement"),
    ],
)
def test_a_bad_statement_names_the_views_there_are(connection, sql, why):
    with pytest.raises(InputError, match=rf"(?s){why}.*\n.*bars_1day_split_iex, bars_1min, .*coverage$"):
        run(connection, sql)


def test_an_empty_store_has_no_views_and_is_not_made(place):
    with connect(ParquetStorage(files=place.files).bars, coverage_at=NOW) as open_:
        assert run(open_, "SELECT count(*) FROM coverage").fetchall() == [(0,)]
        with pytest.raises(InputError, match="bars_1min does not exist"):
            run(open_, "FROM bars_1min")
    assert place.content() == {}
    assert not place.on_disk or not Path(place.base).exists()


def test_the_coverage_is_named_once(connection):
    with pytest.raises(InputError) as caught:
        run(connection, "SELEKT 1")
    views = re.findall(r"bars_\w+|coverage", str(caught.value).splitlines()[-1])
    assert views == ["bars_1day_split_iex", "bars_1min", "coverage"]


@pytest.mark.parametrize(
    "sql",
    [
        "FROM bars_1min",
        "WITH a AS (FROM bars_1min) FROM a",
        "DESCRIBE bars_1min",
        "SHOW TABLES",
        "SUMMARIZE bars_1min",
        "VALUES (1)",
    ],
)
def test_read_only_statements_of_every_form_run(connection, sql):
    assert run(connection, sql).fetchall() != []


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param("", id="nothing"),
        pytest.param("CREATE TABLE t (a INTEGER)", id="create"),
        pytest.param("SET threads = 1", id="set"),
        pytest.param("ATTACH ':memory:' AS other", id="attach"),
        pytest.param("FROM bars_1min; FROM bars_1min", id="two-statements"),
        pytest.param("SELECT 1; DROP VIEW bars_1min", id="a-select-and-more"),
        pytest.param("EXPLAIN CREATE TABLE t (a INTEGER)", id="explain-create"),
        pytest.param("EXPLAIN ANALYZE CREATE TABLE t (a INTEGER)", id="explain-analyze-create"),
        pytest.param("explain (analyze, format json) CREATE TABLE t (a INTEGER)", id="explain-options"),
    ],
)
def test_sql_that_is_not_one_read_only_statement_is_refused(connection, sql):
    with pytest.raises(InputError, match="one statement of kind SELECT"):
        run(connection, sql)


def test_a_statement_that_fails_over_the_rows_is_an_input_error_too(connection):
    with pytest.raises(InputError, match="Could not convert"):
        run(connection, "SELECT symbol::INTEGER FROM bars_1min").fetchall()


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param("DROP VIEW bars_1min", id="drop"),
        pytest.param(
            "EXPLAIN ANALYZE COPY (SELECT 1 AS x) TO '{base}/equities_1min/symbol=A/year=2024/month=06/data.parquet'",
            id="explain-analyze-copy",
        ),
        pytest.param(
            "/* EXPLAIN */ EXPLAIN /* b */ ANALYZE COPY (SELECT 1 AS x) TO '{base}/equities_1min/symbol=A/more.parquet'",
            id="explain-analyze-copy-among-comments",
        ),
        pytest.param("DELETE FROM bars_1min", id="delete"),
        pytest.param("UPDATE bars_1min SET close = 0", id="update"),
        pytest.param("INSERT INTO bars_1min SELECT * FROM bars_1min", id="insert"),
        pytest.param(
            "COPY (FROM bars_1min) TO '{base}/equities_1min/symbol=A/year=2024/month=06/data.parquet'",
            id="copy-over-a-file",
        ),
        pytest.param(
            "COPY (SELECT 1 AS x) TO '{base}/equities_1min/symbol=A/year=2024/month=06/more.parquet'",
            id="copy-beside-a-file",
        ),
    ],
)
def test_nothing_of_the_store_is_changed_through_a_statement(storage, place, sql):
    before = place.content()
    with connect(storage.bars, coverage_at=NOW) as open_, suppress(InputError):
        run(open_, sql.format(base=place.base))

    assert place.content() == before


@pytest.mark.parametrize(
    "name",
    [
        "o'neill",
        "with space",
        "ünïcode 日本",
        "percent%20",
        "a=b",
        "a[1]",
        "star*",
    ],
)
def test_a_store_may_lie_anywhere(tmp_path, name):
    """Its path is no pattern."""
    filled(tmp_path / "starfish" / "store")
    with connect(filled(tmp_path / name / "store").bars) as open_:
        rows = run(open_, "SELECT symbol, year, count(*) FROM bars_1min GROUP BY ALL ORDER BY 1").fetchall()

    assert rows == [("2330", 2024, 3), ("A", 2024, 3), ("INF", 2024, 3)]


@pytest.mark.parametrize("name", ["year=old", "month=1", "symbol=X"])
def test_a_store_inside_something_like_a_partition_is_refused(tmp_path, name):
    """DuckDB would take that part of the path for the bars' own, and give every bar another symbol or year."""
    store = filled(tmp_path / name / "store")
    with (
        pytest.raises(InputError, match=f"'{name}'"),
        connect(store.bars),
    ):
        pass


def test_a_damaged_file_is_named_by_the_queries_that_read_it(storage, place):
    key = "equities_1min/symbol=A/year=2024/month=06/data.parquet"
    place.put(key, b"damaged")
    with connect(storage.bars, coverage_at=NOW) as open_:
        with pytest.raises(InputError, match=re.escape(key)):
            run(open_, "SELECT avg(close) FROM bars_1min")
        assert run(open_, "SELECT avg(close) FROM bars_1min WHERE symbol = '2330'").fetchall() == [(1.0,)]


@pytest.mark.parametrize("new_place", ["disk"], indirect=True)
@pytest.mark.parametrize(
    ("condition", "opened"),
    [
        ("symbol = 'A'", "2/6"),
        ("symbol IN ('A', '2330') AND month = 6", "2/6"),
        ("month = 7", "3/6"),
    ],
)
def test_conditions_on_the_path_leave_files_unopened(connection, condition, opened):
    plan = explain(connection, f"SELECT avg(close) FROM bars_1min WHERE {condition}")

    assert re.findall(r"Scanning Files: (\S+)", plan) == [opened]


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


@pytest.mark.parametrize("new_place", ["memory"], indirect=True)
@pytest.mark.parametrize(
    ("span", "condition", "read"),
    [
        pytest.param(None, "symbol = 'A' AND month = 6", ["A 06"], id="symbol-and-month"),
        pytest.param(None, "symbol IN ('A', 'INF') AND year = 2024 AND month > 6", ["A 07", "INF 07"], id="symbols"),
        pytest.param(None, "symbol = '2330' AND timestamp >= '2024-07-01 00:00:00+00'", ["2330 07"], id="times"),
        pytest.param(None, "timestamp < '2024-06-01 00:00:00+00'", [], id="before-all"),
        pytest.param(None, "year = 2023", [], id="another-year"),
        pytest.param(between("2024-07-01", "2024-08-01"), "symbol != 'INF'", ["2330 07", "A 07"], id="a-span"),
        pytest.param(between("2024-06-28T15:00", "2024-07-02"), "symbol = 'A'", ["A 06", "A 07"], id="a-span-of-two-months"),
    ],
)
def test_only_files_of_a_bucket_that_can_have_the_queried_bars_are_read(place, span, condition, read):
    """The rows would be the same without this; months that cannot matter must cost nothing."""
    fill(ParquetStorage(files=place.files))
    watched = Watched(place.files)
    with connect(ParquetStorage(files=watched).bars, span) as open_:
        found = run(open_, f"SELECT count(*) FROM bars_1min WHERE {condition}").fetchall()
    with connect(filled(place.copy() / "again").bars, span) as local:
        assert found == run(local, f"SELECT count(*) FROM bars_1min WHERE {condition}").fetchall()

    parts = [key.replace("symbol=", "").replace("month=", "").split("/") for key in watched.read]
    assert sorted(f"{symbol} {month}" for _, symbol, _, month, _ in parts) == read


def test_damaged_coverage_of_one_series_does_not_hide_the_others(storage, place):
    storage.bars.coverage.update(Series("INF", MINUTES), lambda known: known.wanting(between("2024-06-01", "2024-06-02")))
    place.put("metadata/coverage/equities_1min/symbol=A.json", b"{")
    with connect(storage.bars, coverage_at=NOW) as open_:
        assert run(open_, "SELECT count(*) FROM bars_1min").fetchall() == [(9,)]
        found = run(open_, "SELECT symbol, state, range_start IS NULL FROM coverage ORDER BY 1").fetchall()

    assert found == [("A", "damaged", True), ("INF", "missing", False)]


# ------------------------------------------------------------------------------------- files that the coverage knows


def test_of_many_series_the_files_are_named_that_the_coverage_knows(tmp_path, monkeypatch):
    """Those that were stored and not counted, or whose coverage is gone or damaged, are seen like all others."""
    storage = ParquetStorage(tmp_path)
    monkeypatch.setattr(view_files, "_LISTED", 1)
    june = between("2024-06-01T00:00", "2024-07-01T00:00")
    for symbol in ("A", "COUNTED", "DAMAGED", "KILLED", "LOST", "UNKNOWN"):
        storage.store(frame(symbol, "2024-05-31T14:00", "2024-06-03T14:00"))
    killed, changing = Series("KILLED", MINUTES), Series("A", MINUTES)
    storage.bars.coverage.update(killed, lambda known: Coverage(killed, wanted=(june,), rows={Period(2024, 5): 1}))
    storage.bars.coverage.update(changing, lambda known: Coverage(changing, changing=frozenset(known.rows)))
    coverage = tmp_path / "metadata/coverage/equities_1min"
    (coverage / "symbol=DAMAGED.json").write_text("{")
    (coverage / "symbol=UNKNOWN.json").unlink()
    (tmp_path / "equities_1min/symbol=LOST/year=2024/month=05/data.parquet").unlink()

    expected = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("equities_1min/**/*.parquet"))
    found = view_files.view_files(storage.bars, MINUTES, None)
    assert (sorted(found.keys), found.left_out) == (expected, [])
    with connect(storage.bars) as opened:
        assert run(opened, "SELECT count(*) FROM bars_1min").fetchall() == [(11,)]


def test_a_store_with_many_series_is_not_listed_file_by_file(tmp_path, monkeypatch):
    storage = ParquetStorage(tmp_path)
    monkeypatch.setattr(view_files, "_LISTED", 2)
    for number in range(5):
        storage.store(frame(f"S{number}", "2024-06-03T14:00"))
    listed = []
    every = storage.files.list
    monkeypatch.setattr(storage.files, "list", lambda prefix: listed.append(prefix) or every(prefix))

    assert len(view_files.view_files(storage.bars, MINUTES, None).keys) == 5
    assert [one for one in listed if one.startswith("equities")] == ["equities_1min/symbol=S0", "equities_1min/symbol=S1"]


def test_an_interrupt_between_two_statements_stops_the_second():
    connection = duckdb.connect()
    interrupted = threading.Event()
    outcomes = []

    class Watched:
        def interrupt(self) -> None:
            connection.interrupt()
            interrupted.set()

    def work() -> None:
        _thread.interrupt_main()
        assert interrupted.wait(60)  # nothing runs yet
        try:
            connection.execute("SELECT sum(a.range * b.range % 7) FROM range(100000) a, range(40000) b").fetchall()
            outcomes.append("computed")
        except duckdb.InterruptException:
            outcomes.append("interrupted")

    with pytest.raises(KeyboardInterrupt):
        interruptible(Watched(), work)

    assert outcomes == ["interrupted"]
