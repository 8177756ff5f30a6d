"""Serve the questions of `StoreTools` by the Model Context Protocol, on stdin and stdout, with the official SDK."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, cleandoc, signature
from typing import TYPE_CHECKING, Any

from data_engine.agents.store_tools import StoreTools
from data_engine.errors import ConfigError, DataEngineError
from data_engine.market.time_range import iso
from data_engine.version import __version__

if TYPE_CHECKING:
    from mcp.server import MCPServer

INSTRUCTIONS = (
    "Stored US stock bars from Alpaca. Every answer has `complete`, the number of sessions by state, what is `missing`, and a "
    "`digest` of what was read; quote them. An answer with complete=false, or truncated=true, is a part: say so. An error means "
    "that there is no answer, never that there were no trades. Provisional sessions may still change. Quote `notes`, and "
    "`conflicting`, the number of bars that Alpaca has revised or dropped since. Nothing can be written. "
    "A query has only the symbols and days that are passed to it: a zero, or no row, says nothing of others. SQL that names "
    "others is refused as far as that can be told; compare symbols and times with constants, not with subqueries. "
    "as_stored_on answers by what the store held then, not by what the market knew; quote its instant."
)

NAMES = ("held", "sessions", "bars", "query", "findings")
"""The tools about a state of the store: methods of `StoreTools`."""

_AS_STORED_ON = """
    as_stored_on: What the store held then: an instant with its zone, a day (its end in New York), or the name of a snapshot.
        If omitted, now.
"""


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
    marks = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
    for name in NAMES:
        server.add_tool(_refusing(_of_any_state(tools, name)), annotations=marks)
    server.add_tool(_refusing(tools.history), annotations=marks)
    return server


def _of_any_state(tools: StoreTools, name: str) -> Callable[..., dict[str, Any]]:
    """Return a tool that takes *as_stored_on*, too."""
    tool = getattr(tools, name)

    @wraps(tool)
    def called(*, as_stored_on: str | None = None, **arguments: Any) -> dict[str, Any]:
        if as_stored_on is None:
            answer: dict[str, Any] = tool(**arguments)
            return answer
        past = tools.as_of(as_stored_on)
        return {**getattr(past, name)(**arguments), "as_stored_on": iso(past.instant)}

    plain = signature(tool, eval_str=True)
    added = Parameter("as_stored_on", Parameter.KEYWORD_ONLY, default=None, annotation=str | None)
    called.__signature__ = plain.replace(parameters=[*plain.parameters.values(), added])  # type: ignore[attr-defined]
    called.__annotations__ = {**{one.name: one.annotation for one in plain.parameters.values()}, "as_stored_on": str | None}
    called.__annotations__["return"] = plain.return_annotation
    called.__doc__ = cleandoc(tool.__doc__ or "") + _AS_STORED_ON
    return called


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
