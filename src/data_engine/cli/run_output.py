"""Print what ``ingest``, ``update``, ``audit`` and ``demo`` share: the first line, and the result of a run."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import (
    print_err,
    print_json,
    print_store,
    print_text,
    print_unseen_store,
    size,
    stop_on_signal,
    warn_writer,
)

if TYPE_CHECKING:
    from data_engine.ingest.outcome import IngestionReport
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.settings import Settings

_NAMED = 5  # symbols in a command to run next


@contextmanager
def running(
    pipeline: IngestionPipeline,
    *details: str,
    must_exist: bool = True,
    quiet: bool = False,
    check: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """Name the store on stderr, then have signals stop the block in order.

    Args:
        pipeline: The pipeline that the block runs.
        details: Further lines for stderr.
        must_exist: Whether a store that does not exist is an error.
        quiet: Whether to print warnings only.
        check: What to check before the line that tells of credentials: they are of no use for a request that cannot be made.

    Raises:
        StoreError: If there is no store. It comes before missing credentials: they are of no use then.
        ConfigError: If there are no credentials.
    """
    if quiet:
        print_unseen_store(pipeline.settings, pipeline.storage.files)  # reads no credentials: the run itself checks first
        _warn_ignored()
    else:
        _print_run(pipeline, must_exist=must_exist, check=check)
    warn_writer(pipeline.storage.files)
    for line in details:
        print_err(line)
    # Dask logs tracebacks; what matters of them is in the errors that data-engine raises.
    logging.disable(logging.NOTSET if os.environ.get("DATA_ENGINE_DEBUG") else logging.CRITICAL)
    try:
        with stop_on_signal():
            yield
    finally:
        logging.disable(logging.NOTSET)


def _warn_ignored() -> None:
    """Print which variables of ``.env`` have no effect: a webhook that is set there is told of nothing."""
    from data_engine.alpaca.credentials import ignored_variables
    from data_engine.errors import ConfigError

    with suppress(ConfigError):  # a file that cannot be read is what the run itself refuses
        if names := ignored_variables():
            print_err(f"Warning: ignored in .env: {' and '.join(names)}; set that in the environment")


def _print_run(pipeline: IngestionPipeline, *, must_exist: bool, check: Callable[[], object]) -> None:
    """Print store, free disk, source of the keys and rate limit in one line; the store alone if the run cannot begin."""
    from data_engine.ingest.bar_source import check_source

    details: tuple[str, ...] = ()
    try:
        if must_exist:
            pipeline.storage.bars.check_exists()
        check()
        check_source(pipeline.storage.files, pipeline.settings.data_url)
        details = _details(pipeline)
    finally:
        print_store(pipeline.settings, pipeline.storage.files, *details)


def _details(pipeline: IngestionPipeline) -> tuple[str, ...]:
    keys = pipeline.client.credentials_source if pipeline.dask is None else "those of the Dask workers"
    free = pipeline.storage.files.free_bytes()
    limit = pipeline.settings.requests_per_minute
    return (
        f"{size(free)} free" if free is not None else "free space unknown",
        f"keys: {keys}",
        f"limit: {limit}/min" if limit else "limit: learned from the responses",
    )


def show(report: IngestionReport, *, as_json: bool, text: str | None = None, settings: Settings | None = None) -> None:
    """Print the result of a run.

    Args:
        report: The result.
        as_json: Whether to print JSON on stdout, and text on stderr.
        text: The text. If None, the summary.
        settings: The settings of the run, for the commands to run next, which are printed on a terminal. If None, they are not.
    """
    if as_json:
        print_json(report.to_json())
    print_text(report.summary() if text is None else text, err=as_json)
    if settings is not None and text is None and not as_json and sys.stdout.isatty():
        click.echo("\nNext:")
        for line in _next(report, settings):
            click.echo(f"  {line}")


def _next(report: IngestionReport, settings: Settings) -> list[str]:
    """Return the commands to run after a run."""
    where = f" --base-path {shlex.quote(str(settings.base_path))}" if settings.base_path_source == "--base-path" else ""
    status, update = f"data-engine status{where}", f"data-engine update{where}"
    if report.interrupted:
        return ["run the same command again to continue"]
    failed = [symbol.split()[0] for symbol, _ in report["failed"]]
    if failed:
        named = " ".join(dict.fromkeys(failed)) if len(failed) <= _NAMED else "--all"
        return [f"{status} {named}    shows what is missing", f"{update}    tries it again"]
    return [f"{status}    shows what is stored", f"{update}    keeps it current"]
