"""The client that the protocol's conformance suite runs: `python mcp_conformance_client.py URL`.

Which scenario it is, and what it needs, the suite says in the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any, Dict

from agentstream import mcp
from agentstream.errors import AgentStreamError
from agentstream.mcp import http

SAMPLES: Dict[str, Any] = {"string": "text", "integer": 3, "number": 1.5, "boolean": True}


def sample(schema: Dict[str, Any]) -> Dict[str, Any]:
    """Arguments that fit a schema: of each property a value."""
    found = {}
    for name, part in schema.get("properties", {}).items():
        kind = part.get("type") if isinstance(part, dict) else None
        found[name] = sample(part) if kind == "object" else SAMPLES.get(str(kind), "text")
    return found


def main(url: str) -> None:
    scenario = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    with mcp.Server.http(url) as server:
        if scenario in ("initialize", "sse-retry"):  # they take newer requests, and check nothing
            http._older.add(server._connection._origin)
        tools = server.tools()
        if scenario == "json-schema-2020-12-preservation":
            focal = next(tool for tool in tools if tool.remote_name == "json_schema_2020_12_tool")
            echo = next(tool for tool in tools if tool is not focal)
            server.call(echo.remote_name, {"schema": focal.parameters})
            return
        for call in context.get("toolCalls", ()):
            server.call(call["name"], call.get("arguments", {}))
        for tool in () if context.get("toolCalls") else tools:
            with contextlib.suppress(AgentStreamError):
                server.call(tool.remote_name, sample(tool.parameters))
        with contextlib.suppress(AgentStreamError):
            for resource in server.resources():
                server.read(resource["uri"])
        with contextlib.suppress(AgentStreamError):
            for prompt in server.prompts():
                server.prompt(prompt["name"], {a["name"]: "x" for a in prompt.get("arguments", ())})


main(sys.argv[-1])
