"""A run and its steps' attempts: results, retries, failures, its one end."""

from __future__ import annotations

import json
import threading
import time
from typing import Any, Iterator, List

import pytest

from agentstream import Agent, CancelToken, EventType, Parallel, Retries, Runtime, Step, Workflow
from agentstream.errors import (
    AuthError,
    BadRequest,
    Cancelled,
    ConfigError,
    RateLimited,
    StreamTruncated,
    WorkflowFailed,
)
from agentstream.results import Usage
from agentstream.testing import Gate, Reply, ScriptedServer, text_chunks
from agentstream.workflow import execution
from tests.kit.support import FunctionClient, Task, client_of, events_of, saying
from tests.kit.workflow_runs import failure_of, run_one, two_steps
from tests.kit.workflow_support import Cast, cut, step_events, told


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_WAITS", Retries(backoff=0.0))


def test_a_cut_answer_is_asked_for_again(cast: Cast, runtime: Runtime, no_waits: None) -> None:
    agent = cast.plays("a", cut("half ", "of it"), Reply.text("all ", "of it"))
    run = run_one(runtime, Step(agent, retries=2), workflow_id="w")
    assert run.output == "all of it"
    assert [s.output for s in run.steps] == ["all of it"]
    assert run.usage.completion_tokens == 4
    kinds = [
        (kind, data.get("attempt"), data.get("will_retry"))
        for kind, data in step_events(runtime, "w", "0")
    ]
    assert kinds == [
        ("started", None, None),
        ("failed", 1, True),
        ("started", 2, None),
        ("completed", None, None),
    ]
    failed = step_events(runtime, "w", "0")[1][1]
    assert (failed["error"], failed["delay_s"]) == ("StreamTruncated", 0.0)
    assert len(cast.asked["a"]) == 2


def test_the_last_failure_counts(cast: Cast, runtime: Runtime, no_waits: None) -> None:
    agent = cast.plays("a", cut("one"), cut("two ", "and more"))
    failed = failure_of(runtime, Step(agent, retries=1), workflow_id="w")
    assert isinstance(failed.__cause__, StreamTruncated)
    assert failed.run is not None
    assert failed.run.output == "two and more"
    assert failed.run.usage.completion_tokens == 3
    once = ["started 0", "failed 0"]
    assert told(runtime, "w") == ["started", *once, *once, "failed"]
    assert "will_retry" not in step_events(runtime, "w", "0")[-1][1]


def test_whole_shapes_are_tried_again(cast: Cast, runtime: Runtime, no_waits: None) -> None:
    calls: List[str] = []

    def sometimes(input: Any) -> str:
        calls.append(input)
        if len(calls) < 3:
            raise OSError("not yet")
        return "at last"

    inner = Workflow("inner", [cast.says("a", "said"), sometimes])
    run = run_one(runtime, Parallel({"in": inner}, retries=2), workflow_id="w")
    assert run.output == {"in": "at last"}
    assert run.usage == Usage(30, 3, 33)
    assert len(run.steps[0].steps) == 1
    started = [data for kind, data in step_events(runtime, "w", "0.in") if kind == "started"]
    assert len({data["run"] for data in started}) == 3
    ends = [events_of(runtime.event_stream, data["run"])[-1].type.value for data in started]
    assert ends == ["workflow_failed", "workflow_failed", "workflow_completed"]


def test_a_timeout_holds_for_each_attempt(cast: Cast, runtime: Runtime, no_waits: None) -> None:
    cast.halts("a", Gate(), "half", "never")
    agent = cast.says("a", "whole")
    run = run_one(runtime, Step(agent, timeout=0.8, retries=1))
    assert run.output == "whole"
    assert run.steps[0].duration_ms > 790


@pytest.mark.parametrize(
    ("reply", "error"),
    [(Reply.json({}, status=400), BadRequest), (Reply.json({}, status=401), AuthError)],
)
def test_what_will_fail_again_is_not_tried_again(
    cast: Cast, runtime: Runtime, reply: Reply, error: Any
) -> None:
    for step in (
        Step(cast.plays("a", reply), retries=5),
        Step(Workflow("inner", [cast.plays("a", reply)]), retries=5),
    ):
        failed = failure_of(runtime, step)
        cause = failed.__cause__
        assert isinstance(cause.__cause__ if isinstance(cause, WorkflowFailed) else cause, error)
    assert len(cast.asked["a"]) == 2


def test_a_wrong_prompt_and_an_exit_are_not_tried_again(cast: Cast, runtime: Runtime) -> None:
    calls: List[Any] = []

    def leave(input: Any) -> None:
        calls.append(input)
        raise SystemExit

    failure_of(runtime, Step(leave, retries=5))
    assert len(calls) == 1
    agent = Step(cast.says("a", "x"), prompt="{input.name}", retries=5)
    assert isinstance(failure_of(runtime, agent).__cause__, ConfigError)
    assert cast.asked == {}


def test_a_stop_ends_the_wait_before_a_further_attempt(cast: Cast, runtime: Runtime) -> None:
    agent = cast.plays("a", Reply.json({}, status=429, headers={"Retry-After": "30"}))
    step = Parallel({"a": Step(agent, retries=3), "b": cast.says("b", "fine")})
    ends = ["workflow_step_failed", "workflow_step_completed"]
    with runtime.event_stream.subscribe(workflow_id="w", types=ends) as events:
        handle = runtime.submit(Workflow("w", [step]), "x", workflow_id="w")
        both = {event.data["step"]: event.data for event in (next(events), next(events))}
    failed = both["0.a"]
    assert failed["will_retry"]
    assert failed["delay_s"] == 30.0  # as the server asked
    began = time.monotonic()
    handle.cancel("enough")
    with pytest.raises(Cancelled) as caught:
        handle.result(5)
    assert time.monotonic() - began < 5
    assert caught.value.run is not None
    assert [s.status for s in caught.value.run.steps[0].steps] == ["cancelled", "completed"]


def test_a_branch_that_waits_to_retry_is_told_that_another_failed(
    cast: Cast, runtime: Runtime
) -> None:
    waiting = threading.Event()

    def broken(input: Any) -> None:
        assert waiting.wait(5)
        raise ZeroDivisionError

    agent = cast.plays("a", Reply.json({}, status=429, headers={"Retry-After": "30"}))
    runtime.event_stream.subscribe(lambda event: waiting.set(), types=["workflow_step_failed"])
    parallel = Parallel({"a": Step(agent, retries=3), "b": broken})
    failed = failure_of(runtime, parallel, workflow_id="w")
    assert isinstance(failed.__cause__, ZeroDivisionError)
    last = step_events(runtime, "w", "0.a")[-1]
    assert (last[0], last[1]["error"], last[1].get("will_retry")) == ("failed", "Cancelled", None)


def test_a_server_that_asks_for_too_long_a_wait_is_not_asked_again(
    cast: Cast, runtime: Runtime
) -> None:
    agent = cast.plays("a", Reply.json({}, status=429, headers={"Retry-After": "3600"}))
    failed = failure_of(runtime, Step(Workflow("inner", [agent]), retries=3))
    assert isinstance(failed.__cause__.__cause__, RateLimited)
    assert len(cast.asked["a"]) == 1


def test_a_strangers_retry_after_is_not_looked_at(runtime: Runtime, no_waits: None) -> None:
    class Strange(Exception):
        retry_after = "soon"

    calls: List[Any] = []

    def sometimes(input: Any) -> str:
        calls.append(input)
        if len(calls) < 2:
            raise Strange
        return "fine"

    assert run_one(runtime, Step(sometimes, retries=1)).output == "fine"


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
