"""Load a command when it is named: the help of the program, and each command, load no other one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any

import click

from data_engine.cli.console import tune_allocator
from data_engine.cli.exit_codes import Group

_MODULES = {"import": "import_files"}  # a keyword of Python cannot name a function

_FETCHING = ("ingest", "update", "recheck", "audit")
"""The commands that decode megabytes of responses."""


class LazyCommands(MutableMapping[str, click.Command]):
    """Commands by name; each is imported at its first look-up, from the module of this package that has its name.

    Args:
        names: The names.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._loaded: dict[str, click.Command | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> click.Command:
        command = self._loaded[name]
        if command is None:
            if name in _FETCHING:
                tune_allocator()  # before the command reads its settings, or anything else loads pyarrow
            module = _MODULES.get(name, name)
            command = self._loaded[name] = getattr(import_module(f"data_engine.cli.{module}"), module)
        return command

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._loaded  # a Mapping would look the command up

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded)

    def __len__(self) -> int:
        return len(self._loaded)


class LazyGroup(Group):
    """A group whose help lists its commands without loading them.

    Args:
        summaries: The line of each command in the help, by name.
        options: The keyword arguments of `Group`.
    """

    def __init__(self, *, summaries: Mapping[str, str], **options: Any) -> None:
        super().__init__(commands=LazyCommands(summaries), **options)
        self._summaries = summaries

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and their summaries."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._summaries[name]) for name in self.list_commands(ctx)])
