"""What a store of checkpoints that queues runs must do, as tests to inherit.

    class TestMyQueue(QueueConformance):
        def make_store(self):
            return MyStore(...)

Run by pytest, which is not needed to import this; each test gets a store of its own.
"""

from __future__ import annotations

import threading
import time
from typing import Any, List

from agentstream.errors import Busy, ConfigError
from agentstream.events.checkpoints import Entry
from agentstream.events.model import EventType
from agentstream.events.run_state import RunState
from agentstream.events.store import StopAnswer
from agentstream.testing.checkpoints import OverStores
from agentstream.testing.stores import refused

__all__ = ["QueueConformance"]

_NAMES = ["reply", "other"]
_PATIENCE = 10.0


class QueueConformance(OverStores):
    """The tests.  Subclass it and say how a store is made (`make_store`)."""

    def _suspend(self, log: Any, status: str) -> None:
        data = {"workflow": "reply", "status": status, "output": "", "duration_s": 1.5}
        log.append(EventType.WORKFLOW_SUSPENDED, {**data, "usage": None, "reason": "asks"})

    def test_a_queued_run_is_known_and_nobodys(self) -> None:
        with self._stream() as (stream, checkpoints):
            checkpoints.queue("run", "reply", {"a": b"1", "b": b""})
            store = stream.store
            expected = RunState("run", None, "reply", "queued", None, None, 0, None)
            assert store.run("run") == expected
            assert store.runs() == [expected]
            assert checkpoints.read("run") == {"a": b"1", "b": b""}
            assert checkpoints.waiting() == []
            assert not store.has_ended("run")
            assert store.bounds("run") == (0, 0)
            checkpoints.queue("asked", "reply", {}, input="tea,\nplease")
            assert [state.input for state in store.runs()] == ["tea,", None]
            assert store.run("asked").input == "tea,\nplease"
            refused(lambda: checkpoints.write("run", {"a": b"2"}))
            refused(lambda: checkpoints.queue("run", "reply", {}))
            refused(lambda: stream.open_log("run"))
            refused(lambda: checkpoints.queue("", "reply", {}), ConfigError)
            refused(lambda: checkpoints.queue("one", "reply", {"a": "no bytes"}), ConfigError)

    def test_who_takes_it_begins_it(self) -> None:
        with self._stream() as (stream, checkpoints):
            checkpoints.queue("run", "reply", {"a": b"1"})
            log, entry = stream.reopen_log("run")
            assert entry == Entry(0, 1, 0, "queued", {"a": b"1"}, {})
            assert stream.store.run("run").status == "queued"
            refused(lambda: stream.reopen_log("run"), Busy)
            assert log.append(EventType.WORKFLOW_STARTED, {"workflow": "reply"}).offset == 1
            assert stream.store.run("run").status == "running"
            checkpoints.write("run", {"a": None, "b": b"2"})
            self._suspend(log, "interrupted")
            log, entry = stream.reopen_log("run")
            assert entry == Entry(2, 2, 0, "interrupted", {"b": b"2"}, {})
            log.append(EventType.WORKFLOW_COMPLETED, {"output": "done"})
            stream.store.flush()
            assert checkpoints.read("run") == {}
            refused(lambda: stream.reopen_log("run"))
            refused(lambda: checkpoints.queue("run", "reply", {}))

    def test_each_that_is_due_is_told_to_one(self) -> None:
        with self._stream() as (_, checkpoints):
            for number in range(30):
                checkpoints.queue(f"run-{number}", _NAMES[number % 2], {})
            checkpoints.queue("later", "reply", {}, due=60.0)
            checkpoints.queue("foreign", "third", {})
            assert checkpoints.take_due(["none"]) == checkpoints.take_due([]) == []
            assert checkpoints.take_due(["reply"], limit=2) == ["run-0", "run-2"]
            found: List[str] = []

            def take() -> None:
                for _ in range(5):
                    found.extend(checkpoints.take_due(_NAMES, limit=3))

            threads = [threading.Thread(target=take) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(_PATIENCE)
            left = sorted(f"run-{number}" for number in range(30) if number not in (0, 2))
            assert sorted(found) == left
            assert checkpoints.take_due(["third"]) == ["foreign"]

    def test_what_nobody_takes_is_due_again_ever_later(self) -> None:
        with self._stream() as (_, checkpoints):
            checkpoints.queue("run", "reply", {})
            pause = threading.Event()
            told, began = 0, time.monotonic()
            for _ in range(400):
                told += len(checkpoints.take_due(["reply"], pause=0.02))
                pause.wait(0.001)
            took = time.monotonic() - began
            due = [0.02 * (2**n - 1) for n in range(20)]  # at 0, 0.02, 0.06, 0.14 ... s
            assert 3 <= told <= len([moment for moment in due if moment <= took])
            assert checkpoints.take_due(["reply"], pause=60.0) in ([], ["run"])
            assert checkpoints.bring_forward("run", 60.0)
            assert checkpoints.take_due(["reply"]) == []
            assert checkpoints.bring_forward("run")
            assert not checkpoints.bring_forward("unknown")
            assert checkpoints.take_due(["reply"]) == ["run"]

    def test_one_that_was_left_is_due_and_one_that_somebody_has_is_not(self) -> None:
        with self._stream() as (stream, checkpoints):
            checkpoints.queue("run", "reply", {})
            log, _ = stream.reopen_log("run")
            assert checkpoints.take_due(["reply"]) == []
            assert not checkpoints.bring_forward("run")
            log.append(EventType.WORKFLOW_STARTED, {"workflow": "reply"})
            assert checkpoints.take_due(["reply"]) == []
            for status in ("interrupted", "suspended"):
                self._suspend(log, status)
                stream.store.flush()
                assert checkpoints.take_due(["reply"]) == ["run"]
                assert checkpoints.take_due(["reply"]) == []
                if status == "suspended":
                    assert checkpoints.answer("run", "answer:1", b"yes")
                    assert checkpoints.take_due(["reply"]) == ["run"]
                log, _ = stream.reopen_log("run")
                log.append(EventType.WORKFLOW_RESUMED, {})
            log.append(EventType.WORKFLOW_COMPLETED, {})
            stream.store.flush()
            checkpoints.bring_forward("run")
            assert checkpoints.take_due(["reply"]) == []

    def test_k23_one_that_is_queued_is_stopped_without_anybody(self) -> None:
        with self._stream() as (stream, checkpoints):
            checkpoints.queue("run", "reply", {"a": b"1"})
            subscription = stream.subscribe(workflow_id="run", after=0)
            assert stream.store.request_stop("run", "no longer wanted") is StopAnswer.ENDED
            (end,) = subscription
            assert (end.type, end.offset) == (EventType.WORKFLOW_CANCELLED, 1)
            assert (end.data["reason"], end.data["workflow"]) == ("no longer wanted", "reply")
            state = stream.store.run("run")
            assert (state.status, state.name, state.started_at) == ("cancelled", "reply", None)
            assert state.ended_at is not None
            assert checkpoints.read("run") == {}
            assert checkpoints.take_due(["reply"]) == []
            assert not stream.store.request_stop("run", "again")
            refused(lambda: stream.reopen_log("run"))
