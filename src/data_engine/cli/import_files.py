"""``import``: bars that other programs left in Parquet files."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import print_json, warn_writer
from data_engine.cli.exit_codes import FAILED, OK, Command
from data_engine.cli.options import open_store, wait_option, with_settings
from data_engine.store.run_lock import RUN_LOCK

if TYPE_CHECKING:
    from data_engine.settings import Settings


@click.command("import", cls=Command, exits="0 1 2 4 7 130", partial=True)
@click.argument("folder", metavar="FROM")
@click.option("--feed", metavar="F", help="Feed of the bars. [default: from the folder's name, else sip]")
@click.option("--adjustment", metavar="A", help="Adjustment of the bars. [default: from the folder's name, else raw]")
@click.option("--dry-run", is_flag=True, help="Read all files; write nothing.")
@wait_option()
@with_settings
@click.pass_context
def import_files(
    context: click.Context,
    settings: Settings,
    folder: str,
    feed: str | None,
    adjustment: str | None,
    dry_run: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Import bars from the Parquet files of other programs.

    FROM holds files such as equities_1min/symbol=AAPL/year=2024/month=1/data_0.parquet, which are only read. Stored bars keep
    their values, and no range becomes covered.
    """
    from datetime import UTC, datetime

    from data_engine.ingest.file_import import find_sources, import_bars, to_json

    store = open_store(settings, must_exist=False)
    sources, unusable = find_sources(folder, feed=feed, adjustment=adjustment)
    with ExitStack() as lock:
        if not dry_run:
            warn_writer(store.files)
            lock.enter_context(store.files.lock(RUN_LOCK, seconds=wait))
        report = import_bars(store, sources, now=datetime.now(UTC), dry_run=dry_run)
    failed = [*unusable, *report.failed]
    if as_json:
        print_json({"from": folder, "dry_run": dry_run, **to_json(report, unusable)})
    else:
        for path, message in failed:
            click.echo(f"{path}: {message}")
        verb = "would be added" if dry_run else "added"
        click.echo(
            f"{report.files:,} files of {len(report.by_series):,} series read, {report.bars:,} bars: {report.added:,} {verb}, "
            f"{report.stored:,} already stored, {report.covered:,} left out of covered ranges; {len(failed)} failed"
        )
        if report.added and not dry_run:
            click.echo("Imported bars are not covered; `data-engine ingest` for the same range fetches them from Alpaca.")
    context.exit(FAILED if failed else OK)
