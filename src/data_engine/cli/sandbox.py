"""``sandbox``: a local server that speaks Alpaca's protocol."""

from __future__ import annotations

import time

import click

from data_engine.cli.console import print_err, stop_on_signal


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Listen here; 0 takes a free port.")
@click.option(
    "--bars",
    "bars",
    metavar="FILE",
    multiple=True,
    help="Replay real bars from a Parquet file, in place of the simulated market.",
)
@click.option("--actions", "actions", metavar="FILE", help="Serve the corporate actions of a JSON file like Alpaca's answers.")
@click.option("--end-label", is_flag=True, help="The file stamps the end of each minute.")
@click.option(
    "--plan",
    type=click.Choice(["free", "paid"]),
    default="paid",
    show_default=True,
    help="free refuses the latest 15 minutes of SIP.",
)
@click.option("--rate", type=click.FloatRange(min=1), metavar="N", help="Allow N requests a minute. Default: no limit.")
@click.option("--no-limit-headers", is_flag=True, help="Do not say what the limit is.")
@click.option("--latency", type=click.FloatRange(0, 60), default=0.0, metavar="SECONDS", help="Hold every answer back this long.")
@click.option("--faults", "faults", metavar="SPEC", help="Misbehave on purpose: 429=0.05,reset=0.02 or all=0.2.")
@click.option("--key", metavar="KEY:SECRET", help="Accept these credentials alone. Default: any.")
@click.option("--log", is_flag=True, help="Print a line per request.")
def sandbox(
    port: int,
    bars: tuple[str, ...],
    actions: str | None,
    end_label: bool,
    plan: str,
    rate: float | None,
    no_limit_headers: bool,
    latency: float,
    faults: str | None,
    key: str | None,
    log: bool,
) -> None:
    """Serve bars as Alpaca would, from a simulated market or a file, until Ctrl-C. Nothing in it is Alpaca's."""
    from data_engine.errors import InputError
    from data_engine.sandbox import Announcements, Faults, Replay, Sandbox, SimulatedMarket

    keys = None
    if key is not None:
        name, _, secret = key.partition(":")
        if not name or not secret:
            raise InputError("--key takes KEY:SECRET")
        keys = {name: secret}
    try:
        source = Replay(bars, end_label=end_label) if bars else SimulatedMarket()
        server = Sandbox(
            source,
            port=port,
            plan="free" if plan == "free" else "paid",
            rate=rate,
            limit_headers=not no_limit_headers,
            latency=latency,
            faults=Faults.parse(faults) if faults else None,
            keys=keys,
            actions=None if actions is None else Announcements.read(actions),
            on_request=(lambda record: print_err(f"{record.status} {record.path} {record.rows} bars {record.fault or ''}"))
            if log
            else None,
        )
    except InputError:
        raise  # among them a file that is not there, which is an OSError, too
    except OSError as error:
        raise InputError(f"port {port} cannot be used: {error.strerror or error}") from error
    with server, stop_on_signal():
        what = ", ".join(bars) if bars else "a simulated market"
        click.echo(f"Serving {what} at {server.url}")
        pair = "ALPACA_API_KEY=any ALPACA_SECRET_KEY=any" if keys is None else "and the credentials that --key names"
        click.echo(f"Point data-engine at it: APCA_API_DATA_URL={server.url} {pair}")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            counts = server.counts
            requests = sum(count for status, count in counts.items() if status != "rows")
            print_err(f"Stopped after {requests} requests, {counts['rows']:,} bars")
