"""What any event store must do, as tests to inherit.

    class TestMyStore(StoreConformance):
        def make_store(self):
            return MyStore(...)

Run by pytest, which is not needed to import this; each test gets a store of its own.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from typing import Any, Callable, List, Mapping, Optional, Type

from agentstream.errors import AgentStreamError, LogError
from agentstream.events.model import Event, EventType, freeze
from agentstream.events.store import EventStore
from agentstream.events.stream import EventStream

__all__ = ["StoreConformance", "event", "refused"]

_CHUNK = EventType.AGENT_LLM_STREAM_CHUNK
_PATIENCE = 10.0


def event(
    workflow_id: str,
    offset: int,
    kind: EventType = _CHUNK,
    data: Optional[Mapping[str, Any]] = None,
) -> Event:
    """An event as a stream gives it to its store."""
    values = freeze({"chunk": f"{workflow_id} {offset}"} if data is None else dict(data))
    return Event(
        f"{workflow_id}:{offset}", offset, None, kind, workflow_id, None, time.time(), values
    )


def refused(act: Callable[[], object], kind: Type[AgentStreamError] = LogError) -> str:
    """What an error of that very class says, which `act` must raise."""
    try:
        act()
    except AgentStreamError as error:
        if type(error) is not kind:
            raise
        return str(error)
    raise AssertionError(f"it raised no {kind.__name__}")


class StoreConformance:
    """The tests.  Subclass it and say how a store is made."""

    @abstractmethod
    def make_store(self) -> EventStore:
        """A new, empty store that keeps at least 2,000 events."""

    def _fill(self, store: EventStore, workflow_id: str, count: int) -> List[Event]:
        store.claim(workflow_id)
        events = [event(workflow_id, n) for n in range(1, count + 1)]
        for one in events:
            store.settle(store.append(one))
        return events

    def test_an_empty_store_says_so(self) -> None:
        store = self.make_store()
        try:
            assert store.bounds() == (0, 0)
            assert store.bounds("w") == (0, 0)
            assert store.read() == []
            assert store.read(workflow_id="w") == []
            assert not store.has_ended("w")
            assert store.runs() == []
        finally:
            store.close()

    def test_events_come_back_as_they_were(self) -> None:
        store = self.make_store()
        try:
            data: Mapping[str, Any] = {
                "text": "é\U0001f600\u2028",
                "n": [1, 2.5, None, True, {"deep": []}],
                "": "",
            }
            one = event("w", 1, EventType.SYSTEM_WARNING, data)._replace(parent_workflow_id="above")
            store.claim("w", "above")
            store.append(one)
            store.flush()
            for read in (store.read(), store.read(workflow_id="w")):
                assert [e._replace(position=None) for e in read] == [one]
                assert read[0].position == 1
                assert isinstance(read[0].data, Mapping)
                assert read[0].to_json() == one._replace(position=1).to_json()
        finally:
            store.close()

    def test_offsets_count_a_workflow_and_positions_the_log(self) -> None:
        store = self.make_store()
        try:
            store.claim("a")
            store.claim("b")
            for n in range(1, 6):
                store.append(event("a", n))
                store.append(event("b", n))
            store.flush()
            assert [e.position for e in store.read()] == list(range(1, 11))
            for name in "ab":
                assert [e.offset for e in store.read(workflow_id=name)] == [1, 2, 3, 4, 5]
                assert store.bounds(name) == (1, 5)
            assert store.bounds() == (1, 10)
        finally:
            store.close()

    def test_reading_gives_every_slice(self) -> None:
        store = self.make_store()
        try:
            self._fill(store, "a", 15)
            self._fill(store, "b", 5)
            for after in range(22):
                for limit in (1, 2, 7, 500):
                    found = [e.position for e in store.read(after=after, limit=limit)]
                    assert found == list(range(after + 1, 21))[:limit]
                    found = [
                        e.offset for e in store.read(workflow_id="a", after=after, limit=limit)
                    ]
                    assert found == list(range(after + 1, 16))[:limit]
        finally:
            store.close()

    def test_what_was_appended_is_read_at_once(self) -> None:
        store = self.make_store()
        try:
            store.claim("w")
            for n in range(1, 201):
                store.append(event("w", n))
                assert store.bounds("w").last == n
                if n % 20 == 0:
                    found = store.read(workflow_id="w", limit=1000)
                    assert [e.offset for e in found] == list(range(1, n + 1))
            assert [e.position for e in store.read(limit=1000)] == list(range(1, 201))
        finally:
            store.close()

    def test_bounds_counts_what_append_took(self) -> None:
        store = self.make_store()
        try:
            store.claim("w")
            for n in range(1, 1001):
                store.append(event("w", n))
                if n % 100 == 0:  # committed or not
                    assert store.bounds() == (1, n)
                    assert store.bounds("w") == (1, n)
        finally:
            store.close()

    def test_an_event_appended_twice_is_kept_once(self) -> None:
        store = self.make_store()
        try:
            events = self._fill(store, "w", 5)
            for one in events:
                store.append(one)
            store.append(event("w", 6, EventType.WORKFLOW_COMPLETED))
            store.flush()
            store.append(event("w", 6, EventType.WORKFLOW_COMPLETED))
            store.flush()
            assert [e.offset for e in store.read()] == [1, 2, 3, 4, 5, 6]
            assert [e.position for e in store.read()] == [1, 2, 3, 4, 5, 6]
        finally:
            store.close()

    def test_a_workflow_has_one_log(self) -> None:
        store = self.make_store()
        try:
            store.claim("w")
            store.claim("w")  # nothing is in it: no harm done
            store.append(event("w", 1))
            try:
                store.claim("w")
            except LogError:
                pass
            else:
                raise AssertionError("claimed though it has events")
        finally:
            store.close()

    def test_runs_tell_their_states(self) -> None:
        store = self.make_store()
        ends = {
            "completed": EventType.WORKFLOW_COMPLETED,
            "failed": EventType.WORKFLOW_FAILED,
            "cancelled": EventType.WORKFLOW_CANCELLED,
        }
        try:
            for status, kind in ends.items():
                store.claim(status)
                store.append(event(status, 1, EventType.WORKFLOW_STARTED, {"workflow": "the name"}))
                assert not store.has_ended(status)
                store.append(event(status, 2, kind, {"usage": {"total_tokens": 3}}))
                assert store.has_ended(status)
            self._fill(store, "running", 3)
            runs = store.runs()
            assert [run.workflow_id for run in runs] == ["running", *reversed(list(ends))]
            assert [run.status for run in runs] == ["running", *reversed(list(ends))]
            assert [run.last_offset for run in runs] == [3, 2, 2, 2]
            assert runs[0].ended_at is None
            assert runs[1].name == "the name"
            assert runs[1].usage == {"total_tokens": 3}
            assert (runs[1].ended_at or 0.0) >= (runs[1].started_at or 1e12)
            assert len(store.runs(limit=2)) == 2
        finally:
            store.close()

    def test_waiting_ends_with_news_with_time_and_with_the_store(self) -> None:
        store = self.make_store()
        try:
            began = time.monotonic()
            assert not store.wait(0, 0.05)
            assert time.monotonic() - began >= 0.04
            for end in (lambda: self._fill(store, "w", 1), store.close):
                woken: List[Any] = []
                after = store.bounds().last
                thread = threading.Thread(
                    target=lambda w=woken, a=after: w.append(store.wait(a, _PATIENCE))
                )
                thread.start()
                began = time.monotonic()
                end()
                thread.join(_PATIENCE)
                assert not thread.is_alive()
                assert time.monotonic() - began < _PATIENCE / 2
                assert woken == [end != store.close]
        finally:
            store.close()

    def test_threads_append_and_read_at_once(self) -> None:
        store = self.make_store()
        names = ["a", "b", "c", "d"]
        seen: List[int] = []
        try:

            def write(name: str) -> None:
                self._fill(store, name, 200)

            def follow() -> None:
                end = time.monotonic() + _PATIENCE
                while len(seen) < 800 and time.monotonic() < end:
                    store.wait(seen[-1] if seen else 0, 1.0)
                    seen.extend(e.position or 0 for e in store.read(after=len(seen)))

            workers = [threading.Thread(target=write, args=(name,)) for name in names]
            workers.append(threading.Thread(target=follow))
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(_PATIENCE)
            assert seen == list(range(1, 801))
            for name in names:
                found = store.read(workflow_id=name, limit=1000)
                assert [e.offset for e in found] == list(range(1, 201))
        finally:
            store.close()

    def test_a_stream_over_it_delivers_each_event_once(self) -> None:
        stream = EventStream(self.make_store())
        try:
            for n in range(50):
                stream.append("system_warning", "a", {"n": n})
            live = stream.subscribe()
            replay = stream.subscribe(after=0)
            one = stream.subscribe(workflow_id="b", after=0)
            small = stream.subscribe(max_queue=1)
            for n in range(100):
                stream.append("system_warning", "b", {"n": n})
            stream.append("workflow_completed", "b")
            expected = [("b", n) for n in range(1, 102)]
            assert [(e.workflow_id, e.offset) for e in one] == expected
            for subscription, wanted in (
                (live, expected),
                (small, expected),
                (replay, [("a", n) for n in range(1, 51)] + expected),
            ):
                found = [subscription.get(_PATIENCE) for _ in wanted]
                assert [(e.workflow_id, e.offset) for e in found if e] == wanted
                assert subscription.get(0.05) is None
        finally:
            stream.close()

    def test_what_is_kept_is_read_after_the_close_too(self) -> None:
        store = self.make_store()
        self._fill(store, "w", 3)
        store.close()
        store.close()
        assert [e.offset for e in store.read(workflow_id="w")] == [1, 2, 3]
        assert store.bounds() == (1, 3)
