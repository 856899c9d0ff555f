"""RunHandle as a future: what concurrent.futures' functions and its own methods say of a run."""

from __future__ import annotations

import concurrent.futures
import contextvars
import threading
import traceback
from typing import Any, Dict, List

import pytest

from agentstream import Agent, EventType, Parallel, Runtime, Workflow
from agentstream.errors import Cancelled, WorkflowFailed
from tests.kit.support import FunctionClient, Task, wait_until


def failing(_: Any) -> None:
    raise ValueError("no")


class Held:
    """A function that returns its input once it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self, value: Any) -> Any:
        self.begun.set()
        self.go.wait(5)
        return value


GOOD = Workflow("good", [lambda x: x])
BAD = Workflow("bad", [failing])


def test_a_handle_is_a_future_of_each_kind_of_end(runtime: Runtime) -> None:
    held = Held()
    good, bad = runtime.submit(GOOD, 1), runtime.submit(BAD, 1)
    slow = runtime.submit(Workflow("held", [held]), 1)
    assert held.begun.wait(5)
    assert (slow.running(), slow.done(), slow.cancelled()) == (True, False, False)
    slow.cancel()
    done, rest = concurrent.futures.wait([good, bad, slow], timeout=5)
    held.go.set()
    assert (done, rest) == ({good, bad, slow}, set())
    assert [h.cancelled() for h in (good, bad, slow)] == [False, False, True]
    assert [h.running() for h in (good, bad, slow)] == [False] * 3
    assert good.exception() is None
    assert isinstance(bad.exception(), WorkflowFailed)
    for ask in (slow.exception, slow.result):
        with pytest.raises(Cancelled):
            ask()
    with pytest.raises(concurrent.futures.CancelledError):
        slow.result()


@pytest.mark.parametrize("first", ["good", "bad", "cancelled"])
def test_wait_for_the_first_and_as_completed(runtime: Runtime, first: str) -> None:
    held = Held()
    slow = runtime.submit(Workflow("held", [held]), 1)
    assert held.begun.wait(5)
    quick = runtime.submit(BAD if first == "bad" else GOOD, 1)
    if first == "cancelled":
        quick.cancel()
    done, rest = concurrent.futures.wait(
        [slow, quick], timeout=5, return_when=concurrent.futures.FIRST_COMPLETED
    )
    assert (done, rest) == ({quick}, {slow})
    done, rest = concurrent.futures.wait([slow], timeout=0.01)
    assert (done, rest) == (set(), {slow})
    order = concurrent.futures.as_completed([slow, quick], timeout=5)
    assert next(order) is quick
    held.go.set()
    assert next(order) is slow
    assert slow.done()
    assert slow.result().output == 1


def test_as_completed_beside_an_executors_futures(runtime: Runtime) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        both = [pool.submit(lambda: 1), *(runtime.submit(GOOD, n) for n in range(20))]
        assert set(concurrent.futures.as_completed(both, timeout=10)) == set(both)


def test_done_callbacks_are_called_once_in_order_with_the_handle(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    held, calls = Held(), []
    handle = runtime.submit(Workflow("held", [held]), 1)

    def raising(_: Any) -> None:
        raise ValueError("a callback's own")

    handle.add_done_callback(lambda h: calls.append((1, h)))
    handle.add_done_callback(raising)
    handle.add_done_callback(lambda h: calls.append((2, h)))
    assert calls == []
    held.go.set()
    handle.result(5)
    wait_until(lambda: len(calls) == 2)
    handle.add_done_callback(lambda h: calls.append((3, h)))
    assert calls == [(1, handle), (2, handle), (3, handle)]
    assert "a callback's own" in caplog.text


def test_a_handle_that_is_not_done_in_time(runtime: Runtime) -> None:
    held = Held()
    handle = runtime.submit(Workflow("held", [held]), 1)
    for ask in (handle.result, handle.exception):
        with pytest.raises(TimeoutError):
            ask(0.01)
        with pytest.raises(concurrent.futures.TimeoutError):
            ask(0)
    held.go.set()
    assert handle.result(1e12).output == 1


def test_b16_the_traceback_of_a_failed_run_does_not_grow(runtime: Runtime) -> None:
    handle = runtime.submit(BAD, 1)
    lengths: List[int] = []
    for _ in range(50):
        with pytest.raises(WorkflowFailed) as caught:
            handle.result(5)
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(set(lengths)) == 1


@pytest.mark.parametrize("seconds", [9.3e9, 1e300])
def test_b18_times_of_centuries(seconds: float) -> None:
    with Runtime(grace=seconds) as runtime:
        assert runtime.run(GOOD, 1).output == 1
        held = Held()
        handle = runtime.submit(Workflow("held", [held]), 1)
        waiting = Task(lambda: handle.result(seconds).output)
        ending = Task(lambda: runtime.shutdown(timeout=seconds))
        held.go.set()
        assert waiting.result() == 1
        assert ending.result() is True


# --- T10: contextvars -----------------------------------------------------------------------

var: contextvars.ContextVar[Any] = contextvars.ContextVar("var", default="unset")


def _seen(_: Any = None) -> Any:
    return var.get()


def _client() -> FunctionClient:
    def answer(request: Any, cancel: Any) -> Any:
        yield str(var.get())

    return FunctionClient(answer)


def in_context(value: Any, function: Any) -> Any:
    def call() -> Any:
        var.set(value)
        return function()

    return contextvars.copy_context().run(call)


def test_t10_runs_see_the_submitters_contextvars(runtime: Runtime) -> None:
    agent = Agent("a", client=_client())
    for what in (agent, Workflow("f", [_seen]), Workflow("in", [Workflow("inner", [_seen])])):
        assert in_context("run", lambda what=what: runtime.run(what, "x")).output == "run"
        assert (
            in_context("sub", lambda what=what: runtime.submit(what, "x")).result(5).output == "sub"
        )
        events = in_context("stream", lambda what=what: runtime.stream(what, "x"))
        *_, last = events
        assert last.type is EventType.WORKFLOW_COMPLETED
        assert last.data["output"] == "stream"


def test_t10_each_branch_has_a_copy_of_its_own(runtime: Runtime) -> None:
    def setting(name: str) -> Any:
        def step(_: Any) -> Any:
            seen = var.get()
            var.set(name)
            return seen

        return step

    names = [str(number) for number in range(8)]
    shape = Parallel({name: [setting(name), _seen] for name in names})
    agents: Dict[str, Any] = {name: Agent(name, client=_client()) for name in names}
    flow = Workflow("flow", [shape, _seen, Parallel(agents)])
    run = in_context("outer", lambda: runtime.run(flow, "x"))
    assert run.steps[0].output == dict.fromkeys(names, "outer")
    assert run.output == dict.fromkeys(names, "outer")
    assert var.get() == "unset"


def test_t10_a_queued_run_sees_what_was_set_when_it_was_submitted() -> None:
    with Runtime(max_workers=1) as runtime:
        held = Held()
        runtime.submit(Workflow("held", [held]), 1)
        handles = [
            in_context(n, lambda: runtime.submit(Workflow("f", [_seen]), 1)) for n in range(5)
        ]
        held.go.set()
        assert [handle.result(5).output for handle in handles] == list(range(5))
