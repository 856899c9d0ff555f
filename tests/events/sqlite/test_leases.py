"""Who writes which run: one at a time, and not whoever was given up (D06)."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from agentstream import EventStream, EventType, LogError, SqliteStore
from agentstream.testing.stores import event
from tests.kit.log_support import CHUNK


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def test_d06_two_stores_write_one_run(path: Path) -> None:
    with SqliteStore(path) as one, SqliteStore(path) as other:
        one.claim("run")
        with pytest.raises(LogError, match=f"another owner, process {os.getpid()}"):
            other.claim("run")
        with pytest.raises(LogError, match="another owner"):
            other.append(event("run", 1))
        one.append(event("run", 1))
        one.flush()
        assert [e.offset for e in other.read(workflow_id="run")] == [1]


def test_d06_an_owner_that_was_given_up_is_fenced_off(path: Path) -> None:
    """Its run was closed as interrupted meanwhile: it writes nothing after the end."""
    with SqliteStore(path) as store:
        stream = EventStream(store)
        log = stream.open_log("run")
        log.append(CHUNK, {})
        store.flush()
        for lock in path.parent.glob("runs.db-owner-*"):
            lock.rename(lock.with_suffix(".gone"))
        connection = sqlite3.connect(str(path))
        with connection:
            connection.execute("UPDATE owners SET started = 'long ago'")
        connection.close()
        with SqliteStore(path) as other:
            assert other.has_ended("run")
        log.append(CHUNK, {})
        with pytest.raises(LogError):
            while True:
                log.append(CHUNK, {})
                store.flush()
        assert [e.type for e in store.read(after=0)] == [CHUNK, EventType.WORKFLOW_FAILED]
        stream.close()
    for gone in path.parent.glob("*.gone"):
        gone.unlink()
