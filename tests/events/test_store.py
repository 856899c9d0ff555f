"""The published conformance suite, held against the stores that come with the library."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentstream import MemoryStore, SqliteStore
from agentstream.events.store import EventStore
from agentstream.testing.stores import StoreConformance


class TestMemoryStore(StoreConformance):
    def make_store(self) -> EventStore:
        return MemoryStore()


class TestSqliteStore(StoreConformance):
    durability = "normal"

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "runs.db"

    def make_store(self) -> EventStore:
        return SqliteStore(self.path, durability=self.durability)


class TestSqliteStoreInFull(TestSqliteStore):
    durability = "full"
