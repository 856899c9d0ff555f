"""Runs that rest, suspended or interrupted: nobody runs them, and they have not ended."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from agentstream.events import accessors, payloads
from agentstream.events.model import Event, EventType

__all__ = ["RESTING", "cancelled", "status_of_rest"]

INTERRUPTED, SUSPENDED = RESTING = ("interrupted", "suspended")


def status_of_rest(data: Mapping[str, Any]) -> str:
    """The status of a run after a workflow_suspended with that data."""
    return INTERRUPTED if data.get("status") == INTERRUPTED else SUSPENDED


def cancelled(newest: Optional[Event], name: str, reason: str) -> Dict[str, Any]:
    """The data of the workflow_cancelled that ends a run which rests.

    Args:
        newest: the run's newest event; of a workflow_suspended, what the run had come
            to is taken.
        name: the workflow's name.
        reason: what the one who stopped it said.
    """
    rested = newest is not None and newest.type is EventType.WORKFLOW_SUSPENDED
    data: Mapping[str, Any] = newest.data if newest is not None and rested else {}
    finish, warnings = data.get("finish_reason"), data.get("warnings")
    end = payloads.run_end(
        accessors.text(data, "workflow") or name,
        data.get("output"),
        accessors.usage_of(data),
        accessors.seconds_of(data),
        finish_reason=finish if isinstance(finish, str) else None,
        warnings=warnings if isinstance(warnings, (list, tuple)) else (),
    )
    return payloads.workflow_cancelled(end, reason=reason)
