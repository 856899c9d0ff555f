"""One process runs, others follow, stop and replay: real processes over one file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from agentstream import (
    Event,
    EventStream,
    LogError,
    MemoryStore,
    OffsetGone,
    Runtime,
    SqliteStore,
)
from agentstream.events import tail
from agentstream.testing.stores import event
from tests.kit.support import check_events, wait_until

ROOT = Path(__file__).resolve().parents[2]

#: Runs a workflow whose agent says a word every 5 ms, until it is stopped.
RUN = """
import sys, threading
from agentstream import *
from agentstream.testing import ScriptedClient

pause = lambda: threading.Event().wait(0.005)
words = [piece for n in range(1, 10_000) for piece in (pause, f"w{n} ")]
workflow = Workflow("demo", [Agent("talker", client=ScriptedClient(words))])
with Runtime(event_stream=EventStream(SqliteStore(sys.argv[1]))) as runtime:
    heard = runtime.event_stream.subscribe(workflow_id="run")
    handle = runtime.submit(workflow, "go on", workflow_id="run")
    while next(heard).type != EventType.AGENT_LLM_STREAM_CHUNK:
        pass
    print("begun", flush=True)
    try:
        handle.result()
    except Cancelled as error:
        print("stopped", error.run.output)
"""

#: Writes a log, and says of each word when its append has returned.
WRITE = """
import sys, threading
from agentstream import *
stream = EventStream(SqliteStore(sys.argv[1], durability=sys.argv[2]))
log = stream.open_log("run")
log.append(EventType.WORKFLOW_STARTED, {"workflow": "demo", "steps": []})
log.append(EventType.WORKFLOW_STEP_STARTED, {"step": "0", "name": "talker", "kind": "Agent"})
stream.store.flush()
print("begun", flush=True)
for n in range(1, 10_000):
    log.append(EventType.AGENT_LLM_STREAM_CHUNK, {"agent": "a", "step": "0", "chunk": f"w{n} "})
    print(n, flush=True)
    threading.Event().wait(0.003)
"""


class Owner:
    """A process that runs something over a log."""

    def __init__(self, path: Path, script: str, durability: str = "normal") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, str(path), durability],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        self.kill()
        for pipe in (self.process.stdout, self.process.stdin):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def owners() -> Iterator[List[Owner]]:
    started: List[Owner] = []
    yield started
    for owner in started:
        owner.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def begin(owners: List[Owner], path: Path, script: str, durability: str = "normal") -> Owner:
    owner = Owner(path, script, durability)
    owners.append(owner)
    assert owner.line() == "begun"
    return owner


def texts(events: List[Any]) -> List[str]:
    return [e.data["chunk"] for e in events if e.type == "agent_llm_stream_chunk"]


def test_a_run_is_followed_and_stopped_from_another_process(
    owners: List[Owner], path: Path
) -> None:
    owner = begin(owners, path, RUN)
    with Runtime(event_stream=EventStream(SqliteStore(path))) as runtime:
        stream = runtime.event_stream
        wait_until(lambda: stream.store.runs()[0].status == "running")
        (run,) = stream.store.runs()
        assert (run.workflow_id, run.name) == ("run", "demo")
        one = stream.subscribe(workflow_id="run", after=0)
        everything = stream.subscribe()
        seen = []
        while len(texts(seen)) < 20:
            event = one.get(20.0)
            assert event is not None
            seen.append(event)
            # Live, not only replayed.
            assert time.time() - event.timestamp < 20.0
        delays = sorted(time.time() - e.timestamp for e in [one.get(20.0) for _ in range(20)] if e)
        assert delays[len(delays) // 2] < 1.0
        assert not runtime.stop_generation("another")
        asked = time.time()
        assert runtime.stop_generation("run", "enough")
        rest = list(one)
        assert rest[-1].type == "workflow_cancelled"
        assert rest[-1].data["reason"] == "enough"
        assert rest[-1].timestamp - asked < 5.0
        events = stream.store.read(workflow_id="run", limit=100_000)
        check_events(events)
        assert texts(events) == [f"w{n} " for n in range(1, len(texts(events)) + 1)]
        assert [e.offset for e in seen] == list(range(1, len(seen) + 1))
        assert not runtime.stop_generation("run")
        assert owner.line() == ("stopped " + "".join(texts(events))).strip()
        wait_until(lambda: owner.process.poll() is not None, 10)
        got = []
        while True:
            event = everything.get(20.0)
            assert event is not None
            got.append(event.offset)
            if event.type == "workflow_cancelled":
                break
        assert got == list(range(got[0], len(events) + 1))
        assert stream.store.runs()[0].status == "cancelled"


def test_r03_a_killed_owner_is_found_at_the_next_open(owners: List[Owner], path: Path) -> None:
    owner = begin(owners, path, WRITE, "full")
    acked = 0
    while acked < 30:
        acked = int(owner.line())
    owner.kill()
    assert owner.process.stdout is not None
    acked = max([acked, *map(int, owner.process.stdout.read().split())])
    began = time.monotonic()
    with SqliteStore(path) as store:
        assert time.monotonic() - began < 5.0
        assert store.lost is None
        (run,) = store.runs()
        assert run.status == "failed"
        events = store.read(workflow_id="run", limit=100_000)
        check_events(events)
        said = texts(events)
        assert len(said) >= acked
        assert said == [f"w{n} " for n in range(1, len(said) + 1)]
        assert events[-1].type == "workflow_failed"
        assert events[-1].data["error"] == "Interrupted"
        assert str(owner.process.pid) in events[-1].data["message"]
        assert events[-1].data["output"] == "".join(said)
        assert events[-1].data["failed_step"] == "talker"
        assert store.has_ended("run")
        with pytest.raises(LogError):
            store.claim("run")
    with SqliteStore(path) as store:  # once, and not again
        assert len(store.read(workflow_id="run", limit=100_000)) == len(events)
    assert sorted(f.name for f in path.parent.iterdir()) == ["runs.db", "runs.db-mark"]


def test_r03_a_follower_learns_of_its_death_without_opening_again(
    owners: List[Owner], path: Path
) -> None:
    owner = begin(owners, path, WRITE)
    with EventStream(SqliteStore(path)) as stream:
        one = stream.subscribe(workflow_id="run", after=0)
        assert one.get(20.0) is not None
        owner.kill()
        events = [1, *(e.offset for e in one)]
        assert events == list(range(1, len(events) + 1))
        assert stream.store.read(workflow_id="run", after=len(events) - 1)[0].data["error"] == (
            "Interrupted"
        )


def test_d06_a_second_process_cannot_write_the_run(owners: List[Owner], path: Path) -> None:
    owner = begin(owners, path, WRITE)
    with EventStream(SqliteStore(path)) as stream:
        with pytest.raises(LogError, match=f"owner, process {owner.process.pid}"):
            stream.append("system_warning", "run", {})
        with pytest.raises(LogError, match="owner"):
            stream.open_log("run")
        # Others it can.
        stream.append("system_warning", "mine", {})
        stream.store.flush()
        assert stream.store.bounds("mine") == (1, 1)


def test_live_replay_and_other_processes_are_one_order(owners: List[Owner], path: Path) -> None:
    """Own events come at once, without a position; others' by the log.  Each once, in order."""
    begin(owners, path, WRITE)
    with EventStream(SqliteStore(path)) as stream:
        live = stream.subscribe()
        small = stream.subscribe(max_queue=2)
        log = stream.open_log("mine")
        for n in range(300):
            log.append("system_warning", {"n": n})
            if n % 10 == 0:
                time.sleep(0.002)
        for subscription in (live, small):
            found: Any = {"mine": [], "run": []}
            while len(found["mine"]) < 300 or len(found["run"]) < 10:
                event = subscription.get(20.0)
                assert event is not None, {k: len(v) for k, v in found.items()}
                found[event.workflow_id].append(event.offset)
            assert found["mine"] == list(range(1, 301))
            run = found["run"]
            assert run == list(range(run[0], run[0] + len(run)))


def test_replay_from_any_offset_and_none_beyond(owners: List[Owner], path: Path) -> None:
    owner = begin(owners, path, WRITE)
    while int(owner.line()) < 10:
        pass
    with EventStream(SqliteStore(path)) as stream:
        wait_until(lambda: stream.store.bounds("run").last >= 10)
        for after in range(0, 10, 3):
            with stream.subscribe(workflow_id="run", after=after) as events:
                assert [next(events).offset for _ in range(3)] == [after + 1, after + 2, after + 3]
        with pytest.raises(OffsetGone):
            stream.subscribe(workflow_id="run", after=1_000_000)


FORK = """
import os, sys, warnings, threading
warnings.simplefilter("ignore", DeprecationWarning)
from agentstream import *
stream = EventStream(SqliteStore(sys.argv[1]))
for n in range(3):
    stream.append("system_warning", "parent", {"n": n})
stop = threading.Event()
def work():
    log = stream.open_log("busy")
    while not stop.wait(0.0005):
        log.append("system_warning", {})
thread = threading.Thread(target=work)
thread.start()
for number in range(10):
    pid = os.fork()
    if pid == 0:
        try:
            heard = stream.subscribe()
            for n in range(3):
                stream.append("system_warning", f"child{number}", {"n": n})
            assert [e.offset for e in stream.store.read(workflow_id="parent")] == [1, 2, 3]
            try:
                stream.store.claim("busy")
            except LogError:
                pass
            else:
                os._exit(3)
            while True:
                event = heard.get(5)
                if event is None:
                    os._exit(4)
                if event.workflow_id == "busy":
                    break
            stream.close()
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0, number
stop.set()
thread.join()
stream.append("system_warning", "after", {})
stream.store.flush()
store = stream.store
for number in range(10):
    assert [e.offset for e in store.read(workflow_id=f"child{number}")] == [1, 2, 3], number
busy = store.bounds("busy").last
assert [e.offset for e in store.read(workflow_id="busy", limit=10**6)] == list(range(1, busy + 1))
assert [e.position for e in store.read(limit=10**6)] == list(range(1, store.bounds().last + 1))
stream.close()
print("begun")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_r06_a_forked_child_opens_the_file_anew(owners: List[Owner], path: Path) -> None:
    begin(owners, path, FORK)


def test_a_stopped_process_is_not_taken_for_a_dead_one(owners: List[Owner], path: Path) -> None:
    owner = begin(owners, path, WRITE)
    owner.process.send_signal(signal.SIGSTOP)
    try:
        with SqliteStore(path) as store:
            assert store.runs()[0].status == "running"
            assert not store.has_ended("run")
    finally:
        owner.process.send_signal(signal.SIGCONT)


def test_a_store_that_is_away_for_long_is_followed_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Away(MemoryStore):
        failures = 0
        away = True

        def read(self, **where: Any) -> List[Event]:
            if self.away:
                self.failures += 1
                raise LogError("the server cannot be reached", retryable=True)
            return super().read(**where)

    monkeypatch.setattr(tail, "_WAIT_S", 0.002)
    store, closed = Away(), threading.Event()
    store.append(event("w", 1))
    reader = tail.LogTail(store, closed.is_set).open(None)
    try:
        store.append(event("w", 2))
        wait_until(lambda: store.failures > 2 * tail._RETRIES)
        store.away = False
        found = reader.get(10)
        assert found is not None
        assert found.offset == 2
    finally:
        reader.close()
        closed.set()


def test_a_reader_of_some_runs_sleeps_through_those_of_others():
    with EventStream() as stream:
        logs = tail.LogTail(stream.store, lambda: stream.closed)
        reader, of_all = logs.open(None, frozenset(["mine"])), logs.open(None)
        got: List[Any] = []
        thread = threading.Thread(target=lambda: got.append(reader.get(30.0)))
        thread.start()
        wait_until(lambda: reader._waits)
        for _ in range(3000):  # more than is kept for readers
            stream.append("agent_llm_stream_chunk", "other", {"chunk": "x"})
        wait_until(lambda: reader.cursor == 3000)
        assert (got, reader._waits) == ([], True)
        stream.append("agent_llm_stream_chunk", "mine", {"chunk": "x"})
        thread.join(20)
        (mine,) = got
        while mine.workflow_id != "mine":  # read in one page with it
            mine = reader.get(5.0)
        assert mine.position == 3001
        assert [of_all.get(5.0).position for _ in range(3001)] == list(range(1, 3002))
        for each in (reader, of_all):
            each.close()
