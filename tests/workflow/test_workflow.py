"""Workflows: each output the next input, what steps and runs carry, and how they end."""

from __future__ import annotations

import json
from typing import Any, Iterator, List

import pytest

from agentstream import Agent, CancelToken, EventType, Runtime, Workflow
from agentstream.errors import Cancelled, ConfigError, StreamTruncated, WorkflowFailed
from agentstream.llm.messages import Delta
from agentstream.results import Usage
from agentstream.testing import Gate, ScriptedServer, text_chunks
from tests.kit.support import FunctionClient, Task, client_of, events_of, saying, words_of


def upper(request: Any, cancel: CancelToken) -> Iterator[Any]:
    yield words_of(request).upper()
    yield Delta(usage=Usage(1, 2, 3))


def louder(request: Any, cancel: CancelToken) -> Iterator[Any]:
    yield words_of(request) + "!"
    yield Delta(usage=Usage(10, 20, 30))


def two_steps() -> Workflow:
    first = Agent("upper", client=FunctionClient(upper))
    return Workflow("shout", [first, Agent("loud", client=FunctionClient(louder))])


def test_each_output_is_the_next_input(server: ScriptedServer, runtime: Runtime) -> None:
    for words in ("first ", "answer"), ("second ", "answer"), ("third ", "answer"):
        server.reply_text(*words)
    with client_of(server) as client:
        agents = [Agent(name, client=client, system_prompt=f"You are {name}.") for name in "abc"]
        run = runtime.run(Workflow("chain", agents), "the question")
    asked = [json.loads(request.body)["messages"] for request in server.requests]
    assert [messages[0]["content"] for messages in asked] == [f"You are {n}." for n in "abc"]
    inputs = [messages[-1]["content"] for messages in asked]
    assert inputs == ["the question", "first answer", "second answer"]
    assert run.output == "third answer"
    assert [step.output for step in run.steps] == ["first answer", "second answer", "third answer"]


def test_a_run_and_its_steps_carry_what_happened(runtime: Runtime) -> None:
    run = runtime.run(two_steps(), "hello", workflow_id="w")
    assert (run.workflow_id, run.status, run.output) == ("w", "completed", "HELLO!")
    assert run.usage == Usage(11, 22, 33, False)
    assert [(s.name, s.kind, s.status, s.output) for s in run.steps] == [
        ("upper", "Agent", "completed", "HELLO"),
        ("loud", "Agent", "completed", "HELLO!"),
    ]
    assert [step.usage for step in run.steps] == [Usage(1, 2, 3), Usage(10, 20, 30)]
    assert all(step.duration_ms >= 0 for step in run.steps)


def test_a_step_has_its_pace(server: ScriptedServer, runtime: Runtime) -> None:
    first, *rest = text_chunks(*"abcdef")[1:]
    gate = Gate()
    server.reply(first, gate, *rest)
    with client_of(server) as client:
        handle = runtime.submit(Agent("a", client=client), "x")
        assert gate.wait_reached()
        gate.open()
        step = handle.result(5).steps[0]
    assert step.tokens_per_second is not None
    assert 5 / (step.duration_ms / 1000) < step.tokens_per_second < 1e6


def test_usage_of_estimated_and_given_counts_is_estimated(runtime: Runtime) -> None:
    agents = [Agent("a", client=saying("one ", "two")), Agent("b", client=FunctionClient(louder))]
    run = runtime.run(Workflow("w", agents), "x")
    assert run.usage == Usage(10, 22, 30, True)


def test_the_events_of_a_workflow_and_their_data(runtime: Runtime) -> None:
    run = runtime.run(two_steps(), "hello")
    events = events_of(runtime.event_stream, run.workflow_id)
    step = [
        "workflow_step_started",
        "agent_processing",
        "agent_llm_request_started",
        "agent_llm_stream_chunk",
        "agent_llm_request_completed",
        "agent_completed",
        "workflow_step_completed",
    ]
    kinds = [event.type.value for event in events]
    assert kinds == ["workflow_started", *step, *step, "workflow_completed"]
    assert dict(events[0].data) == {
        "workflow": "shout",
        "steps": ({"name": "upper", "kind": "Agent"}, {"name": "loud", "kind": "Agent"}),
    }
    assert dict(events[1].data) == {"step": "0", "name": "upper", "kind": "Agent"}
    assert dict(events[4].data) == {"agent": "upper", "step": "0", "chunk": "HELLO"}
    done = events[7].data
    assert done["duration_ms"] == run.steps[0].duration_ms
    assert (done["step"], done["name"], done["output"]) == ("0", "upper", "HELLO")
    assert done["usage"] == Usage(1, 2, 3).to_dict()
    assert dict(events[8].data) == {"step": "1", "name": "loud", "kind": "Agent"}
    last = events[-1].data
    assert last["workflow"] == "shout"
    assert last["output"] == "HELLO!"
    assert last["usage"] == run.usage.to_dict()
    assert last["duration_ms"] >= sum(step.duration_ms for step in run.steps)
    assert all(event.parent_workflow_id is None for event in events)


def test_a_failure_keeps_every_word_and_says_why(server: ScriptedServer, runtime: Runtime) -> None:
    server.reply_text("whole")
    server.reply(*text_chunks("half ", "of it", finish_reason=None, usage=False, done=False))
    with client_of(server) as client:
        agents = [Agent(name, client=client) for name in ("first", "second", "third")]
        with pytest.raises(WorkflowFailed) as caught:
            runtime.run(Workflow("chain", agents), "x", workflow_id="w")
    failed = caught.value
    assert isinstance(failed.__cause__, StreamTruncated)
    assert "'second'" in str(failed)
    assert "StreamTruncated" in str(failed)
    assert (failed.phase, failed.retryable, failed.outcome) == ("stream", True, "unknown")
    assert failed.partial is not None
    assert failed.partial.content == "half of it"
    run = failed.run
    assert run is not None
    assert (run.workflow_id, run.status, run.output) == ("w", "failed", "half of it")
    assert [(s.name, s.status, s.output) for s in run.steps] == [
        ("first", "completed", "whole"),
        ("second", "failed", "half of it"),
    ]
    assert run.usage.estimated
    assert len(server.requests) == 2


def test_a_failures_events_end_the_step_and_then_the_run(runtime: Runtime) -> None:
    def broken(request: Any, cancel: CancelToken) -> Iterator[str]:
        yield "so far "
        raise ZeroDivisionError("of the client's own")

    with pytest.raises(WorkflowFailed) as caught:
        runtime.run(Agent("a", client=FunctionClient(broken)), "x", workflow_id="w")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    events = events_of(runtime.event_stream, "w")
    assert [event.type.value for event in events[-4:]] == [
        "agent_llm_request_failed",
        "agent_failed",
        "workflow_step_failed",
        "workflow_failed",
    ]
    assert events[-2].data["step"] == "0"
    last = events[-1].data
    assert (last["failed_step"], last["error"]) == ("a", "ZeroDivisionError")
    assert last["output"] == "so far "


@pytest.mark.parametrize("error", [SystemExit(2), KeyboardInterrupt(), StopIteration("x")])
def test_whatever_user_code_raises_fails_the_run_and_no_more(
    runtime: Runtime, error: BaseException
) -> None:
    def broken(request: Any, cancel: CancelToken) -> List[str]:
        raise error

    with pytest.raises(WorkflowFailed):
        runtime.run(Agent("a", client=FunctionClient(broken)), "x", workflow_id="w")
    assert events_of(runtime.event_stream, "w")[-1].type is EventType.WORKFLOW_FAILED
    assert runtime.run(Agent("b", client=saying("fine")), "x").output == "fine"


def test_a_stop_keeps_every_word(server: ScriptedServer, runtime: Runtime) -> None:
    server.reply_text("whole")
    gate = Gate()
    server.reply(*text_chunks("half ", "of it")[:3], gate)
    with client_of(server) as client:
        agents = [Agent(name, client=client) for name in ("first", "second", "third")]
        with runtime.event_stream.subscribe(workflow_id="w") as events:
            handle = runtime.submit(Workflow("chain", agents), "x", workflow_id="w")
            while next(events).data.get("chunk") != "of it":
                pass
            assert handle.cancel("that will do")
        with pytest.raises(Cancelled) as caught:
            handle.result(5)
    stopped = caught.value
    assert "that will do" in str(stopped)
    assert stopped.phase == "stream"
    assert stopped.partial is not None
    assert stopped.partial.content == "half of it"
    assert stopped.run is not None
    assert (stopped.run.status, stopped.run.output) == ("cancelled", "half of it")
    assert [(s.name, s.status) for s in stopped.run.steps] == [
        ("first", "completed"),
        ("second", "cancelled"),
    ]
    last = events_of(runtime.event_stream, "w")[-1]
    assert last.type is EventType.WORKFLOW_CANCELLED
    assert last.data["reason"] == "that will do"
    assert last.data["output"] == "half of it"


def test_a_stop_between_two_steps_begins_no_further_one(runtime: Runtime) -> None:
    asked: List[str] = []

    def first(request: Any, cancel: CancelToken) -> Iterator[str]:
        yield "done"
        runtime.stop_generation("w")  # too late for this step: it has said it all

    def second(request: Any, cancel: CancelToken) -> Iterator[str]:
        asked.append("second")
        yield "never"

    agents = [Agent("a", client=FunctionClient(first)), Agent("b", client=FunctionClient(second))]
    error = Task(lambda: runtime.run(Workflow("w", agents), "x", workflow_id="w")).error()
    assert isinstance(error, Cancelled)
    assert error.run is not None
    assert [(step.name, step.status) for step in error.run.steps] == [("a", "completed")]
    assert error.run.output == "done"
    assert asked == []


@pytest.mark.parametrize(
    "wrong",
    [
        ("", [Agent("a", client=saying("x"))]),
        ("w", []),
        ("w", Agent("a", client=saying("x"))),
        ("w", ["agent"]),
        ("w", None),
        (None, [Agent("a", client=saying("x"))]),
    ],
)
def test_a_workflow_refuses_what_cannot_work(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        Workflow(*wrong)


def test_a_workflow_shows_its_steps() -> None:
    assert repr(two_steps()) == "<Workflow 'shout': upper -> loud>"
