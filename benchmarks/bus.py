"""The bus against a bare fan-out: a queue.SimpleQueue and a thread for each subscriber.

Both get the same: a dict that the publisher makes for each event; both call a
callback with each event in the subscriber's own thread, and the time runs until
the last callback has had the last event.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any, Callable, Dict, List

_PATIENCE = 60.0


class _Last:
    """A callback that tells when it has had so many."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.done = threading.Event()

    def __call__(self, event: Any) -> None:
        self._left -= 1
        if not self._left:
            self.done.set()


def _timed(publish: Callable[[int], None], events: int, callbacks: List[_Last]) -> Dict[str, float]:
    began, cpu = time.perf_counter(), time.process_time()
    publish(events)
    for callback in callbacks:
        assert callback.done.wait(_PATIENCE)
    took, spent = time.perf_counter() - began, time.process_time() - cpu
    return {"events_a_second": events / took, "us_cpu_an_event": spent / events * 1e6}


def bare(events: int, subscribers: int, *, whole: bool) -> Dict[str, float]:
    """The fan-out that a program would write: of dicts, or of whole events.

    An event is what ours hands out too: an Event with an id, an offset, a time and
    data that cannot be changed.  What it lacks is the log, the lock that gives all
    subscribers one order, the bound on the queues and the way back to the log.
    """
    from agentstream.events.model import EventType, FrozenDict, make_event

    kind, stamp = EventType.AGENT_LLM_STREAM_CHUNK, time.time
    queues: List[Any] = [queue.SimpleQueue() for _ in range(subscribers)]
    callbacks = [_Last(events) for _ in queues]

    def deliver(q: Any, callback: _Last) -> None:
        while True:
            event = q.get()
            if event is None:
                return
            callback(event)

    workers = [threading.Thread(target=deliver, args=pair) for pair in zip(queues, callbacks)]
    for worker in workers:
        worker.start()

    def publish(count: int) -> None:
        for i in range(count):
            event: Any = {"agent": "a", "step": "0", "chunk": "word"}
            if whole:
                data = FrozenDict(event)
                event = make_event((f"run:{i}", i, i, kind, "run", None, stamp(), data))
            for q in queues:
                q.put(event)

    try:
        return _timed(publish, events, callbacks)
    finally:
        for q in queues:
            q.put(None)
        for worker in workers:
            worker.join()


def ours(events: int, subscribers: int, max_queue: int = 1024) -> Dict[str, float]:
    """EventStream; the store keeps all, so that a slow subscriber reads back what it must."""
    from agentstream import EventStream, EventType, MemoryStore

    chunk = EventType.AGENT_LLM_STREAM_CHUNK
    callbacks = [_Last(events) for _ in range(subscribers)]
    with EventStream(store=MemoryStore(capacity=events + 10)) as stream:
        for callback in callbacks:
            stream.subscribe(callback, max_queue=max_queue)

        def publish(count: int) -> None:
            append = stream.open_log("run").append  # as a run does
            for i in range(count):
                append(chunk, {"agent": "a", "step": "0", "chunk": "word"})

        return _timed(publish, events, callbacks)


def bus(way: str, events: int, subscribers: int) -> Dict[str, float]:
    """`way` is "ours", "bare events" or "bare dicts"."""
    if way == "ours":
        return ours(events, subscribers)
    return bare(events, subscribers, whole=way == "bare events")


def stuck(events: int, rate: float, with_stuck: bool) -> Dict[str, float]:
    """How late nine callbacks get paced events, beside a tenth that is stuck or is not."""
    from agentstream import EventStream, EventType

    late: List[float] = []
    release, entered = threading.Event(), threading.Event()

    def callback(event: Any) -> None:
        late.append(time.monotonic() - event.data["at"])

    def sleeper(event: Any) -> None:
        if with_stuck:
            entered.set()
            release.wait()

    with EventStream() as stream:
        for _ in range(9):
            stream.subscribe(callback)
        stream.subscribe(sleeper, max_queue=64)
        tick = threading.Event()
        due = time.monotonic()
        log = stream.open_log("run")
        for _ in range(events):
            due += 1 / rate
            tick.wait(max(0.0, due - time.monotonic()))
            log.append(EventType.SYSTEM_WARNING, {"at": time.monotonic()})
        assert not with_stuck or entered.is_set()
        until = time.monotonic() + 10
        while len(late) < 9 * events and time.monotonic() < until:
            tick.wait(0.01)
        release.set()
    late.sort()
    assert len(late) == 9 * events, f"{len(late)} of {9 * events}"
    return {
        "p50_ms": late[len(late) // 2] * 1000,
        "p99_ms": late[int(len(late) * 0.99)] * 1000,
        "max_ms": late[-1] * 1000,
    }
