"""Results of queries as CSV, Parquet, JSON and tables: same rows, streamed, and a query that fails leaves what was there."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from data_engine import ParquetStorage
from data_engine.errors import InputError
from data_engine.market.bars import VALUES
from data_engine.read.query_output import csv_text, format_of, write
from running import Ran, content, here

MANY = 50_000


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Minutes of two symbols, more than one piece of a stream."""
    base = tmp_path_factory.mktemp("results") / "store"
    stamps = pd.date_range("2024-06-01", periods=MANY // 2, freq="min", tz="UTC")
    index = pd.MultiIndex.from_product([["A", "BRK.B"], stamps], names=["symbol", "timestamp"])
    bars = pd.DataFrame({name: np.arange(MANY) / (place + 3) for place, name in enumerate(VALUES)}, index=index)
    ParquetStorage(base).store(bars)
    return base


@pytest.fixture
def connection():
    with duckdb.connect() as made:
        made.execute("SET TimeZone = 'UTC'")
        yield made


def query(store: Path, sql: str, *words: object) -> Ran:
    return here("query", sql, *words, "--base-path", store)


ALL = "FROM bars_1min ORDER BY symbol, timestamp"


def test_the_files_hold_the_rows_of_the_query(store, tmp_path, connection):
    for name in ("bars.csv", "bars.parquet", "bars.json"):
        ran = query(store, ALL, "--out", name)
        assert (ran.code, ran.out) == (0, "")
        assert re.search(rf"^{name}: \d+\.\d [kM]B$", ran.err, re.MULTILINE)
    rows = connection.sql("FROM 'bars.parquet'").fetchall()

    held = f"FROM read_parquet('{store}/equities_1min/**/*.parquet', hive_types = {{'symbol': VARCHAR}})"
    names = f"symbol, timestamp, {', '.join(VALUES)}, year::INTEGER, month::INTEGER"
    assert rows == connection.sql(f"SELECT {names} {held} ORDER BY symbol, timestamp").fetchall()
    assert rows == connection.sql("FROM read_csv('bars.csv')").fetchall()
    found = json.loads(Path("bars.json").read_text())
    assert found["columns"] == ["symbol", "timestamp", *VALUES, "year", "month"]
    assert [(row[0], *row[2:]) for row in found["rows"]] == [(row[0], *row[2:]) for row in rows]
    assert pq.ParquetFile("bars.parquet").metadata.row_group(0).column(0).compression == "ZSTD"


def test_csv_on_stdout_is_the_csv_of_a_file(store, tmp_path):
    printed = query(store, ALL, "--format", "csv")
    query(store, ALL, "--out", "bars.csv")

    assert printed.code == 0
    assert printed.out.splitlines() == Path("bars.csv").read_text().splitlines()
    assert len(printed.out.splitlines()) == MANY + 1


def test_the_format_that_was_chosen_counts_and_not_the_name(store, tmp_path):
    query(store, "SELECT 1 AS one", "--format", "csv", "--out", "one.parquet")
    query(store, "SELECT 1 AS one", "--out", "one.txt")

    assert Path("one.parquet").read_text() == "one\n1\n"
    assert "int32" in Path("one.txt").read_text()


def test_json_is_the_same_by_either_option(store):
    sql = "SELECT symbol, count(*) AS bars FROM bars_1min GROUP BY 1 ORDER BY 1"

    expected = {"columns": ["symbol", "bars"], "rows": [["A", MANY // 2], ["BRK.B", MANY // 2]]}
    assert query(store, sql, "--json").json == query(store, sql, "--format", "json").json == expected


@pytest.mark.parametrize("sql", ["DESCRIBE bars_1min", "SHOW TABLES", "SUMMARIZE bars_1min", "VALUES (1)"])
def test_questions_of_every_form_can_be_written(store, tmp_path, sql):
    printed = query(store, sql, "--format", "csv")
    written = [query(store, sql, "--out", name).code for name in ("x.csv", "x.parquet")]

    assert (printed.code, written) == (0, [0, 0])
    assert len(list(csv.reader(io.StringIO(printed.out)))) == pq.read_metadata("x.parquet").num_rows + 1


STRANGE = """
SELECT 'a,b' AS "x,y", 'say "so"' AS quoted, e'two\\nlines' AS lines, NULL AS nothing, [1, 2] AS list, 5::HUGEINT AS huge,
       1.50::DECIMAL(9, 2) AS cents, TIMESTAMPTZ '2024-06-03 13:30:00.5+00' AS at, true AS yes, INTERVAL 1 DAY AS day
"""


def test_values_of_any_kind_are_written_as_duckdb_writes_them(connection):
    relation = connection.sql(STRANGE)
    text = "".join(csv_text(relation))
    relation.write_csv("theirs.csv", header=True)

    expected = ["a,b", 'say "so"', "two\nlines", "", "[1, 2]", "5", "1.50", "2024-06-03 13:30:00.5+00", "true", "1 day"]
    assert list(csv.reader(io.StringIO(text)))[1:] == [expected]
    with Path("theirs.csv").open(newline="") as file:
        assert list(csv.reader(file)) == list(csv.reader(io.StringIO(text)))


def test_no_rows_are_a_line_of_names(store):
    assert query(store, "SELECT symbol, close FROM bars_1min WHERE false", "--format", "csv").out == "symbol,close\n"


def test_csv_comes_in_pieces(connection):
    """The first piece is there long before the last row is computed: a billion of them would not fit."""
    pieces = csv_text(connection.sql("SELECT range AS n FROM range(1000000000000)"))

    assert next(pieces).splitlines()[:3] == ["n", "0", "1"]
    pieces.close()


@pytest.mark.parametrize("name", ["out.csv", "out.parquet", "out.json", "out.txt"])
def test_a_query_that_fails_leaves_no_file(store, tmp_path, name):
    # The last row alone cannot be converted.
    ran = query(store, "SELECT if(close >= 8333, 'x', '1')::INTEGER FROM bars_1min", "--out", name)

    assert (ran.code, "Could not convert" in ran.err, "Views: bars_1min" in ran.err) == (2, True, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.csv", "out.parquet", "out.json", "out.txt"])
@pytest.mark.parametrize("taken", ["file", "link"])
def test_a_file_that_exists_is_never_overwritten(store, tmp_path, name, taken):
    victim = tmp_path / "victim"
    if taken == "link":
        Path(name).symlink_to(victim)
    else:
        Path(name).write_text("before")
    ran = query(store, "SELECT 1 AS one", "--out", name)

    assert (ran.code, f"--out {name}" in ran.err) == (2, True), ran.err
    assert not victim.exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert taken == "link" or Path(name).read_text() == "before"


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_file_that_appears_meanwhile_is_not_overwritten(connection, tmp_path, form):
    """Another program makes it while the rows are computed."""
    out = tmp_path / "out"
    connection.create_function("appear", lambda number: out.write_text("theirs") and number, ["BIGINT"], "BIGINT")
    with pytest.raises(InputError, match="exists"):
        write(connection.sql("SELECT appear(range) FROM range(1)"), out, form)

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out": "theirs"}


def test_a_file_that_cannot_be_written_is_said(connection, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "taken"))):
        write(connection.sql("SELECT 1"), tmp_path / "taken", "csv")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        pytest.param(["--format", "parquet"], ["--format parquet", "--out"], id="parquet-to-a-terminal"),
        pytest.param(["--out", "nowhere/x.csv"], ["--out", "nowhere"], id="no-folder"),
        pytest.param(["--out", "."], ["--out ."], id="a-folder"),
        pytest.param(["--json", "--format", "csv"], ["--json", "--format"], id="two-formats"),
        pytest.param(["--json", "--out", "x.json"], ["--json", "--out"], id="json-twice"),
        pytest.param(["--format", "excel"], ["'excel'", "csv", "parquet"], id="no-such-format"),
    ],
)
def test_what_cannot_be_written_is_refused(store, tmp_path, words, named):
    ran = query(store, "FROM bars_1min", *words)

    assert (ran.code, [word for word in named if word not in ran.err]) == (2, []), ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.csv", "equities_1min/symbol=A/year=2024/month=06/data.parquet", "metadata/../x.json"])
def test_nothing_is_written_into_the_store(store, name):
    before = content(store)
    ran = query(store, "SELECT 1", "--out", store / name)

    assert ran.code == 2
    assert content(store) == before


@pytest.mark.parametrize(
    ("chosen", "name", "form"),
    [
        (None, None, "table"),
        (None, "a.CSV", "csv"),
        (None, "a.parquet", "parquet"),
        (None, "a.json", "json"),
        (None, "a.txt", "table"),
        ("json", "a.csv", "json"),
        ("csv", None, "csv"),
    ],
)
def test_the_format_is_chosen_or_what_the_name_says(chosen, name, form):
    assert format_of(chosen, None if name is None else Path(name)) == form
