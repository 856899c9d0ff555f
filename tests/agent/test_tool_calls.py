"""What a model's calls come to: which are made, which not, in which order, beside which."""

from __future__ import annotations

import contextvars
import json
import threading
from typing import Any, Dict, List

import pytest

from agentstream import (
    Agent,
    ConfigError,
    Delta,
    LimitExceeded,
    RunContext,
    Runtime,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolLimits,
    Workflow,
    tool,
)
from agentstream.testing import ScriptedClient, tool_call_chunks
from tests.kit.support import client_of, wait_until
from tests.kit.tool_runs import Ran, call, run, sent_back, told

BOUND = 10.0


# --- W06: a call in which the answer was cut ------------------------------------------------


@pytest.mark.parametrize(
    "reason", ["length", "max_tokens", "MAX_TOKENS", "content_filter", "error"]
)
@pytest.mark.parametrize("arguments", ["", '{"x": "a', '{"x"', "{"])
def test_w06_a_call_in_which_the_answer_was_cut_is_not_made(reason, arguments):
    ran = Ran()
    calls = (ToolCallDelta(0, "a", "look", '{"x": "1"}'), ToolCallDelta(1, "b", "wipe", arguments))
    cut = [Delta(tool_calls=calls), Delta(finish_reason=reason)]
    _, requests = run(cut, "done", tools=[ran.tool("look"), ran.tool("wipe")])
    assert ran.calls == [("look", "1")]
    first, second = told(requests[1])
    assert first == "ok"
    assert "cut" in second
    assert [json.loads(c.arguments).keys() for c in sent_back(requests[1])][0] == {"x"}


def test_w06_a_whole_call_is_made_though_the_answer_was_cut_after_it():
    ran = Ran()
    whole = ToolCallDelta(0, "a", "wipe", '{"x": "1"}')
    run([Delta(tool_calls=(whole,), finish_reason="length")], "done", tools=[ran.tool("wipe")])
    assert ran.calls == [("wipe", "1")]


def test_w06_a_model_that_is_always_cut_ends_with_a_limit():
    ran = Ran()
    cut = Delta(tool_calls=(ToolCallDelta(0, "a", "wipe", ""),), finish_reason="length")
    client = ScriptedClient(*[[cut]] * 20)
    agent = Agent("worker", client=client, tools=[ran.tool("wipe")])
    with pytest.raises(LimitExceeded):
        agent.execute("go")
    assert ran.calls == []


# --- T04: a loop is the same call with the same result --------------------------------------


def test_t04_read_write_read():
    files: Dict[str, str] = {"a": "v1"}

    @tool
    def read(path: str) -> str:
        """Read."""
        return files[path]

    @tool
    def write(path: str, text: str) -> str:
        """Write."""
        files[path] = text
        return "written"

    reading, writing = [call("read", path="a")], [call("write", path="a", text="v2")]
    limits = ToolLimits(repeat_limit=2)
    _, requests = run(reading, writing, reading, "done", tools=[read, write], tool_limits=limits)
    assert told(requests[3]) == ["v1", "written", "v2"]


def test_t04_in_one_answer_too():
    ran = Ran()
    tools = [ran.tool("read", ["v1", "v2"]), ran.tool("write")]
    calls = [call("read", 0), call("write", 1), call("read", 2)]
    _, requests = run(calls, "done", tools=tools, parallel_tool_calls=False)
    assert told(requests[1]) == ["v1", "ok", "v2"]


@pytest.mark.parametrize("limit", [2, 3])
def test_t04_polling_is_no_loop_as_long_as_something_changes(limit):
    ran = Ran()
    states = [f"{n} %" for n in range(0, 60, 10)]
    limits = ToolLimits(repeat_limit=limit)
    turns = [[call("state", job="j")]] * 6
    state = ran.tool("state", states)
    output, _ = run(*turns, "done", tools=[_named(state, "job")], tool_limits=limits)
    assert output.response == "done"
    assert len(ran.calls) == 6


def _named(given: Tool, argument: str) -> Tool:
    schema = {"properties": {argument: {"type": "string"}}}
    return Tool(given.name, "", schema, lambda **values: given.function(values[argument]))


@pytest.mark.parametrize("answers", [["same"], ["1", "2", "same", "same", "same"]])
def test_t04_the_same_result_again_and_again_is_a_loop(answers):
    ran = Ran()
    client = ScriptedClient(*[[call("look")]] * 9)
    agent = Agent("worker", client=client, tools=[ran.tool("look", answers)])
    with pytest.raises(LimitExceeded) as caught:
        agent.execute("go")
    assert caught.value.limit == "repeat_limit"
    assert len(ran.calls) == len(client.requests) == (3 if len(answers) == 1 else 5)


def test_t04_tests_run_again_after_a_change_are_no_loop():
    ran = Ran()
    tools = [ran.tool("test", ["failed: 3", "failed: 1", "passed"]), ran.tool("edit")]
    turns = [[call("test")], [call("edit", x="1")], [call("test")], [call("edit", x="2")]]
    output, requests = run(*turns, [call("test")], "done", tools=tools)
    assert output.response == "done"
    assert told(requests[-1])[::2] == ["failed: 3", "failed: 1", "passed"]


# --- T06: what models write around a name ---------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "functions.get_weather",
        "default_api:get_weather",
        "default_api.get_weather",
        "get_weather<|channel|>commentary",
        "get_weather\n",
        " get_weather ",
        "functions.get_weather:0",
        "tools/get_weather",
        "<get_weather>",
        "`get_weather`",
        "get_weather()",
    ],
)
def test_t06_the_tool_that_is_meant(name):
    ran = Ran()
    _, requests = run(
        [ToolCall("c", name, "{}")], "done", tools=[ran.tool("get_weather"), ran.tool("other")]
    )
    assert ran.calls == [("get_weather", "")]
    assert sent_back(requests[1])[0].name == "get_weather"


@pytest.mark.parametrize(
    "name", ["get_weather.other", "other:get_weather", "get weather", "Get_Weather", "weather", ""]
)
def test_t06_where_it_is_not_clear_none_is_called(name):
    ran = Ran()
    _, requests = run(
        [ToolCall("c", name, "{}")], "done", tools=[ran.tool("get_weather"), ran.tool("other")]
    )
    assert ran.calls == []
    assert "there is no tool" in told(requests[1])[0]


# --- T07: one after the other ---------------------------------------------------------------


class Traffic:
    """Tools that tell how many ran at once, and in which order they ended."""

    def __init__(self) -> None:
        self.running = 0
        self.most: Dict[str, int] = {}
        self.ended: List[str] = []
        self.lock = threading.Lock()
        self.together = threading.Barrier(2)

    def tool(self, name: str, *, meets: bool = False, **settings: Any) -> Tool:
        def work(n: int) -> str:
            with self.lock:
                self.running += 1
                self.most[name] = max(self.most.get(name, 0), self.running)
            if meets:
                self.together.wait(BOUND)
            with self.lock:
                self.most[name] = max(self.most[name], self.running)
                self.running -= 1
                self.ended.append(f"{name} {n}")
            return name

        return tool(work, name=name, description="Work.", **settings)


def test_t07_without_parallel_calls_they_run_one_after_the_other():
    traffic = Traffic()
    calls = [call("read", n, n=n) for n in range(5)]
    run(calls, "done", tools=[traffic.tool("read")], parallel_tool_calls=False)
    assert traffic.most == {"read": 1}
    assert traffic.ended == [f"read {n}" for n in range(5)]


@pytest.mark.parametrize("place", ["extra", "body"])
def test_t07_however_the_request_says_so(server, place):
    traffic = Traffic()
    field = {"parallel_tool_calls": False}
    calls = [("read", {"n": n}) for n in range(4)]
    server.reply(*tool_call_chunks(*calls))
    server.reply_text("done")
    with client_of(server, **({"body": field} if place == "body" else {})) as client:
        settings = {"extra": field} if place == "extra" else {}
        Agent("a", client=client, tools=[traffic.tool("read")], **settings).execute("go")
    assert server.requests[0].json["parallel_tool_calls"] is False
    assert traffic.most == {"read": 1}


def test_t07_a_tool_that_is_alone_has_nothing_beside_it_and_keeps_its_place():
    traffic = Traffic()
    tools = [traffic.tool("read", meets=True), traffic.tool("write", alone=True)]
    calls = [
        call("read", 0, n=0),
        call("read", 1, n=1),
        call("write", 2, n=2),
        call("write", 3, n=3),
        call("read", 4, n=4),
        call("read", 5, n=5),
    ]
    output, requests = run(calls, "done", tools=tools)
    assert traffic.most["write"] == 1
    assert sorted(traffic.ended[:2]) == ["read 0", "read 1"]
    assert traffic.ended[2:4] == ["write 2", "write 3"]
    assert told(requests[1]) == ["read", "read", "write", "write", "read", "read"]


def test_t07_alone_with_approval():
    traffic = Traffic()
    tools = [traffic.tool("read"), traffic.tool("write", alone=True)]
    calls = [call("write", 0, n=0), call("read", 1, n=1), call("write", 2, n=2)]
    run(calls, "done", tools=tools, approve=lambda _: True)
    assert traffic.ended == ["write 0", "read 1", "write 2"]


def test_t07_what_hangs_alone_lets_the_next_one_go():
    release = threading.Event()

    @tool(alone=True, timeout=0.05)
    def hang() -> str:
        """Hang."""
        release.wait(BOUND)
        return "late"

    try:
        _, requests = run([call("hang"), call("look", 1)], "done", tools=[hang, Ran().tool("look")])
        assert told(requests[1])[1] == "ok"
    finally:
        release.set()
    from agentstream.agent.tool_calls import lost_threads

    wait_until(lambda: lost_threads() == 0)


# --- T08: a tool that is async --------------------------------------------------------------


def test_t08_a_tool_that_returns_a_coroutine_fails_and_says_why():
    async def later() -> str:
        return "late"

    @tool
    def ask() -> Any:
        """Ask."""
        return later()

    _, requests = run([call("ask")], "done", tools=[ask])
    assert told(requests[1])[0].startswith(
        "Error: the tool raised TypeError: it returned coroutine"
    )
    assert "async" in told(requests[1])[0]


# --- T10: the submitter's contextvars -------------------------------------------------------

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="none")


@pytest.mark.parametrize("way", ["execute", "run", "submit", "function"])
def test_t10_tools_see_the_submitters_contextvars(way):
    seen: List[str] = []

    @tool
    def look(context: RunContext) -> str:
        """Look."""
        seen.append(VAR.get())
        VAR.set("the tool's own")
        return "ok"

    inner = Agent("inner", client=ScriptedClient([call("look")], "done"), tools=[look])
    agent = Agent(
        "outer",
        client=ScriptedClient([call("look")], [call("inner", input="x")], "done"),
        tools=[look, inner.as_tool("I.")],
    )
    token = VAR.set("mine")
    try:
        if way == "execute":
            agent.execute("go")
        else:
            with Runtime() as runtime:
                steps: List[Any] = [agent]
                if way == "function":
                    steps.insert(0, lambda value: seen.append(VAR.get()) or value)
                workflow = Workflow("w", steps)
                if way == "submit":
                    runtime.submit(workflow, "go").result(BOUND)
                else:
                    runtime.run(workflow, "go")
        assert set(seen) == {"mine"}
        assert len(seen) == (3 if way == "function" else 2)
        assert VAR.get() == "mine"
    finally:
        VAR.reset(token)


# --- a tool's settings ----------------------------------------------------------------------


def test_a_tools_place_among_others_is_a_setting():
    assert Ran().tool("a").alone is False
    assert Ran().tool("a", alone=True).alone is True
    with pytest.raises(ConfigError):
        tool(name="no name!")(lambda: None)
