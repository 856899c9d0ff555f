"""Runs that rest, suspended or interrupted: nobody runs them, and they have not ended."""

from __future__ import annotations

from typing import Any, Dict, Mapping

from agentstream.events import accessors, payloads

__all__ = ["INTERRUPTED", "QUEUED", "RESTING", "SUSPENDED", "cancelled", "status_of_rest"]

#: The status of a run that is queued for whoever takes it, and of one that is about to begin.
QUEUED = "queued"
INTERRUPTED, SUSPENDED = RESTING = ("interrupted", "suspended")


def status_of_rest(data: Mapping[str, Any]) -> str:
    """The status of a run after a workflow_suspended with that data."""
    return INTERRUPTED if data.get("status") == INTERRUPTED else SUSPENDED


def cancelled(rest: Mapping[str, Any], name: str, reason: str) -> Dict[str, Any]:
    """The data of the workflow_cancelled that ends a run which rests.

    Args:
        rest: the data of the workflow_suspended before, which says what the run had
            come to; {} where there was none.
        name: the workflow's name.
        reason: what the one who stopped it said.
    """
    finish, warnings = rest.get("finish_reason"), rest.get("warnings")
    end = payloads.run_end(
        accessors.text(rest, "workflow") or name,
        rest.get("output"),
        accessors.usage_of(rest),
        accessors.seconds_of(rest),
        finish_reason=finish if isinstance(finish, str) else None,
        warnings=warnings if isinstance(warnings, (list, tuple)) else (),
    )
    return payloads.workflow_cancelled(end, reason=reason)
