"""MemoryStore: what it keeps, what it has let go, and that it says so."""

from __future__ import annotations

import sys
import time
import tracemalloc
from types import FrameType
from typing import Any, List

import pytest

from agentstream.errors import ConfigError, LogError, OffsetGone
from agentstream.events import memory
from agentstream.events.model import Event, EventType
from agentstream.events.store import Bounds, MemoryStore
from agentstream.events.stream import EventStream

CHUNK = EventType.AGENT_LLM_STREAM_CHUNK
END = EventType.WORKFLOW_COMPLETED


def fill(store: MemoryStore, workflow_id: str, count: int, after: int = 0) -> List[Event]:
    return [
        store.append(
            Event(f"{workflow_id}:{n}", n, None, CHUNK, workflow_id, None, time.time(), {})
        )
        for n in range(after + 1, after + count + 1)
    ]


@pytest.mark.parametrize("capacity", [0, -1, 1.5, "10", None])
def test_a_capacity_that_makes_no_sense_is_refused(capacity: Any) -> None:
    with pytest.raises(ConfigError):
        MemoryStore(capacity)


def test_positions_count_the_whole_log_offsets_a_workflow() -> None:
    store = MemoryStore()
    assert [e.position for e in fill(store, "a", 3)] == [1, 2, 3]
    assert [e.position for e in fill(store, "b", 2)] == [4, 5]
    assert [e.position for e in fill(store, "a", 1, after=3)] == [6]
    assert [e.offset for e in store.read(workflow_id="a")] == [1, 2, 3, 4]
    assert [e.position for e in store.read()] == [1, 2, 3, 4, 5, 6]


def test_read_gives_every_slice_of_what_is_kept() -> None:
    store = MemoryStore(20)
    fill(store, "a", 15)
    fill(store, "b", 15)
    kept = list(range(11, 31))
    for after in range(35):
        for limit in (1, 2, 7, 19, 20, 500):
            read = [e.position for e in store.read(after=after, limit=limit)]
            assert read == [p for p in kept if p > after][:limit], (after, limit)
            offsets = [e.offset for e in store.read(workflow_id="a", after=after, limit=limit)]
            assert offsets == [o for o in range(11, 16) if o > after][:limit], (after, limit)


def test_bounds_tell_what_can_be_read_and_what_is_gone() -> None:
    store = MemoryStore(4)
    assert store.bounds() == Bounds(0, 0)
    assert store.bounds("a") == Bounds(0, 0)
    fill(store, "a", 3)
    assert store.bounds() == Bounds(1, 3)
    fill(store, "b", 3)
    assert store.bounds() == Bounds(3, 6)
    assert store.bounds("a") == Bounds(3, 3)
    fill(store, "b", 1, after=3)
    assert store.bounds("a") == Bounds(4, 3)  # nothing left, and it is known that there was
    fill(store, "a", 1, after=3)
    assert store.bounds("a") == Bounds(4, 4)


def test_a_workflow_has_ended_though_its_events_are_gone() -> None:
    stream = EventStream(MemoryStore(2))
    stream.append(END, "a")
    assert stream.store.has_ended("a")
    for _ in range(5):
        stream.append(CHUNK, "b")
    assert stream.store.has_ended("a")
    assert not stream.store.has_ended("b")
    with pytest.raises(LogError):
        stream.append(CHUNK, "a")


def test_i8_memory_stays_bounded() -> None:
    """Many short workflows, ended or not: no table may keep an entry for each for ever."""
    store = MemoryStore(100)

    def churn(first: int, count: int) -> None:
        for n in range(first, first + count):
            kind = END if n % 2 else CHUNK
            store.append(Event(f"w{n}:1", 1, None, kind, f"w{n}", None, 0.0, {"text": "x" * 100}))

    churn(0, 1000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        churn(1000, 5000)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # What was traced replaces the hundred that were there before: about 100 KB.
    assert grown < 300_000
    assert len(store.read(limit=1000)) == 100


# --- D10, through subscribe ----------------------------------------------------------------


def trimmed() -> EventStream:
    """Of "a" 6 to 10 are left, of "b" all, of "gone" nothing; positions 9 to 18."""
    stream = EventStream(MemoryStore(10))
    for workflow_id, count in (("gone", 3), ("a", 10), ("b", 5)):
        for _ in range(count):
            stream.append(CHUNK, workflow_id)
    return stream


@pytest.mark.parametrize(
    ("workflow_id", "after", "first", "last"),
    [
        ("a", 0, 6, 10),
        ("a", 4, 6, 10),
        ("a", 11, 6, 10),
        ("b", 6, 1, 5),
        ("gone", 0, 4, 3),
        ("gone", 4, 4, 3),
        ("unknown", 1, 0, 0),
        (None, 0, 9, 18),
        (None, 7, 9, 18),
        (None, 19, 9, 18),
    ],
)
def test_d10_history_that_is_not_there_is_refused_with_what_is(
    workflow_id: Any, after: int, first: int, last: int
) -> None:
    with trimmed() as stream, pytest.raises(OffsetGone) as caught:
        stream.subscribe(workflow_id=workflow_id, after=after)
    assert (caught.value.first, caught.value.last) == (first, last)
    assert str(after) in str(caught.value)
    assert caught.value.phase == "log"


@pytest.mark.parametrize(
    ("workflow_id", "after", "expected"),
    [
        ("a", 5, [6, 7, 8, 9, 10]),
        ("a", 10, []),
        ("b", 0, [1, 2, 3, 4, 5]),
        ("gone", 3, []),
        ("unknown", 0, []),
        (None, 8, list(range(9, 19))),
        (None, 18, []),
    ],
)
def test_d10_all_that_is_there_can_be_read(
    workflow_id: Any, after: int, expected: List[int]
) -> None:
    with trimmed() as stream:
        subscription = stream.subscribe(workflow_id=workflow_id, after=after)
        stream.close()
        events = list(subscription)
    assert [e.position if workflow_id is None else e.offset for e in events] == expected


@pytest.mark.parametrize("after", [-1, 1.0, "1", True])
def test_d10_an_offset_that_is_none_is_refused(after: Any) -> None:
    with trimmed() as stream, pytest.raises(ConfigError):
        stream.subscribe(workflow_id="a", after=after)


def test_b13_bounds_between_any_two_lines_of_an_append() -> None:
    """What a signal handler that subscribes asks for, amid its own thread's append."""
    store = MemoryStore(capacity=2)
    found: List[Bounds] = []

    def look(frame: FrameType, what: str, _: object) -> Any:
        if frame.f_code.co_filename != memory.__file__:
            return None
        found.append(store.bounds("one"))
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        fill(store, "one", 2)
        fill(store, "two", 2)  # drops them
        fill(store, "one", 1, after=2)
    finally:
        sys.settrace(before)
    assert len(found) > 40
    assert found == sorted(found)
    assert {bounds.last for bounds in found} == {0, 1, 2, 3}
    assert store.bounds("one") == Bounds(3, 3)
