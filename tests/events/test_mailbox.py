"""A subscriber that fell behind, or began in the past: back to the live events without a
gap or a double, and told what the store no longer has.  docs/design.rst, section 4.
"""

from __future__ import annotations

import logging
import queue
import random
import sys
import time
from typing import Any, Callable, Iterator, List, Optional, Tuple

import pytest

from agentstream.errors import LogError
from agentstream.events.model import Event, EventType
from agentstream.events.store import MemoryStore
from agentstream.events.stream import EventStream
from tests.kit.support import Gate, Seen, Task, publish, wait_until

CHUNK = EventType.AGENT_LLM_STREAM_CHUNK
END = EventType.WORKFLOW_COMPLETED
MISSED = EventType.EVENTS_MISSED


@pytest.fixture
def stream() -> Iterator[EventStream]:
    with EventStream() as stream:
        yield stream


def shown(events: List[Event]) -> List[Any]:
    """Offsets, and for events_missed what it names."""
    return [(e.data["first"], e.data["last"]) if e.type is MISSED else e.offset for e in events]


class Hooked(MemoryStore):
    """Calls `hook` before and after each read, in the reader's thread."""

    hook: Optional[Callable[[], object]] = None

    def read(self, **arguments: Any) -> List[Event]:
        self._run_hook()
        events = super().read(**arguments)
        self._run_hook()
        return events

    def _run_hook(self) -> None:
        hook, self.hook = self.hook, None  # what the hook publishes reads nothing
        if hook is not None:
            hook()
            self.hook = hook


# --- U02: overflow -------------------------------------------------------------------------


@pytest.mark.parametrize("workflow_id", [None, "w"])
def test_u02_a_slow_callback_catches_up_from_the_store(
    stream: EventStream, workflow_id: Optional[str]
) -> None:
    with Gate() as gate:
        subscription = stream.subscribe(gate, workflow_id=workflow_id, max_queue=3)
        publish(stream, "w", 1200)  # more than two pages
    gate.wait(1200)
    publish(stream, "v", 1)
    stream.append(CHUNK, "w", {"n": "live again"})
    stream.close()
    events = [event for event in gate.events if event.workflow_id == "w"]
    assert shown(events) == list(range(1, 1202))
    assert subscription.missed == 0


@pytest.mark.parametrize(("workflow_id", "unit"), [(None, "position"), ("w", "offset")])
def test_u02_what_the_store_has_let_go_is_told_and_then_it_goes_on(
    workflow_id: Optional[str], unit: str
) -> None:
    with EventStream(MemoryStore(10)) as stream:
        with Gate() as gate:
            subscription = stream.subscribe(gate, workflow_id=workflow_id, max_queue=4)
            publish(stream, "w", 1)
            gate.entered()
            for _ in range(99):
                stream.append(CHUNK, "w")
        gate.wait(16)
        stream.append(CHUNK, "w")
    assert shown(gate.events) == [1, 2, 3, 4, 5, (6, 90), *range(91, 102)]
    missed = gate.events[5]
    assert (missed.id, missed.offset, missed.position) == (None, 0, None)
    assert missed.workflow_id == (workflow_id or "")
    assert missed.data == {"first": 6, "last": 90, "unit": unit}
    assert subscription.missed == 85


@pytest.mark.parametrize("types", [None, [CHUNK]])
@pytest.mark.parametrize(("chunks", "expected"), [(9, [1, 2, (3, 10)]), (2, [1, 2, (3, 3)])])
def test_u02_when_the_end_is_gone_too_the_iterator_still_ends(
    chunks: int, expected: List[Any], types: Any
) -> None:
    """With two chunks it is the end itself for which the queue had no room."""
    with EventStream(MemoryStore(12)) as stream:
        events = stream.subscribe(workflow_id="w", max_queue=2, types=types)
        publish(stream, "w", chunks, end=True)
        publish(stream, "v", 20)
        assert shown(Task(lambda: list(events)).result(5)) == expected


def test_u02_history_that_goes_after_it_was_asked_for_is_told_and_the_iterator_ends() -> None:
    with EventStream(MemoryStore(12)) as stream:
        publish(stream, "w", 9, end=True)
        events = stream.subscribe(workflow_id="w", after=4)
        publish(stream, "v", 20)
        assert shown(Task(lambda: list(events)).result(5)) == [(5, 10)]


def test_u02_what_nobody_asked_for_is_not_told_as_missed() -> None:
    with EventStream(MemoryStore(5)) as stream:
        events = stream.subscribe(types=[END], max_queue=1)
        stream.append(END, "a")
        stream.append(END, "b")  # for this one it must go to the store
        read = [next(events), next(events)]
        publish(stream, "w", 50)
        stream.append(END, "c")
        read.append(next(events))
    assert [event.workflow_id for event in read] == ["a", "b", "c"]
    assert events.missed == 0


def test_u02_a_queue_that_overflows_again_while_it_is_read_back_loses_nothing() -> None:
    store = Hooked()
    with EventStream(store) as stream:
        events = stream.subscribe(max_queue=2)
        publish(stream, "w", 10)
        rounds = iter(range(7))

        def more() -> None:
            if next(rounds, None) is not None:
                for _ in range(5):
                    stream.append(CHUNK, "w")

        store.hook = more
        read = [Task(lambda: events.get(timeout=5)).result() for _ in range(45)]
        store.hook = None
        assert shown(read) == list(range(1, 46))
        assert events.get(timeout=0) is None
        assert events.missed == 0


def test_u02_many_slow_readers_beside_many_publishers() -> None:
    with EventStream() as stream:
        seen = [Seen() for _ in range(4)]
        for n, callback in enumerate(seen):
            stream.subscribe(callback, max_queue=1 + n)
        names = ("a", "b", "c")
        for task in [
            Task(lambda name=name: publish(stream, name, 300))  # type: ignore[misc]
            for name in names
        ]:
            task.result()
        for callback in seen:
            assert [e.position for e in callback.wait(900, 20)] == list(range(1, 901))


# --- the seam between the store and what is live -------------------------------------------


@pytest.mark.parametrize("workflow_id", [None, "w"])
@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
def test_h05_events_that_come_while_the_past_is_read_are_had_once(
    workflow_id: Optional[str], rounds: int
) -> None:
    store = Hooked()
    with EventStream(store) as stream:
        publish(stream, "w", 20)
        events = stream.subscribe(workflow_id=workflow_id, after=5)
        left = iter(range(rounds))
        store.hook = lambda: next(left, None) is not None and stream.append(CHUNK, "w")
        read = [Task(lambda: events.get(timeout=5)).result() for _ in range(15 + rounds)]
        store.hook = None
        stream.append(CHUNK, "w")
        read.append(events.get(timeout=5))
        assert shown(read) == list(range(6, 22 + rounds))
        assert events.get(timeout=0) is None


def test_h05_two_thousand_subscribers_come_in_while_events_are_published() -> None:
    turns: queue.SimpleQueue[bool] = queue.SimpleQueue()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    dice = random.Random(5)
    with EventStream(MemoryStore(200)) as stream:
        log = stream.open_log("w")

        def publish_by_turns() -> None:
            while turns.get():
                for _ in range(20):
                    log.append(CHUNK, {})

        publisher = Task(publish_by_turns)
        try:
            for race in range(2000):
                after = max(0, log.offset - dice.randrange(5))
                turns.put(True)
                with stream.subscribe(
                    workflow_id=dice.choice([None, "w"]),
                    after=after,
                    max_queue=dice.choice([2, 1000]),
                ) as events:
                    read = shown([next(events) for _ in range(16)])
                assert read == list(range(after + 1, after + 17)), race
        finally:
            turns.put(False)
            sys.setswitchinterval(interval)
            publisher.result()


def test_a_subscriber_at_the_tip_reads_nothing_back() -> None:
    store = Hooked()
    with EventStream(store) as stream:
        publish(stream, "w", 5)
        reads: List[int] = []
        store.hook = lambda: reads.append(1)
        events = stream.subscribe(workflow_id="w", after=5)
        stream.append(CHUNK, "w")
        assert next(events).offset == 6
        assert reads == []


# --- closing while behind, and clocks ------------------------------------------------------


class Clock:
    """`time`, an hour earlier with every look at it."""

    monotonic = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.now = time.time()

    def time(self) -> float:
        self.now -= 3600.0
        return self.now


@pytest.mark.parametrize("clock", ["right", "set back"])
@pytest.mark.parametrize("workflow_id", [None, "w"])
def test_r11_close_delivers_what_was_still_in_the_store_and_nothing_after(
    stream: EventStream, monkeypatch: pytest.MonkeyPatch, clock: str, workflow_id: Optional[str]
) -> None:
    if clock == "set back":
        fake = Clock()
        monkeypatch.setattr("agentstream.events.publishing.time", fake)
        monkeypatch.setattr("agentstream.events.mailbox.time", fake)
    with Gate() as gate:
        subscription = stream.subscribe(gate, workflow_id=workflow_id, max_queue=2)
        publish(stream, "w", 50)
        closing = Task(subscription.close)
        wait_until(lambda: not stream._subscribers.all())
        for _ in range(20):
            stream.append(CHUNK, "w")
    assert closing.result() is True
    assert shown(gate.events) == list(range(1, 51))
    times = [event.timestamp for event in gate.events]
    assert times == sorted(times, reverse=clock == "set back")


def test_r11_offsets_and_catching_up_do_not_look_at_the_clock(
    stream: EventStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstream.events.publishing.time", Clock())
    events = stream.subscribe(workflow_id="w", max_queue=3)
    publish(stream, "w", 30, end=True)
    assert shown(Task(lambda: list(events)).result()) == list(range(1, 32))


def test_close_of_the_stream_delivers_what_is_still_in_the_store(stream: EventStream) -> None:
    with Gate() as gate:
        stream.subscribe(gate, max_queue=2)
        iterated = stream.subscribe(max_queue=2)
        publish(stream, "w", 50)
        closing = Task(stream.close)
    closing.result()
    assert shown(gate.events) == shown(list(iterated)) == list(range(1, 51))


# --- stores of other kinds -----------------------------------------------------------------


class Broken(MemoryStore):
    error: Optional[Exception] = None

    def read(self, **arguments: Any) -> List[Event]:
        if self.error is not None:
            raise self.error
        return super().read(**arguments)


@pytest.mark.parametrize("error", [LogError("disk"), OSError("disk")])
def test_i9_a_store_that_cannot_be_read_costs_one_subscriber_what_it_tells(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    store = Broken()
    with EventStream(store) as stream, caplog.at_level(logging.ERROR, "agentstream"):
        with Gate() as gate:
            stream.subscribe(gate, max_queue=2)
            publish(stream, "w", 1)
            gate.entered()
            for _ in range(9):
                stream.append(CHUNK, "w")
            store.error = error
        gate.wait(4)
        stream.append(CHUNK, "w")
    assert shown(gate.events) == [1, 2, 3, (4, 10), 11]
    assert "could not read back" in caplog.text


class Later(MemoryStore):
    """Gives the position at a commit to come: what is appended has none yet."""

    def append(self, fields: Tuple[Any, ...]) -> Event:
        super().append(fields)
        return Event(*fields)


def positions_apart(events: List[Event]) -> List[Tuple[str, int]]:
    return [(event.workflow_id, event.offset) for event in events]


@pytest.mark.parametrize("after", [None, 0])
def test_events_without_a_position_are_had_once_too(
    after: Optional[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstream.events.mailbox._MOST_SEEN", 5)
    with EventStream(Later()) as stream:
        with Gate() as gate:
            stream.subscribe(gate, after=after, max_queue=3)
            publish(stream, "w", 20)
        gate.wait(20)
        for n in range(30):  # more workflows than are remembered
            publish(stream, f"w{n}", 2)
        gate.wait(80)
        with Gate() as again:
            stream.subscribe(again, max_queue=3)
            publish(stream, "v", 20)
            closing = Task(stream.close)
        closing.result()
    expected = [("w", n) for n in range(1, 21)]
    expected += [(f"w{n}", o) for n in range(30) for o in (1, 2)]
    expected += [("v", n) for n in range(1, 21)]
    assert positions_apart(gate.events) == expected
    assert positions_apart(again.events) == expected[-20:]
