"""The command line: a twin of the library. It parses, calls one function, renders, and chooses the exit code.

Only this package prints. Every command is a small module that imports what it needs when it runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from data_engine.cli import (
    actions,
    audit,
    demo,
    home,
    import_files,
    index,
    ingest,
    query,
    remove,
    report,
    sandbox,
    status,
    update,
    verify,
)
from data_engine.cli.console import broken_pipe, print_error, print_json
from data_engine.errors import DataEngineError

_EPILOG = "Try `data-engine demo` without an account. Exit codes and everything else: docs/reference/command-line.md."


@click.group(invoke_without_command=True, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, help="Print the version and end.")
@click.pass_context
def program(context: click.Context, version: bool) -> None:
    """Historical US stock bars from Alpaca in a plain Parquet store that always knows what it holds."""
    if version:
        from data_engine.version import __version__

        click.echo(f"data-engine {__version__}")
    elif context.invoked_subcommand is None:
        home.show()


for _command in (
    ingest.ingest,
    import_files.bring_in,
    update.update,
    actions.actions,
    status.status,
    index.index,
    verify.verify,
    audit.audit,
    query.query,
    remove.remove,
    report.report,
    sandbox.sandbox,
    demo.demo,
):
    program.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. No traceback leaves here, unless DATA_ENGINE_DEBUG is set."""
    try:
        code = program.main(
            args=list(arguments) if arguments is not None else None, prog_name="data-engine", standalone_mode=False
        )
    except click.ClickException as error:
        if _wants_json(arguments):
            print_json({"error": {"code": "bad_usage", "message": error.format_message()}})
        error.show(sys.stderr)
        return 2
    except click.Abort as error:
        # click makes one of every KeyboardInterrupt, of ours too.
        print_error(str(error.__cause__) if isinstance(error.__cause__, DataEngineError) else "interrupted")
        return 130
    except DataEngineError as error:
        if _wants_json(arguments) and not error.told:
            print_json({"error": {"code": error.code, "message": str(error)}})
        print_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        print_error("interrupted")
        return 130
    except BrokenPipeError:
        broken_pipe()
        return 0
    except Exception as error:
        if os.environ.get("DATA_ENGINE_DEBUG"):
            raise
        print_error(f"this is a fault of data-engine: {type(error).__name__}: {error} (DATA_ENGINE_DEBUG=1 shows where)")
        return 1
    return code if isinstance(code, int) else 0


def _wants_json(arguments: Sequence[str] | None) -> bool:
    return "--json" in (sys.argv[1:] if arguments is None else arguments)


def run() -> None:
    """Run as the console script. Threads that still wait for the network do not keep the process alive."""
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        broken_pipe()
    os._exit(code) if code == 130 else sys.exit(code)
