"""docs/faults.rst, B01: `SqliteStore.bounds` counts what append took, committed or not."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from agentstream import EventStream, EventType, LogError, SqliteStore
from agentstream.events.model import Event
from agentstream.testing.stores import event
from tests.kit.log_support import Locked
from tests.kit.support import Task, wait_until

CHUNK = EventType.AGENT_LLM_STREAM_CHUNK


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.mark.parametrize("durability", ["normal", "full"])
@pytest.mark.parametrize("count", [1, 7, 3000])
def test_b01_bounds_counts_what_append_took(path: Path, durability: str, count: int) -> None:
    with SqliteStore(path, durability=durability) as store:
        for n in range(1, count + 1):
            store.append(event("run", n))
        assert store.bounds() == (1, count)
        store.append(event("other", 1))
        assert store.bounds() == (1, count + 1)


def test_b01_bounds_counts_what_the_disk_does_not_take(path: Path) -> None:
    with SqliteStore(path, busy_timeout=0.5) as store:
        store.claim("run")
        assert store.bounds() == (0, 0)
        with Locked(path):
            for n in range(1, 11):
                store.append(event("run", n))
                assert store.bounds("run") == (1, n)
            assert store.bounds() == (1, 10)
        store._writer.urge(5.0)
    with SqliteStore(path) as store:
        assert store.bounds() == (1, 10)


@pytest.mark.parametrize("durability", ["normal", "full"])
def test_i5_d05_a_close_that_comes_amid_a_commit_that_fails_tries_again(
    path: Path, durability: str
) -> None:
    store = SqliteStore(path, busy_timeout=0.5, durability=durability)
    store.claim("run")
    with Locked(path):
        for n in range(1, 11):
            store.append(event("run", n))
        wait_until(lambda: _is_committing(store))
        closing = Task(store.close)
        wait_until(lambda: store._writer._closing)
        wait_until(lambda: store._writer.failure is not None)
    closing.result()
    with SqliteStore(path) as kept:
        assert kept.bounds("run") == (1, 10)


def _is_committing(store: SqliteStore) -> bool:
    lock = store._writer.committing
    if not lock.acquire(blocking=False):
        return True
    lock.release()
    return False


def test_b01_bounds_never_counts_an_event_twice(path: Path) -> None:
    """Asked for while commits come and go, it is what had been appended, or a little more."""
    with SqliteStore(path) as store:
        store.claim("run")
        appended = 0
        done = threading.Event()
        wrong: List[Any] = []

        def ask() -> None:
            while not done.is_set():
                before = appended
                last = store.bounds().last
                after = appended + 1
                if not before <= last <= after:
                    wrong.append((before, last, after))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for n in range(1, 8001):
            store.append(event("run", n))
            appended = n
        done.set()
        for thread in threads:
            thread.join(10)
        assert not wrong
        assert store.bounds() == (1, 8000)


@pytest.mark.parametrize("events", [1_500, 6_000])
def test_b01_a_subscriber_that_lags_has_all_at_the_close(path: Path, events: int) -> None:
    seen: List[Event] = []
    began, go_on = threading.Event(), threading.Event()

    def slow(one: Event) -> None:
        began.set()
        go_on.wait(10)
        seen.append(one)

    stream = EventStream(SqliteStore(path))
    subscription = stream.subscribe(slow)
    logs = [stream.open_log(f"run{n}") for n in range(4)]
    for n in range(events):
        logs[n % 4].append(CHUNK, {"n": n})
    for log in logs:
        log.append(EventType.WORKFLOW_COMPLETED, {})
    assert began.wait(10)
    closing = threading.Thread(target=stream.close, args=(20.0,))
    closing.start()
    go_on.set()
    closing.join(30)
    assert not closing.is_alive()
    assert len(seen) == events + 4
    assert subscription.missed == 0
    for number in range(4):
        offsets = [e.offset for e in seen if e.workflow_id == f"run{number}"]
        assert offsets == list(range(1, len(offsets) + 1))


@pytest.fixture
def two(path: Path) -> Iterator[List[SqliteStore]]:
    stores = [SqliteStore(path), SqliteStore(path)]
    yield stores
    for store in stores:
        store.close()


def test_b01_two_processes_bounds_are_one(two: List[SqliteStore]) -> None:
    for n in range(1, 101):
        two[n % 2].append(event(f"run{n % 2}", (n + 1) // 2))
    assert {store.bounds().last for store in two} <= set(range(50, 101))
    for store in two:
        store.flush()
    assert [store.bounds() for store in two] == [(1, 100), (1, 100)]


def test_b01_after_the_close_bounds_is_what_is_kept(path: Path) -> None:
    store = SqliteStore(path)
    for n in range(1, 101):
        store.append(event("run", n))
    store.close()
    assert store.bounds() == (1, 100)
    with pytest.raises(LogError, match="closed"):
        store.append(event("run", 101))
    assert store.bounds() == (1, 100)
