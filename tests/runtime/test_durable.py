"""Runs that outlive their process, in memory: what is kept, what is not made again, who answers."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any, Callable, Dict, List, Optional, Sequence

import pytest

from agentstream import (
    Agent,
    Approval,
    Busy,
    Cancelled,
    ChatMessage,
    Checkpoints,
    ConfigError,
    Conversation,
    DeadlineExceeded,
    EventStream,
    EventType,
    LogError,
    Map,
    MemoryStore,
    Parallel,
    PendingCall,
    PendingSignal,
    Repeat,
    RunContext,
    RunHandle,
    Runtime,
    Step,
    ToolCall,
    Wait,
    Workflow,
    WorkflowFailed,
    tool,
)
from tests.kit.support import ByRound, wait_until


class Bench:
    """A log in memory, and runtimes over it, one after the other."""

    def __init__(self, **settings: Any) -> None:
        self.store = MemoryStore()
        self.settings = {"checkpoints": True, "grace": 0.3, **settings}
        self.made: List[str] = []
        self.left = threading.Event()  # its first process is gone

    def runtime(self, **settings: Any) -> Runtime:
        settings = {**self.settings, **settings}
        self.now = Runtime(event_stream=EventStream(self.store), **settings)
        return self.now

    def mark(self, name: str, then: Optional[Callable[[Any], Any]] = None) -> Step:
        """A step that notes that it ran."""

        def function(input: Any) -> Any:
            self.made.append(name)
            return f"{input} {name}" if then is None else then(input)

        return Step(function, name=name)

    def interrupted_in(
        self, workflow: Any, begun: threading.Event, done: Sequence[str] = (), **options: Any
    ) -> None:
        """Run a workflow as "run" in a process that is shut down once `begun` is set.

        `done` are steps beside the one that has begun, which are completed before.
        """
        runtime = self.runtime()
        handle = runtime.submit(workflow, "in", workflow_id="run", **options)
        assert begun.wait(5)
        completed = EventType.WORKFLOW_STEP_COMPLETED
        wait_until(lambda: set(done) <= {e.data["step"] for e in self.events(completed)})
        runtime.shutdown(cancel=True)
        with pytest.raises(Cancelled) as caught:
            handle.result(5)
        self.left.set()
        assert caught.value.run is not None and caught.value.run.status == "interrupted"
        assert self.status() == "interrupted"

    def resumed(self, workflow: Any, approvals: Any = None, **options: Any) -> Any:
        with self.runtime() as runtime:
            return runtime.resume(workflow, "run", approvals, **options).result(5)

    def suspended(self, workflow: Any, **options: Any) -> Any:
        with self.runtime() as runtime:
            run = runtime.run(workflow, "in", workflow_id="run", **options)
        assert (run.status, self.status()) == ("suspended", "suspended")
        return run

    def status(self) -> str:
        state = self.store.run("run")
        assert state is not None
        return state.status

    def events(self, *kinds: EventType) -> List[Any]:
        return [e for e in self.store.read(workflow_id="run") if not kinds or e.type in kinds]


@pytest.fixture
def bench() -> Bench:
    return Bench()


class Hold:
    """A function that hangs the first time, until it is told to stop."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.calls = 0
        self.__name__ = "hold"

    def __call__(self, input: Any, context: RunContext) -> Any:
        self.calls += 1
        if self.calls == 1:
            self.begun.set()
            context.cancel.wait(5)
        return f"{input} held"


# --- what is done is not done again ---------------------------------------------------------


def everything(bench: Bench, hold: Hold) -> Workflow:
    mark = bench.mark
    return Workflow(
        "everything",
        [
            mark("a"),
            [mark("b"), mark("c")],
            Parallel(one=mark("one"), two=[mark("two"), hold], three=mark("three")),
            Workflow("inner", [mark("d", str), mark("e")]),
            Repeat(mark("again"), at_most=2),
            mark("list", lambda text: [1, 2, 3]),
            Map(mark("item", lambda number: number * 2)),
        ],
    )


def test_what_is_done_is_not_run_again_at_any_depth(bench: Bench) -> None:
    alone, hold = Bench(), Hold()
    hold.calls = 1
    with alone.runtime() as runtime:
        wanted = runtime.run(everything(alone, hold), "in", workflow_id="run")
    hold = Hold()
    workflow = everything(bench, hold)
    bench.interrupted_in(workflow, hold.begun, done=["2.one", "2.three"])
    before = list(bench.made)
    assert sorted(before) == ["a", "b", "c", "one", "three", "two"]
    run = bench.resumed(workflow)
    assert run.output == wanted.output == [2, 4, 6]
    assert sorted(bench.made) == sorted(alone.made)
    assert hold.calls == 2

    def told(steps: Sequence[Any]) -> Any:
        return [(s.name, s.kind, s.output, s.status, s.step, told(s.steps)) for s in steps]

    assert told(run.steps) == told(wanted.steps)
    (resumed,) = bench.events(EventType.WORKFLOW_RESUMED)
    assert resumed.data["completed"] == ("0", "1", "2.one", "2.three", "2.two.0")
    assert (resumed.data["step"], resumed.data["reason"]) == ("2", "interrupted")
    offsets = [event.offset for event in bench.events()]
    assert offsets == list(range(1, len(offsets) + 1))
    assert bench.store.need_checkpoints().read("run") == {}  # gone with the end


def test_a_run_within_goes_on_in_its_own_log(bench: Bench) -> None:
    hold = Hold()
    inner = Workflow("inner", [bench.mark("a"), hold, bench.mark("b")])
    workflow = Workflow("outer", [bench.mark("first"), inner])
    bench.interrupted_in(workflow, hold.begun)
    run = bench.resumed(workflow)
    assert run.output == "in first a held b"
    assert bench.made == ["first", "a", "b"]
    started = bench.events(EventType.WORKFLOW_STEP_STARTED)
    (name,) = {event.data["run"] for event in started if "run" in event.data}
    kinds = [event.type.value for event in bench.store.read(workflow_id=name)]
    assert kinds.count("workflow_started") == 1
    assert [kind for kind in kinds if not kind.startswith("workflow_step")] == [
        "workflow_started",
        "workflow_suspended",
        "workflow_resumed",
        "workflow_completed",
    ]


def test_what_the_steps_share_goes_on(bench: Bench) -> None:
    hold = Hold()

    def put(input: Any, context: RunContext) -> Any:
        context["seen"] = [input, {"n": 1}]
        return input

    def get(input: Any, context: RunContext) -> Any:
        return context["seen"], context["given"]

    workflow = Workflow("w", [put, hold, get])
    bench.interrupted_in(workflow, hold.begun, context={"given": (1, 2)})
    mine: Dict[str, Any] = {}
    run = bench.resumed(workflow, context=mine)
    assert run.output == (["in", {"n": 1}], (1, 2))
    assert mine["given"] == (1, 2)


@dataclasses.dataclass
class Invoice:
    number: int
    parts: List[str]


def test_outputs_are_what_they_were(bench: Bench) -> None:
    hold = Hold()
    seen: List[Any] = []
    output = {"invoice": Invoice(7, ["a"]), "raw": b"\0\xff", 3: (1, {2})}

    def wait(input: Any, context: RunContext) -> Any:
        seen.append(input)
        hold(input, context)
        return input

    workflow = Workflow("w", [Step(lambda _: output, name="make"), Step(wait, name="wait")])
    bench.interrupted_in(workflow, hold.begun)
    assert bench.resumed(workflow).output == output
    assert seen == [output, output]


def test_what_cannot_be_kept_is_said_and_the_run_goes_on(bench: Bench) -> None:
    workflow = Workflow("w", [Step(lambda _: threading.Lock(), name="lock"), lambda _: "end"])
    with bench.runtime() as runtime:
        run = runtime.run(workflow, "in", workflow_id="run")
    assert run.output == "end"
    assert run.warnings == ("step 'lock': its output cannot be kept: no process can go on",)
    first, second = bench.events(EventType.WORKFLOW_STEP_COMPLETED)
    assert first.data["resumable"] is False
    assert "resumable" not in second.data


def test_a_step_that_is_tried_again_goes_on_with_its_attempt(bench: Bench) -> None:
    hold = Hold()
    tries: List[str] = []

    def flaky(input: Any, context: RunContext) -> Any:
        tries.append("try")
        if len(tries) == 1:
            raise ValueError("once")
        return hold(input, context)

    workflow = Workflow("w", [Step([bench.mark("a"), flaky], retries=1, name="both")])
    bench.interrupted_in(workflow, hold.begun)
    assert bench.resumed(workflow).output == "in a held"
    assert bench.made == ["a", "a"]  # each try's own; that of the second is kept
    started = [e.data for e in bench.events(EventType.WORKFLOW_STEP_STARTED)]
    assert [data.get("attempt") for data in started if data["name"] == "both"] == [None, 2, 2]


def test_a_queued_run_waits_for_the_next_process(bench: Bench) -> None:
    hold = Hold()
    runtime = bench.runtime(max_workers=1)
    runtime.submit(Workflow("w", [hold]), "in")
    assert hold.begun.wait(5)
    handle = runtime.submit(Workflow("x", [bench.mark("a")]), "in", workflow_id="run")
    runtime.shutdown(cancel=True)
    with pytest.raises(Cancelled):
        handle.result(5)
    assert bench.resumed(Workflow("x", [bench.mark("a")])).output == "in a"


# --- agents ---------------------------------------------------------------------------------


def tools_of(bench: Bench, hold: Optional[Hold] = None, **how: Any) -> List[Any]:
    @tool
    def look(what: str, context: RunContext) -> str:
        """Look something up."""
        bench.made.append(f"look {what} {context.idempotency_key}")
        return f"{what} is there"

    @tool(**how)
    def pay(amount: int, context: RunContext) -> str:
        """Pay."""
        bench.made.append(f"pay {amount} {context.idempotency_key}")
        if hold is not None:
            hold.calls += 1
            if hold.calls == 1:  # once the call beside it is done
                wait_until(lambda: len(bench.events(EventType.TOOL_CALL_COMPLETED)) == 2)
                hold.begun.set()
                bench.left.wait(20)  # it does not listen, and is left behind
        return f"paid {amount}"

    return [look, pay]


ROUNDS = (
    [ToolCall("c1", "look", '{"what": "it"}')],
    [ToolCall("c2", "look", '{"what": "more"}'), ToolCall("c3", "pay", '{"amount": 5}')],
    "all done",
)


def names(made: Sequence[str]) -> List[str]:
    return sorted(entry.rpartition(" ")[0] for entry in made)


@pytest.mark.parametrize("how", ["rerun", "suspend", "fail"])
def test_an_agent_goes_on_amid_its_calls(bench: Bench, how: str) -> None:
    hold = Hold()
    client = ByRound(*ROUNDS)
    agent = Agent("payer", client, tools=tools_of(bench, hold, on_unknown=how))
    bench.interrupted_in(agent, hold.begun)
    before = list(bench.made)
    assert names(before) == ["look it", "look more", "pay 5"]
    assert len(client.requests) == 2
    if how == "fail":
        with pytest.raises(WorkflowFailed) as caught:
            bench.resumed(agent)
        assert caught.value.outcome == "unknown"
        assert bench.made == before
        return
    if how == "suspend":
        run = bench.resumed(agent)
        (asked,) = run.pending
        assert (asked.tool, asked.why, run.status) == ("pay", "unknown", "suspended")
        run = bench.resumed(agent, {asked.id: True})
    else:
        run = bench.resumed(agent)
    assert run.output == "all done"
    assert len(client.requests) == 3
    last = [message.content for message in client.requests[-1].messages]
    assert last == ["in", None, "it is there", None, "more is there", "paid 5"]
    paid = [entry for entry in bench.made if entry.startswith("pay")]
    assert len(paid) == 2 and len(set(paid)) == 1  # the same key both times
    assert len({entry.rpartition(" ")[2] for entry in bench.made}) == 3
    assert run.usage.completion_tokens == sum(
        e.data["usage"]["completion_tokens"]
        for e in bench.events(EventType.AGENT_LLM_REQUEST_COMPLETED)
    )


def test_calls_may_end_while_the_process_leaves(bench: Bench) -> None:
    begun, end = threading.Event(), threading.Event()

    @tool
    def slow(context: RunContext) -> str:
        """Take a moment."""
        begun.set()
        assert end.wait(5)
        bench.made.append("slow")
        return "took a moment"

    client = ByRound([ToolCall("c", "slow", "{}")], "done")
    agent = Agent("a", client, tools=[slow])
    runtime = bench.runtime(grace=5.0)
    handle = runtime.submit(agent, "in", workflow_id="run")
    assert begun.wait(5)
    leaving = threading.Thread(target=runtime.shutdown, kwargs={"cancel": True})
    leaving.start()
    wait_until(lambda: handle._token.cancelled)
    end.set()
    leaving.join(5)
    assert bench.status() == "interrupted"
    assert bench.resumed(agent).output == "done"
    assert bench.made == ["slow"]


def test_a_call_that_the_process_leaves_has_not_failed(bench: Bench) -> None:
    begun, end = threading.Event(), threading.Event()

    @tool(alone=True)
    def slow(n: int) -> str:
        """Take a moment."""
        bench.made.append(f"slow {n}")
        begun.set()
        assert end.wait(5)
        return "took a moment"

    calls = [ToolCall(f"c{n}", "slow", f'{{"n": {n}}}') for n in range(2)]
    agent = Agent("a", ByRound(calls, "done"), tools=[slow])
    runtime = bench.runtime(grace=5.0)
    handle = runtime.submit(agent, "in", workflow_id="run")
    assert begun.wait(5)
    leaving = threading.Thread(target=runtime.shutdown, kwargs={"cancel": True})
    leaving.start()
    wait_until(lambda: handle._token.cancelled)
    end.set()
    leaving.join(5)
    assert (bench.status(), bench.made) == ("interrupted", ["slow 0"])
    assert not bench.events(EventType.TOOL_CALL_FAILED), "the second one was not begun"
    assert bench.resumed(agent).output == "done"
    assert bench.made == ["slow 0", "slow 1"]
    assert not bench.events(EventType.TOOL_CALL_FAILED)


def test_a_user_s_stop_is_an_end(bench: Bench) -> None:
    hold = Hold()
    with bench.runtime() as runtime:
        handle = runtime.submit(Workflow("w", [hold]), "in", workflow_id="run")
        assert hold.begun.wait(5)
        handle.cancel("enough")
        with pytest.raises(Cancelled):
            handle.result(5)
        assert bench.status() == "cancelled"
        with pytest.raises(LogError):
            runtime.resume(Workflow("w", [hold]), "run")


def test_a_conversation_gets_the_turn_once(bench: Bench) -> None:
    later = Agent(
        "a",
        ByRound([ToolCall("c", "look", '{"what": "x"}')], "done"),
        tools=tools_of(bench),
        approve=lambda call: Approval.later(),
    )
    chat = Conversation([ChatMessage.user("hello"), ChatMessage.assistant("hi")])
    # The client counts answers: that of the conversation is one.
    later.client.replies = ("hi", *later.client.replies)  # type: ignore[attr-defined]
    (asked,) = bench.suspended(later, conversation=chat).pending
    assert len(chat) == 2
    with pytest.raises(ConfigError, match="conversation"):
        bench.resumed(later, {asked.id: True})
    assert bench.resumed(later, conversation=chat).output == "done"
    assert [message.role for message in chat.messages] == [
        *("user", "assistant"),
        *("user", "assistant", "tool", "assistant"),
    ]


# --- answers --------------------------------------------------------------------------------


def asking(bench: Bench, expires: Optional[float] = None) -> Agent:
    def approve(call: ToolCall) -> Any:
        bench.made.append(f"asked {call.name} -")
        return call.name != "pay" or Approval.later(expires)

    return Agent("payer", ByRound(*ROUNDS), tools=tools_of(bench), approve=approve)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (True, "paid 5"),
        (Approval.yes(), "paid 5"),
        ("too dear", "Error: the call was not allowed: too dear"),
        (Approval.no(), "Error: the call was not allowed"),
        (Approval.change({"amount": 3}), "paid 3"),
        ({"amount": 4}, "paid 4"),
    ],
)
def test_an_answer_decides_one_call_once(bench: Bench, answer: Any, told: str) -> None:
    agent = asking(bench)
    run = bench.suspended(agent)
    (asked,) = run.pending
    assert asked == PendingCall(asked.id, "pay", '{"amount": 5}', "0", "payer")
    with bench.runtime() as runtime:
        assert runtime.pending("run") == run.pending
        with pytest.raises(LogError, match="does not wait for call 'other'"):
            runtime.approve("run", "other", True)
        runtime.approve("run", asked.id, answer, by="ann")
        assert runtime.pending("run") == ()
        with pytest.raises(LogError, match="answered already"):
            runtime.approve("run", asked.id, True)
        assert runtime.resume(agent, "run").result(5).output == "all done"
        with pytest.raises(LogError, match="is completed"):
            runtime.approve("run", asked.id, True)
    assert names(bench.made).count("asked pay") == 1  # it is never asked about again
    assert agent.client.requests[-1].messages[-1].content == told  # type: ignore[attr-defined]
    (resumed,) = bench.events(EventType.WORKFLOW_RESUMED)
    (noted,) = resumed.data["answers"]
    assert (noted["id"], noted["by"], noted["name"]) == (asked.id, "ann", "pay")


def test_nobody_s_answer_in_time_is_a_no(bench: Bench) -> None:
    agent = asking(bench, expires=0.001)
    (asked,) = bench.suspended(agent).pending
    with bench.runtime() as runtime:
        wait_until(lambda: not _open(asked))
        with pytest.raises(LogError):
            runtime.approve("run", asked.id, True)
        assert runtime.resume(agent, "run").result(5).output == "all done"
    told = agent.client.requests[-1].messages[-1].content  # type: ignore[attr-defined]
    assert told == "Error: the call was not allowed: nobody answered in time"
    (resumed,) = bench.events(EventType.WORKFLOW_RESUMED)
    assert resumed.data["answers"][0]["answer"] == "expired"


def _open(asked: Any) -> bool:
    import time

    assert asked.expires_at is not None
    return time.time() <= asked.expires_at


def test_without_an_answer_it_is_suspended_again(bench: Bench) -> None:
    agent = asking(bench)
    first = bench.suspended(agent)
    assert bench.resumed(agent).pending == first.pending
    assert len(agent.client.requests) == 2  # type: ignore[attr-defined]


def test_later_without_checkpoints_is_a_no() -> None:
    agent = asking(Bench())
    with Runtime() as runtime:
        assert runtime.run(agent, "in").output == "all done"
    told = agent.client.requests[-1].messages[-1].content  # type: ignore[attr-defined]
    assert told == "Error: the call was not allowed: nobody can answer"


def test_the_other_branches_go_on_to_their_end(bench: Bench) -> None:
    workflow = Workflow(
        "w",
        [Parallel(pay=asking(bench), wait=Wait("go"), work=bench.mark("work"), fail_fast=True)],
    )
    run = bench.suspended(workflow)
    assert "work" in bench.made
    assert {type(each) for each in run.pending} == {PendingCall, PendingSignal}
    call = next(each for each in run.pending if isinstance(each, PendingCall))
    still = bench.resumed(workflow, {call.id: True})
    assert still.pending == (PendingSignal("go", "0.wait"),)
    with bench.runtime() as runtime:
        runtime.signal("run", "go", {"to": [1]}, by="bob")
    run = bench.resumed(workflow)
    assert run.output == {"pay": "all done", "wait": {"to": [1]}, "work": "in work"}
    assert bench.made.count("work") == 1


def test_an_agent_that_is_a_tool_may_wait_too(bench: Bench) -> None:
    helper = asking(bench)
    boss = Agent(
        "boss",
        ByRound([ToolCall("b1", "payer", '{"input": "pay it"}')], "boss done"),
        tools=[helper.as_tool("Pays.")],
    )
    (asked,) = bench.suspended(boss).pending
    assert asked.agent == "payer"
    run = bench.resumed(boss, {asked.id: True})
    assert run.output == "boss done"
    assert names(bench.made) == ["asked look", "asked look", "asked pay", "look it", "look more",
                                 "pay 5"]  # fmt: skip
    assert len(helper.client.requests) == 3  # type: ignore[attr-defined]


# --- waits ----------------------------------------------------------------------------------


def test_a_value_may_come_before_and_after(bench: Bench) -> None:
    workflow = Workflow("w", [Repeat([Wait("word"), bench.mark("said")], at_most=2)])
    bench.suspended(workflow)
    with bench.runtime() as runtime:
        runtime.signal("run", "word", "one")
        with pytest.raises(LogError, match="not used yet"):
            runtime.signal("run", "word", "two")
        run = runtime.resume(workflow, "run").result(5)
        assert run.pending == (PendingSignal("word", "0.2.0"),)
        runtime.signal("run", "word", "two")
        assert runtime.resume(workflow, "run").result(5).output == "two said"
    assert bench.made == ["said", "said"]


def test_a_wait_that_is_over(bench: Bench) -> None:
    workflow = Workflow("w", [Wait("word", timeout=0.05, otherwise="none")])
    (asked,) = bench.suspended(workflow).pending
    with bench.runtime() as runtime:
        wait_until(lambda: not _open(asked))
        with pytest.raises(LogError, match="its time is over"):
            runtime.signal("run", "word", "late")
    wait_until(lambda: bench.resumed(workflow).status == "completed")
    assert bench.events()[-1].data["output"] == "none"


def test_a_wait_that_is_over_fails_without_an_otherwise(bench: Bench) -> None:
    workflow = Workflow("w", [Wait("word", timeout=0.05)])
    bench.suspended(workflow)

    def fails() -> bool:
        try:
            return not bench.resumed(workflow).pending
        except WorkflowFailed as error:
            assert isinstance(error.__cause__, DeadlineExceeded)
            return True

    wait_until(fails)


def test_a_wait_without_checkpoints_says_what_it_needs() -> None:
    with Runtime() as runtime, pytest.raises(WorkflowFailed, match="checkpoints=True"):
        runtime.run(Workflow("w", [Wait("word")]), "in")


# --- who may go on, and with what -----------------------------------------------------------


def test_a_changed_workflow_is_refused_unless_forced(bench: Bench) -> None:
    hold = Hold()
    bench.interrupted_in(Workflow("w", [bench.mark("a"), hold]), hold.begun)
    changed = Workflow("w", [bench.mark("a"), bench.mark("b")])
    with pytest.raises(ConfigError, match="step 1 was a Function named 'hold'"):
        bench.resumed(changed)
    assert bench.status() == "interrupted"
    assert bench.resumed(changed, force=True).output == "in a b"
    assert bench.made == ["a", "b"]


def test_a_run_that_was_forced_is_one_of_the_changed_workflow(bench: Bench) -> None:
    hold = Hold()
    bench.interrupted_in(Workflow("w", [bench.mark("a"), hold]), hold.begun)
    changed = Workflow("w", [bench.mark("a"), Wait("goods")])
    assert bench.resumed(changed, force=True).status == "suspended"
    with bench.runtime() as runtime:
        runtime.signal("run", "goods", "box")
    assert bench.resumed(changed).output == "box"


def test_submit_with_resume_begins_goes_on_and_gives_the_result(bench: Bench) -> None:
    hold = Hold()
    workflow = Workflow("w", [bench.mark("a"), hold])
    bench.interrupted_in(workflow, hold.begun)
    for _ in range(2):
        with bench.runtime() as runtime:
            run = runtime.run(workflow, "in", workflow_id="run", resume=True)
        assert run.output == "in a held"
    with bench.runtime() as runtime:
        assert runtime.run(workflow, "new", workflow_id="other", resume=True).output
    assert (bench.made, hold.calls) == (["a", "a"], 3)


def test_a_run_is_one_s_at_a_time(bench: Bench) -> None:
    hold = Hold()
    workflow = Workflow("w", [hold])
    with bench.runtime() as runtime:
        handle = runtime.submit(workflow, "in", workflow_id="run")
        assert hold.begun.wait(5)
        with pytest.raises(Busy):
            runtime.resume(workflow, "run")
        assert runtime.submit(workflow, "in", workflow_id="run", resume=True) is handle
        handle.cancel()


@pytest.mark.parametrize("how", ["resume", "submit"])
def test_a_run_may_be_gone_on_with_as_soon_as_its_log_says_that_it_rests(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Before its worker has left it, and told who waits for the handle."""
    workflow = Workflow("w", [Wait("word"), bench.mark("said")])
    asked = threading.Event()
    resolve, look = RunHandle.set_result, bench.store.run

    def late(handle: RunHandle, result: Any) -> None:
        assert result.status == "completed" or asked.wait(5)
        resolve(handle, result)

    with bench.runtime(grace=5.0) as runtime:
        rests = runtime.event_stream.subscribe(types=[EventType.WORKFLOW_SUSPENDED])
        monkeypatch.setattr(RunHandle, "set_result", late)
        runtime.submit(workflow, "in", workflow_id="run")
        assert next(rests).workflow_id == "run"
        runtime.signal("run", "word", "one")
        monkeypatch.setattr(bench.store, "run", lambda name: (look(name), asked.set())[0])
        if how == "resume":
            handle = runtime.resume(workflow, "run")
        else:
            handle = runtime.submit(workflow, "in", workflow_id="run", resume=True)
        assert handle.result(5).output == "one said"


def test_what_is_kept_may_be_encoded() -> None:
    class Reversed:
        def encode(self, data: bytes) -> bytes:
            return data[::-1]

        def decode(self, data: bytes) -> bytes:
            return data[::-1]

    bench = Bench(checkpoints=Checkpoints(codec=Reversed()))
    agent = asking(bench)
    (asked,) = bench.suspended(agent).pending
    kept = bench.store.need_checkpoints().read("run")
    assert not any(b"is there" in data for data in kept.values())
    with bench.runtime(checkpoints=True) as runtime:
        runtime.approve("run", asked.id, True)  # without the codec, as a command line would
        with pytest.raises(ConfigError, match="codec"):
            runtime.resume(agent, "run")
    assert bench.resumed(agent).output == "all done"


def test_a_runtime_without_checkpoints_says_so(bench: Bench) -> None:
    with bench.runtime(checkpoints=None) as runtime:
        with pytest.raises(ConfigError, match="checkpoints=True"):
            runtime.resume(Workflow("w", [bench.mark("a")]), "run")
        with pytest.raises(ConfigError, match="checkpoints=True"):
            runtime.run(Workflow("w", [bench.mark("a")]), "in", workflow_id="run", resume=True)
    with pytest.raises(ConfigError, match="checkpoints must be True or Checkpoints"):
        Runtime(checkpoints=3)  # type: ignore[arg-type]


def test_its_events_end_where_it_rests(bench: Bench) -> None:
    with bench.runtime() as runtime:
        kinds = [e.type for e in runtime.stream(Workflow("w", [Wait("x")]), "in")]
        assert kinds[-1] is EventType.WORKFLOW_SUSPENDED
        (name,) = [state.workflow_id for state in bench.store.runs()]
        runtime.signal(name, "x", "y")
        workflow = Workflow("w", [Wait("x")])
        again = [e.type for e in runtime.stream(workflow, "", workflow_id=name, resume=True)]
    assert again[: len(kinds)] == kinds  # and what came before
    assert again[len(kinds)] is EventType.WORKFLOW_RESUMED
    assert again[-1] is EventType.WORKFLOW_COMPLETED


def test_a_watch_resumes_what_becomes_ready(bench: Bench) -> None:
    agent = asking(bench)
    (asked,) = bench.suspended(agent).pending
    with bench.runtime() as runtime:
        watch = runtime.watch([agent], poll_s=0.01)
        runtime.approve("run", asked.id, True)
        wait_until(lambda: bench.status() == "completed")
        watch.close()
    with bench.runtime() as runtime, pytest.raises(ConfigError, match="names of their own"):
        runtime.watch([agent, agent])


def test_an_answer_is_not_used_for_a_second_time_of_the_call(bench: Bench) -> None:
    hold = Hold()
    agent = Agent(
        "payer",
        ByRound(*ROUNDS),
        tools=tools_of(bench, hold),
        approve=lambda call: call.name != "pay" or Approval.later(),
    )
    (asked,) = bench.suspended(agent).pending
    with bench.runtime() as runtime:
        runtime.approve("run", asked.id, Approval.change({"amount": 9}))
        runtime.resume(agent, "run")
        assert hold.begun.wait(5)
        runtime.shutdown(cancel=True)
    bench.left.set()
    assert bench.status() == "interrupted"
    run = bench.resumed(agent)  # the yes was for the call that nobody knows about
    (unknown,) = run.pending
    assert (unknown.why, unknown.arguments) == ("unknown", '{"amount": 9}')
    assert unknown.id != asked.id
    assert bench.resumed(agent, {unknown.id: "it was paid, I looked"}).output == "all done"
    assert names(bench.made).count("pay 9") == 1
    told = agent.client.requests[-1].messages[-1].content  # type: ignore[attr-defined]
    assert told == (
        "Error: the call may have been made before it broke off, and is not made again:"
        " it was paid, I looked"
    )


def test_a_thousand_items_go_on(bench: Bench) -> None:
    hold = Hold()
    ran: List[int] = []

    def item(number: int, context: RunContext) -> int:
        ran.append(number)
        if number == 500:
            hold(number, context)
        return number * 2

    workflow = Workflow("w", [Step(lambda _: list(range(1000)), name="list"), Map(item, at_most=4)])
    bench.interrupted_in(workflow, hold.begun)
    first = len(ran)
    assert bench.resumed(workflow).output == [number * 2 for number in range(1000)]
    assert len(ran) - 1000 <= 4 and first < 1000  # those under way, and no other


def test_a_branch_that_fails_ends_the_run_though_another_waits(bench: Bench) -> None:
    def fail(_: Any) -> None:
        raise ValueError("no")

    workflow = Workflow("w", [Parallel(wait=Wait("x"), fail=fail)])
    with bench.runtime() as runtime, pytest.raises(WorkflowFailed):
        runtime.run(workflow, "in", workflow_id="run")
    assert bench.status() == "failed"
    patient = Workflow("p", [Parallel(wait=Wait("x"), fail=fail, fail_fast=False)])
    with bench.runtime() as runtime:
        run = runtime.run(patient, "in", workflow_id="two")
        assert run.pending == (PendingSignal("x", "0.wait"),)
        runtime.signal("two", "x", 1)
        run = runtime.resume(patient, "two").result(5)
    assert run.output["wait"] == 1
    assert run.output["fail"]["error"] == "ValueError"
