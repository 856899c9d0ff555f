"""What goes wrong in a tool is told to the model, and the run goes on."""

from __future__ import annotations

import threading
import time
from typing import Any, List

import pytest

from agentstream import Agent, CancelToken, EventStream, EventType, ToolCall, ToolLimits, tool
from agentstream.agent.tool_calls import SIDE_BY_SIDE, lost_threads
from tests.kit.support import client_of, wait_until
from tests.kit.tool_loop import BOUND, Watched, add, call, in_pieces, piece


class Wild(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("no such city"),
        StopIteration(1),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        Wild(),
    ],
    ids=lambda e: type(e).__name__,
)
def test_u04_tool_raises(raised):
    @tool
    def bad() -> str:
        """Fail."""
        raise raised

    watched = Watched([call("bad"), call("add", 1, a=1, b=2)], "done", tools=[bad, add])
    assert watched.run().response == "done"
    failed, sound = watched.told()
    assert failed.startswith(f"Error: the tool raised {type(raised).__name__}")
    assert sound == "3"
    (event,) = watched.of(EventType.TOOL_CALL_FAILED)
    assert (event.data["id"], event.data["error"]) == ("call_0", "ToolError")
    if isinstance(raised, ValueError):
        assert "no such city" in event.data["message"]


def test_u05_tool_hangs():
    release = threading.Event()
    token: List[CancelToken] = []

    @tool(timeout=0.2)
    def hang(cancel: CancelToken) -> str:
        """Hang."""
        token.append(cancel)
        release.wait(BOUND)
        return "late"

    before = lost_threads()
    try:
        watched = Watched([call("hang"), call("add", 1, a=1, b=2)], "done", tools=[hang, add])
        began = time.monotonic()
        assert watched.run().response == "done"
        assert 0.2 <= time.monotonic() - began < 3.0
        assert watched.told() == ["Error: the tool did not answer within 0.2 s", "3"]
        (event,) = watched.of(EventType.TOOL_CALL_FAILED)
        assert event.data["error"] == "ToolTimeout"
        assert 200 <= event.data["duration_ms"] < 3000
        assert event.data["lost_threads"] == before + 1 == lost_threads()
        (warning,) = watched.of(EventType.SYSTEM_WARNING)
        assert "'hang'" in warning.data["message"]
        assert "left behind" in warning.data["message"]
        assert token[0].cancelled
    finally:
        release.set()
    wait_until(lambda: lost_threads() == before)


def test_u05_a_hanging_tool_keeps_no_place_from_the_others():
    release = threading.Event()

    @tool(timeout=0.1)
    def hang(n: int) -> None:
        """Hang."""
        release.wait(BOUND)

    calls = [call("hang", n, n=n) for n in range(SIDE_BY_SIDE)] + [call("add", 99, a=1, b=2)]
    try:
        watched = Watched(calls, "done", tools=[hang, add])
        watched.run()
        assert watched.told()[-1] == "3"
    finally:
        release.set()
    wait_until(lambda: lost_threads() == 0)


class Opaque:
    def __repr__(self) -> str:
        raise RuntimeError("look away")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("x" * 10_000_000, "[cut here: the result has 10000000 characters]"),
        (Opaque(), "(the result cannot be shown)"),
        (lambda: 1, "<function"),
        (float("nan"), "NaN"),
        (None, "null"),
    ],
    ids=["enormous", "unshowable", "function", "nan", "none"],
)
def test_u06_tool_returns_what_cannot_be_sent(value, told):
    @tool
    def give() -> Any:
        """Give."""
        return value

    watched = Watched(
        [call("give")], "done", tools=[give], tool_limits=ToolLimits(result_chars=1000)
    )
    assert watched.run().response == "done"
    (text,) = watched.told()
    assert told in text
    assert len(text) <= 1000
    (event,) = watched.of(EventType.TOOL_CALL_COMPLETED)
    assert len(event.data["result"]) <= 2000


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (ToolCall("1", "launch_missiles", "{}"), "there is no tool 'launch_missiles'; known: add"),
        (call("add", a=1, b=2, c=3), '"c"'),
        (call("add", a=1), '"b"'),
        (call("add", a="one", b=2), '"a"'),
    ],
    ids=["unknown", "extra key", "missing", "wrong type"],
)
def test_s09_arguments_from_the_model_are_checked(asked, said):
    called: List[Any] = []

    @tool(name="add")
    def spy(a: int, b: int) -> int:
        """Add."""
        called.append((a, b))
        return a + b

    watched = Watched([asked], "sorry", tools=[spy])
    assert watched.run().response == "sorry"
    (text,) = watched.told()
    assert text.startswith("Error: ")
    assert said in text
    assert called == []
    (event,) = watched.of(EventType.TOOL_CALL_FAILED)
    assert event.data["error"] == "ToolError"
    assert len(watched.of(EventType.TOOL_CALL_STARTED)) == 1


def test_p11_arguments_never_valid_json(server):
    server.reply_tool_calls(("add", '{"a": 1, "b": '))
    server.reply_text("I give", " up.")
    with client_of(server) as client, EventStream() as stream:
        agent = Agent("worker", client=client, tools=[add])
        output = agent.execute_with_events("1 + ?", stream, workflow_id="run")
        events = list(stream.store.read(workflow_id="run", limit=100))
    assert output.response == "I give up."
    (failed,) = [e for e in events if e.type is EventType.TOOL_CALL_FAILED]
    assert failed.data["arguments"] == '{"a": 1, "b": '
    (told,) = [m for m in server.requests[1].json["messages"] if m["role"] == "tool"]
    assert "this is not JSON" in told["content"]


P10 = {
    "interleaved": [
        piece('{"a":', "add", index=1, id="x"),
        piece('{"a":', "add", index=0, id="y"),
        piece("3,", index=1),
        piece('1,"b":2}', index=0),
        piece('"b":4}', index=1),
    ],
    "one index, two ids": [
        piece('{"a":3,"b":4}', "add", index=0, id="x"),
        piece('{"a":1,"b":2}', "add", index=0, id="y"),
    ],
    "one index, no ids": [
        piece('{"a":3,"b":4}', "add", index=0),
        piece('{"a":1,"b":2}', "add", index=0),
    ],
    "no index, no ids": [piece('{"a":3,"b":4}', "add"), piece('{"a":1,"b":2}', "add")],
}


@pytest.mark.parametrize("pieces", list(P10.values()), ids=list(P10))
def test_p10_pieces_out_of_order_index_reuse_no_id(server, pieces):
    server.reply(*in_pieces(*pieces))
    server.reply_text("7 and 3")
    with client_of(server) as client:
        output = Agent("worker", client=client, tools=[add]).execute("go")
    assert (output.response, output.tool_calls_count) == ("7 and 3", 2)
    messages = server.requests[1].json["messages"]
    assert [m["content"] for m in messages if m["role"] == "tool"] == ["7", "3"]
    ids = [c["id"] for c in messages[1]["tool_calls"]]
    assert ids == [m["tool_call_id"] for m in messages if m["role"] == "tool"]
    assert all(ids)
    assert len(set(ids)) == 2
