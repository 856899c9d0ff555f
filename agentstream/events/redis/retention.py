"""Retention: which events a log lets go, oldest first, some at a time."""

from __future__ import annotations

import time
from typing import Optional, Union

from agentstream import checks
from agentstream.events.redis.scripts import TRIM
from agentstream.events.redis.server import Server

__all__ = ["Retention"]

_RUNS_KEPT = 10_000  # ended ones
_PAGES = 100  # at a stretch
_PAUSE_S = 1.0


class Retention:
    """Lets go of what is beyond a number of events, an age or a size, and of nothing else.

    A commit's events go together.

    Args:
        max_events: how many to keep, of all runs together; None for all.
        max_age: seconds after which an event may go, by the server's clock; None for never.
        max_bytes: of events to keep; None for all.
    """

    def __init__(
        self, max_events: Optional[int], max_age: Optional[float], max_bytes: Optional[int]
    ) -> None:
        checks.whole("max_events", max_events, 1, optional=True)
        self._max_age = checks.seconds("max_age", max_age, optional=True)
        checks.whole("max_bytes", max_bytes, 1, optional=True)
        self._max_events = max_events
        self._max_bytes = max_bytes
        #: So many events more than `max_events` may be there before some are let go.
        self._slack = None if max_events is None else max(100, max_events // 10)
        self._done_at = 0.0
        self._done_to = 0

    def is_due(self, position: int) -> bool:
        """True if there may be something to let go, now that the log has come to `position`."""
        if self._slack is not None and position - self._done_to >= self._slack:
            return True
        limited = self._max_age is not None or self._max_bytes is not None
        return limited and time.monotonic() - self._done_at >= _PAUSE_S

    def trim(self, server: Server, log_id: bytes, position: int) -> None:
        """Let go of what is to go.

        Raises:
            LogError: the server could not be asked.
        """
        self._done_at, self._done_to = time.monotonic(), position
        limits = [_text(self._max_events), _text(self._max_age), _text(self._max_bytes)]
        for _ in range(_PAGES):
            if server.run(TRIM, log_id, *limits, _RUNS_KEPT) != [b"more"]:
                break


def _text(limit: Union[int, float, None]) -> str:
    return "" if limit is None else str(limit)
