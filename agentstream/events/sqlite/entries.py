"""The log's last position, and events that belong to no process's run."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from agentstream.events import payloads
from agentstream.events.model import EventType
from agentstream.events.sqlite import rows

__all__ = ["INSERT", "add_event", "last_position", "warn"]

INSERT = (
    "INSERT INTO events (position, run, offset, type, timestamp, data) VALUES (?, ?, ?, ?, ?, ?)"
)


def last_position(connection: sqlite3.Connection) -> int:
    """The position that was given last."""
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(found[0])


def add_event(
    connection: sqlite3.Connection, run: int, offset: int, kind: EventType, data: Any
) -> None:
    """Append an event that belongs to no process's run."""
    now = time.time()
    connection.execute(
        INSERT,
        (last_position(connection) + 1, run, offset, rows.value_of(kind), now, rows.encode(data)),
    )
    # Nobody's: whoever follows the log must not take it for an event of its own.
    connection.execute("UPDATE runs SET last = ?, owner = NULL WHERE id = ?", (offset, run))


def warn(connection: sqlite3.Connection, log: str, message: str) -> None:
    """Append a system_warning to the log's own workflow."""
    found = connection.execute("SELECT id, last FROM runs WHERE workflow_id = ?", (log,)).fetchone()
    if found is None:
        added = connection.execute(
            "INSERT INTO runs (workflow_id, status) VALUES (?, 'closed')", (log,)
        )
        found = added.lastrowid, 0
    add_event(
        connection,
        found[0],
        found[1] + 1,
        EventType.SYSTEM_WARNING,
        payloads.system_warning(message),
    )
