"""A run that is made once: its id tells whether it has been, and what came of it.

An id names one run for good, and its log ends with one terminal event.  So a run that
failed, was stopped or whose process died is made again under the id with "~2" behind it,
then "~3": the log tells of each.  But for one that was resumed, and took each of its
processes with it: what a queue delivers again and again would not end.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from agentstream.errors import Busy, LogError
from agentstream.events import accessors
from agentstream.events.model import Event, thaw
from agentstream.events.store import EventStore, end_of
from agentstream.results import Usage, WorkflowRun

__all__ = ["Earlier", "ended_run", "is_of", "look"]

_UNDER_WAY = ("queued", "running")


class Earlier(NamedTuple):
    """What a log knows of an id.

    Attributes:
        workflow_id: of the run that completed; else the one that a new run gets.
        run: what it came to, without its steps, whose events are in the log; None: it
            has not been completed.
        rests: true if it is interrupted or suspended: it can be resumed.
    """

    workflow_id: str
    run: Optional[WorkflowRun]
    rests: bool = False


def look(store: EventStore, workflow_id: str, *, resume: bool = False) -> Earlier:
    """Whether the run of that id has been completed, under this id or one for a further try.

    Args:
        resume: take one that is under way for one that rests: whoever resumes it finds
            out whether its process lives.

    Raises:
        Busy: it is under way, here or in another process.
        LogError: it has been completed, and its output is no longer in the log; with
            `resume`, it has lost more processes than it may.
    """
    attempt, name = 1, workflow_id
    while True:
        state = store.run(name)
        if state is None:
            return Earlier(name, None)
        if state.status == "completed":
            return Earlier(name, ended_run(name, state.status, end_of(store, state)))
        if state.status in ("interrupted", "suspended") or (
            resume and state.status in _UNDER_WAY and store.checkpoints is not None
        ):
            return Earlier(name, None, rests=True)
        if state.status in _UNDER_WAY:
            raise Busy(f"run {name!r} is under way", retryable=True)
        if resume and state.status == "failed":
            _check_worn_out(name, end_of(store, state))
        attempt += 1
        name = f"{workflow_id}~{attempt}"


def _check_worn_out(workflow_id: str, end: Optional[Event]) -> None:
    """Raise LogError for a run that has lost more processes than it may."""
    data = {} if end is None else end.data
    if data.get("error") == "Interrupted" and data.get("retryable") is False:
        raise LogError(
            f"run {workflow_id!r} has failed, and is not begun anew: {data.get('message')}"
        )


def is_of(name: str, workflow_id: str) -> bool:
    """True if `name` is that id, or the id of a further try."""
    attempt = name[len(workflow_id) + 1 :]
    return name == workflow_id or (name == f"{workflow_id}~{attempt}" and attempt.isdigit())


def ended_run(workflow_id: str, status: str, end: Optional[Event]) -> WorkflowRun:
    """A run that has ended, as its terminal event tells it: without its steps.

    Raises:
        LogError: it has been completed, and the event with its output is gone.
    """
    if end is None and status == "completed":
        raise LogError(f"run {workflow_id!r} has been completed, and its output is gone by now")
    data = {} if end is None else end.data
    usage = {k: v for k, v in (accessors.usage_of(data) or {}).items() if k in Usage._fields}
    warnings = data.get("warnings")
    return WorkflowRun(
        workflow_id,
        status,
        thaw(data.get("output")),
        Usage(**usage),
        duration_s=accessors.seconds_of(data),
        finish_reason=accessors.text(data, "finish_reason") or None,
        warnings=tuple(map(str, warnings)) if isinstance(warnings, tuple) else (),
    )
