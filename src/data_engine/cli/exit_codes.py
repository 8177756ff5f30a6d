"""Define the exit codes, and commands whose help lists those that apply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from data_engine.errors import CredentialsRefused, InputError, Interrupted, SourceUnavailable, StoreBusy, StoreError

OK, FAILED, INCONSISTENT = 0, 1, 5

MEANINGS = {
    OK: "Success.",
    FAILED: "Some symbols or files failed, or an internal error.",
    InputError.exit_code: "Bad usage, input or configuration.",
    CredentialsRefused.exit_code: "Alpaca refused the credentials.",
    StoreError.exit_code: "The store cannot be found, read or written.",
    INCONSISTENT: "The store is inconsistent.",
    SourceUnavailable.exit_code: "Alpaca cannot be reached, after bounded retries.",
    StoreBusy.exit_code: "The store is locked by another process.",
    Interrupted.exit_code: "Interrupted by Ctrl-C or SIGTERM.",
}


Ended = Callable[[int, BaseException | None], object]
"""Is told the exit code of the process, and what has changed it after the command had ended: commands add theirs to the list
that is the object of the click context. Only `main` knows the exit code, since output that cannot be written is an error, too."""


INTERNAL_ERROR = "Internal error."
"""The meaning of `FAILED` for a command that does all of its work or none."""


def of_failures(codes: set[str], *, all_failed: bool = False) -> int:
    """Return the exit code of a command that failed for some of its symbols or files.

    Args:
        codes: The codes of the failures.
        all_failed: Whether nothing succeeded.
    """
    if all_failed and codes == {SourceUnavailable.code}:
        return SourceUnavailable.exit_code
    return FAILED if codes else OK


class Command(click.Command):
    """A command whose help lists its exit codes.

    Args:
        arguments: The arguments of `click.Command`.
        exits: The exit codes, separated by spaces. If empty, all.
        partial: Whether the command may succeed for some symbols or files and fail for others.
        options: The keyword arguments of `click.Command`.
    """

    def __init__(self, *arguments: Any, exits: str = "", partial: bool = False, **options: Any) -> None:
        # click keeps the help option as it is made first: it must not depend on whether a command was parsed below its group.
        options["context_settings"] = {"help_option_names": ["-h", "--help"], **(options.get("context_settings") or {})}
        super().__init__(*arguments, **options)
        self.exit_codes = tuple(map(int, exits.split())) or tuple(MEANINGS)
        self.meanings = MEANINGS if partial else {**MEANINGS, FAILED: INTERNAL_ERROR}

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit codes, then the epilog."""
        with formatter.section("EXIT STATUS"):
            formatter.write_dl([(str(code), self.meanings[code]) for code in self.exit_codes])
        super().format_epilog(ctx, formatter)


class Group(Command, click.Group):
    """A group of commands whose help lists the exit codes of all of them."""

    command_class = Command


class DefaultGroup(Group):
    """A group one of whose commands may be left out: ``history AAPL`` is ``history show AAPL``.

    Args:
        arguments: The arguments of `click.Group`.
        default: The name of that command.
        options: The keyword arguments of `Group`.
    """

    def __init__(self, *arguments: Any, default: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._default = default

    @property
    def default_command(self) -> click.Command:
        """The command that may be left out."""
        return self.commands[self._default]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words after the name of the group; if they name no command, they are those of the default one."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [self._default, *args]
        return super().parse_args(ctx, args)
