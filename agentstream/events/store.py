"""Where events are kept: EventStore, the interface, and MemoryStore.

A store gives positions, keeps what it can, and says what it has let go.  It
knows no subscribers; events/stream.py does.
"""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections import deque
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Tuple,
)

from agentstream import checks
from agentstream.errors import LogError
from agentstream.events import payloads
from agentstream.events.model import TERMINAL, Event, make_event

__all__ = ["Bounds", "EventStore", "MemoryStore", "RunState", "StopCallback"]

#: Called with a workflow id and a reason; True if that run is being stopped.
StopCallback = Callable[[str, str], bool]


class Bounds(NamedTuple):
    """What can be read: offsets of a workflow, or positions of the log, `first` to `last`.

    `first` is `last + 1` where nothing is left; both are 0 where nothing ever was.
    """

    first: int
    last: int


class RunState(NamedTuple):
    """A run as its store knows it.

    Attributes:
        workflow_id, parent_workflow_id: as in `Event`.
        name: the workflow's name; "" where its log does not tell.
        status: "queued", "running", "completed", "failed", "cancelled", or
            "closed": no workflow's end is in the log, and nothing more will be.
        started_at, ended_at: Unix times in seconds, or None.
        last_offset: of its newest event; 0 for none.
        usage: its tokens, as its last event has them, or None.
    """

    workflow_id: str
    parent_workflow_id: Optional[str]
    name: str
    status: str
    started_at: Optional[float]
    ended_at: Optional[float]
    last_offset: int
    usage: Optional[Mapping[str, Any]]


class EventStore(ABC):
    """Keeps events.  All methods may be called from any thread.

    `append`, `read`, `bounds`, `has_ended`, `runs` and `wait` are what a store
    must have; the rest is for stores that give positions later, or are shared.
    """

    #: True if other processes may append to the log as well.
    shared = False

    @abstractmethod
    def append(self, event: Event) -> Event:
        """Keep an event; returns it with its position, if the store gives that at once.

        Called under a stream's lock: it must not wait for a disk.  One that is
        there already, by workflow and offset, is not kept twice.  Where it
        raises, `bounds` must tell whether the event was kept.
        """

    def keep(self, fields: Tuple[Any, ...]) -> Event:
        """`append` for an event's fields; a store that makes an Event of its own saves one."""
        return self.append(make_event(fields))

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

    @abstractmethod
    def runs(self, *, limit: int = 100) -> List[RunState]:
        """The runs that are known, the newest first."""

    @abstractmethod
    def run(self, workflow_id: str) -> Optional[RunState]:
        """One run, or None where it is not known."""

    @abstractmethod
    def wait(self, after: int, timeout: float) -> bool:
        """Wait until there are events with a position above `after`; False if none came in time.

        `timeout` is in seconds.  Returns early when the store is closed.
        """

    # For stores that keep events later than they take them.

    def settle(self, event: Event) -> None:  # noqa: B027
        """Wait until an appended event is kept as durably as the store promises.

        Raises:
            LogError: it could not be.
        """

    def flush(self) -> None:  # noqa: B027
        """Wait until all that was appended is kept.

        Raises:
            LogError: it could not be.
        """

    def unplaced(self) -> Dict[str, int]:
        """The workflows whose newest events have no position yet, with their last offsets."""
        return {}

    def position_of(self, workflow_id: str, offset: int) -> Optional[int]:
        """An event's position; None if it has none yet, or is not there."""
        events = self.read(workflow_id=workflow_id, after=offset - 1, limit=1)
        return events[0].position if events and events[0].offset == offset else None

    # For stores that several processes share.

    def claim(self, workflow_id: str, parent_workflow_id: Optional[str] = None) -> None:
        """Become the one writer of a new workflow's events; `append` follows.

        Raises:
            LogError: it has events already, or another writer.
        """
        if self.bounds(workflow_id).last or self.has_ended(workflow_id):
            raise LogError(f"workflow {workflow_id!r} has a log already: choose another id")

    def read_others(self, after: int, limit: int) -> Tuple[List[Event], int]:
        """What others appended after a position, at most `limit`, and up to where that goes."""
        return [], after

    def request_stop(self, workflow_id: str, reason: str) -> bool:
        """Ask the process that runs a workflow to stop it; False if none does."""
        return False

    def watch_stops(self, callback: StopCallback) -> None:  # noqa: B027
        """Call `callback` with the requests of others; a bound method, which is not kept alive."""

    def close(self) -> None:  # noqa: B027 - memory needs none
        """Write what is pending and let go of files.  Idempotent."""

    # What a fork needs: the log at rest while it is copied.  All streams come first: who
    # appends holds a stream's lock when it takes the store's.

    _fork_order = 1

    def _before_fork(self) -> None:  # noqa: B027
        """Hold the log still."""

    def _after_fork_in_parent(self) -> None:  # noqa: B027
        """Let it go again."""

    def _after_fork(self) -> None:  # noqa: B027
        """In the child: the same, with fresh locks."""


class _Kept:
    """What is kept of one workflow."""

    __slots__ = ("events", "last")

    def __init__(self, last: int) -> None:
        self.events: Deque[Event] = deque()
        self.last = last


class _State:
    """What is known of a run, though its events may be gone."""

    __slots__ = ("end", "name", "parent", "started")

    def __init__(self, parent: Optional[str]) -> None:
        self.parent = parent
        self.name = ""
        self.started: Optional[float] = None  # until its first event
        self.end: Optional[Event] = None


class MemoryStore(EventStore):
    """Keeps the newest `capacity` events of all workflows together; the oldest go first."""

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity: int = checks.whole("capacity", capacity, 1, of="MemoryStore")
        self._lock = threading.Lock()
        self._events: Deque[Event] = deque()
        self._workflows: Dict[str, _Kept] = {}
        self._gone: Dict[str, int] = {}  # last offset of workflows with no event left, oldest first
        self._position = 0
        self._ended: Dict[str, None] = {}  # the workflows that ended last, oldest first
        self._states: Dict[str, _State] = {}  # of the newest runs, oldest first
        self._closed = False
        self._renew_news()

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._events)}/{self._capacity}>"

    def _renew_news(self) -> None:
        self._news = threading.Condition(self._lock)
        self._waiting = 0

    def claim(self, workflow_id: str, parent_workflow_id: Optional[str] = None) -> None:
        """See `EventStore.claim`; the run is known, as queued, from here on."""
        super().claim(workflow_id, parent_workflow_id)
        with self._lock:
            self._know(workflow_id, parent_workflow_id)

    def append(self, event: Event) -> Event:
        """See `EventStore.append`; the position is given at once."""
        return self.keep(event)

    def keep(self, fields: Tuple[Any, ...]) -> Event:
        """See `EventStore.keep`."""
        event_id, offset, _, kind, workflow_id, parent, timestamp, data = fields
        with self._lock:
            kept = self._workflows.get(workflow_id)
            if kept is None:
                kept = self._begin(make_event(fields))
            if offset <= kept.last:
                return self._again(kept, make_event(fields))
            position = self._position = self._position + 1
            event = make_event(
                (event_id, offset, position, kind, workflow_id, parent, timestamp, data)
            )
            kept.events.append(event)
            kept.last = offset
            if kind in TERMINAL:
                self._end(event)
            events = self._events
            events.append(event)
            if len(events) > self._capacity:
                self._drop_oldest()
            if self._waiting:
                self._news.notify_all()
        return event

    def _begin(self, event: Event) -> _Kept:
        workflow_id = event.workflow_id
        last = self._gone.get(workflow_id, 0)
        if event.offset <= last:
            return _Kept(last)
        self._gone.pop(workflow_id, None)
        kept = self._workflows[workflow_id] = _Kept(last)
        state = self._know(workflow_id, event.parent_workflow_id)
        if state.started is None:
            state.name = payloads.text(event.data, "workflow")
            state.started = event.timestamp
        return kept

    def _know(self, workflow_id: str, parent: Optional[str]) -> _State:
        state = self._states.get(workflow_id)
        if state is None:
            state = self._states[workflow_id] = _State(parent)
            _forget_oldest(self._states, self._capacity)
        return state

    def _again(self, kept: _Kept, event: Event) -> Event:
        """What is kept of an event that is appended a second time."""
        first = kept.events[0].offset if kept.events else kept.last + 1
        return kept.events[event.offset - first] if event.offset >= first else event

    def _end(self, event: Event) -> None:
        workflow_id = event.workflow_id
        self._ended[workflow_id] = None
        _forget_oldest(self._ended, self._capacity)
        state = self._states.get(workflow_id)
        if state is not None:
            state.end = event

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

    def runs(self, *, limit: int = 100) -> List[RunState]:
        """See `EventStore.runs`."""
        with self._lock:
            newest = list(self._states.items())[-1 : -limit - 1 : -1]
            return [self._run_state(workflow_id, state) for workflow_id, state in newest]

    def run(self, workflow_id: str) -> Optional[RunState]:
        """See `EventStore.run`."""
        with self._lock:
            state = self._states.get(workflow_id)
            return None if state is None else self._run_state(workflow_id, state)

    def _run_state(self, workflow_id: str, state: _State) -> RunState:
        kept, end = self._workflows.get(workflow_id), state.end
        return RunState(
            workflow_id,
            state.parent,
            state.name,
            _status(state),
            state.started,
            None if end is None else end.timestamp,
            self._gone.get(workflow_id, 0) if kept is None else kept.last,
            None if end is None else payloads.usage_of(end.data),
        )

    def wait(self, after: int, timeout: float) -> bool:
        """See `EventStore.wait`."""
        with self._lock:
            self._waiting += 1
            try:
                self._news.wait_for(lambda: self._position > after or self._closed, timeout)
                return self._position > after
            finally:
                self._waiting -= 1

    def close(self) -> None:
        """End every `wait`; what is kept can still be read."""
        with self._lock:
            self._closed = True
            self._news.notify_all()

    def _before_fork(self) -> None:
        self._lock.acquire()

    def _after_fork_in_parent(self) -> None:
        self._lock.release()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._renew_news()


def _status(state: _State) -> str:
    if state.end is not None:
        return payloads.status_of(state.end.type)
    return "queued" if state.started is None else "running"


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
