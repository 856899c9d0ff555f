"""The published conformance suite, held against the stores that come with the library."""

from __future__ import annotations

from agentstream import MemoryStore
from agentstream.events.store import EventStore
from agentstream.testing.stores import StoreConformance
from tests.kit.log_support import SqliteLogs


class TestMemoryStore(StoreConformance):
    def make_store(self) -> EventStore:
        return MemoryStore()


class TestSqliteStore(SqliteLogs, StoreConformance):
    pass


class TestSqliteStoreInFull(TestSqliteStore):
    durability = "full"
