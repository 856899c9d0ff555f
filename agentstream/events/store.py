"""Where events are kept: EventStore, the interface, and MemoryStore.

A store gives positions, keeps what it can, and says what it has let go.  It
knows no subscribers; events/stream.py does.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from typing import Deque, Dict, List, NamedTuple, Optional, Sequence

from agentstream.errors import ConfigError
from agentstream.events.model import TERMINAL, Event

__all__ = ["Bounds", "EventStore", "MemoryStore"]


class Bounds(NamedTuple):
    """What can be read: offsets of a workflow, or positions of the log, `first` to `last`.

    `first` is `last + 1` where nothing is left; both are 0 where nothing ever was.
    """

    first: int
    last: int


class EventStore(ABC):
    """Keeps events.  All methods may be called from any thread."""

    @abstractmethod
    def append(self, event: Event) -> Event:
        """Keep an event; returns it with its position, if the store gives that at once."""

    @abstractmethod
    def read(
        self, *, workflow_id: Optional[str] = None, after: int = 0, limit: int = 500
    ) -> List[Event]:
        """The next events, at most `limit`, all that was appended before included.

        Those of one workflow with an offset above `after`, or those of all with
        a position above it.  What is gone is left out: compare with `bounds`.
        """

    @abstractmethod
    def bounds(self, workflow_id: Optional[str] = None) -> Bounds:
        """What of a workflow, or of the whole log, can be read."""

    @abstractmethod
    def has_ended(self, workflow_id: str) -> bool:
        """True if the workflow's terminal event is known."""

    def close(self) -> None:  # noqa: B027 - memory needs none
        """Write what is pending and let go of files.  Idempotent."""

    # What a fork needs: the log at rest while it is copied.

    def _before_fork(self) -> None:  # noqa: B027
        """Hold the log still."""

    def _after_fork(self, child: bool) -> None:  # noqa: B027
        """Let it go again; in a child, with fresh locks."""


class _Kept:
    """What is kept of one workflow."""

    __slots__ = ("events", "last")

    def __init__(self) -> None:
        self.events: Deque[Event] = deque()
        self.last = 0


class MemoryStore(EventStore):
    """Keeps the newest `capacity` events of all workflows together; the oldest go first."""

    def __init__(self, capacity: int = 10_000) -> None:
        if not isinstance(capacity, int) or capacity < 1:
            raise ConfigError(f"MemoryStore needs a capacity of 1 or more, not {capacity!r}")
        self._capacity = capacity
        self._lock = threading.Lock()
        self._events: Deque[Event] = deque()
        self._workflows: Dict[str, _Kept] = {}
        self._position = 0
        self._ended: Dict[str, None] = {}  # the workflows that ended last, oldest first

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._events)}/{self._capacity}>"

    def append(self, event: Event) -> Event:
        """See `EventStore.append`; the position is given at once."""
        with self._lock:
            self._position += 1
            event_id, offset, _, kind, workflow_id, parent, timestamp, data = event
            event = Event(
                event_id, offset, self._position, kind, workflow_id, parent, timestamp, data
            )
            kept = self._workflows.get(workflow_id)
            if kept is None:
                kept = self._workflows[workflow_id] = _Kept()
            kept.events.append(event)
            kept.last = offset
            if kind in TERMINAL:
                self._ended[workflow_id] = None
                if len(self._ended) > self._capacity:
                    del self._ended[next(iter(self._ended))]
            self._events.append(event)
            if len(self._events) > self._capacity:
                self._drop_oldest()
        return event

    def _drop_oldest(self) -> None:
        oldest = self._events.popleft()
        kept = self._workflows[oldest.workflow_id]
        kept.events.popleft()
        if not kept.events:
            del self._workflows[oldest.workflow_id]

    def read(
        self, *, workflow_id: Optional[str] = None, after: int = 0, limit: int = 500
    ) -> List[Event]:
        """See `EventStore.read`."""
        with self._lock:
            events: Deque[Event] = self._events
            if workflow_id is not None:
                kept = self._workflows.get(workflow_id)
                if kept is None:
                    return []
                events = kept.events
            if not events:
                return []
            first = events[0].offset if workflow_id is not None else events[0].position
            # Both count without a gap, so where to begin can be computed; a deque is
            # read fastest from its ends, and readers are mostly near the newer one.
            start = max(0, after + 1 - (first or 0))
            return _slice(events, start, limit)

    def bounds(self, workflow_id: Optional[str] = None) -> Bounds:
        """See `EventStore.bounds`."""
        with self._lock:
            if workflow_id is None:
                return Bounds(self._position - len(self._events) + 1, self._position)
            kept = self._workflows.get(workflow_id)
            return Bounds(0, 0) if kept is None else Bounds(kept.events[0].offset, kept.last)

    def has_ended(self, workflow_id: str) -> bool:
        """See `EventStore.has_ended`."""
        with self._lock:
            return workflow_id in self._ended

    def _before_fork(self) -> None:
        self._lock.acquire()

    def _after_fork(self, child: bool) -> None:
        if child:
            self._lock = threading.Lock()
        else:
            self._lock.release()


def _slice(events: Sequence[Event], start: int, limit: int) -> List[Event]:
    stop = min(len(events), start + limit)
    if start * 2 < len(events):
        return [events[i] for i in range(start, stop)]
    newest: List[Event] = []
    for event in reversed(events):
        if len(newest) >= len(events) - start:
            break
        newest.append(event)
    newest.reverse()
    return newest[: stop - start]
