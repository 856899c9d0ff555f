"""Parallel, Branch and Repeat: what they may be made of, what they give, when they go on."""

from __future__ import annotations

import threading
from typing import Any, Iterator

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
from agentstream.errors import ConfigError, LimitExceeded, WorkflowFailed
from agentstream.results import Usage
from agentstream.testing import Gate, Reply
from tests.kit.support import FunctionClient, events_of, saying
from tests.kit.workflow_support import Cast, told, tree


def upper(input: Any) -> Any:
    return input.upper()


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
