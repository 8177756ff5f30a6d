"""``update``: what is owed, then every series up to now."""

from __future__ import annotations

import click

from data_engine.cli.console import (
    choice_options,
    number,
    pace_options,
    progress_for,
    stop_on_signal,
    store_options,
    tune_allocator,
    warn_writer,
)
from data_engine.cli.run_output import cluster_option, name_run, quiet_logs, show, show_failure

_SHOWN = 40


@click.command()
@click.argument("symbols", nargs=-1, metavar="[SYMBOL ...]")
@click.option("--index", "index_name", metavar="NAME", help="Only the members of this list; new ones start where it starts.")
@choice_options
@pace_options
@cluster_option
@click.option("--quiet", is_flag=True, help="No progress; one summary line, and what failed. For cron.")
@store_options
@click.pass_context
def update(
    context: click.Context,
    symbols: tuple[str, ...],
    index_name: str | None,
    timeframe: str | None,
    feed: str | None,
    adjustment: str | None,
    workers: str | None,
    requests_per_minute: str | None,
    wait: float | None,
    dask: str | None,
    quiet: bool,
    base_path: str | None,
    settings_path: str | None,
    as_json: bool,
) -> None:
    """Finish what was asked for and not completed, then bring every stored series (or those) up to now."""
    tune_allocator()
    from data_engine.errors import DataEngineError, InputError
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.settings import load_settings

    try:
        if symbols and index_name is not None:
            raise InputError("name symbols or --index, not both")
        settings = load_settings(
            base_path=base_path,
            settings_path=settings_path,
            workers=number(workers, "--workers"),
            requests_per_minute=number(requests_per_minute, "--requests-per-minute"),
        )
        pipeline = IngestionPipeline(
            settings=settings,
            progress=progress_for(as_json=as_json, quiet=quiet),
            # A nightly job must not pile up behind a backfill that runs for days.
            wait=0.0 if wait is None else wait,
            dask=dask,
        )
        if not quiet:
            name_run(settings, pipeline)
        pipeline.storage.bars.check_exists()
        warn_writer(pipeline.storage.files)
        with stop_on_signal(), quiet_logs():
            report = pipeline.update(symbols or None, index_name, timeframe=timeframe, feed=feed, adjustment=adjustment)
    except DataEngineError as error:
        show_failure(error, as_json=as_json)
        raise
    show(report, as_json=as_json, brief=quiet)
    context.exit(report.exit_code)
