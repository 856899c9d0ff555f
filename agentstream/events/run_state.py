"""RunState: a run as its store knows it."""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple, Optional

from agentstream.events import accessors
from agentstream.events.model import Event, thaw

__all__ = ["RunState", "first_line"]

#: Characters of a run's input that a list of runs has.
_MOST_LISTED = 200
#: Fields that only the state of a single run has.
_OF_ONE = ("output", "error")


class RunState(NamedTuple):
    """A run as its store knows it.

    Attributes:
        workflow_id, parent_workflow_id: as in `Event`.
        name: the workflow's name; "" where its log does not tell.
        status: "queued" (it has not begun), "running", "completed", "failed", "cancelled",
            "suspended" (it waits for an answer), "interrupted" (its process left it, or
            died; either can be resumed), or "closed": no workflow's end is in the log, and
            nothing more will be.
        started_at, ended_at: Unix times in seconds, or None; a run that was stopped,
            or whose process died, before it began has ended and has no start.
        last_offset: of its newest event; 0 for none.
        usage: its tokens, as its last event has them, or None.
        output: what it came to, as JSON values; of one that did not complete, what it
            had said.  None in a list of runs, and where its last event is gone.
        error: why it did not complete: "StallTimeout: ...", or the reason of the stop.
            None of one that did, in a list of runs, and where its last event is gone.
        input: what it was given, as text, if that is kept (`EventStream.keep_inputs`); in
            a list of runs its first line, up to 200 characters of it.
    """

    workflow_id: str
    parent_workflow_id: Optional[str]
    name: str
    status: str
    started_at: Optional[float]
    ended_at: Optional[float]
    last_offset: int
    usage: Optional[Mapping[str, Any]]
    output: Any = None
    error: Optional[str] = None
    input: Optional[str] = None

    def __repr__(self) -> str:  # without what was asked
        fields = ((name, getattr(self, name)) for name in self._fields if name != "input")
        return f"RunState({', '.join(f'{name}={value!r}' for name, value in fields)})"

    def listed(self) -> Dict[str, Any]:
        """The state as a list of runs has it: a dict without `output` and `error`."""
        return {key: value for key, value in self._asdict().items() if key not in _OF_ONE}

    def with_end(self, end: Optional[Event]) -> RunState:
        """The same with `output` and `error`, as the run's terminal event has them."""
        if end is None:
            return self
        return self._replace(
            output=thaw(end.data.get("output")), error=accessors.why(end.type, end.data)
        )


def first_line(text: Optional[str]) -> Optional[str]:
    """The first line of a run's input that has any text, as lists of runs have it."""
    lines = (text or "").strip().splitlines()
    return None if text is None else lines[0].strip()[:_MOST_LISTED] if lines else ""
