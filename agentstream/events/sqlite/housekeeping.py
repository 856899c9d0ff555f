"""Housekeeping: what is done beside the writing, within the writer's transactions."""

from __future__ import annotations

import logging
import sqlite3
import time

from agentstream.events.sqlite import entries, resumable
from agentstream.events.sqlite.files import LogFile
from agentstream.events.sqlite.retention import Retention, forget_runs

__all__ = ["Housekeeping"]

logger = logging.getLogger("agentstream.events.sqlite")

_WAL_BYTES = 64 * 2**20
_PAUSE_S = 0.02  # between two looks at what need not be seen at each commit


class Housekeeping:
    """Lets old events and runs go, and warns of a write-ahead log that keeps growing.

    Args:
        file: the log's.
        log_name: the workflow id of the log's own warnings.
        retention: which events go.
    """

    def __init__(self, file: LogFile, log_name: str, retention: Retention) -> None:
        self._file = file
        self._log_name = log_name
        self._retention = retention
        self._looked_at = 0.0
        self._warned = False

    def keep(self, connection: sqlite3.Connection, written: int) -> bool:
        """Do what is due; returns True if there is more to do.

        Args:
            connection: within a transaction.
            written: events that were written since the last call.
        """
        now = time.monotonic()
        if now - self._looked_at > _PAUSE_S:
            self._looked_at = now
            self._watch_size(connection)
            forget_runs(connection)
            resumable.forget(connection)
        return self._retention.trim(connection, written)

    def _watch_size(self, connection: sqlite3.Connection) -> None:
        size = self._file.wal_bytes()
        if size > _WAL_BYTES and not self._warned:
            self._warned = True
            message = (
                f"the write-ahead log of {self._file.path} has grown to {size >> 20} MiB: "
                "somebody has had it open for reading all the while"
            )
            logger.warning("%s", message)
            entries.warn(connection, self._log_name, message)
        elif size < _WAL_BYTES // 2:
            self._warned = False
