"""``actions``: splits, dividends, spin-offs and name changes, brought into the store's metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from data_engine.cli.console import number, print_json, print_store, refuse_unknown, stop_on_signal, store_options, warn_writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from data_engine.corporate_actions.fetch_actions import ActionsReport
    from data_engine.errors import DamagedFile
    from data_engine.market.time_range import TimeRange
    from data_engine.store.bar_store import BarStore


_SHOWN = 40


@click.command()
@click.argument("symbols", nargs=-1, metavar="[SYMBOL ...]")
@click.option("--index", "index_name", metavar="NAME", help="Those of the members of this list.")
@click.option("--start", metavar="DATE", help="First ex-date (New York). Default: where the symbol's bars start.")
@click.option("--end", metavar="DATE", help="Last ex-date, included. Default: today.")
@click.option("--refetch", is_flag=True, help="Ask for everything again, also what can no longer change.")
@click.option("--requests-per-minute", metavar="N", help="Send no more than this, whatever the account allows.")
@click.option("--wait", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="How long to wait for another writer.")
@store_options
@click.pass_context
def actions(
    context: click.Context,
    symbols: tuple[str, ...],
    index_name: str | None,
    start: str | None,
    end: str | None,
    refetch: bool,
    requests_per_minute: str | None,
    wait: float,
    base_path: str | None,
    settings_path: str | None,
    as_json: bool,
) -> None:
    """Bring the corporate actions of these symbols, or of all stored ones, into the store.

    Raw bars are adjusted with them as they are read. What can no longer change is not asked for again.
    """
    from datetime import UTC, datetime

    from data_engine.alpaca.client import AlpacaClient
    from data_engine.corporate_actions.action_store import ActionStore
    from data_engine.corporate_actions.fetch_actions import gather
    from data_engine.errors import InputError
    from data_engine.settings import load_settings
    from data_engine.store.bar_store import BarStore
    from data_engine.store.location import open_file_store
    from data_engine.universe.index_store import MetadataStore
    from data_engine.universe.symbol_lists import SymbolLoader

    if symbols and index_name is not None:
        raise InputError("name symbols or --index, not both")
    limit = number(requests_per_minute, "--requests-per-minute")
    settings = load_settings(base_path=base_path, settings_path=settings_path, requests_per_minute=limit)
    storage = BarStore(open_file_store(settings.base_path))
    print_store(settings, storage.files)
    storage.check_exists()
    names = SymbolLoader.from_list(symbols) if symbols else None
    if index_name is not None:
        names = list(MetadataStore(files=storage.files).members(index_name))
    now = datetime.now(UTC)
    wanted, damaged = _wanted(storage, names, start, end, now)
    client = AlpacaClient(base_url=settings.data_url, requests_per_minute=settings.requests_per_minute, connections=1)
    warn_writer(storage.files)
    with client, stop_on_signal(), storage.files.lock("run", seconds=wait):
        made = gather(ActionStore(storage.files), client, wanted, now=now, again=refetch)
    made.failed += damaged
    if as_json:
        print_json(made.to_json())
    else:
        for line in _lines(made, wanted):
            click.echo(line)
    context.exit(_exit_code(made))


def _wanted(
    storage: BarStore, names: Sequence[str] | None, start: str | None, end: str | None, now: datetime
) -> tuple[dict[str, TimeRange], list[tuple[str, str, str]]]:
    """Return the days that are asked about, by symbol: from the first bar on that is stored or wanted, unless *start* says.

    Beside them, symbol, code and message of stored ones of which that is not known, since their coverage cannot be read.

    Raises:
        InputError: a date cannot be read, nothing is stored, or where a symbol starts is not known.
        DamagedFile: that is so of all symbols.
    """
    from data_engine.corporate_actions.fetch_actions import whole_days
    from data_engine.errors import InputError
    from data_engine.market.dates import parse_span

    starts, damaged = ({}, {}) if names is not None and start is not None else _starts(storage, names)
    if names is None:
        names = sorted({**starts, **damaged})
        if not names:
            raise InputError("no series is in the store yet: name symbols, and --start")
    failed = [(name, error.code, str(error)) for name, error in sorted(damaged.items()) if start is None]
    if failed:
        names = [name for name in names if name not in damaged]
        if not names:
            raise damaged[failed[0][0]]
    if start is None:
        refuse_unknown(names, starts, "not in the store; say from when on, with --start")
    spans = {name: parse_span(starts[name] if start is None else start, end, now=now).range for name in names}
    return {name: whole_days(span.start, span.end) for name, span in spans.items()}, failed


def _starts(storage: BarStore, names: Sequence[str] | None) -> tuple[dict[str, datetime], dict[str, DamagedFile]]:
    """Return from when on each stored symbol has bars, or is meant to have some, in any dataset; and of whom nothing is known."""
    from data_engine.errors import DamagedFile
    from data_engine.store.selection import DatasetFilter, select_series

    starts: dict[str, datetime] = {}
    damaged: dict[str, DamagedFile] = {}
    for series in select_series(storage.coverage, DatasetFilter(), names):
        try:
            known = storage.coverage.read(series)
        except DamagedFile as error:
            damaged[series.symbol] = error  # another dataset may know
            continue
        for first in (known.first_bar, known.wanted[0].start if known.wanted else None):
            if first is not None:
                starts[series.symbol] = min(first, starts.get(series.symbol, first))
    return starts, {symbol: error for symbol, error in damaged.items() if symbol not in starts}


def _exit_code(made: ActionsReport) -> int:
    from data_engine.errors import SourceUnavailable

    lost = {symbol for symbol, _, _ in made.failed}
    if lost >= set(made.symbols) and {code for _, code, _ in made.failed} == {SourceUnavailable.code}:
        return SourceUnavailable.exit_code
    return 1 if made.failed else 0


def _lines(made: ActionsReport, wanted: dict[str, TimeRange]) -> Iterator[str]:
    """Yield what came, for people."""
    from data_engine.corporate_actions.symbol_actions import days

    first = min(days(span)[0] for span in wanted.values())
    last = max(days(span)[1] for span in wanted.values())
    related = f" (and {', '.join(made.related_symbols)}, the same securities)" if made.related_symbols else ""
    count = f"{len(made.symbols):,} symbol{'s' if len(made.symbols) != 1 else ''}"
    answers = f"{made.requests:,} request{'s' if made.requests != 1 else ''}"
    yield f"Corporate actions of {count}{related}, {first} to {last}: {answers}"
    for kind, held in sorted(made.held.items()):
        yield f"  {kind.replace('_', ' '):<28} {held:>7,}   {made.added[kind]:,} new or changed"
    if not made.held:
        yield "  none"
    for rename in made.renames:
        yield str(rename)
    for action in made.withdrawn[:_SHOWN]:
        yield f"No longer at Alpaca, and taken out: {action}"
    if len(made.withdrawn) > _SHOWN:
        yield f"and {len(made.withdrawn) - _SHOWN} more that are no longer at Alpaca (--json prints all)"
    if made.failed:
        yield "Failed symbols:"
        for symbol, _, message in made.failed:
            yield f"  - {symbol}: {message}"
