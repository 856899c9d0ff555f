"""What is done for each kind of step; and a step's timeout."""

from __future__ import annotations

import functools
import gc
import threading
import time
from typing import Any, List

import pytest

from agentstream import Agent, Branch, Context, Parallel, Repeat, Runtime, Step, Workflow, threads
from agentstream.errors import Cancelled, ConfigError, DeadlineExceeded, WorkflowFailed
from agentstream.testing import Gate, Reply
from tests.kit.support import events_of, saying
from tests.kit.workflow_runs import failure_of, run_one
from tests.kit.workflow_support import Cast, cut, step_events, told, tree

# --- functions and their context ------------------------------------------------------------


class Taker:
    def method(self, input: Any, context: Any) -> Any:
        return ("two", type(context).__name__)

    def __call__(self, input: Any) -> Any:
        return "one"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda input: "one", "one"),
        (lambda input, other: ("two", type(other).__name__), ("two", "RunContext")),
        (lambda input, context=None: ("two", type(context).__name__), ("two", "RunContext")),
        (lambda input, times=2: ("one", times), ("one", 2)),
        (lambda *all: ("one", len(all)), ("one", 1)),
        (lambda input, *, context=5: ("one", context), ("one", 5)),
        (Taker().method, ("two", "RunContext")),
        (Taker(), "one"),
        (functools.partial(lambda x, input: (x, input), 1), (1, "x")),
        (str.upper, "X"),
        (str, "x"),
        (len, 1),
        (print, None),
    ],
)
def test_a_function_that_takes_two_gets_the_context(
    runtime: Runtime, function: Any, expected: Any
) -> None:
    name = "f" if isinstance(function, functools.partial) else None
    assert run_one(runtime, Step(function, name=name)).output == expected


def test_an_async_function_is_refused() -> None:
    async def later(input: Any) -> None: ...

    for shape in Step, lambda f: Branch(f, len), lambda f: Repeat(len, f, 2):
        with pytest.raises(ConfigError, match="async"):
            shape(later)


def test_all_steps_share_the_very_dict_that_run_was_given(runtime: Runtime) -> None:
    def note(what: str) -> Any:
        def function(input: Any, context: Context) -> Any:
            with context.lock:
                with context.lock:  # re-entrant
                    context["seen"] = [*context.get("seen", []), (what, context.workflow_id)]
                    context["locks"] = {*context.get("locks", ()), context.lock}
            return input

        return Step(function, name=what)

    inner = Workflow("inner", [note("in the inner one")])
    steps = [note("first"), Parallel(note("a"), note("b")), lambda r: r["a"], inner, note("last")]
    given: Any = {"language": "German"}
    run = runtime.run(Workflow("w", steps), "x", workflow_id="w", context=given)
    assert given["language"] == "German"
    assert len(given["locks"]) == 1
    seen: Any = given["seen"]
    assert [what for what, _ in seen][:1] == ["first"]
    assert sorted(what for what, _ in seen[1:3]) == ["a", "b"]
    assert [what for what, _ in seen][3:] == ["in the inner one", "last"]
    child = step_events(runtime, "w", "3")[0][1]["run"]
    assert [owner for _, owner in seen] == ["w", "w", "w", child, "w"]
    assert run.output == "x"


def test_each_run_has_a_context_of_its_own(runtime: Runtime) -> None:
    def count(input: Any, context: Context) -> int:
        context["n"] = context.get("n", 0) + 1
        return context["n"]

    workflow = Workflow("w", [count])
    assert [runtime.run(workflow, "x").output for _ in range(3)] == [1, 1, 1]


def test_the_lock_keeps_branches_from_each_other(runtime: Runtime) -> None:
    def count(input: Any, context: Context) -> None:
        for _ in range(200):
            with context.lock:
                n = context["n"]
                context.cancel.wait(0)  # lets others run
                context["n"] = n + 1

    given = {"n": 0}
    run_one(runtime, Parallel(dict.fromkeys("abcd", count)), context=given)
    assert given == {"n": 800}


@pytest.mark.parametrize("wrong", [[], "text", 3])
def test_a_context_is_a_dict(runtime: Runtime, wrong: Any) -> None:
    with pytest.raises(ConfigError):
        run_one(runtime, len, context=wrong)


def test_the_contexts_token_ends_with_a_stop(runtime: Runtime) -> None:
    waiting, ended = threading.Event(), threading.Event()

    def wait(input: Any, context: Context) -> None:
        waiting.set()
        assert context.cancel.wait(10)
        ended.set()
        raise RuntimeError("what a function does when it is told to stop")

    for number in range(10):  # whoever is first: the stop is what ended it
        waiting.clear()
        handle = runtime.submit(Workflow("w", [wait]), "x", workflow_id=f"w{number}")
        assert waiting.wait(5)
        assert runtime.stop_generation(f"w{number}", "enough")
        with pytest.raises(Cancelled):
            handle.result(5)
        assert told(runtime, f"w{number}") == ["started", "started 0", "cancelled"]
    assert ended.wait(5)


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), StopIteration(1), TimeoutError()]
)
def test_whatever_a_function_raises_fails_the_run(runtime: Runtime, error: BaseException) -> None:
    def broken(input: Any) -> None:
        raise error

    failed = failure_of(runtime, broken, workflow_id="w")
    assert failed.__cause__ is error
    [_, (kind, data)] = step_events(runtime, "w", "0")
    assert kind == "failed"
    assert (data["name"], data["kind"]) == ("broken", "Function")
    assert data["error"] == type(error).__name__


class Untellable(Exception):
    def __str__(self) -> str:
        raise self


def test_an_error_that_cannot_be_told_ends_the_run_all_the_same(runtime: Runtime) -> None:
    def broken(input: Any) -> None:
        raise Untellable

    failed = failure_of(runtime, broken, workflow_id="w")
    assert isinstance(failed.__cause__, Untellable)
    assert events_of(runtime.event_stream, "w")[-1].data["error"] == "Untellable"
    run = run_one(runtime, Parallel(broken, len, fail_fast=False))
    assert run.output["broken"] == {"error": "Untellable", "message": ""}


class Unwilling:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def endless() -> Any:
    found: List[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Unwilling(), "<Unwilling>"),
        (float("nan"), None),
        ({1: {2, 2}}, {"1": (2,)}),
        (b"ab", "YWI="),
        (endless(), "<list>"),
        (functools.reduce(lambda inner, _: [inner], range(99), 0), "<list>"),
        ("\ud800", "\ufffd"),
    ],
)
def test_what_json_lacks_can_be_an_output(runtime: Runtime, value: Any, said: Any) -> None:
    run = run_one(runtime, lambda input: value, workflow_id="w")
    assert run.output is value
    events = events_of(runtime.event_stream, "w")
    assert [e.data["output"] for e in events[-2:]] == [said, said]


def test_such_an_output_in_a_run_that_fails_later_costs_no_event(runtime: Runtime) -> None:
    with pytest.raises(WorkflowFailed):
        runtime.run(Workflow("w", [lambda i: endless(), lambda i: 1 / 0]), 1, workflow_id="w")
    assert told(runtime, "w")[-2:] == ["failed 1", "failed"]
    with pytest.raises(WorkflowFailed):
        run_one(runtime, Parallel({"a": [lambda i: endless(), lambda i: 1 / 0]}), workflow_id="v")
    assert told(runtime, "v")[-1] == "failed"


# --- timeouts -------------------------------------------------------------------------------


def deadline_of(failed: WorkflowFailed, name: str) -> None:
    cause = failed.__cause__
    assert isinstance(cause, DeadlineExceeded)
    assert cause.retryable
    assert f"'{name}'" in str(cause)


def test_a_timeout_ends_an_agent_in_mid_stream(cast: Cast, runtime: Runtime) -> None:
    agent = cast.halts("a", Gate(), "so far", "never")
    began = time.monotonic()
    failed = failure_of(runtime, Step(agent, name="writer", timeout=0.8), workflow_id="w")
    assert 0.79 < time.monotonic() - began < 3
    assert cast.server.wait_client_gone()
    deadline_of(failed, "writer")
    assert failed.partial is not None
    assert failed.partial.content == "so far"
    assert failed.run is not None
    assert tree(failed.run.steps) == [("0", "Agent", "failed", "so far", [])]
    assert failed.run.usage.completion_tokens == 1
    [_, (kind, data)] = step_events(runtime, "w", "0")
    assert (kind, data["error"], data["retryable"]) == ("failed", "DeadlineExceeded", True)


def test_a_timeout_ends_a_silent_agent(cast: Cast, runtime: Runtime) -> None:
    failed = failure_of(runtime, Step(cast.plays("a", Reply(Gate())), timeout=0.2))
    assert cast.server.wait_client_gone()
    deadline_of(failed, "a")


def test_a_function_that_does_not_end_is_left_behind(runtime: Runtime) -> None:
    go, gone = threading.Event(), threading.Event()

    def stuck(input: Any, context: Context) -> None:
        go.wait(20)
        context["late"] = context.cancel.cancelled
        gone.set()

    context: Any = {}
    failed = failure_of(runtime, Step(stuck, timeout=0.1), context=context)
    deadline_of(failed, "stuck")
    assert not gone.is_set()
    go.set()
    assert gone.wait(5)
    assert context == {"late": True}


def test_what_a_function_returns_because_it_was_stopped_is_no_result(runtime: Runtime) -> None:
    def obliging(input: str, context: Context) -> str:
        context.cancel.wait(10)
        return "half of it"

    for _ in range(5):  # which of the two is seen first is a matter of luck
        failed = failure_of(runtime, Step(obliging, timeout=0.05))
        assert isinstance(failed.__cause__, DeadlineExceeded)
    begun = threading.Event()

    def told_to_stop(input: str, context: Context) -> str:
        begun.set()
        return obliging(input, context)

    handle = runtime.submit(Workflow("w", [told_to_stop]), "x")
    assert begun.wait(10)
    handle.cancel()
    with pytest.raises(Cancelled):
        handle.result(10)


def test_a_timeout_ends_all_branches_in_either_mode(cast: Cast, runtime: Runtime) -> None:
    for number, fail_fast in enumerate((True, False), 1):
        agents = [cast.halts(name, Gate(), name, "never") for name in "ab"]
        parallel = Parallel(*agents, lambda input: "done", timeout=0.8, fail_fast=fail_fast)
        failed = failure_of(runtime, parallel)
        deadline_of(failed, "parallel")
        assert cast.server.wait_client_gone(count=2 * number)
        assert failed.run is not None
        assert failed.run.output == {"a": "a", "b": "b", "<lambda>": "done"}
        statuses = [s.status for s in failed.run.steps[0].steps]
        assert statuses == ["cancelled", "cancelled", "completed"]


def test_a_branchs_timeout_is_its_own_failure(cast: Cast, runtime: Runtime) -> None:
    slow = Step(cast.halts("slow", Gate(), "so far", "never"), timeout=0.2)
    run = run_one(runtime, Parallel({"s": slow, "q": cast.says("quick", "q")}, fail_fast=False))
    assert run.output["s"]["error"] == "DeadlineExceeded"
    assert run.output["q"] == "q"


def test_a_timeout_ends_a_workflow_within(cast: Cast, runtime: Runtime) -> None:
    inner = Workflow("inner", [cast.halts("a", Gate(), "so far", "never")])
    failed = failure_of(runtime, Step(inner, timeout=0.8), workflow_id="w")
    deadline_of(failed, "inner")
    assert failed.run is not None
    assert failed.run.output == "so far"
    child = step_events(runtime, "w", "0")[0][1]["run"]
    last = events_of(runtime.event_stream, child)[-1]
    assert (last.type, last.data["reason"]) == ("workflow_cancelled", "its time is over")


def test_steps_in_time_are_left_alone(runtime: Runtime) -> None:
    steps = [Step(len, timeout=61.7), Step([str, len], timeout=61.7)]
    steps.append(Repeat(Parallel(x=lambda input: 1), at_most=30, timeout=61.7))
    links: List[int] = []

    def count(input: Any, context: Context) -> Any:
        links.append(len(context.cancel._callbacks))
        return input

    runtime.run(Workflow("w", [count, *steps, count]), "abc")
    assert links[0] == links[1]  # nothing of them waits for a stop any more
    alarms = [a for a in gc.get_objects() if isinstance(a, threads.Alarm) and a.grain == 61.7]
    assert all(alarm.stopped for alarm in alarms)


def test_usage_of_a_failed_step_counts_all_its_requests(cast: Cast, runtime: Runtime) -> None:
    from agentstream import tool

    @tool
    def look() -> str:
        """Look."""
        return "seen"

    agent = cast.plays("a", Reply.tool_calls(("look", {})), cut("half"))
    agent = Agent("a", client=cast.client, system_prompt="a", tools=[look])
    failed = failure_of(runtime, agent)
    assert failed.run is not None
    assert failed.run.usage.prompt_tokens == 10
    assert failed.run.usage.completion_tokens >= 2


def test_a_step_shows_what_it_is() -> None:
    agent = Agent("a", client=saying("x"))
    assert repr(Step(agent, name="b")) == "<Agent step 'b'>"
    assert repr(Workflow("w", [len, Parallel(agent), [agent, len], Branch(bool, len)])) == (
        "<Workflow 'w': len -> parallel -> sequence -> branch>"
    )
