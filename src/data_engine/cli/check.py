"""``verify``: the files against what is claimed."""

from __future__ import annotations

from contextlib import ExitStack

import click

from data_engine.cli.console import choice_options, name_store, print_json, store_options

CONTRADICTION = 5


@click.command()
@click.argument("symbols", nargs=-1, metavar="[SYMBOL ...]")
@choice_options
@click.option("--repair", "mend", is_flag=True, help="Take damaged files out, and claim only what is proven.")
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
    mend: bool,
    dry_run: bool,
    wait: float,
    base_path: str | None,
    settings_path: str | None,
    as_json: bool,
) -> None:
    """Recompute what is held from the files, and compare it with what is claimed. Exit 5 on a contradiction."""
    from data_engine.errors import InputError
    from data_engine.settings import load_settings
    from data_engine.storage import ParquetStorage
    from data_engine.symbols import SymbolLoader
    from data_engine.verification import Finding, repair
    from data_engine.verification import verify as examined
    from data_engine.wishes import Choice

    if dry_run and not mend:
        raise InputError("--dry-run goes with --repair: without it, verify changes nothing anyway")
    settings = load_settings(base_path=base_path, settings_path=settings_path)
    storage = ParquetStorage(settings.base_path)
    name_store(settings, storage.files)
    storage.check_exists()
    names = SymbolLoader.from_list(symbols) if symbols else None
    looked_at, bad, repaired = 0, [], False
    with ExitStack() as held:
        if mend and not dry_run:
            # Before the first look: what another run has just replaced must not be judged by how it was.
            held.enter_context(storage.files.hold("run", seconds=wait))
            storage.files.clean()
        for series, findings in examined(storage, Choice.parse(timeframe, feed, adjustment), names):
            looked_at += 1
            if findings:
                bad.append((series, findings))
                if mend and not dry_run:
                    repair(storage, series, findings)
                    repaired = True

    def shown(finding: Finding) -> dict[str, str]:
        series = finding.series
        return {
            "dataset": series.dataset.name,
            "symbol": series.symbol,
            "code": finding.code,
            "message": finding.message,
            "remedy": finding.remedy,
        }

    every = [finding for _, findings in bad for finding in findings]
    if as_json:
        print_json({"series": looked_at, "contradictions": [shown(finding) for finding in every], "repaired": repaired})
    else:
        for finding in every:
            click.echo(f"{finding.series}: {finding.message}")
            if mend:
                click.echo(f"  {'repaired' if repaired else 'would be repaired'}: {finding.remedy}")
        click.echo(f"{looked_at:,} series looked at, {len(every)} contradictions" + (", repaired" if repaired else ""))
        if repaired:
            click.echo("`data-engine update` now asks for what is no longer covered.")
    context.exit(CONTRADICTION if every and not repaired else 0)
