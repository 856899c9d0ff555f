"""Map: a step for each item of a list; order, bounds, failures, stops, and how it is told."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any, List

import pytest

from agentstream import (
    Agent,
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    Map,
    Parallel,
    Retries,
    Runtime,
    SqliteStore,
    Step,
    Workflow,
    WorkflowFailed,
)
from agentstream.testing import Gate
from agentstream.workflow import execution
from tests.kit.programs import Program
from tests.kit.support import FunctionClient, events_of, words_of
from tests.kit.work import Holding
from tests.kit.workflow_support import Cast, step_events, told, tree


def echoing() -> FunctionClient:
    return FunctionClient(lambda request, cancel: ["<", words_of(request), ">"])


def test_results_are_in_the_order_of_the_items_whichever_ends_first(runtime: Runtime) -> None:
    second = threading.Event()

    def slow_first(item: int) -> int:
        if item == 0:
            assert second.wait(10)
        if item == 1:
            second.set()
        return item * item

    run = runtime.run(Workflow("w", [Map(slow_first, at_most=2)]), list(range(6)))
    assert run.output == [0, 1, 4, 9, 16, 25]
    (step,) = run.steps
    assert (step.kind, step.name, step.status) == ("Map", "map", "completed")
    assert [inner.step for inner in step.steps] == [f"0.{n}" for n in range(1, 7)]
    assert [inner.output for inner in step.steps] == run.output


def test_the_items_are_what_agents_are_asked_and_the_next_step_gets_the_list(
    runtime: Runtime,
) -> None:
    agent = Agent("a", client=echoing())
    steps = [str.split, Map(Step(agent, prompt="Sum up: {input}")), "; ".join]
    run = runtime.run(Workflow("w", steps), "one two three")
    assert run.output == "<Sum up: one>; <Sum up: two>; <Sum up: three>"


def test_at_most_so_many_are_under_way_and_they_begin_in_order(runtime: Runtime) -> None:
    lock, now, most, begun = threading.Lock(), 0, 0, []
    both = threading.Barrier(3, timeout=10)

    def work(item: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            begun.append(item)
        both.wait()  # three are under way at once, again and again
        with lock:
            now -= 1
        return item

    items = list(range(12))
    assert runtime.run(Workflow("w", [Map(work, at_most=3)]), items).output == items
    assert most == 3
    assert [sorted(begun[n : n + 3]) for n in range(0, 12, 3)] == [
        items[n : n + 3] for n in range(0, 12, 3)
    ]


def test_an_empty_list_a_tuple_and_a_list_of_steps(runtime: Runtime) -> None:
    work = Workflow("w", [Map([str, len])])
    assert runtime.run(work, []).output == []
    assert runtime.run(work, (7, 100)).output == [1, 3]


@pytest.mark.parametrize("wrong", ["text", {"a": 1}, None, 3, {1, 2}])
def test_what_is_no_list_is_told(runtime: Runtime, wrong: Any) -> None:
    with pytest.raises(WorkflowFailed, match=f"needs a list.*{type(wrong).__name__}") as caught:
        runtime.run(Workflow("w", [Map(len, name="lengths")]), wrong)
    assert isinstance(caught.value.__cause__, ConfigError)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Map("text"),
        lambda: Map(len, at_most=0),
        lambda: Map(len, at_most=2.5),
        lambda: Map(len, name=""),
        lambda: Map([]),
        lambda: Map(len, timeout=0),
        lambda: Map(len, fail_fast="no"),  # type: ignore[arg-type]
    ],
)
def test_a_map_refuses_what_cannot_work(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


def test_one_that_fails_stops_the_others_and_fails_the_step(cast: Cast, runtime: Runtime) -> None:
    gate = Gate()
    agent = cast.halts("agent", gate, "half", " whole")

    def fail_on_two(item: str) -> str:
        if item != "two":
            return item
        while "agent" not in cast.asked:
            threading.Event().wait(0.002)
        raise ValueError("no two")

    work = Workflow("w", [Map([fail_on_two, agent], at_most=2)])
    handle = runtime.submit(work, ["one", "two", "three"])
    with pytest.raises(WorkflowFailed, match="no two") as caught:
        handle.result(10)
    gate.open()
    assert isinstance(caught.value.__cause__, ValueError)
    statuses = {step.step: step.status for step in caught.value.run.steps[0].steps}  # type: ignore[union-attr]
    assert statuses["0.2"] == "failed"
    assert "0.3" not in statuses or statuses["0.3"] == "cancelled"
    assert events_of(runtime.event_stream, handle.workflow_id)[-1].data["failed_at"] == "0.2.0"


def test_without_fail_fast_a_failure_is_a_result_and_all_of_them_are_the_steps(
    runtime: Runtime,
) -> None:
    def halve(item: int) -> int:
        if item % 2:
            raise ValueError(f"{item} is odd")
        return item // 2

    work = Workflow("w", [Map(halve, fail_fast=False)])
    failed = {"error": "ValueError", "message": "3 is odd"}
    assert runtime.run(work, [2, 3, 4]).output == [1, failed, 2]
    with pytest.raises(WorkflowFailed, match="is odd"):
        runtime.run(work, [1, 3])


def test_a_stop_ends_all_items_and_keeps_their_words(runtime: Runtime) -> None:
    client = Holding()
    handle = runtime.submit(Workflow("w", [Map(Agent("a", client=client), at_most=2)]), list("xyz"))
    client.wait_begun()
    client.wait_begun()
    handle.cancel("enough")
    with pytest.raises(Cancelled) as caught:
        handle.result(10)
    run = caught.value.run
    assert run is not None
    assert run.output == ["begun", "begun"]
    assert [step.status for step in run.steps[0].steps] == ["cancelled"] * 2


def test_its_timeout_is_of_all_items_together_and_is_tried_again(runtime: Runtime) -> None:
    client = Holding()
    step = Map(Agent("a", client=client), timeout=0.1)
    with pytest.raises(WorkflowFailed) as caught:
        runtime.run(Workflow("w", [step]), ["x", "y"])
    assert isinstance(caught.value.__cause__, DeadlineExceeded)


def test_the_events_tell_how_many_items_there_are_in_one_order(runtime: Runtime) -> None:
    handle = runtime.submit(Workflow("w", [Map(str, at_most=1)]), [1, 2])
    handle.result(10)
    assert told(runtime, handle.workflow_id) == [
        "started",
        *("started 0", "started 0.1", "completed 0.1", "started 0.2", "completed 0.2"),
        *("completed 0", "completed"),
    ]
    (_, begun), (_, done) = step_events(runtime, handle.workflow_id, "0")
    assert (begun["kind"], begun["items"]) == ("Map", 2)
    assert list(done["output"]) == ["1", "2"]


def test_a_large_list_and_maps_within_maps(runtime: Runtime) -> None:
    items = list(range(1500))
    assert runtime.run(Workflow("w", [Map(str)]), items).output == [str(n) for n in items]
    nested = Map(Map(lambda n: n + 1), at_most=3)
    both = Parallel(nested=nested, plain=len)
    run = runtime.run(Workflow("w", [both]), [[1], [], [2, 3]])
    assert run.output == {"nested": [[2], [], [3, 4]], "plain": 3}
    assert tree(run.steps)[0][4][0][4][2][0] == "0.nested.3"


def test_each_item_is_tried_again_by_itself(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "_WAITS", Retries(backoff=0.0))
    seen: List[int] = []

    def once_wrong(item: int) -> int:
        seen.append(item)
        if seen.count(item) == 1:
            raise ValueError("the first time")
        return item

    work = Workflow("w", [Map(Step(once_wrong, retries=1), at_most=1)])
    assert runtime.run(work, [1, 2]).output == [1, 2]
    assert seen == [1, 1, 2, 2]


def test_a_map_is_drawn_and_shown() -> None:
    step = Map([str.strip, len], at_most=4, name="lengths")
    drawn = Workflow("w", [step, sum]).to_mermaid()
    assert 'subgraph s1["lengths, 4 at once"]' in drawn
    for line in ('[["each item"]]', '["strip"]', '["len"]', '[["results in order"]]', '["sum"]'):
        assert line in drawn
    assert repr(step) == "<Map step 'lengths'>"
    assert [name for name, _ in step.within()] == ["1"]


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_a_process_that_dies_in_mid_map_leaves_what_was_done_in_the_log(tmp_path: Any) -> None:
    source = """
    def work(item):
        if item == 3:
            say("in the middle")
            sys.stdin.readline()
        return item * 2
    with Runtime(event_stream=EventStream(SqliteStore(arguments[0]))) as runtime:
        runtime.run(Workflow("w", [Map(work, at_most=1)]), [1, 2, 3, 4], workflow_id="map")
    """
    path = str(tmp_path / "log.db")
    with Program(source, path, stdin=subprocess.PIPE) as program:
        program.expect("in the middle")
        with SqliteStore(path) as reading:
            done = "workflow_step_completed"
            while sum(e.type == done for e in reading.read(workflow_id="map")) < 2:
                reading.wait(reading.bounds().last, 1.0)
        program.process.kill()
        program.finish()
        assert program.process.stdin is not None
        program.process.stdin.close()
    with SqliteStore(path) as store:
        events = store.read(workflow_id="map")
    done_steps = [e.data["output"] for e in events if e.type == "workflow_step_completed"]
    assert done_steps == [2, 4]
    assert (events[-1].type, events[-1].data["error"]) == ("workflow_failed", "Interrupted")
    assert events[-1].data["failed_at"] == "0.3"
