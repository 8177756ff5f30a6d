"""``verify``: the files against what is claimed, the calendar and sanity."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import choice_options, print_json, print_store, refuse_unknown, store_options, warn_writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_engine.market.series import Dataset
    from data_engine.verify.findings import Finding
    from data_engine.verify.verify import VerificationReport


CONTRADICTION = 5

_SHOWN = 40  # warnings; contradictions are all shown


@click.command()
@click.argument("symbols", nargs=-1, metavar="[SYMBOL ...]")
@choice_options
@click.option("--quick", is_flag=True, help="Read the ends of the files alone: rows, columns, first and last stamp.")
@click.option("--repair", "mend", is_flag=True, help="Set damaged files aside, and claim only what is proven.")
@click.option("--dry-run", is_flag=True, help="With --repair: say what would be done; do nothing.")
@click.option("--wait", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="How long to wait for another writer.")
@store_options
@click.pass_context
def verify(
    context: click.Context,
    symbols: tuple[str, ...],
    timeframe: str | None,
    feed: str | None,
    adjustment: str | None,
    quick: bool,
    mend: bool,
    dry_run: bool,
    wait: float,
    base_path: str | None,
    settings_path: str | None,
    as_json: bool,
) -> None:
    """Hold the files against what is claimed, the exchange's calendar and sanity. Exit 5 on a contradiction."""
    from datetime import UTC, datetime

    from data_engine.errors import InputError
    from data_engine.settings import load_settings
    from data_engine.store.bar_store import BarStore
    from data_engine.store.location import open_file_store
    from data_engine.store.selection import DatasetFilter
    from data_engine.universe.symbol_lists import SymbolLoader
    from data_engine.verify import repair as mending
    from data_engine.verify import verify as verification

    if dry_run and not mend:
        raise InputError("--dry-run goes with --repair: without it, verify changes nothing anyway")
    if quick and mend:
        raise InputError("--quick looks, and --repair mends what a whole look has found: use one of them")
    settings = load_settings(base_path=base_path, settings_path=settings_path)
    storage = BarStore(open_file_store(settings.base_path))
    print_store(settings, storage.files)
    storage.check_exists()
    names = SymbolLoader.from_list(symbols) if symbols else None
    now = datetime.now(UTC)
    repaired, left = False, []
    with ExitStack() as held:
        if mend and not dry_run:
            # Before the first look: what another run has just replaced must not be judged by how it was.
            warn_writer(storage.files)
            held.enter_context(storage.files.lock("run", seconds=wait))
        choice = DatasetFilter.parse(timeframe, feed, adjustment)
        if names is not None:
            refuse_unknown(names, {one.symbol for one in verification.known_series(storage, choice, names)})
        verdict = verification.verify(storage, choice, names, now=now, quick=quick)
        left = verdict.contradictions
        if not as_json:
            for line in _lines(verdict, mend=mend):
                click.echo(line)
        if mend and not dry_run and any(finding.repairable for finding in verdict.findings):
            left = mending.repair(storage, verdict.findings, now=now)
            repaired = True
    commands = _updates(verdict.findings) if repaired else []
    if as_json:
        print_json(
            {
                "series": verdict.series,
                "contradictions": [finding.to_json() for finding in verdict.contradictions],
                "warnings": [finding.to_json() for finding in verdict.warnings],
                "holes": verdict.holes,
                "quick": quick,
                "repaired": repaired,
                "left": [finding.to_json() for finding in left],
                "next": commands,
            }
        )
    else:
        for command in commands:
            click.echo(f"Repaired. `{command}` now asks for what is no longer covered.")
        if repaired and left:
            click.echo(f"{len(left)} contradictions are left for a person to see to; the plan above says how.")
    context.exit(CONTRADICTION if left else 0)


def _lines(verdict: VerificationReport, *, mend: bool) -> list[str]:
    """Return the verdict for people: contradictions, then warnings, then a line of counts."""
    lines = []
    for finding in verdict.contradictions:
        lines.append(str(finding))
        if mend:
            lines.append(f"  {'to be done' if finding.repairable else 'by a person'}: {_plan(finding)}")
    warnings = verdict.warnings
    for finding in warnings[:_SHOWN]:
        lines.append(f"Warning: {finding}")
        if mend and finding.repairable:
            lines.append(f"  to be done: {_plan(finding)}")
    if len(warnings) > _SHOWN:
        lines.append(f"and {len(warnings) - _SHOWN} more warnings (--json prints all)")
    holes = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in verdict.holes.items() if count)
    if holes:
        lines.append(f"Holes: {holes}")
    lines.append(f"{verdict.series:,} series looked at, {len(verdict.contradictions)} contradictions, {len(warnings)} warnings")
    return lines


def _plan(finding: Finding) -> str:
    return finding.remedy.removeprefix("nothing: ")


def _updates(findings: Sequence[Finding]) -> list[str]:
    """Return the commands that ask for what a repair no longer covers: one for each dataset."""
    by_dataset: dict[Dataset, list[str]] = {}
    for finding in findings:
        if finding.series is not None and finding.repairable and (finding.is_contradiction or finding.code == "not_counted"):
            names = by_dataset.setdefault(finding.series.dataset, [])
            if finding.series.symbol not in names:
                names.append(finding.series.symbol)
    return [f"data-engine update{_some(names)}{_options(dataset)}" for dataset, names in by_dataset.items()]


def _some(names: Sequence[str]) -> str:
    """Return symbols for a command line; many of them are all."""
    return "".join(f" {name}" for name in names) if len(names) <= 10 else ""


def _options(dataset: Dataset) -> str:
    feed = "" if dataset.feed.value == "sip" else f" --feed {dataset.feed.value}"
    adjustment = "" if dataset.adjustment.is_raw else f" --adjustment {dataset.adjustment}"
    return f" --timeframe {dataset.timeframe}{adjustment}{feed}"
