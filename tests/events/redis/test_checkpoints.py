"""Runs whose process has died or sleeps: taken by one other, and by nobody while it lives."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import Any, Callable, Iterator, List

import pytest

from agentstream import (
    Busy,
    Cancelled,
    EventStream,
    EventType,
    LogError,
    RedisStore,
    RunState,
    Runtime,
    Workflow,
)
from agentstream.events.redis import owners
from agentstream.events.redis.endings import Endings
from agentstream.testing import TCPProxy
from agentstream.testing.stores import event
from tests.events.redis.test_watch import Worker
from tests.kit.redis_server import RedisServer, log_name
from tests.kit.support import check_events, wait_until

STARTED = EventType.WORKFLOW_STARTED


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    workers: List[Worker] = []

    def start_one(*arguments: Any) -> Worker:
        workers.append(Worker(*arguments))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.close()


def state_of(store: RedisStore, workflow_id: str) -> RunState:
    found = store.run(workflow_id)
    assert found is not None
    return found


def is_in_the_last_step(store: RedisStore) -> bool:
    """True once the worker's log has all that comes before it waits."""
    newest = store.read(workflow_id="run")[-1:]
    return (
        bool(newest)
        and newest[0].type is EventType.WORKFLOW_STEP_STARTED
        and (newest[0].data["name"] == "wait")
    )


def abandon(store: RedisStore) -> None:
    """What a kill -9 leaves: no beat any more, and nothing said."""
    store._owners.end()
    store._owners.has_entered = False


def test_k12_of_twenty_claims_of_one_id_at_once_one_wins(
    open_store: Callable[..., RedisStore],
) -> None:
    stores = [open_store() for _ in range(4)]
    found: List[Any] = []
    gate = threading.Barrier(20)

    def claim(store: RedisStore) -> None:
        gate.wait(10)
        try:
            store.claim("w")
            found.append(store)
        except LogError as error:
            found.append(error)

    threads = [threading.Thread(target=claim, args=(stores[n % 4],)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    winners = {id(one) for one in found if isinstance(one, RedisStore)}
    assert len(winners) == 1  # one process; within it a claim may be made again
    assert len([one for one in found if isinstance(one, LogError)]) == 15


@pytest.mark.parametrize("checkpoints", ["", "yes"])
def test_k13_a_killed_worker_s_run_is_ended_or_left_to_others(
    redis: RedisServer, start: Callable[..., Worker], checkpoints: str
) -> None:
    name, lease = log_name(), 0.6
    with EventStream(RedisStore(redis.url, name, lease=lease)) as stream:
        store = stream.store
        assert isinstance(store, RedisStore)
        assert store.checkpoints is not None
        live = stream.subscribe(workflow_id="run", after=0)
        worker = start(redis.url, name, "run", lease, checkpoints)
        wait_until(lambda: is_in_the_last_step(store))
        if checkpoints:
            with pytest.raises(Busy):
                store.checkpoints.resume("run")
        os.kill(worker.process.pid, signal.SIGKILL)
        began = time.monotonic()
        wait_until(lambda: state_of(store, "run").status != "running")
        assert time.monotonic() - began < lease + lease / 3 + 2.0
        if checkpoints:
            assert state_of(store, "run").status == "interrupted"
            log, entry = stream.reopen_log("run")
            assert (entry.fence, entry.deaths, entry.reason) == (2, 1, "interrupted")
            assert entry.records
            log.append(EventType.WORKFLOW_RESUMED, {})
            log.append(EventType.WORKFLOW_COMPLETED, {"output": "done"})
            assert [one.offset for one in live] == list(range(1, entry.last + 3))
        else:
            events = list(live)
            check_events(events)
            assert events[-1].data["error"] == "Interrupted"
            assert events[-1].data["failed_step"] == "wait"
            assert state_of(store, "run").status == "failed"
        assert redis.say("HLEN", f"agentstream:{{{name}}}:owners") == b":1\r\n"


def test_k14_k15_a_worker_that_slept_too_long_finds_its_run_taken(
    redis: RedisServer, start: Callable[..., Worker]
) -> None:
    name, lease = log_name(), 0.6
    with RedisStore(redis.url, name, lease=lease) as store:
        worker = start(redis.url, name, "run", lease, "yes")
        assert not store.wait(10**9, 0.0)  # whoever looks, reaps
        wait_until(lambda: is_in_the_last_step(store))
        os.kill(worker.process.pid, signal.SIGSTOP)
        threading.Event().wait(lease / 2)  # not long enough
        os.kill(worker.process.pid, signal.SIGCONT)
        threading.Event().wait(lease)
        assert state_of(store, "run").status == "running"
        os.kill(worker.process.pid, signal.SIGSTOP)
        wait_until(lambda: state_of(store, "run").status == "interrupted")
        assert store.checkpoints is not None
        entry = store.checkpoints.resume("run")
        store.append(event("run", entry.last + 1, EventType.WORKFLOW_RESUMED))
        store.flush()
        os.kill(worker.process.pid, signal.SIGCONT)
        assert worker.last_words() != ""  # it was stopped
        found = store.read(workflow_id="run")
        assert [one.offset for one in found] == list(range(1, entry.last + 2))
        assert state_of(store, "run").status == "running"


def test_k16_a_lease_s_thread_outlives_whatever_is_raised(
    open_store: Callable[..., RedisStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(lease=0.1)
    store.claim("w")
    raised: List[Any] = []
    run = store._server.run

    def fail(script: Any, *arguments: Any) -> Any:
        if script is owners.BEAT and len(raised) < 5:
            raised.append([ValueError, LogError, OSError, KeyError, RecursionError][len(raised)])
            raise raised[-1]("told so")
        return run(script, *arguments)

    monkeypatch.setattr(store._server, "run", fail)
    wait_until(lambda: len(raised) == 5)
    count = store._owners._count
    wait_until(lambda: store._owners._count > count + 2)


@pytest.mark.parametrize("reaped", [False, True])
def test_k16_a_process_that_no_beat_of_gets_through_stops_its_runs(
    redis: RedisServer, open_store: Callable[..., RedisStore], reaped: bool
) -> None:
    lease, started = 1.0, threading.Semaphore(0)

    def wait(text: str, context: Any) -> str:
        started.release()
        context.cancel.wait(30)
        return text

    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(TCPProxy(redis.port))
        url = f"redis://127.0.0.1:{proxy.port}/0"
        store = open_store(url=url, lease=lease, timeout=0.5, linger=0.001)
        other = open_store(lease=lease)
        stream = EventStream(store)
        handles = []
        for name in ("plain", "kept"):
            runtime = Runtime(event_stream=stream, checkpoints=name == "kept")
            stack.enter_context(runtime)
            handles.append(runtime.submit(Workflow("demo", [wait]), "hi", workflow_id=name))
        for _ in handles:
            assert started.acquire(timeout=10)
        store.flush()
        if reaped:
            other._owners.start()
        proxy.hold()
        began = time.monotonic()
        for handle in handles:
            with pytest.raises(Cancelled, match="no sign of life"):
                handle.result(10)
        assert lease / 2 < time.monotonic() - began < lease + 4.0  # 1 s on an idle machine
        if reaped:
            wait_until(lambda: state_of(other, "plain").status != "running")
        proxy.release()
        wait_until(lambda: state_of(other, "kept").status == "interrupted")
        wait_until(lambda: other.has_ended("plain"))
        assert state_of(other, "plain").status == ("failed" if reaped else "cancelled")
        assert other.checkpoints is not None
        entry = other.checkpoints.resume("kept")
        assert (entry.fence, entry.deaths) == (2, 1)
        check_events(other.read(workflow_id="plain"))


def test_k17_a_reaper_that_dies_in_between_is_reaped(
    open_store: Callable[..., RedisStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = open_store(lease=0.3)
    gone.claim("w")
    gone.append(event("w", 1, STARTED, {"workflow": "demo"}))
    gone.flush()
    abandon(gone)
    first = open_store(lease=0.3)
    taken = threading.Event()

    def die(*_: Any) -> None:
        taken.set()
        first._owners._ended = True
        raise LogError("it died")

    monkeypatch.setattr(first._endings, "interrupt", die)
    first._owners.start()
    assert taken.wait(10)
    abandon(first)
    assert state_of(first, "w").status == "running"
    second = open_store(lease=0.3)
    second._owners.start()
    wait_until(lambda: state_of(second, "w").status == "failed")
    assert [one.offset for one in second.read(workflow_id="w")] == [1, 2]


def test_k17_what_a_reaper_could_not_end_it_ends_later(
    open_store: Callable[..., RedisStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, reaper = open_store(lease=0.3), open_store(lease=0.3)
    gone.claim("w")
    gone.append(event("w", 1, STARTED, {"workflow": "demo"}))
    gone.flush()
    abandon(gone)
    failed: List[str] = []
    interrupt = Endings.interrupt

    def fail_once(self: Endings, workflow_id: str, reason: str) -> None:
        if not failed:
            failed.append(workflow_id)
            raise LogError("the network")
        interrupt(self, workflow_id, reason)

    monkeypatch.setattr(Endings, "interrupt", fail_once)
    reaper._owners.start()
    wait_until(lambda: state_of(reaper, "w").status == "failed")
    assert failed == ["w"]


def test_a_run_that_outlived_its_deaths_fails_and_says_so(
    open_store: Callable[..., RedisStore],
) -> None:
    watcher = open_store(lease=0.3)
    watcher._owners.start()
    assert watcher.checkpoints is not None
    for death in range(2):
        store = open_store(lease=0.3)
        assert store.checkpoints is not None
        if death:
            assert store.checkpoints.resume("w").deaths == 1
        else:
            store.claim("w")
            store.checkpoints.begin("w", recover=1)
            store.append(event("w", 1, STARTED, {"workflow": "demo"}))
            store.flush()
        abandon(store)
        wait_until(lambda: state_of(watcher, "w").status != "running")
    state = state_of(watcher, "w")
    assert state.status == "failed"
    assert "recover is 1" in (state.error or "")
    assert watcher.checkpoints.waiting() == []


def test_a_run_that_was_to_stop_when_its_process_died_is_cancelled(
    open_store: Callable[..., RedisStore],
) -> None:
    watcher = open_store(lease=0.3)
    for name in ("plain", "kept"):
        store = open_store(lease=0.3)
        store.claim(name)
        if name == "kept":
            assert store.checkpoints is not None
            store.checkpoints.begin(name)
        store.append(event(name, 1, STARTED, {"workflow": "demo"}))
        store.flush()
        assert watcher.request_stop(name, "no longer wanted")
        abandon(store)
    watcher._owners.start()
    for name in ("plain", "kept"):
        wait_until(lambda n=name: state_of(watcher, n).status == "cancelled")
        assert state_of(watcher, name).error == "no longer wanted"
