"""SharedStore: what stores that several processes share have in common.

A writer's thread commits what was appended, a reader knows what is committed; both are the
store's own.  Here is what a stream sees of the two: an append that claims its run first, what
is read of committed events and those in the queue, and a close that a signal handler may call.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from typing import Any, List, Optional, Protocol, Tuple, TypeVar

from agentstream.events.entry import check_id, check_size
from agentstream.events.model import Event, make_event
from agentstream.events.store import Bounds, EventStore, has_log

__all__ = ["Contents", "SharedStore"]

_CLOSE_S = 20.0
_LOOK_S = 0.05
_Self = TypeVar("_Self", bound="SharedStore")


class Contents(Protocol):
    """What can be read of a log: what is committed, and what waits to be."""

    def of_run(self, workflow_id: str, after: int, limit: int) -> List[Event]:
        """A workflow's events above an offset; those not committed have no position."""

    def of_all(self, after: int, limit: int) -> List[Event]:
        """All events above a position; waits for the commit of those appended before."""

    def bounds_of(self, workflow_id: str) -> Bounds:
        """First and last readable offset of a workflow, uncommitted events included."""

    def bounds(self) -> Bounds:
        """First and last readable position of the log."""

    def has_ended(self, workflow_id: str) -> bool:
        """True if the workflow's terminal event is known."""


class SharedStore(EventStore):
    """An `EventStore` over a writer's thread and what can be read."""

    shared = True
    _exit_order = 2  # after the streams

    _writer: Any  # each kind of log has its own
    _contents: Contents
    _closed = False
    _closer: Optional[int] = None  # the thread that closes it

    @abstractmethod
    def _claim(self, workflow_id: str, parent: Optional[str]) -> Any:
        """The run as this process writes it, claimed unless it is already."""

    @abstractmethod
    def _has(self, event: Event) -> bool:
        """True if a run of ours has ended with this event in it."""

    @abstractmethod
    def _close(self) -> None:
        """Write what is pending, let go of all, and set `_closed`."""

    # --- writing ----------------------------------------------------------------------------

    def claim(self, workflow_id: str, parent_workflow_id: Optional[str] = None) -> None:
        """See `EventStore.claim`; waits for the log.

        Raises:
            ConfigError: an id is no text, or none that the log can hold.
        """
        check_id("workflow_id", workflow_id)
        if parent_workflow_id is not None:
            check_id("parent_workflow_id", parent_workflow_id)
        if self._claim(workflow_id, parent_workflow_id).last:
            raise has_log(workflow_id)

    def note_input(self, workflow_id: str, text: str) -> None:
        """See `EventStore.note_input`: it is committed with the run's first event."""
        run = self._writer.runs.get(workflow_id)
        if run is not None:
            run.input = text

    def append(self, fields: Tuple[Any, ...]) -> Event:
        """See `EventStore.append`; the position comes with the commit.

        Raises:
            ConfigError: the event's workflow id is no text, or none that the log can hold.
            LogError: the log takes no events, or none so large.
        """
        event = make_event(fields)
        run = self._writer.runs.get(event[4])
        if run is None:
            check_id("workflow_id", event[4])
            if self._has(event):
                return event
            if event[5] is not None:
                check_id("parent_workflow_id", event[5])
            run = self._claim(event[4], event[5])
        check_size(event[7])
        self._writer.append(run, event)
        return event

    def flush(self) -> None:
        """See `EventStore.flush`."""
        self._writer.flush()

    # --- reading ----------------------------------------------------------------------------

    def read(
        self, *, workflow_id: Optional[str] = None, after: int = 0, limit: int = 500
    ) -> List[Event]:
        """See `EventStore.read`.

        Of one workflow, events that are not committed are among them, without a
        position; those of all wait for the commit.

        Raises:
            LogError: the log cannot be read.
        """
        if workflow_id is None:
            return self._contents.of_all(after, limit)
        return self._contents.of_run(workflow_id, after, limit)

    def bounds(self, workflow_id: Optional[str] = None) -> Bounds:
        """See `EventStore.bounds`; of all, it may wait a moment for a commit."""
        if workflow_id is None:
            return self._contents.bounds()
        return self._contents.bounds_of(workflow_id)

    def has_ended(self, workflow_id: str) -> bool:
        """See `EventStore.has_ended`."""
        return self._contents.has_ended(workflow_id)

    # --- the end ----------------------------------------------------------------------------

    def close(self) -> None:
        """Write what is pending, let go of the log.  Idempotent.

        Reading is still possible afterwards.  In a signal handler that has interrupted
        the closing itself, it returns at once, and the closing goes on afterwards.
        """
        me = threading.get_ident()
        mine = False
        try:
            with self._writer.lock:
                if self._closer is not None:
                    if self._closer != me:
                        self._wait_for_closer()
                    return
                mine = True
                self._closer = me
            self._close()
        finally:
            if mine and not self._closed:
                self._closer = None  # it was broken off: another call may finish it

    def _wait_for_closer(self) -> None:
        """Wait until another thread has closed it; with the writer's lock, looking now and then."""
        end = time.monotonic() + _CLOSE_S
        while not self._closed and time.monotonic() < end:
            self._writer.news.wait(_LOOK_S)

    def _end(self) -> None:
        """Say that it is closed: the last thing that `_close` does."""
        with self._writer.lock:
            self._closed = True
            self._writer.news.notify_all()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _at_exit(self) -> None:
        self.close()
