"""The log's tables: files of another version, and of an older one (D12)."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from agentstream import LogError, SqliteStore
from agentstream.events import sqlite as module
from agentstream.testing.stores import event


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.mark.parametrize(("version", "age"), [(99, "newer"), (0, "older")])
def test_d12_another_version_is_named(path: Path, version: int, age: str) -> None:
    SqliteStore(path).close()
    connection = sqlite3.connect(str(path))
    connection.execute(f"PRAGMA user_version={version}")
    connection.commit()
    connection.close()
    with pytest.raises(LogError, match=f"version {version} of the tables, {age} than 1"):
        SqliteStore(path)


def test_d12_an_older_version_is_migrated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SqliteStore(path) as store:
        store.claim("run")
        store.append(event("run", 1))
    schema = module.store.schema
    monkeypatch.setattr(schema, "VERSION", 3)
    monkeypatch.setattr(
        schema,
        "_STEPS",
        {1: "CREATE TABLE two (x)", 2: "CREATE TABLE three (x); INSERT INTO three VALUES (3)"},
    )
    with SqliteStore(path) as store:
        assert store._reader.one("SELECT x FROM three") == (3,)
        assert [e.offset for e in store.read()] == [1]
