"""Events in an SQLite file, which outlive the process and which others can follow."""

from __future__ import annotations

from agentstream.events.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
