"""``history``: what changed of the bars of a symbol, when, and by whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from data_engine.cli.console import print_err, print_json, refuse_unknown, size, warn_writer
from data_engine.cli.exit_codes import DefaultGroup
from data_engine.cli.options import filter_options, wait_option, with_store
from data_engine.store.run_lock import RUN_LOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from data_engine.store.bar_store import BarStore
    from data_engine.store.history.series_history import SeriesChange
    from data_engine.store.selection import DatasetFilter
    from data_engine.verify.symbol_history import SymbolHistory


@click.group(cls=DefaultGroup, default="show", subcommand_metavar="SYMBOL ... | COMMAND", exits="0 1 2 4 7 130")
def history() -> None:
    """Show what changed of a symbol's bars, when, by whom.

    `data-engine history SYMBOL` is short for `data-engine history show SYMBOL`.
    """


@history.command(exits="0 1 2 4 130")
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL ...")
@click.option("--start", metavar="DATE", help="First day or instant of the bars. [default: first bar]")
@click.option("--end", metavar="DATE", help="Last day, included, or instant of the bars. [default: last bar]")
@filter_options
@with_store
def show(store: BarStore, names: list[str], datasets: DatasetFilter, start: str | None, end: str | None, as_json: bool) -> None:
    """Show what changed of a symbol's bars, when, by whom.

    A line per commit, the latest first: its instant, the bars that it added, revised and removed, the first and the last of
    them, and who made it. As a past state, that instant has this change and no later one.
    """
    from data_engine.market.dates import any_span
    from data_engine.verify.symbol_history import symbol_history

    found = symbol_history(store, datasets, names, any_span(start, end))
    refuse_unknown(names, found.symbols, store=store)
    if as_json:
        print_json(found.to_json())
        return
    if found.begins is None:
        print_err("The store has no history yet: it has one from its first change by this version on.")
    for line in _lines(found):
        click.echo(line)


def _lines(found: SymbolHistory) -> Iterator[str]:
    from data_engine.market.time_range import iso
    from data_engine.market.wording import plural

    for one in found.changes:
        yield f"{iso(one.instant)}  {one.series}: {_changed(one)} ({one.actor})"
    for begun in found.beginnings:
        if begun.instant is None:
            yield f"{begun.series}: nothing but the present is known of {plural(begun.files, 'file')}: no record explains it"
        elif begun.bars is None:
            yield f"{iso(begun.instant)}  {begun.series}: what {plural(begun.files, 'file')} held before is not known"
        else:
            yield f"{iso(begun.instant)}  {begun.series}: {plural(begun.bars, 'bar')} stored before; the store's history begins"
    for gap in found.gaps:
        span = f"{iso(gap.start)} {f'to {iso(gap.end)}' if gap.end else 'on'}"
        yield f"{gap.series}: what a file held from {span} is not known: two processes changed it at the same time"
    for seen in found.logged:
        counts = f"{seen.revised:,} revised, {seen.appeared:,} new and {seen.vanished:,} dropped"
        yield f"{iso(seen.seen)}  {seen.series}: an audit found {counts} at Alpaca (metadata/revisions)"
    if not (found.changes or found.beginnings or found.logged):
        yield "No change of bars is recorded in the range."


def _changed(one: SeriesChange) -> str:
    """Return what a commit did to the bars of a series."""
    from data_engine.market.time_range import iso
    from data_engine.market.wording import plural

    bars, parts = one.bars, list[str]()
    for count, what in ((bars.added, "added"), (bars.revised, "revised"), (bars.removed, "removed")):
        if count:
            parts.append(f"{f'{count:,}' if parts else plural(count, 'bar')} {what}")
    text = ", ".join(parts)
    if bars.first is not None and bars.last is not None:
        text += f", {iso(bars.first)}" + (f" to {iso(bars.last)}" if bars.last != bars.first else "")
    if bars.not_kept:
        text += f"{'; ' if text else ''}{plural(bars.not_kept, 'file')} replaced or removed, old bars not kept"
    return text


@history.command(exits="0 1 2 4 7 130")
@click.option("--before", required=True, metavar="DATE", help="The first day or instant whose states can still be read.")
@click.option("--force", is_flag=True, help="Drop what snapshots need, too.")
@click.option("--dry-run", is_flag=True, help="Print what would be dropped; drop nothing.")
@wait_option()
@with_store
def prune(store: BarStore, before: str, force: bool, dry_run: bool, wait: float, as_json: bool) -> None:
    """Drop what is only needed for earlier states.

    Nothing of the present is touched. States before the date cannot be read afterwards; what snapshots need is refused. What was
    recorded within the last hour stays: somebody may still be about to change the files.
    """
    from datetime import UTC, datetime

    from data_engine.market.dates import parse_start
    from data_engine.market.time_range import iso
    from data_engine.store.history.compaction import prune as drop
    from data_engine.store.history.snapshots import refuse_needed

    instant = parse_start(before)
    warn_writer(store.files)
    with store.files.lock(RUN_LOCK, seconds=wait):
        now = datetime.now(UTC)
        pruned = drop(store.files, instant, now, dry_run=True)
        if pruned.begins is not None and not force:
            refuse_needed(store.files, pruned.begins)
        if pruned.begins is not None and not dry_run:
            pruned = drop(store.files, pruned.begins, now)  # what was told and checked, whatever was recorded meanwhile
    if as_json:
        begins = None if pruned.begins is None else iso(pruned.begins)
        print_json({"begins": begins, "records": pruned.records, "freed_bytes": pruned.freed, "dry_run": dry_run})
    elif pruned.begins is None:
        click.echo("Nothing to drop: the history has no earlier record that is an hour old.")
    else:
        done = "Would drop" if dry_run else f"Freed {size(pruned.freed)}:"
        click.echo(f"{done} {pruned.records:,} records; states before {iso(pruned.begins)} cannot be read any more")
