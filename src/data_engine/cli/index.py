"""``index``: named lists, and what they were on any day."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from data_engine.cli.console import print_err, print_json, print_store, store_options, warn_writer

if TYPE_CHECKING:
    from data_engine.store.file_store import FileStore
    from data_engine.universe.index_store import MetadataStore


_SHOWN = 20  # warnings


@click.group()
def index() -> None:
    """Keep named lists of symbols, and what they were on any day."""


@index.command("import")
@click.argument("name", metavar="NAME")
@click.option("--changes", multiple=True, metavar="FILE", help="Who came and who left, and when. May be given several times.")
@click.option("--members", metavar="FILE", help="The members on one day. Default: the stored list, if --changes has none.")
@click.option("--as-of", metavar="DATE", help="The day of --members. Default: what it says, else after the last change.")
@click.option("--column", metavar="NAME", help="The column of --members that holds the symbols.")
@click.option("--since", metavar="DATE", help="From when on the changes are complete. Default: the first of them.")
@click.option("--force", is_flag=True, help="Take it although much does not fit, or much of the stored list would go.")
@click.option("--wait", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="How long to wait for another writer.")
@store_options
def bring_past(
    name: str,
    changes: tuple[str, ...],
    members: str | None,
    as_of: str | None,
    column: str | None,
    since: str | None,
    force: bool,
    wait: float,
    base_path: str | None,
    settings_path: str | None,
    as_json: bool,
) -> None:
    """Make the past of an index of dated changes.

    FILE has the columns date,action,symbol or date,add,remove or date,symbol, or is YAML by the year. Changes that do not fit the
    list are named, and passed over.
    """
    lists, files = _open(base_path, settings_path)
    warn_writer(files)
    with files.lock("run", seconds=wait):
        made = lists.import_history(name, changes, members=members, as_of=as_of, since=since, column=column, force=force)
    if as_json:
        print_json(
            {
                "index": made.name,
                "known_since": made.since,
                "last_change": made.last_change,
                "members": made.members,
                "warnings": list(made.warnings),
                "to_come": made.to_come,
            }
        )
    for text in made.warnings[:_SHOWN]:
        print_err(f"Warning: {text}")
    if len(made.warnings) > _SHOWN:
        print_err(f"and {len(made.warnings) - _SHOWN} more warnings (--json prints all)")
    if made.to_come:
        print_err(f"{made.to_come} changes are of days to come, and were left out; import the file again then")
    if not as_json:
        click.echo(f"Index {made.name}: known from {made.since} on, last change {made.last_change}, {made.members:,} members now")


@index.command("show")
@click.argument("name", metavar="NAME")
@click.option("--on", metavar="DATE", help="As it was at the end of this day (New York). Default: as it is now.")
@store_options
def show_members(name: str, on: str | None, base_path: str | None, settings_path: str | None, as_json: bool) -> None:
    """Print the members of an index, as it is or as it was on a day, and the day each was added."""
    lists, _ = _open(base_path, settings_path)
    members = lists.members(name, on)
    events = lists.history(name)
    if as_json:
        listed = [{"symbol": symbol, "added_date": day} for symbol, day in members.items()]
        print_json({"index": name, "on": on, "known_since": events[0].day if events else None, "members": listed})
        return
    print_err(
        f"Index {name}{f' on {on}' if on else ''}: {len(members):,} members, known since {events[0].day if events else 'no day'}"
    )
    for symbol, day in members.items():
        click.echo(f"{symbol:<8} {day}")


@index.command("list")
@store_options
def list_names(base_path: str | None, settings_path: str | None, as_json: bool) -> None:
    """Name the indices there are, with their members and since when they are known."""
    lists, _ = _open(base_path, settings_path)
    found = [(name, lists.members(name), lists.history(name)) for name in lists.names()]
    if as_json:
        fields = [
            {
                "index": name,
                "members": len(members),
                "known_since": events[0].day if events else None,
                "last_change": events[-1].day if events else None,
            }
            for name, members, events in found
        ]
        print_json({"indices": fields})
        return
    for name, members, events in found:
        known = f"known since {events[0].day}, last change {events[-1].day}" if events else "empty"
        click.echo(f"{name:<24} {len(members):>6,} members  {known}")
    if not found:
        click.echo("No index is stored yet; `data-engine ingest --csv FILE --index NAME` stores one.")


def _open(base_path: str | None, settings_path: str | None) -> tuple[MetadataStore, FileStore]:
    """Return the lists of a store that there is."""
    from data_engine.settings import load_settings
    from data_engine.store.bar_store import BarStore
    from data_engine.store.location import open_file_store
    from data_engine.universe.index_store import MetadataStore

    settings = load_settings(base_path=base_path, settings_path=settings_path)
    storage = BarStore(open_file_store(settings.base_path))
    print_store(settings, storage.files)
    storage.check_exists()
    return MetadataStore(files=storage.files), storage.files
