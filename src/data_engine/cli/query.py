"""``query``: SQL over the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import json_text, print_err, print_json, size
from data_engine.cli.exit_codes import FAILED, Command
from data_engine.cli.options import open_store, with_settings
from data_engine.cli.query_gaps import warn_of_gaps

if TYPE_CHECKING:
    import duckdb

    from data_engine.settings import Settings


@click.command(cls=Command, exits="0 1 2 4 130")
@click.argument("sql")
@click.option("--start", metavar="DATE", help="First day or instant of the bars in the views. [default: first bar]")
@click.option("--end", metavar="DATE", help="Last day, included, or instant of the bars. [default: last bar]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "parquet", "json"]),
    help="Format of the result. [default: by the name of --out, else table]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write the result to. CSV and Parquet results may exceed memory.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if requested ranges of a dataset in the SQL are missing.")
@with_settings
@click.pass_context
def query(
    context: click.Context,
    settings: Settings,
    sql: str,
    start: str | None,
    end: str | None,
    form: str | None,
    out: Path | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Run SQL over the store with DuckDB.

    Each dataset is a view (bars_1min, bars_1day and so on); the view coverage lists the ranges of each series. A line on stderr
    names the datasets in the SQL of which requested ranges are missing.
    """
    from datetime import UTC, datetime

    from data_engine.errors import InputError
    from data_engine.market.dates import any_span
    from data_engine.read.duckdb_views import connect, interruptible, lazy_query, run, translate_errors
    from data_engine.read.query_output import csv_text, format_of, write
    from data_engine.store.location import check_out

    if as_json and (form not in (None, "json") or out is not None):
        raise InputError("cannot use --json together with --format or --out: it prints JSON on stdout; pass one of them")
    form = "json" if as_json else format_of(form, out)
    store = open_store(settings)  # after the imports: an interrupt during them may get lost
    if out is not None:
        check_out(out, store.files.folder)
    span = None if start is None and end is None else any_span(start, end)
    now = datetime.now(UTC)
    with connect(store, span, coverage_at=now if "coverage" in sql.lower() else None) as connection, translate_errors(connection):

        def respond() -> None:
            if form in ("table", "json"):
                _show(run(connection, sql), form, out)
            elif out is None:
                for text in csv_text(lazy_query(connection, sql)):
                    click.echo(text, nl=False)
            else:
                print_err(f"{out}: {size(write(lazy_query(connection, sql), out, form))}")

        interruptible(connection, respond)
    if warn_of_gaps(store, sql, span, now) and strict:
        context.exit(FAILED)


def _show(result: duckdb.DuckDBPyRelation, form: str, out: Path | None) -> None:
    """Print a result that is in memory, or write it to a file."""
    fields = {"columns": result.columns, "rows": result.fetchall()} if form == "json" else None
    if out is not None:
        text = _table(result) if fields is None else json_text(fields) + "\n"
        out.write_text(text, encoding="utf-8")
        print_err(f"{out}: {size(out.stat().st_size)}")
    elif fields is None:
        click.echo(_table(result), nl=False)
    else:
        print_json(fields)


def _table(result: duckdb.DuckDBPyRelation) -> str:
    """Return a result as a table, and the plan of EXPLAIN unchanged."""
    if result.columns == ["explain_key", "explain_value"]:
        return "".join(f"{plan}\n" for _, plan in result.fetchall())
    return str(result)
