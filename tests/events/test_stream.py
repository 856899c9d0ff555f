"""The observer bus: order, each event once, isolation, closing.  docs/design.rst, section 4.

How a subscriber that fell behind gets back is in test_event_catch_up.py; fork and
exit are in test_event_process.py.  Every rule here has a fault in plant.py.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
import weakref
from typing import Any, Dict, Iterator, List, Optional

import pytest

from agentstream.cancel import CancelToken
from agentstream.errors import Closed, ConfigError, LogError
from agentstream.events.model import Event, EventType
from agentstream.events.store import MemoryStore
from agentstream.events.stream import EventStream, Subscription
from tests.kit.support import Gate, Seen, Task, check_events, publish, wait_until

CHUNK = EventType.AGENT_LLM_STREAM_CHUNK
WARNING = EventType.SYSTEM_WARNING
END = EventType.WORKFLOW_COMPLETED


@pytest.fixture
def stream() -> Iterator[EventStream]:
    with EventStream() as stream:
        yield stream


@pytest.fixture
def contended() -> Iterator[None]:
    """Threads change places as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def offsets(events: List[Event]) -> List[int]:
    return [event.offset for event in events]


# --- order, and each event once ------------------------------------------------------------


@pytest.mark.usefixtures("contended")
def test_i4_many_publishers_of_one_log_and_one_order_for_all_readers(stream: EventStream) -> None:
    log = stream.open_log("w")
    of_all, of_one, filtered = Seen(), Seen(), Seen()
    stream.subscribe(of_all)
    stream.subscribe(of_one, workflow_id="w")
    stream.subscribe(filtered, types=[CHUNK, END])
    iterated = stream.subscribe(workflow_id="w")
    reader = Task(lambda: list(iterated))

    def work(name: int) -> None:
        for n in range(150):
            log.append(CHUNK if n % 2 else WARNING, {"name": str(name), "n": str(n)})

    for task in [Task(lambda name=name: work(name)) for name in range(4)]:  # type: ignore[misc]
        task.result()
    log.append(END, {})
    kept = stream.store.read(workflow_id="w", limit=1000)
    check_events(kept)
    assert len(kept) == 601
    assert of_all.wait(601) == kept
    assert of_one.wait(601) == kept
    assert reader.result() == kept
    assert filtered.wait(301) == [event for event in kept if event.type is not WARNING]
    for name in range(4):  # a publisher's own events keep their order
        mine = [int(e.data["n"]) for e in kept if e.data.get("name") == str(name)]
        assert mine == list(range(150))


@pytest.mark.usefixtures("contended")
def test_i4_many_publishers_of_many_workflows_are_never_mixed_up(stream: EventStream) -> None:
    names = [f"w{n}" for n in range(6)]
    of_all, ends = Seen(), Seen()
    stream.subscribe(of_all, max_queue=16)
    stream.subscribe(ends, types="workflow_completed")
    readers = {}
    for name in names:
        events = stream.subscribe(workflow_id=name, max_queue=8)
        readers[name] = Task(lambda events=events: list(events))  # type: ignore[misc]
    publishers = [
        Task(lambda name=name: publish(stream, name, 100, end=True))  # type: ignore[misc]
        for name in names
    ]
    for task in publishers:
        task.result()
    everything = of_all.wait(606)
    assert [event.position for event in everything] == list(range(1, 607))
    assert {event.workflow_id for event in ends.wait(6)} == set(names)
    for name in names:
        mine = [event for event in everything if event.workflow_id == name]
        check_events(mine)
        assert [event.data["n"] for event in mine[:-1]] == [str(n) for n in range(1, 101)]
        assert readers[name].result() == mine


def test_only_what_is_asked_for(stream: EventStream) -> None:
    chunks, of_w, nothing = Seen(), Seen(), Seen()
    stream.subscribe(chunks, types=["agent_llm_stream_chunk"])
    stream.subscribe(of_w, workflow_id="w", types={WARNING})
    stream.subscribe(nothing, types=[])
    for name in ("v", "w"):
        stream.append(CHUNK, name)
        stream.append(WARNING, name)
        stream.append(END, name)
    stream.close()
    assert [(e.workflow_id, e.type) for e in chunks.events] == [("v", CHUNK), ("w", CHUNK)]
    assert [(e.workflow_id, e.type) for e in of_w.events] == [("w", WARNING)]
    assert nothing.events == []


def test_an_event_says_what_happened_where_and_when(stream: EventStream) -> None:
    began = time.time()
    event = stream.append("system_warning", "w", {"a": "b"}, parent_workflow_id="p")
    assert event[1:6] == (1, 1, WARNING, "w", "p")
    assert began <= event.timestamp <= time.time()
    assert event.data == {"a": "b"}
    other = stream.append(WARNING, "w")
    assert other.offset == 2
    assert other.id != event.id
    assert other.parent_workflow_id == "p"


# --- U01: a callback that raises -----------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(3), KeyboardInterrupt()])
def test_u01_a_callback_that_raises_is_logged_and_counted_and_goes_on(
    stream: EventStream, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    seen, other = Seen(), Seen()

    def raising(event: Event) -> None:
        seen(event)
        raise error

    with caplog.at_level(logging.ERROR, "agentstream"):
        bad = stream.subscribe(raising)
        stream.subscribe(other)
        publish(stream, "w", 5)
        stream.close()
    assert offsets(seen.events) == offsets(other.events) == [1, 2, 3, 4, 5]
    assert bad.errors == 5
    first, count = (r for r in caplog.records if r.name.startswith("agentstream.events"))
    assert first.exc_info is not None
    assert first.exc_info[1] is error
    assert str(seen.events[0].id) in first.getMessage()
    assert count.exc_info is None
    assert f"has raised {type(error).__name__} at {__file__}:" in count.getMessage()
    assert count.getMessage().endswith(" 5 times")
    assert stream.store.bounds().last == 5  # no event about it, so no loop


# --- U02, I9: a callback that blocks -------------------------------------------------------


def test_u02_a_stuck_callback_delays_neither_publisher_nor_others(stream: EventStream) -> None:
    seen = Seen()
    with Gate() as gate:
        stuck = stream.subscribe(gate, max_queue=4)
        stream.subscribe(seen)
        Task(lambda: publish(stream, "w", 200)).result(5)
        assert offsets(seen.wait(200)) == list(range(1, 201))
        assert len(gate.events) <= 1
        assert stuck._mailbox._queue.qsize() <= 5  # the four and the word to catch up
    stream.close()
    assert offsets(gate.events) == list(range(1, 201))
    assert stuck.missed == 0


def test_u02_close_does_not_wait_for_ever_for_a_stuck_callback(
    stream: EventStream, caplog: pytest.LogCaptureFixture
) -> None:
    with Gate() as gate, caplog.at_level(logging.WARNING, "agentstream"):
        stuck = stream.subscribe(gate)
        stream.subscribe(gate)
        publish(stream, "w", 3)
        gate.entered()
        assert Task(lambda: stuck.close(timeout=0.05)).result(3) is False
        assert "left behind" in caplog.text
        Task(lambda: stream.close(timeout=0.05)).result(3)
    wait_until(lambda: len(gate.events) == 6)  # what was queued it still has
    assert stuck.close() is True


# --- U03: calls from inside a callback -----------------------------------------------------


def test_u03_a_callback_may_publish_subscribe_close_and_cancel(stream: EventStream) -> None:
    token, later, done = CancelToken(), Seen(), threading.Event()
    other = stream.subscribe(lambda event: None)
    mine: List[Subscription] = []

    def callback(event: Event) -> None:
        if event.workflow_id == "v":  # its own
            done.set()
            return
        mine.append(stream.subscribe(later))
        stream.append(WARNING, "v", {"from": "callback"})
        assert other.close()
        token.cancel()

    subscription = stream.subscribe(callback)
    stream.append(CHUNK, "w")
    assert done.wait(5)
    assert subscription.errors == 0
    assert token.cancelled
    assert [event.workflow_id for event in later.wait(1)] == ["v"]


@pytest.mark.parametrize("workflow_id", ["w", None])
def test_u03_no_lock_is_held_while_a_callback_runs(
    stream: EventStream, workflow_id: Optional[str]
) -> None:
    """The callback waits for another thread that uses the stream."""
    failed: List[BaseException] = []
    done = threading.Event()

    def elsewhere() -> None:
        stream.append(WARNING, "v")
        stream.subscribe(lambda event: None).close()
        assert stream.store.bounds().last

    def callback(event: Event) -> None:
        try:
            Task(elsewhere).result(3)
        except BaseException as error:
            failed.append(error)
        done.set()

    subscription = stream.subscribe(callback, workflow_id=workflow_id, types=[CHUNK])
    stream.append(CHUNK, "w")
    assert done.wait(5)
    assert failed == []
    assert subscription.errors == 0


def test_u03_no_lock_is_held_while_a_value_is_written_down(stream: EventStream) -> None:
    class Slow:
        def __repr__(self) -> str:
            return str(Task(lambda: stream.append(WARNING, "v").offset).result(2))

    assert stream.append(WARNING, "w", {"value": Slow()}).data["value"] == "1"


# --- closing -------------------------------------------------------------------------------


def test_close_delivers_what_was_queued_and_nothing_after(stream: EventStream) -> None:
    with Gate() as gate:
        subscription = stream.subscribe(gate)
        publish(stream, "w", 50)
        gate.entered()
        closing = Task(subscription.close)
        wait_until(lambda: not stream._subscribers.all())
        publish(stream, "v", 5)
    assert closing.result() is True
    assert offsets(gate.events) == list(range(1, 51))
    assert {event.workflow_id for event in gate.events} == {"w"}
    assert subscription.close() is True


def test_close_from_inside_the_callback_returns_at_once_and_delivers_what_was_queued(
    stream: EventStream,
) -> None:
    results: List[Any] = []
    with Gate() as gate:

        def callback(event: Event) -> None:
            gate(event)
            if event.offset == 1:
                results.append(subscription.close())
                publish(stream, "late", 1)

        subscription = stream.subscribe(callback)
        publish(stream, "w", 5)
    wait_until(lambda: len(gate.events) >= 5)
    assert subscription.close() is True  # its thread has ended
    assert results == [True]
    assert subscription.errors == 0
    assert [(e.workflow_id, e.offset) for e in gate.events] == [("w", n) for n in range(1, 6)]


def test_the_stream_may_be_closed_from_inside_a_callback(stream: EventStream) -> None:
    seen, other = Seen(), Seen()

    def callback(event: Event) -> None:
        stream.close()
        seen(event)

    subscription = stream.subscribe(callback)
    stream.subscribe(other)
    stream.append(CHUNK, "w")
    seen.wait(1, 4.0)  # sooner than a wait for itself would give up
    other.wait(1)
    assert subscription.errors == 0
    with pytest.raises(LogError):
        stream.append(CHUNK, "w")


def test_close_of_the_stream_is_idempotent_and_takes_nothing_more(stream: EventStream) -> None:
    seen = Seen()
    stream.subscribe(seen)
    waiting = stream.subscribe()
    reader = Task(lambda: list(waiting))
    publish(stream, "w", 100)
    for _ in range(3):
        stream.close()
    assert offsets(seen.events) == list(range(1, 101))
    assert offsets(reader.result()) == list(range(1, 101))
    with pytest.raises(LogError, match="closed"):
        stream.append(CHUNK, "w")
    with pytest.raises(LogError, match="closed"):
        stream.subscribe(seen)


def test_a_closed_iterator_gives_what_was_queued_and_ends(stream: EventStream) -> None:
    with stream.subscribe() as subscription:
        publish(stream, "w", 3)
    publish(stream, "v", 3)
    assert [event.workflow_id for event in subscription] == ["w"] * 3
    assert list(subscription) == []


# --- the end of a workflow -----------------------------------------------------------------


def test_i1_nothing_is_taken_after_the_terminal_event(stream: EventStream) -> None:
    seen = Seen()
    stream.subscribe(seen)
    log = stream.open_log("w")
    log.append(CHUNK, {})
    log.append(END, {})
    assert log.append(CHUNK, {"late": "yes"}) is None
    assert log.append(EventType.WORKFLOW_CANCELLED, {}) is None
    publish(stream, "v", 1, end=True)
    with pytest.raises(LogError):
        stream.append(CHUNK, "v")
    stream.close()
    check_events([event for event in seen.events if event.workflow_id == "w"])
    check_events([event for event in seen.events if event.workflow_id == "v"])


def test_a_log_has_one_owner(stream: EventStream) -> None:
    publish(stream, "w", 1)
    with pytest.raises(LogError, match="choose another id"):
        stream.open_log("w")


@pytest.mark.parametrize("types", [None, [CHUNK], [END]])
def test_iterators_end_after_the_terminal_event(stream: EventStream, types: Any) -> None:
    subscription = stream.subscribe(workflow_id="w", types=types)
    reader = Task(lambda: list(subscription))
    kinds = {CHUNK, END} if types is None else set(types)
    publish(stream, "w", 2, end=True)
    assert [e.type for e in reader.result(5)] == [t for t in (CHUNK, CHUNK, END) if t in kinds]
    assert not stream._subscribers.all()


@pytest.mark.parametrize(("after", "expected"), [(None, []), (0, [1, 2, 3]), (2, [3]), (3, [])])
def test_of_a_workflow_that_has_ended_there_is_its_history_and_then_the_end(
    stream: EventStream, after: Any, expected: List[int]
) -> None:
    publish(stream, "w", 2, end=True)
    subscription = stream.subscribe(workflow_id="w", after=after)
    assert offsets(Task(lambda: list(subscription)).result(5)) == expected
    seen = Seen()
    called = stream.subscribe(seen, workflow_id="w", after=after)
    assert called._mailbox.join(5)
    assert offsets(seen.events) == expected


# --- iterators -----------------------------------------------------------------------------


def test_get_waits_no_longer_than_told(stream: EventStream) -> None:
    subscription = stream.subscribe(workflow_id="w")
    assert Task(lambda: subscription.get(timeout=0.01)).result(5) is None
    stream.append(END, "w")
    event = subscription.get(timeout=5)
    assert event is not None
    assert event.type is END
    with pytest.raises(Closed):
        subscription.get(timeout=5)
    assert list(subscription) == []


def test_an_iterator_is_read_by_one_thread(stream: EventStream) -> None:
    subscription = stream.subscribe()
    reader = Task(lambda: next(subscription))
    wait_until(lambda: subscription._mailbox._reader is not None)
    with pytest.raises(RuntimeError, match="two threads"):
        subscription.get(timeout=0.01)
    stream.append(CHUNK, "w")
    assert reader.result().offset == 1
    stream.append(CHUNK, "w")
    assert next(subscription).offset == 2  # one after the other is fine


def test_a_subscription_with_a_callback_cannot_be_iterated(stream: EventStream) -> None:
    subscription = stream.subscribe(lambda event: None)
    with pytest.raises(RuntimeError, match="callback"):
        next(subscription)


def test_a_dropped_iterator_frees_itself(stream: EventStream) -> None:
    def read_one() -> Any:
        for event in stream.subscribe(workflow_id="w", after=0):
            return event
        return None

    subscription = stream.subscribe()
    dropped = [weakref.ref(subscription), weakref.ref(subscription._mailbox)]
    publish(stream, "w", 10)
    assert subscription._mailbox._queue.qsize() == 10
    del subscription
    read_one()
    gc.collect()
    assert all(box._queue.qsize() == 0 for box in stream._subscribers.all())
    stream.append(CHUNK, "w")
    assert [ref() for ref in dropped] == [None, None]
    assert not stream._subscribers.all()


def test_a_dropped_iterator_waits_for_no_lock(stream: EventStream) -> None:
    """The garbage collector may run its __del__ in any line, under any lock."""
    held, gate = threading.Event(), threading.Event()

    def hold() -> None:
        with stream._lock:
            held.set()
            gate.wait(5)

    cycle: Dict[str, Any] = {"subscription": stream.subscribe()}
    cycle["self"] = cycle
    holder = Task(hold)
    assert held.wait(5)
    try:
        del cycle
        Task(gc.collect).result(2)
    finally:
        gate.set()
    holder.result()
    stream.append(CHUNK, "w")
    assert not stream._subscribers.all()


# --- arguments -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"types": ["no_such_type"]},
        {"types": "no_such_type"},
        {"max_queue": 0},
        {"max_queue": 1.5},
        {"callback": "not callable"},
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(
    stream: EventStream, arguments: Dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        stream.subscribe(**arguments)
    assert not stream._subscribers.all()


@pytest.mark.parametrize("kind", ["no_such_type", "events_missed", None])
def test_what_is_no_type_of_an_event_cannot_be_appended(stream: EventStream, kind: Any) -> None:
    with pytest.raises(ConfigError):
        stream.append(kind, "w")


def test_a_store_must_be_one() -> None:
    with pytest.raises(ConfigError):
        EventStream(store=[])  # type: ignore[arg-type]


# --- an append that is broken off ----------------------------------------------------------


class BrokenOff(MemoryStore):
    """Its append raises Ctrl-C, once, before or after the event is kept."""

    when = ""

    def append(self, event: Event) -> Event:
        when, self.when = self.when, ""
        if when == "before":
            raise KeyboardInterrupt
        kept = super().append(event)
        if when == "after":
            raise KeyboardInterrupt
        return kept


@pytest.mark.parametrize(("when", "texts"), [("before", "ac"), ("after", "abc")])
def test_i4_ctrl_c_within_an_append_leaves_neither_gap_nor_double(when: str, texts: str) -> None:
    store = BrokenOff()
    with EventStream(store) as stream:
        of_all = stream.subscribe()
        of_one = stream.subscribe(workflow_id="w")
        stream.append(CHUNK, "w", {"text": "a"})
        store.when = when
        with pytest.raises(KeyboardInterrupt):
            stream.append(CHUNK, "w", {"text": "b"})
        stream.append(CHUNK, "w", {"text": "c"})
        stream.close()
        for subscription in (of_all, of_one):
            events = list(subscription)
            assert "".join(event.data["text"] for event in events) == texts
            assert offsets(events) == list(range(1, len(texts) + 1))


def test_get_without_a_wait_never_waits():
    """Python 3.9's SimpleQueue waited without end for a timeout of 0, one time in some hundreds."""
    with EventStream() as stream:
        events = stream.subscribe()
        for _ in range(20_000):
            assert events.get(0) is None
        publish(stream, "w", 1)
        assert events.get(0) is not None
        events.close()
