"""Export plain files of a store, as it is or as it was, for ``export --to parquet``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from data_engine.cli.console import print_err, print_json, refuse_unknown, size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from data_engine.store.bar_store import BarStore
    from data_engine.store.selection import DatasetFilter


def export_state(
    store: BarStore,
    folder: Path,
    symbols: Sequence[str] | None,
    index: str | None,
    start: str | None,
    end: str | None,
    datasets: DatasetFilter,
    *,
    as_stored_on: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write the files, and print how many.

    Args:
        store: The store as it is.
        folder: The folder to write.
        symbols: The symbols. If None, those of the index, or all.
        index: The name of an index: the series of all its members, past ones included.
        start: The first day or instant of the bars.
        end: The last day or an instant.
        datasets: The datasets.
        as_stored_on: When the store held what is exported. If None, now.
        dry_run: Whether nothing is written.
        as_json: Whether to print JSON.

    Raises:
        InputError: If an argument cannot be used, or the folder has other files.
        StoreError: If a file cannot be read or written.
    """
    from datetime import UTC, datetime

    from data_engine.export.state_export import StateCall, StateExport
    from data_engine.market.dates import any_span
    from data_engine.market.symbol import ticker_of
    from data_engine.market.time_range import iso
    from data_engine.market.wording import plural
    from data_engine.store.history.past import instant_of_files, stored_on
    from data_engine.universe.index_store import MetadataStore
    from data_engine.universe.symbol_lists import SymbolLoader
    from data_engine.verify.verify import known_series

    now = datetime.now(UTC)
    past = stored_on(store, as_stored_on, now=now)
    known = {one.symbol for one in known_series(past, datasets, None)}
    names = None if symbols is None else SymbolLoader.from_list(symbols)
    if names is not None:
        refuse_unknown(names, known, store=past)
    if index is not None:
        tickers = {change.symbol for change in MetadataStore(files=past.files).history(index)}
        names = sorted(name for name in known if ticker_of(name) in tickers)
    span = None if start is None and end is None else any_span(start, end)
    made = StateExport(past, StateCall(folder, names, datasets, span), folder=store.files.folder)
    done = made.run(dry_run=dry_run)
    for note in made.notes:
        print_err(f"Note: {note}")
    if as_json:
        print_json(
            {
                "format": "parquet",
                "folder": str(folder),
                "as_stored_on": iso(instant_of_files(past.files, now)) if as_stored_on is not None else None,
                "files": done.files,
                "bytes": done.bytes,
                "written_files": done.written_files,
                "written_bytes": done.written_bytes,
                "dry_run": dry_run,
                "notes": made.notes,
            }
        )
        return
    verb = "would write" if dry_run else "wrote"
    written = plural(done.written_files, "file")
    click.echo(f"{folder}  {plural(done.files, 'file')}, {size(done.bytes)}; {verb} {written}, {size(done.written_bytes)}")
