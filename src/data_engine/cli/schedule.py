"""``schedule``: what to install so that a store is updated every night."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data_engine.cli.console import print_err, print_json
from data_engine.cli.exit_codes import Command, Group
from data_engine.cli.nightly_job import SYSTEMS, Installation, Job, machine_zone, start_of
from data_engine.cli.options import open_store, with_settings

if TYPE_CHECKING:
    from data_engine.errors import InputError
    from data_engine.settings import Settings
    from data_engine.store.file_store import FileStore


_TYPED = (click.core.ParameterSource.COMMANDLINE,)

_OF_SHOW = {"base_path": "--base-path", "settings_path": "--settings", "as_json": "--json"}
"""Options of ``update`` that the job does not take, by the names of their values."""


@click.group(cls=Group, exits="0 1 2 4")
def schedule() -> None:
    """Print how to update a store every night."""


@schedule.command("show", cls=Command, exits="0 1 2 4")
@click.argument("system", type=click.Choice(["systemd", "cron", "launchd", "windows"]))
@click.argument("options", nargs=-1, metavar="[-- UPDATE OPTIONS ...]")
@click.option("--at", default="20:45", show_default=True, metavar="HH:MM", help="Time in New York, Monday to Friday.")
@with_settings
def show(settings: Settings, system: str, options: tuple[str, ...], at: str, as_json: bool) -> None:
    """Print the files to write and the commands to run.

    The job runs `data-engine update --quiet` in the working directory, for the store that this command finds. Nothing is changed.
    Give options of `update` after --, as in: schedule show cron -- --index dow30 --wait 3600
    """
    store = open_store(settings)
    start = start_of(_clock(at), datetime.now(UTC), machine_zone())
    if system in ("cron", "launchd") and os.environ.get("TZ"):
        print_err(f"TZ of this shell is not that of the job, which starts by the clock of this machine ({start.zone})")
    words = (*program(), "update", "--quiet", *_of_store(settings), *_checked(options, settings))
    job = Job(words, Path.cwd(), start, _place(store.files))
    _refuse_line_breaks(job)
    made = SYSTEMS[system](job)
    if as_json:
        print_json({"store": store.files.location, "files": made.files, "commands": list(made.commands), "log": made.log})
    else:
        for line in _lines(made):
            click.echo(line)
    _tell_what_is_missing(job, s3=store.files.folder is None)


def _tell_what_is_missing(job: Job, *, s3: bool) -> None:
    """Print what this shell has and the job has not: it starts with another environment."""
    from data_engine.alpaca.credentials import find_credentials
    from data_engine.errors import ConfigError

    file = job.folder / ".env"
    try:
        if find_credentials({}, cwd=job.folder) is None:
            print_err(f"The job needs the API keys: write them into {file}, as in ALPACA_API_KEY=... on a line")
    except ConfigError as error:
        print_err(f"The job cannot use the keys of {file}: {error}")
    named = {variable for option, variable in _BY_OPTION.items() if any(word.split("=")[0] == option for word in job.words)}
    names = [name for name in sorted(os.environ) if _has_effect(name, s3=s3) and os.environ[name].strip() and name not in named]
    if names:
        print_err(
            f"Set in this shell and not in the job: {', '.join(names)}; set them where the job starts, or give what they say "
            "as options after -- or in settings.ini"
        )


_BY_OPTION = {
    "--workers": "DATA_ENGINE_THREADS",
    "--requests-per-minute": "DATA_ENGINE_REQUESTS_PER_MINUTE",
    "--notify": "DATA_ENGINE_NOTIFY",
}
"""The options of ``update`` that precede a variable, so that the job does not lack it."""

_PASSED = ("DATA_ENGINE_BASE_PATH", "DATA_ENGINE_SETTINGS")

_OF_NETWORK = ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


def _has_effect(variable: str, *, s3: bool) -> bool:
    """Tell whether ``update`` reads a variable; keys are looked for in the file of the job."""
    ours = variable.startswith("DATA_ENGINE_") and variable not in _PASSED
    addresses = variable in ("APCA_API_DATA_URL", "APCA_API_BASE_URL")
    return ours or addresses or variable.upper() in _OF_NETWORK or (s3 and variable.startswith("AWS_"))


def program() -> tuple[str, ...]:
    """Return the words that start data-engine from any folder."""
    installed = shutil.which("data-engine", path=str(Path(sys.executable).parent))
    return (installed,) if installed else (sys.executable, "-m", "data_engine")


def _place(files: FileStore) -> str:
    """Return where a store is, the same however its path was written."""
    return files.location if files.folder is None else str(files.folder.resolve())


def _of_store(settings: Settings) -> Iterator[str]:
    yield from ("--base-path", str(settings.base_path))
    if settings.settings_file is not None:
        yield from ("--settings", str(settings.settings_file.absolute()))


def _checked(options: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """Return options of ``update`` that it takes for this store now.

    Raises:
        click.UsageError: If ``update`` has no such option, or not with that value.
        DataEngineError: If ``update`` would refuse before its first request.
    """
    from data_engine.cli.notify import Webhook
    from data_engine.cli.update import checked, update
    from data_engine.ingest.pipeline import IngestionPipeline
    from data_engine.settings import load_settings

    try:
        context = update.make_context("update", list(options), help_option_names=[])
    except click.NoSuchOption as error:
        if error.option_name in ("-h", "--help"):
            raise _not_there(error.option_name) from None
        raise
    given = {name: value for name, value in context.params.items() if context.get_parameter_source(name) in _TYPED}
    for name, option in _OF_SHOW.items():
        if name in given:
            raise _not_there(option)
    Webhook.parse(given.get("notify"), context.params["notify_when"])
    of_job = load_settings(
        base_path=settings.base_path,
        settings_path=settings.settings_file,
        workers=given.get("workers"),
        requests_per_minute=given.get("requests_per_minute"),
        environ={},  # the job has another environment
    )
    params = context.params
    pipeline = IngestionPipeline(settings=of_job, progress=False, wait=params["wait"], dask=params["dask"])
    chosen = (params[name] for name in ("symbols", "index_name", "timeframe", "feed", "adjustment"))
    _, _, check = checked(pipeline, *chosen)
    check()
    return tuple(options)


def _not_there(option: str) -> InputError:
    from data_engine.errors import InputError

    return InputError(
        f"cannot use {option} after --: the job has the store and the settings of this command, and prints text; pass "
        "--base-path and --settings before --, and leave --json and --help out"
    )


def _clock(text: str) -> time:
    from data_engine.errors import InputError

    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
        raise InputError(f"cannot use --at {text!r}: it is no time of a day; write HH:MM, such as 20:45")
    return time.fromisoformat(text)


def _refuse_line_breaks(job: Job) -> None:
    from data_engine.errors import InputError

    broken = next((word for word in (*job.words, str(job.folder)) if not word.isprintable()), None)
    if broken is not None:
        raise InputError(f"cannot schedule a job with {broken!r}: it has a line break or another character that cannot be shown")


def _lines(made: Installation) -> Iterator[str]:
    """Yield what to install, as text."""
    for path, content in made.files.items():
        yield f"Write {path}:"
        yield ""
        yield content
    yield "Then run:"
    yield ""
    yield from (f"  {command}" for command in made.commands)
    yield ""
    yield f"Output of the runs: {made.log}"
