"""A workflow in a workflow; and all shapes at random."""

from __future__ import annotations

import gc
import logging
import random
import threading
import time
import weakref
from typing import Any, Iterator, List

import pytest

from agentstream import (
    Agent,
    Branch,
    CancelToken,
    Context,
    EventStream,
    Map,
    Parallel,
    Repeat,
    Retries,
    Runtime,
    SqliteStore,
    Step,
    Workflow,
)
from agentstream.errors import Cancelled, DeadlineExceeded, StreamTruncated, WorkflowFailed
from agentstream.llm.messages import Delta
from agentstream.results import Usage
from agentstream.testing import Gate
from agentstream.workflow import execution
from tests.kit.support import FunctionClient, Seen, Task, events_of, saying, wait_until
from tests.kit.workflow_support import Cast, step_events, told, tree


def test_a_workflow_within_is_a_run_of_its_own(cast: Cast, runtime: Runtime) -> None:
    inner = Workflow("inner", [cast.says("a", "one "), Parallel(cast.says("b", "two"))])
    outer = Workflow("outer", [Step(inner, name="sub"), cast.says("c", "three")])
    run = runtime.run(outer, "x", workflow_id="w")
    started = step_events(runtime, "w", "0")[0][1]
    assert (started["name"], started["kind"]) == ("sub", "Workflow")
    child = started["run"]
    events = events_of(runtime.event_stream, child)
    assert {event.parent_workflow_id for event in events} == {"w"}
    assert told(runtime, child) == [
        "started",
        "started 0",
        "completed 0",
        "started 1",
        "started 1.b",
        "completed 1.b",
        "completed 1",
        "completed",
    ]
    assert told(runtime, "w") == [
        "started",
        "started 0",
        "completed 0",
        "started 1",
        "completed 1",
        "completed",
    ]
    everything = [
        (e.workflow_id, e.type.value) for e in runtime.event_stream.store.read(after=0, limit=1000)
    ]
    assert everything.index((child, "workflow_completed")) < everything.index(
        ("w", "workflow_step_completed")
    )
    assert everything[-1] == ("w", "workflow_completed")
    assert run.usage == Usage(30, 3, 33)
    assert tree(run.steps) == [
        (
            "0",
            "Workflow",
            "completed",
            {"b": "two"},
            [
                ("0", "Agent", "completed", "one ", []),
                (
                    "1",
                    "Parallel",
                    "completed",
                    {"b": "two"},
                    [("1.b", "Agent", "completed", "two", [])],
                ),
            ],
        ),
        ("1", "Agent", "completed", "three", []),
    ]
    assert runtime.stop_generation(child) is False


def test_its_failure_says_where_and_why(cast: Cast, runtime: Runtime) -> None:
    inner = Workflow("inner", [cast.says("a", "one"), cast.breaks("b", "half")])
    with pytest.raises(WorkflowFailed) as caught:
        runtime.run(Workflow("outer", [Branch(bool, [inner])]), "x", workflow_id="w")
    failed = caught.value
    within = failed.__cause__
    assert isinstance(within, WorkflowFailed)
    assert isinstance(within.__cause__, StreamTruncated)
    assert failed.retryable
    assert "'inner'" in str(failed)
    assert "'b'" in str(failed)
    last = events_of(runtime.event_stream, "w")[-1].data
    assert (last["failed_step"], last["failed_at"]) == ("inner", "0.then.0")  # of this run
    child = step_events(runtime, "w", "0.then.0")[0][1]["run"]
    last = events_of(runtime.event_stream, child)[-1].data
    assert (last["failed_step"], last["failed_at"]) == ("b", "1")
    assert failed.run is not None
    assert failed.run.output == "half"
    assert failed.partial is not None
    assert failed.partial.content == "half"


@pytest.mark.parametrize("which", ["outer", "inner"])
def test_a_stop_reaches_it_from_without_and_by_its_own_id(
    cast: Cast, runtime: Runtime, which: str
) -> None:
    gate = Gate()
    innermost = Workflow("innermost", [cast.halts("a", gate, "so far", "never")])
    workflow = Workflow("outer", [Workflow("middle", [innermost]), len])
    with runtime.event_stream.subscribe(types=["agent_llm_stream_chunk"]) as events:
        handle = runtime.submit(workflow, "x", workflow_id="w")
        child = next(events).workflow_id
    assert child != "w"
    assert runtime.stop_generation(child if which == "inner" else "w", "enough")
    with pytest.raises(Cancelled) as caught:
        handle.result(5)
    assert cast.server.wait_client_gone()
    run = caught.value.run
    assert run is not None
    assert run.output == "so far"
    assert tree(run.steps) == [
        (
            "0",
            "Workflow",
            "cancelled",
            "so far",
            [
                (
                    "0",
                    "Workflow",
                    "cancelled",
                    "so far",
                    [("0", "Agent", "cancelled", "so far", [])],
                ),
            ],
        )
    ]
    assert told(runtime, child)[-1] == told(runtime, "w")[-1] == "cancelled"
    last = events_of(runtime.event_stream, "w")[-1]
    assert "enough" in last.data["reason"]
    assert not runtime._host._inner


def test_a_stop_reaches_it_from_another_process_too(cast: Cast, tmp_path: Any) -> None:
    """As another process does it: a runtime of its own over the same file."""
    path = str(tmp_path / "runs.db")
    inner = Workflow("inner", [cast.halts("a", Gate(), "so far", "never")])
    parallel = Parallel({"a": inner, "b": len}, fail_fast=False)
    with (
        Runtime(event_stream=EventStream(SqliteStore(path))) as runtime,
        Runtime(event_stream=EventStream(SqliteStore(path))) as other,
    ):
        runtime.event_stream.subscribe(seen := Seen(), types=["agent_llm_stream_chunk"])
        handle = runtime.submit(Workflow("w", [parallel]), "x", workflow_id="w")
        [chunk] = seen.wait(1)
        assert other.stop_generation(chunk.workflow_id, "from afar")
        run = handle.result(5)
        assert told(runtime, chunk.workflow_id)[-1] == "cancelled"
    assert run.output["a"]["error"] == "Cancelled"  # that one only
    assert run.output["b"] == 1
    assert run.steps[0].steps[0].output == "so far"


def test_one_that_is_stubborn_is_ended_too(runtime: Runtime) -> None:
    stuck = threading.Event()
    begun = threading.Event()

    def stubborn(request: Any, cancel: CancelToken) -> Iterator[str]:
        yield "I will not stop"
        begun.set()
        stuck.wait(20)

    runtime.grace = 0.05
    inner = Workflow("inner", [Agent("a", client=FunctionClient(stubborn))])
    handle = runtime.submit(Workflow("w", [inner]), "x", workflow_id="w")
    assert begun.wait(5)
    assert Task(lambda: runtime.shutdown(cancel=True)).result() is False
    child = step_events(runtime, "w", "0")[0][1]["run"]
    assert told(runtime, child)[-1] == told(runtime, "w")[-1] == "cancelled"
    with pytest.raises(Cancelled) as caught:
        handle.result(0)
    stuck.set()
    assert caught.value.run is not None
    assert caught.value.run.steps[0].steps[0].output == "I will not stop"


def test_what_a_function_starts_is_within_its_step(cast: Cast, runtime: Runtime) -> None:
    """A run that a function starts ends with its step's time, and names its run as the parent."""
    gate = Gate()
    slow = cast.halts("slow", gate, "so far", "never")

    def start(input: Any) -> Any:
        return runtime.run(slow, input, workflow_id="started").output

    inner = Workflow("inner", [Step(start, timeout=0.8)])
    with pytest.raises(WorkflowFailed) as caught:
        runtime.run(Workflow("outer", [inner]), "x", workflow_id="w")
    assert cast.server.wait_client_gone()
    wait_until(lambda: runtime.event_stream.store.has_ended("started"))
    events = events_of(runtime.event_stream, "started")
    assert events[-1].type == "workflow_cancelled"
    assert events[0].parent_workflow_id == step_events(runtime, "w", "0")[0][1]["run"]
    cause = caught.value.__cause__
    assert cause is not None
    assert isinstance(cause.__cause__, DeadlineExceeded)


def agent(name: str) -> Agent:
    return Agent(name, client=saying("x"))


def test_a_run_that_failed_leaves_no_cycle(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    """What a failed run held is gone with its error, without the garbage collector."""
    caplog.set_level(logging.INFO, "agentstream")  # what is captured holds the traceback

    class Input(dict):  # type: ignore[type-arg]
        pass

    def fails(input: Any) -> None:
        raise ValueError("no")

    inner = Workflow("inner", [Parallel(fails, len, fail_fast=True)])
    step = Repeat(Step([Branch(bool, inner)], timeout=9, retries=0), at_most=2)
    gc.collect()
    gc.disable()
    try:
        given = Input(a=1)
        gone = weakref.ref(given)
        try:
            runtime.run(Workflow("w", [step]), given)
        except WorkflowFailed:
            pass
        del given
        wait_until(lambda: gone() is None)
    finally:
        gc.enable()


class Chaos:
    """Random workflows of all shapes, whose leaves speak, fail, dawdle, or wait to be stopped."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.leaves = 0

    def workflow(self) -> Workflow:
        return Workflow("w", [self.step(3) for _ in range(self.random.randint(1, 2))])

    def step(self, depth: int) -> Step:
        roll = self.random.random
        kind = self.random.choice(
            ["leaf", "agent"]
            if not depth
            else ["leaf", "agent", "list", "parallel", "map", "branch", "repeat", "workflow"]
        )
        settings: Any = {"retries": int(roll() < 0.2), "timeout": 0.02 if roll() < 0.1 else None}
        few = range(self.random.randint(1, 3))
        if kind == "parallel":
            within = {f"b{n}": self.step(depth - 1) for n in few}
            return Parallel(within, fail_fast=roll() < 0.5, **settings)
        if kind == "map":
            items = Map(self.step(depth - 1), at_most=2, fail_fast=roll() < 0.5, **settings)
            return Step([lambda _: list(few), items])
        if kind == "branch":
            return Branch(lambda _: True, self.step(depth - 1), **settings)
        if kind == "repeat":
            return Repeat(self.step(depth - 1), at_most=2, **settings)
        if kind == "workflow":
            return Step(Workflow("inner", [self.step(depth - 1) for _ in few]), **settings)
        if kind == "list":
            return Step([self.step(depth - 1) for _ in few], **settings)
        return Step(self.leaf(roll()) if kind == "leaf" else self.agent(roll()), **settings)

    def leaf(self, roll: float) -> Any:
        def leaf(input: Any, context: Context) -> Any:
            context["n"] = context.get("n", 0) + 1
            if roll < 0.08:
                raise OSError("at random")
            if roll < 0.3:
                context.cancel.wait(0.003)
            return "text"

        return leaf

    def agent(self, roll: float) -> Agent:
        def speak(request: Any, cancel: CancelToken) -> Iterator[Any]:
            yield "so "
            if roll < 0.08:
                raise StreamTruncated("at random", phase="stream", retryable=True)
            if roll < 0.4 and cancel.wait(0.002):
                raise Cancelled("stopped")
            yield Delta(content="far", usage=Usage(1, 1, 2))

        return Agent("a", client=FunctionClient(speak))


def check_tree(run: Any, runtime: Runtime) -> None:
    """Results and events of a run, and those of the runs within it, agree."""
    events = runtime.event_stream.store.read(workflow_id=run.workflow_id, after=0, limit=9999)
    ends = [
        e
        for e in events
        if e.type.value in ("workflow_completed", "workflow_failed", "workflow_cancelled")
    ]
    assert len(ends) == 1
    assert ends[0] == events[-1]
    assert ends[0].type.value == f"workflow_{run.status}"
    assert Usage(**ends[0].data["usage"]) == run.usage
    told_of = {}
    inner = []
    for event in events:
        kind = event.type.value
        if kind.startswith("workflow_step_"):
            told_of[event.data["step"]] = (kind[len("workflow_step_") :], event.data)
            inner += [event.data["run"]] if "run" in event.data else []
    check_steps(run.steps, told_of, run.status)
    for child in inner:
        kinds = [e.type.value for e in events_of(runtime.event_stream, child)]
        assert kinds[-1] in ("workflow_completed", "workflow_failed", "workflow_cancelled")


def check_steps(steps: Any, told_of: Any, status: str) -> None:
    for step in steps:
        assert step.status in ("completed", "failed", "cancelled")
        kind, data = told_of[step.step]
        if step.status == "completed":
            assert kind == "completed"
            assert data["duration_ms"] == step.duration_ms
        else:
            assert kind in ("failed", "started")
            assert kind == "failed" or status == "cancelled" or step.status == "cancelled"
        if step.kind != "Workflow":
            check_steps(step.steps, told_of, status)


def test_random_shapes_stops_and_failures_end_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_WAITS", Retries(backoff=0.001))
    runs: List[Any] = []
    with Runtime(max_workers=4) as runtime:
        end = time.monotonic() + 0.7
        seed = 0
        while time.monotonic() < end:
            handles = []
            for seed in range(seed + 1, seed + 9):
                chaos = Chaos(seed)
                handles.append(runtime.submit(chaos.workflow(), "x"))
                if chaos.random.random() < 0.3:
                    CancelToken().wait(chaos.random.random() * 0.01)
                    handles[-1].cancel("at random")
            for handle in handles:
                try:
                    runs.append(handle.result(10))
                except (WorkflowFailed, Cancelled) as error:
                    assert error.run is not None
                    runs.append(error.run)
        for run in runs:
            check_tree(run, runtime)
        assert not runtime._host._inner
    assert len({run.status for run in runs}) > 1
