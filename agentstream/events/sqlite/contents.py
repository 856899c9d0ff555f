"""Contents: a log as its readers see it, what is committed and what waits to be."""

from __future__ import annotations

from typing import List, Optional

from agentstream.errors import LogError
from agentstream.events.model import Event
from agentstream.events.resting import RESTING
from agentstream.events.sqlite.reader import Reader
from agentstream.events.sqlite.resumable import ACTIVE
from agentstream.events.sqlite.statements import Run
from agentstream.events.sqlite.writer import Writer
from agentstream.events.store import Bounds

__all__ = ["Contents"]

_NEWS_S = 0.1  # how long a reader waits for what is just being written


class Contents:
    """Reads events from the file and, where they are not there yet, from the writer's queue."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer

    def of_run(self, workflow_id: str, after: int, limit: int) -> List[Event]:
        """A workflow's events above an offset; those not committed have no position."""
        pending = self._pending_of(workflow_id, after)
        events = self._reader.of_run(workflow_id, after, limit)
        last = events[-1].offset if events else after
        for event in pending:
            if len(events) >= limit:
                break
            if event.offset > last:
                events.append(event)
        return events

    def of_all(self, after: int, limit: int) -> List[Event]:
        """All events above a position; waits for the commit of those appended before."""
        pending: List[Event] = []
        try:
            self._writer.flush()
        except LogError:  # then what is in memory follows, in the order it will be written
            with self._writer.lock:
                pending = list(self._writer.pending)
        events = self._reader.of_all(after, limit)
        if pending:
            first = self._reader.last_position() + 1
            for number, event in enumerate(pending, first):
                if number > after and len(events) < limit:
                    events.append(event._replace(position=number))
        return events

    def bounds_of(self, workflow_id: str) -> Bounds:
        """First and last readable offset of a workflow, uncommitted events included."""
        run = self._own(workflow_id)
        last = self._writer.last_of(run) if run is not None else 0
        pending = self._pending_of(workflow_id, 0)
        first, committed = self._reader.bounds_of(workflow_id)
        last = max(last, committed)
        if first is None:
            first = pending[0].offset if pending else last + 1 if last else 0
        return Bounds(first, last)

    def bounds(self) -> Bounds:
        """First and last readable position, counting all that was appended before the call.

        Waits until it is committed, so that `last` is the position it has in the file;
        what the disk does not take is added.
        """
        writer = self._writer
        appended = writer.appended()
        writer.urge(writer.bound)
        waiting = None
        while waiting is None:
            committed = writer.committed
            first, last = self._reader.bounds()
            waiting = writer.count_beyond(last, appended, committed)
        if first is None:
            first = last + 1 if last or waiting else 0
        return Bounds(first, last + waiting)

    def has_ended(self, workflow_id: str) -> bool:
        """True if the workflow's log takes no more events."""
        run = self._own(workflow_id)
        if run is not None:
            return run.ended
        return self._reader.status_of(workflow_id) not in (None, *ACTIVE, *RESTING)

    def refresh(self) -> None:
        """Give what was appended a moment to be committed."""
        self._writer.urge(_NEWS_S)

    def _own(self, workflow_id: str) -> Optional[Run]:
        """A run that this process writes: not one that was taken from it."""
        run = self._writer.runs.get(workflow_id)
        return None if run is None or run.lost else run

    def _pending_of(self, workflow_id: str, after: int) -> List[Event]:
        writer = self._writer
        with writer.lock:
            run = self._own(workflow_id)
            if run is None or run.committed >= run.last:
                return []
            return [e for e in list(writer.pending) if e[4] == workflow_id and e[1] > after]
