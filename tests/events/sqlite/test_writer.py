"""The writer: commits that fail, wait or are told wrongly; a queue with a bound (D04, D05, D09)."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import List

import pytest

from agentstream import EventStream, LogError, SqliteStore
from tests.kit.log_support import CHUNK, Locked
from tests.kit.support import Task, wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


# --- D04 -------------------------------------------------------------------------------------


def test_d04_a_commit_that_was_told_as_failed_is_not_done_twice(path: Path) -> None:
    store = SqliteStore(path, durability="full")
    stream = EventStream(store)
    log = stream.open_log("run")
    log.append(CHUNK, {"n": 0})
    mark, told = store._mark.raise_to, []

    def fail(position: int) -> None:  # after the COMMIT
        store._mark.raise_to = mark  # type: ignore[method-assign]
        told.append(position)
        raise OSError("the answer was lost")

    store._mark.raise_to = fail  # type: ignore[method-assign]
    with pytest.raises(LogError, match="answer was lost"):
        log.append(CHUNK, {"n": 1})
    assert told == [2]
    wait_until(lambda: store._writer.failure is None)
    log.append(CHUNK, {"n": 2})
    for one in store.read():
        store.append(one)  # by workflow and offset: they are there
    store.flush()
    assert [e.data["n"] for e in store.read()] == [0, 1, 2]
    assert [e.position for e in store.read()] == [1, 2, 3]
    stream.close()


# --- D05, D06 --------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["normal", "full"])
def test_d05_locked_by_another_process(path: Path, durability: str) -> None:
    store = SqliteStore(path, durability=durability, busy_timeout=0.3)
    stream = EventStream(store)
    log = stream.open_log("run")
    with Locked(path):
        began = time.monotonic()
        with pytest.raises(LogError, match="locked by another process") as caught:
            log.append(CHUNK, {"n": 1})
            store.flush()
        assert 0.2 < time.monotonic() - began < 5.0
        assert caught.value.retryable
        with pytest.raises(LogError):
            stream.open_log("another")
        # Readers are not held up.
        assert store.runs()[0].workflow_id == "run"
        assert [e.offset for e in store.read(workflow_id="run")] == [1]
    wait_until(lambda: store._writer.failure is None)
    log.append(CHUNK, {"n": 2})
    store.flush()
    assert [e.position for e in store.read()] == [1, 2]
    stream.close()


def test_d05_a_short_lock_is_waited_for(path: Path) -> None:
    with SqliteStore(path) as store:
        stream = EventStream(store)
        log = stream.open_log("run")
        with Locked(path):
            log.append(CHUNK, {"n": 1})
            task = Task(store.flush)
            threading.Event().wait(0.2)
        task.result()
        assert store.bounds() == (1, 1)
        stream.close()


# --- D09 -------------------------------------------------------------------------------------


def test_d09_a_slow_disk_delays_no_token(path: Path) -> None:
    with EventStream(SqliteStore(path)) as stream:
        log = stream.open_log("run")
        times: List[float] = []
        with Locked(path):  # as a commit that takes a second
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                began = time.perf_counter()
                log.append(CHUNK, {"n": len(times)})
                times.append(time.perf_counter() - began)
                threading.Event().wait(0.002)
        times.sort()
        assert len(times) > 50
        assert times[len(times) * 9 // 10] < 0.02
        assert times[-1] < 0.5  # nor any of them for that second
        stream.store.flush()
        assert stream.store.bounds("run") == (1, len(times))


def test_d09_the_queue_is_bounded(path: Path) -> None:
    store = SqliteStore(path, max_queue=50, busy_timeout=0.5)
    with EventStream(store) as stream:
        log = stream.open_log("run")
        with Locked(path):
            began = time.monotonic()
            with pytest.raises(LogError) as caught:
                for n in range(100):
                    log.append(CHUNK, {"n": n})
            assert 0.2 < time.monotonic() - began < 5.0
            assert caught.value.retryable
            assert log.offset <= 51
        wait_until(lambda: store._writer.failure is None)
        log.append(CHUNK, {"n": log.offset})
        assert [e.data["n"] for e in store.read()] == list(range(log.offset))
