"""The shapes: side by side, this way or that, again, and a workflow in a workflow."""

from __future__ import annotations

import threading
from typing import Any, Dict, Iterator, List

import pytest

from agentstream import (
    Agent,
    Branch,
    CancelToken,
    Context,
    Parallel,
    Repeat,
    Runtime,
    Step,
    Workflow,
)
from agentstream.errors import (
    Cancelled,
    ConfigError,
    LimitExceeded,
    StreamTruncated,
    WorkflowFailed,
)
from agentstream.llm.messages import Delta
from agentstream.results import Usage
from agentstream.testing import Gate, Reply
from tests.kit.support import FunctionClient, Seen, Task, events_of, saying, wait_until
from tests.kit.workflow_support import Cast, step_events, told, tree


def upper(input: Any) -> Any:
    return input.upper()


# --- Parallel -------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "make",
    [
        lambda a, b: Parallel(a, b),
        lambda a, b: Parallel([a, b]),
        lambda a, b: Parallel((a, b)),
        lambda a, b: Parallel({"one": a, "two": b}),
        lambda a, b: Parallel(one=a, two=b),
        lambda a, b: Parallel({"one": a}, two=b),
        lambda a, b: Parallel(a, two=b),
        lambda a, b: Parallel(Step(a, name="one"), Step(b, name="two")),
    ],
)
def test_branches_can_be_written_in_many_ways(make: Any, runtime: Runtime) -> None:
    def one(input: str) -> str:
        return input + "1"

    parallel = make(one, Agent("two", client=saying("2")))
    assert list(parallel.branches) == ["one", "two"]
    assert all(isinstance(step, Step) for step in parallel.branches.values())
    run = runtime.run(Workflow("w", [parallel]), "x")
    assert run.output == {"one": "x1", "two": "2"}


def test_a_list_among_branches_is_one_branch(runtime: Runtime) -> None:
    parallel = Parallel([upper, len], other=[upper, str.strip])
    assert list(parallel.branches) == ["upper", "len", "other"]
    run = runtime.run(Workflow("w", [parallel]), " ab ")
    assert run.output == {"upper": " AB ", "len": 4, "other": "AB"}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Parallel(),
        lambda: Parallel([]),
        lambda: Parallel({}),
        lambda: Parallel(upper, upper),
        lambda: Parallel({"": upper}),
        lambda: Parallel({1: upper}),
        lambda: Parallel("text"),
        lambda: Parallel(upper, timeout=0),
        lambda: Branch("urgent", upper),
        lambda: Branch(bool, 3),
        lambda: Repeat(upper),
        lambda: Repeat(upper, at_most=0),
        lambda: Repeat(upper, at_most=True),
        lambda: Repeat(upper, "done", 3),
        lambda: Step(Step(upper)),
        lambda: Step([]),
        lambda: Step(upper, name=""),
        lambda: Step(upper, timeout=float("inf")),
        lambda: Step(upper, timeout="3"),
        lambda: Step(upper, retries=-1),
        lambda: Step(upper, retries=True),
        lambda: Step(upper, prompt="{input}"),
    ],
)
def test_a_shape_refuses_what_cannot_work(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        wrong()


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


def test_an_error_is_a_result_if_branches_do_not_fail_fast(cast: Cast, runtime: Runtime) -> None:
    gate = Gate()
    good, bad = cast.halts("good", gate, "still ", "here"), cast.breaks("bad", "half")
    last = cast.says("last", "summed up")
    workflow = Workflow("w", [Parallel(bad, good, fail_fast=False), last])
    handle = runtime.submit(workflow, "x", workflow_id="w")
    with runtime.event_stream.subscribe(workflow_id="w", after=0) as events:
        while next(events).type.value != "workflow_step_failed":
            pass
        gate.open()  # the other one goes on to its end
    run = handle.result(5)
    error = run.steps[0].output["bad"]
    assert set(error) == {"error", "message"}
    assert error["error"] == "StreamTruncated"
    assert run.steps[0].output["good"] == "still here"
    assert [s.status for s in run.steps[0].steps] == ["failed", "completed"]
    assert run.steps[0].steps[0].output == "half"
    asked = cast.asked["last"][0]
    assert asked.startswith("## bad\n\n(failed: StreamTruncated: ")
    assert asked.endswith("\n\n## good\n\nstill here")
    assert run.output == "summed up"


def test_it_fails_if_all_of_them_did(runtime: Runtime) -> None:
    def one(input: Any) -> None:
        raise ValueError("one")

    def two(input: Any) -> None:
        raise KeyError("two")

    with pytest.raises(WorkflowFailed) as caught:
        runtime.run(Workflow("w", [Parallel(one, two, fail_fast=False)]), "x", workflow_id="w")
    cause = caught.value.__cause__
    blamed = "one" if isinstance(cause, ValueError) else "two"
    assert isinstance(cause, (ValueError, KeyError))
    last = events_of(runtime.event_stream, "w")[-1].data
    assert (last["failed_step"], last["error"]) == (blamed, type(cause).__name__)


def test_the_step_blamed_is_the_one_whose_error_it_is(runtime: Runtime) -> None:
    """Branches that fail at the same moment: name and error belong together."""

    class Own(Exception):
        pass

    for number in range(30):
        together = threading.Barrier(3)

        def fail(input: Any, context: Context) -> None:
            together.wait(5)
            raise Own(context.step)

        branches = {name: Step(fail) for name in "abc"}
        with pytest.raises(WorkflowFailed) as caught:
            runtime.run(Workflow("w", [Parallel(branches)]), "x", workflow_id=f"w{number}")
        last = events_of(runtime.event_stream, f"w{number}")[-1].data
        assert last["failed_at"] == str(caught.value.__cause__) == last["message"]


def test_the_step_blamed_is_not_one_that_fails_because_of_it(runtime: Runtime) -> None:
    def sore(request: Any, cancel: CancelToken) -> Iterator[str]:
        cancel.wait(10)
        yield "something"
        raise OSError("a client that does not know how to be stopped")

    def first(input: Any) -> None:
        raise ValueError("the one to blame")

    parallel = Parallel({"sore": Agent("a", client=FunctionClient(sore)), "first": first})
    with pytest.raises(WorkflowFailed) as caught:
        runtime.run(Workflow("w", [parallel]), "x", workflow_id="w")
    assert isinstance(caught.value.__cause__, ValueError)
    last = events_of(runtime.event_stream, "w")[-1].data
    assert (last["failed_step"], last["failed_at"]) == ("first", "0.first")


def test_what_a_branch_returns_may_be_an_exception(runtime: Runtime) -> None:
    error = ValueError("a value like others")
    run = runtime.run(Workflow("w", [Parallel(a=lambda input: error, b=lambda input: 1)]), "x")
    assert run.output == {"a": error, "b": 1}


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


# --- Branch ---------------------------------------------------------------------------------


def is_long(input: str) -> bool:
    return len(input) > 3


def test_a_branch_goes_one_way_or_the_other(cast: Cast, runtime: Runtime) -> None:
    workflow = Workflow("w", [Branch(is_long, cast.says("a", "long"), cast.says("b", "short"))])
    runtime.run(workflow, "long enough", workflow_id="1")
    run = runtime.run(workflow, "no", workflow_id="2")
    assert cast.asked == {"a": ["long enough"], "b": ["no"]}
    assert run.output == "short"
    assert told(runtime, "1") == [
        "started",
        "started 0",
        "started 0.then",
        "completed 0.then",
        "completed 0",
        "completed",
    ]
    assert tree(run.steps) == [
        ("0", "Branch", "completed", "short", [("0.otherwise", "Agent", "completed", "short", [])])
    ]


def test_without_otherwise_the_input_passes_through(runtime: Runtime) -> None:
    value = {"some": object()}
    run = runtime.run(Workflow("w", [Branch(lambda input: False, upper)]), value)
    assert run.output is value
    assert run.steps[0].steps == ()


def test_a_way_may_be_a_list_and_a_predicate_may_look_at_the_context(runtime: Runtime) -> None:
    def wanted(input: str, context: Context) -> Any:
        return context["ways"]  # a list: true if there is something in it

    workflow = Workflow("w", [Branch(wanted, [upper, str.strip], [str.strip])])
    assert runtime.run(workflow, " a ", context={"ways": ["then"]}, workflow_id="w").output == "A"
    assert runtime.run(workflow, " a ", context={"ways": []}).output == "a"
    assert [line for line in told(runtime, "w") if line.startswith("started 0.then")] == [
        "started 0.then",
        "started 0.then.0",
        "started 0.then.1",
    ]


def test_a_predicate_that_raises_fails_the_branch(runtime: Runtime) -> None:
    def broken(input: Any) -> bool:
        raise LookupError("no idea")

    with pytest.raises(WorkflowFailed) as caught:
        runtime.run(Workflow("w", [Branch(broken, upper, name="choice")]), "x", workflow_id="w")
    assert isinstance(caught.value.__cause__, LookupError)
    assert told(runtime, "w") == ["started", "started 0", "failed 0", "failed"]
    assert events_of(runtime.event_stream, "w")[-1].data["failed_step"] == "choice"


# --- Repeat ---------------------------------------------------------------------------------


def test_a_step_is_repeated_until_it_is_done(cast: Cast, runtime: Runtime) -> None:
    agent = cast.plays("a", Reply.text("draft"), Reply.text("better"), Reply.text("done"))
    run = runtime.run(
        Workflow("w", [Repeat(agent, lambda text: text == "done", 9)]), "x", workflow_id="w"
    )
    assert cast.asked == {"a": ["x", "draft", "better"]}
    assert run.output == "done"
    assert [(s.step, s.output) for s in run.steps[0].steps] == [
        ("0.1", "draft"),
        ("0.2", "better"),
        ("0.3", "done"),
    ]
    assert "system_warning" not in told(runtime, "w")
    assert run.usage == Usage(30, 3, 33)


def test_until_is_given_the_context_and_a_list_may_be_repeated(runtime: Runtime) -> None:
    def until(output: int, context: Context) -> bool:
        return output >= context["enough"]

    repeat = Repeat([lambda n: n + 1, lambda n: n * 2], until, 10)
    run = runtime.run(Workflow("w", [repeat]), 1, context={"enough": 20})
    assert run.output == 22
    assert [s.step for s in run.steps[0].steps[2].steps] == ["0.3.0", "0.3.1"]


def test_at_the_limit_a_warning_says_so(runtime: Runtime) -> None:
    workflow = Workflow("w", [Repeat(lambda n: n + 1, lambda n: False, 3, name="polish")])
    assert runtime.run(workflow, 0, workflow_id="w").output == 3
    warning = next(e for e in events_of(runtime.event_stream, "w") if e.type == "system_warning")
    assert warning.data["step"] == "0"
    assert "'polish' was not done after 3 rounds" in warning.data["message"]
    assert told(runtime, "w")[-3:] == ["system_warning", "completed 0", "completed"]


def test_or_it_fails(runtime: Runtime) -> None:
    repeat = Repeat(lambda n: n + 1, lambda n: False, 2, fail_at_limit=True)
    with pytest.raises(WorkflowFailed) as caught:
        runtime.run(Workflow("w", [repeat]), 0)
    cause = caught.value.__cause__
    assert isinstance(cause, LimitExceeded)
    assert cause.limit == "at_most"
    run = caught.value.run
    assert run is not None
    assert run.output == 2
    assert [s.status for s in run.steps[0].steps] == ["completed", "completed"]


def test_without_until_there_are_so_many_rounds(runtime: Runtime) -> None:
    run = runtime.run(Workflow("w", [Repeat(lambda n: n + 1, at_most=4)]), 0, workflow_id="w")
    assert run.output == 4
    assert "system_warning" not in told(runtime, "w")


def test_an_until_that_raises_fails_the_repeat(runtime: Runtime) -> None:
    with pytest.raises(WorkflowFailed) as caught:
        runtime.run(Workflow("w", [Repeat(upper, lambda text: 1 / 0, 3)]), "x")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
