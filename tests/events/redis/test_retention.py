"""What a log lets go of, and that nobody finds a gap without having been told."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, List

import pytest

from agentstream import EventStream, EventType, OffsetGone, RedisStore
from agentstream.testing.stores import event
from tests.kit.redis_server import RedisServer
from tests.kit.support import wait_until


def fill(store: RedisStore, workflow_id: str, first: int, last: int, **data: Any) -> None:
    for n in range(first, last + 1):
        store.append(event(workflow_id, n, data=data or None))
        if n % 20 == 0:
            store.flush()  # what is committed together goes together
    store.flush()


def test_the_oldest_go_first_and_the_bounds_say_so(open_store: Callable[..., RedisStore]) -> None:
    store = open_store(max_events=100)
    store.claim("old")
    store.note_input("old", "given")
    fill(store, "old", 1, 200)
    store.append(event("old", 201, EventType.WORKFLOW_COMPLETED, {"output": "x"}))
    store.claim("new")
    fill(store, "new", 1, 400)
    wait_until(lambda: store.bounds().first > 300)
    first, last = store.bounds()
    assert last == 601
    assert 100 <= last - first + 1 <= 300
    assert store.bounds("old") == (202, 201)
    assert store.bounds("new").last == 400
    assert store.read(workflow_id="old") == []
    state = store.run("old")
    assert state is not None
    assert (state.status, state.last_offset, state.input) == ("completed", 201, None)
    assert [one.position for one in store.read(limit=1000)] == list(range(first, last + 1))


def test_events_go_by_their_age_and_their_size(
    redis: RedisServer, open_store: Callable[..., RedisStore]
) -> None:
    store = open_store(max_age=0.2, lease=0.3)
    store.claim("w")
    fill(store, "w", 1, 50)
    wait_until(lambda: store.bounds() == (51, 50))  # with the beats: nothing is written
    sized = RedisStore(redis.url, "sized", max_bytes=50_000, lease=0.3)
    try:
        sized.claim("w")
        fill(sized, "w", 1, 200, chunk="x" * 1000)
        wait_until(lambda: sized.bounds().first > 140)
        assert sized.bounds().first < 190
    finally:
        sized.close()


def test_k26_whoever_is_overtaken_by_retention_is_told(
    open_store: Callable[..., RedisStore],
) -> None:
    store = open_store(max_events=50)
    other = open_store()
    stream = EventStream(other)
    found: List[Any] = []
    gate = threading.Event()

    def slow(one: Any) -> None:
        found.append(one)
        gate.wait(60)

    try:
        store.claim("w")
        subscription = stream.subscribe(slow, max_queue=1)
        fill(store, "w", 1, 20)
        wait_until(lambda: found)
        fill(store, "w", 21, 1000)
        wait_until(lambda: store.bounds().first > 700)
        with pytest.raises(OffsetGone):
            stream.subscribe(after=0)
        gate.set()
        fill(store, "w", 1001, 1010)
        wait_until(lambda: found[-1].offset == 1010)
        subscription.close()
    finally:
        gate.set()
        stream.close()
    seen = 0
    for one in found:
        if one.type is EventType.EVENTS_MISSED:
            seen = one.data["last"]
        else:
            assert one.position == seen + 1
            seen = one.position


def test_readers_race_with_retention_and_never_skip_in_silence(
    open_store: Callable[..., RedisStore],
) -> None:
    store, other = open_store(max_events=30, linger=0.001), open_store()
    store.claim("w")
    ended = threading.Event()

    def write() -> None:
        n = 0
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            n += 1
            store.append(event("w", n))
            if n % 3 == 0:
                store.flush()
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    after, gone = 0, 0
    try:
        while not ended.is_set():
            try:
                events, reach = other.read_others(after, 7)
            except OffsetGone as error:
                assert error.first > after + 1
                after = error.first - 1
                gone += 1
                continue
            for one in events:
                assert one.position == after + 1
                after = one.position
            after = max(after, reach)
    finally:
        thread.join(10)
    assert after > 50
