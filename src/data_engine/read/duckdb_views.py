"""DuckDB over a store: one view per dataset, and one of the coverage."""

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
def connect(storage: BarStore, span: TimeRange | None = None, *, coverage: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an in-memory DuckDB with a view per dataset of the store, and ``coverage``.

    A view has the columns ``symbol, timestamp, open, high, low, close, volume, trade_count, vwap, year`` (and ``month``).
    Nothing of the store can be changed through it.

    Args:
        storage: of the bars.
        span: the views hold bars that start inside it alone, and name just the files that can have some: DuckDB need not open
            the others to find that out. (On a bucket it does not open files that the query's own conditions leave out, either.)
        coverage: whether the coverage is shown, too; it means reading a file per series.
    """
    import duckdb

    connection = duckdb.connect()
    try:
        with suppress(duckdb.Error):  # the time zone comes with an extension that not every build has loaded
            connection.execute("SET TimeZone = 'UTC'")
        for dataset in datasets(storage):
            if storage.files.folder is None:
                from data_engine.read.s3_dataset import dataset_of

                connection.register(view_name(dataset), dataset_of(storage, dataset, span))
            else:
                try:
                    connection.execute(_view(storage, dataset, storage.files.folder, span))
                except duckdb.Error as error:  # it opens the first of the files
                    reason = str(error).strip().split("\n", 1)[0]
                    raise StoreError(
                        f"{dataset.name} cannot be read: {reason}; `data-engine verify` says what is wrong"
                    ) from None
        if coverage:
            _coverage_table(connection, storage.coverage)
        yield connection
    finally:
        connection.close()


def ask(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyRelation:
    """Return the answer of one statement that reads, not yet computed; computing it belongs inside `translate_errors`, too.

    Raises:
        InputError: it is not one statement, or it would write.
    """
    import duckdb

    with translate_errors(connection):
        statements = connection.extract_statements(sql)
        if len(statements) == 1 and statements[0].type == duckdb.StatementType.EXPLAIN:
            # EXPLAIN ANALYZE carries out what it explains: that must read, too.
            statements = connection.extract_statements(_EXPLAIN.sub("", statements[0].query, count=1))
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise InputError("`query` takes one statement that reads: a SELECT, FROM, DESCRIBE, SUMMARIZE or EXPLAIN of one")
        return connection.sql(sql)


def run(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyRelation:
    """Run one statement that reads, and return its whole result.

    Raises:
        InputError: it is not one statement, it would write, or DuckDB cannot run it; the message has the names of the views.
    """
    with translate_errors(connection):
        # DuckDB is lazy, and runs a relation anew at every look: read it once, here, where its errors are ours to tell.
        return connection.from_arrow(ask(connection, sql).to_arrow_table())


_EXPLAIN = re.compile(r"\s*EXPLAIN\b(\s+ANALYZE\b|\s*\([^()]*\))?", re.IGNORECASE)


def interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], _T]) -> _T:
    """Return what *work* returns, which keeps a connection busy; Ctrl-C ends it, and not only after it has ended.

    DuckDB computes without looking at signals, and Python looks at them in the main thread alone: so that one is kept free.
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
    """Make DuckDB's errors `InputError`s, with the names of the views."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        names = ", ".join(sorted(name for (name,) in views if name != "coverage"))
        raise InputError(f"{str(error).strip()}\nThe views are: {names or 'none'}, and coverage") from None


def datasets(storage: BarStore) -> list[Dataset]:
    """Return the datasets of a store that hold a file, whether or not their coverage is there."""
    found = []
    for name in storage.files.folders(""):
        with suppress(ValueError):  # a folder that is not ours
            found.append(Dataset.from_name(name))
    return [dataset for dataset in found if next(storage.partitions(dataset), None) is not None]


def select(
    dataset: Dataset, folder: Path, keys: Sequence[str], span: TimeRange | None = None, columns: Sequence[str] | None = None
) -> str:
    """Return the SELECT by which DuckDB reads files of a dataset; conditions on what their paths say leave files unopened.

    Args:
        dataset: whose files.
        folder: of the store.
        keys: of the files, below it, or a pattern; at least one.
        span: only bars that start inside it.
        columns: of ``symbol``, those of a file, ``year`` (and ``month``); None is all.

    Raises:
        InputError: DuckDB would take a part of the store's path for a partition.
    """
    base = _literal(str(folder))
    paths = ", ".join("'" + f"{base}/{key}".replace("'", "''") + "'" for key in keys)
    # Without pinned types DuckDB reads symbol=2330 as a number and symbol=INF as a date.
    types = "'symbol': VARCHAR, 'year': INTEGER" + (", 'month': INTEGER" if dataset.timeframe.intraday else "")
    if columns is None:
        columns = ("symbol", *BAR_SCHEMA.names, "year", *(("month",) if dataset.timeframe.intraday else ()))
    files = f"read_parquet([{paths}], hive_partitioning = true, hive_types = {{{types}}})"
    inside = "" if span is None else f" WHERE timestamp >= '{span.start}' AND timestamp < '{span.end}'"
    return f"SELECT {', '.join(columns)} FROM {files}{inside}"  # noqa: S608 - our names, quoted paths


def _view(storage: BarStore, dataset: Dataset, folder: Path, span: TimeRange | None) -> str:
    keys = [f"{dataset.name}/**/*.parquet"] if span is None else list(_files(storage, dataset, span))
    if not keys:
        # Something must give the view its columns.
        keys = [next(storage.partitions(dataset)).key]
    return f'CREATE VIEW "{view_name(dataset)}" AS {select(dataset, folder, keys, span)}'


def _literal(location: str) -> str:
    """Return a path as DuckDB's patterns write it.

    Raises:
        InputError: a part of it looks like a partition, and DuckDB would take it for one.
    """
    for part in location.replace("\\", "/").split("/"):
        if part.partition("=")[0] in ("symbol", "year", "month") and "=" in part:
            raise InputError(f"the store's path has a part {part!r}, which DuckDB takes for a partition; move the store")
    return re.sub(r"([\[*?])", r"[\1]", location)


def _files(storage: BarStore, dataset: Dataset, span: TimeRange) -> Iterator[str]:
    """Yield the files of a dataset that can hold bars of a range: exact names, no glob over all months."""
    for symbol in storage.symbols(dataset):
        series = Series(symbol, dataset)
        for period in storage.periods(series, span):
            yield Partition(series, period).key


def _coverage_table(connection: duckdb.DuckDBPyConnection, store: CoverageStore) -> None:
    """Show the coverage as a table: a row per series and range, with its state."""
    rows: list[tuple[str, str, str, datetime | None, datetime | None]] = []
    for dataset in store.datasets():
        for series in store.series(dataset):
            try:
                known = store.read(series)
            except DamagedFile:
                rows.append((dataset.name, series.symbol, "damaged", None, None))
                continue
            everything = TimeRange(known.wanted[0].start, known.wanted[-1].end) if known.wanted else None
            owed = known.incomplete(everything) if everything else ()
            states = (("covered", known.covered), ("provisional", known.provisional), ("missing", owed))
            rows += [(dataset.name, series.symbol, state, part.start, part.end) for state, parts in states for part in parts]
    columns = list(zip(*rows, strict=True)) or [()] * len(_COVERAGE)
    table = pa.table([pa.array(column, kind) for column, kind in zip(columns, _COVERAGE.types, strict=True)], schema=_COVERAGE)
    connection.register("coverage", table)
