"""What all commands share: options that mean the same everywhere, and who gets told what."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from types import FrameType

    from data_engine.ingest.progress import Progress
    from data_engine.settings import Settings
    from data_engine.store.file_store import FileStore


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of malloc.h

_F = TypeVar("_F", bound=Callable[..., Any])


def store_options(command: _F) -> _F:
    """Add the options of every command that touches a store."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else there."),
        click.option("--settings", "settings_path", metavar="FILE", help="Take this settings.ini."),
        click.option("--base-path", metavar="DIR", help="The store's folder."),
    ):
        command = option(command)
    return command


def choice_options(command: _F) -> _F:
    """Add the options that choose among the datasets of a store."""
    for option in (
        click.option("--adjustment", metavar="A", help="Only of this adjustment."),
        click.option("--feed", metavar="F", help="Only of this feed."),
        click.option("--timeframe", metavar="T", help="Only of this timeframe."),
    ):
        command = option(command)
    return command


def dataset_options(command: _F) -> _F:
    """Add the options that name a dataset."""
    for option in (
        click.option("--adjustment", metavar="A", help="raw (default), split, dividend, spin-off, a list of these, or all."),
        click.option("--feed", metavar="F", help="sip (default), iex, otc, boats, delayed_sip or account."),
        click.option(
            "--timeframe",
            metavar="T",
            default="1Min",
            show_default=True,
            help="1Min .. 59Min, 1Hour .. 23Hour, 1Day, 1Week, 1Month ...",
        ),
    ):
        command = option(command)
    return command


def pace_options(command: _F) -> _F:
    """Add the options of every command that asks Alpaca."""
    for option in (
        click.option(
            "--wait", type=click.FloatRange(0), metavar="SECONDS", help="How long to wait for another process that is writing."
        ),
        click.option("--requests-per-minute", metavar="N", help="Send no more than this, whatever the account allows."),
        click.option("--workers", metavar="N", help="Requests under way at once."),
    ):
        command = option(command)
    return command


def number(text: str | None, option: str) -> int | None:
    """Read a whole number that an option was given; the settings check what it may be.

    Raises:
        ConfigError: not a whole number.
    """
    from data_engine.errors import ConfigError

    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{option} {text!r} is not a whole number") from None


def print_err(text: str) -> None:
    """Tell people something that is not the result: on stderr."""
    click.echo(text, err=True)


def print_error(text: str) -> None:
    """Tell people what went wrong: on stderr."""
    click.echo(f"Error: {text}", err=True)


def print_json(fields: Mapping[str, Any]) -> None:
    """Print the one JSON object of a command."""
    click.echo(json_text(fields))


def json_text(fields: Mapping[str, Any]) -> str:
    """Return an object as JSON; numbers that JSON has no word for (NaN, infinity) are null."""
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


def refuse_unknown(
    asked: Sequence[str], known: Collection[str], what: str = "nothing of it is in the store (or not in that dataset)"
) -> None:
    """Raise `InputError` where somebody asks about symbols of which the store has nothing: a typo must not read as all well."""
    from data_engine.errors import InputError

    strange = [name for name in asked if name not in known]
    if strange:
        more = f" and {len(strange) - 10} more" if len(strange) > 10 else ""
        raise InputError(f"{', '.join(strange[:10])}{more}: {what}")


def print_store(settings: Settings, files: FileStore, *more: str) -> None:
    """Say in the first line where the store is, who said so, and what else was found."""
    print_err(" | ".join((f"Store: {files.location} ({settings.base_path_source})", *more)))


def warn_writer(files: FileStore) -> None:
    """Say what whoever is about to write to a store should know of its place."""
    if (text := files.write_warning()) is not None:
        print_err(text)


def tune_allocator() -> None:
    """Have memory used again where it would be given back and asked for anew. To be called before pyarrow is loaded.

    Pages come and go by the megabyte: with the allocators as they are, every one of them costs hundreds of page faults, and
    each thread keeps a heap of its own. This took a tenth off the CPU time of an ingestion and a third off its memory, on
    Linux; elsewhere it was not measured, and is left alone.
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
    """Write a number of bytes for people: ``53.1 GB``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB" if count < 1000 else f"{count / 1000:.1f} TB"


def progress_for(*, as_json: bool, quiet: bool = False) -> Progress:
    """Return who shows the progress: a live display on a terminal, plain lines elsewhere, stderr only beside JSON."""
    from data_engine.ingest.progress import LogProgress, NoProgress

    if quiet:
        return NoProgress()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from data_engine.cli.display import LiveDisplay

        return LiveDisplay()
    return LogProgress(lambda text: click.echo(text, err=as_json))


@contextmanager
def stop_on_signal() -> Iterator[None]:
    """Make SIGTERM the same as Ctrl-C, and a second one of either the end at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal heard
        if heard:
            os._exit(130)
        heard = True
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


def broken_pipe() -> None:
    """Let the process end quietly when its reader (``| head``) has gone."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
