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
    from data_engine.store.bar_store import BarStore

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
        first = self._command_at(args)
        if first is not None:
            rest = [*args[:first], *args[first + 1 :]]
            return self.commands[args[first]].make_context(f"{info_name} {args[first]}", rest, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def _command_at(self, args: list[str]) -> int | None:
        """Return the place of ``set`` or ``drop``, if that is the first argument besides options and their values."""
        known = [one for command in (self, *self.commands.values()) for one in command.params if isinstance(one, click.Option)]
        with_value = {name for one in known if not one.is_flag for name in one.opts}
        value = False
        for number, word in enumerate(args):
            if not value and not word.startswith("-"):
                return number if word in self.commands else None
            value = not value and word in with_value
        return None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the two commands below it, then what every command has."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(70)) for name, command in self.commands.items()])
        super().format_epilog(ctx, formatter)


def _names(symbol: str, day: str) -> tuple[str, date]:
    from data_engine.market.dates import parse_day
    from data_engine.market.symbol import check_symbol

    return check_symbol(symbol), parse_day(day, "--ex-date")


def _action(name: str, day: date, given: dict[str, str]) -> Action:
    """Return the action of a symbol that the one given option says.

    Raises:
        InputError: If it is not one option, or its value cannot be used.
    """
    from data_engine.corporate_actions.local_actions import local_action
    from data_engine.errors import InputError
    from data_engine.market.symbol import ticker_of

    if len(given) != 1:
        raise InputError("pass one of --split, --dividend, --stock-dividend and --spin-off")
    symbol = ticker_of(name)
    ((option, text),) = given.items()
    if option == "dividend":
        return local_action("cash_dividend", symbol, day, {"rate": text})
    if option == "stock_dividend":
        return local_action("stock_dividend", symbol, day, {"rate": text})
    first, colon, second = text.partition(":")
    if not colon:
        raise InputError(f"cannot use --{option.replace('_', '-')} {text!r}: it has two parts with a colon between, as in 10:1")
    if option == "spin_off":
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
    _update(settings, symbol, lambda known: with_change(known.local, change), wait, as_json, change)


def _update(
    settings: Settings,
    symbol: str,
    make: Callable[[SymbolActions], tuple[LocalChange, ...]],
    wait: float,
    as_json: bool,
    change: LocalChange | None = None,
) -> None:
    """Change the local changes of a symbol, and print those it has now, and if a drop leaves out nothing."""
    from dataclasses import replace

    from data_engine.corporate_actions.action_store import ActionStore
    from data_engine.corporate_actions.local_actions import dump, replaced
    from data_engine.market.symbol import ticker_of

    store, ticker = open_store(settings), ticker_of(symbol)
    warn_writer(store.files)
    actions = ActionStore(store.files)
    with store.files.lock(RUN_LOCK, seconds=wait):
        known = actions.read(ticker)
        found = [] if change is None else replaced(known.actions, known.local, change, ticker)
        if change is not None and (change.action is not None or not found):
            _check_ticker(store, symbol, change.ex_date)
        known = actions.update(ticker, lambda known: replace(known, local=make(known)))
    if as_json:
        print_json({"symbol": ticker, "local": dump(known.local), "replaced": [str(one) for one in found]})
        return
    for line in [one.text(ticker) for one in known.local] or [f"{ticker}: no local changes"]:
        click.echo(line)
    if change is not None and change.action is None and not found:
        click.echo(
            f"No such action of {ticker} on {change.ex_date} is stored: the change leaves out what Alpaca may return later"
        )


def _check_ticker(store: BarStore, symbol: str, day: date) -> None:
    """Raise if a change for a symbol could not count on a day.

    Raises:
        InputError: If its security had another ticker then; the message names it.
    """
    from data_engine.corporate_actions.ticker_of_day import ticker_of_day
    from data_engine.errors import InputError
    from data_engine.market.symbol import ticker_of

    ticker = ticker_of_day(store, symbol, day)
    if ticker != ticker_of(symbol):
        raise InputError(
            f"cannot change actions of {symbol} on {day}: its security had the ticker {ticker} then; pass {ticker} in its place, "
            f"or {ticker_of(symbol)}@{day} for another security that had the ticker {ticker_of(symbol)}"
        )
