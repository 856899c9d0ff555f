"""The runtime: running, stopping and shutting down, and that runs never mix."""

from __future__ import annotations

import concurrent.futures
import gc
import json
import logging
import threading
import time
import weakref
from typing import Any, Dict, Iterator, List

import pytest

from agentstream import Agent, CancelToken, EventStream, EventType, Runtime, Workflow
from agentstream.errors import Cancelled, ConfigError, ConnectError, LogError, WorkflowFailed
from agentstream.testing import Gate, Reply, ScriptedServer, text_chunks
from tests.kit.support import (
    FunctionClient,
    Task,
    check_events,
    client_of,
    events_of,
    saying,
    wait_until,
    words_of,
)
from tests.kit.work import Holding

# --- run, submit, stream --------------------------------------------------------------------


def test_run_blocks_and_returns_the_run(runtime: Runtime) -> None:
    run = runtime.run(Agent("a", client=saying("Hel", "lo")), "x")
    assert (run.status, run.output) == ("completed", "Hello")
    assert run.workflow_id


def test_submit_returns_at_once_and_result_waits(runtime: Runtime) -> None:
    client = Holding()
    handle = runtime.submit(Agent("a", client=client), "x")
    client.wait_begun()
    assert not handle.done()
    assert "active" in repr(handle)
    with pytest.raises(TimeoutError, match="not done after 0.02 s"):
        handle.result(0.02)
    with pytest.raises(TimeoutError):
        handle.result(timeout=0)
    client.go.cancel()
    assert handle.result(5).output == "begun done"
    assert handle.done()
    assert handle.result() is handle.result(0)
    assert handle.cancel() is False
    assert handle.result().status == "completed"


def test_stream_yields_the_runs_events_and_the_terminal_one_last(runtime: Runtime) -> None:
    events = list(runtime.stream(Agent("a", client=saying("Hel", "lo")), "x", workflow_id="w"))
    check_events(events)
    assert events == events_of(runtime.event_stream, "w")
    assert [e.data["chunk"] for e in events if "chunk" in e.data] == ["Hel", "lo"]


def test_stream_raises_what_the_run_failed_with_after_the_terminal_event(runtime: Runtime) -> None:
    agent = Agent("a", client=FunctionClient(lambda request, cancel: [1 // 0]))
    events = []
    with pytest.raises(WorkflowFailed, match="ZeroDivisionError") as caught:
        for event in runtime.stream(agent, "x"):
            events.append(event)  # noqa: PERF402 - it raises
    check_events(events)
    assert events[-1].type is EventType.WORKFLOW_FAILED
    assert caught.value.run is not None and caught.value.run.status == "failed"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    *_, last = runtime.stream(agent, "x", raise_on_failure=False)
    assert last.type is EventType.WORKFLOW_FAILED


def test_stream_of_a_run_that_is_stopped_raises_cancelled(runtime: Runtime) -> None:
    def stop(_: str) -> None:
        runtime.stop_generation("w", "enough")

    events = []
    with pytest.raises(Cancelled, match="enough") as caught:
        for event in runtime.stream(Workflow("flow", [stop]), "x", workflow_id="w"):
            events.append(event)  # noqa: PERF402 - it raises
    assert events[-1].type is EventType.WORKFLOW_CANCELLED
    assert caught.value.run is not None and caught.value.run.workflow_id == "w"


def test_leaving_a_stream_at_its_terminal_event_raises_nothing(runtime: Runtime) -> None:
    agent = Agent("a", client=FunctionClient(lambda request, cancel: [1 // 0]))
    for event in runtime.stream(agent, "x"):
        if event.type is EventType.WORKFLOW_FAILED:
            break


def test_leaving_a_stream_early_stops_the_run(runtime: Runtime, server: ScriptedServer) -> None:
    server.reply(*text_chunks("a", "b")[:2], Gate())
    with client_of(server) as client:
        for event in runtime.stream(Agent("a", client=client), "x", workflow_id="w"):
            if event.type is EventType.AGENT_LLM_STREAM_CHUNK:
                break
        assert server.wait_client_gone()
    wait_until(lambda: runtime.event_stream.store.has_ended("w"))
    assert events_of(runtime.event_stream, "w")[-1].type is EventType.WORKFLOW_CANCELLED


def test_stream_frees_its_subscription_when_the_run_cannot_begin(runtime: Runtime) -> None:
    with pytest.raises(ConfigError):
        next(runtime.stream("no workflow", "x"))  # type: ignore[arg-type]
    assert runtime.event_stream._subscribers.all() == []


def test_eight_runs_at_once_are_never_mixed_up(server: ScriptedServer) -> None:
    """Eight workflows of two steps, each word of them told apart, interleaved by the server."""
    together = threading.Barrier(8)

    def answer(request: Any) -> Reply:
        asked = json.loads(request.body)["messages"][-1]["content"]
        number = asked.split()[0]
        words = [f"{number} " for _ in range(20)]
        if len(asked.split()) == 1:
            together.wait(10)  # all eight are under way
        return Reply.text(*words)

    server.route("/v1/chat/completions", answer)
    heard: Dict[str, List[Any]] = {}
    with client_of(server) as client, Runtime(max_workers=8) as runtime:
        workflow = Workflow("w", [Agent("one", client=client), Agent("two", client=client)])
        runtime.event_stream.subscribe(lambda e: heard.setdefault(e.workflow_id, []).append(e))
        handles = {
            f"n{n}": runtime.submit(workflow, f"n{n}", workflow_id=f"n{n}") for n in range(8)
        }
        runs = {number: handle.result(10) for number, handle in handles.items()}
        stored = {number: events_of(runtime.event_stream, number) for number in handles}
    for number, run in runs.items():
        assert run.workflow_id == number
        assert run.output == f"{number} " * 20
        assert [step.output for step in run.steps] == [f"{number} " * 20] * 2
        assert stored[number] == heard[number]
        chunks = [(e.data["step"], e.data["chunk"]) for e in heard[number] if "chunk" in e.data]
        assert chunks == [("0", f"{number} ")] * 20 + [("1", f"{number} ")] * 20
    everything = sorted((e for events in heard.values() for e in events), key=lambda e: e.position)
    assert [e.position for e in everything] == list(range(1, len(everything) + 1))
    # They did run side by side, or nothing was shown.
    changes = sum(a.workflow_id != b.workflow_id for a, b in zip(everything, everything[1:]))
    assert changes > 7


def test_one_failing_and_one_stopped_run_touch_no_other(runtime: Runtime) -> None:
    fine, stopped = Holding(), Holding()
    broken = FunctionClient(lambda request, cancel: [1 // 0])
    handles = [runtime.submit(Agent("a", client=c), "x") for c in (fine, stopped, broken)]
    fine.wait_begun()
    stopped.wait_begun()
    with pytest.raises(WorkflowFailed):
        handles[2].result(5)
    assert runtime.stop_generation(handles[1].workflow_id)
    with pytest.raises(Cancelled):
        handles[1].result(5)
    assert not handles[0].done()
    fine.go.cancel()
    assert handles[0].result(5).output == "begun done"
    for handle in handles:
        events_of(runtime.event_stream, handle.workflow_id)


# --- stopping -------------------------------------------------------------------------------


def test_stop_generation_is_true_of_a_run_under_way_and_of_no_other(runtime: Runtime) -> None:
    client = Holding()
    handle = runtime.submit(Agent("a", client=client), "x", workflow_id="w")
    client.wait_begun()
    assert runtime.stop_generation("another") is False
    assert runtime.stop_generation("w", "enough of it") is True
    with pytest.raises(Cancelled, match="enough of it") as caught:
        handle.result(5)
    assert isinstance(caught.value, concurrent.futures.CancelledError)
    assert caught.value.run is not None
    assert caught.value.run.output == "begun"
    wait_until(lambda: runtime.stop_generation("w") is False)
    assert events_of(runtime.event_stream, "w")[-1].data["reason"] == "enough of it"


def test_a_run_may_be_stopped_by_whoever_hears_of_its_start(runtime: Runtime) -> None:
    # Twenty times: between the start and the return of `submit` there is little time.
    def stop(event: Any) -> None:
        assert runtime.stop_generation(event.workflow_id)

    with runtime.event_stream.subscribe(stop, types=[EventType.WORKFLOW_STARTED]) as listener:
        for _ in range(20):
            handle = runtime.submit(Agent("a", client=Holding()), "x")
            with pytest.raises(Cancelled):
                handle.result(5)
    assert listener.errors == 0


def test_runs_wait_their_turn_in_order() -> None:
    order: List[str] = []
    first = Holding()
    with Runtime(max_workers=1) as runtime:
        runtime.submit(Agent("a", client=first), "x")
        first.wait_begun()

        def model(request: Any, cancel: CancelToken) -> List[str]:
            order.append(words_of(request))
            return ["ok"]

        agent = Agent("b", client=FunctionClient(model))
        handles = [runtime.submit(agent, str(n)) for n in range(10)]
        assert order == []
        first.go.cancel()
        for handle in handles:
            handle.result(5)
    assert order == [str(n) for n in range(10)]


def test_a_stopped_run_that_was_queued_never_begins() -> None:
    asked: List[str] = []
    first = Holding()
    with Runtime(max_workers=1) as runtime:
        runtime.submit(Agent("a", client=first), "x")
        first.wait_begun()
        client = FunctionClient(lambda request, cancel: asked.append("asked") or ["x"])
        handle = runtime.submit(Agent("b", client=client), "x", workflow_id="queued")
        assert handle.cancel("changed my mind")
        with pytest.raises(Cancelled, match="changed my mind") as caught:
            handle.result(5)
        # The terminal event is there by the time anybody is told.
        events = events_of(runtime.event_stream, "queued")
        assert [e.type for e in events] == [EventType.WORKFLOW_CANCELLED]
        assert events[0].data["reason"] == "changed my mind"
        assert caught.value.run is not None
        assert (caught.value.run.status, caught.value.run.steps) == ("cancelled", ())
        first.go.cancel()
    assert asked == []


# --- ids and arguments ----------------------------------------------------------------------


def test_an_id_of_ones_own_is_used_once(runtime: Runtime) -> None:
    agent = Agent("a", client=saying("x"))
    assert runtime.run(agent, "x", workflow_id="mine").workflow_id == "mine"
    with pytest.raises(LogError, match="choose another id"):
        runtime.run(agent, "x", workflow_id="mine")
    events_of(runtime.event_stream, "mine")


def test_an_id_is_taken_from_submit_on() -> None:
    first = Holding()
    with Runtime(max_workers=1) as runtime:
        runtime.submit(Agent("a", client=first), "x", workflow_id="running")
        runtime.submit(Agent("b", client=saying("x")), "x", workflow_id="queued")
        for taken in ("running", "queued"):
            with pytest.raises(LogError, match="choose another id"):
                runtime.submit(Agent("c", client=saying("x")), "x", workflow_id=taken)
        first.go.cancel()


def test_bad_arguments_are_refused(runtime: Runtime) -> None:
    for wrong in ("a workflow", None, [Agent("a", client=saying("x"))]):
        with pytest.raises(ConfigError, match="expected a Workflow or an Agent"):
            runtime.submit(wrong, "x")  # type: ignore[arg-type]
    for workers in (0, -1, 1.5, "3", None):
        with pytest.raises(ConfigError):
            Runtime(max_workers=workers)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        Runtime(event_stream="log")  # type: ignore[arg-type]


# --- the end --------------------------------------------------------------------------------


def test_leaving_waits_for_the_runs() -> None:
    client = Holding()
    with Runtime() as runtime:
        handle = runtime.submit(Agent("a", client=client), "x")
        client.wait_begun()
        threading.Timer(0.05, client.go.cancel).start()
    assert handle.result(0).status == "completed"
    assert "shut down" in repr(runtime)


def test_leaving_by_an_exception_stops_the_runs() -> None:
    client = Holding()
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        with Runtime() as runtime:
            handle = runtime.submit(Agent("a", client=client), "x")
            client.wait_begun()
            1 // 0
    assert time.monotonic() - began < 2
    with pytest.raises(Cancelled):
        handle.result(0)
    assert events_of(runtime.event_stream, handle.workflow_id)[-1].data["output"] == "begun"


def test_a_runtime_that_is_shut_down_takes_no_runs() -> None:
    runtime = Runtime()
    assert runtime.shutdown() is True
    assert runtime.shutdown(cancel=True) is True
    for call in (runtime.run, runtime.submit):
        with pytest.raises(RuntimeError, match="shut down"):
            call(Agent("a", client=saying("x")), "x")


def test_shutdown_goes_in_order() -> None:
    """New work is refused while the last runs end, and their last events are delivered."""
    heard: List[Any] = []
    client = Holding()
    runtime = Runtime(max_workers=1)
    runtime.event_stream.subscribe(heard.append)
    first = runtime.submit(Agent("a", client=client), "x", workflow_id="first")
    second = runtime.submit(Agent("b", client=saying("x")), "x", workflow_id="second")
    client.wait_begun()
    leaving = Task(runtime.shutdown)
    wait_until(lambda: runtime._shut)
    with pytest.raises(RuntimeError):
        runtime.submit(Agent("c", client=saying("x")), "x")
    assert not first.done()
    client.go.cancel()
    assert leaving.result() is True
    assert first.result(0).status == second.result(0).status == "completed"
    for handle in (first, second):
        events = [event for event in heard if event.workflow_id == handle.workflow_id]
        check_events(events)  # the terminal one too reached the callback
    with pytest.raises(LogError, match="closed"):
        runtime.event_stream.append(EventType.SYSTEM_WARNING, "x")


def test_shutdown_with_cancel_ends_running_and_queued_runs_alike() -> None:
    client = Holding()
    runtime = Runtime(max_workers=2)
    handles = [runtime.submit(Agent("a", client=client), "x") for _ in range(20)]
    client.wait_begun()
    client.wait_begun()
    began = time.monotonic()
    assert runtime.shutdown(cancel=True) is True
    assert time.monotonic() - began < 2
    for handle in handles:
        with pytest.raises(Cancelled, match="shutting down"):
            handle.result(0)
        last = events_of(runtime.event_stream, handle.workflow_id)[-1]
        assert last.type is EventType.WORKFLOW_CANCELLED


def test_r04_a_run_that_does_not_stop_is_left_behind_but_not_unanswered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = Holding(obedient=False)
    runtime = Runtime(grace=0.1, max_workers=1)
    handle = runtime.submit(Agent("a", client=client), "x")
    queued = runtime.submit(Agent("b", client=saying("x")), "x")
    client.wait_begun()
    began = time.monotonic()
    assert runtime.shutdown(cancel=True) is False
    assert time.monotonic() - began < 2
    assert "left behind" in caplog.text
    with pytest.raises(Cancelled) as caught:
        handle.result(0)
    assert caught.value.run is not None
    assert caught.value.run.output == "begun"
    assert [step.status for step in caught.value.run.steps] == ["cancelled"]
    with pytest.raises(Cancelled):
        queued.result(0)
    before = [events_of(runtime.event_stream, h.workflow_id) for h in (handle, queued)]
    caplog.clear()
    client.go.cancel()  # it ends at last; what it says is dropped, without a word
    assert runtime._pool.shutdown(join=5)
    after = [events_of(runtime.event_stream, h.workflow_id) for h in (handle, queued)]
    assert before == after
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_shutdown_waits_no_longer_than_it_is_told() -> None:
    client = Holding()
    runtime = Runtime()
    handle = runtime.submit(Agent("a", client=client), "x")
    client.wait_begun()
    assert runtime.shutdown(timeout=0.05) is False
    with pytest.raises(Cancelled):
        handle.result(5)
    events_of(runtime.event_stream, handle.workflow_id)
    assert runtime._pool.shutdown(join=5)


@pytest.mark.parametrize("cancel", [False, True])
def test_a_run_cannot_shut_down_its_own_runtime(runtime: Runtime, cancel: bool) -> None:
    def model(request: Any, token: CancelToken) -> Iterator[str]:
        with pytest.raises(RuntimeError, match="wait for itself"):
            runtime.shutdown(cancel=cancel)
        yield "still here"

    assert runtime.run(Agent("a", client=FunctionClient(model)), "x").output == "still here"
    with Runtime() as another:  # but it may have one of its own
        client = FunctionClient(lambda request, token: [str(another.shutdown())])
        assert runtime.run(Agent("b", client=client), "x").output == "True"


def test_a_runtime_closes_the_stream_it_was_given() -> None:
    stream = EventStream()
    with Runtime(event_stream=stream) as runtime:
        assert runtime.event_stream is stream
    with pytest.raises(LogError, match="closed"):
        stream.subscribe()


def test_a_finished_run_is_forgotten(runtime: Runtime) -> None:
    gc.disable()  # whatever is freed here, no cycle held it
    try:
        for client in (saying("x"), FunctionClient(lambda request, cancel: [1 // 0])):
            agent = Agent("a", client=client)
            handle = runtime.submit(agent, "x")
            try:
                handle.result(5)
            except WorkflowFailed as error:
                error.__cause__ = None
            wait_until(lambda: not runtime._runs)
            gone = weakref.ref(handle)
            del handle
            wait_until(lambda gone=gone: gone() is None)
    finally:
        gc.enable()


# --- no threads left (R08) ------------------------------------------------------------------


def test_r08_a_run_that_gets_no_thread_fails_with_a_connect_error(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(thread: Any) -> None:
        raise RuntimeError("can't start new thread")

    agent = Agent("a", client=saying("x"))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(WorkflowFailed) as caught:
            runtime.run(agent, "x", workflow_id="w")
    cause = caught.value.__cause__
    assert isinstance(cause, ConnectError)
    assert cause.retryable
    assert caught.value.retryable
    assert caught.value.run is not None
    assert caught.value.run.status == "failed"
    events = events_of(runtime.event_stream, "w")
    assert [event.type for event in events] == [EventType.WORKFLOW_FAILED]
    assert events[0].data["error"] == "ConnectError"
    assert not runtime._runs
    assert runtime.run(agent, "x").output == "x"
