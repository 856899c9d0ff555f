"""SqliteStore: what it does beyond what every store must (tests/events/test_store.py)."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any, List

import pytest

from agentstream import (
    Agent,
    Cancelled,
    EventStream,
    EventType,
    LogError,
    Runtime,
    SqliteStore,
    Workflow,
    WorkflowFailed,
)
from agentstream.events import sqlite as module
from agentstream.events.sqlite.leases import WriterLease, is_alive
from agentstream.testing import ScriptedClient
from agentstream.testing.stores import event
from tests.kit.support import Task, check_events, wait_until

CHUNK = EventType.AGENT_LLM_STREAM_CHUNK


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def demo(*replies: Any) -> Workflow:
    return Workflow("demo", [Agent("talker", client=ScriptedClient(*replies))])


def pause() -> None:
    threading.Event().wait(0.005)


@pytest.mark.parametrize("durability", ["normal", "full"])
def test_a_run_is_in_the_file_when_the_runtime_is_gone(path: Path, durability: str) -> None:
    stream = EventStream(SqliteStore(path, durability=durability))
    with Runtime(event_stream=stream) as runtime:
        done = runtime.run(demo("these are the words"), "hi")
    with SqliteStore(path) as store:
        events = store.read(workflow_id=done.workflow_id)
        check_events(events)
        (run,) = store.runs()
        assert (run.name, run.status, run.last_offset) == ("demo", "completed", len(events))
        assert run.usage is not None
        assert run.usage["completion_tokens"] == 4
        assert run.started_at == events[0].timestamp
        assert run.ended_at == events[-1].timestamp
        said = [e.data["chunk"] for e in events if e.type is CHUNK]
        assert "".join(said) == "these are the words"
    assert sorted(file.name for file in path.parent.iterdir()) == ["runs.db", "runs.db-mark"]


def test_in_full_an_append_returns_when_another_connection_sees_it(path: Path) -> None:
    stream = EventStream(SqliteStore(path, durability="full"))
    other = sqlite3.connect(str(path), isolation_level=None)
    log = stream.open_log("run")
    for n in range(1, 20):
        log.append(CHUNK, {"n": n})
        assert other.execute("SELECT max(offset) FROM events").fetchone() == (n,)
    other.close()
    stream.close()


def test_in_normal_the_subscriber_has_it_before_the_disk(path: Path) -> None:
    with EventStream(SqliteStore(path)) as stream:
        log = stream.open_log("run")
        heard = stream.subscribe()
        lock = sqlite3.connect(str(path), isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        log.append(CHUNK, {"n": 1})
        first = heard.get(5.0)
        assert first is not None
        assert (first.offset, first.position) == (1, None)
        assert stream.store.bounds("run") == (1, 1)
        assert [e.position for e in stream.store.read(workflow_id="run")] == [None]
        lock.execute("ROLLBACK")
        lock.close()
        stream.store.flush()
        assert [e.position for e in stream.store.read(workflow_id="run")] == [1]


def test_a_subscriber_of_all_gets_only_what_is_new(path: Path) -> None:
    """Events of before that have no position yet are not new."""
    with EventStream(SqliteStore(path)) as stream:
        log = stream.open_log("run")
        for n in range(50):
            log.append(CHUNK, {"n": n})
        fresh = stream.subscribe(max_queue=2)
        replay = stream.subscribe(after=0, max_queue=2)
        for n in range(50, 100):
            log.append(CHUNK, {"n": n})
        found = [fresh.get(5.0) for _ in range(50)]
        assert [e.data["n"] for e in found if e] == list(range(50, 100))
        found = [replay.get(5.0) for _ in range(100)]
        assert [e.data["n"] for e in found if e] == list(range(100))
        assert fresh.missed == replay.missed == 0
        assert fresh.get(0.05) is None


def test_a_subscriber_of_all_does_not_read_from_the_beginning_each_time(path: Path) -> None:
    """It learns positions as they are given: what retention takes meanwhile is not missed."""
    with EventStream(SqliteStore(path)) as stream:
        heard = stream.subscribe(max_queue=100)
        log = stream.open_log("run")
        for n in range(50):
            log.append(CHUNK, {"n": n})
        for _ in range(50):
            assert heard.get(5.0) is not None
        stream.store.flush()

        def at_the_end() -> bool:
            heard.get(0.01)
            return heard._mailbox.cursor == 50

        wait_until(at_the_end)


def test_two_subscribers_in_two_stores_see_one_order_of_positions(path: Path) -> None:
    with SqliteStore(path) as one, SqliteStore(path) as other:
        tasks = [
            Task(lambda s=store, w=name: [s.append(event(w, n)) for n in range(1, 301)])
            for store, name in ((one, "a"), (other, "b"))
        ]
        for task in tasks:
            task.result()
        one.flush()
        other.flush()
        events = one.read(limit=1000)
        assert events == other.read(limit=1000)
        assert [e.position for e in events] == list(range(1, 601))


def test_a_stop_asked_for_through_another_store_is_obeyed_soon(path: Path) -> None:
    with Runtime(event_stream=EventStream(SqliteStore(path))) as runtime:
        words = [piece for n in range(5000) for piece in (pause, f"w{n} ")]
        handle = runtime.submit(demo(words), "hi", workflow_id="run")
        heard = runtime.event_stream.subscribe(workflow_id="run")
        while True:
            first = heard.get(5.0)
            assert first is not None
            if first.type is CHUNK:
                break
        with SqliteStore(path) as other:
            wait_until(lambda: other.runs()[0].status == "running")
            began = time.monotonic()
            assert other.request_stop("run", "from elsewhere")
            with pytest.raises(Cancelled):
                handle.result(10.0)
            assert time.monotonic() - began < 5.0
            wait_until(lambda: other.has_ended("run"))
            assert not other.request_stop("run", "again")
            assert not other.request_stop("unknown", "")
            assert other._reader.all("SELECT * FROM stops") == []
            assert other.read(workflow_id="run", limit=9999)[-1].data["reason"] == "from elsewhere"


def test_a_log_error_fails_the_run_and_says_why(path: Path) -> None:
    stream = EventStream(SqliteStore(path))
    runtime = Runtime(event_stream=stream)
    begun = threading.Event()
    words: List[Any] = [begun.set, *(piece for n in range(5000) for piece in (pause, f"w{n} "))]
    handle = runtime.submit(demo(words), "hi", workflow_id="run")
    assert begun.wait(5.0)
    stream.store.flush()
    aside = path.parent / "aside.db"
    os.rename(path, aside)
    with pytest.raises(WorkflowFailed) as caught:
        handle.result(10.0)
    assert isinstance(caught.value.__cause__, LogError)
    assert "moved, deleted or replaced" in str(caught.value)
    os.rename(aside, path)
    wait_until(lambda: stream.store.has_ended("run"))
    runtime.shutdown()
    with SqliteStore(path) as store:
        events = store.read(workflow_id="run", limit=9999)
        check_events(events)
        assert events[-1].data["error"] == "LogError"


def test_logs_without_an_end_are_closed_as_they_are(path: Path) -> None:
    with EventStream(SqliteStore(path)) as stream:
        stream.append("system_warning", "notes", {})
        Agent("a", client=ScriptedClient("hello")).execute_with_events(
            "hi", stream, workflow_id="agent"
        )
    with SqliteStore(path) as store:
        assert {run.workflow_id: run.status for run in store.runs()} == {
            "notes": "closed",
            "agent": "closed",
        }
        assert store.has_ended("agent")
        last = store.read(workflow_id="agent")[-1]
        assert last.type == "agent_completed"
        with pytest.raises(LogError, match="has a log already"):
            store.claim("notes")


def test_a_subscription_to_a_run_that_has_ended_ends(path: Path) -> None:
    with Runtime(event_stream=EventStream(SqliteStore(path))) as runtime:
        run = runtime.run(demo("word"), "hi")
    with EventStream(SqliteStore(path)) as stream:
        assert list(stream.subscribe(workflow_id=run.workflow_id)) == []
        replay = list(stream.subscribe(workflow_id=run.workflow_id, after=0))
        check_events(replay)
        everything = stream.subscribe(after=2)
        assert (
            [everything.get(5.0).position for _ in replay[2:]]
            == [  # type: ignore[union-attr]
                e.position for e in replay[2:]
            ]
        )


def test_the_followers_thread_ends_with_the_last_subscriber(path: Path) -> None:
    with EventStream(SqliteStore(path)) as stream:

        def following() -> bool:
            return any(t.name == "agentstream-follower" for t in threading.enumerate())

        assert not following()
        heard = stream.subscribe()
        assert following()
        heard.close()
        wait_until(lambda: not following())
        again = stream.subscribe()
        stream.append("system_warning", "w", {})
        assert again.get(5.0) is not None


def test_an_owner_lives_as_long_as_it_holds_its_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    owner = WriterLease(path)
    row = owner.token, owner.pid, owner.started, owner.boot
    assert is_alive(path, *row)
    assert is_alive(path, owner.token, 2**22, "0", "another boot")
    os.rename(owner._path, owner._path + ".aside")
    assert is_alive(path, *row)  # by its process id, then
    assert not is_alive(path, owner.token, owner.pid, "0", owner.boot)
    assert not is_alive(path, owner.token, owner.pid, owner.started, "another boot")
    os.rename(owner._path + ".aside", owner._path)
    owner.release()
    assert list(tmp_path.iterdir()) == []


def test_wal_stays_small_while_all_is_well(path: Path) -> None:
    with EventStream(SqliteStore(path)) as stream:
        log = stream.open_log("run")
        for n in range(20_000):
            log.append(CHUNK, {"n": n, "x": "x" * 200})
        stream.store.flush()
        assert os.stat(f"{path}-wal").st_size < 40_000_000
        assert module.housekeeping._WAL_BYTES > 40_000_000


def test_reading_on_after_the_close_holds_no_file_open(path: Path) -> None:
    store = SqliteStore(path)
    store.append(event("w", 1))
    store.close()
    assert store.read() == store.read()
    with pytest.raises(LogError, match="closed"):
        store.append(event("w", 2))
    with pytest.raises(LogError, match="closed"):
        store.claim("v")


def test_two_stores_of_one_process_close_one_after_the_other(path: Path) -> None:
    one, other = SqliteStore(path), SqliteStore(path)
    one.append(event("a", 1))
    other.append(event("b", 1))
    one.close()
    other.append(event("b", 2))
    other.close()
    with SqliteStore(path) as store:
        assert [e.workflow_id for e in store.read()].count("b") == 2
        assert store.lost is None
