"""The published conformance suite of checkpoints, held against the stores of the library."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentstream import MemoryStore, SqliteStore
from agentstream.events.store import EventStore
from agentstream.testing.checkpoints import CheckpointConformance


class TestMemoryCheckpoints(CheckpointConformance):
    def make_store(self) -> EventStore:
        return MemoryStore()


class TestSqliteCheckpoints(CheckpointConformance):
    durability = "normal"

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "runs.db"

    def make_store(self) -> EventStore:
        return SqliteStore(self.path, durability=self.durability)


class TestSqliteCheckpointsInFull(TestSqliteCheckpoints):
    durability = "full"
