"""MemoryStore: the newest events, in this process's memory.

A signal handler may append while its own thread reads: the lock is re-entrant,
and a read that was overtaken begins again.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections import deque
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Container,
    Deque,
    Dict,
    List,
    Mapping,
    Optional,
    Tuple,
    TypeVar,
)

from agentstream import checks, threads
from agentstream.errors import LogError
from agentstream.events import accessors
from agentstream.events.entry import check_id, check_reason, check_size
from agentstream.events.model import (
    RELEASING,
    TERMINAL,
    Event,
    EventType,
    FrozenDict,
    make_event,
)
from agentstream.events.resting import QUEUED, cancelled, status_of_rest
from agentstream.events.store import (
    Bounds,
    EventStore,
    PublishOwn,
    RunState,
    StopAnswer,
    end_of,
    first_line,
    has_log,
)

if TYPE_CHECKING:
    from agentstream.events.memory_checkpoints import MemoryCheckpoints

__all__ = ["MemoryStore"]

T = TypeVar("T")


class _Kept:
    """What is kept of one workflow."""

    __slots__ = ("events", "last", "rests")

    def __init__(self, last: int) -> None:
        self.events: Deque[Event] = deque()
        self.last = last
        self.rests = False  # nobody has it, and nothing is taken


class _State:
    """What is known of a run, though its events may be gone."""

    __slots__ = ("closed", "end", "ended", "input", "name", "parent", "rest", "started", "usage")

    def __init__(self, parent: Optional[str]) -> None:
        self.parent = parent
        self.name = ""
        self.started: Optional[float] = None  # until its first event
        self.rest: Optional[str] = None  # its status, while nobody runs it
        self.closed = False
        self.end: Optional[EventType] = None
        self.ended: Optional[float] = None
        self.usage: Optional[Mapping[str, Any]] = None
        self.input: Optional[str] = None


class MemoryStore(EventStore):
    """Keeps the newest `capacity` events of all workflows together; the oldest go first.

    Checkpoints of runs are kept until they end.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        checks.whole("capacity", capacity, 1, of="MemoryStore")
        self._capacity = capacity
        self._lock = threading.RLock()
        self._events: Deque[Event] = deque()
        self._workflows: Dict[str, _Kept] = {}
        self._gone: Dict[str, int] = {}  # last offset of workflows with no event left, oldest first
        self._position = 0
        self._ended: Dict[str, None] = {}  # the workflows that ended last, oldest first
        self._states: Dict[str, _State] = {}  # of the newest runs, oldest first
        self._closed = False
        self._rests: Dict[str, None] = {}  # the runs that nobody has
        self._publish: Optional[Tuple[weakref.ref[Any], Callable[..., None]]] = None
        self._checkpoints: Optional[MemoryCheckpoints] = None
        self._renew_news()

    @property
    def checkpoints(self) -> MemoryCheckpoints:  # type: ignore[override]
        """See `EventStore.checkpoints`; made when they are first asked for."""
        with self._lock:
            if self._checkpoints is None:
                from agentstream.events.memory_checkpoints import (  # noqa: PLC0415
                    MemoryCheckpoints,
                )

                self._checkpoints = MemoryCheckpoints(self)
            return self._checkpoints

    def __repr__(self) -> str:
        return f"<MemoryStore {len(self._events)}/{self._capacity}>"

    def _renew_news(self) -> None:
        self._news = threading.Condition(self._lock)
        self._waiting = 0

    def claim(self, workflow_id: str, parent_workflow_id: Optional[str] = None) -> None:
        """See `EventStore.claim`; the run is known, as queued, from here on."""
        check_id("workflow_id", workflow_id)
        if parent_workflow_id is not None:
            check_id("parent_workflow_id", parent_workflow_id)
        super().claim(workflow_id, parent_workflow_id)
        with self._lock:
            if workflow_id in self._rests:
                raise has_log(workflow_id)
            self._know(workflow_id, parent_workflow_id)

    def note_input(self, workflow_id: str, text: str) -> None:
        """See `EventStore.note_input`."""
        with self._lock:
            state = self._states.get(workflow_id)
            if state is not None:
                state.input = text

    def append(self, fields: Tuple[Any, ...]) -> Event:
        """See `EventStore.append`; the position is given at once.

        Raises:
            ConfigError: the event's workflow id is no text of 1 to 256 characters.
            LogError: the event is too large, or nobody has the run (`CheckpointStore.resume`).
        """
        event_id, offset, _, kind, workflow_id, parent, timestamp, data = fields
        if data.__class__ is not FrozenDict:  # else a stream has looked at it
            check_size(data)
        with self._lock:
            kept = self._workflows.get(workflow_id)
            if kept is None:
                check_id("workflow_id", workflow_id)
                kept = self._begin(make_event(fields))
            if offset <= kept.last:
                return self._again(kept, make_event(fields))
            if kept.rests:
                raise LogError(f"workflow {workflow_id!r} rests: resume it")
            position = self._position = self._position + 1
            event = make_event(
                (event_id, offset, position, kind, workflow_id, parent, timestamp, data)
            )
            kept.events.append(event)
            kept.last = offset
            if kind in RELEASING:
                self._release(event)
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
        if workflow_id in self._rests:
            raise LogError(f"workflow {workflow_id!r} rests: resume it")
        kept = self._workflows[workflow_id] = _Kept(last)
        self._gone.pop(workflow_id, None)
        state = self._know(workflow_id, event.parent_workflow_id)
        if state.started is None:
            state.name = accessors.text(event.data, "workflow")
            if event.type not in TERMINAL:  # else it never began
                state.started = event.timestamp
        return kept

    def _know(self, workflow_id: str, parent: Optional[str]) -> _State:
        state = self._states.get(workflow_id)
        if state is None:
            state = self._states[workflow_id] = _State(parent)
            _forget_oldest(self._states, self._capacity, self._rests)
        return state

    def _again(self, kept: _Kept, event: Event) -> Event:
        """What is kept of an event that is appended a second time."""
        first = kept.events[0].offset if kept.events else kept.last + 1
        return kept.events[event.offset - first] if event.offset >= first else event

    def _release(self, event: Event) -> None:
        if event.type in TERMINAL:
            self._end(event)
            if self._checkpoints is not None:
                self._checkpoints.end(event.workflow_id)
        else:
            status = status_of_rest(event.data)
            self._rest(event.workflow_id, status)
            if self._checkpoints is not None:
                self._checkpoints.rest(event.workflow_id, status)
            state = self._states.get(event.workflow_id)
            if state is not None:
                state.usage = accessors.usage_of(event.data)

    def _end(self, event: Event) -> None:
        workflow_id = event.workflow_id
        self._ended[workflow_id] = None
        _forget_oldest(self._ended, self._capacity)
        state = self._states.get(workflow_id)
        if state is not None:  # not the event: its output may be large, and goes in its turn
            state.end, state.ended, state.rest = event.type, event.timestamp, None
            state.usage = accessors.usage_of(event.data)

    def _drop_oldest(self) -> None:
        workflow_id = self._events.popleft()[4]
        kept = self._workflows[workflow_id]
        kept.events.popleft()
        if not kept.events:
            self._gone[workflow_id] = kept.last
            del self._workflows[workflow_id]
            if workflow_id in self._states:
                self._states[workflow_id].input = None
            _forget_oldest(self._gone, self._capacity, self._rests)

    # --- reading ----------------------------------------------------------------------------

    def _steady(self, look: Callable[[], T]) -> T:
        """What `look` finds in a log that does not change meanwhile."""
        with self._lock:
            while True:
                position = self._position
                try:
                    found = look()
                except (LookupError, RuntimeError):
                    if position == self._position:
                        raise
                    continue
                if position == self._position:  # else a signal handler has appended
                    return found

    def read(
        self, *, workflow_id: Optional[str] = None, after: int = 0, limit: int = 500
    ) -> List[Event]:
        """See `EventStore.read`."""
        return self._steady(lambda: self._read(workflow_id, after, limit))

    def _read(self, workflow_id: Optional[str], after: int, limit: int) -> List[Event]:
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
        return self._steady(lambda: self._bounds(workflow_id))

    def _bounds(self, workflow_id: Optional[str]) -> Bounds:
        if workflow_id is None:
            first = self._position - len(self._events) + 1 if self._events else 0
            return Bounds(first, self._position)
        kept = self._workflows.get(workflow_id)
        if kept is not None and kept.events:
            return Bounds(kept.events[0].offset, kept.last)
        # None of them is there: so too for a signal handler amid the first's append.
        last = self._gone.get(workflow_id, 0) if kept is None else kept.last
        return Bounds(last + 1, last) if last else Bounds(0, 0)

    def has_ended(self, workflow_id: str) -> bool:
        """See `EventStore.has_ended`."""
        with self._lock:
            return workflow_id in self._ended

    def runs(self, *, limit: int = 100) -> List[RunState]:
        """See `EventStore.runs`."""
        return self._steady(
            lambda: [
                self._run_state(workflow_id, state, first_line(state.input))
                for workflow_id, state in _newest(self._states, limit)
            ]
        )

    def run(self, workflow_id: str) -> Optional[RunState]:
        """See `EventStore.run`."""
        with self._lock:
            known = self._states.get(workflow_id)
            state = None
            if known is not None:
                state = self._run_state(workflow_id, known, known.input)
        return None if state is None else state.with_end(end_of(self, state))

    def _run_state(self, workflow_id: str, state: _State, input: Optional[str]) -> RunState:
        kept = self._workflows.get(workflow_id)
        return RunState(
            workflow_id,
            state.parent,
            state.name,
            _status(state),
            state.started,
            state.ended,
            self._gone.get(workflow_id, 0) if kept is None else kept.last,
            state.usage,
            input=input,
        )

    # --- runs that rest ---------------------------------------------------------------------

    def _status_of(self, workflow_id: str) -> Optional[str]:
        state = self._states.get(workflow_id)
        return None if state is None else _status(state)

    def _last_of(self, workflow_id: str) -> int:
        kept = self._workflows.get(workflow_id)
        return self._gone.get(workflow_id, 0) if kept is None else kept.last

    def _queue(self, workflow_id: str, name: str, input: Optional[str]) -> None:
        if workflow_id in self._states or self._last_of(workflow_id):
            raise has_log(workflow_id)
        state = self._know(workflow_id, None)
        state.name, state.input = name, input
        self._rest(workflow_id, QUEUED)

    def _rest(self, workflow_id: str, status: str) -> None:
        self._rests[workflow_id] = None
        kept, state = self._workflows.get(workflow_id), self._states.get(workflow_id)
        if kept is not None:
            kept.rests = True
        if state is not None:
            state.rest = status

    def _go_on(self, workflow_id: str) -> None:
        self._rests.pop(workflow_id, None)
        kept, state = self._workflows.get(workflow_id), self._states.get(workflow_id)
        if kept is not None:
            kept.rests = False
        if state is not None:
            state.rest = None

    def _close_run(self, workflow_id: str) -> None:
        self._go_on(workflow_id)
        self._ended[workflow_id] = None
        self._states[workflow_id].closed = True

    def publish_through(self, publish: PublishOwn) -> None:
        """See `EventStore.publish_through`."""
        # Not a WeakMethod, which runs Python as its object goes: see threads/weak.py.
        method: Any = publish
        self._publish = weakref.ref(method.__self__), method.__func__

    def request_stop(self, workflow_id: str, reason: str) -> StopAnswer:
        """See `EventStore.request_stop`: no other process runs anything in this log.

        Raises:
            ConfigError: an argument is no text, or too long.
        """
        check_id("workflow_id", workflow_id)
        check_reason(reason)
        with self._lock:
            root = self.checkpoints.root_of(workflow_id)
            if root not in self._rests:
                return StopAnswer.NOBODY
            names = [*self.checkpoints.inner_of(root), root]
            for name in names:
                self._go_on(name)
        for name in names:
            self._cancel(name, reason)
        return StopAnswer.ENDED

    def _cancel(self, workflow_id: str, reason: str) -> None:
        """End a run that nobody has."""
        with self._lock:
            state, last = self._states[workflow_id], self._last_of(workflow_id)
            kept = self._workflows.get(workflow_id)
            newest = kept.events[-1] if kept is not None and kept.events else None
            rested = newest is not None and newest.type is EventType.WORKFLOW_SUSPENDED
            data = cancelled(newest.data if newest and rested else {}, state.name, reason)
        owner, publish = None, None
        if self._publish is not None:
            reference, publish = self._publish
            owner = reference()
        kind = EventType.WORKFLOW_CANCELLED
        if owner is not None and publish is not None:
            publish(owner, workflow_id, state.parent, last, kind, data)
            return
        event_id = f"{workflow_id}:{last + 1}"
        now = time.time()
        self.append(
            (event_id, last + 1, None, kind, workflow_id, state.parent, now, FrozenDict(data))
        )

    def wait(self, after: int, timeout: float) -> bool:
        """See `EventStore.wait`."""
        with self._lock:
            self._waiting += 1
            try:
                seconds = threads.bounded(timeout)
                self._news.wait_for(lambda: self._position > after or self._closed, seconds)
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
        self._lock = threading.RLock()
        self._renew_news()


def _status(state: _State) -> str:
    if state.end is not None:
        return accessors.status_of(state.end)
    if state.rest is not None or state.closed:
        return state.rest or "closed"
    return "queued" if state.started is None else "running"


def _forget_oldest(entries: Dict[str, Any], capacity: int, spared: Container[str] = ()) -> None:
    if len(entries) > capacity:
        oldest = next((key for key in entries if key not in spared), None)
        if oldest is not None:
            del entries[oldest]


def _newest(states: Dict[str, _State], limit: int) -> List[Tuple[str, _State]]:
    """The last `limit` items, of which no signal handler sees the middle."""
    return list(itertools.islice(reversed(states.items()), max(limit, 0)))


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
