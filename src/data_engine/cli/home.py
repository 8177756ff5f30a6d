"""``data-engine`` alone: where the store is, what it holds, and what to try first."""

from __future__ import annotations

import click


def show() -> None:
    """Print where the store is and what it holds, or the first three commands to try."""
    from data_engine.settings import load_settings
    from data_engine.store.coverage_store import CoverageStore
    from data_engine.store.location import open_file_store

    settings = load_settings()
    files = open_file_store(settings.base_path)
    click.echo(f"Store: {files.location} ({settings.base_path_source})")
    store = CoverageStore(files)
    held = {dataset: [store.read(series) for series in store.series(dataset)] for dataset in store.datasets()}
    for dataset, known in held.items():
        bars = sum(coverage.bars for coverage in known)
        click.echo(f"  {dataset.name}: {len(known):,} series, {bars:,} bars")
    if not held:
        click.echo("There is nothing in it yet. Try:")
        click.echo("  data-engine demo                                   the whole thing, with no account and a simulated market")
        click.echo("  data-engine ingest AAPL MSFT --start 2024-01-01    minute bars from Alpaca, with your keys")
        click.echo("  data-engine --help                                 all commands")
