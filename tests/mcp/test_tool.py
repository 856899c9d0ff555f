"""A server's tools as Tools: names, schemas, hints, failures; and within an agent's run."""

from __future__ import annotations

import re
import threading
import time
from typing import Any, Dict, List

import pytest

from agentstream import Agent, Cancelled, CancelToken, ConfigError, Runtime, ToolError, mcp, tool
from agentstream.events.model import EventType
from agentstream.mcp.tool import tool_name
from agentstream.results import ToolCall
from agentstream.testing import ScriptedClient, ScriptedMCP


def entry(name: str, **more: Any) -> Dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


def listed(*entries: Any, **settings: Any) -> List[mcp.ServerTool]:
    with ScriptedMCP() as script, mcp.Server.http(script.url) as server:
        script.reply("tools/list", {"tools": list(entries)})
        return server.tools(**settings)


def test_names_are_made_to_fit_and_stay_apart() -> None:
    names = ["read", "admin.tools.list", "a b", "a_b", "x" * 100, "x" * 99 + "y", "é", ""]
    tools = listed(*map(entry, names))
    made = [made.name for made in tools]
    assert made[:3] == ["read", "admin_tools_list", "a_b"]
    assert len(set(made)) == len(tools) == 7  # "" has no name
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in made)
    assert [made.remote_name for made in tools] == names[:7]
    assert [t.name for t in listed(*map(entry, names))] == made  # the same each time
    assert tool_name("read", "fs_", ()) == "fs_read"


def test_a_prefix_and_a_choice() -> None:
    entries = [entry(name) for name in ("read_file", "read_dir", "write_file")]
    tools = listed(*entries, prefix="fs_", only=["read_*", "write_file"])
    assert [t.name for t in tools] == ["fs_read_file", "fs_read_dir", "fs_write_file"]
    assert [t.name for t in listed(*entries, only=["write_file"])] == ["write_file"]
    assert [t.name for t in listed(*entries, only="read_dir")] == ["read_dir"]
    assert listed(*entries, only=["nothing_*"]) == []
    with pytest.raises(ConfigError, match="'red_file', which .* it has: read_file, read_dir"):
        listed(*entries, only=["red_file"])
    for prefix in ("a.", " ", "x" * 33, 5):
        with pytest.raises(ConfigError, match="prefix must be"):
            listed(*entries, prefix=prefix)


def test_a_schema_is_taken_as_given_or_its_tool_left_out(caplog: Any) -> None:
    rich = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/a"}, "any": True, "self": {"type": "integer"}},
        "$defs": {"a": {"type": ["string", "null"]}},
        "additionalProperties": False,
    }
    with ScriptedMCP() as script, mcp.Server.http(script.url) as server:
        entries = [
            entry("rich", inputSchema=rich),
            entry("remote", inputSchema={"$ref": "https://example.com/schema.json"}),
            entry("array", inputSchema={"type": "array"}),
            entry("text", inputSchema="no schema"),
            entry("none", inputSchema=None),
            {"inputSchema": {}},
            {"name": 5},
        ]
        script.reply("tools/list", {"tools": [*entries, entry("rich")]})
        tools = {made.name: made for made in server.tools()}
        assert list(tools) == ["rich", "none"]
        assert tools["rich"].parameters == rich
        assert set(server.left_out) == {"remote", "array", "text", "None", "5"}
    assert "'remote' is left out" in caplog.text
    with pytest.raises(ToolError, match='argument "a"'):
        tools["rich"].bind('{"a": 5.5}')
    assert tools["rich"].bind('{"any": [1], "self": 1}') == {"any": [1], "self": 1}


def test_hints_say_what_may_be_made_twice_and_what_runs_alone() -> None:
    def hinted(**hints: Any) -> mcp.ServerTool:
        return listed(entry("t", annotations=hints))[0]

    silent = hinted()
    assert (silent.read_only, silent.idempotent, silent.destructive, silent.alone) == (
        (False, False, True, True)
    )
    reading = hinted(readOnlyHint=True)
    assert (reading.read_only, reading.destructive, reading.alone) == (True, False, False)
    setting = hinted(idempotentHint=True, destructiveHint=False)
    assert (setting.idempotent, setting.destructive, setting.alone) == (True, False, True)
    assert hinted(readOnlyHint="yes").alone
    assert listed(entry("t", annotations=[1]))[0].alone
    words = [one.on_unknown for one in (silent, reading, setting, hinted(readOnlyHint="yes"))]
    assert words == ["suspend", "rerun", "rerun", "suspend"]


def test_a_description_from_wherever_there_is_one() -> None:
    one, two, three, four = listed(
        entry("one", description="D", title="T"),
        entry("two", title="T"),
        entry("three", annotations={"title": "A"}),
        entry("four"),
    )
    assert [t.description for t in (one, two, three, four)] == ["D", "T", "A", ""]


# --- within an agent ------------------------------------------------------------------------


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def fail(why: str) -> str:
    """Fail."""
    raise ToolError(why)


def test_an_agent_calls_them_as_any_tool() -> None:
    model = ScriptedClient(
        [ToolCall("1", "m_add", '{"a": "2", "b": 3}'), ToolCall("2", "m_fail", '{"why": "rain"}')],
        [ToolCall("3", "m_add", '{"a": "x", "b": 3}')],
        "done",
    )
    asked: List[str] = []

    def approve(call: ToolCall) -> bool:
        asked.append(call.name)
        return True

    with ScriptedMCP(add, fail) as script, mcp.Server.http(script.url) as server:
        agent = Agent("helper", client=model, tools=server.tools("m_"), approve=approve)
        result = agent.execute("add")
        assert [(call.name, call.arguments) for call in script.calls] == [
            ("add", {"a": 2, "b": 3}),  # "2" is a number: the schema says so
            ("fail", {"why": "rain"}),
        ]
    assert result.response == "done"
    said = [m.content for m in model.requests[-1].messages if m.role == "tool"]
    assert said[0] == "5"
    assert said[1] == "Error: rain"
    assert said[2].startswith('Error: m_add was not called: argument "a"')
    assert asked == ["m_add", "m_fail"]


def test_m11_stopping_a_run_ends_the_call_at_the_server_at_once() -> None:
    started = threading.Event()
    ended = CancelToken()

    @tool
    def wait() -> str:
        """Wait."""
        started.set()
        ended.wait(10)
        return "waited"

    model = ScriptedClient([ToolCall("1", "wait", "{}")], "done")
    with ScriptedMCP(wait) as script, mcp.Server.http(script.url) as server:
        agent = Agent("helper", client=model, tools=server.tools())
        token = CancelToken()
        threading.Thread(target=lambda: started.wait(5) and token.cancel()).start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            agent.execute("go", cancel=token)
        assert time.monotonic() - began < 5.0
        while server._connection._poster._transport.places.free < 512:  # the thread leaves
            CancelToken().wait(0.01)
        ended.cancel()


def test_its_events_are_those_of_any_tool() -> None:
    model = ScriptedClient([ToolCall("1", "add", '{"a": 2, "b": 3}')], "done")
    with ScriptedMCP(add) as script, mcp.Server.stdio(script.command) as server:
        agent = Agent("helper", client=model, tools=server.tools())
        with Runtime() as runtime:
            events = list(runtime.stream(agent, "add"))
    kinds = [event.type for event in events]
    assert EventType.TOOL_CALL_STARTED in kinds
    (completed,) = [e for e in events if e.type == EventType.TOOL_CALL_COMPLETED]
    assert completed.data["result"] == "5"
