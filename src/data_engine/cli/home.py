"""``data-engine`` without a command: where the store is, what it holds, and what to try first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from data_engine.cli.console import MOST_LINES, print_text

if TYPE_CHECKING:
    from data_engine.market.series import Dataset
    from data_engine.verify.status import StoredSeries

_FIRST_COMMANDS = """The store is empty. Try:
  data-engine demo                                   a simulated market, without an account
  data-engine ingest AAPL MSFT --start 2024-01-01    minute bars from Alpaca, with your keys
  data-engine --help                                 all commands"""


def show() -> None:
    """Print where the store is and what it holds, or the first three commands to try."""
    from datetime import UTC, datetime

    from data_engine.settings import load_settings
    from data_engine.store.bar_store import BarStore
    from data_engine.store.location import open_file_store
    from data_engine.store.selection import DatasetFilter
    from data_engine.verify.legacy_status import legacy_status
    from data_engine.verify.status import stored_series

    settings = load_settings()
    files = open_file_store(settings.base_path)
    click.echo(f"Store: {files.location} ({settings.base_path_source})")
    store = BarStore(files)
    store.coverage.requested.refresh()
    found: dict[Dataset, list[StoredSeries]] = {dataset: [] for dataset in store.coverage.datasets()}
    for one in stored_series(store, DatasetFilter(), now=datetime.now(UTC), sizes=True):
        found.setdefault(one.series.dataset, []).append(one)
    for dataset, known in found.items():
        damaged = sum(one.damage is not None for one in known)
        said = f", {damaged:,} damaged" if damaged else ""
        click.echo(f"  {dataset.name}: {len(known):,} series, {sum(one.coverage.bars for one in known):,} bars{said}")
    looked_at = [one.series for known in found.values() for one in known][:MOST_LINES]  # as many as `status` lists
    legacy = legacy_status(store, looked_at)
    for line in legacy.lines() if legacy is not None else ():
        print_text(f"  {line}", indent=2)
    if not found and legacy is None:
        click.echo(_FIRST_COMMANDS)
