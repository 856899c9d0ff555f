"""What the log is told of a run that rests, and of one that goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Sequence, Union

from agentstream.events import payloads
from agentstream.results import PendingCall, PendingSignal
from agentstream.workflow.checkpoints import place_of
from agentstream.workflow.definition import Workflow

if TYPE_CHECKING:
    from agentstream.workflow.run_checkpoints import RunCheckpoints

__all__ = ["entry_of", "pending_of", "resumption", "suspension"]

Pending = Union[PendingCall, PendingSignal]


def suspension(
    end: Mapping[str, Any], status: str, reason: str, pending: Sequence[Pending]
) -> Dict[str, Any]:
    """The data of `workflow_suspended`."""
    return payloads.workflow_suspended(
        end, status=status, reason=reason, pending=[entry_of(each) for each in pending]
    )


def entry_of(each: Pending) -> Dict[str, Any]:
    """What is asked, as `workflow_suspended` tells it."""
    if isinstance(each, PendingSignal):
        return payloads.pending_call(
            id=each.id, kind="signal", name=each.name, step=each.step, expires_at=each.expires_at
        )
    return payloads.pending_call(
        id=each.id,
        kind=each.why,
        name=each.tool,
        arguments=each.arguments,
        agent=each.agent,
        step=each.step,
        expires_at=each.expires_at,
    )


def pending_of(data: Mapping[str, Any]) -> List[Pending]:
    """What a run waits for, as its `workflow_suspended` tells."""
    return [
        PendingSignal(each["name"], each["step"], each["expires_at"])
        if each["kind"] == "signal"
        else PendingCall(
            each["id"],
            each["name"],
            each["arguments"],
            each["step"],
            each["agent"],
            each["kind"],
            each["expires_at"],
        )
        for each in data.get("pending") or ()
    ]


def resumption(kept: RunCheckpoints, workflow: Workflow, prefix: str) -> Dict[str, Any]:
    """The data of `workflow_resumed`, of a run or of one within it (`prefix`)."""
    entry = kept.entry
    assert entry is not None
    labels = (str(number) for number, _ in enumerate(workflow.steps))
    done = "|done"
    return payloads.workflow_resumed(
        workflow.name,
        reason=entry.reason,
        fence=entry.fence,
        deaths=entry.deaths,
        step=next((at for at in labels if kept.done(place_of(prefix, at)) is None), None),
        completed=sorted(
            key[len(prefix) : -len(done)]
            for key in kept.keys(done)
            if key.startswith(prefix) and "/" not in key[len(prefix) :]
        ),
        answers=[] if prefix else _answers(kept),
    )


def _answers(kept: RunCheckpoints) -> List[Dict[str, Any]]:
    """What was answered while the run rested, and what nobody answered in time."""
    told = []
    now = time.time()
    for each in kept.asked:
        is_signal = isinstance(each, PendingSignal)
        found = kept.get(f"{'signal' if is_signal else 'answer'}:{each.id}")
        if found is None and not (each.expires_at is not None and each.expires_at <= now):
            continue
        found = found or {"answer": "expired"}
        told.append(
            {
                "id": each.id,
                "kind": "signal" if isinstance(each, PendingSignal) else each.why,
                "name": each.name if isinstance(each, PendingSignal) else each.tool,
                "answer": "value" if "value" in found else found["answer"],
                "reason": found.get("reason", ""),
                "by": found.get("by", ""),
                "at": found.get("at"),
            }
        )
    return told
