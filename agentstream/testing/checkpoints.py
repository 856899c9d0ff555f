"""What any store of checkpoints must do, as tests to inherit.

    class TestMyCheckpoints(CheckpointConformance):
        def make_store(self):
            return MyStore(...)

Run by pytest, which is not needed to import this; each test gets a store of its own.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from abc import abstractmethod
from typing import Any, Iterator, List

from agentstream.errors import AgentStreamError, Busy, ConfigError
from agentstream.events.checkpoints import CheckpointStore, Entry
from agentstream.events.model import Event, EventType
from agentstream.events.store import EventStore, StopAnswer
from agentstream.events.stream import EventStream
from agentstream.events.subscription import Subscription
from agentstream.testing.stores import refused

__all__ = ["CheckpointConformance", "OverStores"]

_STARTED = EventType.WORKFLOW_STARTED
_CHUNK = EventType.AGENT_LLM_STREAM_CHUNK
_SUSPENDED = EventType.WORKFLOW_SUSPENDED
_RESUMED = EventType.WORKFLOW_RESUMED
_COMPLETED = EventType.WORKFLOW_COMPLETED
_PATIENCE = 10.0


def _next(subscription: Subscription, count: int) -> List[Event]:
    found = [subscription.get(_PATIENCE) for _ in range(count)]
    return [event for event in found if event is not None]


class OverStores:
    """Tests that each have a store of their own."""

    @abstractmethod
    def make_store(self) -> EventStore:
        """A new, empty store, whose `checkpoints` are to be tested."""

    @contextlib.contextmanager
    def _stream(self) -> Iterator[Any]:
        """A stream over a new store, and the store's checkpoints."""
        stream = EventStream(self.make_store())
        try:
            checkpoints = stream.store.checkpoints
            assert isinstance(checkpoints, CheckpointStore)
            yield stream, checkpoints
        finally:
            stream.close()


class CheckpointConformance(OverStores):
    """The tests.  Subclass it and say how a store is made."""

    def _begin(self, stream: EventStream, name: str = "run", **options: Any) -> Any:
        log = stream.open_log(name)
        assert stream.store.checkpoints is not None
        stream.store.checkpoints.begin(name, **options)
        log.append(_STARTED, {"workflow": "the name", "steps": []})
        return log

    def _suspend(self, log: Any, status: str = "suspended") -> None:
        data = {"workflow": "the name", "status": status, "output": "so far", "duration_s": 1.5}
        log.append(_SUSPENDED, {**data, "usage": {"total_tokens": 3}, "reason": "asks"})

    def test_records_are_written_changed_and_deleted(self) -> None:
        with self._stream() as (stream, checkpoints):
            assert checkpoints.read("run") == {}
            self._begin(stream)
            assert checkpoints.read("run") == {}
            checkpoints.write("run", {"a": b"1", "a/x": b"2", "b": b"\x00\xff"}, wait=False)
            checkpoints.write("run", {"b": b"", "é\U0001f600": bytes(100_000)})
            big = checkpoints.read("run").pop("é\U0001f600")
            assert big == bytes(100_000)
            assert checkpoints.read("run") == {"a": b"1", "a/x": b"2", "b": b"", **{"é😀": big}}
            checkpoints.write("run", {"é\U0001f600": None, "nothing": None})
            checkpoints.write("run", {"a/y": b"3", "a_z": b"4"}, discard=["a/", "nothing"])
            assert checkpoints.read("run") == {"a": b"1", "b": b"", "a/y": b"3", "a_z": b"4"}
            checkpoints.write("run", {"only": b"5"}, discard=[""])
            assert checkpoints.read("run") == {"only": b"5"}
            refused(lambda: checkpoints.write("run", {"text": "no bytes"}), ConfigError)
            refused(lambda: checkpoints.write("run", {"": b"no key"}), ConfigError)

    def test_only_a_run_that_has_begun_to_keeps_a_checkpoint(self) -> None:
        with self._stream() as (stream, checkpoints):
            refused(lambda: checkpoints.begin("unknown"))
            log = stream.open_log("plain")
            log.append(_STARTED, {"workflow": "plain"})
            refused(lambda: checkpoints.write("plain", {"a": b"1"}))
            refused(lambda: checkpoints.answer("plain", "a", b"1"))
            refused(lambda: checkpoints.answer("unknown", "a", b"1"))
            refused(lambda: checkpoints.resume("unknown"))
            log.append(_COMPLETED, {})
            refused(lambda: checkpoints.resume("plain"))
            assert checkpoints.waiting() == []

    def test_a_suspended_run_is_nobodys_and_has_not_ended(self) -> None:
        with self._stream() as (stream, checkpoints):
            log = self._begin(stream)
            checkpoints.write("run", {"a": b"1"}, wait=False)
            self._suspend(log)
            assert log.append(_CHUNK, {"chunk": "late"}) is None
            store = stream.store
            assert not store.has_ended("run")
            assert store.bounds("run") == (1, 2)
            state = store.run("run")
            assert state is not None
            assert (state.status, state.ended_at, state.last_offset) == ("suspended", None, 2)
            assert [one.workflow_id for one in checkpoints.waiting()] == ["run"]
            refused(lambda: checkpoints.write("run", {"a": b"2"}))
            refused(lambda: stream.append(_CHUNK, "run", {}))
            refused(lambda: stream.open_log("run"))
            assert checkpoints.read("run") == {"a": b"1"}
            assert [event.offset for event in store.read(workflow_id="run")] == [1, 2]

    def test_a_run_goes_on_where_it_was_left(self) -> None:
        with self._stream() as (stream, checkpoints):
            log = self._begin(stream)
            refused(lambda: stream.reopen_log("run"), Busy)
            for turn, reason in enumerate(("suspended", "interrupted"), 2):
                checkpoints.write("run", {"turn": b"%d" % turn})
                self._suspend(log, reason)
                last = stream.store.bounds("run").last
                old = log
                log, entry = stream.reopen_log("run")
                records = {"turn": b"%d" % turn}
                assert entry == Entry(last, turn, 0, reason, records, {})
                assert log.append(_RESUMED, {"reason": reason}).offset == last + 1
                assert old.append(_CHUNK, {"chunk": "late"}) is None
                assert stream.store.run("run").status == "running"
                assert checkpoints.waiting() == []
                refused(lambda: stream.reopen_log("run"), Busy)
            log.append(_COMPLETED, {"output": "done"})
            found = stream.store.read(workflow_id="run")
            assert [event.offset for event in found] == list(range(1, 7))
            refused(lambda: stream.reopen_log("run"))

    def test_the_end_lets_go_of_the_checkpoint(self) -> None:
        with self._stream() as (stream, checkpoints):
            for name, keep in (("run", None), ("kept", 60.0), ("brief", 0.001)):
                log = self._begin(stream, name, keep=keep)
                checkpoints.write(name, {"a": b"1"}, wait=False)
                log.append(_COMPLETED, {})
                stream.store.flush()
                refused(functools.partial(checkpoints.answer, name, "b", b"2"))
                refused(functools.partial(checkpoints.write, name, {"b": b"2"}))
                refused(functools.partial(checkpoints.resume, name))
            assert checkpoints.read("run") == {}
            assert checkpoints.read("kept") == {"a": b"1"}

    def test_who_answers_first_has_answered(self) -> None:
        with self._stream() as (stream, checkpoints):
            log = self._begin(stream)
            assert checkpoints.answer("run", "answer/1", b"yes")
            self._suspend(log)
            assert not checkpoints.answer("run", "answer/1", b"no")
            assert checkpoints.answer("run", "answer/2", b"no")
            expected = {"answer/1": b"yes", "answer/2": b"no"}
            assert checkpoints.read("run") == expected
            assert checkpoints.keys("run", ["answer/1", "none"]) == {"answer/1"}
            assert checkpoints.keys("run", ["answer", "ans"]) == set(expected)
            assert checkpoints.keys("none", ["answer"]) == checkpoints.keys("run", []) == set()
            assert stream.reopen_log("run")[1].records == expected

    def test_a_run_that_was_refused_cannot_be_resumed(self) -> None:
        with self._stream() as (stream, checkpoints):
            log = self._begin(stream)
            checkpoints.write("run", {"a": b"1"})
            checkpoints.refuse("run", "output['a'] is a lock")
            checkpoints.write("run", {"b": b"2"})
            assert checkpoints.read("run") == {}
            self._suspend(log)
            assert "output['a'] is a lock" in refused(lambda: checkpoints.resume("run"))
            assert checkpoints.waiting() == []

    def test_one_of_many_resumes_it(self) -> None:
        with self._stream() as (stream, checkpoints):
            self._suspend(self._begin(stream))
            found: List[Any] = []

            def resume() -> None:
                try:
                    found.append(checkpoints.resume("run"))
                except AgentStreamError as error:
                    found.append(error)

            threads = [threading.Thread(target=resume) for _ in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(_PATIENCE)
            entries = [one for one in found if isinstance(one, Entry)]
            assert [entry.fence for entry in entries] == [2]
            assert len([one for one in found if type(one) is Busy and one.retryable]) == 9

    def test_runs_within_a_run_rest_and_go_on_with_it(self) -> None:
        with self._stream() as (stream, checkpoints):
            log = self._begin(stream)
            inner = {}
            for name in ("done", "asks", "runs"):
                inner[name] = log.open_child(name)
                checkpoints.begin(name, root="run")
                inner[name].append(_STARTED, {"workflow": name})
            checkpoints.write("run", {"a": b"1"})
            inner["done"].append(_COMPLETED, {})
            self._suspend(inner["asks"])
            assert "resume" in refused(lambda: checkpoints.resume("asks"))
            assert checkpoints.read("asks") == {"a": b"1"}
            self._suspend(log)
            store = stream.store
            store.flush()
            statuses = [store.run(name).status for name in inner]
            assert statuses == ["completed", "suspended", "suspended"]
            assert [one.workflow_id for one in checkpoints.waiting()] == ["run"]

            log, entry = stream.reopen_log("run")
            assert entry.inner == {"asks": 2, "runs": 1}
            child = log.reopen_child("asks", 2)
            assert child.append(_CHUNK, {"chunk": "on"}).offset == 3
            child.append(_COMPLETED, {})
            assert store.read(workflow_id="asks")[-1].parent_workflow_id == "run"
            log.append(_COMPLETED, {})
            store.flush()
            statuses = [store.run(name).status for name in inner]
            assert statuses == ["completed", "completed", "closed"]
            assert store.has_ended("runs")

    def test_a_run_that_rests_is_stopped_without_anybody(self) -> None:
        with self._stream() as (stream, checkpoints):
            log = self._begin(stream)
            child = log.open_child("inner")
            checkpoints.begin("inner", root="run")
            child.append(_STARTED, {"workflow": "inner"})
            checkpoints.write("run", {"a": b"1"})
            assert not stream.store.request_stop("nobody", "why not")
            subscriptions = [stream.subscribe(workflow_id="run"), stream.subscribe()]
            self._suspend(log)
            stream.store.flush()
            stopped = stream.store.request_stop("inner", "no longer wanted")  # and so the whole
            assert stopped is StopAnswer.ENDED
            end = list(subscriptions[0])[-1]
            assert (end.type, end.offset) == (EventType.WORKFLOW_CANCELLED, 3)
            assert end.data["reason"] == "no longer wanted"
            assert (end.data["output"], end.data["duration_s"]) == ("so far", 1.5)
            found = _next(subscriptions[1], 3)
            assert sorted((e.workflow_id, e.offset) for e in found) == [
                ("inner", 2),
                ("run", 2),
                ("run", 3),
            ]
            for name in ("inner", "run"):
                assert stream.store.run(name).status == "cancelled"
            assert stream.store.run("run").usage == {"total_tokens": 3}
            assert checkpoints.read("run") == {}
            assert not stream.store.request_stop("run", "again")
            refused(lambda: checkpoints.resume("run"))

    def test_subscribers_have_each_event_once_however_often_it_rests(self) -> None:
        with self._stream() as (stream, _):
            log = self._begin(stream)
            subscriptions = [
                stream.subscribe(workflow_id="run", after=0),
                stream.subscribe(workflow_id="run", after=0, max_queue=1),
                stream.subscribe(after=0),
            ]
            some = stream.subscribe(workflow_id="run", types=["workflow_resumed"])
            for _ in range(3):
                for _ in range(5):
                    log.append(_CHUNK, {"chunk": "."})
                self._suspend(log)
                log, _ = stream.reopen_log("run")
                log.append(_RESUMED, {})
            log.append(_COMPLETED, {})
            expected = list(range(1, 24))
            for subscription in subscriptions[:2]:
                assert [event.offset for event in subscription] == expected
            assert [event.offset for event in _next(subscriptions[2], 23)] == expected
            assert subscriptions[2].get(0.05) is None
            assert [event.offset for event in some] == [8, 15, 22]
