"""What a call of an MCP server's tool costs in CPU, over HTTP and stdio, without the server's."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any, Callable, Dict

import requests

from agentstream import mcp

_SERVER = """
import sys
from agentstream.testing import ScriptedMCP

def add(a: int, b: int) -> int:
    return a + b

with ScriptedMCP(add) as script:
    print(script.url, *script.command, sep="\\n", flush=True)
    sys.stdin.read()
"""


def mcp_calls(calls: int) -> Dict[str, float]:
    """CPU microseconds a call, in this process, of so many calls one after the other.

    "requests" is the POST alone, by a session of requests, whose answer is parsed.
    """
    child = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        command = [child.stdout.readline().strip() for _ in range(4)]
        with mcp.Server.http(url) as web, mcp.Server.stdio(command) as process:
            found = {
                "http": _us_a_call(lambda: web.call("add", {"a": 1, "b": 2}), calls),
                "stdio": _us_a_call(lambda: process.call("add", {"a": 1, "b": 2}), calls),
                "requests": _us_a_call(_bare(url), calls),
            }
        child.stdin.close()
    return found


def _us_a_call(call: Callable[[], Any], calls: int) -> float:
    for _ in range(20):  # imports, connections, caches
        call()
    began = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - began) / calls * 1e6


def _bare(url: str) -> Callable[[], Any]:
    session = requests.Session()
    session.trust_env = False
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": "add", "arguments": {"a": 1, "b": 2}, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    headers = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "add",
    }
    return lambda: json.loads(session.post(url, data=body, headers=headers).content)
