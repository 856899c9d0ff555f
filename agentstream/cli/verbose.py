"""What `-v` tells: a line on standard error for each thing that happens in a run.

And what `--show-requests` does: each request as it is sent.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any, Callable, Dict, Mapping

from agentstream.cli.output import note
from agentstream.events.accessors import (
    cost_of,
    fallback,
    problems_of,
    resting,
    seconds_of,
    text,
    tokens_of,
    will_retry,
)
from agentstream.events.model import Event, EventType

__all__ = ["narrate", "show_request"]

Data = Mapping[str, Any]

_BASE64 = re.compile(r"[A-Za-z0-9+/=]{400,}")


def narrate(event: Event) -> None:
    """Say what an event says; of what streams, nothing."""
    tell = _WORDS.get(event.type)
    if tell is not None:
        at = time.strftime("%H:%M:%S", time.localtime(event.timestamp))
        note(f"{at} {tell(event.data)}")


def show_request(method: str, url: str, body: str) -> None:
    """Say what is sent: method, URL and body, of which long base64 (pictures) is cut."""
    try:
        shown = json.dumps(json.loads(body), ensure_ascii=False, indent=2) if body else ""
    except ValueError:  # a key was taken out of it, and an escape with it
        shown = body
    shown = _BASE64.sub(lambda found: f"{found[0][:40]}... ({len(found[0])} characters)", shown)
    note("\n".join(f"> {line}" for line in [f"{method} {url}", *shown.splitlines()]))


def _step(data: Data) -> str:
    return f"{text(data, 'kind').lower()} {text(data, 'name')!r} ({text(data, 'step')})"


def _begun(data: Data) -> str:
    attempt = f", attempt {data['attempt']}" if "attempt" in data else ""
    return f"{_step(data)} begins{attempt}"


def _completed(data: Data) -> str:
    tokens = tokens_of(data)
    used = "" if tokens is None else f", {tokens} tokens"
    cost = cost_of(data)
    used += "" if cost is None else f", cost {cost:.6f}"
    return f"{_step(data)} is done: {seconds_of(data):.1f} s{used}"


def _failed(data: Data) -> str:
    again = f"; again in {seconds_of(data):.1f} s" if data.get("will_retry") else ""
    return f"{_step(data)} failed: {text(data, 'error')}: {text(data, 'message')}{again}"


def _retried(data: Data) -> str:
    return f"{text(data, 'agent')}: again in {seconds_of(data):.1f} s: {text(data, 'message')}"


def _invalid(data: Data) -> str:
    again = "; asked again" if will_retry(data) else ""
    return f"{text(data, 'agent')}: the answer is wrong: {'; '.join(problems_of(data))}{again}"


def _tool(what: str) -> Callable[[Data], str]:
    return lambda data: f"{text(data, 'agent')}: tool {text(data, 'name')!r} {what}"


_WORDS: Dict[EventType, Callable[[Data], str]] = {
    EventType.WORKFLOW_STARTED: lambda data: f"workflow {text(data, 'workflow')!r} begins",
    EventType.WORKFLOW_SUSPENDED: lambda data: (
        f"workflow {text(data, 'workflow')!r} {resting(data)}"
    ),
    EventType.WORKFLOW_RESUMED: lambda data: f"workflow {text(data, 'workflow')!r} is resumed",
    EventType.WORKFLOW_STEP_STARTED: _begun,
    EventType.WORKFLOW_STEP_COMPLETED: _completed,
    EventType.WORKFLOW_STEP_FAILED: _failed,
    EventType.AGENT_LLM_REQUEST_RETRIED: _retried,
    EventType.AGENT_FALLBACK: lambda data: f"{text(data, 'agent')}: {fallback(data)}",
    EventType.AGENT_OUTPUT_INVALID: _invalid,
    EventType.TOOL_CALL_STARTED: _tool("begins"),
    EventType.TOOL_CALL_COMPLETED: _tool("is done"),
    EventType.TOOL_CALL_FAILED: _tool("failed"),
    EventType.SYSTEM_WARNING: lambda data: f"warning: {text(data, 'message')}",
}
