"""``demo``: an ingestion without an account."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import print_store, progress_for, size, stop_on_signal
from data_engine.cli.exit_codes import Command
from data_engine.cli.run_output import show

if TYPE_CHECKING:
    from data_engine.read.parquet_storage import ParquetStorage


_MARK = "metadata/simulated.txt"

_START, _END = "2024-04-01", "2024-06-30"

_QUERIES = (
    (
        "The five busiest tickers of the quarter, by dollars traded",
        """SELECT symbol, count(*) AS bars, round(sum(volume * vwap) / 1e9, 1) AS billions
FROM bars_1min
GROUP BY symbol ORDER BY billions DESC LIMIT 5""",
    ),
    (
        "AAPL's first regular half hour of June, in 5-minute bars",
        """SELECT time_bucket(INTERVAL 5 minutes, timestamp) AS five_minutes, first(open ORDER BY timestamp) AS open,
       max(high) AS high, min(low) AS low, last(close ORDER BY timestamp) AS close, sum(volume)::BIGINT AS volume
FROM bars_1min
WHERE symbol = 'AAPL' AND timestamp >= '2024-06-03 13:30:00+00' AND timestamp < '2024-06-03 14:00:00+00'
GROUP BY five_minutes ORDER BY five_minutes""",
    ),
)


@click.command(cls=Command, exits="0 1 2 4 7 130")
@click.option("--base-path", metavar="DIR", default="demo_data", show_default=True, help="Directory of the demo store.")
def demo(base_path: str) -> None:
    """Ingest simulated bars without an account.

    Ingests three months of minute bars of the Dow 30 from a simulated market, and queries them.
    """
    from data_engine.alpaca.client import AlpacaClient
    from data_engine.errors import InputError
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.read.duckdb_views import connect, run
    from data_engine.read.parquet_storage import ParquetStorage
    from data_engine.sandbox import Sandbox, SimulatedMarket
    from data_engine.settings import load_settings
    from data_engine.store.location import open_file_store

    settings = load_settings(base_path=base_path)
    storage = ParquetStorage(files=open_file_store(settings.base_path))
    if storage.bars.exists() and storage.files.get(_MARK) is None:
        raise InputError(
            f"cannot use store {storage.files.location}: `data-engine demo` did not make it, and its simulated bars "
            "must not meet others; pass another directory with --base-path"
        )
    storage.files.update(_MARK, lambda _: b"The bars of this store are simulated. `data-engine demo` made it.\n")
    with Sandbox(SimulatedMarket()) as server, stop_on_signal():
        print_store(settings, storage.files, "a SIMULATED market: none of these prices is real")
        client = AlpacaClient("demo", "demo", base_url=server.url)
        pipeline = IngestionPipeline(settings=settings, storage=storage, client=client, progress=progress_for(as_json=False))
        click.echo(f"Ingesting {_START} to {_END}, one-minute bars of the thirty tickers in {_list().name}, from {server.url}\n")
        report = pipeline.ingest_from_csv(_list(), _START, _END)
    show(report, as_json=False)

    click.echo(f"\nOn disk, in {storage.files.location}:")
    for line in _tree(storage):
        click.echo(f"  {line}")
    with connect(storage.bars) as connection:
        for title, sql in _QUERIES:
            click.echo(f"\n{title}:\n\n{sql}\n\n{run(connection, sql)}")
    program = "data-engine" if shutil.which("data-engine") else sys.argv[0]
    click.echo(f'Run your own query:  {program} query --base-path {base_path} "SELECT ..."')


def _list() -> Path:
    """Return the list of the thirty tickers: inside the package if it is installed, in ``examples`` in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "examples" / "dow30.csv"
    return installed if installed.is_file() else package.parents[1] / "examples" / "dow30.csv"


def _tree(storage: ParquetStorage) -> list[str]:
    keys = [key for key in storage.files.list("equities_1min") if key.endswith(".parquet")]
    sizes = [storage.files.size(key) or 0 for key in keys]
    shown = [f"{key}  {size(count)}" for key, count in list(zip(keys, sizes, strict=True))[:3]]
    shown.append(f"... {len(keys)} files, {size(sum(sizes))} in all")
    return [*shown, *list(storage.files.list("metadata/indices"))[:1], *list(storage.files.list("metadata/coverage"))[:1]]
