"""Retention: which events a log lets go, oldest first, some at a time."""

from __future__ import annotations

import sqlite3
from typing import Optional

from agentstream.events.sqlite.clock import LogClock
from agentstream.events.sqlite.entries import last_position

__all__ = ["Retention", "forget_runs"]

_MOST_TRIMMED = 5000  # events a transaction, or twice as many as came since the last
_RUNS_KEPT = 10_000


class Retention:
    """Lets go of what is beyond a number of events or an age, and of nothing else.

    Args:
        max_events: how many to keep, of all runs together; None for all.
        max_age: seconds after which an event may go; None for never.
    """

    def __init__(self, max_events: Optional[int], max_age: Optional[float]) -> None:
        self._max_events = max_events
        self._max_age = max_age
        self._clock = LogClock()
        #: So many events more than `max_events` may be there before some are let go.
        self.slack = None if max_events is None else max(100, max_events // 10)

    def trim(self, connection: sqlite3.Connection, written: int) -> bool:
        """Let some events go; True if there are more to go.

        Args:
            connection: within a transaction.
            written: events that were written since the last call.
        """
        now = self._clock.now(connection)
        first = connection.execute("SELECT min(position) FROM events").fetchone()[0]
        if first is None or (self._max_events is None and self._max_age is None):
            return False
        end = last_position(connection) + 1
        stop = min(first + max(_MOST_TRIMMED, 2 * written), end)
        keep = int(first)
        if self._max_events is not None:
            keep = max(keep, end - self._max_events)
        if self._max_age is not None:
            keep = max(keep, _first_of_age(connection, first, stop, now - self._max_age, now))
        keep = min(keep, stop)
        if keep > first:
            connection.execute("DELETE FROM events WHERE position < ?", (keep,))
            # Of runs older than those whose events are left: later ones have theirs.
            connection.execute(
                "DELETE FROM inputs WHERE run < ifnull((SELECT run FROM events ORDER BY position "
                "LIMIT 1), (SELECT max(id) + 1 FROM runs)) AND NOT EXISTS "
                "(SELECT 1 FROM events WHERE run = inputs.run)"
            )
        return bool(keep == stop < end)


def _first_of_age(
    connection: sqlite3.Connection, first: int, stop: int, oldest: float, now: float
) -> int:
    """The position, from `first` to `stop`, before which all events may go by their age.

    An event goes with an older one behind it.  One from a clock that was ahead
    has no age of its own: it neither goes for itself nor keeps those behind it.
    """
    young = connection.execute(
        "SELECT position FROM events WHERE position < ? AND timestamp BETWEEN ? AND ? "
        "ORDER BY position LIMIT 1",
        (stop, oldest, now),
    ).fetchone()
    end = young[0] if young else stop
    old = connection.execute(
        "SELECT position FROM events WHERE position < ? AND timestamp < ? "
        "ORDER BY position DESC LIMIT 1",
        (end, oldest),
    ).fetchone()
    keep = old[0] + 1 if old else first
    if not young and keep < stop:  # the rest is ahead: what comes behind it decides
        behind = connection.execute(
            "SELECT timestamp FROM events WHERE position >= ? AND timestamp <= ? "
            "ORDER BY position LIMIT 1",
            (stop, now),
        ).fetchone()
        if behind and behind[0] < oldest:
            return stop
    return int(keep)


def forget_runs(connection: sqlite3.Connection) -> None:
    """Of runs without an event left, the newest 10,000 are remembered."""
    connection.execute(
        "DELETE FROM runs WHERE status NOT IN ('queued', 'running', 'interrupted', 'suspended') "
        "AND NOT EXISTS (SELECT 1 FROM resumable WHERE run = runs.id) AND id <= "
        "(SELECT max(id) FROM runs) - ? AND NOT EXISTS "
        "(SELECT 1 FROM events WHERE run = runs.id)",
        (_RUNS_KEPT,),
    )
