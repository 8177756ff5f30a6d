"""Parse command lines, call the library, print results and choose exit codes.

Only this package prints. Each command is a module that imports what it needs when it runs, so that ``--help`` stays fast.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from data_engine.cli.console import print_error, print_json, print_text
from data_engine.cli.exit_codes import FAILED, OK, Ended
from data_engine.cli.lazy_commands import LazyGroup
from data_engine.cli.output import OutputFailed, ReaderGone, fill_closed_streams, printing
from data_engine.errors import DataEngineError, InputError, Interrupted

_HOME = Path(__file__).parents[1]

# In a wheel the pages are in the package, in a checkout two folders above. The path stays on one line, to be copied.
DOCUMENTATION = (_HOME if (_HOME / "docs").is_dir() else _HOME.parents[1]) / "docs" / "index.md"

_EPILOG = f"Try `data-engine demo`, which needs no account.\n\n\b\nDocumentation: {DOCUMENTATION}"


# Each is the first sentence of the command's own help: `--help` loads no command.
_SUMMARIES = {
    "actions": "Fetch the corporate actions of stored or given symbols.",
    "audit": "Compare a sample of stored sessions with Alpaca.",
    "demo": "Ingest simulated bars without an account.",
    "doctor": "Check settings, keys, store, network and clock.",
    "export": "Write bars for a backtest engine, or plain files.",
    "history": "Show what changed of a symbol's bars, when, by whom.",
    "import": "Import bars and lists from the files of other programs.",
    "index": "Store lists of symbols and their past members.",
    "ingest": "Fetch bars of many symbols into the store.",
    "mcp": "Serve the store to agents, read-only.",
    "query": "Run one SELECT over the store with DuckDB.",
    "recheck": "Fetch covered ranges again: late and revised bars.",
    "remove": "Remove bars and their coverage from the store.",
    "report": "Write an HTML page of coverage, gaps, prices and runs.",
    "sandbox": "Serve Alpaca's bar protocol locally until Ctrl-C.",
    "schedule": "Print how to update a store every night.",
    "snapshot": "Name what the store holds now, and read it later.",
    "status": "Show stored, requested and missing ranges per series.",
    "universe": "Keep Alpaca's list of securities as dated indices.",
    "update": "Fetch missing ranges and new bars of stored series.",
    "verify": "Check files, coverage and prices.",
}


@click.group(
    cls=LazyGroup,
    summaries=_SUMMARIES,
    partial=True,
    invoke_without_command=True,
    epilog=_EPILOG,
)
@click.option("--version", is_flag=True, help="Print the version and exit.")
@click.pass_context
def program(context: click.Context, version: bool) -> None:
    """Download historical US stock bars from Alpaca to Parquet and track which ranges are complete."""
    if version:
        from data_engine.alpaca.native_library import library
        from data_engine.version import written_by

        click.echo(written_by())
        click.echo(
            f"Decoder: {'compiled' if library() is not None else 'pure Python; install with a C compiler to compile it'}",
            err=True,
        )
    elif context.invoked_subcommand is None:
        from data_engine.cli import home

        home.show()


_GARBAGE = 50_000
"""Python looks for garbage in rings after so many new objects. What is known of many series has none, and lives long: after 700
objects each, as is usual, that took a twentieth to a tenth of the time of `status`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. No traceback leaves here, unless DATA_ENGINE_DEBUG is set."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if os.environ.get("_DATA_ENGINE_COMPLETE"):
        # The shell asks what the next word may be. click writes bytes, which the streams of commands do not take.
        program.main(args=[], prog_name="data-engine")
    ended: list[Ended] = []
    code, lost = FAILED, None  # if DATA_ENGINE_DEBUG has an error leave here
    with printing(words) as out:
        try:
            code = _run(words, ended)
            if "--json" in words and code in (OK, FAILED) and (lost := out.lost()) is not None:
                print_error(str(lost))
                code = lost.exit_code
        finally:
            for tell in ended:
                tell(code, lost)
        return code


def _run(words: list[str], ended: list[Ended]) -> int:
    """Run one command and return its exit code; commands add to *ended* what is to be told it."""
    try:
        code = program.main(args=words, prog_name="data-engine", standalone_mode=False, obj=ended)
        return code if isinstance(code, int) else OK
    except ReaderGone:
        return OK
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - no traceback reaches a user
        return _fail(error, as_json="--json" in words and not isinstance(error, OutputFailed))


def _fail(error: BaseException, *, as_json: bool) -> int:
    """Print why a command failed and what it did until then, and return its exit code."""
    if isinstance(error, click.Abort) and error.__cause__ is not None:
        error = error.__cause__  # click makes an Abort of every KeyboardInterrupt, also of Interrupted
    if isinstance(error, (click.Abort, KeyboardInterrupt)) and not isinstance(error, DataEngineError):
        error = Interrupted("interrupted")
    # The one place where the message of an error leaves: a secret that was put into a setting must not leave with it.
    from data_engine.alpaca.credentials import without_secrets

    if isinstance(error, click.ClickException):
        error.message = without_secrets(error.message)  # type: ignore[misc]  # click prints it from there
        if as_json:
            print_json({"error": {"code": "bad_usage", "message": error.format_message()}})
        error.show(sys.stderr)
        return InputError.exit_code
    if not isinstance(error, DataEngineError):
        if os.environ.get("DATA_ENGINE_DEBUG"):
            raise error
        said = without_secrets(f"{type(error).__name__}: {error}")
        print_error(f"internal error in data-engine: {said}; set DATA_ENGINE_DEBUG=1 for a traceback")
        return FAILED
    message = without_secrets(str(error))
    _print_done(error, message, as_json=as_json)
    print_error(message)
    return error.exit_code


def _print_done(error: DataEngineError, message: str, *, as_json: bool) -> None:
    """Print what a command did until an error ended it; as JSON, with the error."""
    done, again = error.report, error.recheck
    if as_json:
        rechecked = again.to_json() if again else {}
        whole = {**done.to_json(), **({"recheck": rechecked} if again else {})} if done else rechecked
        print_json({**whole, "error": {"code": error.code, "message": message}})
        return
    if done is not None:
        click.echo(done.summary())
    if again is not None:
        from data_engine.cli.recheck import details, outcome

        print_text("\n".join([*details(again), *outcome(again, whole=False)]))


def run() -> None:
    """Run as the console script.

    After an interrupt, threads that wait for the network do not keep the process alive. After the help, nothing is left to be
    done, and taking the interpreter apart would take a seventh of its time.
    """
    fill_closed_streams()
    # Nothing here multiplies matrices; the threads that numpy starts for that would wait at full speed, for a tenth of a second.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.set_threshold(_GARBAGE, 20, 100)
    code = main()
    with printing([]):  # whose streams do not fail
        with suppress(ReaderGone, OutputFailed):
            sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code) if code == Interrupted.exit_code or sys.argv[1:] in (["--help"], ["-h"]) else sys.exit(code)
