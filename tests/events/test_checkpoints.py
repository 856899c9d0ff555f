"""The published conformance suite of checkpoints, held against the stores of the library."""

from __future__ import annotations

from agentstream import MemoryStore
from agentstream.events.store import EventStore
from agentstream.testing.checkpoints import CheckpointConformance


class TestMemoryCheckpoints(CheckpointConformance):
    def make_store(self) -> EventStore:
        return MemoryStore()
