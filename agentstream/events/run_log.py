"""RunLog: the writer of one workflow's events."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional, Protocol

from agentstream.events.entry import check_entry_type
from agentstream.events.model import Event, EventType

__all__ = ["Publisher", "RunLog"]

_MISSED = EventType.EVENTS_MISSED


if TYPE_CHECKING:

    class Tracing(Protocol):
        """Makes spans of what runs do: it is told in the thread and the context that do it.

        What happens after the beginning of a thing it learns as any subscriber does.
        """

        def note(
            self, log: RunLog, kind: EventType, data: Mapping[str, Any], about: object
        ) -> Mapping[str, Any]:
            """An event, no chunk, is about to be appended; returns its data, perhaps with more.

            Args:
                about: what the event is about, as its writer has it; no part of the event.
            """

        def traceparent(self) -> str:
            """The context of the caller's span, as W3C Trace Context has it; "" outside of one."""


@functools.cache
def _logger() -> logging.Logger:
    """Made by the first run: `dictConfig`, unless told not to, disables those that there are."""
    return logging.getLogger("agentstream.run")


class Publisher(Protocol):
    """What a log writes to."""

    tracing: Optional[Tracing]
    _settle: Optional[Callable[[Event], None]]

    def _publish(self, log: RunLog, kind: EventType, data: Mapping[str, Any]) -> Optional[Event]:
        """Give the event its offset, keep it, and hand it to the subscribers."""

    def _note_input(self, workflow_id: str, text: str) -> None:
        """Keep what a run is given."""

    def _flush(self) -> None:
        """Wait until all that was appended is kept."""

    def _open(self, workflow_id: str, parent: Optional[str]) -> RunLog:
        """Begin another workflow's log."""

    def _reopen(self, workflow_id: str, parent: Optional[str], last: int) -> RunLog:
        """Go on with the log of a run that this process has taken."""


class RunLog:
    """The writer of one workflow's events; a workflow has one at a time.

    Any number of threads may append.  After the terminal event, and after that of a run
    which is suspended, nothing is taken: what comes late is dropped.  Whoever resumes a
    suspended run has a log of its own.

    Attributes:
        offset: of the event appended last; 0 for none.
        has_many_writers: true for that of `EventStream.append`, which is nobody's own.
        ended: true once nothing more is taken.
        unsure: true while only the store knows how far the log has come; then
            `ended` is true as well, and whoever appends asks the store first.
    """

    __slots__ = (
        "__weakref__",
        "_stream",
        "ended",
        "has_many_writers",
        "offset",
        "parent_workflow_id",
        "unsure",
        "workflow_id",
    )

    def __init__(
        self, stream: Publisher, workflow_id: str, parent_workflow_id: Optional[str]
    ) -> None:
        self._stream = stream
        self.workflow_id = workflow_id
        self.parent_workflow_id = parent_workflow_id
        self.offset = 0
        self.ended = False
        self.unsure = False
        self.has_many_writers = False

    def append(self, kind: EventType, data: Mapping[str, Any]) -> Optional[Event]:
        """Append an event; returns it, or None if the workflow has ended.

        Called by a signal handler in the middle of its thread's own append, it
        is appended right after that one; the event returned has no id and offset 0.

        Raises:
            ConfigError: `kind` is no `EventType`, nor the name of one that may stand in a log.
            LogError: the store refused it, or the stream is closed.
        """
        if kind.__class__ is not EventType or kind is _MISSED:
            kind = check_entry_type(kind)
        stream = self._stream
        event = stream._publish(self, kind, data)
        if stream._settle is not None and event is not None and event[0] is not None:
            stream._settle(event)
        return event

    def note(
        self, kind: EventType, data: Mapping[str, Any], about: object = None
    ) -> Optional[Event]:
        """As `append`, of what is no chunk: also for those who trace runs or log a line of each.

        Args:
            about: what the event is about, for who traces.
        """
        event = self.append(kind, self.trace(kind, data, about))
        if event is not None and _logger().isEnabledFor(logging.INFO):
            from agentstream.events.run_lines import log_line  # noqa: PLC0415 - most log none

            log_line(_logger(), self.workflow_id, kind, data)
        return event

    def trace(
        self, kind: EventType, data: Mapping[str, Any], about: object = None
    ) -> Mapping[str, Any]:
        """Tell who traces runs, if anybody does, of an event; returns what it is to hold."""
        tracing = self._stream.tracing
        if tracing is None or self.ended:
            return data
        return tracing.note(self, kind, data, about)

    def flush(self) -> None:
        """Wait until all that was appended is kept, for other processes to read.

        Raises:
            LogError: it could not be.
        """
        self._stream._flush()

    def note_input(self, text: str) -> None:
        """Keep what the run is given, for `RunState.input`, where its stream keeps inputs.

        Comes before the first event.  It is no event: no subscriber is told.
        """
        self._stream._note_input(self.workflow_id, text)

    def open_child(self, workflow_id: str) -> RunLog:
        """Begin the log of a run within this one, whose events name this one as their parent.

        Raises:
            LogError: the stream has events of that workflow already.
        """
        return self._stream._open(workflow_id, self.workflow_id)

    def reopen_child(self, workflow_id: str, last: int) -> RunLog:
        """Go on with the log of a run within this one, of those in `Entry.inner`.

        Args:
            workflow_id: the inner run's.
            last: the offset of its newest event, as `Entry.inner` has it.
        """
        return self._stream._reopen(workflow_id, self.workflow_id, last)
