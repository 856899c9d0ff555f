"""Who writes which run: one at a time, and not whoever was given up (D06)."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
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


# Ends as after kill -9: its lock goes, and nothing is written any more.
_DIES = """
import os, sys
from agentstream import EventStream, SqliteStore
stream = EventStream(SqliteStore(sys.argv[1], durability="full"))
for kind in sys.argv[2:]:
    data = {"workflow": "flow", "steps": []} if kind == "workflow_started" else {"message": "x"}
    stream.append(kind, "run", data)
os._exit(9)
"""


def _die(path: Path, *kinds: str) -> None:
    done = subprocess.run([sys.executable, "-c", _DIES, str(path), *kinds], timeout=30)
    assert done.returncode == 9


@pytest.mark.parametrize(
    "newest",
    [
        "agent_completed",
        "agent_failed",
        "system_warning",
        "system_error",
        "workflow_step_completed",
        "agent_llm_stream_chunk",
        "tool_call_completed",
    ],
)
def test_r03_i1_a_run_is_interrupted_whatever_its_last_event_was(
    tmp_path: Path, newest: str
) -> None:
    path = tmp_path / "runs.db"
    _die(path, "workflow_started", "agent_processing", newest)
    with SqliteStore(path) as store:
        events = store.read(workflow_id="run")
        assert [event.offset for event in events] == [1, 2, 3, 4]
        assert (events[-1].type, events[-1].data["error"]) == ("workflow_failed", "Interrupted")
        assert store.runs()[0].status == "failed"


@pytest.mark.parametrize("newest", ["agent_completed", "system_warning"])
def test_r03_an_agents_own_log_is_whole_without_a_workflows_end(
    tmp_path: Path, newest: str
) -> None:
    path = tmp_path / "runs.db"
    _die(path, "agent_processing", newest)
    with SqliteStore(path) as store:
        assert [event.type for event in store.read(workflow_id="run")][1:] == [newest]
        assert store.runs()[0].status == "closed"


def test_r03_a_dead_process_without_a_run_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    _die(path, "workflow_started", "workflow_completed")
    assert list(tmp_path.glob("*-owner-*"))
    with SqliteStore(path) as store:
        assert store.runs()[0].status == "completed"
        assert not list(tmp_path.glob("*-owner-*"))
