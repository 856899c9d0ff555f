"""Jobs without a task queue: what is queued is executed once, wherever, and nothing is lost."""

from __future__ import annotations

import functools
import pathlib
import signal
import threading
import time
from typing import Any, Callable, List

import pytest

from agentstream import (
    Agent,
    Approval,
    Cancelled,
    Checkpoints,
    ConfigError,
    EventStream,
    EventType,
    LogError,
    MemoryStore,
    NotDone,
    Runtime,
    SqliteStore,
    ToolCall,
    Wait,
    Workflow,
    WorkflowFailed,
    tool,
)
from agentstream.events.checkpoints import CheckpointStore
from agentstream.events.sqlite import jobs as queue_clock
from agentstream.events.store import EventStore
from agentstream.jobs import JobRun, Jobs
from agentstream.testing import ScriptedClient
from tests.kit.support import Task, check_events, wait_until

Make = Callable[..., Jobs]
Open = Callable[[], EventStore]


def fail(_: str) -> str:
    raise ValueError("no tea left")


def events_of(jobs: Jobs, run: str) -> List[Any]:
    store = jobs.runtime.event_stream.store
    return store.read(workflow_id=run, after=0, limit=1000)


def test_a_run_is_queued_executed_once_and_asked_for(open_store: Open, jobs_of: Make) -> None:
    jobs = jobs_of(open_store())
    store = jobs.runtime.event_stream.store
    sent: List[str] = []
    jobs.send = sent.append
    run = jobs.start("reply", "tea")
    assert sent == [run]
    (state,) = store.runs()
    assert (state.workflow_id, state.name, state.status) == (run, "reply", "queued")
    assert (state.started_at, state.last_offset, state.input) == (None, 0, "tea")
    assert jobs.run(run) == JobRun(run, "new", "completed", "TEA")
    assert jobs.run(run) == JobRun(run, "ended", "completed", "TEA")
    assert jobs.result(run) == "TEA"
    check_events(events_of(jobs, run))
    state = store.run(run)
    assert state is not None
    assert (state.status, state.input, state.output) == ("completed", "tea", "TEA")
    assert store.checkpoints is not None
    assert store.checkpoints.read(run) == {}  # the input went with the end


def test_what_a_run_ended_with_is_raised(open_store: Open, jobs_of: Make) -> None:
    jobs = jobs_of(open_store(), fail)
    run = jobs.start("reply", "tea")
    ran = jobs.run(run)
    assert (ran.how, ran.status, ran.error) == ("new", "failed", "ValueError: no tea left")
    assert jobs.run(run) == ran._replace(how="ended")
    with pytest.raises(WorkflowFailed, match="no tea left") as failed:
        jobs.result(run)
    assert failed.value.run is not None
    assert (failed.value.run.workflow_id, failed.value.run.status) == (run, "failed")


def test_k23_one_that_is_queued_is_stopped_at_once_and_ended_for_its_worker(
    open_store: Open, jobs_of: Make
) -> None:
    jobs = jobs_of(open_store())
    store, took = jobs.runtime.event_stream.store, []
    for _ in range(20):
        run = jobs.start("reply", "tea")
        began = time.monotonic()
        assert store.request_stop(run, "changed my mind")
        took.append(time.monotonic() - began)
        assert jobs.run(run)[1:3] == ("ended", "cancelled")
        with pytest.raises(Cancelled, match="changed my mind"):
            jobs.result(run)
        (end,) = events_of(jobs, run)
        assert (end.type, end.offset) == (EventType.WORKFLOW_CANCELLED, 1)
    assert sorted(took)[10] < 0.02


def test_a_wait_in_vain_ends_and_the_run_goes_on(jobs_of: Make) -> None:
    jobs = jobs_of(MemoryStore())
    run = jobs.start("reply", "tea")
    with pytest.raises(NotDone, match="is queued after 0.05 s") as late:
        jobs.result(run, timeout=0.05)
    assert (late.value.status, isinstance(late.value, TimeoutError)) == ("queued", True)
    waiting = Task(lambda: jobs.result(run))
    jobs.run(run)
    assert waiting.result() == "TEA"
    with pytest.raises(LogError, match="there is no run 'another'"):
        jobs.result("another")


def test_a_wait_lasts_while_the_log_is_away_and_ends_when_it_is_closed(jobs_of: Make) -> None:
    away = threading.Event()

    class Remote(MemoryStore):
        def run(self, workflow_id: str) -> Any:
            if away.is_set():
                raise LogError("the server cannot be reached", retryable=True)
            return super().run(workflow_id)

    jobs = jobs_of(Remote())
    run = jobs.start("reply", "tea")
    waiting, other = Task(lambda: jobs.result(run)), Task(lambda: jobs.result(run))
    away.set()
    with pytest.raises(LogError, match="cannot be reached"):
        jobs.result(run)
    threading.Event().wait(0.1)
    away.clear()
    jobs.run(run)
    assert [waiting.result(), other.result()] == ["TEA", "TEA"]
    waiting = Task(functools.partial(jobs.result, jobs.start("reply", "never")))
    wait_until(lambda: len(jobs.runtime.event_stream._subscribers.all()) == 1)
    jobs.runtime.shutdown(cancel=True)
    assert "the event stream is closed" in str(waiting.error())


def test_what_cannot_be_a_job_is_refused_and_nothing_queued(jobs_of: Make) -> None:
    jobs = jobs_of(MemoryStore())
    with pytest.raises(ConfigError, match="there is no workflow 'rely' here, but 'reply'"):
        jobs.start("rely", "tea")
    with pytest.raises(ConfigError, match=r"input has 1,048,58\d bytes.* may have 1,048,576"):
        jobs.start("reply", "x" * (1 << 20))
    with pytest.raises(ConfigError, match=r"input\['a'\]: a lock"):
        jobs.start("reply", {"a": threading.Lock()})
    with pytest.raises(ConfigError, match="workflow_id"):
        jobs.start("reply", "tea", workflow_id="")
    jobs.start("reply", "tea", workflow_id="once")
    with pytest.raises(LogError, match="'once' has a log already"):
        jobs.start("reply", "tea", workflow_id="once")
    with pytest.raises(LogError, match="'once' has a log already"):
        jobs.runtime.run(Workflow("reply", [str.upper]), "tea", workflow_id="once")
    with pytest.raises(LogError, match="there is no run 'another'"):
        jobs.run("another")
    assert [state.workflow_id for state in jobs.runtime.event_stream.store.runs()] == ["once"]
    assert jobs.run("once").output == "TEA"


def test_a_store_without_checkpoints_or_a_queue_says_so() -> None:
    class Bare(MemoryStore):
        checkpoints = None  # type: ignore[assignment]

    with Runtime(event_stream=EventStream(Bare())) as runtime:
        with pytest.raises(ConfigError, match="Bare keeps no checkpoints"):
            Jobs(runtime, [Workflow("reply", [str.upper])])
    with Runtime() as runtime:
        for wrong in ([], [Workflow("a", [str.upper]), Workflow("a", [str.upper])]):
            with pytest.raises(ConfigError, match="names of their own"):
                Jobs(runtime, wrong)
        with pytest.raises(ConfigError, match="recover"):
            Jobs(runtime, [Workflow("reply", [str.upper])], recover=-1)

    class Plain(CheckpointStore):
        begin = write = refuse = resume = read = answer = waiting = None  # type: ignore[assignment]

    Plain.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    for act in (
        lambda: Plain().queue("run", "reply", {}),  # type: ignore[abstract]
        lambda: Plain().take_due(["reply"]),  # type: ignore[abstract]
        lambda: Plain().bring_forward("run"),  # type: ignore[abstract]
    ):
        with pytest.raises(ConfigError, match="Plain queues no runs"):
            act()


def test_a_worker_that_does_not_know_the_workflow_leaves_it_queued(
    shared: Open, jobs_of: Make
) -> None:
    web, other = jobs_of(shared()), jobs_of(shared(), name="other")
    run = web.start("reply", "tea")
    with pytest.raises(ConfigError, match="there is no workflow 'reply' here, but 'other'"):
        other.run(run)
    assert jobs_of(shared()).run(run).output == "TEA"
    assert web.result(run, timeout=10) == "TEA"


def test_a_workflow_may_change_until_the_run_begins(shared: Open, jobs_of: Make) -> None:
    run = jobs_of(shared()).start("reply", " tea")
    ran = jobs_of(shared(), str.upper, str.strip).run(run)
    assert (ran.how, ran.output) == ("new", "TEA")


def test_k18_of_many_deliveries_at_once_one_executes(shared: Open, jobs_of: Make) -> None:
    gate, entered, count = threading.Event(), threading.Event(), []

    def slow(given: str) -> str:
        count.append(given)
        entered.set()
        assert gate.wait(30)
        return given.upper()

    workers = [jobs_of(shared(), slow) for _ in range(3)]
    run = workers[0].start("reply", "tea")
    every = [Task(functools.partial(w.run, run)) for w in workers * 2]
    assert entered.wait(30)
    wait_until(lambda: sum(not one._thread.is_alive() for one in every) == 5)
    gate.set()
    hows = [one.result().how for one in every]
    assert sorted(hows) == ["busy"] * 5 + ["new"]
    assert [worker.run(run)[1:4] for worker in workers] == [("ended", "completed", "TEA")] * 3
    assert count == ["tea"]
    check_events(events_of(workers[1], run))


def test_k19_a_message_that_is_lost_is_sent_again(shared: Open, jobs_of: Make) -> None:
    web, other = jobs_of(shared(), resend=0.3), jobs_of(shared(), resend=0.3)
    web.send = other.send = lambda _: None  # the broker loses it
    run = web.start("reply", "tea")
    sent: List[float] = []

    def send(name: str) -> None:
        assert name == run
        sent.append(time.monotonic())
        if len(sent) == 3:
            web.run(name)

    web.send = other.send = send
    other.watch()  # two processes look: each time one of them sends
    began = time.monotonic()
    assert web.result(run, timeout=20) == "TEA"
    assert len(sent) == 3
    first, second, third = (at - began for at in sent)
    assert first < 1.5
    assert second - first > 0.5  # 0.6 s later
    assert third - second > 1.1  # 1.2 s later


def test_k19_a_send_that_raises_loses_nothing(
    jobs_of: Make, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = jobs_of(MemoryStore(), resend=0.05)

    def send(_: str) -> None:
        raise ConnectionError("redis://user:secret@broker")

    jobs.send = send
    run = jobs.start("reply", "tea")
    wait_until(lambda: len(caplog.records) >= 3)
    assert "could not be sent (ConnectionError)" in caplog.text
    assert "secret" not in caplog.text
    jobs.send = jobs.run
    assert jobs.result(run, timeout=20) == "TEA"


def test_one_that_waits_for_an_answer_is_sent_when_it_has_one(jobs_of: Make) -> None:
    @tool
    def pay(cents: int) -> str:
        """Pay."""
        return f"paid {cents}"

    client = ScriptedClient([ToolCall("1", "pay", '{"cents": 9}')], "Done.")
    clerk = Agent("clerk", client=client, tools=[pay], approve=lambda _: Approval.later())
    jobs = jobs_of(MemoryStore(), clerk, name="clerk", resend=0.2)
    sent: List[str] = []
    jobs.send = sent.append
    run = jobs.start("clerk", "Pay")
    assert jobs.run(run)[1:3] == ("new", "suspended")
    assert jobs.run(run) == JobRun(run, "waiting", "suspended")
    pause = threading.Event()
    pause.wait(0.4)
    assert sent == [run]  # nobody is asked again while there is nothing to do
    (call,) = jobs.runtime.pending(run)
    jobs.send = lambda name: Task(lambda: jobs.run(name))
    jobs.runtime.approve(run, call.id)
    jobs.wake(run)
    assert jobs.result(run, timeout=20) == "Done."


def test_one_whose_patience_ends_is_sent_then(jobs_of: Make) -> None:
    jobs = jobs_of(MemoryStore(), Wait("goods", timeout=0.3, otherwise="never came"), resend=60.0)
    jobs.send = lambda name: jobs.run(name)
    run = jobs.start("reply", "tea")
    assert jobs.result(run, timeout=20) == "never came"


def test_an_exception_from_without_stops_the_run_and_an_exit_leaves_it(jobs_of: Make) -> None:
    if not hasattr(signal, "setitimer"):
        pytest.skip("no timers here")

    class TimeLimit(Exception):
        pass

    jobs = jobs_of(MemoryStore(), Wait("never"), name="waits")
    entered = threading.Event()

    def slow(given: str) -> str:
        entered.set()
        threading.Event().wait(0.5)
        return given

    jobs = jobs_of(MemoryStore(), slow, slow)
    for error, status in ((TimeLimit, "cancelled"), (SystemExit, "interrupted")):

        def ring(*_: object, kind: Any = error) -> None:
            raise kind

        before = signal.signal(signal.SIGALRM, ring)
        try:
            run = jobs.start("reply", "tea")
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(error):
                jobs.run(run)
        finally:
            signal.signal(signal.SIGALRM, before)
        state = jobs.runtime.event_stream.store.run(run)
        assert state is not None and state.status == status
    assert jobs.run(run)[1:4] == ("resumed", "completed", "tea")


def test_an_exit_goes_up_though_the_log_takes_no_more(jobs_of: Make) -> None:
    class Gone(MemoryStore):
        def flush(self) -> None:
            raise LogError("the log is gone")

    jobs = jobs_of(Gone(), str.upper)
    run = jobs.start("reply", "tea")

    def leave(handle: Any) -> Any:
        raise SystemExit

    jobs._finish = leave  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        jobs.run(run)


def test_the_codec_and_keeping_of_the_runtime_are_those_of_jobs() -> None:
    class Mirror:
        def encode(self, data: bytes) -> bytes:
            return data[::-1]

        decode = encode

    checkpoints = Checkpoints(codec=Mirror(), keep=60.0)
    with Runtime(checkpoints=checkpoints) as runtime:
        jobs = Jobs(runtime, [Workflow("reply", [str.upper])])
        run = jobs.start("reply", "a secret")
        kept = runtime.event_stream.store.checkpoints
        assert kept is not None
        assert all(b"a secret" not in value for value in kept.read(run).values())
        assert jobs.run(run).output == "A SECRET"
        assert kept.read(run) != {}


def test_nothing_starts_before_it_is_used() -> None:
    before = threading.active_count()
    with Runtime() as runtime:
        jobs = Jobs(runtime, [Workflow("reply", [str.upper])])
        jobs.send = print
        assert threading.active_count() == before
        assert "reply" in repr(jobs)


def test_k15_a_clock_that_is_set_or_a_machine_that_is_restarted_delays_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SqliteStore(tmp_path / "runs.db") as store:
        store.checkpoints.queue("run", "reply", {}, due=0.05)
        monkeypatch.setattr(time, "time", lambda now=time.time(): now - 3600)
        wait_until(lambda: store.checkpoints.take_due(["reply"]) == ["run"])
        later = queue_clock.uptime() + 100_000
        monkeypatch.setattr(queue_clock, "uptime", lambda: later)
        store.checkpoints.queue("later", "reply", {}, due=30.0)
        monkeypatch.undo()  # as after a restart
        assert store.checkpoints.take_due(["reply"]) == ["later"]
        assert store.checkpoints.take_due(["reply"]) == []
