"""``export``: bars in the formats of backtest engines, and plain files of a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import print_err, print_json, refuse_unknown
from data_engine.cli.exit_codes import FAILED, Command
from data_engine.cli.options import as_stored_on_option, dry_run_option, open_store, with_settings
from data_engine.cli.values import ADJUSTMENT, END, FEED, START, TIMEFRAME

if TYPE_CHECKING:
    from data_engine.export.engine_export import EngineExport
    from data_engine.settings import Settings


@click.command(cls=Command, exits="0 1 2 4 7 130", partial=True)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--to",
    required=True,
    type=click.Choice(["nautilus", "parquet", "qlib", "zipline"]),
    help="Engine whose format to write, or parquet.",
)
@click.option("--symbols", multiple=True, metavar="LIST", help="Symbols, separated by commas. [default: all]")
@click.option("--index", metavar="NAME", help="Members of this stored index, on the days of their membership.")
@click.option("--start", type=START, metavar="DATE", help="First day or instant. [default: first bar]")
@click.option("--end", type=END, metavar="DATE", help="Last day, included, or instant. [default: now]")
@as_stored_on_option
@click.option("--timeframe", type=TIMEFRAME, metavar="T", help="Length of a bar, such as 1Day. [default: 1Min; parquet: all]")
@click.option("--feed", type=FEED, metavar="F", help="Feed, such as iex. [default: sip; parquet: all] [env: DATA_ENGINE_FEED]")
@click.option("--adjustment", type=ADJUSTMENT, metavar="A", help="Adjustment, such as raw or split. [default: raw; parquet: all]")
@click.option("--session", type=click.Choice(["all", "extended", "regular"]), help="Hours of the bars. [default: all]")
@click.option("--resample", metavar="T", help="Compute longer bars from minutes, such as 5Min or 1Day.")
@click.option("--venue", metavar="NAME", help="Venue in the instrument names of nautilus. [default: ALPACA]")
@click.option("--lossy", is_flag=True, help="Round or leave out what the format cannot hold. [default: refuse]")
@click.option("--strict", is_flag=True, help="Write nothing and exit with 1 if bars are missing in the store.")
@dry_run_option
@with_settings
@click.pass_context
def export(
    context: click.Context,
    settings: Settings,
    folder: Path,
    to: str,
    symbols: tuple[str, ...],
    index: str | None,
    start: str | None,
    end: str | None,
    as_stored_on: str | None,
    timeframe: str | None,
    feed: str | None,
    adjustment: str | None,
    session: str | None,
    resample: str | None,
    venue: str | None,
    lossy: bool,
    strict: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write bars for a backtest engine, or plain files.

    DIR becomes a data folder of qlib, a Parquet catalog of NautilusTrader, or what a bundle of zipline-reloaded ingests. A
    second export to the same folder writes only months (of daily bars: years) with new or changed bars.

    What the format cannot hold, such as fractional volumes, is printed before anything is written, and refused without --lossy.

    With parquet, DIR becomes a store: the same files, byte for byte, with coverage, corporate actions and lists. --start and
    --end choose whole files, without coverage. A second export writes only files that differ; if DIR has files that the export
    does not have, nothing is written.
    """
    from datetime import UTC, datetime

    from data_engine.cli.state_export import export_state
    from data_engine.errors import InputError
    from data_engine.export.engine_export import EngineExport, ExportCall
    from data_engine.read.bar_query import ReadOptions
    from data_engine.read.parquet_storage import ParquetStorage
    from data_engine.store.history.past import stored_on
    from data_engine.store.selection import DatasetFilter

    if symbols and index is not None:
        raise InputError("cannot use --symbols together with --index; pass one of them")
    store = open_store(settings)
    names = [name for part in symbols for name in part.replace(",", " ").split()] or None
    if to == "parquet":
        engines = {"--session": session, "--resample": resample, "--venue": venue, "--lossy": lossy, "--strict": strict}
        if refused_options := [name for name, value in engines.items() if value]:
            raise InputError(f"cannot use {refused_options[0]} with --to parquet: files are exported as they are; omit it")
        datasets = DatasetFilter.parse(timeframe, feed, adjustment)
        export_state(
            store, folder, names, index, start, end, datasets, as_stored_on=as_stored_on, dry_run=dry_run, as_json=as_json
        )
        return
    options = ReadOptions(timeframe=timeframe or "1Min", feed=feed if feed is not None else settings.feed, adjustment=adjustment)
    if session is not None:
        options["session"] = session  # type: ignore[typeddict-item] # click has checked it
    options["resample"], options["index"] = resample, index
    now = datetime.now(UTC)
    past = stored_on(store, as_stored_on, now=now)
    if names is not None:
        known = {symbol for dataset in past.coverage.datasets() for symbol in past.symbols(dataset)}
        refuse_unknown([name.upper() for name in names], known, store=past)
    call = ExportCall(to, folder, names, start, end, options, venue or "ALPACA")
    made = EngineExport(ParquetStorage(files=past.files), call, now=now, store_folder=store.files.folder)
    refused = _refusal(made, to, lossy=lossy, strict=strict)
    _tell(made, to, lossy=lossy)
    if refused is None and not dry_run:
        made.run()
    if as_json:
        fields = {"format": to, "folder": str(folder), "missing": made.missing, "refused": refused, "dry_run": dry_run}
        print_json({**fields, **made.plan.to_json()})
    elif refused is None:
        click.echo(f"{folder}  {_counts(made)}")
    if refused is not None:
        if not as_json:
            print_err(f"Error: {refused}")
        context.exit(FAILED)


def _tell(made: EngineExport, to: str, *, lossy: bool) -> None:
    """Print what the store lacks and what the format cannot hold, on stderr, before anything is written."""
    from data_engine.market.bars import VALUES

    for note in made.notes:
        print_err(f"Warning: {note}")
    if made.missing is not None:
        print_err(f"Warning: {made.missing}")
    if absent := [name for name in VALUES if name not in made.columns]:
        print_err(f"Note: {to} has no {' and no '.join(absent)}; not exported")
    for line in made.plan.losses.lines():
        print_err(f"{'Note' if lossy else 'Cannot hold'}: {line}")


def _refusal(made: EngineExport, to: str, *, lossy: bool, strict: bool) -> str | None:
    """Return why nothing is written, or None."""
    if strict and made.missing is not None:
        return "cannot export: bars are missing in the store; fetch them, or omit --strict"
    if made.plan.losses.found and not lossy:
        return f"cannot export to {to} without loss: see above; pass --lossy to accept that, or a narrower --session"
    return None


def _counts(made: EngineExport) -> str:
    from data_engine.market.wording import plural

    plan = made.plan.to_json()
    units = plural(int(str(plan["written_units"])), "month or year", "months or years")
    return f"{plural(int(str(plan['symbols'])), 'symbol')}, {plan['bars']:,} bars; wrote {plan['written_bars']:,} bars in {units}"
