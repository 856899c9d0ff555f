"""What the data of a run's events holds: its beginning, its steps, its rests and its end.

The part of payloads.py that workflows write, and what several types hold; see there.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, Mapping, Optional, Sequence, Tuple

from agentstream.errors import AgentStreamError
from agentstream.text import safe_str

__all__ = [
    "Data",
    "author",
    "failure",
    "pending_call",
    "run_end",
    "step_head",
    "took",
    "workflow_cancelled",
    "workflow_completed",
    "workflow_failed",
    "workflow_resumed",
    "workflow_started",
    "workflow_step_completed",
    "workflow_step_failed",
    "workflow_step_started",
    "workflow_suspended",
]

Data = Dict[str, Any]

# --- what several types hold ----------------------------------------------------------------


def author(agent: str, step: str) -> Data:
    """Who speaks: first in each event of an agent's.

    Holds:
        agent: the agent's name.
        step: the label of its step, "0.1" say; "" for an agent that runs on its own.
    """
    return {"agent": agent, "step": step}


def step_head(step: str, name: str, kind: str) -> Data:
    """Which step: first in each event of a step's.

    Holds:
        step: its label: its place in the workflow, and in the steps it is within ("1.then.0").
        name: its name.
        kind: "Agent", "Function", "Parallel", "Workflow" and so on, as `Step.kind`.
    """
    return {"step": step, "name": name, "kind": kind}


def failure(error: BaseException) -> Data:
    """What is said of an error.

    Holds:
        error: its class's name.
        message: its text.
        phase: as `AgentStreamError.phase`; "" for a foreign error.
        retryable: true if another try may pass.
        request_id: the server's id of the failed request, or null.
        outcome: "failed", or "unknown" where the work may have been done.
    """
    known = error if isinstance(error, AgentStreamError) else AgentStreamError()
    return {
        "error": type(error).__name__,
        "message": safe_str(error),
        "phase": known.phase,
        "retryable": known.retryable,
        "request_id": known.request_id,
        "outcome": known.outcome,
    }


def took(seconds: float) -> Data:
    """A duration, by its name and by the one it had before 0.2."""
    return {"duration_s": seconds, "duration_ms": seconds * 1000}


def run_end(
    workflow: str,
    output: Any,
    usage: Optional[Mapping[str, Any]],
    duration_s: float,
    *,
    finish_reason: Optional[str] = None,
    warnings: Sequence[str] = (),
) -> Data:
    """What a run came to: first in each of the three that end one, and in that of a rest.

    Holds:
        workflow: the workflow's name.
        output: the last step's output as JSON values; of a run that failed or was
            cancelled, what its last step had said.
        usage: the tokens of all its requests, as `Usage.to_dict`; null where nobody knows.
        duration_s: seconds from its start.
        duration_ms: the same in milliseconds; until 0.3.
        finish_reason: how its last answer ended, or null.
        warnings: what was odd about its steps, texts that begin with the steps' names.
    """
    return {
        "workflow": workflow,
        "output": output,
        "usage": usage,
        **took(duration_s),
        "finish_reason": finish_reason,
        "warnings": warnings,
    }


# --- workflows ------------------------------------------------------------------------------


def workflow_started(
    workflow: str,
    steps: Iterable[Tuple[str, str]],
    budget: Optional[Mapping[str, float]] = None,
) -> Data:
    """A run begins.

    Holds:
        workflow: the workflow's name.
        steps: its steps in order, each {name, kind}.
        budget (of a run that has one of its own): its bounds, {tokens, cost}, or one of them.
        traceparent (of a run that is traced): its span's context, as W3C Trace Context has it.
    """
    named = [{"name": name, "kind": kind} for name, kind in steps]
    data: Data = {"workflow": workflow, "steps": named}
    return data if budget is None else {**data, "budget": budget}


def workflow_step_started(
    head: Mapping[str, Any],
    *,
    attempt: int = 1,
    run: Optional[str] = None,
    items: Optional[int] = None,
) -> Data:
    """A step begins, or is tried again.

    Holds:
        attempt (from the second on): which try it is.
        run (of a workflow as a step): the id of the run that it starts.
        items (of a Map): how many items its list has.
    """
    data = dict(head)
    if attempt > 1:
        data["attempt"] = attempt
    if run is not None:
        data["run"] = run
    if items is not None:
        data["items"] = items
    return data


def workflow_step_completed(
    head: Mapping[str, Any],
    *,
    duration_s: float,
    output: Any,
    usage: Mapping[str, Any],
    tokens_per_second: Optional[float],
    finish_reason: Optional[str],
    warnings: Sequence[str],
    resumable: bool = True,
) -> Data:
    """A step has its output.

    Holds:
        duration_s: seconds, all its tries together.
        duration_ms: the same in milliseconds; until 0.3.
        output: what it gave, as JSON values.
        usage: the tokens of its requests, and of those of the steps within it.
        tokens_per_second: the pace of its last answer, or null.
        finish_reason: how that ended ("stop", "length", ...), or null.
        warnings: what was odd about it and yet no error, texts.
        resumable (of an output that no checkpoint can hold): false; if the run's process dies
            now, the run fails.
    """
    data = {
        **head,
        **took(duration_s),
        "output": output,
        "usage": usage,
        "tokens_per_second": tokens_per_second,
        "finish_reason": finish_reason,
        "warnings": warnings,
    }
    if not resumable:
        data["resumable"] = False
    return data


def workflow_step_failed(
    head: Mapping[str, Any],
    error: BaseException,
    *,
    attempt: int = 1,
    delay_s: Optional[float] = None,
) -> Data:
    """A step, or a try at it, failed.

    Holds:
        will_retry (if it is tried again): true; what it said so far is void.
        attempt (if it is tried again): which try failed, from 1.
        delay_s (if it is tried again): seconds until the next try.
    """
    data = {**head, **failure(error)}
    if delay_s is not None:
        data.update(will_retry=True, attempt=attempt, delay_s=delay_s)
    return data


def workflow_completed(end: Mapping[str, Any]) -> Data:
    """A run ends with its output; the last event of the run."""
    return dict(end)


def workflow_failed(
    end: Mapping[str, Any],
    failed: Mapping[str, Any],
    *,
    failed_step: Optional[str],
    failed_at: Optional[str],
) -> Data:
    """A run ends with an error, or its process died (error "Interrupted"); its last event.

    Holds:
        failed_step: the name of the innermost step that failed, or null.
        failed_at: that step's label, or null.
    """
    return {**end, "failed_step": failed_step, "failed_at": failed_at, **failed}


def workflow_cancelled(end: Mapping[str, Any], *, reason: str) -> Data:
    """A run was stopped; its last event.

    Holds:
        reason: what the one who stopped it said.
    """
    return {**end, "reason": reason}


# --- runs that rest -------------------------------------------------------------------------


def pending_call(
    *,
    id: str,
    kind: str,
    name: str,
    arguments: str = "",
    agent: str = "",
    step: str = "",
    tool_call_id: str = "",
    expires_at: Optional[float] = None,
) -> Data:
    """What a run that is suspended waits for: one entry of `pending`."""
    return {
        "id": id,
        "kind": kind,
        "name": name,
        "arguments": arguments,
        "agent": agent,
        "step": step,
        "tool_call_id": tool_call_id,
        "expires_at": expires_at,
    }


def workflow_suspended(
    end: Mapping[str, Any], *, status: str, reason: str, pending: Sequence[Mapping[str, Any]]
) -> Data:
    """A process has done what it can for a run that can be resumed; the run has not ended.

    Holds:
        status: "suspended" where somebody is asked; "interrupted" where its process left it.
        reason: why, for people.
        pending: what is asked, each {id, kind, name, arguments, agent, step, tool_call_id,
            expires_at}: a call to approve ("approval"), one of which nobody knows whether it
            was made ("unknown"), or a value to be sent ("signal"); expires_at is a Unix time,
            or null.
    """
    return {**end, "status": status, "reason": reason, "pending": list(pending)}


def workflow_resumed(
    workflow: str,
    *,
    reason: str,
    fence: int,
    deaths: int,
    step: Optional[str],
    completed: Sequence[str],
    answers: Sequence[Mapping[str, Any]],
) -> Data:
    """A run goes on, in this process or another.

    Holds:
        workflow: the workflow's name.
        reason: what it was: "suspended", or "interrupted".
        fence: how often it has been taken, from 1; nobody who had it before can append.
        deaths: how many processes have died with it.
        step: the label of the first step that is not done, or null.
        completed: the labels of the steps that are done, and not run again.
        answers: what was answered meanwhile, each {id, kind, name, answer, reason, by, at};
            answer is "yes", "no", "change", "value" or "expired", at a Unix time or null.
    """
    return {
        "workflow": workflow,
        "reason": reason,
        "fence": fence,
        "deaths": deaths,
        "step": step,
        "completed": list(completed),
        "answers": list(answers),
    }
