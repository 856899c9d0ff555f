"""What is looked for when a log is opened: events it has lost, runs whose process has died."""

from __future__ import annotations

import logging
import sqlite3
from typing import Optional

from agentstream.events.sqlite import entries, interrupted
from agentstream.events.sqlite.files import LogFile
from agentstream.events.sqlite.high_water import HighWaterMark
from agentstream.events.store import Bounds

__all__ = ["take_stock"]

logger = logging.getLogger("agentstream.events.sqlite")


def take_stock(
    file: LogFile,
    connection: sqlite3.Connection,
    mark: HighWaterMark,
    log_id: bytes,
    log_name: str,
) -> Optional[Bounds]:
    """End the runs of dead processes; returns the positions that the log has lost, or None.

    Of a loss a system_warning tells, in the log's own workflow `log_name`.

    Raises:
        sqlite3.Error: what SQLite said.
    """
    had = mark.open(log_id)
    last = entries.last_position(connection)
    lost = None
    dead = interrupted.find_dead(connection, file.path, None, idle=True)
    if had > last or dead:
        connection.execute("BEGIN IMMEDIATE")
        lost = _report_loss(file, connection, had, log_name)
        interrupted.close_interrupted(connection, dead)
        last = entries.last_position(connection)
        connection.execute("COMMIT")
    mark.raise_to(last)
    return lost


def _report_loss(
    file: LogFile, connection: sqlite3.Connection, had: int, log_name: str
) -> Optional[Bounds]:
    last = entries.last_position(connection)
    if had <= last:
        return None
    message = (
        f"the log {file.path} has lost events: it ends at position {last} and had come to {had}"
    )
    logger.warning("%s", message)
    # Positions that readers have seen are not given again.
    connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'events'", (had,))
    entries.warn(connection, log_name, message)
    return Bounds(last + 1, had)
