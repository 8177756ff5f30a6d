"""``mcp``: a server for agents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from data_engine.cli.exit_codes import Command
from data_engine.cli.options import open_store, with_settings

if TYPE_CHECKING:
    from data_engine.settings import Settings


@click.command(cls=Command, exits="0 1 2 4 130")
@with_settings
def mcp(settings: Settings, as_json: bool) -> None:
    """Serve the store to agents, read-only.

    Speaks the Model Context Protocol on stdin and stdout. An agent starts this command; it is not for a terminal. The tools are
    held, sessions, bars, query, findings and history. Needs the package mcp.
    """
    from data_engine.agents.mcp_server import make_server
    from data_engine.agents.store_tools import StoreTools
    from data_engine.cli.output import raw_streams
    from data_engine.errors import InputError
    from data_engine.read.parquet_storage import ParquetStorage

    if as_json:
        raise InputError("cannot use --json: `mcp` speaks its protocol on stdout; omit it")
    store = open_store(settings)
    server = make_server(StoreTools(ParquetStorage(files=store.files)))
    with raw_streams():
        server.run("stdio")
