"""What ``ingest``, ``update``, ``audit`` and ``demo`` share: the cluster option, the first line, and what came of a run."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from data_engine.cli.console import (
    print_err,
    print_json,
    print_store,
    size,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from data_engine.errors import DataEngineError
    from data_engine.ingest.outcome import IngestionReport
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.settings import Settings


_F = TypeVar("_F", bound="Callable[..., Any]")


def cluster_option(command: _F) -> _F:
    """Add the option of the commands that can have their work done by a cluster."""
    return click.option(
        "--dask",
        metavar="ADDRESS",
        help="Have the workers of a Dask cluster fetch and write: tcp://scheduler:8786, or local for one process per core.",
    )(command)


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Keep Dask's own log, which has tracebacks in it, from the terminal: what a person must know of it, we say."""
    logging.disable(logging.NOTSET if os.environ.get("DATA_ENGINE_DEBUG") else logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def name_run(settings: Settings, pipeline: IngestionPipeline) -> None:
    """Say in the first line what was found: store, free disk, keys, limit. Without credentials: the store, and it raises."""
    from data_engine.errors import ConfigError

    try:
        words = _found_words(pipeline)
    except ConfigError:
        print_store(settings, pipeline.storage.files)
        raise
    print_store(settings, pipeline.storage.files, *words)


def _found_words(pipeline: IngestionPipeline) -> tuple[str, ...]:
    keys = pipeline.client.credentials_source if pipeline.dask is None else "those of the Dask workers"
    free = pipeline.storage.files.free_bytes()
    limit = pipeline.settings.requests_per_minute
    return (
        f"{size(free)} free" if free is not None else "free space unknown",
        f"keys: {keys}",
        f"limit: {limit}/min" if limit else "limit: learned from the answers",
    )


def show(report: IngestionReport, *, as_json: bool, brief: bool = False) -> None:
    """Print what came of a run; *brief* is one line, and one per failed symbol."""
    text = report.line() if brief else report.summary()
    if as_json:
        print_json(report.to_json())
        print_err(text)
    else:
        click.echo(text)


def show_failure(error: DataEngineError, *, as_json: bool) -> None:
    """Print what was done before a run failed as a whole. What the failure was is said by whoever ends the program."""
    error.told = True
    if as_json:
        print_json({**(error.report.to_json() if error.report else {}), "error": {"code": error.code, "message": str(error)}})
    elif error.report is not None:
        click.echo(error.report.summary())
