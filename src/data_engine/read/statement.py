"""Check that SQL is one statement that only reads, by the syntax tree of DuckDB's own parser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from data_engine.errors import InputError

if TYPE_CHECKING:
    import duckdb


_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
"""The nodes of queries that read. A common table expression may also be COPY, INSERT, UPDATE, DELETE or MERGE."""

_TABLE_FUNCTIONS = frozenset({
    "range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree", "summary", "pg_timezone_names",
    "icu_calendar_names", "duckdb_columns", "duckdb_functions", "duckdb_keywords", "duckdb_memory", "duckdb_optimizers",
    "duckdb_settings", "duckdb_tables", "duckdb_types", "duckdb_views", "pragma_table_info", "pragma_version",
    "pragma_platform", "test_all_types",
})  # fmt: skip
"""The table functions that neither open files nor run other SQL, as `query` and `json_execute_serialized_sql` do."""

_FILE_FUNCTIONS = frozenset({
    "glob", "read_blob", "read_csv", "read_csv_auto", "read_duckdb", "read_json", "read_json_auto", "read_json_objects",
    "read_json_objects_auto", "read_ndjson", "read_ndjson_auto", "read_ndjson_objects", "read_ndjson_objects_auto",
    "read_parquet", "read_text", "parquet_scan", "parquet_bloom_probe", "parquet_file_metadata", "parquet_full_metadata",
    "parquet_kv_metadata", "parquet_metadata", "parquet_schema", "sniff_csv",
})  # fmt: skip
"""The table functions that read files and change nothing."""

_SCALARS = frozenset({"write_log", "getenv", "nextval", "setseed"})
"""The scalar functions that change something, or tell the environment."""

_INSTEAD = (
    "pass one SELECT, FROM, WITH, VALUES, DESCRIBE, SHOW or SUMMARIZE statement; use --explain in place of EXPLAIN, "
    "--time-zone and --memory in place of SET"
)


def reading_statement(connection: duckdb.DuckDBPyConnection, sql: str, *, allow_files: bool = False) -> duckdb.Statement:
    """Return the one statement of *sql*; the statement that was checked is the one to run.

    DuckDB calls statements SELECT that write: ``WITH x AS (COPY ...)``, and functions that run other SQL, which they get as
    text. So its syntax tree may have nodes and table functions of a list only.

    Args:
        connection: The connection whose parser is used.
        sql: The text.
        allow_files: Whether table functions may read files.

    Raises:
        InputError: If it is not one statement of kind SELECT, or a part of it may do more than read.
        duckdb.Error: If it is no SQL.
    """
    import duckdb

    try:
        sql.encode()
    except UnicodeEncodeError:  # bytes of the command line that are no text, which Python keeps as surrogates
        raise InputError(f"cannot run the SQL: {sql[:60]!a} is not valid UTF-8") from None
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        found = ", ".join(statement.type.name for statement in statements) or "no statement"
        raise InputError(f"cannot run the SQL: it is not one statement of kind SELECT, but {found}; {_INSTEAD}")
    for part in syntax_parts(connection, statements[0].query):
        _check(part, allow_files=allow_files)
    return statements[0]


def syntax_parts(connection: duckdb.DuckDBPyConnection, sql: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of the syntax tree of a SELECT, as DuckDB's ``json_serialize_sql`` has them.

    Raises:
        InputError: If it is another statement, or nested too deeply.
        duckdb.Error: If it is no SQL.
    """
    ((text,),) = connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchall()
    try:
        tree = json.loads(text)
    except RecursionError:
        raise InputError("cannot run the SQL: it is nested too deeply; simplify it") from None
    if tree["error"]:
        raise InputError(f"cannot run the SQL: {tree['error_message']}; {_INSTEAD}")
    yield from parts_of(tree)


def parts_of(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield the parts of a syntax tree, itself included. No recursion: a tree may be deep."""
    left = [tree]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            yield part
            left += part.values()
        elif isinstance(part, list):
            left += part


def _check(part: dict[str, Any], *, allow_files: bool) -> None:
    """Refuse a part of a syntax tree that may do more than read.

    Raises:
        InputError: If it does.
    """
    kind = part.get("type")
    if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _NODES:
        raise InputError(
            f"cannot run the SQL: {kind.removesuffix('_NODE').replace('_QUERY', '')} inside it is not reading; {_INSTEAD}"
        )
    if kind == "TABLE_FUNCTION":
        name = str(part["function"].get("function_name")).lower()
        if name in _FILE_FUNCTIONS and not allow_files:
            raise InputError(f"cannot run the SQL: {name}() reads files; use the views, or pass --allow-files")
        if name not in _TABLE_FUNCTIONS | _FILE_FUNCTIONS:
            raise InputError(f"cannot run the SQL: the table function {name}() may do more than read; use the views")
    name = str(part.get("function_name", "")).lower()
    if name in _SCALARS:
        raise InputError(f"cannot run the SQL: {name}() does more than compute a value; leave it out")
