"""One line in Python's log for each request, step and run that has ended, for who has only logs.

At INFO, under `agentstream.run`, and from where the event is made: it costs nothing unless the
program's logging asks for it.  Ids, durations, tokens and outcomes; nothing of what was said.
"""

from __future__ import annotations

import logging
from typing import Any, Dict, Mapping, Tuple

from agentstream.events.accessors import text, usage_of
from agentstream.events.model import EventType

__all__ = ["LINES", "fields_of", "log_line"]

#: What has ended, and how, by the event that says so.
LINES: Mapping[EventType, Tuple[str, str]] = {
    EventType.WORKFLOW_COMPLETED: ("run", "completed"),
    EventType.WORKFLOW_FAILED: ("run", "failed"),
    EventType.WORKFLOW_CANCELLED: ("run", "cancelled"),
    EventType.WORKFLOW_SUSPENDED: ("run", "suspended"),
    EventType.WORKFLOW_STEP_COMPLETED: ("step", "completed"),
    EventType.WORKFLOW_STEP_FAILED: ("step", "failed"),
    EventType.AGENT_LLM_REQUEST_COMPLETED: ("request", "completed"),
    EventType.AGENT_LLM_REQUEST_FAILED: ("request", "failed"),
}

#: Keys of an event's data that a line has as they are, by the names that it has for them.
_FIELDS: Mapping[str, str] = {
    "workflow": "workflow",
    "step": "step",
    "name": "step_name",
    "kind": "step_kind",
    "agent": "agent",
    "model": "model",
    "round": "round",
    "attempt": "attempt",
    "duration_s": "duration_s",
    "first_token_s": "first_token_s",
    "finish_reason": "finish_reason",
    "error": "error",
    "request_id": "request_id",
    "response_id": "response_id",
    "failed_at": "failed_at",
}
_USAGE = ("prompt_tokens", "completion_tokens", "cost")


def log_line(
    logger: logging.Logger, workflow_id: str, kind: EventType, data: Mapping[str, Any]
) -> None:
    """Log the line of an event, if it has one.

    Its fields are attributes of the record too, for a formatter such as `logs.JsonFormatter`.
    """
    if kind in LINES:
        fields = fields_of(workflow_id, kind, data)
        shown = (f"{key}={_shown(value)}" for key, value in fields.items() if key != "event")
        logger.info("%s %s", fields["event"], " ".join(shown), extra=fields)


def fields_of(workflow_id: str, kind: EventType, data: Mapping[str, Any]) -> Dict[str, Any]:
    """What the line of an event holds; what is not known is left out."""
    what, outcome = LINES[kind]
    if kind is EventType.WORKFLOW_SUSPENDED:
        outcome = text(data, "status") or outcome
    if data.get("error") == "Cancelled":
        outcome = "cancelled"
    if data.get("will_retry") is True:
        outcome = "retried"
    fields: Dict[str, Any] = {"event": what, "outcome": outcome, "workflow_id": workflow_id}
    for key, name in _FIELDS.items():
        value = data.get(key)
        if value is not None and value != "":
            fields[name] = round(value, 6) if isinstance(value, float) else value
    usage = usage_of(data) or {}
    fields.update({key: usage[key] for key in _USAGE if usage.get(key) is not None})
    return fields


def _shown(value: object) -> str:
    """A value in a line for people: quoted where it has a space, or could end the line."""
    said = f"{value:g}" if isinstance(value, float) else str(value)
    plain = said.isprintable() and said and not set(said) & set(' "=')
    return said if plain else repr(said)
