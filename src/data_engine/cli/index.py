"""``index``: named lists of symbols, and their members on any day."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from data_engine.cli.console import first_lines, print_err, print_json, warn_writer
from data_engine.cli.exit_codes import Group
from data_engine.cli.options import wait_option, with_any_store
from data_engine.cli.values import AS_OF, ON, SINCE
from data_engine.store.run_lock import RUN_LOCK

if TYPE_CHECKING:
    from data_engine.store.bar_store import BarStore


@click.group(cls=Group, exits="0 1 2 4 7 130")
def index() -> None:
    """Store lists of symbols and their past members."""


@index.command("import", exits="0 1 2 4 7 130")
@click.argument("name", metavar="NAME")
@click.option("--changes", multiple=True, metavar="FILE", help="File of dated changes. May be given several times.")
@click.option("--members", metavar="FILE", help="File of the members on one day. [default: stored list, or changes]")
@click.option(
    "--as-of", type=AS_OF, metavar="DATE", help="Day of --members. [default: from the file, else after the last change]"
)
@click.option("--column", metavar="NAME", help="Column of --members with the symbols.")
@click.option("--since", type=SINCE, metavar="DATE", help="First day of complete changes. [default: first change]")
@click.option("--force", is_flag=True, help="Accept many unusable changes, or a large loss of members.")
@wait_option()
@with_any_store
def import_index(
    store: BarStore,
    name: str,
    changes: tuple[str, ...],
    members: str | None,
    as_of: str | None,
    column: str | None,
    since: str | None,
    force: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Import the past of an index from dated changes.

    FILE has the columns date,action,symbol or date,add,remove or date,symbol, or is YAML by year. Changes that do not fit the
    list are reported and skipped.
    """
    from data_engine.universe.index_store import MetadataStore

    warn_writer(store.files)
    with store.files.lock(RUN_LOCK, seconds=wait):
        imported = MetadataStore(files=store.files).import_history(
            name, changes, members=members, as_of=as_of, since=since, column=column, force=force
        )
    if as_json:
        print_json(
            {
                "index": imported.name,
                "known_since": imported.since,
                "last_change": imported.last_change,
                "members": imported.members,
                "warnings": list(imported.warnings),
                "to_come": imported.to_come,
            }
        )
    for line in first_lines([f"Warning: {text}" for text in imported.warnings], "warnings (--json prints all)", most=20):
        print_err(line)
    if imported.to_come:
        print_err(f"Skipped {imported.to_come} changes dated in the future; import the file again after their dates")
    if not as_json:
        known = f"known since {imported.since}, last change {imported.last_change}"
        click.echo(f"Index {imported.name}: {known}, {imported.members:,} members now")


@index.command("show", exits="0 1 2 4 130")
@click.argument("name", metavar="NAME")
@click.option("--on", type=ON, metavar="DATE", help="Day in New York whose members are printed. [default: now]")
@with_any_store
def show_members(store: BarStore, name: str, on: str | None, as_json: bool) -> None:
    """Print the members of an index, now or on a day."""
    from data_engine.universe.index_store import MetadataStore

    lists = MetadataStore(files=store.files)
    members = lists.members(name, on)
    events = lists.history(name)
    since = events[0].day if events else None
    if as_json:
        listed = [{"symbol": symbol, "added_date": day} for symbol, day in members.items()]
        print_json({"index": name, "on": on, "known_since": since, "members": listed})
        return
    print_err(f"Index {name}{f' on {on}' if on else ''}: {len(members):,} members, known since {since or 'no day'}")
    for symbol, day in members.items():
        click.echo(f"{symbol:<8} {day}")


@index.command("list", exits="0 1 2 4 130")
@with_any_store
def list_names(store: BarStore, as_json: bool) -> None:
    """List the indices with their number of members."""
    from data_engine.universe.index_store import MetadataStore

    lists = MetadataStore(files=store.files)
    found = []
    for name in lists.names():
        events = lists.history(name)
        first, last = (events[0].day, events[-1].day) if events else (None, None)
        found.append((name, len(lists.members(name)), first, last))
    if as_json:
        fields = ("index", "members", "known_since", "last_change")
        print_json({"indices": [dict(zip(fields, values, strict=True)) for values in found]})
        return
    for name, members, first, last in found:
        known = f"known since {first}, last change {last}" if first else "empty"
        click.echo(f"{name:<24} {members:>6,} members  {known}")
    if not found:
        click.echo("No index is stored; `data-engine ingest --csv FILE --index NAME` stores one.")
