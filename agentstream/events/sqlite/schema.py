"""The log's tables, and whether a file has them.

One change of the tables is one more version here, with the step that leads to it.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Dict

from agentstream.errors import LogError
from agentstream.events.sqlite.files import LogFile

__all__ = ["VERSION", "prepare"]

VERSION = 1
_APPLICATION = 0x61677374  # "agst"

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE owners (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL, boot TEXT NOT NULL
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    workflow_id TEXT NOT NULL UNIQUE, parent TEXT, name TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL, owner INTEGER, started REAL, ended REAL,
    last INTEGER NOT NULL DEFAULT 0, usage TEXT
);
CREATE INDEX runs_active ON runs (status) WHERE status IN ('queued', 'running');
CREATE TABLE events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL, offset INTEGER NOT NULL,
    type TEXT NOT NULL, timestamp REAL NOT NULL, data TEXT NOT NULL
);
CREATE UNIQUE INDEX events_of_run ON events (run, offset);
CREATE TABLE stops (workflow_id TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
"""
#: Beside the others, and no version of theirs: who does not know it misses nothing.
_BESIDE = """
CREATE TABLE IF NOT EXISTS inputs (run INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS resumable (
    run INTEGER PRIMARY KEY, root INTEGER, fence INTEGER NOT NULL DEFAULT 1,
    deaths INTEGER NOT NULL DEFAULT 0, recover INTEGER NOT NULL,
    keep REAL, ended REAL, refused TEXT
);
CREATE INDEX IF NOT EXISTS resumable_inner ON resumable (root) WHERE root IS NOT NULL;
CREATE INDEX IF NOT EXISTS resumable_ended ON resumable (ended) WHERE ended IS NOT NULL;
CREATE TABLE IF NOT EXISTS checkpoints (
    run INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (run, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (
    run INTEGER PRIMARY KEY, name TEXT NOT NULL, due REAL, calls INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_due ON jobs (due) WHERE due IS NOT NULL;
"""

#: version -> the script that makes the next one of it.
_STEPS: Dict[int, str] = {}


def prepare(file: LogFile, connection: sqlite3.Connection) -> bytes:
    """Make the tables, or bring them up to date; returns the log's id.

    Raises:
        LogError: the file is none of ours, or of a version that cannot be used.
        sqlite3.Error: what SQLite said.
    """
    _check_ours(file, connection)
    if file.read_only:
        _check_version(file, _number(connection, "user_version"))
    else:
        _turn_to_wal(file, connection)
    if _number(connection, "user_version") != VERSION:
        connection.execute("BEGIN IMMEDIATE")
        try:
            _migrate(file, connection)
            connection.execute("COMMIT")
            # Into the file itself: whatever becomes of the write-ahead log, the log's id stays.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    if not file.read_only:
        _run(connection, _BESIDE)
    log_id = connection.execute("SELECT value FROM meta WHERE key = 'log_id'").fetchone()
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    if log_id is None or last is None:
        raise LogError(f"the log {file.path} is damaged: rows that every log has are not there")
    return bytes(log_id[0])


def _check_ours(file: LogFile, connection: sqlite3.Connection) -> bool:
    """True for a log, False for an empty database; LogError for somebody else's."""
    # In this order: another process may be just making the tables, and both at once.
    empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if _number(connection, "application_id") == _APPLICATION:
        return True
    if not empty or file.read_only:
        raise LogError(f"{file.path} is an SQLite database, but no log of agentstream")
    return False


def _turn_to_wal(file: LogFile, connection: sqlite3.Connection) -> None:
    """A copy that SQLite made, by VACUUM INTO say, is in another mode."""
    if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        return
    if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
        raise LogError(
            f"the log {file.path} is where SQLite cannot keep a write-ahead log: "
            "put it on a disk of this machine"
        )


def _migrate(file: LogFile, connection: sqlite3.Connection) -> None:
    if not _check_ours(file, connection):
        _create(connection)
        return
    version = _number(connection, "user_version")  # again: now nobody else changes it
    while version in _STEPS:
        _run(connection, _STEPS[version])
        version += 1
        connection.execute(f"PRAGMA user_version={version}")
    _check_version(file, version)


def _check_version(file: LogFile, version: int) -> None:
    if version != VERSION:
        age = "newer" if version > VERSION else "older"
        raise LogError(
            f"the log {file.path} has version {version} of the tables, {age} than {VERSION}, "
            "which this agentstream uses"
        )


def _create(connection: sqlite3.Connection) -> None:
    _run(connection, _TABLES)
    connection.execute("INSERT INTO meta VALUES ('log_id', ?)", (os.urandom(16),))
    connection.execute("INSERT INTO sqlite_sequence VALUES ('events', 0)")
    connection.execute(f"PRAGMA application_id={_APPLICATION}")
    connection.execute(f"PRAGMA user_version={VERSION}")


def _run(connection: sqlite3.Connection, script: str) -> None:
    # Not executescript, which commits first.
    for statement in script.split(";"):
        if statement.strip():
            connection.execute(statement)


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
