"""Notices: warnings of the log's own that its file cannot take."""

from __future__ import annotations

import time
from typing import List

from agentstream.errors import LogError
from agentstream.events import payloads
from agentstream.events.model import Event, EventType, FrozenDict

__all__ = ["Notices"]


class Notices:
    """Keeps the warnings of a failing disk until a reader takes them."""

    def __init__(self, log_name: str) -> None:
        self._workflow_id = f"{log_name}-memory"
        self._events: List[Event] = []
        self._count = 0

    def add(self, error: LogError) -> None:
        """Warn that events are kept in memory because of `error`."""
        self._count += 1
        data = payloads.system_warning(
            f"{error}: events are kept in memory until it can be written"
        )
        self._events.append(
            Event(
                f"{self._workflow_id}:{self._count}",
                self._count,
                None,
                EventType.SYSTEM_WARNING,
                self._workflow_id,
                None,
                time.time(),
                FrozenDict(data),
            )
        )

    def take(self) -> List[Event]:
        """The warnings there are; they are not kept any longer."""
        taken, self._events = self._events, []
        return taken
