"""The published conformance suite of checkpoints, held against the stores of the library."""

from __future__ import annotations

from typing import Any

import pytest

from agentstream import EventStream, EventType, LogError, MemoryStore
from agentstream.events.store import EventStore
from agentstream.testing import CheckpointConformance, QueueConformance
from tests.kit.log_support import SqliteLogs


class TestMemoryCheckpoints(CheckpointConformance):
    def make_store(self) -> EventStore:
        return MemoryStore()


class TestSqliteCheckpoints(SqliteLogs, CheckpointConformance):
    pass


class TestSqliteCheckpointsInFull(TestSqliteCheckpoints):
    durability = "full"


class TestMemoryQueue(QueueConformance):
    def make_store(self) -> EventStore:
        return MemoryStore()


class TestSqliteQueue(SqliteLogs, QueueConformance):
    pass


def test_a_rest_that_was_broken_off_behind_its_keeping_is_one() -> None:
    class Interrupted(MemoryStore):
        def append(self, fields: Any) -> Any:
            kept = super().append(fields)
            if fields[3] is EventType.WORKFLOW_SUSPENDED:
                raise KeyboardInterrupt
            return kept

    with EventStream(Interrupted()) as stream:
        log = stream.open_log("run")
        assert stream.store.checkpoints is not None
        stream.store.checkpoints.begin("run")
        subscription = stream.subscribe(workflow_id="run")
        log.append(EventType.WORKFLOW_STARTED, {})
        with pytest.raises(KeyboardInterrupt):
            log.append(EventType.WORKFLOW_SUSPENDED, {"status": "interrupted"})
        assert log.append(EventType.WORKFLOW_COMPLETED, {}) is None
        again, entry = stream.reopen_log("run")
        assert (entry.last, entry.reason) == (2, "interrupted")
        again.append(EventType.WORKFLOW_COMPLETED, {})
        assert log.append(EventType.WORKFLOW_COMPLETED, {}) is None
        assert [event.offset for event in subscription] == [1, 2, 3]


def test_without_checkpoints_no_run_is_resumed() -> None:
    class Bare(MemoryStore):
        checkpoints = None  # type: ignore[assignment]

    with EventStream(Bare()) as stream:
        with pytest.raises(LogError, match="keeps no checkpoints"):
            stream.reopen_log("run")
