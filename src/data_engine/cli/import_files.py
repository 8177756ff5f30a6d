"""``import``: bars that other programs left in Parquet files."""

from __future__ import annotations

from contextlib import ExitStack

import click

from data_engine.cli.console import print_json, print_store, store_options, warn_writer


@click.command("import")
@click.argument("folder", metavar="FROM")
@click.option("--feed", metavar="F", help="Of the bars. Default: what the folder's name says, else sip.")
@click.option("--adjustment", metavar="A", help="Of the bars. Default: what the folder's name says, else raw.")
@click.option("--dry-run", is_flag=True, help="Read everything, and write nothing.")
@click.option("--wait", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="How long to wait for another writer.")
@store_options
@click.pass_context
def bring_in(
    context: click.Context,
    folder: str,
    feed: str | None,
    adjustment: str | None,
    dry_run: bool,
    wait: float,
    base_path: str | None,
    settings_path: str | None,
    as_json: bool,
) -> None:
    """Bring the bars of files like equities_1min/symbol=AAPL/year=2024/month=1/data_0.parquet into a store.

    The originals are only read. Bars that the store has already stay as they are, and nothing is claimed as covered.
    """
    from datetime import UTC, datetime

    from data_engine.ingest.file_import import find_sources, import_bars, to_json
    from data_engine.settings import load_settings
    from data_engine.store.bar_store import BarStore
    from data_engine.store.location import open_file_store

    settings = load_settings(base_path=base_path, settings_path=settings_path)
    storage = BarStore(open_file_store(settings.base_path))
    print_store(settings, storage.files)
    sources, strange = find_sources(folder, feed=feed, adjustment=adjustment)
    with ExitStack() as held:
        if not dry_run:
            warn_writer(storage.files)
            held.enter_context(storage.files.lock("run", seconds=wait))
        made = import_bars(storage, sources, now=datetime.now(UTC), dry_run=dry_run)
    failed = [*strange, *made.failed]
    if as_json:
        print_json({"from": folder, "dry_run": dry_run, **to_json(made, strange)})
    else:
        for path, message in failed:
            click.echo(f"{path}: {message}")
        verb = "would be added" if dry_run else "added"
        click.echo(
            f"{made.files:,} files of {len(made.by_series):,} series read, {made.bars:,} bars: {made.added:,} {verb}, "
            f"{made.held:,} already held, {made.covered:,} left out where the store knows better; {len(failed)} failed"
        )
        if made.added and not dry_run:
            click.echo("Nothing of it is covered yet: `data-engine ingest` over the same range asks Alpaca for it.")
    context.exit(1 if failed else 0)
