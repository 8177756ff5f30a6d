"""``sandbox``: a local server that speaks Alpaca's protocol."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import click

from data_engine.cli.console import print_err, stop_on_signal
from data_engine.cli.exit_codes import Command
from data_engine.cli.options import complete_file

if TYPE_CHECKING:
    from data_engine.sandbox import Sandbox
    from data_engine.sandbox.server import Record


@click.command(cls=Command, exits="0 1 2")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default="a free port", help="TCP port to listen on.")
@click.option(
    "--bars",
    metavar="FILE",
    multiple=True,
    shell_complete=complete_file,
    help="Parquet file of bars to replay. [default: simulated market]",
)
@click.option(
    "--actions", metavar="FILE", shell_complete=complete_file, help="JSON file of corporate actions to serve. [default: none]"
)
@click.option(
    "--listings",
    metavar="FILE",
    shell_complete=complete_file,
    help="CSV file of ticker,security,first,last: tickers that are passed on.",
)
@click.option(
    "--assets",
    metavar="FILE",
    shell_complete=complete_file,
    help="JSON file of the list of securities. [default: the symbols with bars]",
)
@click.option("--end-label", is_flag=True, help="Read the timestamps of --bars as the ends of the minutes.")
@click.option(
    "--plan",
    type=click.Choice(["free", "paid"]),
    default="paid",
    show_default=True,
    help="Subscription plan; free refuses the latest 15 minutes of SIP.",
)
@click.option("--rate", type=click.FloatRange(min=1), metavar="N", help="Maximum requests per minute. [default: none]")
@click.option("--no-limit-headers", is_flag=True, help="Omit the headers that state the rate limit.")
@click.option(
    "--latency",
    type=click.FloatRange(0, 60),
    default=0,
    show_default=True,
    metavar="SECONDS",
    help="Delay of each response.",
)
@click.option("--faults", metavar="SPEC", help="Faults to inject, as in 429=0.05,reset=0.02 or all=0.2. [default: none]")
@click.option("--key", metavar="KEY:SECRET", help="Credentials to accept. [default: any]")
@click.option("--log", is_flag=True, help="Print one line per request.")
def sandbox(
    port: int,
    bars: tuple[str, ...],
    actions: str | None,
    listings: str | None,
    assets: str | None,
    end_label: bool,
    plan: Literal["free", "paid"],
    rate: float | None,
    no_limit_headers: bool,
    latency: float,
    faults: str | None,
    key: str | None,
    log: bool,
) -> None:
    """Serve Alpaca's bar protocol locally until Ctrl-C.

    The bars are simulated, or read from a file. No data comes from Alpaca.
    """
    from data_engine.errors import InputError
    from data_engine.sandbox import Announcements, Assets, Faults, Listings, Replay, Sandbox, SimulatedMarket

    keys = None if key is None else _credentials(key)
    source = Replay(bars, end_label=end_label) if bars else SimulatedMarket()
    announcements = Announcements.read(actions) if actions is not None else None
    securities = Assets.read(assets) if assets is not None else None
    injected = Faults.parse(faults) if faults else None
    try:
        server = Sandbox(
            source,
            port=port,
            plan=plan,
            rate=rate,
            limit_headers=not no_limit_headers,
            latency=latency,
            faults=injected,
            keys=keys,
            actions=announcements,
            listings=Listings.read(listings) if listings is not None else None,
            assets=securities,
            on_request=_log if log else None,
        )
    except OSError as error:
        raise InputError(f"cannot use --port {port}: {error.strerror or error}; pass another port") from error
    pair = "ALPACA_API_KEY=any ALPACA_SECRET_KEY=any" if keys is None else "and the credentials of --key"
    with server, stop_on_signal():
        click.echo(f"Serving {', '.join(bars) or 'a simulated market'} at {server.url}")
        click.echo(f"Point data-engine at it: APCA_API_DATA_URL={server.url} APCA_API_BASE_URL={server.url} {pair}")
        _wait_for_interrupt(server)


def _credentials(key: str) -> dict[str, str]:
    from data_engine.errors import InputError

    name, _, secret = key.partition(":")
    if not name or not secret:
        raise InputError("cannot read --key: not of the form KEY:SECRET")  # without the value, which may be a secret
    return {name: secret}


def _log(record: Record) -> None:
    print_err(f"{record.status} {record.path} {record.rows} bars {record.fault or ''}")


def _wait_for_interrupt(server: Sandbox) -> None:
    from data_engine.market.wording import plural

    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        requests = sum(count for status, count in server.counts.items() if status != "rows")
        print_err(f"Stopped after {plural(requests, 'request')}, {server.counts['rows']:,} bars")
