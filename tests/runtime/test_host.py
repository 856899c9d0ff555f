"""Runs within runs: their places on a full pool, their stops, and the end of endless ones (U07)."""

from __future__ import annotations

import json
import time
from typing import Any, Iterator, List

import pytest

from agentstream import Agent, CancelToken, EventType, Runtime, ToolLimits, tool
from agentstream.errors import Cancelled, WorkflowFailed
from tests.kit.support import FunctionClient, events_of, words_of
from tests.kit.work import Holding


def asking(*answers: Any) -> FunctionClient:
    """A model that calls the tool `delegate` once, then says what it returned."""

    def model(request: Any, cancel: CancelToken) -> Iterator[Any]:
        from agentstream.llm.messages import Delta, ToolCallDelta

        if request.messages[-1].role == "tool":
            yield "it says: " + words_of(request)
        else:
            call = ToolCallDelta(0, "call_0", "delegate", json.dumps({"task": words_of(request)}))
            yield Delta(tool_calls=(call,), finish_reason="tool_calls")

    return FunctionClient(model)


@pytest.mark.parametrize("how", ["run", "submit", "stream"])
def test_u07_a_tool_runs_an_agent_on_a_full_pool(how: str) -> None:
    inner = Agent("inner", client=FunctionClient(lambda r, c: [words_of(r).upper()]))
    children: List[str] = []

    @tool
    def delegate(task: str) -> str:
        """Hand a task on."""
        if how == "run":
            run = runtime.run(inner, task)
        elif how == "submit":
            run = runtime.submit(inner, task).result(5)
        else:
            *_, last = runtime.stream(inner, task)
            children.append(last.workflow_id)
            return str(last.data["output"])
        children.append(run.workflow_id)
        return run.output

    outer = Agent("outer", client=asking(), tools=[delegate], tool_limits=ToolLimits(timeout=5))
    began = time.monotonic()
    with Runtime(max_workers=2) as runtime:
        handles = [runtime.submit(outer, f"task {n}") for n in range(2)]  # the pool is full
        outputs = [handle.result(5).output for handle in handles]
        assert time.monotonic() - began < 4
        assert outputs == ["it says: TASK 0", "it says: TASK 1"]
        parents = {
            events_of(runtime.event_stream, child)[0].parent_workflow_id for child in children
        }
        assert parents == {handle.workflow_id for handle in handles}
        for child in children:
            assert {e.parent_workflow_id for e in events_of(runtime.event_stream, child)} <= parents


def test_u07_a_model_runs_an_agent_in_the_worker_itself() -> None:
    def model(request: Any, cancel: CancelToken) -> Iterator[str]:
        depth = int(words_of(request))
        if depth:
            yield runtime.run(agent, str(depth - 1)).output
        yield str(depth)

    agent = Agent("nested", client=FunctionClient(model))
    with Runtime(max_workers=1) as runtime:
        assert runtime.run(agent, "20").output == "".join(map(str, range(21)))


def test_u07_without_a_bottom_it_ends_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from agentstream import threads

    monkeypatch.setattr(threads.pool, "_MOST_EXTRA", 10)

    def model(request: Any, cancel: CancelToken) -> Iterator[str]:
        yield runtime.run(agent, "deeper").output

    agent = Agent("endless", client=FunctionClient(model))
    began = time.monotonic()
    with Runtime(max_workers=1) as runtime:
        with pytest.raises(WorkflowFailed) as caught:
            runtime.run(agent, "x")
        assert time.monotonic() - began < 2
        innermost: BaseException = caught.value
        while innermost.__cause__ is not None:
            innermost = innermost.__cause__
        assert isinstance(innermost, RuntimeError)
        assert "beyond the pool" in str(innermost)
        assert not runtime._runs


def test_a_stop_goes_down_to_the_runs_within() -> None:
    inner_client = Holding()
    inner = Agent("inner", client=inner_client)

    def model(request: Any, cancel: CancelToken) -> Iterator[str]:
        yield runtime.run(inner, "x", workflow_id="inner").output

    with Runtime(max_workers=1) as runtime:
        handle = runtime.submit(Agent("outer", client=FunctionClient(model)), "x")
        inner_client.wait_begun()
        assert handle.cancel("all of it")
        with pytest.raises(Cancelled):
            handle.result(5)
        last = events_of(runtime.event_stream, "inner")[-1]
        assert last.type is EventType.WORKFLOW_CANCELLED
        assert "all of it" in last.data["reason"]


def test_a_run_outlives_the_run_that_started_it(runtime: Runtime) -> None:
    inner = Holding()
    started: List[Any] = []

    def model(request: Any, cancel: CancelToken) -> Iterator[str]:
        started.append(runtime.submit(Agent("inner", client=inner), "x"))
        yield "started"

    outer = runtime.submit(Agent("outer", client=FunctionClient(model)), "x")
    assert outer.result(5).output == "started"
    inner.wait_begun()
    assert outer.cancel() is False
    inner.go.cancel()
    assert started[0].result(5).output == "begun done"
