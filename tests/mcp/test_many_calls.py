"""Calls from ten threads, over one server: none lost, none crossed; stress/mcp_calls.py has more."""

from __future__ import annotations

import pytest

from agentstream import mcp
from agentstream.testing import ScriptedMCP
from stress.mcp_calls import call_many, echo


@pytest.mark.parametrize("way", ["stdio", "http"])
@pytest.mark.parametrize("protocol", ["2026-07-28", "2025-11-25"])
def test_calls_from_ten_threads_find_their_answers(way: str, protocol: str) -> None:
    with ScriptedMCP(echo, protocol=protocol) as script:
        stdio = mcp.Server.stdio(script.command)
        with stdio if way == "stdio" else mcp.Server.http(script.url) as server:
            ends = call_many(server, 120)
    assert set(ends) <= {"answered", "cancelled"}
    assert ends["answered"] >= 105
