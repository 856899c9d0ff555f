"""A run that goes on: no answer is used twice, nothing done is lost, nothing waits for ever."""

from __future__ import annotations

import threading
from typing import Any, Dict, Iterator, List, Optional

import pytest

from agentstream import (
    Agent,
    Approval,
    ChatClient,
    Checkpoints,
    ConfigError,
    ConnectError,
    Delta,
    EventStream,
    EventType,
    LogError,
    MemoryStore,
    Parallel,
    RunContext,
    Runtime,
    SqliteStore,
    Step,
    ToolCall,
    Wait,
    Workflow,
)
from agentstream.workflow.run_checkpoints import RunCheckpoints
from tests.kit.support import ByRound, wait_until
from tests.runtime.test_durable import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


class Payments:
    """An agent that pays once somebody has allowed it, and loses its server then, once."""

    def __init__(self, *, loses: int = 0) -> None:
        self.paid: List[int] = []

        def pay(cents: int) -> str:
            """Pay."""
            self.paid.append(cents)
            return "paid"

        class Client(ByRound):
            def stream_deltas(self, request: Any, *, cancel: Any = None) -> Iterator[Delta]:
                nonlocal loses
                if loses and request.messages[-1].role == "tool":
                    loses -= 1
                    raise ConnectError("gone", phase="connect", retryable=True)
                yield from super().stream_deltas(request, cancel=cancel)

        client = Client([ToolCall("call_1", "pay", '{"cents": 900}')], "It is paid.")
        self.agent = Agent(
            "payer", client=client, tools=[pay], approve=lambda call: Approval.later()
        )


# --- answers --------------------------------------------------------------------------------


def test_an_approval_is_not_used_by_the_next_try_of_its_step(bench: Bench) -> None:
    payments = Payments(loses=1)
    workflow = Workflow("w", [Step(payments.agent, retries=1)])
    (first,) = bench.suspended(workflow).pending
    run = bench.resumed(workflow, {first.id: True})
    assert (run.status, payments.paid) == ("suspended", [900])
    (second,) = run.pending
    assert second.id != first.id
    assert bench.resumed(workflow).status == "suspended"  # nobody has answered the second time
    assert payments.paid == [900]
    assert bench.resumed(workflow, {second.id: True}).status == "completed"
    assert payments.paid == [900, 900]


def test_a_value_from_outside_is_used_by_one_step(bench: Bench) -> None:
    workflow = Workflow("w", [Parallel({"a": Wait("go"), "b": Wait("go")})])
    bench.suspended(workflow)
    for number, status in ((1, "suspended"), (2, "completed")):
        with bench.runtime() as runtime:
            runtime.signal("run", "go", number)
            run = runtime.resume(workflow, "run").result(5)
        assert run.status == status
    assert sorted(run.output.values()) == [1, 2]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_what_a_run_waits_for_outlives_its_events(kind: str, tmp_path: Any) -> None:
    few: Any = MemoryStore(20) if kind == "memory" else SqliteStore(tmp_path / "l.db", max_events=1)
    payments = Payments()
    stream = EventStream(few)
    with Runtime(event_stream=stream, checkpoints=True) as runtime:
        asked = runtime.run(payments.agent, "in", workflow_id="run").pending
        for _ in range(200):
            stream.append("system_warning", "other", {"message": "later"})

        def is_gone() -> bool:
            few.flush()
            return not few.read(workflow_id="run", after=0)

        wait_until(is_gone)
        assert runtime.pending("run") == asked
        runtime.approve("run", asked[0].id, by="ann")
        with runtime.watch([Workflow("payer", [payments.agent])], poll_s=0.02):
            wait_until(lambda: payments.paid == [900])
            wait_until(lambda: few.run("run").status == "completed")


# --- what was done --------------------------------------------------------------------------


def test_agents_of_a_function_are_known_in_whichever_order_they_come(bench: Bench) -> None:
    made: List[str] = []
    begun = threading.Event()
    orders = [["a", "b"], ["b", "a", "c"]]

    def note(what: str) -> str:
        """Note."""
        made.append(what)
        return "noted"

    def function(input: str, context: RunContext) -> List[str]:
        said = []
        for name in orders.pop(0):
            client = ByRound([ToolCall("c", "note", f'{{"what": "{name}"}}')], f"{name} is done")
            agent = Agent("worker", client=client, tools=[note])
            said.append(context.run(agent, f"Do {name}"))
        if not begun.is_set():
            begun.set()
            context.cancel.wait(10)
        return said

    workflow = Workflow("w", [function])
    bench.interrupted_in(workflow, begun)
    assert made == ["a", "b"]
    assert bench.resumed(workflow).output == ["b is done", "a is done", "c is done"]
    assert made == ["a", "b", "c"]


def test_a_cut_answer_fails_its_branch_again(bench: Bench) -> None:
    class Cut(ChatClient):
        provider = model = "cut"

        def stream_deltas(self, request: Any, *, cancel: Any = None) -> Iterator[Delta]:
            yield Delta("half")
            yield Delta(finish_reason="length")

    branches = {"a": Agent("a", client=Cut(), on_cut="fail"), "b": Wait("go")}
    workflow = Workflow("w", [Parallel(branches, fail_fast=False)])
    bench.suspended(workflow)
    with bench.runtime() as runtime:
        runtime.signal("run", "go", 1)
        assert runtime.resume(workflow, "run").result(5).status == "completed"
    failed = bench.events(EventType.WORKFLOW_STEP_FAILED)
    assert [event.data["error"] for event in failed] == ["LimitExceeded"] * 2


def test_an_older_state_of_what_is_shared_does_not_come_behind_a_newer_one() -> None:
    written: List[bytes] = []
    first, second = threading.Event(), threading.Event()

    class Slow:
        def write(self, workflow_id: str, records: Dict[str, bytes], **_: Any) -> None:
            if not first.is_set():
                first.set()
                second.wait(0.2)  # where the other one is not kept waiting, it comes in between
            if "context" in records:
                written.append(records["context"])

    kept = RunCheckpoints(Slow(), "run", Checkpoints(), 1.0)  # type: ignore[arg-type]
    kept.values["n"] = 1
    thread = threading.Thread(target=lambda: kept.put({"a": 1}))
    thread.start()
    assert first.wait(5)
    kept.values["n"] = 2
    kept.put({"b": 1})
    second.set()
    thread.join()
    assert written[-1].endswith(b'{"n":2}')


def test_a_run_that_a_function_starts_without_an_id_rests_with_nobody(bench: Bench) -> None:
    begun, started = threading.Event(), []

    def inner(input: str, context: RunContext) -> str:
        if not begun.is_set():
            begun.set()
            context.cancel.wait(10)
        return f"{input} done"

    def outer(input: str) -> Any:
        started.append(bench.now)
        return started[-1].run(Workflow("inner", [inner]), input).output

    workflow = Workflow("w", [outer])
    bench.interrupted_in(workflow, begun)
    assert [state.workflow_id for state in bench.store.checkpoints.waiting()] == ["run"]
    assert bench.resumed(workflow).output == "in done"
    assert bench.store.checkpoints.waiting() == []
    assert len(started) == 2


# --- runs that cannot go on -----------------------------------------------------------------


class Shift:
    """A codec that knows its own."""

    def __init__(self, key: int) -> None:
        self._key = key

    def encode(self, data: bytes) -> bytes:
        return bytes([self._key]) + data

    def decode(self, data: bytes) -> bytes:
        if data[0] != self._key:
            raise ValueError("another key")
        return data[1:]


def test_a_watch_goes_on_after_a_run_that_cannot_be_decoded() -> None:
    store, workflow = MemoryStore(), Workflow("w", [Wait("go")])
    for key in (1, 2):
        codec = Checkpoints(codec=Shift(key))
        with Runtime(event_stream=EventStream(store), checkpoints=codec) as runtime:
            runtime.run(workflow, "in", workflow_id=f"run-{key}")
            runtime.signal(f"run-{key}", "go", key)
    with Runtime(event_stream=EventStream(store), checkpoints=codec) as runtime:
        with pytest.raises(ConfigError, match="codec cannot decode the checkpoints: ValueError"):
            runtime.resume(workflow, "run-1")
        with runtime.watch([workflow], poll_s=0.02):
            wait_until(lambda: status_of(store, "run-2") == "completed")
        assert status_of(store, "run-1") == "suspended"


def status_of(store: Any, run: str) -> Optional[str]:
    state = store.run(run)
    return None if state is None else str(state.status)


def test_a_run_that_had_hardly_begun_fails_and_is_begun_anew(bench: Bench) -> None:
    stream = EventStream(bench.store)
    log = stream.open_log("run")
    bench.store.checkpoints.begin("run")
    log.append(EventType.WORKFLOW_SUSPENDED, {"workflow": "w", "status": "interrupted"})
    workflow = Workflow("w", [bench.mark("a")])
    with bench.runtime() as runtime:
        run = runtime.run(workflow, "in", workflow_id="run", resume=True)
        assert (run.workflow_id, run.output) == ("run~2", "in a")
        with pytest.raises(LogError, match="has ended: failed"):
            runtime.resume(workflow, "run")


def test_a_run_that_is_said_to_rest_rests_for_every_process(tmp_path: Any) -> None:
    path = tmp_path / "runs.db"
    workflow = Workflow("w", [Wait("word")])
    with Runtime(event_stream=EventStream(SqliteStore(path)), checkpoints=True) as runtime:
        with Runtime(event_stream=EventStream(SqliteStore(path)), checkpoints=True) as other:
            for name in map(str, range(20)):
                (asked,) = runtime.run(workflow, "in", workflow_id=name).pending
                assert other.pending(name) == (asked,)
                other.signal(name, "word", name)
                assert other.resume(workflow, name).result(5).output == name
