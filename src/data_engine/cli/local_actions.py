"""``actions set`` and ``actions drop``: local changes of corporate actions, for what Alpaca has wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from data_engine.cli.console import print_json, warn_writer
from data_engine.cli.exit_codes import Command
from data_engine.cli.options import open_store, wait_option, with_settings
from data_engine.cli.values import EX_DATE
from data_engine.store.run_lock import RUN_LOCK

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

    from data_engine.corporate_actions.local_actions import LocalChange
    from data_engine.corporate_actions.symbol_actions import SymbolActions
    from data_engine.market.corporate_action import Action
    from data_engine.settings import Settings

_KINDS = ("split", "dividend", "spin-off", "name-change", "end")

_ex_date = click.option(
    "--ex-date", "day", type=EX_DATE, metavar="DATE", required=True, help="First day at the new price, in New York."
)
_because = click.option("--because", metavar="TEXT", required=True, help="Reason, stored with the change.")


@click.command("set", cls=Command, exits="0 1 2 4 7 130")
@click.argument("symbol", metavar="SYMBOL")
@_ex_date
@click.option("--split", metavar="NEW:OLD", help="Split: shares afterwards for shares before, as in 1:15.")
@click.option("--dividend", metavar="RATE", help="Cash dividend per share, in US dollars.")
@click.option("--stock-dividend", metavar="RATE", help="New shares per share, as in 0.05.")
@click.option("--spin-off", metavar="CHILD:RATIO", help="Spun-off symbol, and its shares per share, as in SOLV:0.25.")
@_because
@wait_option()
@with_settings
def set_action(
    settings: Settings,
    symbol: str,
    day: str,
    split: str | None,
    dividend: str | None,
    stock_dividend: str | None,
    spin_off: str | None,
    because: str,
    wait: float,
    as_json: bool,
) -> None:
    """Record a corporate action in place of Alpaca's.

    It replaces Alpaca's actions of its kind on that day, also after --refetch. Pass one of --split, --dividend, --stock-dividend
    and --spin-off.
    """
    values = {"split": split, "dividend": dividend, "stock_dividend": stock_dividend, "spin_off": spin_off}
    given = {name: text for name, text in values.items() if text is not None}
    name, ex_date = _names(symbol, day)
    action = _action(name, ex_date, given)
    kind = "spin-off" if "spin_off" in given else "dividend" if "dividend" in given else "split"
    _store(settings, name, ex_date, (kind,), action, because, wait, as_json)


@click.command("drop", cls=Command, exits="0 1 2 4 7 130")
@click.argument("symbol", metavar="SYMBOL")
@_ex_date
@click.option("--kind", type=click.Choice(_KINDS), help="Only actions of this kind. [default: all of that day]")
@click.option("--undo", is_flag=True, help="Remove the local changes of that day, so that Alpaca's actions count again.")
@_because
@wait_option()
@with_settings
def drop_action(
    settings: Settings, symbol: str, day: str, kind: str | None, undo: bool, because: str, wait: float, as_json: bool
) -> None:
    """Leave out corporate actions of a symbol on a day.

    Alpaca's actions of that day do not count, also after --refetch, nor do those that `actions set` recorded.
    """
    name, ex_date = _names(symbol, day)
    kinds = _KINDS if kind is None else (kind,)
    if undo:
        from data_engine.corporate_actions.local_actions import without

        _update(settings, name, lambda known: without(known.local, ex_date, kinds), wait, as_json)
        return
    _store(settings, name, ex_date, kinds, None, because, wait, as_json)


class WithLocalChanges(Command):
    """The command ``actions``, whose first argument may be ``set`` or ``drop``; symbols of that name are written in capitals."""

    commands = {"set": set_action, "drop": drop_action}  # noqa: RUF012 - click has commands as a dict

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the arguments, those of ``set`` or ``drop`` by their own command."""
        if args and args[0] in self.commands:
            return self.commands[args[0]].make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the two commands below it, then what every command has."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(70)) for name, command in self.commands.items()])
        super().format_epilog(ctx, formatter)


def _names(symbol: str, day: str) -> tuple[str, date]:
    from data_engine.market.dates import parse_day
    from data_engine.market.symbol import check_symbol, ticker_of

    return ticker_of(check_symbol(symbol)), parse_day(day, "--ex-date")


def _action(symbol: str, day: date, given: dict[str, str]) -> Action:
    """Return the action of the one option that was given.

    Raises:
        InputError: If it is not one option, or its value cannot be used.
    """
    from data_engine.corporate_actions.local_actions import local_action
    from data_engine.errors import InputError

    if len(given) != 1:
        raise InputError("pass one of --split, --dividend, --stock-dividend and --spin-off")
    ((name, text),) = given.items()
    if name == "dividend":
        return local_action("cash_dividend", symbol, day, {"rate": text})
    if name == "stock_dividend":
        return local_action("stock_dividend", symbol, day, {"rate": text})
    first, colon, second = text.partition(":")
    if not colon:
        raise InputError(f"cannot use --{name.replace('_', '-')} {text!r}: it has two parts with a colon between, as in 10:1")
    if name == "spin_off":
        values = {"new_symbol": first.strip().upper(), "new_rate": second, "source_rate": 1}
        return local_action("spin_off", symbol, day, values)
    made = local_action("forward_split", symbol, day, {"new_rate": first, "old_rate": second})
    smaller = float(first) < float(second)
    return local_action("reverse_split", symbol, day, {"new_rate": first, "old_rate": second}) if smaller else made


def _store(
    settings: Settings,
    symbol: str,
    day: date,
    kinds: tuple[str, ...],
    action: Action | None,
    because: str,
    wait: float,
    as_json: bool,
) -> None:
    from datetime import UTC, datetime

    from data_engine.corporate_actions.local_actions import LocalChange, with_change
    from data_engine.errors import InputError

    if not because.strip():
        raise InputError("cannot record a change without a reason; pass --because TEXT")
    change = LocalChange(day, kinds, action, because.strip(), datetime.now(UTC).replace(microsecond=0))
    _update(settings, symbol, lambda known: with_change(known.local, change), wait, as_json)


def _update(
    settings: Settings, symbol: str, change: Callable[[SymbolActions], tuple[LocalChange, ...]], wait: float, as_json: bool
) -> None:
    """Change the local changes of a symbol, and print those it has now."""
    from dataclasses import replace

    from data_engine.corporate_actions.action_store import ActionStore
    from data_engine.corporate_actions.local_actions import dump

    store = open_store(settings)
    warn_writer(store.files)
    with store.files.lock(RUN_LOCK, seconds=wait):
        known = ActionStore(store.files).update(symbol, lambda known: replace(known, local=change(known)))
    if as_json:
        print_json({"symbol": symbol, "local": dump(known.local)})
        return
    for line in [one.text(symbol) for one in known.local] or [f"{symbol}: no local changes"]:
        click.echo(line)
