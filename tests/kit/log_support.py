"""Who writes a log beside the test: programs, run as processes, and another writer."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentstream import EventType, SqliteStore
from agentstream.events.store import EventStore

ROOT = Path(__file__).resolve().parents[2]
CHUNK = EventType.AGENT_LLM_STREAM_CHUNK


def run(script: str, *arguments: Any, ok: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert not ok or done.returncode == 0, done.stderr[-3000:]
    return done.stdout


class Locked:
    """Another writer in the midst of its transaction."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            str(path), isolation_level=None, timeout=5.0, check_same_thread=False
        )
        self._connection.execute("BEGIN IMMEDIATE")

    def __enter__(self) -> Locked:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


class SqliteLogs:
    """What a published suite is told about SqliteStore: a log of its own for each test."""

    durability = "normal"

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "runs.db"

    def make_store(self) -> EventStore:
        return SqliteStore(self.path, durability=self.durability)
