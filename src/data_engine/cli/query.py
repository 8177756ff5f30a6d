"""``query``: SQL over the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import json_text, print_err, size
from data_engine.cli.exit_codes import FAILED, Command
from data_engine.cli.options import as_stored_on_option, open_store, with_settings
from data_engine.cli.output import write_exact
from data_engine.cli.query_gaps import warn_of_gaps
from data_engine.cli.values import END, START
from data_engine.market.clean_text import clean

if TYPE_CHECKING:
    import duckdb

    from data_engine.settings import Settings


@click.command(cls=Command, exits="0 1 2 4 130")
@click.argument("sql")
@click.option("--start", type=START, metavar="DATE", help="First day or instant of the bars in the views. [default: first bar]")
@click.option("--end", type=END, metavar="DATE", help="Last day, included, or instant of the bars. [default: last bar]")
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
    help="New file for the result. CSV and Parquet results may exceed memory.",
)
@click.option("--explain", is_flag=True, help="Print DuckDB's plan of the statement; do not run it.")
@click.option(
    "--time-zone", metavar="ZONE", default="UTC", show_default=True, help="Time zone of instants, such as America/New_York."
)
@click.option("--memory", metavar="SIZE", help="Memory for the query, such as 2GB. [default: 80 % of the machine's]")
@click.option("--allow-files", is_flag=True, help="Let the SQL read all files that you can read.")
@click.option("--strict", is_flag=True, help="Exit with 1 if requested ranges of a dataset in the SQL are missing.")
@as_stored_on_option
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
    explain: bool,
    time_zone: str,
    memory: str | None,
    allow_files: bool,
    strict: bool,
    as_stored_on: str | None,
    as_json: bool,
) -> None:
    """Run one SELECT over the store with DuckDB.

    Each dataset is a view (bars_1min, bars_1day and so on); the view coverage lists the ranges of each series. The SQL sees
    these views, opens no other file and changes nothing. A line on stderr names the datasets in the SQL of which requested
    ranges are missing.
    """
    from datetime import UTC, datetime

    from data_engine.errors import InputError
    from data_engine.market.dates import any_span
    from data_engine.read import duckdb_views
    from data_engine.read.duckdb_views import connect, interruptible, lazy_query, translate_errors
    from data_engine.read.query_output import csv_text, format_of, write, write_text
    from data_engine.store.history.past import instant_of_files, stored_on
    from data_engine.store.location import check_out

    if as_json and (form not in (None, "json") or out is not None):
        raise InputError("cannot use --json together with --format or --out: it prints JSON on stdout; pass one of them")
    if explain and (as_json or form is not None):
        raise InputError("cannot use --explain together with --json or --format: a plan is text; pass one of them")
    form = "json" if as_json else "table" if explain else format_of(form, out)
    store = open_store(settings)  # after the imports: an interrupt during them may get lost
    if out is not None:
        check_out(out, store.files.folder)
    span = None if start is None and end is None else any_span(start, end)
    store = stored_on(store, as_stored_on, now=datetime.now(UTC))
    now = instant_of_files(store.files, datetime.now(UTC))
    at = now if "coverage" in sql.lower() else None
    opened = connect(store, span, coverage_at=at, time_zone=time_zone, memory=memory, allow_files=allow_files, note=print_err)
    with opened as connection, translate_errors(connection):

        def respond() -> None:
            if form == "csv" and out is None:
                for text in csv_text(lazy_query(connection, sql, allow_files=allow_files)):
                    write_exact(text)
            elif form in ("csv", "parquet") and out is not None:
                made = write(lazy_query(connection, sql, allow_files=allow_files), out, form, time_zone=time_zone)
                print_err(f"{out}: {size(made)}")
            else:
                ask = duckdb_views.explain if explain else duckdb_views.run
                text = _text(ask(connection, sql, allow_files=allow_files), form)
                if out is None:
                    click.echo(text, nl=False)
                else:
                    print_err(f"{out}: {size(write_text(text, out))}")

        interruptible(connection, respond)
    if warn_of_gaps(store, sql, span, now) and strict:
        context.exit(FAILED)


def _text(result: duckdb.DuckDBPyRelation | str, form: str) -> str:
    """Return a result that is in memory, or a plan, as text."""
    if form == "json" and not isinstance(result, str):
        return json_text({"columns": result.columns, "rows": result.fetchall()}) + "\n"
    return clean(str(result).rstrip("\n") + "\n", lines=True)
