"""Tools, resources and prompts of MCP servers, in plain threads.

The Model Context Protocol, as a client::

    with mcp.Server.stdio(["my-server"]) as files, mcp.Server.http(url) as search:
        agent = Agent("helper", client=client, tools=[*files.tools(), *search.tools()])

Spoken is the stateless protocol of 2026-07-28, in which a call is one request; a
server that does not know it is spoken to as 2025-11-25 has it, and those before.

`server` is what a caller holds, over one of two connections: `http`, on the
library's transport (`posting`, one POST and its answer), and `stdio`, a child process
(`process`) and what is said to it (`dialogue`).  `messages` is JSON-RPC, `headers`
what HTTP repeats of it, `results` what comes back; `tool` makes a Tool of a
definition, `config` reads the usual file.  Left out, since the specification
deprecates them or they wait for no caller: roots, sampling, logging, subscriptions,
HTTP+SSE of 2024, OAuth (`headers` may be a function).
"""

from __future__ import annotations

from agentstream.mcp.config import Servers, load_servers
from agentstream.mcp.messages import MCPError
from agentstream.mcp.results import CallResult
from agentstream.mcp.server import Server, ServerInfo
from agentstream.mcp.tool import ServerTool

__all__ = [
    "CallResult",
    "MCPError",
    "Server",
    "ServerInfo",
    "ServerTool",
    "Servers",
    "load_servers",
]
