"""What became of a job's run: what a worker is told, and what whoever waits for it gets."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

from agentstream.errors import Cancelled, WorkflowFailed
from agentstream.events.model import Event
from agentstream.events.run_state import RunState
from agentstream.runtime.once import ended_run

__all__ = ["ENDED", "JobRun", "output_of"]

#: The statuses of a run of which nothing more will come.
ENDED = ("completed", "failed", "cancelled", "closed")


class JobRun(NamedTuple):
    """What `Jobs.run` did with a run, and what the run has come to.

    Attributes:
        workflow_id: the run's id.
        how: "new": it was begun here. "resumed": it was gone on with here. Of the others nothing
            was done here. "busy": a living process has it. "waiting": it is suspended, and
            nobody has answered yet. "ended": it had ended before.
        status: the run's, as `RunState.status`: what was begun or gone on with here is
            "completed", "failed", "cancelled", "suspended" or "interrupted".
        output: what it came to, or had said so far; None unless it was executed here or has ended.
        error: why it did not complete, as `RunState.error`; None otherwise.
    """

    workflow_id: str
    how: str
    status: str
    output: Any = None
    error: Optional[str] = None


def output_of(state: RunState, end: Optional[Event]) -> Any:
    """The output of a run that has ended, as JSON values.

    Raises:
        WorkflowFailed, Cancelled: how it ended, with `run`.
        LogError: it has been completed, and the event with its output is gone by now.
    """
    name = state.workflow_id
    run = ended_run(name, state.status, end)
    why = state.with_end(end).error
    if state.status == "completed":
        return run.output
    if state.status == "cancelled":
        raise Cancelled(f"run {name} was stopped: {why or 'the log no longer tells why'}", run=run)
    data = {} if end is None else end.data
    raise WorkflowFailed(
        f"run {name} failed: {why or 'the log does not tell why'}",
        run=run,
        phase=str(data.get("phase") or ""),
        retryable=data.get("retryable") is True,
        outcome="unknown" if data.get("outcome") == "unknown" else "failed",
    )
