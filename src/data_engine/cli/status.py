"""``status``: what a store holds, and what is requested and missing."""

from __future__ import annotations

from collections import Counter
from itertools import chain, islice
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import MOST_LINES, print_err, print_json, refuse_unknown, refuse_unstored, size
from data_engine.cli.exit_codes import FAILED, OK, Command
from data_engine.cli.options import as_stored_on_option, filter_options, symbols_argument, with_any_store
from data_engine.cli.output import print_in_color
from data_engine.cli.values import SESSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from data_engine.ingest.recheck_record import RecheckRecord
    from data_engine.market.series import Dataset, Series
    from data_engine.market.time_range import TimeRange
    from data_engine.store.bar_store import BarStore
    from data_engine.store.selection import DatasetFilter
    from data_engine.verify.status import IndexStatus, SeriesStatus

_MOST_RUNS = 20

_COLORS = {
    **dict.fromkeys(("complete", "done"), "green"),
    **dict.fromkeys(("incomplete", "interrupted", "silent", "unverified"), "yellow"),
    **dict.fromkeys(("failed", "damaged", "stopped"), "red"),
    **dict.fromkeys(("ended", "empty", "filled"), "cyan"),
}

_MOST_RANGES = 3  # missing and not requested ones, per series


@click.command(cls=Command, exits="0 1 2 4 130", partial=True)
@symbols_argument
@click.option("--index", "index_name", metavar="NAME", help="Only this index; also names its members without bars.")
@filter_options
@click.option("--all", "everything", is_flag=True, help="List all series. [default: up to 40 series per dataset]")
@click.option("--session", type=SESSION, metavar="D", help="Exit with 1 unless this session is stored: a gate before trading.")
@click.option(
    "--min-share",
    type=click.FloatRange(0, 1),
    default=0.99,
    show_default=True,
    help="With --session: share of the series that traded lately.",
)
@click.option("--runs", "with_runs", is_flag=True, help="Print the last 20 runs, and nights of which none is recorded.")
@click.option("--digest", "with_digest", is_flag=True, help="Print a digest of all bars, to compare stores. Reads every bar.")
@as_stored_on_option
@with_any_store
@click.pass_context
def status(
    context: click.Context,
    store: BarStore,
    names: list[str] | None,
    datasets: DatasetFilter,
    index_name: str | None,
    everything: bool,
    session: str | None,
    min_share: float,
    with_runs: bool,
    with_digest: bool,
    as_stored_on: str | None,
    as_json: bool,
) -> None:
    """Show stored, requested and missing ranges per series.

    With --runs, print the last runs, and the sessions of the last two weeks after which none is recorded.

    With --session, print how many of the series that had a bar in the ten sessions before hold that session, and exit with 1 if
    their share is too small.
    """
    from datetime import UTC, datetime

    from data_engine.ingest.recheck_record import recheck_record
    from data_engine.market.symbol import ticker_of
    from data_engine.store.history.past import instant_of_files, stored_on
    from data_engine.store.legacy_files import legacy_symbols
    from data_engine.store.selection import DatasetFilter, select_series
    from data_engine.universe.index_store import MetadataStore
    from data_engine.verify.legacy_status import legacy_status
    from data_engine.verify.status import index_status, series_status

    store = stored_on(store, as_stored_on, now=datetime.now(UTC))
    now = instant_of_files(store.files, datetime.now(UTC))
    symbols, changes = names, None
    if index_name is not None:
        changes = MetadataStore(files=store.files).history(index_name)
        tickers = {change.symbol for change in changes}
        every = {one.symbol for one in select_series(store.coverage, datasets, None)}
        symbols = sorted(tickers | {name for name in every if ticker_of(name) in tickers})
    if session is not None or with_runs or with_digest:
        _name_legacy(store, list(islice(select_series(store.coverage, datasets, symbols), MOST_LINES)))
    if session is not None:
        refuse_unstored(store, datasets, names)
        context.exit(_gate(store, datasets, symbols, session, min_share, as_json=as_json))
    if with_runs:
        _show_runs(store, as_json=as_json)
        return
    found = list(series_status(store, datasets, symbols, now=now))
    if names is not None:
        there = {one.series.symbol for one in found}
        refuse_unknown(
            names, there | set(legacy_symbols(store.files, (name for name in names if name not in there))), store=store
        )
    known = [one.series for one in found] if symbols is None and datasets == DatasetFilter() else None
    legacy = legacy_status(store, [one.series for one in found] if everything or names else _listed_first(found), known)
    fields: dict[str, object] = {} if legacy is None else {"legacy": legacy.to_json()}
    lines = _lines(found, everything=everything or names is not None)
    if legacy is not None:
        lines = chain(lines if found else (), legacy.lines())
    if changes is not None:
        from data_engine.corporate_actions.action_store import ActionStore
        from data_engine.universe.member_series import MemberSeries

        ticker_changes = ActionStore(store.files).changes_of
        of_index = index_status(
            changes,
            [one for one in store.coverage.datasets() if one in datasets.fetched],
            found,
            lambda dataset: MemberSeries(store.coverage, (dataset,), ticker_changes, now),
        )
        fields["index"] = {"name": index_name, "datasets": [one.to_json() for one in of_index]}
        lines = chain(_index_lines(str(index_name), of_index), lines)
    if with_digest:
        from data_engine.verify.held_bars import held_bars

        fields["digest"] = held_bars(store, datasets, symbols).digest
        lines = iter([str(fields["digest"])])
    again = recheck_record(store.files).read() if as_stored_on is None else None  # which is of now
    if as_json:
        recheck = None if again is None else again.to_json(datetime.now(UTC))
        print_json({**_fields(store, found), "recheck": recheck, **fields})
        return
    if again is not None and not with_digest:
        lines = chain(lines, _recheck_lines(again))
    for line in lines:
        print_in_color(line, _COLORS)


def _name_legacy(store: BarStore, looked_at: Sequence[Series]) -> None:
    """Print on stderr what the store has of the legacy pipeline: no session, run or digest speaks of these bars."""
    from data_engine.verify.legacy_status import legacy_status

    legacy = legacy_status(store, looked_at)
    for line in legacy.lines() if legacy is not None else ():
        print_err(line)


def _recheck_lines(again: RecheckRecord) -> Iterator[str]:
    """Yield when all that is final will have been fetched again."""
    from datetime import UTC, datetime

    from data_engine.market.time_range import new_york_date
    from data_engine.market.wording import plural

    yield (
        f"Rechecked: last on {new_york_date(again.began)} with {plural(again.requests, 'request')}; with one such run per night, "
        f"everything by {again.all_seen(datetime.now(UTC))} ({plural(again.nights, 'more night')})"
    )


def _is_listed(one: SeriesStatus) -> bool:
    """Tell whether a series is named where there are too many to name all."""
    return bool(one.problem or one.missing or one.ended or one.silent_since or one.coverage.conflicting)


def _listed_first(found: Sequence[SeriesStatus]) -> list[Series]:
    """Return the series whose folders are looked at for files of the legacy pipeline: as many as are listed."""
    return [one.series for one in found[:MOST_LINES]]


def _gate(
    store: BarStore, datasets: DatasetFilter, symbols: Sequence[str] | None, session: str, min_share: float, *, as_json: bool
) -> int:
    """Print how many series hold a session, and return the exit code."""
    from datetime import UTC, datetime

    from data_engine.market.dates import parse_day
    from data_engine.store.history.past import instant_of_files
    from data_engine.verify.session_gate import session_gate

    now = instant_of_files(store.files, datetime.now(UTC))
    gate = session_gate(store, datasets, parse_day(session, "session"), symbols, now=now)
    passed = gate.expected > 0 and gate.share >= min_share
    if as_json:
        print_json({**gate.to_json(), "min_share": min_share, "passed": passed})
        return OK if passed else FAILED
    click.echo(str(gate))
    by_reason: dict[tuple[str, str], list[str]] = {}
    for one in gate.lacking:
        by_reason.setdefault((one.series.dataset.name, one.reason.replace("_", " ")), []).append(one.series.symbol)
    for (dataset, reason), names in by_reason.items():
        click.echo(f"  {dataset}, {reason}: {' '.join(names)}")
    return OK if passed else FAILED


def _show_runs(store: BarStore, *, as_json: bool) -> None:
    """Print the last runs, the latest first, and the nights of which none is recorded."""
    import json
    from datetime import UTC, datetime

    from data_engine.ingest.outcome import duration
    from data_engine.ingest.run_log import RunLog, dump, nights_without
    from data_engine.store.history.past import instant_of_files

    now = instant_of_files(store.files, datetime.now(UTC))
    runs = [run for run in RunLog(store.files).read() if run.began <= now]
    missed = nights_without(runs, now)
    if as_json:
        print_json({"runs": [json.loads(dump(run)) for run in runs], "nights_without": [day.isoformat() for day in missed]})
        return
    if runs:
        click.echo(_run_line("began (UTC)", "command", "state", "new", "revised", "failed", "asked", "time"))
    for run in runs[:_MOST_RUNS]:
        counts = (f"{count:,}" for count in (run.added, run.revised, run.failed, run.requests))
        line = _run_line(f"{run.began:%Y-%m-%d %H:%M}", run.command, run.state, *counts, duration(run.seconds))
        print_in_color(line, _COLORS)
    if not runs:
        click.echo("No run is recorded.")
    for day in missed:
        click.echo(f"No run is recorded after the session of {day}")


def _run_line(began: str, command: str, state: str, *counts: str) -> str:
    """Return a line of the table of runs, of 80 columns at most."""
    added, revised, failed, requests, seconds = counts
    return f"{began:<16} {command:<7} {state:<11} {added:>10} {revised:>7} {failed:>6} {requests:>6} {seconds:>10}"


def _fields(store: BarStore, found: Sequence[SeriesStatus]) -> dict[str, object]:
    """Return the fields of the JSON object, without those of an index and of a digest."""
    return {
        "store": store.files.location,
        "series": [one.to_json() for one in found],
        "bars": sum(one.coverage.bars for one in found),
        "bytes": sum(one.bytes for one in found),
    }


def _index_lines(name: str, of_index: Sequence[IndexStatus]) -> Iterator[str]:
    """Yield the members of an index that have no bars, per dataset."""
    for one in of_index:
        yield f"{name} in {one.dataset.name}: {one.members - len(one.without):,} of {one.members:,} members have bars"
        if one.without:
            yield f"  without: {' '.join(one.without)}"
        if one.former and one.span is not None:
            stored = one.former - len(one.former_without)
            yield f"  of {one.former:,} former members in {one.span}, {stored:,} have bars of their membership"
        if one.former_without:
            yield f"  without: {' '.join(one.former_without)}"


def _lines(found: Sequence[SeriesStatus], *, everything: bool) -> Iterator[str]:
    """Yield a summary per dataset, then its series: all of them if there are few, else the first that need attention."""
    by_dataset: dict[Dataset, list[SeriesStatus]] = {}
    for one in found:
        by_dataset.setdefault(one.series.dataset, []).append(one)
    for dataset, ours in by_dataset.items():
        yield from _dataset_lines(dataset, ours, everything=everything)
    if len(by_dataset) > 1:
        states = Counter(one.state for one in found)
        counted = ", ".join(f"{count} {state}" for state, count in states.items())
        bars, stored = sum(one.coverage.bars for one in found), sum(one.bytes for one in found)
        yield f"In all: {len(found):,} series ({counted}), {bars:,} bars, {size(stored)}"
    if not by_dataset:
        yield "No stored series in the chosen datasets."


def _dataset_lines(dataset: Dataset, ours: Sequence[SeriesStatus], *, everything: bool) -> Iterator[str]:
    states = ", ".join(f"{count} {state}" for state, count in Counter(one.state for one in ours).items())
    bars = sum(one.coverage.bars for one in ours)
    yield f"{dataset.name}: {len(ours):,} series ({states}), {bars:,} bars, {size(sum(one.bytes for one in ours))}"
    listed = ours
    if not everything and len(ours) > MOST_LINES:
        listed = [one for one in ours if _is_listed(one)]
    shown = listed if everything else listed[:MOST_LINES]
    width = max((len(one.series.symbol) for one in shown), default=0)
    for one in shown:
        yield from _series_lines(one, max(width, 8))
    if len(listed) > len(shown):
        yield f"  and {len(listed) - len(shown):,} more that are incomplete, ended or silent (--all lists them)"
    if len(ours) > len(listed):
        yield f"  and {len(ours) - len(listed):,} other series (--all lists them)"


def _series_lines(one: SeriesStatus, width: int) -> Iterator[str]:
    """Yield the line of a series, and its missing ranges and problems below it. Its reach is in days, even if they are parts."""
    from datetime import timedelta

    from data_engine.market.time_range import TimeRange, days_of

    known = one.coverage
    reach = "nothing final"
    if known.covered:
        reach = days_of(TimeRange(known.covered[0].start, known.covered[-1].end))
    elif one.state in ("unverified", "filled") and known.first_bar is not None and known.last_bar is not None:
        reach = f"bars of {days_of(TimeRange(known.first_bar, known.last_bar + timedelta(microseconds=1)))}"
    if known.filled:
        reach += f", from {', '.join(dict.fromkeys(filled.source for filled in known.filled))}"
    yield f"  {one.series.symbol:<{width}} {one.state:<10} {known.bars:>12,} bars  {reach}"
    details = [*_ranges("missing", one.missing), *_ranges("not requested:", one.not_requested)]
    if known.conflicting:
        details.append(f"{known.conflicting:,} bars conflict with Alpaca: `data-engine recheck {one.series.symbol} --accept`")
    if one.ended is not None:
        details.append(f"{one.ended}{_after(one)}")
    elif (last := one.silent_since) is not None:
        details.append(f"no bar after {last}, and the responses since were empty")
    if one.problem is not None:
        details.append(one.problem)
    elif one.missing and known.failure is not None:
        details.append(known.failure.message)
    yield from (f"           {detail}" for detail in details)


def _ranges(label: str, ranges: Sequence[TimeRange]) -> Iterator[str]:
    from data_engine.market.time_range import in_days

    yield from (f"{label} {in_days(one)}" for one in ranges[:_MOST_RANGES])
    if len(ranges) > _MOST_RANGES:
        yield f"{label} {len(ranges) - _MOST_RANGES} more ranges"


def _after(one: SeriesStatus) -> str:
    """Return what to do with the bars of a series after its security left the ticker; empty if there are none."""
    change, last = one.ended, one.coverage.last_bar
    if change is None or last is None or last < change.instant:
        return ""
    return f"; later bars are those of a reassigned ticker: run `data-engine remove {one.series.symbol} --start {change.day}`"
