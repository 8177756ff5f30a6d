"""``import``: bars and lists that the legacy pipeline, or other programs, left in files."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import print_json, print_text, stop_on_signal, warn_writer
from data_engine.cli.exit_codes import FAILED, OK, Command
from data_engine.cli.options import open_store, wait_option, with_settings
from data_engine.cli.values import ADJUSTMENT, FEED, TIMEFRAME
from data_engine.store.run_lock import RUN_LOCK

if TYPE_CHECKING:
    from data_engine.settings import Settings


@click.command("import", cls=Command, exits="0 1 2 4 7 130", partial=True)
@click.argument("folder", metavar="[FROM]", required=False)
@click.option("--in-place", is_flag=True, help="Turn a folder that the legacy pipeline wrote into a store.")
@click.option("--timeframe", type=TIMEFRAME, metavar="T", help="Timeframe of all bars. [default: as timestamps and folder say]")
@click.option("--feed", type=FEED, metavar="F", help="Feed of the bars. [default: from the folder's name, else sip]")
@click.option(
    "--adjustment", type=ADJUSTMENT, metavar="A", help="Adjustment of the bars. [default: from the folder's name, else raw]"
)
@click.option("--claim", is_flag=True, help="Count the sessions of the files as covered, by your word.")
@click.option("--fill", is_flag=True, help="Add only bars in gaps of Alpaca's, to a dataset of their own.")
@click.option("--source", metavar="NAME", help="With --fill: name of the source, which results name.")
@click.option("--drop-originals", is_flag=True, help="With --in-place: remove old files; do not keep them.")
@click.option("--dry-run", is_flag=True, help="Read all files; write nothing.")
@wait_option()
@with_settings
@click.pass_context
def import_files(
    context: click.Context,
    settings: Settings,
    folder: str | None,
    in_place: bool,
    timeframe: str | None,
    feed: str | None,
    adjustment: str | None,
    claim: bool,
    fill: bool,
    source: str | None,
    drop_originals: bool,
    dry_run: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Import bars and lists from the files of other programs.

    FROM holds files such as equities_1min/symbol=AAPL/year=2024/month=1/data_0.parquet, which are only read. Stored bars keep
    their values, and no range becomes covered without --claim.

    With --in-place, such files in the store's own folder are replaced by files of the store, month by month; the old ones move to
    metadata/legacy. If that is interrupted, the same command goes on with it.

    With --fill, bars that lie in a gap that `verify` reports as missing at Alpaca are added to a dataset such as
    equities_1min_fill. `load(fill=True)` returns them until Alpaca has a bar in the gap.
    """
    from datetime import UTC, datetime

    from data_engine.errors import InputError
    from data_engine.ingest.file_import import import_bars, to_json
    from data_engine.ingest.fill_import import FillReport, import_fill
    from data_engine.ingest.fill_import import to_json as fill_to_json
    from data_engine.ingest.import_in_place import find_legacy, import_in_place
    from data_engine.ingest.import_lists import import_lists
    from data_engine.ingest.import_sources import find_sources
    from data_engine.ingest.import_summary import fill_summary, summary
    from data_engine.store.legacy_files import refuse_legacy_store

    if in_place == (folder is not None):
        raise InputError("cannot tell what to import; pass either the folder FROM or --in-place")
    if drop_originals and not in_place:
        raise InputError("cannot use --drop-originals without --in-place: files of another folder are only read; pass both")
    source = _source(fill, source, claim=claim, in_place=in_place)
    store = open_store(settings, must_exist=in_place or fill, legacy=True)
    if not in_place:
        refuse_legacy_store(store.files)
    store = store.acting(f"import of {folder or 'this folder'}" if source is None else f"fill from {source}")
    now = datetime.now(UTC)
    with ExitStack() as lock:
        lock.enter_context(stop_on_signal())
        if not dry_run:
            warn_writer(store.files)
            lock.enter_context(store.files.lock(RUN_LOCK, seconds=wait))
            store.files.remove_stale_drafts()
        if folder is None:
            legacy = find_legacy(store, feed=feed, adjustment=adjustment)
            report = import_in_place(
                store, legacy, now=now, timeframe=timeframe, claim=claim, drop_originals=drop_originals, dry_run=dry_run
            )
        else:
            sources, unusable = find_sources(folder, feed=feed, adjustment=adjustment, fill=fill)
            if source is None:
                report = import_bars(store, sources, now=now, timeframe=timeframe, claim=claim, dry_run=dry_run)
                import_lists(store.files, folder, report, dry_run=dry_run)
            else:
                report = import_fill(store, sources, source=source, now=now, timeframe=timeframe, dry_run=dry_run)
            report.failed[:0] = unusable
    if isinstance(report, FillReport):
        text, fields, failed = fill_summary(report, dry_run=dry_run), fill_to_json(report), report.has_nothing
    else:
        text, fields, failed = summary(store, report, base_path=_base_path(settings), dry_run=dry_run), to_json(report), False
    if as_json:
        print_json({"from": folder, "in_place": in_place, "dry_run": dry_run, **fields, "next": text.commands})
    for line in text.lines:
        print_text(line, err=as_json)
    context.exit(FAILED if report.failed or failed else OK)


def _source(fill: bool, source: str | None, *, claim: bool, in_place: bool) -> str | None:
    """Return the name of the source of bars for gaps, or None if the bars are for no gaps.

    Raises:
        InputError: If the options contradict each other, or the name cannot be one.
    """
    from data_engine.errors import InputError
    from data_engine.store.filled import check_source

    if not fill:
        if source is not None:
            raise InputError("cannot use --source without --fill: imported bars have no other source; pass both or neither")
        return None
    if claim or in_place:
        other = "--claim" if claim else "--in-place"
        raise InputError(f"cannot use --fill together with {other}: only gaps of Alpaca's bars are filled; pass one of them")
    if source is None:
        raise InputError("cannot use --fill without --source: results name the source of such bars; pass --source NAME")
    return check_source(source)


def _base_path(settings: Settings) -> str | None:
    """Return the store as it was named on the command line, for commands to run next; None if the settings name it."""
    return str(settings.base_path) if settings.base_path_source == "--base-path" else None
