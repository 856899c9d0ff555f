"""The events of a run that is followed in a log, through its rests; and what is said of these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Dict, Iterator, Optional

from agentstream.cli.log_place import LogPlace
from agentstream.cli.output import say
from agentstream.cli.resting import answers_told, goes_on, lines_of_suspended
from agentstream.cli.view import View
from agentstream.errors import Closed
from agentstream.events import accessors
from agentstream.events.model import RELEASING, Event, EventType
from agentstream.events.resting import INTERRUPTED, RESTING
from agentstream.events.store import EventStore
from agentstream.events.stream import EventStream
from agentstream.events.subscription import Subscription

if TYPE_CHECKING:
    import argparse

__all__ = ["Rest", "with_inner"]

#: Seconds without an event after which a run is looked at: its process may have died.
_LOOK_S = 1.0


def with_inner(
    stream: EventStream, events: Subscription, workflow_id: str, look: Callable[[], object]
) -> Iterator[Event]:
    """A run's events, and in their place those of the runs that are steps of it.

    Args:
        look: called while nothing comes.
    """
    return _Reader(stream, look).read(events, workflow_id, within=False)


class _Reader:
    def __init__(self, stream: EventStream, look: Callable[[], object]) -> None:
        self._stream = stream
        self._look = look
        self._seen: Dict[str, int] = {}  # of runs within it, the newest offset

    def read(self, events: Subscription, workflow_id: str, *, within: bool) -> Iterator[Event]:
        """A run's events up to its end; of one within another, up to its rest."""
        store = self._stream.store
        while True:
            try:
                event = events.get(_LOOK_S)
            except Closed:
                return
            if event is None:
                state = store.run(workflow_id) if within else None
                if state is not None and state.status in RESTING:
                    return
                self._look()
                continue
            self._seen[workflow_id] = event.offset
            yield event
            if within and event.type in RELEASING:
                return
            inner = event.data.get("run") if event.type is EventType.WORKFLOW_STEP_STARTED else None
            if inner is not None and store.run(inner) is not None:
                after = self._seen.get(inner, 0)
                with self._stream.subscribe(workflow_id=inner, after=after) as further:
                    yield from self.read(further, inner, within=True)


class Rest:
    """Says that a run which is followed rests, why, and that it goes on.

    Args:
        store, log: where the run is, for the commands that answer it; None of a server's.

    Attributes:
        rests: nobody runs it now.
    """

    def __init__(
        self,
        given: argparse.Namespace,
        view: View,
        workflow_id: str,
        store: Optional[EventStore] = None,
        log: Optional[LogPlace] = None,
    ) -> None:
        self._quiet = given.quiet
        self._view = view
        self._run = workflow_id
        self._store = store
        self._log = log
        self.rests = False

    def note(self, event: Event) -> None:
        """Say what an event of the run says of it."""
        if event.workflow_id != self._run:
            return
        if event.type is EventType.WORKFLOW_RESUMED:
            self.rests = False
            self._say(f"run {self._run} goes on{answers_told(event.data)}")
        elif event.type is EventType.WORKFLOW_SUSPENDED:
            self._suspended(event)

    def _suspended(self, event: Event) -> None:
        self.rests = True
        said = f"run {self._run} is {accessors.resting(event.data)}"
        if self._store is not None:
            state = self._store.run(self._run)
            if state is None or state.last_offset != event.offset:
                return  # it has been resumed since
            if state.status == INTERRUPTED:
                said += f"; {goes_on(self._store, self._run, self._log)}"
            else:
                said = "\n".join(lines_of_suspended(self._store, self._run, self._log))
        self._say(said)

    def look(self) -> None:
        """See whether its process has died, which no event tells."""
        state = None if self.rests or self._store is None else self._store.run(self._run)
        if state is not None and state.status == INTERRUPTED:
            assert self._store is not None
            self.rests = True
            then = goes_on(self._store, self._run, self._log)
            self._say(f"run {self._run} is interrupted: its process died; {then}")

    def _say(self, text: str) -> None:
        self._view.end()
        if not self._quiet:
            say(text)
