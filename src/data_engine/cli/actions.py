"""``actions``: splits, dividends, spin-offs and ticker changes, fetched into the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from data_engine.cli.console import first_lines, print_json, refuse_unknown, stop_on_signal, warn_writer
from data_engine.cli.exit_codes import of_failures
from data_engine.cli.local_actions import WithLocalChanges
from data_engine.cli.options import open_store, parse_selection, rate_option, symbols_argument, wait_option, with_settings
from data_engine.cli.values import END, START
from data_engine.store.run_lock import RUN_LOCK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from data_engine.corporate_actions.fetch_actions import ActionsReport
    from data_engine.errors import DamagedFile
    from data_engine.market.time_range import TimeRange
    from data_engine.settings import Settings
    from data_engine.store.bar_store import BarStore


@click.command(cls=WithLocalChanges, exits="0 1 2 3 4 6 7 130", partial=True)
@symbols_argument
@click.option("--index", "index_name", metavar="NAME", help="Only the members of this index.")
@click.option("--start", type=START, metavar="DATE", help="First ex-date, in New York. [default: start of the symbol's bars]")
@click.option("--end", type=END, metavar="DATE", help="Last ex-date, included. [default: today]")
@click.option("--refetch", is_flag=True, help="Fetch everything again, also what is final.")
@click.option("--quiet", is_flag=True, help="Print one summary line and the failures; for cron.")
@rate_option
@wait_option()
@with_settings
@click.pass_context
def actions(
    context: click.Context,
    settings: Settings,
    symbols: tuple[str, ...],
    index_name: str | None,
    start: str | None,
    end: str | None,
    refetch: bool,
    quiet: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Fetch the corporate actions of stored or given symbols.

    Raw bars are adjusted with them when you read the bars. Final answers are not fetched again. `actions set` and `actions drop`
    correct what Alpaca has wrong.
    """
    from datetime import UTC, datetime

    from data_engine.alpaca.client import AlpacaClient
    from data_engine.corporate_actions.action_store import ActionStore
    from data_engine.corporate_actions.fetch_actions import fetch_actions
    from data_engine.ingest.bar_source import check_source
    from data_engine.market.symbol import ticker_of
    from data_engine.universe.index_store import MetadataStore

    store = open_store(settings, quiet=quiet)
    names = parse_selection({"symbols": symbols, "index_name": index_name})["names"]
    if index_name is not None:
        names = list(MetadataStore(files=store.files).members(index_name))
    names = None if names is None else list(dict.fromkeys(map(ticker_of, names)))
    now = datetime.now(UTC)
    requested, damaged = _requested_days(store, names, start, end, now)
    client = AlpacaClient(base_url=settings.data_url, requests_per_minute=settings.requests_per_minute, connections=1)
    check_source(store.files, settings.data_url)
    warn_writer(store.files)
    with client, stop_on_signal(), store.files.lock(RUN_LOCK, seconds=wait):
        report = fetch_actions(ActionStore(store.files), client, requested, now=now, again=refetch)
    report.failed += damaged
    if as_json:
        print_json(report.to_json())
    else:
        for line in _brief(report, store, now) if quiet else _lines(report, requested):
            click.echo(line)
    failed = {symbol for symbol, _, _ in report.failed}
    context.exit(of_failures({code for _, code, _ in report.failed}, all_failed=failed >= set(report.symbols)))


def _requested_days(
    store: BarStore, names: Sequence[str] | None, start: str | None, end: str | None, now: datetime
) -> tuple[dict[str, TimeRange], list[tuple[str, str, str]]]:
    """Return the days to fetch by symbol: without *start*, from the first bar that is stored or requested.

    Beside them, return symbol, code and message of the symbols whose coverage is damaged, so that their start is unknown.

    Raises:
        InputError: If a date cannot be used, nothing is stored, or the start of a symbol is unknown.
        DamagedFile: If the coverage of all symbols is damaged.
    """
    from data_engine.corporate_actions.fetch_actions import whole_days
    from data_engine.errors import InputError
    from data_engine.market.dates import parse_span

    def days(since: datetime | str) -> TimeRange:
        span = parse_span(since, end, now=now).range
        return whole_days(span.start, span.end)

    if names is not None and start is not None:
        return dict.fromkeys(names, days(start)), []
    starts, damaged = _starts(store, names)
    names = sorted({**starts, **damaged}) if names is None else names
    if not names:
        raise InputError("cannot fetch corporate actions: the store has no series; pass SYMBOL and --start")
    if start is not None:
        return dict.fromkeys(names, days(start)), []
    known = [name for name in names if name not in damaged]
    if not known:
        raise damaged[min(damaged)]
    refuse_unknown(known, starts, "pass --start to fetch their corporate actions", store=store)
    failed = [(name, error.code, str(error)) for name, error in sorted(damaged.items())]
    return {name: days(starts[name]) for name in known}, failed


def _starts(store: BarStore, names: Sequence[str] | None) -> tuple[dict[str, datetime], dict[str, DamagedFile]]:
    """Return when the bars of each symbol start, stored or requested, in any dataset; and the symbols that are damaged in all."""
    from data_engine.errors import DamagedFile
    from data_engine.market.symbol import ticker_of
    from data_engine.store.selection import DatasetFilter, select_series

    starts: dict[str, datetime] = {}
    damaged: dict[str, DamagedFile] = {}
    for series in select_series(store.coverage, DatasetFilter(), None):
        if names is not None and ticker_of(series.symbol) not in names:
            continue
        try:
            known = store.coverage.read(series)
        except DamagedFile as error:
            damaged[ticker_of(series.symbol)] = error
            continue
        for first in (known.first_bar, known.wanted[0].start if known.wanted else None):
            if first is not None:
                ticker = ticker_of(series.symbol)
                starts[ticker] = min(first, starts.get(ticker, first))
    return starts, {symbol: error for symbol, error in damaged.items() if symbol not in starts}


def _brief(report: ActionsReport, store: BarStore, now: datetime) -> Iterator[str]:
    """Yield one line for the log of a nightly run, and one per symbol that failed."""
    from data_engine.market.time_range import iso
    from data_engine.market.wording import plural

    counts = f"{sum(report.added.values()):,} new or changed, {len(report.withdrawn):,} removed, {len(report.failed):,} failed"
    requests = plural(report.requests, "request")
    symbols = plural(len(report.symbols), "symbol")
    yield f"{iso(now.replace(microsecond=0))} {store.files.location}: corporate actions of {symbols}: {counts}, {requests}"
    yield from (f"  - {symbol}: {message}" for symbol, _, message in report.failed)


def _lines(report: ActionsReport, requested: dict[str, TimeRange]) -> Iterator[str]:
    """Yield the result as text."""
    from data_engine.corporate_actions.symbol_actions import days
    from data_engine.market.wording import plural

    first = min(days(span)[0] for span in requested.values())
    last = max(days(span)[1] for span in requested.values())
    related = f" (and {', '.join(report.related_symbols)}, the same securities)" if report.related_symbols else ""
    symbols, requests = plural(len(report.symbols), "symbol"), plural(report.requests, "request")
    yield f"Corporate actions of {symbols}{related}, {first} to {last}: {requests}"
    for kind, stored in sorted(report.held.items()):
        yield f"  {kind.replace('_', ' '):<28} {stored:>7,}   {report.added[kind]:,} new or changed"
    if not report.held:
        yield "  none"
    yield from map(str, report.renames)
    yield from report.local
    yield from first_lines([f"Removed, no longer at Alpaca: {one}" for one in report.withdrawn], "removed (--json prints all)")
    if report.failed:
        yield "Failed symbols:"
        yield from (f"  - {symbol}: {message}" for symbol, _, message in report.failed)
