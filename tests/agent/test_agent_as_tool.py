"""Agents that agents call: events, failures, stops and places of the runs within a run."""

from __future__ import annotations

import time
from typing import Any, List

import pytest

from agentstream import Agent, Cancelled, EventType, RunContext, Runtime, ToolLimits, Workflow, tool
from agentstream.agent.tool_calls import lost_threads
from agentstream.testing import Gate, ScriptedClient, text_chunks
from tests.kit.support import client_of, wait_until
from tests.kit.tool_loop import BOUND, Watched, add, call


def test_an_agent_is_a_tool_of_another_and_its_events_name_their_parent():
    inner = Agent(
        "number cruncher", client=ScriptedClient([call("add", a=1, b=2)], "It is 3."), tools=[add]
    )
    outer = Agent(
        "boss",
        client=ScriptedClient([call("number_cruncher", input="1 + 2?")], "Three!"),
        tools=[inner.as_tool("Adds numbers.")],
    )
    assert outer.tools["number_cruncher"].on_unknown == "rerun"
    with Runtime() as runtime:
        run = runtime.run(outer, "What is 1 + 2?")
        events = list(runtime.event_stream.store.read(limit=1000))
    assert run.output == "Three!"
    told = [m.content for m in outer.client.requests[1].messages if m.role == "tool"]  # type: ignore[attr-defined]
    assert told == ["It is 3."]
    within = [e for e in events if e.parent_workflow_id == run.workflow_id]
    assert {e.workflow_id for e in within} == {within[0].workflow_id}
    assert [e.offset for e in within] == list(range(1, len(within) + 1))
    assert within[0].type is EventType.WORKFLOW_STARTED
    assert within[-1].type is EventType.WORKFLOW_COMPLETED
    text = "".join(e.data["chunk"] for e in within if e.type is EventType.AGENT_LLM_STREAM_CHUNK)
    assert text == "It is 3."
    own = [e for e in events if e.workflow_id == run.workflow_id]
    assert all(e.parent_workflow_id is None for e in own)
    assert len(own) + len(within) == len(events)


@pytest.mark.parametrize("way", ["workflow", "agent", "agent without events"])
def test_a_tool_runs_an_agent_within_its_run(way):
    inner = Agent("inner", client=ScriptedClient("deep"))

    @tool
    def ask(question: str, context: RunContext) -> str:
        """Ask another."""
        context["asked"] = question
        return context.run(inner, question)

    outer = Agent("outer", client=ScriptedClient([call("ask", question="q")], "done"), tools=[ask])
    with Runtime() as runtime:
        stream = runtime.event_stream
        if way == "workflow":
            shared: List[Any] = []
            steps = [outer, lambda value, context: shared.append(dict(context)) or value]
            run = runtime.run(Workflow("w", steps), "x")
            assert (run.output, run.workflow_id) == ("done", run.workflow_id)
            assert shared == [{"asked": "q"}]
            parent = run.workflow_id
        elif way == "agent":
            assert outer.execute_with_events("x", stream, workflow_id="own").response == "done"
            parent = "own"
        else:
            assert outer.run("x").response == "done"
            parent = ""
        events = list(stream.store.read(limit=1000))
    assert outer.client.requests[1].messages[-1].content == "deep"  # type: ignore[attr-defined]
    assert {e.parent_workflow_id for e in events} == ({None, parent} if parent else set())
    within = [e for e in events if e.parent_workflow_id]
    text = "".join(e.data["chunk"] for e in within if e.type is EventType.AGENT_LLM_STREAM_CHUNK)
    assert text == ("deep" if parent else "")


def test_a_workflows_function_runs_an_agent_within_its_run():
    inner = Agent("inner", client=ScriptedClient("deep"))
    with Runtime() as runtime:
        run = runtime.run(Workflow("w", [lambda x, context: context.run(inner, x)]), "x")
        events = list(runtime.event_stream.store.read(limit=1000))
    assert run.output == "deep"
    assert {e.parent_workflow_id for e in events} == {None, run.workflow_id}


def test_an_agent_that_fails_as_a_tool_is_told_to_the_model():
    inner = Agent("inner", client=ScriptedClient([OSError("no")]), tools=[])
    limited = Agent(
        "limited", client=ScriptedClient([call("x")]), tool_limits=ToolLimits(max_rounds=1)
    )
    watched = Watched(
        [call("inner", 0, input="a"), call("limited", 1, input="b")],
        "done",
        tools=[inner.as_tool("One."), limited.as_tool("Two.")],
    )
    assert watched.run().response == "done"
    first, second = watched.told()
    assert first.startswith("Error: the tool raised WorkflowFailed")
    assert "OSError" in first
    assert "max_rounds" in second


def test_a_stop_reaches_the_agent_within(server):
    gate = Gate()
    server.reply(*text_chunks("One", " two")[:2], gate)
    with client_of(server) as client:
        inner = Agent("inner", client=client)
        outer = Agent(
            "outer", client=ScriptedClient([call("inner", input="x")]), tools=[inner.as_tool("I.")]
        )
        with Runtime() as runtime:
            handle = runtime.submit(outer, "go")
            assert gate.wait_reached()
            began = time.monotonic()
            handle.cancel("enough")
            with pytest.raises(Cancelled):
                handle.result(BOUND)
            assert time.monotonic() - began < 1.0
            assert server.wait_client_gone()
            wait_until(lambda: lost_threads() == 0)
            events = list(runtime.event_stream.store.read(limit=1000))
        ends = [e.type.value for e in events if e.type.value.startswith("workflow_c")]
        assert ends == ["workflow_cancelled"] * 2


@pytest.mark.parametrize("way", ["as_tool", "runtime.run"])
def test_u07_agent_runs_agent_on_a_full_pool(way):
    began = time.monotonic()
    with Runtime(max_workers=1) as runtime:

        def delegate(input: str) -> str:
            """Ask another."""
            return runtime.run(Agent("third", client=ScriptedClient("deep")), input).output

        inner = Agent(
            "inner",
            client=ScriptedClient([call("delegate", input="z")], "inner done"),
            tools=[delegate],
        )
        helper = inner.as_tool("Helps.") if way == "as_tool" else _running(runtime, inner)
        outer = Agent(
            "outer", client=ScriptedClient([call("inner", input="y")], "all done"), tools=[helper]
        )
        assert runtime.submit(outer, "x").result(BOUND).output == "all done"
        told = [m.content for m in inner.client.requests[1].messages if m.role == "tool"]  # type: ignore[attr-defined]
    assert told == ["deep"]
    assert time.monotonic() - began < 5.0


def _running(runtime: Runtime, agent: Agent) -> Any:
    def inner(input: str) -> str:
        """Help."""
        return runtime.run(agent, input).output

    return inner
