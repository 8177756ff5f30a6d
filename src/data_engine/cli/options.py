"""Define the options that several commands share, and open the store that they name."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from data_engine.cli.console import print_store, print_unseen_store
from data_engine.cli.values import ADJUSTMENT, FEED, TIMEFRAME
from data_engine.store.waiting import MOST_SECONDS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from data_engine.settings import Settings
    from data_engine.store.bar_store import BarStore

_F = TypeVar("_F", bound=Callable[..., Any])


def _together(*decorators: Callable[[Any], Any]) -> Callable[[_F], _F]:
    """Return one decorator for several options, listed by the help in this order."""

    def add(command: _F) -> _F:
        made: _F = reduce(lambda made, decorator: decorator(made), reversed(decorators), command)
        return made

    return add


def _completed_by_shell(kind: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return what has the shell complete a name: of a ``file`` or of a ``dir``. A type of click would also check the value."""

    def complete(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type=kind)]

    return complete


complete_file, complete_folder = _completed_by_shell("file"), _completed_by_shell("dir")

symbols_argument = click.argument("symbols", nargs=-1, metavar="[SYMBOL ...]")

store_options = _together(
    click.option(
        "--base-path",
        metavar="DIR",
        shell_complete=complete_folder,
        help="Directory or s3:// URL of the store. [env: DATA_ENGINE_BASE_PATH]",
    ),
    click.option(
        "--settings",
        "settings_path",
        metavar="FILE",
        shell_complete=complete_file,
        help="Settings file. [env: DATA_ENGINE_SETTINGS]",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; text goes to stderr."),
)

filter_options = _together(
    click.option("--timeframe", type=TIMEFRAME, metavar="T", help="Only datasets of this timeframe, such as 1Min or 1Day."),
    click.option("--feed", type=FEED, metavar="F", help="Only datasets of this feed, such as sip or iex."),
    click.option("--adjustment", type=ADJUSTMENT, metavar="A", help="Only datasets of this adjustment, such as raw or split."),
)

dataset_options = _together(
    click.option(
        "--timeframe",
        type=TIMEFRAME,
        metavar="T",
        default="1Min",
        show_default=True,
        help="Length of a bar: 1Min to 59Min, 1Hour to 23Hour, 1Day, 1Week, 1Month.",
    ),
    click.option(
        "--feed",
        type=FEED,
        metavar="F",
        help="Feed: sip, iex, otc, boats, delayed_sip or account. [default: sip] [env: DATA_ENGINE_FEED]",
    ),
    click.option(
        "--adjustment",
        type=ADJUSTMENT,
        metavar="A",
        help="Adjustment: raw, split, dividend, spin-off, a list of these, or all. [default: raw]",
    ),
)

rate_option = click.option(
    "--requests-per-minute",
    metavar="N",
    help="Maximum requests per minute. [default: account limit] [env: DATA_ENGINE_REQUESTS_PER_MINUTE]",
)

dry_run_option = click.option("--dry-run", is_flag=True, help="Print what would be done; send and write nothing.")


class _Seconds(click.FloatRange):
    """Seconds to wait; not NaN, which is neither below nor above a bound, so that a wait for it would never end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if seconds != seconds:
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


def wait_option(seconds: int = 0) -> Callable[[_F], _F]:
    """Return the option for how long to wait for the lock of the store.

    Args:
        seconds: The default.
    """
    return click.option(
        "--wait",
        type=_Seconds(0, MOST_SECONDS),
        default=seconds,
        show_default=True,
        metavar="SECONDS",
        help="Maximum wait for a store that another process has locked.",
    )


def request_options(seconds: int = 0) -> Callable[[_F], _F]:
    """Return the options of a command that fetches bars.

    Args:
        seconds: The default of ``--wait``. It is 0 for a nightly job, which must not pile up behind a backfill of days.
    """
    return _together(
        click.option(
            "--workers",
            metavar="N",
            help="Concurrent requests, 1 to 256. [default: by operating system] [env: DATA_ENGINE_THREADS]",
        ),
        rate_option,
        wait_option(seconds),
    )


actions_option = click.option(
    "--no-actions", is_flag=True, help="Do not fetch corporate actions first, which else happens once a day."
)

cluster_option = click.option(
    "--dask",
    metavar="ADDRESS",
    help="Dask scheduler whose workers fetch and write, as in tcp://HOST:8786. The address local starts one process per core.",
)


def number(text: str | None, option: str) -> int | None:
    """Return the whole number that an option was given.

    Raises:
        ConfigError: If *text* is not a whole number.
    """
    from data_engine.errors import ConfigError

    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{option} must be a whole number, not {text!r}") from None


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a command that uses a store, and pass it the settings as *settings*.

    The values of ``--workers`` and ``--requests-per-minute`` are in the settings, and are not passed.
    """

    @store_options
    @wraps(command)
    def read(*arguments: Any, base_path: str | None, settings_path: str | None, **options: Any) -> None:
        from data_engine.settings import load_settings

        settings = load_settings(
            base_path=base_path,
            settings_path=settings_path,
            workers=options.pop("workers", None),
            requests_per_minute=options.pop("requests_per_minute", None),
        )
        command(*arguments, settings=settings, **options)

    return read


def with_store(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a command that uses a store that exists, and pass it the open store as *store*.

    Symbols are passed as *names* (None for all), and the options of `filter_options` as *datasets*, a `DatasetFilter`.
    """
    return _with_store(command, legacy=False)


def with_any_store(command: Callable[..., None]) -> Callable[..., None]:
    """Do what `with_store` does for a command that also has something to say of a folder that the legacy pipeline wrote."""
    return _with_store(command, legacy=True)


def _with_store(command: Callable[..., None], *, legacy: bool) -> Callable[..., None]:
    @with_settings
    @wraps(command)
    def opened(*arguments: Any, settings: Settings, **options: Any) -> None:
        store = open_store(settings, legacy=legacy)
        command(*arguments, store=store, **parse_selection(options))

    return opened


def as_stored_on_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--as-stored-on``."""
    return click.option(
        "--as-stored-on",
        metavar="WHEN",
        help="What the store held then: an instant, a day or a snapshot. [default: now]",
    )(command)


def open_store(settings: Settings, *, must_exist: bool = True, legacy: bool = False, quiet: bool = False) -> BarStore:
    """Open the store, name it on stderr, and return it.

    Args:
        settings: The settings that say where the store is.
        must_exist: Whether a store that does not exist is an error.
        legacy: Whether a folder that only the legacy pipeline wrote is a store.
        quiet: Whether to name it only if a settings file of the working directory chose it.

    Raises:
        StoreError: If there is no store.
    """
    from data_engine.store.bar_store import BarStore
    from data_engine.store.location import open_file_store

    store = BarStore(open_file_store(settings.base_path))
    (print_unseen_store if quiet else print_store)(settings, store.files)
    if must_exist:
        store.check_exists(legacy=legacy)
    return store


def parse_selection(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a command with symbols as *names*, and timeframe, feed and adjustment as *datasets*.

    Raises:
        InputError: If a symbol or a name of a dataset cannot be used, or both symbols and an index are given.
    """
    from data_engine.errors import InputError
    from data_engine.store.selection import DatasetFilter
    from data_engine.universe.symbol_lists import SymbolLoader

    parsed = dict(options)
    if "symbols" in parsed:
        symbols = parsed.pop("symbols")
        if symbols and parsed.get("index_name") is not None:
            raise InputError("cannot use SYMBOL together with --index; pass one of them")
        parsed["names"] = SymbolLoader.from_list(symbols) if symbols else None
    if "timeframe" in parsed:
        parsed["datasets"] = DatasetFilter.parse(*(parsed.pop(name) for name in ("timeframe", "feed", "adjustment")))
    return parsed
