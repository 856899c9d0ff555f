"""Following and stopping runs of other processes, and what a closed store leaves: nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Iterator, List

import pytest

from agentstream import Agent, Cancelled, EventStream, EventType, RedisStore, Runtime, Workflow
from agentstream.events.tail import LogTail
from agentstream.testing import ScriptedClient, TCPProxy
from agentstream.testing.stores import event
from tests.kit.log_support import ROOT
from tests.kit.redis_server import RedisServer, log_name
from tests.kit.support import check_events, wait_until

#: Runs a workflow that waits in its second step until it is stopped.
WORKER = """
import sys, threading
from agentstream import Agent, EventStream, RedisStore, Runtime, Workflow
from agentstream.testing import ScriptedClient

url, log, workflow_id, lease, checkpoints = sys.argv[1:]
begun = threading.Event()

def wait(text, context):
    print("begun", flush=True)
    context.cancel.wait(30)
    return text

store = RedisStore(url, log, lease=float(lease))
workflow = Workflow("demo", [Agent("talker", client=ScriptedClient("these are words")), wait])
with Runtime(event_stream=EventStream(store), checkpoints=bool(checkpoints)) as runtime:
    handle = runtime.submit(workflow, "hi", workflow_id=workflow_id)
    try:
        handle.result()
    except BaseException as error:
        print(type(error).__name__, flush=True)
"""


class Worker:
    """A process that runs a workflow, and has come to its second step."""

    def __init__(self, url: str, log: str, workflow_id: str, lease: float, checkpoints: str = ""):
        arguments = [url, log, workflow_id, str(lease), checkpoints]
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "begun\n"

    def last_words(self) -> str:
        out, _ = self.process.communicate(timeout=20)
        return out.strip()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    workers: List[Worker] = []

    def start_one(*arguments: Any, **options: Any) -> Worker:
        workers.append(Worker(*arguments, **options))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.close()


def test_k23_a_run_is_followed_and_stopped_from_another_process(
    redis: RedisServer, start: Callable[..., Worker]
) -> None:
    name = log_name()
    with EventStream(RedisStore(redis.url, name)) as stream:
        worker = start(redis.url, name, "run", 30.0)
        subscription = stream.subscribe(workflow_id="run", after=0)
        began = time.monotonic()
        assert stream.store.request_stop("run", "the user")
        events = list(subscription)
        took = time.monotonic() - began
        check_events(events)
        assert events[-1].type is EventType.WORKFLOW_CANCELLED
        assert events[-1].data["reason"] == "the user"
        assert took < 5.0, took  # 20 ms on a machine of one's own
        assert worker.last_words() == "Cancelled"
        assert not stream.store.request_stop("run", "again")


def test_k23_a_request_is_heard_of_though_the_watch_was_cut(
    redis: RedisServer, open_store: Callable[..., RedisStore]
) -> None:
    with TCPProxy(redis.port) as proxy:
        started = threading.Event()

        def wait(text: str, context: Any) -> str:
            started.set()
            context.cancel.wait(30)
            return text

        store = open_store(url=f"redis://127.0.0.1:{proxy.port}/0", lease=0.6, timeout=1.0)
        other = open_store()
        with Runtime(event_stream=EventStream(store)) as runtime:
            handle = runtime.submit(Workflow("demo", [wait]), "hi", workflow_id="w")
            assert started.wait(10)
            proxy.hold()
            assert other.request_stop("w", "enough")
            proxy.release()
            proxy.cut()
            with pytest.raises(Cancelled):
                handle.result(10)


def test_k25_subscribing_while_the_server_does_not_answer_holds_up_no_publisher() -> None:
    with RedisServer() as server:
        stream = EventStream(RedisStore(server.url, timeout=1.5))
        log = stream.open_log("w")
        server.freeze()
        failed: List[BaseException] = []

        def subscribe() -> None:
            try:
                stream.subscribe(workflow_id="w", after=0)
            except BaseException as error:  # noqa: BLE001
                failed.append(error)

        thread = threading.Thread(target=subscribe)
        thread.start()
        slowest = 0.0
        while thread.is_alive():
            began = time.monotonic()
            log.append(EventType.AGENT_LLM_STREAM_CHUNK, {"chunk": "x"})
            slowest = max(slowest, time.monotonic() - began)
            threading.Event().wait(0.005)
        thread.join()
        assert slowest < 0.7, slowest
        server.thaw()
        last = log.append(EventType.WORKFLOW_COMPLETED, {})
        assert last is not None
        stream.close()
        assert len(failed) <= 1
        with RedisStore(server.url) as store:
            assert store.bounds("w") == (1, last.offset)


def test_a_store_that_waits_is_closed_at_once(open_store: Callable[..., RedisStore]) -> None:
    store = open_store()
    store.claim("w")
    woken: List[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(store.wait(0, 30))) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: store._news._link is not None)
    began = time.monotonic()
    store.close()
    for thread in threads:
        thread.join(5)
    assert time.monotonic() - began < 2.0
    assert woken == [False] * 3


def test_two_streams_on_one_log_have_each_event_once(
    open_store: Callable[..., RedisStore],
) -> None:
    """Also of runs that go from one process to the other and back."""
    one, other = EventStream(open_store()), EventStream(open_store())
    try:
        every = [stream.subscribe() for stream in (one, other)]
        single = [stream.subscribe(workflow_id="run") for stream in (one, other)]
        log = one.open_log("run")
        assert one.store.checkpoints is not None
        one.store.checkpoints.begin("run")
        for turn in range(4):
            for n in range(5):
                log.append(EventType.AGENT_LLM_STREAM_CHUNK, {"chunk": f"{turn} {n}"})
            log.append(EventType.WORKFLOW_SUSPENDED, {"workflow": "demo", "status": "suspended"})
            (other if turn % 2 else one).store.flush()
            log, _ = (one if turn % 2 else other).reopen_log("run")
        log.append(EventType.WORKFLOW_COMPLETED, {})
        for subscription in single:
            assert [e.offset for e in subscription] == list(range(1, 26))
        for subscription in every:
            found = [subscription.get(10) for _ in range(25)]
            assert sorted(e.offset for e in found if e) == list(range(1, 26))
            assert subscription.get(0.05) is None
    finally:
        one.close()
        other.close()


def test_a_run_by_hand_of_everything(open_store: Callable[..., RedisStore]) -> None:
    store, reader = open_store(), open_store()
    workflow = Workflow("demo", [Agent("talker", client=ScriptedClient("these are the words"))])
    with Runtime(event_stream=EventStream(store), checkpoints=True) as runtime:
        done = runtime.run(workflow, "hi")
    events = reader.read(workflow_id=done.workflow_id)
    check_events(events)
    state = reader.run(done.workflow_id)
    assert state is not None
    assert (state.name, state.status, state.output) == ("demo", "completed", "these are the words")
    assert (state.input, state.last_offset) == ("hi", len(events))
    assert reader.checkpoints is not None
    assert reader.checkpoints.read(done.workflow_id) == {}
    json.dumps([one.to_dict() for one in events])
    assert event("w", 1).offset == 1


def test_who_follows_all_runs_twice_reads_each_event_once(
    redis: RedisServer, open_store: Callable[..., RedisStore]
) -> None:
    """As a web worker does: one stream of all runs, and subscriptions."""

    def reads() -> int:
        found = re.search(rb"cmdstat_xrange:calls=(\d+)", redis.say("INFO", "commandstats"))
        return int(found[1]) if found else 0

    writer, store = open_store(), open_store()
    with EventStream(store) as stream:
        every = stream.subscribe()
        reader = LogTail(store, lambda: stream.closed).open(None)
        writer.claim("w")
        before = 0
        for n in range(1, 61):
            writer.append(event("w", n))
            writer.flush()
            found = [every.get(10), reader.get(10)]
            assert [one.offset for one in found if one] == [n, n]
            before = before or reads()
        assert reads() - before < 59 * 1.5  # without sharing there are twice as many
        reader.close()
