"""``snapshot``: names for what a store held at an instant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from data_engine.cli.console import print_err, print_json, warn_writer
from data_engine.cli.exit_codes import INCONSISTENT, OK, Group
from data_engine.cli.options import wait_option, with_store
from data_engine.store.run_lock import RUN_LOCK

if TYPE_CHECKING:
    from data_engine.store.bar_store import BarStore
    from data_engine.store.history.snapshots import Snapshot


@click.group(cls=Group, exits="0 1 2 4 5 7 130")
def snapshot() -> None:
    """Name what the store holds now, and read it later.

    --as-stored-on takes the name of a snapshot wherever it takes an instant.
    """


@snapshot.command(exits="0 1 2 4 7 130")
@click.argument("name", metavar="NAME")
@wait_option()
@with_store
def create(store: BarStore, name: str, wait: float, as_json: bool) -> None:
    """Name what the store holds now. Reads every bar.

    NAME has up to 100 letters, digits and . _ - and is no date. An existing name is refused. The digest is that of `data-engine
    status --digest`. Other runs wait for this one. In a bucket, it exits with 7 while a change may still be carried out.
    """
    from datetime import UTC, datetime

    from data_engine.store.history.past import stored_on
    from data_engine.store.history.snapshots import Snapshot, Snapshots, settled_instant
    from data_engine.store.selection import DatasetFilter
    from data_engine.verify.held_bars import held_bars

    snapshots = Snapshots(store.files)
    snapshots.check_new(name)
    warn_writer(store.files)
    with store.files.lock(RUN_LOCK, seconds=wait):
        instant = settled_instant(store.files)
        held = held_bars(stored_on(store, instant, now=max(instant, datetime.now(UTC))), DatasetFilter())
        made = Snapshot.of(name, instant, held.digest, held.bars, held.series)
        snapshots.write(made)
    if as_json:
        print_json(made.to_json())
        return
    click.echo(_line(made))


@snapshot.command("list", exits="0 1 2 4 130")
@with_store
def list_snapshots(store: BarStore, as_json: bool) -> None:
    """List the snapshots, the earliest first.

    A snapshot can be read as long as the history of the store reaches back to its instant.
    """
    from data_engine.store.history.snapshots import Snapshots
    from data_engine.store.history.store_history import StoreHistory

    found, begins = Snapshots(store.files).all(), StoreHistory(store.files).begins
    readable = [begins is not None and one.instant >= begins for one in found]
    if as_json:
        listed = [{**one.to_json(), "readable": can} for one, can in zip(found, readable, strict=True)]
        print_json({"snapshots": listed})
        return
    for one, can in zip(found, readable, strict=True):
        click.echo(_line(one) + ("" if can else "; cannot be read any more: the history of the store begins later"))
    if not found:
        click.echo("No snapshot; `data-engine snapshot create NAME` makes one.")


@snapshot.command(exits="0 1 2 4 5 130")
@click.argument("name", metavar="[NAME]", required=False)
@with_store
@click.pass_context
def verify(context: click.Context, store: BarStore, name: str | None, as_json: bool) -> None:
    """Recompute the digest of a snapshot, or of all.

    Exits with 5 if one differs, else with 4 if one cannot be read. Works on a copy of the store on another machine.
    """
    from data_engine.errors import StoreError
    from data_engine.store.history.snapshots import Snapshots

    snapshots = Snapshots(store.files)
    chosen = [snapshots.read(name)] if name is not None else snapshots.all()
    results = [_verified(store, one, as_json=as_json) for one in chosen]
    if as_json:
        print_json({"snapshots": results})
    elif not chosen:
        click.echo("No snapshot; `data-engine snapshot create NAME` makes one.")
    states = {result["state"] for result in results}
    context.exit(INCONSISTENT if "differs" in states else StoreError.exit_code if "unreadable" in states else OK)


def _verified(store: BarStore, made: Snapshot, *, as_json: bool) -> dict[str, Any]:
    """Recompute the digest of a snapshot, print how it compares, and return that as JSON."""
    from datetime import UTC, datetime

    from data_engine.errors import InputError, StoreError
    from data_engine.store.history.past import stored_on
    from data_engine.store.selection import DatasetFilter
    from data_engine.verify.held_bars import held_bars

    fields = made.to_json()
    try:
        past = stored_on(store, made.instant, now=max(made.instant, datetime.now(UTC)))
        held = held_bars(past, DatasetFilter())
    except (InputError, StoreError) as error:
        print_err(f"Error: {made.name}: {error}")
        return {**fields, "state": "unreadable", "error": str(error)}
    same = held.digest == made.digest
    if not as_json:
        what = "" if same else f": now {held.digest} of {held.bars:,} bars"
        click.echo(f"{made.name}: {'matches' if same else 'differs'}{what}")
    return {**fields, "state": "matches" if same else "differs", "found": held.digest, "found_bars": held.bars}


def _line(made: Snapshot) -> str:
    from data_engine.market.time_range import iso
    from data_engine.market.wording import plural

    return f"{made.name}: {iso(made.instant)}, {plural(made.bars, 'bar')} of {made.series:,} series, digest {made.digest}"
