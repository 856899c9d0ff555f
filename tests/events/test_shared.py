"""The published conformance suite of logs that processes share, held against SqliteStore."""

from __future__ import annotations

import functools
from typing import Callable, ContextManager

from agentstream import SqliteStore
from agentstream.events.store import EventStore
from agentstream.testing import SharedStoreConformance
from tests.kit.log_support import Locked, SqliteLogs


class TestSqliteStoreShared(SqliteLogs, SharedStoreConformance):
    def make_opener(self) -> Callable[[], EventStore]:
        return functools.partial(SqliteStore, self.path, busy_timeout=0.3)

    def trouble(self) -> ContextManager[object]:
        """Somebody else writes, and does not come to an end."""
        return Locked(self.path)
