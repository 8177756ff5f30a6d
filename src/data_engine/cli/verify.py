"""``verify``: files, coverage and prices, checked against each other."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import MOST_LINES, print_json, print_text, refuse_unknown, warn_writer
from data_engine.cli.exit_codes import INCONSISTENT, OK, Command
from data_engine.cli.options import filter_options, symbols_argument, wait_option, with_any_store
from data_engine.store.run_lock import RUN_LOCK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from data_engine.market.series import Dataset
    from data_engine.store.bar_store import BarStore
    from data_engine.store.selection import DatasetFilter
    from data_engine.verify.findings import Finding
    from data_engine.verify.verify import VerificationReport


@click.command(cls=Command, exits="0 1 2 4 5 7 130")
@symbols_argument
@filter_options
@click.option(
    "--quick",
    is_flag=True,
    help="Read only file metadata, and small files to compare fingerprints.",
)
@click.option("--repair", "with_repair", is_flag=True, help="Quarantine damaged files; correct the coverage.")
@click.option("--dry-run", is_flag=True, help="With --repair: print what would be done; change nothing.")
@wait_option()
@with_any_store
@click.pass_context
def verify(
    context: click.Context,
    store: BarStore,
    names: list[str] | None,
    datasets: DatasetFilter,
    quick: bool,
    with_repair: bool,
    dry_run: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Check files, coverage and prices.

    Compares the files of the store with their coverage, the exchange calendar and plausible prices. Exits with 5 if they are
    inconsistent.
    """
    from datetime import UTC, datetime

    from data_engine.errors import InputError
    from data_engine.store.legacy_files import refuse_legacy_store

    if dry_run and not with_repair:
        raise InputError("cannot use --dry-run without --repair: `verify` changes nothing by itself; pass both or neither")
    if quick and with_repair:
        raise InputError("cannot use --quick together with --repair: a repair needs a full check; pass one of them")
    now = datetime.now(UTC)
    repairing = with_repair and not dry_run
    with ExitStack() as lock:
        if repairing:
            refuse_legacy_store(store.files)
            # Before the check: a file that another run has just replaced must not be judged by its old content.
            warn_writer(store.files)
            lock.enter_context(store.files.lock(RUN_LOCK, seconds=wait))
            store = store.acting("repair")
        checked = _check(store, datasets, names, now=now, quick=quick)
        if not as_json:
            for line in _lines(checked.report, with_plan=with_repair):
                print_text(line)
        if repairing:
            _repair(store, checked, now=now)
    if as_json:
        print_json(_fields(checked, quick=quick))
    else:
        for command in checked.commands:
            click.echo(f"Repaired. `{command}` fetches what is no longer covered.")
        if checked.repaired and checked.left:
            click.echo(f"{len(checked.left)} inconsistencies are left to repair by hand; see the steps above.")
    context.exit(INCONSISTENT if checked.left else OK)


@dataclass(slots=True)
class _Checked:
    """The result of a check and of the repair that followed.

    Attributes:
        report: The findings.
        left: The inconsistencies that remain.
        repaired: Whether anything was repaired.
        commands: The commands that fetch what is no longer covered.
    """

    report: VerificationReport
    left: list[Finding]
    repaired: bool = False
    commands: list[str] = field(default_factory=list)


def _check(store: BarStore, datasets: DatasetFilter, names: list[str] | None, *, now: datetime, quick: bool) -> _Checked:
    from data_engine.verify import verify as verification

    if names is not None:
        refuse_unknown(names, {one.symbol for one in verification.known_series(store, datasets, names)}, store=store)
    report = verification.verify(store, datasets, names, now=now, quick=quick)
    return _Checked(report, report.inconsistencies)


def _repair(store: BarStore, checked: _Checked, *, now: datetime) -> None:
    """Repair what can be repaired."""
    from data_engine.verify.repair import repair

    findings = checked.report.findings
    if any(finding.repairable for finding in findings):
        checked.left = repair(store, findings, now=now)
        checked.repaired = True
        checked.commands = _updates(findings)


def _fields(checked: _Checked, *, quick: bool) -> dict[str, object]:
    """Return the fields of the JSON object."""
    report = checked.report
    return {
        "series": report.series,
        "inconsistencies": [finding.to_json() for finding in report.inconsistencies],
        "warnings": [finding.to_json() for finding in report.warnings],
        "gaps": report.gaps,
        "quick": quick,
        "repaired": checked.repaired,
        "remaining": [finding.to_json() for finding in checked.left],
        "commands": checked.commands,
    }


def _lines(report: VerificationReport, *, with_plan: bool) -> Iterator[str]:
    """Yield the result as text: inconsistencies, all of them; then warnings; then a line of counts."""
    from data_engine.market.wording import plural

    for finding in report.inconsistencies:
        yield str(finding)
        if with_plan:
            yield f"  {'repair' if finding.repairable else 'by hand'}: {finding.remedy.removeprefix('manual: ')}"
    warnings = report.warnings
    for finding in warnings[:MOST_LINES]:
        yield f"Warning: {finding}"
        if with_plan and finding.repairable:
            yield f"  repair: {finding.remedy}"
    if len(warnings) > MOST_LINES:
        yield f"and {len(warnings) - MOST_LINES} more warnings (--json prints all)"
    gaps = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in report.gaps.items() if count)
    if gaps:
        yield f"Gaps: {gaps}"
    inconsistencies = plural(len(report.inconsistencies), "inconsistency", "inconsistencies")
    yield f"{report.series:,} series checked, {inconsistencies}, {plural(len(warnings), 'warning')}"


def _updates(findings: Sequence[Finding]) -> list[str]:
    """Return the commands that fetch what a repair no longer covers: one per dataset, for all symbols if there are many."""
    from data_engine.market.wording import dataset_options

    by_dataset: dict[Dataset, dict[str, None]] = {}
    for finding in findings:
        if finding.series is not None and not finding.series.dataset.fill and finding.repairable:
            by_dataset.setdefault(finding.series.dataset, {})[finding.series.symbol] = None
    return [
        f"data-engine update{''.join(f' {name}' for name in names) if len(names) <= 10 else ''}{dataset_options(dataset)}"
        for dataset, names in by_dataset.items()
    ]
