"""``query``: DuckDB over the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import json_text, print_err, print_json, print_store, size, store_options

if TYPE_CHECKING:
    import duckdb


@click.command()
@click.argument("sql")
@click.option("--start", metavar="DATE", help="The views hold bars from this day or instant on; other files are not opened.")
@click.option("--end", metavar="DATE", help="... to this day, included, or this instant.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "parquet", "json"]),
    help="How the result is written. Default: what the name of --out ends with, else a table.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it there. CSV and Parquet may exceed memory.")
@store_options
def query(
    sql: str,
    start: str | None,
    end: str | None,
    form: str | None,
    out: Path | None,
    base_path: str | None,
    settings_path: str | None,
    as_json: bool,
) -> None:
    """Run SQL over the store with DuckDB: a view per dataset (bars_1min, bars_1day ...) and coverage."""
    from data_engine.errors import InputError
    from data_engine.market.dates import any_span
    from data_engine.read.duckdb_views import ask, connect, interruptible, run, translate_errors
    from data_engine.read.query_output import csv_text, format_of, write
    from data_engine.settings import load_settings
    from data_engine.store.bar_store import BarStore
    from data_engine.store.location import check_out, open_file_store

    if as_json and (form not in (None, "json") or out is not None):
        raise InputError("--json prints the result on stdout as JSON: leave --format and --out away, or --json")
    form = "json" if as_json else format_of(form, out)
    settings = load_settings(base_path=base_path, settings_path=settings_path)
    storage = BarStore(open_file_store(settings.base_path))
    print_store(settings, storage.files)
    storage.check_exists()
    if out is not None:
        check_out(out, storage.files.folder)
    span = None if start is None and end is None else any_span(start, end)
    with connect(storage, span, coverage="coverage" in sql.lower()) as connection, translate_errors(connection):

        def answer() -> None:
            if form in ("table", "json"):
                _show(run(connection, sql), form, out)
            elif out is None:
                for text in csv_text(ask(connection, sql)):
                    click.echo(text, nl=False)
            else:
                print_err(f"{out}: {size(write(ask(connection, sql), out, form))}")

        interruptible(connection, answer)


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
    """Return a result for people: as a table, and the plan that EXPLAIN prints as it is."""
    if result.columns == ["explain_key", "explain_value"]:
        return "".join(f"{plan}\n" for _, plan in result.fetchall())
    return str(result)
