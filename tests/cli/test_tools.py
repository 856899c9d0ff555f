"""agentstream tools, and what check says of MCP servers."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, Iterator

import pytest

from agentstream.errors import ToolError
from agentstream.testing import ScriptedMCP
from tests.kit.mcp_support import KIT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


def add(a: int, b: int = 1) -> int:
    """Add two numbers.

    And say so.
    """
    return a + b


def fail() -> str:
    """Fail."""
    raise ToolError("out of luck")


@pytest.fixture
def script() -> Iterator[ScriptedMCP]:
    with ScriptedMCP(add, fail) as made:
        yield made


REST = '[agents.a]\ntools = ["m:*"]\n[[steps]]\nagent = "a"\n'


@pytest.fixture
def file(cli: Any, script: ScriptedMCP) -> Iterator[str]:
    cli.write("own.py", 'def shout(text: str) -> str:\n    """Shout."""\n    return text.upper()\n')
    table = f'[mcp.m]\nurl = "{script.url}"\n[tools.shout]\nimport = "own:shout"\n'
    yield cli.write("w.toml", table + REST)
    sys.modules.pop("own", None)


def test_tools_are_listed_and_tried(here: Any, file: str, script: ScriptedMCP) -> None:
    listed = here("tools", file)
    assert listed.out == "shout  Shout.\nm:add  Add two numbers. And say so.\nm:fail  Fail.\n"
    assert here("tools", file, "m:add", '{"a": 2, "b": 3}').out == "5\n"
    assert here("tools", file, "m:add", "a=2").out == "3\n"
    assert here("tools", file, "add", "a=4", "b=5").out == "9\n"
    assert here("tools", file, "shout", "text=hello").out == "HELLO\n"
    assert script.calls[-1] == ("add", {"a": 4, "b": 5})


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["m:fail"], 1, "fail failed: out of luck"),
        (["m:add", "a=x"], 2, 'argument "a" must be an integer'),
        (["m:add", "a"], 2, "a JSON object, or KEY=VALUE, not 'a'"),
        (["m:add", "{"], 2, "cannot be read"),
        (["m:ad"], 2, "there is no tool 'm:ad'; did you mean 'm:add'?"),
        (["ad"], 2, "there is no tool 'ad'; there is: shout, m:add, m:fail"),
    ],
)
def test_what_does_not_work(here: Any, file: str, words: Any, code: int, why: str) -> None:
    tried = here("tools", file, *words, code=code)
    assert why in tried.line
    assert tried.out == ""


def test_a_file_of_many_programs(cli: Any, here: Any, script: ScriptedMCP) -> None:
    command, *args = script.command
    servers = {"one": {"command": command, "args": args}, "two": {"url": script.url}}
    path = cli.write("mcp.json", json.dumps({"mcpServers": servers}))
    assert "two:add  Add" in here("tools", path).out
    assert here("tools", path, "one:add", "a=1").out == "2\n"
    assert "which add? There is one:add, two:add" in here("tools", path, "add", code=2).line
    assert "--set is for workflow files" in here("tools", path, "--set", "a=1", code=2).line


def test_check_lists_what_servers_offer(cli: Any, here: Any, file: str) -> None:
    checked = here("check", file)
    assert "Its MCP servers offer:\nm:add  Add two numbers. And say so.\nm:fail" in checked.out
    assert "flowchart TD" in checked.out
    assert "MCP servers:\n  m: at http://127.0.0.1" in checked.out
    assert "Its MCP servers offer" not in here("check", file, "--offline").out
    assert "Its MCP servers offer" not in here("check", file, "--mermaid").out
    silent = cli.write("s.toml", '[mcp.m]\nurl = "http://127.0.0.1:9"\n' + REST)
    failed = here("check", silent, code=1)
    assert "[mcp.m]: cannot connect" in failed.line
    assert "flowchart TD" in failed.out
    outer = cli.write("outer.toml", '[[steps]]\nworkflow = "w.toml"\n')
    assert "m:add" in here("check", outer).out


def test_ctrl_c_ends_a_try_and_its_server_within_a_second(cli: Any) -> None:
    command = [sys.executable, "-S", "-E", str(KIT / "mcp_faults.py"), "stubborn"]
    path = cli.write("w.toml", f"[mcp.m]\ncommand = {json.dumps(command)}\n{REST}")
    running = cli.start("tools", path, "m:hang", "-v")
    running.expect(" hangs")
    pid = int(running.err.partition("m: pid ")[2].split()[0])
    running.send(signal.SIGINT)
    assert running.finish() == 130
    assert running.ended - running.began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
