"""SQL of evil will through `data-engine query`: it sees the views, and nothing is written, read, attached, loaded or set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from data_engine import ParquetStorage
from data_engine.errors import InputError
from data_engine.market.bars import VALUES
from data_engine.read.duckdb_views import connect, run
from data_engine.read.statement import reading_statement
from running import Ran, here

BAR = "equities_1min/symbol=AAPL/year=2024/month=06/data.parquet"
PRIVATE = "a-line-that-only-its-owner-may-read"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A store, and files of the same user beside it."""
    folder = tmp_path_factory.mktemp("world")
    times = pd.date_range("2024-06-03T14:00", periods=5, freq="min", tz="UTC")
    index = pd.MultiIndex.from_product([["AAPL"], times], names=["symbol", "timestamp"])
    ParquetStorage(folder / "store").store(pd.DataFrame(1.0, index=index, columns=list(VALUES)))
    (folder / "own.csv").write_text(f"line\n{PRIVATE}\n")
    (folder / ".env").write_text(f"ALPACA_SECRET_KEY={PRIVATE}\n")
    (folder / "own.json").write_text(f'{{"line": "{PRIVATE}"}}')
    with duckdb.connect(folder / "own.db") as made:
        made.execute(f"CREATE TABLE t AS SELECT '{PRIVATE}' AS line")
        made.execute(f"COPY t TO '{folder}/own.parquet'")
    return folder


def state(world: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return every file below a folder, with what would tell that it was written."""
    files = [path for path in sorted(world.rglob("*")) if path.is_file()]
    return {str(path.relative_to(world)): (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes()) for path in files}


@pytest.fixture
def there(world: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of the statements, which is as it was afterwards."""
    monkeypatch.chdir(world)
    monkeypatch.setenv("HOME", str(world))
    before = state(world)
    yield world
    assert state(world) == before


def query(world: Path, sql: str, *words: object) -> Ran:
    return here("query", sql.format(base=world / "store", own=world, bar=world / "store" / BAR), "--base-path", "store", *words)


COPIED = "COPY (SELECT 1 AS x) TO '{bar}' (FORMAT parquet, USE_TMP_FILE false)"
QUOTED = COPIED.replace("'", "''")

# Statements that are refused (exit 2), and what they try to do.
REFUSED = {
    # Write.
    "copy-over-a-bar-file": "COPY (SELECT 1 AS x) TO '{bar}'",
    "copy-over-a-bar-file-in-place": COPIED,
    "copy-beside-a-bar-file": "COPY (SELECT 1 AS x) TO '{base}/equities_1min/more.parquet'",
    "copy-a-view": "COPY bars_1min TO 'out.csv'",
    "copy-from": "COPY bars_1min FROM 'own.csv'",
    "copy-database": "COPY FROM DATABASE memory TO other",
    "export": "EXPORT DATABASE 'out'",
    "import": "IMPORT DATABASE 'out'",
    "explain-analyze-copy": f"EXPLAIN ANALYZE {COPIED}",
    "explain-copy": f"EXPLAIN {COPIED}",
    "comment-before-explain-analyze": f"/* EXPLAIN */ EXPLAIN /* b */ ANALYZE {COPIED}",
    "line-comment-before-explain": f"-- EXPLAIN\nEXPLAIN ANALYZE {COPIED}",
    "explain-with-options": f"EXPLAIN (ANALYZE, FORMAT json) {COPIED}",
    "explain-explain": f"EXPLAIN EXPLAIN ANALYZE {COPIED}",
    "explain-of-a-select": "EXPLAIN SELECT 1",
    "cte-that-copies": f"WITH x AS ({COPIED}) FROM x",
    "cte-that-copies-materialized": f"WITH x AS MATERIALIZED ({COPIED}) SELECT 1",
    "cte-that-copies-unused": f"WITH a AS (SELECT 1), x AS ({COPIED}) FROM a",
    "cte-that-copies-in-a-union": f"WITH x AS ({COPIED}) SELECT 1 UNION ALL SELECT 2",
    "cte-that-copies-in-a-subquery": f"SELECT (WITH x AS ({COPIED}) FROM x)",
    "cte-that-copies-in-a-cte": f"WITH y AS (WITH x AS ({COPIED}) FROM x) FROM y",
    "cte-that-inserts": "WITH x AS (INSERT INTO bars_1min SELECT * FROM bars_1min RETURNING *) FROM x",
    "cte-that-deletes": "WITH x AS (DELETE FROM bars_1min RETURNING *) FROM x",
    "cte-that-updates": "WITH x AS (UPDATE bars_1min SET close = 0 RETURNING *) FROM x",
    "json-that-runs-a-copy": f"FROM json_execute_serialized_sql(json_serialize_sql('WITH x AS ({QUOTED}) FROM x'))",
    "json-that-runs-a-copy-quoted": f'FROM "JSON_Execute_Serialized_SQL"(json_serialize_sql(\'WITH x AS ({QUOTED}) FROM x\'))',
    "json-that-runs-a-copy-by-its-whole-name": (
        f"FROM system.main.json_execute_serialized_sql(json_serialize_sql('WITH x AS ({QUOTED}) FROM x'))"
    ),
    "json-that-runs-a-copy-in-a-subquery": (
        f"SELECT (SELECT count(*) FROM json_execute_serialized_sql(json_serialize_sql('WITH x AS ({QUOTED}) FROM x')))"
    ),
    "described-json-that-runs-a-copy": (
        f"DESCRIBE FROM json_execute_serialized_sql(json_serialize_sql('WITH x AS ({QUOTED}) FROM x'))"
    ),
    "pragma-that-runs-json": f"PRAGMA json_execute_serialized_sql(json_serialize_sql('WITH x AS ({QUOTED}) FROM x'))",
    "text-that-is-a-query": f"FROM query('WITH x AS ({QUOTED}) FROM x')",
    "text-that-is-a-harmless-query": "FROM query('SELECT 1')",
    "text-that-is-a-table": "FROM query_table('own.csv')",
    "insert": "INSERT INTO bars_1min SELECT * FROM bars_1min",
    "update": "UPDATE bars_1min SET close = 0",
    "delete": "DELETE FROM bars_1min",
    "truncate": "TRUNCATE bars_1min",
    "merge": "MERGE INTO bars_1min USING coverage ON false WHEN NOT MATCHED THEN INSERT DEFAULT VALUES",
    "drop-view": "DROP VIEW bars_1min",
    "rename-view": "ALTER VIEW bars_1min RENAME TO other",
    "replace-view": "CREATE OR REPLACE VIEW bars_1min AS SELECT 1",
    "create-table": "CREATE TABLE t (a INTEGER)",
    "create-table-as": "CREATE TEMP TABLE t AS FROM bars_1min",
    "create-macro": "CREATE MACRO m(x) AS x",
    "create-sequence": "CREATE SEQUENCE s",
    "create-type": "CREATE TYPE t AS ENUM ('a')",
    "create-schema": "CREATE SCHEMA s",
    "comment-on": "COMMENT ON VIEW bars_1min IS 'x'",
    "vacuum": "VACUUM",
    "analyze": "ANALYZE",
    "checkpoint": "CHECKPOINT",
    "checkpoint-as-a-function": "FROM checkpoint()",
    "force-checkpoint-as-a-function": "FROM force_checkpoint()",
    "log-to-files": "SELECT * FROM enable_logging(storage='file', storage_config={{'path': '{own}/log'}})",
    "log-by-call": "CALL enable_logging('QueryLog', storage='file')",
    "log-a-line": "SELECT write_log('x')",
    "log-off": "FROM disable_logging()",
    "log-forgotten": "FROM truncate_duckdb_logs()",
    "profile": "FROM enable_profiling()",
    "profile-by-pragma": "PRAGMA enable_profiling",
    "profile-to-a-file": "SET profiling_output = 'out.json'",
    # Read.
    "read-text": "SELECT * FROM read_text('.env')",
    "read-blob": "SELECT content FROM read_blob('{own}/.env')",
    "read-csv": "FROM read_csv('own.csv')",
    "read-csv-sniffed": "FROM sniff_csv('own.csv')",
    "read-json": "FROM read_json('own.json')",
    "read-ndjson-objects": "FROM read_ndjson_objects('own.json')",
    "read-parquet": "FROM read_parquet('own.parquet')",
    "read-parquet-by-name": "FROM 'own.parquet'",
    "read-csv-by-name": "FROM 'own.csv'",
    "read-csv-by-whole-name": 'FROM "{own}/own.csv"',
    "read-json-by-name": "FROM 'own.json'",
    "read-database-by-name": "FROM 'own.db'",
    "read-database": "FROM read_duckdb('own.db', table_name = 't')",
    "read-metadata": "FROM parquet_metadata('own.parquet')",
    "read-schema": "FROM parquet_schema('own.parquet')",
    "read-names": "FROM glob('*')",
    "read-names-of-the-store": "FROM glob('{base}/**')",
    "read-a-device": "FROM read_csv('/dev/stdin')",
    "read-the-environment": "SELECT getenv('ALPACA_SECRET_KEY')",
    "read-a-variable-of-the-program": "FROM store",
    "read-arguments-of-the-program": "FROM sql",
    "read-in-a-subquery": "SELECT (SELECT content FROM read_text('.env'))",
    "read-in-a-join": "FROM bars_1min, read_text('.env')",
    "read-laterally": "FROM (VALUES ('.env')) AS t(name), LATERAL (FROM read_text(name))",
    "read-in-a-pivot": "FROM (PIVOT (FROM read_csv('own.csv')) ON line IN ('a') USING count(*))",
    "read-the-web": "FROM read_parquet('https://example.com/x.parquet')",
    "read-the-web-by-name": "FROM 'https://example.com/x.csv'",
    "read-a-bucket": "FROM read_parquet('s3://bucket/x.parquet')",
    "read-secrets": "FROM which_secret('s3://bucket/x', 's3')",
    "read-secret-list": "FROM duckdb_secrets()",
    # Attach, load, set.
    "attach": "ATTACH 'own.db' AS other",
    "attach-new": "ATTACH 'new.db' AS other",
    "attach-sqlite": "ATTACH 'new.sqlite' AS other (TYPE sqlite)",
    "detach": "DETACH memory",
    "use": "USE memory",
    "install": "INSTALL httpfs",
    "install-from": "FORCE INSTALL httpfs FROM 'http://127.0.0.1:9'",
    "load": "LOAD httpfs",
    "load-a-file": "LOAD '{own}/own.db'",
    "scan-by-an-extension": "FROM sqlite_scan('own.db', 't')",
    "list-extensions": "FROM duckdb_extensions()",
    "secret": "CREATE SECRET s (TYPE s3)",
    "secret-persistent": "CREATE PERSISTENT SECRET s (TYPE s3)",
    "set": "SET threads = 1",
    "set-access": "SET enable_external_access = true",
    "set-lock": "SET lock_configuration = false",
    "set-allowed": "SET allowed_directories = ['/']",
    "set-variable": "SET VARIABLE x = 1",
    "set-by-pragma": "PRAGMA threads = 1",
    "set-folder": "SET temp_directory = '{own}/tmp'",
    "reset": "RESET lock_configuration",
    "pragma": "PRAGMA version",
    "call": "CALL pragma_version()",
    "prepare": "PREPARE p AS SELECT 1",
    "execute": "EXECUTE p",
    "deallocate": "DEALLOCATE p",
    "begin": "BEGIN",
    "commit": "COMMIT",
    "rollback": "ROLLBACK",
    "grammar": "FROM add_grammar_extension('x')",
    "external-resource": "FROM create_external_resource('x')",
    # Hide another.
    "two": "SELECT 1; SELECT 2",
    "copy-behind-a-select": f"SELECT 1; {COPIED}",
    "copy-before-a-select": f"{COPIED}; SELECT 1",
    "copy-behind-a-comment": f"SELECT 1 -- ;\n; {COPIED}",
    "copy-behind-a-nested-comment": f"SELECT 1 /* /* */ */ ; {COPIED} -- */",
    "copy-behind-a-text": f"SELECT $a$;$a$; {COPIED}",
    "copy-behind-a-carriage-return": f"SELECT 1 --\r; {COPIED}",
    "copy-behind-empty-statements": f";;; {COPIED} ;;;",
    "copy-behind-a-nul": f"SELECT 1\x00; {COPIED}",
    "copy-behind-a-line-separator": f"SELECT 1 -- \u2028; {COPIED}\n; {COPIED}",
    "nothing": "",
    "a-comment": "-- SELECT 1",
    "semicolons": ";;",
    "no-sql": "SELEKT 1",
    "bytes-that-are-no-text": os.fsdecode(b"SELECT '\xff'"),
    "nested-for-ever": "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    "pivot-of-two-statements": "PIVOT bars_1min ON symbol USING count(*)",
}  # fmt: skip


def test_the_table_is_long():
    assert len(REFUSED) >= 60


@pytest.mark.parametrize("sql", REFUSED.values(), ids=REFUSED)
def test_sql_that_does_more_than_read_the_views_is_refused(there, sql):
    ran = query(there, sql)

    assert (ran.code, ran.out) == (2, ""), ran.text
    assert PRIVATE not in ran.err
    assert sum(line.startswith("Error: ") for line in ran.err.splitlines()) == 1
    assert "Traceback" not in ran.err
    assert "internal error" not in ran.err
    assert not any(ord(char) < 32 and char != "\n" for char in ran.err)


# What writes, by any way, is refused with `--allow-files` and `--explain`, too.
WRITES = [
    name
    for name, sql in REFUSED.items()
    if "TO '" in sql or "EXTERNAL" in name or name in ("attach-new", "log-to-files", "profile")
]


@pytest.mark.parametrize("option", ["--allow-files", "--explain"])
@pytest.mark.parametrize("name", WRITES)
def test_no_option_lets_sql_write(there, name, option):
    assert query(there, REFUSED[name], option).code == 2


READS = ["read-text", "read-csv", "read-csv-by-name", "read-json", "read-parquet-by-name", "read-database", "read-in-a-join"]


@pytest.mark.parametrize("name", READS)
def test_files_can_be_read_when_the_user_says_so(there, name):
    ran = query(there, REFUSED[name], "--allow-files", "--format", "csv")

    assert (ran.code, PRIVATE in ran.out) == (0, True), ran.text


@pytest.mark.parametrize(
    "name", ["read-the-web", "read-the-web-by-name", "read-a-bucket", "scan-by-an-extension", "read-the-environment"]
)
def test_no_extension_is_loaded_and_no_variable_told_even_then(there, name):
    ran = query(there, REFUSED[name], "--allow-files")

    assert (ran.code, PRIVATE in ran.text) == (2, False), ran.text
    assert not (there / ".duckdb").exists()


HARMLESS = [
    "SELECT count(*) FROM bars_1min",
    "FROM bars_1min -- COPY bars_1min TO 'x.csv'",
    "SELECT 'COPY bars_1min TO ''x.csv''; ATTACH' AS text",
    "WITH copy AS (FROM bars_1min) SELECT * FROM copy",
    "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 9) FROM n",
    "(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1",
    "FROM range(3), unnest([1, 2])",
    "FROM (PIVOT bars_1min ON symbol IN ('AAPL') USING count(*))",
    "SELECT json_extract('{{\"a\": 1}}', '$.a')",
    "FROM json_each('[1, 2]')",
    "SELECT * FROM bars_1min ASOF JOIN (SELECT symbol, timestamp AS t FROM bars_1min) USING (symbol) LIMIT 1",
    "SHOW TABLES",
    "DESCRIBE bars_1min",
    "SUMMARIZE bars_1min",
    "FROM coverage",
    "SELECT current_setting('TimeZone')",
    "FROM duckdb_views()",
]


@pytest.mark.parametrize("sql", [sql for sql in HARMLESS if "ASOF" not in sql])
def test_what_reads_runs(there, sql):
    ran = query(there, sql)

    assert ran.code == 0, ran.err


def test_the_plan_is_shown_and_not_run(there):
    plan = query(there, "SELECT error('it ran') FROM bars_1min", "--explain")

    assert plan.code == 0
    assert "bars" in plan.out.lower() or "PARQUET" in plan.out.upper()
    assert query(there, "SELECT error('it ran') FROM bars_1min").code == 2


def test_instants_are_shown_in_the_time_zone_that_was_named(there):
    sql = "SELECT min(timestamp)::VARCHAR AS first FROM bars_1min"

    assert query(there, sql, "--json", "--time-zone", "America/New_York").json["rows"] == [["2024-06-03 10:00:00-04"]]
    assert query(there, sql, "--json").json["rows"] == [["2024-06-03 14:00:00+00"]]
    for zone in ("Mars/Olympus", "UTC'; SET threads = 1; --", ""):
        ran = query(there, sql, "--time-zone", zone)
        assert (ran.code, "--time-zone" in ran.err) == (2, True)


def test_memory_is_what_was_named(there):
    limit = "SELECT current_setting('memory_limit')"

    assert query(there, limit, "--json", "--memory", "512MiB").json["rows"] == [["512.0 MiB"]]
    for size in ("2", "-1GB", "80%", "2GB'; SET threads = 1; --", "lots", "9" * 400 + "GB"):
        ran = query(there, limit, "--memory", size)
        assert (ran.code, "--memory" in ran.err) == (2, True), size
    ran = query(there, "SELECT count(DISTINCT hash(range)) FROM range(50_000_000)", "--memory", "1MB")
    assert (ran.code, "memory" in ran.err) == (2, True)


def test_what_does_not_fit_into_memory_leaves_nothing_behind(there, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    sql = "SELECT * FROM range(3_000_000) AS t(n) ORDER BY hash(n)"
    ran = query(there, sql, "--memory", "40MB", "--out", tmp_path / "out.parquet")

    assert ran.code == 0, ran.err
    assert duckdb.sql(f"SELECT count(DISTINCT n) FROM '{tmp_path}/out.parquet'").fetchall() == [(3_000_000,)]
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


# ------------------------------------------------------------------------------------------- each lock alone is not enough


@pytest.fixture
def victim(tmp_path: Path, world: Path) -> Path:
    """A bar file that may be lost."""
    return Path(shutil.copy(world / "store" / BAR, tmp_path / "data.parquet"))


def locked(victim: Path) -> duckdb.DuckDBPyConnection:
    """Return a connection with all locks of its configuration that may open one file."""
    made = duckdb.connect(config={"autoload_known_extensions": "false", "python_enable_replacements": "false"})
    made.execute(f"SET allowed_paths = ['{victim}']")
    made.execute("SET enable_external_access = false")
    made.execute("SET lock_configuration = true")
    return made


def test_locks_of_the_configuration_alone_let_a_bar_file_be_overwritten(victim):
    before = victim.read_bytes()
    with locked(victim) as made:
        made.execute(f"COPY (SELECT 1 AS x) TO '{victim}' (FORMAT parquet, USE_TMP_FILE false)")

    assert victim.read_bytes() != before


@pytest.mark.parametrize(
    "sql",
    [
        "WITH x AS (COPY (SELECT 1 AS x) TO '{}' (FORMAT parquet, USE_TMP_FILE false)) FROM x",
        "FROM json_execute_serialized_sql(json_serialize_sql("
        "'WITH x AS (COPY (SELECT 1 AS x) TO ''{}'' (FORMAT parquet, USE_TMP_FILE false)) FROM x'))",
    ],
    ids=["cte", "json"],
)
def test_the_kind_of_the_statement_and_these_locks_let_it_be_overwritten_too(victim, sql):
    """So the syntax tree is checked, and functions that run other SQL are refused."""
    before, attack = victim.read_bytes(), sql.format(victim)
    with locked(victim) as made:
        assert [statement.type for statement in made.extract_statements(attack)] == [duckdb.StatementType.SELECT]
        with pytest.raises(InputError):
            reading_statement(made, attack)
        assert victim.read_bytes() == before
        made.sql(attack).fetchall()

    assert victim.read_bytes() != before


def test_the_statement_alone_lets_any_file_be_read(world):
    sql = f"FROM '{world}/own.csv'"
    with duckdb.connect() as open_:
        assert open_.sql(reading_statement(open_, sql)).fetchall() == [(PRIVATE,)]
    with connect(ParquetStorage(world / "store").bars) as made, pytest.raises(InputError, match="allow-files"):
        run(made, sql)


def test_without_the_lock_of_the_configuration_files_are_logged(tmp_path):
    with duckdb.connect() as open_:
        open_.sql(f"SELECT * FROM enable_logging(storage='file', storage_config={{'path': '{tmp_path}/log'}})").fetchall()
        open_.sql("SELECT 1").fetchall()
    assert list(tmp_path.iterdir()) != []


def test_without_its_lock_sql_sees_variables_of_the_program(world):
    secret = pd.DataFrame({"line": [PRIVATE]})
    with duckdb.connect() as open_:
        assert open_.sql("FROM secret").fetchall() == [(PRIVATE,)]
    with connect(ParquetStorage(world / "store").bars) as made, pytest.raises(InputError, match="secret"):
        run(made, "FROM secret")
    assert len(secret) == 1


def test_an_allowed_folder_in_place_of_files_lets_a_database_be_attached(tmp_path, victim):
    with duckdb.connect() as made:
        made.execute(f"SET allowed_directories = ['{tmp_path}']")
        made.execute("SET enable_external_access = false")
        made.execute(f"ATTACH '{tmp_path}/new.db' AS other")
    assert (tmp_path / "new.db").exists()


# ------------------------------------------------------------------------------------------------------- what is left out


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "dangling-link", "legacy", "symbol", "device"])
@pytest.mark.parametrize("span", [(), ("--start", "2024-06-01", "--end", "2024-06-30")], ids=["all", "a-month"])
def test_what_is_no_bar_file_is_left_out_and_said(world, tmp_path, kind, span):
    base = tmp_path / "store"
    shutil.copytree(world / "store", base)
    odd = base / "equities_1min" / "symbol=B" / "year=2024" / "month=06" / "data.parquet"
    if kind == "legacy":
        odd = odd.with_name("data_0.parquet")
    if kind == "symbol":
        odd = base / "equities_1min" / "symbol=%1B%5B31mEVIL%0A" / "year=2024" / "month=06" / "data.parquet"
    odd.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "folder":
        odd.mkdir()
        (odd / "data.parquet").write_text("x")
    elif kind == "socket":
        os.mknod(odd, 0o140600)
    elif kind == "dangling-link":
        odd.symlink_to(tmp_path / "nowhere")
    elif kind == "device":
        odd.symlink_to("/dev/zero")
    else:
        shutil.copy(base / BAR, odd)
    ran = here("query", "SELECT DISTINCT symbol FROM bars_1min", "--json", "--base-path", base, *span)

    assert (ran.code, ran.json["rows"]) == (0, [["AAPL"]]), ran.err
    seen = kind != "dangling-link" and not (span and kind == "legacy")
    assert (f"equities_1min: 1 file left out, such as '{odd.relative_to(base)}" in ran.err) == seen


def test_a_damaged_file_does_not_keep_other_symbols_from_being_queried(world, tmp_path):
    """DuckDB takes the columns of a view from its first file."""
    base = tmp_path / "store"
    shutil.copytree(world / "store", base)
    damaged = base / BAR.replace("AAPL", "A")
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"PAR1 is not enough")

    ran = here("query", "SELECT count(*) FROM bars_1min WHERE symbol = 'AAPL'", "--json", "--base-path", base)
    assert (ran.code, ran.json["rows"]) == (0, [[5]]), ran.err
    ran = here("query", "SELECT count(close) FROM bars_1min", "--base-path", base)
    assert (ran.code, str(damaged) in ran.err) == (2, True)
