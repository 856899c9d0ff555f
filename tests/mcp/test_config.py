"""load_servers: the file of "mcpServers" that many programs write."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from agentstream import ConfigError, mcp
from agentstream.testing import ScriptedMCP
from tests.kit.mcp_support import fault_server


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def written(tmp_path: pathlib.Path, value: Any) -> pathlib.Path:
    path = tmp_path / "mcp.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
    return path


def test_servers_of_both_kinds_are_loaded_used_and_closed(tmp_path: pathlib.Path) -> None:
    with ScriptedMCP(add) as script:
        command, *args = script.command
        servers = {
            "by process": {"command": command, "args": args, "env": {"A": "b"}, "autoApprove": []},
            "web": {"type": "http", "url": script.url, "headers": {"X-Key": "${KEY}"}},
            "plain": {"url": script.url},
            "off": {"command": "nothing", "disabled": True},
        }
        path = written(tmp_path, {"mcpServers": servers, "other": 1})
        with mcp.load_servers(path, environ={"KEY": "from outside"}) as loaded:
            assert list(loaded) == ["by process", "web", "plain"]
            assert [t.name for t in loaded.tools()] == ["by_process_add", "web_add", "plain_add"]
            assert loaded["by process"].call("add", {"a": 1, "b": 2}).text == "3"
            loaded["web"].tools()
            assert script.http.requests[-1].headers["X-Key"] == "from outside"
            pid = loaded["by process"]._connection.pid
            assert pid is not None
        assert loaded["by process"]._connection.pid is None
        assert repr(loaded) == "<Servers by process, web, plain>"


def test_the_other_key_a_byte_order_mark_and_defaults(tmp_path: pathlib.Path) -> None:
    text = '\ufeff{"servers": {"a": {"command": ["x", "y"], "args": ["${B:-z}"]}}}'
    with mcp.load_servers(written(tmp_path, text), environ={}) as loaded:
        assert loaded["a"]._connection._program.command == ("x", "y", "z")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("{", "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ({}, 'it has no "mcpServers"'),
        ([], 'it has no "mcpServers"'),
        ({"mcpServers": []}, 'it has no "mcpServers"'),
        ({"mcpServers": {"a": 5}}, "a: must be an object"),
        ({"mcpServers": {"a": {}}}, 'a: needs a "command" or a "url"'),
        ({"mcpServers": {"a": {"command": 5}}}, 'a: "command" must be a text'),
        ({"mcpServers": {"a": {"command": "x", "args": "y"}}}, 'a: "args" must be a list of texts'),
        ({"mcpServers": {"a": {"command": "x", "env": {"A": 1}}}}, 'a: "env" must be an object'),
        ({"mcpServers": {"a": {"command": "x", "cwd": 1}}}, 'a: "cwd" must be a text'),
        ({"mcpServers": {"a": {"url": "x", "type": "sse"}}}, "HTTP.SSE of 2024"),
        ({"mcpServers": {"a": {"url": "x", "type": "pipe"}}}, 'type must be "stdio" or "http"'),
        ({"mcpServers": {"a": {"url": "nonsense"}}}, "a: the base URL must look like"),
        ({"mcpServers": {"a": {"command": "${X}"}}}, "the environment has no X"),
    ],
)
def test_what_cannot_be_used(value: Any, why: str, tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, value)
    with pytest.raises(ConfigError, match=why) as caught:
        mcp.load_servers(path, environ={})
    assert str(path) in str(caught.value)


def test_all_problems_are_told_at_once_and_files_that_are_not_there(tmp_path: pathlib.Path) -> None:
    entries = {"a": {}, "b": {"command": "${NOT_GIVEN}"}, "c": {"command": "x"}}
    with pytest.raises(ConfigError) as caught:
        mcp.load_servers(written(tmp_path, {"mcpServers": entries}))
    assert [line.split(": ")[1] for line in str(caught.value).split("\n")] == ["a", "b"]
    assert "environ=os.environ" in str(caught.value)
    for name in ("missing.json", ".", "a\0b"):
        with pytest.raises(ConfigError, match="cannot be read"):
            mcp.load_servers(tmp_path / name)


def test_all_are_closed_though_one_resists() -> None:
    servers = mcp.Servers({"a": fault_server("stubborn"), "b": fault_server()})
    for server in servers.values():
        server.call("echo")
    with pytest.raises(RuntimeError):
        with servers:
            raise RuntimeError
    assert [server._connection.pid for server in servers.values()] == [None, None]
