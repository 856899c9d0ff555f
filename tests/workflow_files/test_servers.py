"""[mcp.NAME] in workflow files: what is wrong with one, and agents that have tools of one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentstream import Runtime
from agentstream.errors import ConfigError, ConnectError
from agentstream.testing import ScriptedMCP, ScriptedServer
from agentstream.workflow_files import load_workflow

REST = """
[agents.a]
tools = [{tools}]
[[steps]]
agent = "a"
"""


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def read_file(path: str) -> str:
    """Read a file."""
    return f"what {path} holds"


def with_tools(table: str, *tools: str) -> str:
    return table + REST.format(tools=", ".join(f'"{name}"' for name in tools))


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("[mcp.m]", "[mcp.m] command: or url is needed, one of them"),
        ('[mcp.m]\ncommand = ["x"]\nurl = "http://x"', "[mcp.m] command: or url is needed"),
        ('[mcp.m]\ncommand = "npx server"', "[mcp.m] command: must be a list of texts"),
        ("[mcp.m]\ncommand = []", "[mcp.m] command: must begin with a program"),
        ('[mcp.m]\nurl = "example.com"', "[mcp.m] url: must look like http://"),
        ('[mcp.m]\ncommand = ["x"]\nargs = ["y"]', "[mcp.m] args: belongs into command"),
        ('[mcp.m]\ncommand = ["x"]\nheaders = {A = "b"}', "[mcp.m] headers: unknown key"),
        ('[mcp.m]\nurl = "http://x"\nenv = {A = "b"}', "[mcp.m] env: unknown key"),
        ('[mcp.m]\ncommand = ["x"]\nenv = {A = 5}', '[mcp.m] env.A: must be a text, or {env = '),
        ('[mcp.m]\nurl = "http://x"\nheaders = {A = 5}', "[mcp.m] headers.A: must be a text"),
        ('[mcp.m]\ncommand = ["x"]\nprefix = "a."', "[mcp.m] prefix: must be at most 32"),
        ('[mcp.m]\ncommand = ["x"]\nrestarts = -1', "[mcp.m] restarts: must be 0 or more"),
        ('[mcp.m]\ncommand = ["x"]\ntimeouts = {total = -1}', "[mcp.m] timeouts.total: must be"),
        ('[mcp.m]\ncommand = ["x"]\ntimeouts = {tptal = 1}', "did you mean 'total'?"),
        ('[mcp."a:b"]\ncommand = ["x"]', "needs a name, without a colon"),
        ("mcp = 5", "mcp: must be a table"),
        ("[mcp]\nm = 5", "[mcp.m]: must be a table"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_server(table: str, why: str, write: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load_workflow(write(with_tools(table + "\n")))
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("fiels:*", "there is no MCP server 'fiels'; did you mean 'files'?"),
        ("files:", "names no tool in 'files:'; files:* names them all"),
        (":x", "there is no MCP server ''"),
        ("nothing", "there is no tool 'nothing'"),
    ],
)
def test_what_is_wrong_with_an_agents_tools(named: str, why: str, write: Any) -> None:
    text = with_tools('[mcp.files]\ncommand = ["x"]\n', named)
    with pytest.raises(ConfigError, match=r"\[agents.a\] tools: ") as caught:
        load_workflow(write(text))
    assert why in str(caught.value)
    with pytest.raises(ConfigError, match="twice"):
        load_workflow(write(with_tools('[mcp.files]\ncommand = ["x"]\n', "files:*", "files:*")))


def test_it_is_described_without_its_arguments_and_warned_of_if_unused(write: Any) -> None:
    table = (
        '[mcp.m]\ncommand = ["serve", "--token=abc"]\nenv = {K = {env = "OURS"}}\nprefix = "x_"\n'
        '[mcp.n]\nurl = "http://u:pw@host/mcp"\nheaders = {Authorization = "Bearer abc"}\n'
    )
    file = load_workflow(write(with_tools(table, "m:add")), set={"mcp.m.prefix": "y_"})
    said = file.describe()
    assert "  m: serve is started when it is run, its tools' names after y_\n" in said
    assert "  n: at http://host/mcp\n" in said
    assert "tools m:add" in said
    assert "abc" not in said
    assert "pw" not in said
    assert file.environment == ("OURS",)
    assert [w.partition(": ")[2] for w in file.warnings] == [
        '[mcp.n] headers.Authorization: a secret does not belong into a file: use {env = "NAME"}',
        "[mcp.n]: no agent has a tool of it",
    ]
    with pytest.raises(ConfigError, match="there is no MCP server 'o'"):
        load_workflow(write(with_tools(table, "m:add")), set={"mcp.o.prefix": "y_"})


@pytest.mark.parametrize("way", ["command", "url"])
def test_an_agent_calls_a_servers_tools(way: str, write: Any, server: ScriptedServer) -> None:
    server.reply_tool_calls(("m_add", {"a": 2, "b": 3}))
    server.reply_text("five")
    with ScriptedMCP(add, read_file) as script:
        where = {"command": json.dumps(script.command), "url": json.dumps(script.url)}[way]
        table = f'[clients.c]\nbase_url = "{server.url}"\n[mcp.m]\n{way} = {where}\nprefix = "m_"\n'
        file = load_workflow(write(with_tools(table, "m:add", "m:read_*")))
        with file.build(environ={}) as workflow, Runtime() as runtime:
            run = runtime.run(workflow, "add")
        assert run.output == "five"
        assert script.calls == [("add", {"a": 2, "b": 3})]
    offered = [tool["function"]["name"] for tool in server.requests[0].json["tools"]]
    assert offered == ["m_add", "m_read_file"]
    assert server.requests[1].json["messages"][-1]["content"] == "5"


def test_what_shows_only_when_it_is_run(write: Any, server: ScriptedServer) -> None:
    client = f'[clients.c]\nbase_url = "{server.url}"\n'

    def build(text: str, **environ: str) -> None:
        with load_workflow(write(client + text)).build(environ=environ):
            raise AssertionError("it was built")

    with ScriptedMCP(add) as script:
        table = f'[mcp.m]\nurl = "{script.url}"\nheaders = {{K = {{env = "KEY"}}}}\n'
        with pytest.raises(ConfigError, match=r"\[mcp.m\]: the environment has no KEY"):
            build(with_tools(table, "m:add"))
        with pytest.raises(ConfigError, match=r"\[agents.a\]: names 'ad', which m does not have"):
            build(with_tools(table, "m:ad"), KEY="k")
        chosen = with_tools(table, "m:add").replace("tools =", 'tool_choice = "ad"\ntools =')
        with pytest.raises(ConfigError, match=r"\[agents.a\]: .*tool_choice must be one of"):
            build(chosen, KEY="k")
        assert script.http.requests[-1].headers["K"] == "k"
    with pytest.raises(ConfigError, match=r"'/no/such': No such|'/no/such' cannot be started"):
        build(with_tools('[mcp.m]\ncommand = ["/no/such"]\n', "m:add"))
    with pytest.raises(ConnectError, match="cannot connect"):
        build(with_tools('[mcp.m]\nurl = "http://127.0.0.1:9"\n', "m:add"))
