"""Where events are kept: EventStore, the interface, and MemoryStore.

A store gives positions, keeps what it can, and says what it has let go.  It
knows no subscribers; events/stream.py does.
"""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional

from agentstream.errors import ConfigError
from agentstream.events.model import TERMINAL, Event, make_event

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
        """Keep an event; returns it with its position, if the store gives that at once.

        Where it raises, `bounds` must tell whether the event was kept.
        """

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
        """What of a workflow, or of the whole log, can be read; all that was appended counts."""

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
        # Re-entrant: before a fork it is taken once for every stream over this store.
        self._lock = threading.RLock()
        self._events: Deque[Event] = deque()
        self._workflows: Dict[str, _Kept] = {}
        self._gone: Dict[str, int] = {}  # last offset of workflows with no event left, oldest first
        self._position = 0
        self._ended: Dict[str, None] = {}  # the workflows that ended last, oldest first

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._events)}/{self._capacity}>"

    def append(self, event: Event) -> Event:
        """See `EventStore.append`; the position is given at once."""
        with self._lock:
            position = self._position = self._position + 1
            event_id, offset, _, kind, workflow_id, parent, timestamp, data = event
            event = make_event(
                (event_id, offset, position, kind, workflow_id, parent, timestamp, data)
            )
            kept = self._workflows.get(workflow_id)
            if kept is None:
                kept = self._workflows[workflow_id] = _Kept()
                self._gone.pop(workflow_id, None)
            kept.events.append(event)
            kept.last = offset
            if kind in TERMINAL:
                self._ended[workflow_id] = None
                _forget_oldest(self._ended, self._capacity)
            self._events.append(event)
            if len(self._events) > self._capacity:
                self._drop_oldest()
        return event

    def _drop_oldest(self) -> None:
        workflow_id = self._events.popleft()[4]
        kept = self._workflows[workflow_id]
        kept.events.popleft()
        if not kept.events:
            del self._workflows[workflow_id]
            self._gone[workflow_id] = kept.last
            _forget_oldest(self._gone, self._capacity)

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
                first = self._position - len(self._events) + 1 if self._events else 0
                return Bounds(first, self._position)
            kept = self._workflows.get(workflow_id)
            if kept is not None:
                return Bounds(kept.events[0].offset, kept.last)
            last = self._gone.get(workflow_id, 0)
            return Bounds(last + 1, last) if last else Bounds(0, 0)

    def has_ended(self, workflow_id: str) -> bool:
        """See `EventStore.has_ended`."""
        with self._lock:
            return workflow_id in self._ended

    def _before_fork(self) -> None:
        self._lock.acquire()

    def _after_fork(self, child: bool) -> None:
        if child:
            self._lock = threading.RLock()
        else:
            self._lock.release()


def _forget_oldest(entries: Dict[str, Any], capacity: int) -> None:
    if len(entries) > capacity:
        del entries[next(iter(entries))]


def _slice(events: Deque[Event], start: int, limit: int) -> List[Event]:
    """`events[start : start + limit]`, walked to from the nearer end."""
    size = len(events)
    stop = min(size, start + limit)
    if start >= stop:
        return []
    if stop <= size - start:
        return list(itertools.islice(events, start, stop))
    newest = list(itertools.islice(reversed(events), size - stop, size - start))
    newest.reverse()
    return newest
