"""Query a store with DuckDB: one view per dataset, and a table of the coverage."""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from data_engine.errors import DamagedFile, InputError, StoreError
from data_engine.market.bars import BAR_SCHEMA, TIMESTAMP
from data_engine.market.dates import any_span
from data_engine.market.series import Dataset, Series
from data_engine.market.symbol import shortened
from data_engine.market.time_range import TimeRange
from data_engine.read.statement import reading_statement
from data_engine.read.view_files import is_symbol, view_files
from data_engine.store.coverage_store import CoverageStore
from data_engine.store.legacy_files import REMEDY, legacy_datasets

if TYPE_CHECKING:
    import duckdb

    from data_engine.store.bar_store import BarStore


_T = TypeVar("_T")

_COVERAGE = pa.schema(
    [
        ("dataset", pa.string()),
        ("symbol", pa.string()),
        ("state", pa.string()),
        ("range_start", TIMESTAMP),
        ("range_end", TIMESTAMP),
    ]
)


def view_name(dataset: Dataset) -> str:
    """Return the name of a dataset's view: ``equities_1min`` is ``bars_1min``; a hyphen becomes an underscore."""
    return "bars_" + dataset.name.removeprefix("equities_").replace("-", "_")


@contextmanager
def connect(
    store: BarStore,
    span: TimeRange | None = None,
    *,
    coverage_at: datetime | None = None,
    time_zone: str = "UTC",
    memory: str | None = None,
    allow_files: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an in-memory DuckDB with a view per dataset of the store and, if that is asked for, the table ``coverage``.

    A view has the columns ``symbol, timestamp, open, high, low, close, volume, trade_count, vwap, year`` (and ``month``).

    DuckDB is locked before any SQL of a user reaches it: it may open the files of the views by their exact names and no others,
    loads no extension, finds no Python variable, and its configuration cannot be changed. That alone does not keep it from
    writing to those files: run SQL by `lazy_query`, `run` or `explain`.

    Args:
        store: The store of the bars.
        span: The range in which the bars of the views start. The views name only files that can have such bars, so that DuckDB
            does not open the others. (On a bucket it also opens only files that the conditions of the SQL leave.)
        coverage_at: The current time, to add the coverage, which takes one file to read per series. If None, it is not added.
        time_zone: The time zone in which DuckDB shows instants and computes days.
        memory: The memory that DuckDB may use, such as ``2GB``. If None, 80 % of the machine's.
        allow_files: Whether SQL may read all files that the user can read.
        note: What is told of files that were left out, a line per dataset.

    Raises:
        StoreError: If a dataset, or what is requested, cannot be read.
        InputError: If DuckDB would take a part of the store's path for a partition, or does not know the time zone.
    """
    import duckdb

    scratch = tempfile.mkdtemp(prefix="data-engine-query-")
    connection = duckdb.connect(config=dict(_LOCKS))
    try:
        _set_up(connection, time_zone, memory, scratch)
        viewed = datasets(store)
        allowed = [key for dataset in viewed for key in _add_view(connection, store, dataset, span, note)]
        for dataset, key in legacy_datasets(store.files):
            if dataset not in viewed:
                note(f"Warning: {dataset.name} has no view: its files are of the legacy pipeline, such as {key!r}; {REMEDY}")
        if coverage_at is not None:
            connection.register("coverage", _coverage_table(store.coverage, coverage_at))
        if not allow_files:
            # With wildcards in the path of the store, DuckDB checks both the pattern and what it matches.
            bases = {base, _without_wildcards(base)} if (base := str(store.files.folder)) and allowed else ()
            paths = (f"{base}/{key}" for base in sorted(bases) for key in allowed)
            connection.execute(f"SET allowed_paths = [{_quoted(paths)}]")
            connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection
    finally:
        connection.close()
        shutil.rmtree(scratch, ignore_errors=True)


_LOCKS = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",  # a name in SQL would be looked up among the variables of the program
    "arrow_lossless_conversion": "true",
}

_MEMORY = re.compile(r"\d{1,9}(\.\d{1,3})? ?([KMGT]i?B|B)", re.IGNORECASE)


def _set_up(connection: duckdb.DuckDBPyConnection, time_zone: str, memory: str | None, scratch: str) -> None:
    """Set what the SQL of a user cannot set afterwards.

    Raises:
        InputError: If a value cannot be used.
    """
    import duckdb

    # By default it would be a folder in the working directory.
    connection.execute(f"SET temp_directory = {_quoted([f'{scratch}/spilled'])}")
    if memory is not None:
        if not _MEMORY.fullmatch(memory):
            raise InputError(f"cannot use --memory {shortened(memory)}: not a size; pass a number and a unit, such as 2GB")
        try:
            connection.execute(f"SET memory_limit = {_quoted([memory])}")
        except duckdb.Error as error:
            raise InputError(f"cannot use --memory {shortened(memory)}: {first_line(error)}") from None
    try:
        connection.execute(f"SET TimeZone = {_quoted([time_zone])}")
    except duckdb.Error:  # the time zones come with an extension that not every build has
        if time_zone != "UTC":
            raise InputError(
                f"cannot use --time-zone {shortened(time_zone)}: not known to DuckDB; pass a name such as America/New_York"
            ) from None


def _quoted(texts: Iterable[str]) -> str:
    """Return texts as literals of SQL, separated by commas."""
    return ", ".join("'" + text.replace("'", "''") + "'" for text in texts)


def _add_view(
    connection: duckdb.DuckDBPyConnection,
    store: BarStore,
    dataset: Dataset,
    span: TimeRange | None,
    note: Callable[[str], None],
) -> Sequence[str]:
    """Add the view of a dataset, and return the keys of the files that DuckDB must open for it."""
    folder, name = store.files.folder, view_name(dataset)
    if folder is None:
        from data_engine.read.s3_dataset import dataset_of

        connection.register(name, dataset_of(store, dataset, span))
        return ()
    found = view_files(store, dataset, span)
    if (left_out := found.note()) is not None:
        note(left_out)
    # Without a file in the range, some file must give the view its columns.
    keys = found.keys or view_files(store, dataset, None).keys[:1]
    if keys:
        _create_view(connection, name, dataset, folder, keys, span)
    return keys


def _create_view(
    connection: duckdb.DuckDBPyConnection, name: str, dataset: Dataset, folder: Path, keys: list[str], span: TimeRange | None
) -> None:
    """Create a view over files; DuckDB opens the first of them for the columns, so the first is one that it can read.

    Raises:
        StoreError: If it can read none of several.
    """
    import duckdb

    reason = ""
    for place, key in enumerate(keys[:_MOST_DAMAGED]):
        try:
            connection.execute(f"SELECT * FROM ({select(dataset, folder, [key])}) LIMIT 0").fetchall()  # noqa: S608 - by `select`
        except duckdb.Error as error:
            reason = first_line(error)
            continue
        keys.insert(0, keys.pop(place))
        # A variable: a list of 60,000 files in the SQL of the view would be parsed again by each query.
        base = _without_wildcards(str(folder))
        connection.execute(f'SET VARIABLE "{name}" = $1', [[f"{base}/{key}" for key in keys]])
        connection.execute(f'CREATE VIEW "{name}" AS {_select(dataset, f"getvariable({_quoted([name])})", span)}')
        return
    raise StoreError(f"cannot read {dataset.name}: {reason}; run `data-engine verify`")


_MOST_DAMAGED = 100
"""How many files of a dataset are tried for the columns of its view."""


def narrow(connection: duckdb.DuckDBPyConnection, dataset: Dataset, symbols: Sequence[str]) -> None:
    """Leave only the bars of some symbols in the view of a dataset."""
    name, whole = view_name(dataset), f"all_{view_name(dataset)}"
    connection.execute(f'ALTER VIEW "{name}" RENAME TO "{whole}"')
    chosen = _quoted(symbols) or "NULL"
    connection.execute(f'CREATE TEMP VIEW "{name}" AS SELECT * FROM "{whole}" WHERE symbol IN ({chosen})')  # noqa: S608 - quoted


def lazy_query(connection: duckdb.DuckDBPyConnection, sql: str, *, allow_files: bool = False) -> duckdb.DuckDBPyRelation:
    """Return the result of one read-only statement, not yet computed; compute it inside `translate_errors`, too.

    Raises:
        InputError: If it is not one statement, or it may do more than read.
    """
    with translate_errors(connection):
        return connection.sql(reading_statement(connection, sql, allow_files=allow_files))


def run(connection: duckdb.DuckDBPyConnection, sql: str, *, allow_files: bool = False) -> duckdb.DuckDBPyRelation:
    """Run one read-only statement, and return its whole result.

    Raises:
        InputError: If it is not one statement, it may do more than read, or DuckDB cannot run it; the message names the views.
    """
    with translate_errors(connection):
        # DuckDB executes a relation on each use: execute it once, here, where its errors are translated.
        return connection.from_arrow(lazy_query(connection, sql, allow_files=allow_files).to_arrow_table())


def explain(connection: duckdb.DuckDBPyConnection, sql: str, *, allow_files: bool = False) -> str:
    """Return DuckDB's plan of one read-only statement, which is not run.

    Raises:
        InputError: As `run`.
    """
    with translate_errors(connection):
        return lazy_query(connection, sql, allow_files=allow_files).explain()


def first_line(error: Exception) -> str:
    """Return the first line of an error's text."""
    return str(error).strip().split("\n", 1)[0]


def interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], _T]) -> _T:
    """Return what *work* returns; Ctrl-C interrupts the connection that it uses.

    DuckDB ignores signals while it computes, and Python handles them only in the main thread: so *work* runs in another one.
    """
    future: Future[_T] = Future()

    def fulfil() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            future.set_exception(error)

    thread = threading.Thread(target=fulfil, name="query", daemon=True)
    try:  # a signal may come while the thread is started
        thread.start()
        while not future.done():
            wait([future], timeout=0.2)
    except KeyboardInterrupt:
        while thread.is_alive():  # between two statements of *work*, an interrupt is of neither
            connection.interrupt()
            thread.join(0.05)
        raise
    return future.result()


@contextmanager
def translate_errors(connection: duckdb.DuckDBPyConnection, views: Sequence[str] | None = None) -> Iterator[None]:
    """Turn errors of DuckDB into `InputError`, with the names of the views.

    Args:
        connection: The connection.
        views: The names. If None, those of all views of the connection, and ``coverage``.
    """
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        reason = str(error).strip()
        if isinstance(error, duckdb.PermissionException):
            reason = f"cannot run the SQL: {first_line(error)}; use the views, or pass --allow-files to read other files"
        if views is None:
            found = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
            views = [*sorted(name for (name,) in found if name != "coverage"), "coverage"]
        raise InputError(f"{reason}\nViews: {', '.join(views)}") from None


def datasets(store: BarStore) -> list[Dataset]:
    """Return the datasets of a store that have a bar file, with coverage or without."""
    found = []
    for name in store.files.folders(""):
        with suppress(ValueError):  # a folder that data-engine did not make
            found.append(Dataset.from_name(name))
    return [dataset for dataset in found if next(store.partitions(dataset), None) is not None]


def select(
    dataset: Dataset, folder: Path, keys: Sequence[str], span: TimeRange | None = None, columns: Sequence[str] | None = None
) -> str:
    """Return the SELECT that reads files of a dataset; DuckDB does not open files whose paths a condition of the SQL excludes.

    Args:
        dataset: The dataset of the files.
        folder: The folder of the store.
        keys: The paths of the files below it, at least one.
        span: The range in which bars start. If None, all bars.
        columns: Some of ``symbol``, the columns of a file, ``year`` (and ``month``). If None, all.

    Raises:
        InputError: If DuckDB would take a part of the store's path for a partition.
    """
    base = _without_wildcards(str(folder))
    return _select(dataset, f"[{_quoted(f'{base}/{key}' for key in keys)}]", span, columns)


def _select(dataset: Dataset, files: str, span: TimeRange | None, columns: Sequence[str] | None = None) -> str:
    """Return what `select` does, for an expression of SQL that is a list of paths."""
    # Without pinned types DuckDB reads symbol=2330 as a number and symbol=INF as a date.
    types = "'symbol': VARCHAR, 'year': INTEGER" + (", 'month': INTEGER" if dataset.timeframe.intraday else "")
    if columns is None:
        columns = ("symbol", *BAR_SCHEMA.names, "year", *(("month",) if dataset.timeframe.intraday else ()))
    source = f"read_parquet({files}, hive_partitioning = true, hive_types = {{{types}}})"
    inside = "" if span is None else f" WHERE timestamp >= '{span.start}' AND timestamp < '{span.end}'"
    return f"SELECT {', '.join(columns)} FROM {source}{inside}"  # noqa: S608 - our names, quoted paths


def _without_wildcards(location: str) -> str:
    """Return a path with the wildcards of DuckDB's globs escaped.

    Raises:
        InputError: If DuckDB would take a part of it for a partition.
    """
    for part in location.replace("\\", "/").split("/"):
        if part.partition("=")[0] in ("symbol", "year", "month") and "=" in part:
            raise InputError(f"cannot query {location}: DuckDB takes {part!r} in the path for a partition; move the store")
    return re.sub(r"([\[*?])", r"[\1]", location)


def _coverage_table(store: CoverageStore, now: datetime) -> pa.Table:
    """Return the coverage as a table with a row per series and range, with its state."""
    store.requested.refresh()
    rows = [
        {"dataset": dataset.name, "symbol": series.symbol, "state": state, "range_start": start, "range_end": end}
        for dataset in store.datasets()
        for series in store.series(dataset)
        if is_symbol(series.symbol)
        for state, start, end in _states(store, series, now)
    ]
    return pa.Table.from_pylist(rows, _COVERAGE)


def _states(store: CoverageStore, series: Series, now: datetime) -> Iterator[tuple[str, datetime | None, datetime | None]]:
    try:
        known = store.read(series)
    except DamagedFile:
        yield "damaged", None, None
        return
    missing = known.incomplete(any_span(None, None), now)
    for state, ranges in (("covered", known.covered), ("provisional", known.provisional), ("missing", missing)):
        for part in ranges:
            yield state, part.start, part.end
    for one in known.filled:
        yield "filled", one.range.start, one.range.end
