"""Serve the questions of `StoreTools` by the Model Context Protocol, on stdin and stdout, with the official SDK."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from data_engine.agents.store_tools import StoreTools
from data_engine.errors import ConfigError, DataEngineError
from data_engine.version import __version__

if TYPE_CHECKING:
    from mcp.server import MCPServer

INSTRUCTIONS = (
    "Stored US stock bars from Alpaca. Every answer has `complete`, the number of sessions by state, what is `missing`, and a "
    "`digest` of what was read; quote them. An answer with complete=false, or truncated=true, is a part: say so. An error means "
    "that there is no answer, never that there were no trades. Provisional sessions may still change. Nothing can be written."
)

NAMES = ("held", "sessions", "bars", "query", "findings")
"""The tools: methods of `StoreTools`."""


def make_server(tools: StoreTools) -> MCPServer[Any]:
    """Return the server of a store.

    Raises:
        ConfigError: If the SDK is not installed.
    """
    try:
        from mcp.server import MCPServer
        from mcp.types import ToolAnnotations
    except ImportError:
        raise ConfigError("cannot serve agents: the MCP SDK is not installed; run `pip install '.[mcp]'`") from None
    server: MCPServer[Any] = MCPServer("data-engine", version=__version__, instructions=INSTRUCTIONS, log_level="CRITICAL")
    for name in NAMES:
        marks = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
        server.add_tool(_refusing(getattr(tools, name)), annotations=marks)
    return server


def _refusing(tool: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Return a tool whose errors reach the agent as text."""
    from mcp.server.mcpserver.exceptions import ToolError

    @wraps(tool)
    def called(**arguments: Any) -> dict[str, Any]:
        try:
            return tool(**arguments)
        except DataEngineError as error:
            raise ToolError(f"{error.code}: {error}") from error

    return called
