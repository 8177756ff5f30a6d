"""``query``: DuckDB over the store."""

from __future__ import annotations

import click

from data_engine.cli.console import name_store, print_json, store_options


@click.command()
@click.argument("sql")
@click.option("--start", metavar="DATE", help="The views hold bars from this day or instant on; other files are not opened.")
@click.option("--end", metavar="DATE", help="... to this day, included, or this instant.")
@store_options
def query(sql: str, start: str | None, end: str | None, base_path: str | None, settings_path: str | None, as_json: bool) -> None:
    """Run SQL over the store with DuckDB: a view per dataset (bars_1min, bars_1day ...) and coverage."""
    from data_engine.settings import load_settings
    from data_engine.spans import any_span
    from data_engine.storage import ParquetStorage
    from data_engine.views import connect, run

    settings = load_settings(base_path=base_path, settings_path=settings_path)
    storage = ParquetStorage(settings.base_path)
    name_store(settings, storage.files)
    storage.check_exists()
    span = None if start is None and end is None else any_span(start, end)
    with connect(storage, span, coverage="coverage" in sql.lower()) as connection:
        result = run(connection, sql)
        if as_json:
            print_json({"columns": result.columns, "rows": result.fetchall()})
        else:
            click.echo(str(result), nl=False)
