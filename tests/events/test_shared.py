"""The published conformance suite of logs that processes share, held against SqliteStore."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from pathlib import Path
from typing import Callable, Iterator

import pytest

from agentstream import SqliteStore
from agentstream.events.store import EventStore
from agentstream.testing import SharedStoreConformance


class TestSqliteStoreShared(SharedStoreConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "runs.db"

    def make_opener(self) -> Callable[[], EventStore]:
        return functools.partial(SqliteStore, self.path, busy_timeout=0.3)

    @contextlib.contextmanager
    def trouble(self) -> Iterator[None]:
        """Somebody else writes, and does not come to an end."""
        with contextlib.closing(sqlite3.connect(str(self.path))) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.rollback()
