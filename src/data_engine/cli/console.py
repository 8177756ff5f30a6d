"""Print results, errors and progress, and handle signals."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from data_engine.cli.output import fitted

if TYPE_CHECKING:
    from types import FrameType

    from data_engine.ingest.progress import Progress
    from data_engine.settings import Settings
    from data_engine.store.bar_store import BarStore
    from data_engine.store.file_store import FileStore
    from data_engine.store.selection import DatasetFilter


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of malloc.h

MOST_LINES = 40
"""How many findings, series or tasks are printed; `--json` prints all."""


LIST_ALL = "run `data-engine status --all` to list what is stored"


def print_err(text: str) -> None:
    """Print a line that is not part of the result, on stderr; a long one is broken where a terminal ends."""
    click.echo(fitted(text, sys.stderr), err=True)


def print_text(text: str, *, err: bool = False, indent: int = 4) -> None:
    """Print lines of text, long ones broken where a terminal ends.

    Args:
        text: The lines.
        err: Whether to print on stderr.
        indent: The indentation of what follows a broken line, beside its own.
    """
    click.echo(fitted(text, sys.stderr if err else sys.stdout, indent=indent), err=err)


def print_error(text: str) -> None:
    """Print an error on stderr."""
    print_err(f"Error: {text}")


def print_json(fields: Mapping[str, Any]) -> None:
    """Print the one JSON object of a command."""
    click.echo(json_text(fields))


def json_text(fields: Mapping[str, Any]) -> str:
    """Return an object as JSON; NaN and infinity, which JSON lacks, are null."""
    import json

    try:
        return json.dumps(fields, indent=2, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(_numbers_only(fields), indent=2, default=str, allow_nan=False)


def _numbers_only(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _numbers_only(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_numbers_only(inner) for inner in value]
    return value


def first_lines(lines: Sequence[str], rest: str, *, most: int = MOST_LINES) -> list[str]:
    """Return the first lines, and a line that counts the others.

    Args:
        lines: The lines.
        rest: The end of the last line, after ``and 20 more``.
        most: The maximum number of lines.
    """
    left = len(lines) - most
    return [*lines[:most], f"and {left:,} more {rest}"] if left > 0 else list(lines)


def refuse_unknown(
    names: Sequence[str], known: Collection[str], remedy: str = LIST_ALL, *, store: BarStore | None = None
) -> None:
    """Refuse symbols of which the store has nothing: a typo must not read as success.

    Args:
        names: The symbols.
        known: The symbols of which the store has something.
        remedy: What to do, for the end of the message.
        store: The store among whose symbols close ones are looked for. If None, among *known*.

    Raises:
        InputError: If a symbol is unknown.
        ForeignFiles: If the legacy pipeline wrote bars of it into *store*.
    """
    from data_engine.errors import InputError
    from data_engine.market.wording import and_more, did_you_mean
    from data_engine.store.legacy_files import refuse_legacy_symbols

    unknown = [name for name in names if name not in known]
    if unknown:
        if store is not None:
            refuse_legacy_symbols(store.files, unknown)
        coverage = store.coverage if store is not None else None
        there = {one.symbol for dataset in coverage.datasets() for one in coverage.series(dataset)} if coverage else known
        meant = did_you_mean(unknown, set(there).difference(unknown))  # one of them is stored in another dataset
        raise InputError(f"no stored series of {and_more(unknown, 10)}{meant or ';'} {remedy}")


def refuse_unstored(store: BarStore, datasets: DatasetFilter, names: Sequence[str] | None) -> None:
    """Refuse symbols of which the selected datasets have nothing, as `refuse_unknown`. If *names* is None, all are selected."""
    from data_engine.store.selection import select_series

    if names is not None:
        refuse_unknown(names, {one.symbol for one in select_series(store.coverage, datasets, names)}, store=store)


def print_store(settings: Settings, files: FileStore, *more: str) -> None:
    """Print where the store is and which setting says so, then *more*, in one line on stderr.

    On a terminal on which that does not fit, each part has a line.
    """
    parts = (f"Store: {files.location} ({settings.base_path_source})", *more)
    line = " | ".join(parts)
    fits = not sys.stderr.isatty() or len(line) <= shutil.get_terminal_size().columns
    print_err(line if fits else "\n  ".join(parts))


def print_unseen_store(settings: Settings, files: FileStore) -> None:
    """Print where the store is if a settings file of the working directory says so: who owns that directory moves the store.

    For commands that are quiet, and name no other store.
    """
    file = settings.settings_file
    if file is not None and file.parent == Path.cwd() and settings.base_path_source.startswith(file.name):
        print_store(settings, files)


def warn_writer(files: FileStore) -> None:
    """Print the warning about writing to the place of a store, if there is one."""
    if (text := files.write_warning()) is not None:
        print_err(text)


def tune_allocator() -> None:
    """Have the allocator reuse memory instead of returning it to the system. Call it before pyarrow is loaded.

    Responses are megabytes long. With the default allocator each of them costs hundreds of page faults, and each thread
    keeps its own heap. On Linux this saves a tenth of the CPU time and a third of the memory of an ingestion; it is not
    measured elsewhere.
    """
    if sys.platform != "linux":
        return
    import ctypes

    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    with suppress(OSError, AttributeError):  # another C library than GNU's
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_MMAP_THRESHOLD, 64 << 20)
        allocator.mallopt(_TRIM_THRESHOLD, 256 << 20)


def size(count: float) -> str:
    """Return a number of bytes as text: ``53.1 GB``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB" if count < 1000 else f"{count / 1000:.1f} TB"


def progress_for(*, as_json: bool, quiet: bool = False) -> Progress:
    """Return the progress display: live on a terminal, else plain lines, which go to stderr if stdout has JSON."""
    from data_engine.ingest.progress import LogProgress, NoProgress

    if quiet:
        return NoProgress()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from data_engine.cli.output import Output
        from data_engine.ingest.live_display import LiveDisplay

        stream = sys.stderr
        return LiveDisplay(stream.stream if isinstance(stream, Output) else stream)
    return LogProgress(lambda text: click.echo(text, err=as_json))


@contextmanager
def stop_on_signal() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C; a second signal ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signaled = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal signaled
        if signaled:
            os._exit(130)
        signaled = True
        raise KeyboardInterrupt

    signals = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGBREAK"):  # Windows: Ctrl-Break, and what a closing console sends
        signals.append(signal.SIGBREAK)
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
