"""Loops: the same call with the same result, again and again."""

from __future__ import annotations

from typing import Any, List

import pytest

from agentstream import Agent, EventType, LimitExceeded, ToolCall, ToolLimits, tool
from agentstream.testing import Reply, ScriptedServer
from tests.kit.support import client_of
from tests.kit.tool_loop import Watched, call, counting


def looping(server: ScriptedServer, **limits: Any) -> Any:
    """A model that makes the same call for ever; the error, and how often the tool ran."""
    ran: List[int] = []

    @tool(name="add")
    def spy(a: int, b: int) -> int:
        """Add."""
        ran.append(a)
        return a + b

    server.default(*Reply.tool_calls(("add", {"a": 1, "b": 2})).actions)
    with client_of(server) as client:
        agent = Agent("worker", client=client, tools=[spy], tool_limits=ToolLimits(**limits))
        with pytest.raises(LimitExceeded) as caught:
            agent.execute("go")
    assert caught.value.partial is not None
    assert caught.value.partial.tool_calls
    return caught.value, len(ran)


@pytest.mark.parametrize("limit", [2, 3, 7])
def test_v07_the_same_call_for_ever_ends_after_as_many_requests_as_the_limit(server, limit):
    error, ran = looping(server, repeat_limit=limit)
    assert (error.limit, ran, len(server.requests)) == ("repeat_limit", limit, limit)
    assert f"same arguments in {limit} answers" in str(error)
    told = [m["content"] for m in server.requests[-1].json["messages"] if m["role"] == "tool"]
    assert told[0] == "3"
    assert len(told) == limit - 1
    for text in told[1:]:
        assert text.startswith("3\n\n[You have called add with these arguments before")


def test_v07_without_a_repeat_limit_max_rounds_ends_it(server):
    error, ran = looping(server, repeat_limit=None, max_rounds=5)
    assert (error.limit, ran, len(server.requests)) == ("max_rounds", 4, 5)


def test_v07_without_memory_the_model_is_told_nothing_and_the_limit_counts_all_the_same(server):
    error, ran = looping(server, repeat_limit=4, repeat_memory=0)
    assert (error.limit, ran, len(server.requests)) == ("repeat_limit", 4, 4)
    told = [m["content"] for m in server.requests[-1].json["messages"] if m["role"] == "tool"]
    assert told == ["3"] * 3


def test_v07_other_arguments_for_ever_end_with_max_rounds():
    watched = Watched(
        *[[call("add", a=n, b=n)] for n in range(4)], tool_limits=ToolLimits(max_rounds=4)
    )
    with pytest.raises(LimitExceeded) as caught:
        watched.run()
    assert caught.value.limit == "max_rounds"
    assert len(watched.model.requests) == 4
    assert len(watched.of(EventType.TOOL_CALL_COMPLETED)) == 3  # the last would have no reader
    assert watched.events[-1].type is EventType.AGENT_FAILED


def test_a_repeat_is_told_that_it_is_one_however_it_is_written():
    ran: List[Any] = []
    watched = Watched(
        [ToolCall("1", "look", '{"x": 1}')],
        [ToolCall("2", "other", '{"x": 1}')],
        [ToolCall("3", "look", '{ "x":1 }')],
        "done",
        tools=[counting("look", ran), counting("other", ran)],
    )
    assert watched.run().response == "done"
    assert ran == [("look", 1), ("other", 1), ("look", 1)]
    assert watched.told(3)[:2] == ["look 1", "other 1"]
    assert watched.told(3)[2].startswith("look 1\n\n[You have called look")


LOOK, OTHER = [call("look", x=1)], [call("other", x=1)]


@pytest.mark.parametrize(
    ("memory", "turns"),
    [(1, [LOOK, OTHER] * 3), (2, [LOOK, OTHER, OTHER, LOOK])],
    ids=["of one answer", "of two answers"],
)
def test_memory_forgets_what_was_before_it(memory, turns):
    ran: List[Any] = []
    tools = [counting("look", ran), counting("other", ran)]
    limits = ToolLimits(repeat_memory=memory, repeat_limit=3)
    watched = Watched(*turns, "done", tools=tools, tool_limits=limits)
    assert watched.run().response == "done"
    assert len(ran) == len(turns)
    assert watched.told(len(turns))[-1] in ("look 1", "other 1")


@pytest.mark.parametrize(
    ("memory", "turns"),
    [(1, [LOOK, LOOK]), (2, [LOOK, OTHER, LOOK]), (None, [LOOK, *[OTHER] * 2, LOOK])],
    ids=str,
)
def test_memory_keeps_what_the_answers_within_it_share(memory, turns):
    tools = [counting("look", []), counting("other", [])]
    limits = ToolLimits(repeat_memory=memory, repeat_limit=None)
    watched = Watched(*turns, "done", tools=tools, tool_limits=limits)
    watched.run()
    assert "before" in watched.told(len(turns))[-1]


def test_a_repeatable_tool_is_called_each_time():
    ran: List[Any] = []
    turns = [[call("clock", x=1)]] * 5
    watched = Watched(*turns, "done", tools=[counting("clock", ran, repeatable=True)])
    assert watched.run().response == "done"
    assert len(ran) == 5


def test_what_failed_is_tried_again():
    attempts: List[int] = []

    @tool
    def flaky() -> str:
        """Work the second time."""
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("not yet")
        return "now"

    watched = Watched([call("flaky")], [call("flaky")], "done", tools=[flaky])
    watched.run()
    assert watched.told(2) == ["Error: the tool raised OSError: not yet", "now"]


def test_the_same_call_twice_in_one_answer_runs_once():
    ran: List[Any] = []
    watched = Watched(
        [call("look", 0, x=1), call("look", 1, x=1), call("look", 2, x=2)],
        "done",
        tools=[counting("look", ran)],
        tool_limits=ToolLimits(repeat_limit=2),
    )
    watched.run()
    assert sorted(ran) == [("look", 1), ("look", 2)]
    first, second, third = watched.told()
    assert second.startswith(first + "\n\n[")
    assert "[" not in third
