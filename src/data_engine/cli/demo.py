"""``demo``: an ingestion without an account."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import print_store, progress_for, size, stop_on_signal
from data_engine.cli.exit_codes import Command
from data_engine.cli.options import complete_folder
from data_engine.cli.run_output import show

if TYPE_CHECKING:
    from data_engine.corporate_actions.fetch_actions import ActionsReport
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.market.time_range import TimeRange
    from data_engine.read.parquet_storage import ParquetStorage
    from data_engine.settings import Settings


_INDEX, _KNOWN_SINCE = "dow30", "2020-08-31"

_START, _END = "2024-04-01", "2024-06-30"

_QUERIES = (
    (
        "The five busiest tickers of the quarter, by dollars traded",
        """SELECT symbol, count(*) AS bars,
       round(sum(volume * vwap) / 1e9, 1) AS billions
FROM bars_1min
GROUP BY symbol ORDER BY billions DESC LIMIT 5""",
    ),
    (
        "AAPL's first regular half hour of June, in 5-minute bars",
        """SELECT time_bucket(INTERVAL 5 minutes, timestamp) AS five_minutes,
       first(open ORDER BY timestamp) AS open, max(high) AS high,
       min(low) AS low, last(close ORDER BY timestamp) AS close
FROM bars_1min
WHERE symbol = 'AAPL' AND timestamp >= '2024-06-03 13:30:00+00'
  AND timestamp < '2024-06-03 14:00:00+00'
GROUP BY five_minutes ORDER BY five_minutes""",
    ),
)


@click.command(cls=Command, exits="0 1 2 4 7 130")
@click.option(
    "--base-path",
    metavar="DIR",
    default="demo_data",
    show_default=True,
    shell_complete=complete_folder,
    help="Directory of the demo store.",
)
def demo(base_path: str) -> None:
    """Ingest simulated bars without an account.

    Ingests three months of minute bars of the Dow 30 and their corporate actions from a simulated market, queries them, and
    writes a report in one HTML file.
    """
    from data_engine.errors import InputError
    from data_engine.ingest.bar_source import DEMO
    from data_engine.read.duckdb_views import connect, run
    from data_engine.read.parquet_storage import ParquetStorage
    from data_engine.settings import load_settings
    from data_engine.store.location import open_file_store

    settings = load_settings(base_path=base_path)
    storage = ParquetStorage(files=open_file_store(settings.base_path))
    if storage.bars.exists() and storage.files.get(DEMO) is None:
        raise InputError(
            f"cannot use store {storage.files.location}: `data-engine demo` did not make it, and its simulated bars "
            "must not meet others; pass another directory with --base-path"
        )
    storage.files.update(DEMO, lambda _: b"The bars of this store are simulated. `data-engine demo` made it.\n")
    with _simulated(settings, storage) as pipeline:
        _ingest(pipeline)

    click.echo(f"\nOn disk, in {storage.files.location}:")
    for line in _tree(storage):
        click.echo(f"  {line}")
    with connect(storage.bars) as connection:
        for title, sql in _QUERIES:
            click.echo(f"\n{title}:\n\n{sql}\n\n{run(connection, sql)}")
    click.echo("Reading every bar again for the report...")
    path, written = _report(storage)
    click.echo(f"{path}  {size(written)}; open it in a browser\n")
    program = _program()
    click.echo(f'Next:\n  {program} status --base-path {base_path}\n  {program} query --base-path {base_path} "SELECT ..."')


@contextmanager
def _simulated(settings: Settings, storage: ParquetStorage) -> Iterator[IngestionPipeline]:
    """Start a simulated market, and yield a pipeline that ingests from it."""
    from data_engine.alpaca.client import AlpacaClient
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.sandbox import Sandbox, SimulatedMarket

    with Sandbox(SimulatedMarket()) as server, stop_on_signal(), AlpacaClient("demo", "demo", base_url=server.url) as client:
        print_store(settings, storage.files, "a SIMULATED market: none of these prices is real")
        yield IngestionPipeline(settings=settings, storage=storage, client=client, progress=progress_for(as_json=False))


def _ingest(pipeline: IngestionPipeline) -> None:
    """Store the history of the index, then the bars and the corporate actions of all that were in it since the first day."""
    from datetime import UTC, date, datetime

    from data_engine.market.time_range import new_york_date, new_york_days

    pipeline.metadata.import_history(_INDEX, _file("dow30-changes.csv"), members=_file("dow30.csv"), since=_KNOWN_SINCE)
    since = new_york_days(date.fromisoformat(_START), new_york_date(datetime.now(UTC)))
    names = list(pipeline.metadata.memberships(_INDEX, since))
    click.echo(f"Ingesting one-minute bars of the {len(names)} symbols that were in the Dow 30 since {_START}, until {_END}")
    show(pipeline.ingest_symbols(names, _START, _END), as_json=False)
    actions = _fetch_actions(pipeline, names, since)
    click.echo(f"  Corporate actions: {sum(actions.held.values())} | Requests: {actions.requests}")


def _fetch_actions(pipeline: IngestionPipeline, names: Sequence[str], days: TimeRange) -> ActionsReport:
    from datetime import UTC, datetime

    from data_engine.corporate_actions.action_store import ActionStore
    from data_engine.corporate_actions.fetch_actions import fetch_actions
    from data_engine.store.run_lock import RUN_LOCK

    files = pipeline.storage.files
    with files.lock(RUN_LOCK, seconds=0):
        return fetch_actions(ActionStore(files), pipeline.client, dict.fromkeys(names, days), now=datetime.now(UTC))


def _report(storage: ParquetStorage) -> tuple[Path, int]:
    """Write a report beside the store, and return its path and its size in bytes."""
    from datetime import UTC, datetime

    from data_engine.report import contents, html_page
    from data_engine.store.selection import DatasetFilter
    from data_engine.version import written_by

    folder = storage.files.folder
    beside = Path("demo_data") if folder is None else folder
    path = html_page.check_target(beside.with_name(f"{beside.name}-report.html"), folder)
    page = contents.overview_of(
        storage.bars, DatasetFilter(), None, now=datetime.now(UTC), quick=False, minutes=5, by=written_by()
    )
    return path, html_page.save(html_page.render(page), path)


def _program() -> str:
    """Return how to call this program from the working directory."""
    if shutil.which("data-engine"):
        return "data-engine"
    beside = Path(sys.executable).with_name("data-engine")
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)


def _file(name: str) -> Path:
    """Return one of the example files: inside the package if it is installed, in ``examples`` in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "examples" / name
    return installed if installed.is_file() else package.parents[1] / "examples" / name


def _tree(storage: ParquetStorage) -> list[str]:
    keys = [key for key in storage.files.list("equities_1min") if key.endswith(".parquet")]
    sizes = [storage.files.size(key) or 0 for key in keys]
    shown = [f"{key}  {size(count)}" for key, count in list(zip(keys, sizes, strict=True))[:3]]
    shown.append(f"... {len(keys)} files, {size(sum(sizes))} in all")
    folders = ("metadata/coverage", "metadata/actions", "metadata/indices")
    return [*shown, *(key for folder in folders for key in list(storage.files.list(folder))[:1])]
