"""``universe``: Alpaca's list of securities as dated indices."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import first_lines, print_err, print_json, print_text, stop_on_signal, warn_writer
from data_engine.cli.exit_codes import FAILED, OK, Group
from data_engine.cli.options import open_store, wait_option, with_any_store, with_settings
from data_engine.cli.values import ON
from data_engine.store.run_lock import RUN_LOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from data_engine.settings import Settings
    from data_engine.store.bar_store import BarStore
    from data_engine.universe.membership import MembershipChange
    from data_engine.universe.vendor_lists import UniverseReport

_MOST_NAMES = 10

_MOST_ROWS = 5


@click.group(cls=Group, exits="0 1 2 3 4 6 7 130", partial=True)
def universe() -> None:
    """Keep Alpaca's list of securities as dated indices."""


@universe.command("update", exits="0 1 2 3 4 6 7 130", partial=True)
@click.option("--feed", metavar="F", help="The value otc for the securities that trade over the counter. [default: the others]")
@click.option("--force", is_flag=True, help="Accept lists in which more than 20 % of the members are missing.")
@click.option("--dry-run", is_flag=True, help="Fetch the lists and print the changes; write nothing.")
@click.option("--quiet", is_flag=True, help="Print one summary line; for cron.")
@wait_option()
@with_settings
@click.pass_context
def update_lists(
    context: click.Context,
    /,
    settings: Settings,
    feed: str | None,
    force: bool,
    dry_run: bool,
    quiet: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Fetch Alpaca's list of active and inactive securities.

    The indices us_active and us_inactive keep them with the days on which they changed; us_active_otc and us_inactive_otc those
    that trade over the counter. Exits with 1 if rows of Alpaca's list cannot be used.
    """
    from data_engine.alpaca.assets_client import AssetsClient
    from data_engine.ingest.bar_source import check_source
    from data_engine.store.legacy_files import refuse_legacy_store
    from data_engine.universe.index_store import MetadataStore
    from data_engine.universe.vendor_lists import names_of, update_universe

    names_of(feed)
    store = open_store(settings, must_exist=False, quiet=quiet)
    refuse_legacy_store(store.files)
    check_source(store.files, settings.data_url)  # a list of simulated securities is none of real bars
    client = AssetsClient(base_url=settings.trading_url)
    warn_writer(store.files)
    lock = nullcontext() if dry_run else store.files.lock(RUN_LOCK, seconds=wait)
    with client, stop_on_signal(), lock:
        report = update_universe(MetadataStore(files=store.files), client, feed=feed, force=force, dry_run=dry_run)
    if as_json:
        print_json(report.to_json())
    for line in [] if as_json else [_brief(report, store)] if quiet else _lines(report):
        print_text(line)
    context.exit(FAILED if report.lists.unusable else OK)


@universe.command("show", exits="0 1 2 4 130")
@click.option("--on", type=ON, metavar="DATE", help="Day in New York whose members are counted. [default: now]")
@with_any_store
def show_lists(store: BarStore, on: str | None, as_json: bool) -> None:
    """Print the stored lists and their last changes.

    `data-engine index show us_active` prints the members.
    """
    from data_engine.store.legacy_files import refuse_legacy_store
    from data_engine.universe.index_store import MetadataStore
    from data_engine.universe.vendor_lists import stored_universe

    refuse_legacy_store(store.files)
    lists = MetadataStore(files=store.files)
    found = []
    for name in stored_universe(lists):
        events = lists.history(name)
        members = len(lists.members(name, on))
        last = [event for event in events if event.day == events[-1].day] if events[-1].day > events[0].day else []
        found.append((name, members, events[0].day, events[-1].day, last))
    if as_json:
        fields = ("index", "members", "known_since", "last_change", "last_changes")
        rows = ((*one[:4], [{"symbol": event.symbol, "action": event.action} for event in one[4]]) for one in found)
        print_json({"on": on, "indices": [dict(zip(fields, row, strict=True)) for row in rows]})
        return
    for name, members, since, changed, last in found:
        click.echo(f"{name:<16} {members:>7,} members  known since {since}, last change {changed}")
        if last:
            click.echo(f"  {changed}: {_signed(last)}")


def _signed(events: list[MembershipChange]) -> str:
    from data_engine.market.wording import and_more
    from data_engine.universe.membership import ADDED

    signs = [("+" if event.action == ADDED else "-") + event.symbol for event in events]
    return and_more(signs, _MOST_NAMES, separator=" ")


def _brief(report: UniverseReport, store: BarStore) -> str:
    """Return one line for the log of a nightly run."""
    from datetime import UTC, datetime

    from data_engine.market.time_range import iso

    lists = "; ".join(f"{one.name}: {one.members:,}, +{len(one.added):,} -{len(one.removed):,}" for one in report.changes)
    rows = f"; {len(report.lists.unusable):,} unusable rows" if report.lists.unusable else ""
    return f"{iso(datetime.now(UTC).replace(microsecond=0))} {store.files.location}: {lists}{rows}"


def _lines(report: UniverseReport) -> Iterator[str]:
    """Yield the result as text."""
    from data_engine.market.wording import and_more, plural

    if not report.stored:
        print_err("Dry run: nothing was stored")
    for one in report.changes:
        yield f"{one.name:<16} {one.members:>7,} members  {len(one.added):,} added, {len(one.removed):,} removed"
        for sign, names in (("+", one.added), ("-", one.removed)):
            if names and len(names) < one.members:
                yield f"  {sign} {and_more(names, _MOST_NAMES)}"
    if shared := report.lists.reassigned:
        which = and_more(shared, _MOST_NAMES)
        yield f"{plural(len(shared), 'ticker')} of active securities had a former owner, which is not listed: {which}"
    if names := report.lists.unfetchable:
        which = and_more(names, _MOST_NAMES)
        yield f"{plural(len(names), 'ticker')} not listed, since requests for bars refuse digits, - and _: {which}"
    if rows := report.lists.unusable:
        print_err(f"Warning: {plural(len(rows), 'row')} of the responses cannot be used")
        for line in first_lines([f"  {text}" for text in rows], "rows (--json prints all)", most=_MOST_ROWS):
            print_err(line)
