"""LogClock: what time it is, for a log whose writers' clocks may be wrong.

By age, events are let go for good; one process whose clock is a year ahead must
not do that to a whole log.  So the log remembers what its last writers' clocks
had against the time since the machine was started, which nobody sets, and the
middle one of these counts.
"""

from __future__ import annotations

import json
import sqlite3
import time
from typing import List

from agentstream.threads import uptime

__all__ = ["LogClock"]

_KEPT = 5


class LogClock:
    """The log's own time; used by the writer's thread."""

    def __init__(self) -> None:
        self._noted = False
        self._offset = 0.0

    def now(self, connection: sqlite3.Connection) -> float:
        """Unix time in seconds, never ahead of this process's clock.

        The first call enters this process's clock into the log.  Two wrong clocks
        among the last five change nothing; after a restart of the machine it takes
        a few writers until the log's time has caught up.
        """
        if not self._noted:
            offsets = [*_offsets(connection), time.time() - uptime()][-_KEPT:]
            connection.execute(
                "INSERT OR REPLACE INTO meta VALUES ('clocks', ?)", (json.dumps(offsets),)
            )
            self._offset = sorted(offsets)[(len(offsets) - 1) // 2]
            self._noted = True
        return min(time.time(), uptime() + self._offset)


def _offsets(connection: sqlite3.Connection) -> List[float]:
    found = connection.execute("SELECT value FROM meta WHERE key = 'clocks'").fetchone()
    return [] if found is None else [float(offset) for offset in json.loads(found[0])]
