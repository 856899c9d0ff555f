"""Work side by side: lent threads or none, failures, stops, and branches that do not end."""

from __future__ import annotations

import threading
from typing import Any, Dict, Iterator, List

import pytest

from agentstream import Agent, CancelToken, Context, Parallel, Runtime, Step, Workflow
from agentstream.errors import Cancelled, StreamTruncated, WorkflowFailed
from agentstream.llm.messages import Delta
from agentstream.results import Usage
from agentstream.testing import Gate, Reply
from tests.kit.support import FunctionClient, Seen, Task, events_of, saying, wait_until
from tests.kit.workflow_support import Cast, step_events, told, tree


def upper(input: Any) -> Any:
    return input.upper()


@pytest.mark.parametrize("workers", [1, 8])
def test_branches_stream_at_the_same_time(cast: Cast, workers: int) -> None:
    gates = {name: Gate() for name in "abc"}
    agents = [cast.halts(name, gates[name], f"{name}1 ", f"{name}2") for name in "abc"]
    seen = Seen()
    with Runtime(max_workers=workers) as runtime:
        runtime.event_stream.subscribe(seen, types=["agent_llm_stream_chunk"])
        handle = runtime.submit(Workflow("w", [Parallel(*agents)]), "go", workflow_id="w")
        seen.wait(3)  # none goes on before all have begun to stream
        for name in "cab":
            gates[name].open()
        run = handle.result(5)
        chunks = [
            (event.data["step"], event.data["chunk"])
            for event in events_of(runtime.event_stream, "w")
            if "chunk" in event.data
        ]
    assert run.output == {"a": "a1 a2", "b": "b1 b2", "c": "c1 c2"}
    assert list(run.output) == ["a", "b", "c"]
    assert sorted(chunk for _, chunk in chunks[:3]) == ["a1 ", "b1 ", "c1 "]
    for name in "abc":
        assert [c for step, c in chunks if step == f"0.{name}"] == [f"{name}1 ", f"{name}2"]
    assert cast.asked == {"a": ["go"], "b": ["go"], "c": ["go"]}


def test_results_are_in_the_order_written_and_not_in_that_of_their_ends(
    cast: Cast, runtime: Runtime
) -> None:
    gate = Gate()
    slow = cast.halts("slow", gate, "s", "low")

    def quick(input: Any, context: Context) -> str:
        return "quick"

    handle = runtime.submit(Workflow("w", [Parallel(slow, quick)]), "x", workflow_id="w")
    with runtime.event_stream.subscribe(workflow_id="w", after=0) as events:
        while next(events).data.get("output") != "quick":
            pass
        gate.open()
    run = handle.result(5)
    assert list(run.output.items()) == [("slow", "slow"), ("quick", "quick")]
    assert [s.step for s in run.steps[0].steps] == ["0.slow", "0.quick"]


def test_every_subscriber_sees_one_order(cast: Cast, runtime: Runtime) -> None:
    names = ["a", "b", "c", "d"]
    agents = [cast.says(name, *(f"{name}{n} " for n in range(30))) for name in names]
    first, second = Seen(), Seen()
    runtime.event_stream.subscribe(first)
    runtime.event_stream.subscribe(second, workflow_id="w")
    runtime.run(Workflow("w", [Parallel(*agents)]), "x", workflow_id="w")
    stored = events_of(runtime.event_stream, "w")
    assert first.wait(len(stored)) == stored
    assert second.wait(len(stored)) == stored
    for event in stored[2:-2]:
        assert event.data["step"].startswith("0.")
        assert event.data.get("agent", event.data["step"][2:]) == event.data["step"][2:]
    for name in names:
        own = [e.type.value for e in stored if e.data.get("step") == f"0.{name}"]
        assert own[0] == "workflow_step_started"
        assert own[-1] == "workflow_step_completed"
        texts = [
            e.data["chunk"] for e in stored if e.data.get("agent") == name and "chunk" in e.data
        ]
        assert texts == [f"{name}{n} " for n in range(30)]


def test_a_branch_that_fails_stops_the_others_at_once(cast: Cast, runtime: Runtime) -> None:
    held, silent, never = Gate(), Gate(), Gate()
    agents = {
        "talks": cast.halts("talks", held, "so far ", "never"),
        "silent": cast.plays("silent", Reply(silent)),
        "breaks": cast.plays("breaks", Reply(*Reply.text("half").actions[:2], never)),
    }
    seen = Seen()
    runtime.event_stream.subscribe(seen, types=["agent_llm_stream_chunk"])
    handle = runtime.submit(Workflow("w", [Parallel(agents), upper]), "x", workflow_id="w")
    assert held.wait_reached()
    assert silent.wait_reached()
    assert never.wait_reached()
    seen.wait(2)
    never.open()  # its body ends there: a stream cut short
    with pytest.raises(WorkflowFailed) as caught:
        handle.result(5)
    assert cast.server.wait_client_gone(count=2)  # the other two sockets are closed
    assert isinstance(caught.value.__cause__, StreamTruncated)
    assert "'breaks'" in str(caught.value)
    run = caught.value.run
    assert run is not None
    assert run.output == {"talks": "so far ", "silent": "", "breaks": "half"}
    assert [(s.step, s.status) for s in run.steps[0].steps] == [
        ("0.talks", "cancelled"),
        ("0.silent", "cancelled"),
        ("0.breaks", "failed"),
    ]
    assert run.steps[0].status == run.status == "failed"
    last = events_of(runtime.event_stream, "w")[-1]
    assert (last.data["failed_step"], last.data["failed_at"]) == ("breaks", "0.breaks")
    assert step_events(runtime, "w", "0.talks")[-1][1]["error"] == "Cancelled"
    lines = told(runtime, "w")
    assert lines[-3:] == ["failed 0.silent", "failed 0", "failed"] or (
        lines[-3:] == ["failed 0.talks", "failed 0", "failed"]
    )


def no_thread(_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_without_threads_branches_come_one_after_the_other(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["a", "b", "c"]
    agents = [cast.says(name, name) for name in names]
    with Runtime(max_workers=1) as runtime:
        runtime.run(Workflow("w", [agents[0]]), "the worker and the clock are there now")
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name.startswith("agentstream-testing"):
                start(thread)
            else:
                no_thread(thread)

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            run = runtime.run(
                Workflow("w", [Parallel(*agents, Step(upper, name="f"))]), "x", workflow_id="w"
            )
        lines = told(runtime, "w")
    assert run.output == {"a": "a", "b": "b", "c": "c", "f": "X"}
    both = ("started", "completed")
    assert lines[2:-2] == [f"{what} 0.{name}" for name in [*names, "f"] for what in both]
    assert "no thread for a branch" in caplog.text
    assert "no thread for a function" in caplog.text


def test_without_threads_a_failure_keeps_the_others_from_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: List[str] = []

    def breaks(input: Any) -> None:
        begun.append("breaks")
        raise ZeroDivisionError("so it is")

    def other(input: Any) -> None:
        begun.append("other")

    with Runtime(max_workers=1) as runtime:
        runtime.run(Agent("a", client=saying("warm")), "x")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(WorkflowFailed) as caught:
                runtime.run(Workflow("w", [Parallel(breaks, other)]), "x", workflow_id="w")
            run = runtime.run(Workflow("w", [Parallel(breaks, other, fail_fast=False)]), "x")
        assert told(runtime, "w") == [
            "started",
            "started 0",
            "started 0.breaks",
            "failed 0.breaks",
            "failed 0",
            "failed",
        ]
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert begun == ["breaks", "breaks", "other"]
    assert caught.value.run is not None
    assert len(caught.value.run.steps[0].steps) == 1
    assert run.output == {
        "breaks": {"error": "ZeroDivisionError", "message": "so it is"},
        "other": None,
    }


def test_a_system_exit_in_a_branch_fails_the_run_in_either_mode(runtime: Runtime) -> None:
    def leave(input: Any) -> None:
        raise SystemExit(3)

    for fail_fast in (True, False):
        with pytest.raises(WorkflowFailed) as caught:
            runtime.run(Workflow("w", [Parallel(leave, upper, fail_fast=fail_fast)]), "x")
        assert isinstance(caught.value.__cause__, SystemExit)


def test_parallels_within_parallels(cast: Cast) -> None:
    gate = Gate()
    leaves = {n: cast.halts(n, gate, n, "!") for n in ("a", "b", "c", "d")}
    left, right = Parallel(leaves["a"], leaves["b"]), Parallel(leaves["c"], leaves["d"])
    inner = {"left": left, "right": right}
    with Runtime(max_workers=1) as runtime:
        handle = runtime.submit(Workflow("w", [Parallel(inner)]), "x", workflow_id="w")
        assert gate.wait_reached(count=4)
        gate.open()
        run = handle.result(5)
    assert run.output == {"left": {"a": "a!", "b": "b!"}, "right": {"c": "c!", "d": "d!"}}
    assert tree(run.steps[0].steps[1].steps) == [
        ("0.right.c", "Agent", "completed", "c!", []),
        ("0.right.d", "Agent", "completed", "d!", []),
    ]
    assert run.usage == Usage(40, 8, 48)


def test_many_runs_of_many_branches_at_once_all_end() -> None:
    def echo(request: Any, cancel: CancelToken) -> Iterator[Any]:
        yield "x"
        yield Delta(usage=Usage(1, 1, 2))

    agent = Agent("a", client=FunctionClient(echo))
    inner = Parallel({"a": agent, "b": agent})
    workflow = Workflow("w", [Parallel({"p": inner, "q": agent, "r": agent}), upper_all])
    for workers in (1, 3):
        with Runtime(max_workers=workers) as runtime:
            handles = [runtime.submit(workflow, "x") for _ in range(30)]
            for handle in handles:
                run = handle.result(20)
                assert run.output == "P,Q,R"
                assert run.usage.total_tokens == 8


def upper_all(results: Dict[str, Any]) -> str:
    return ",".join(results).upper()


def test_branches_begin_while_the_runtime_is_being_left(cast: Cast) -> None:
    first, both = Gate(), Gate()
    agents = [cast.halts(name, both, name, "!") for name in "ab"]
    runtime = Runtime(max_workers=1)
    handle = runtime.submit(
        Workflow("w", [cast.halts("first", first, "1", "2"), Parallel(*agents)]), "x"
    )
    assert first.wait_reached()
    leaving = Task(runtime.shutdown)
    wait_until(lambda: runtime._pool._closed)
    first.open()
    assert both.wait_reached(count=2)  # side by side all the same
    both.open()
    assert leaving.result() is True
    assert handle.result(0).output == {"a": "a!", "b": "b!"}


def test_a_stop_closes_every_branch_and_keeps_its_words(cast: Cast, runtime: Runtime) -> None:
    gate = Gate()
    agents = [cast.halts(name, gate, f"{name} so far", "never") for name in "ab"]
    with runtime.event_stream.subscribe(
        workflow_id="w", types=["agent_llm_stream_chunk"], after=0
    ) as events:
        handle = runtime.submit(Workflow("w", [Parallel(*agents)]), "x", workflow_id="w")
        next(events), next(events)
    assert runtime.stop_generation("w", "enough")
    with pytest.raises(Cancelled) as caught:
        handle.result(5)
    assert cast.server.wait_client_gone(count=2)
    run = caught.value.run
    assert run is not None
    assert run.output == {"a": "a so far", "b": "b so far"}
    assert tree(run.steps) == [
        (
            "0",
            "Parallel",
            "cancelled",
            run.output,
            [
                ("0.a", "Agent", "cancelled", "a so far", []),
                ("0.b", "Agent", "cancelled", "b so far", []),
            ],
        ),
    ]
    assert told(runtime, "w")[-1] == "cancelled"
    assert not [line for line in told(runtime, "w") if line.startswith("failed")]


def test_a_stubborn_branch_is_left_behind(cast: Cast) -> None:
    stuck, gate = threading.Event(), Gate()

    def stubborn(request: Any, cancel: CancelToken) -> Iterator[str]:
        yield "I will "
        stuck.wait(20)  # whatever the token says
        yield "not stop"

    runtime = Runtime(grace=0.1)
    runtime.event_stream.subscribe(seen := Seen(), types=["agent_llm_stream_chunk"])
    agent = Agent("a", client=FunctionClient(stubborn))
    parallel = Parallel(agent, cast.halts("b", gate, "b", "c"))
    handle = runtime.submit(Workflow("w", [parallel]), "x", workflow_id="w")
    seen.wait(2)
    assert runtime.shutdown(cancel=True) is False
    with pytest.raises(Cancelled) as caught:
        handle.result(0)
    run = caught.value.run
    assert run is not None
    assert run.output == {"a": "I will ", "b": "b"}
    assert [s.status for s in run.steps[0].steps] == ["cancelled", "cancelled"]
    stuck.set()
    events_of(runtime.event_stream, "w")
