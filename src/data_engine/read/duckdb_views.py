"""Query a store with DuckDB: one view per dataset, and a table of the coverage."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from data_engine.errors import DamagedFile, InputError, StoreError
from data_engine.market.bars import BAR_SCHEMA, TIMESTAMP
from data_engine.market.dates import any_span
from data_engine.market.series import Dataset, Series
from data_engine.market.time_range import TimeRange
from data_engine.store.coverage_store import CoverageStore
from data_engine.store.partitions import Partition

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
    store: BarStore, span: TimeRange | None = None, *, coverage_at: datetime | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an in-memory DuckDB with a view per dataset of the store and, if that is asked for, the table ``coverage``.

    A view has the columns ``symbol, timestamp, open, high, low, close, volume, trade_count, vwap, year`` (and ``month``).
    Nothing of the store can be changed through it.

    Args:
        store: The store of the bars.
        span: The range in which the bars of the views start. The views name only files that can have such bars, so that DuckDB
            does not open the others. (On a bucket it also opens only files that the conditions of the SQL leave.)
        coverage_at: The current time, to add the coverage, which takes one file to read per series. If None, it is not added.

    Raises:
        StoreError: If a dataset, or what is requested, cannot be read.
        InputError: If DuckDB would take a part of the store's path for a partition.
    """
    import duckdb

    connection = duckdb.connect()
    try:
        with suppress(duckdb.Error):  # the time zone comes with an extension that not every build has loaded
            connection.execute("SET TimeZone = 'UTC'")
        for dataset in datasets(store):
            _add_view(connection, store, dataset, span)
        if coverage_at is not None:
            connection.register("coverage", _coverage_table(store.coverage, coverage_at))
        yield connection
    finally:
        connection.close()


def _add_view(connection: duckdb.DuckDBPyConnection, store: BarStore, dataset: Dataset, span: TimeRange | None) -> None:
    import duckdb

    folder, name = store.files.folder, view_name(dataset)
    if folder is None:
        from data_engine.read.s3_dataset import dataset_of

        connection.register(name, dataset_of(store, dataset, span))
        return
    keys = [f"{dataset.name}/**/*.parquet"] if span is None else list(_files(store, dataset, span))
    if not keys:
        # Some file must give the view its columns.
        keys = [next(store.partitions(dataset)).key]
    try:
        connection.execute(f'CREATE VIEW "{name}" AS {select(dataset, folder, keys, span)}')
    except duckdb.Error as error:  # DuckDB opens the first of the files
        reason = str(error).strip().split("\n", 1)[0]
        raise StoreError(f"cannot read {dataset.name}: {reason}; run `data-engine verify`") from None


def lazy_query(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyRelation:
    """Return the result of one read-only statement, not yet computed; compute it inside `translate_errors`, too.

    Raises:
        InputError: If it is not one statement, or it would write.
    """
    import duckdb

    with translate_errors(connection):
        statements = connection.extract_statements(sql)
        if len(statements) == 1 and statements[0].type == duckdb.StatementType.EXPLAIN:
            # EXPLAIN ANALYZE executes what it explains: that must be read-only, too.
            statements = connection.extract_statements(_EXPLAIN.sub("", statements[0].query, count=1))
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise InputError("query accepts one read-only statement (SELECT, FROM, DESCRIBE, SUMMARIZE or EXPLAIN)")
        return connection.sql(sql)


def run(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyRelation:
    """Run one read-only statement, and return its whole result.

    Raises:
        InputError: If it is not one statement, it would write, or DuckDB cannot run it; the message names the views.
    """
    with translate_errors(connection):
        # DuckDB executes a relation on each use: execute it once, here, where its errors are translated.
        return connection.from_arrow(lazy_query(connection, sql).to_arrow_table())


_EXPLAIN = re.compile(r"\s*EXPLAIN\b(\s+ANALYZE\b|\s*\([^()]*\))?", re.IGNORECASE)


def interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], _T]) -> _T:
    """Return what *work* returns; Ctrl-C interrupts the connection that it uses.

    DuckDB ignores signals while it computes, and Python handles them only in the main thread: so *work* runs in another one.
    """
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            while not future.done():
                wait([future], timeout=0.2)
        except KeyboardInterrupt:
            connection.interrupt()
            raise
        return future.result()


@contextmanager
def translate_errors(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Turn errors of DuckDB into `InputError`, with the names of the views."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        names = sorted(name for (name,) in views if name != "coverage")
        raise InputError(f"{str(error).strip()}\nViews: {', '.join([*names, 'coverage'])}") from None


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
        keys: The paths of the files below it, at least one, or a glob pattern.
        span: The range in which bars start. If None, all bars.
        columns: Some of ``symbol``, the columns of a file, ``year`` (and ``month``). If None, all.

    Raises:
        InputError: If DuckDB would take a part of the store's path for a partition.
    """
    base = _without_wildcards(str(folder))
    paths = ", ".join("'" + f"{base}/{key}".replace("'", "''") + "'" for key in keys)
    # Without pinned types DuckDB reads symbol=2330 as a number and symbol=INF as a date.
    types = "'symbol': VARCHAR, 'year': INTEGER" + (", 'month': INTEGER" if dataset.timeframe.intraday else "")
    if columns is None:
        columns = ("symbol", *BAR_SCHEMA.names, "year", *(("month",) if dataset.timeframe.intraday else ()))
    files = f"read_parquet([{paths}], hive_partitioning = true, hive_types = {{{types}}})"
    inside = "" if span is None else f" WHERE timestamp >= '{span.start}' AND timestamp < '{span.end}'"
    return f"SELECT {', '.join(columns)} FROM {files}{inside}"  # noqa: S608 - our names, quoted paths


def _without_wildcards(location: str) -> str:
    """Return a path with the wildcards of DuckDB's globs escaped.

    Raises:
        InputError: If DuckDB would take a part of it for a partition.
    """
    for part in location.replace("\\", "/").split("/"):
        if part.partition("=")[0] in ("symbol", "year", "month") and "=" in part:
            raise InputError(f"cannot query {location}: DuckDB takes {part!r} in the path for a partition; move the store")
    return re.sub(r"([\[*?])", r"[\1]", location)


def _files(store: BarStore, dataset: Dataset, span: TimeRange) -> Iterator[str]:
    """Yield the files of a dataset that can have bars in a range, by exact name, without a glob over all months."""
    for symbol in store.symbols(dataset):
        series = Series(symbol, dataset)
        for period in store.periods(series, span):
            yield Partition(series, period).key


def _coverage_table(store: CoverageStore, now: datetime) -> pa.Table:
    """Return the coverage as a table with a row per series and range, with its state."""
    store.requested.refresh()
    rows = [
        {"dataset": dataset.name, "symbol": series.symbol, "state": state, "range_start": start, "range_end": end}
        for dataset in store.datasets()
        for series in store.series(dataset)
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
