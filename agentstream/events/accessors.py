"""What can be read of an event's data, whoever wrote it.

A log may hold events of a user's own, and those of other versions: what is not there,
or is not of its type, is told by None or an empty value, never by an exception.
What the library itself writes is in payloads.py.
"""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Tuple

from agentstream.events.model import TERMINAL, EventType

__all__ = [
    "cost_of",
    "fallback",
    "gap_of",
    "is_of_agent",
    "label_of",
    "problems_of",
    "resting",
    "seconds_of",
    "status_of",
    "text",
    "tokens_of",
    "usage_of",
    "why",
    "will_retry",
]


def text(data: Mapping[str, Any], key: str) -> str:
    """A text in an event's data; "" where there is none."""
    value = data.get(key)
    return value if isinstance(value, str) else ""


def usage_of(data: Mapping[str, Any]) -> Optional[Mapping[str, Any]]:
    """The token counts, as `Usage.to_dict` has them; None where there are none."""
    value = data.get("usage")
    return value if isinstance(value, Mapping) else None


def tokens_of(data: Mapping[str, Any]) -> Optional[int]:
    """The completion tokens of `usage`; None where they are not known."""
    count = (usage_of(data) or {}).get("completion_tokens")
    return count if isinstance(count, int) and not isinstance(count, bool) else None


def cost_of(data: Mapping[str, Any]) -> Optional[float]:
    """The cost of `usage`, in the unit of the prices; None where it is not known."""
    cost = (usage_of(data) or {}).get("cost")
    return cost if isinstance(cost, (int, float)) and not isinstance(cost, bool) else None


def seconds_of(data: Mapping[str, Any]) -> float:
    """`duration_s` or `delay_s`, in seconds; 0.0 where there is neither."""
    for key, unit in (("delay_s", 1.0), ("duration_s", 1.0), ("duration_ms", 1000.0)):
        value = data.get(key)
        if isinstance(value, (int, float)):
            return value / unit
    return 0.0


def label_of(data: Mapping[str, Any]) -> Optional[str]:
    """The label of the step it belongs to, "" for an agent on its own; None for none."""
    value = data.get("step")
    return value if isinstance(value, str) else None


def is_of_agent(data: Mapping[str, Any]) -> bool:
    """True for what an agent says, and not the step around it."""
    return isinstance(data.get("agent"), str) and label_of(data) is not None


def will_retry(data: Mapping[str, Any]) -> bool:
    """True if a step that failed is tried again: what it said is void."""
    return data.get("will_retry") is True


def problems_of(data: Mapping[str, Any]) -> List[str]:
    """What is wrong with an answer, a text each: its place, "items[0].price" say, and why."""
    found = data.get("problems")
    told = []
    for problem in found if isinstance(found, (list, tuple)) else ():
        if isinstance(problem, Mapping):
            path = problem.get("path")
            keys = path if isinstance(path, (list, tuple)) else ()
            where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
            told.append(f"{where.lstrip('.') or 'the answer'} {text(problem, 'text')}")
    return told


def fallback(data: Mapping[str, Any]) -> str:
    """What `agent_fallback` tells people: "openai gpt-x failed: HTTP 503 ...; asking llama y"."""
    failed, asked = (
        " ".join(filter(None, (text(data, f"{who}provider"), text(data, f"{who}model"))))
        for who in ("", "next_")
    )
    return f"{failed} failed: {text(data, 'message') or text(data, 'error')}; asking {asked}"


def gap_of(data: Mapping[str, Any]) -> Optional[Tuple[int, int]]:
    """The first and last of what `events_missed` tells; None if it says nothing usable."""
    first, last = data.get("first"), data.get("last")
    return (first, last) if isinstance(first, int) and isinstance(last, int) else None


def resting(data: Mapping[str, Any]) -> str:
    """Why a run rests, as `workflow_suspended` tells people: "suspended: it waits for pay"."""
    found = data.get("pending")
    asked = [each for each in found or () if isinstance(each, Mapping)] if _is_list(found) else []
    if not asked:
        return ": ".join(filter(None, (text(data, "status") or "suspended", text(data, "reason"))))
    return f"suspended: it waits for {', '.join(text(each, 'name') for each in asked)}"


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def why(kind: EventType, data: Mapping[str, Any]) -> Optional[str]:
    """Why a run did not complete, as its terminal event tells people; None if it did."""
    if kind is EventType.WORKFLOW_COMPLETED:
        return None
    if kind is EventType.WORKFLOW_CANCELLED:
        return text(data, "reason")
    return ": ".join(filter(None, (text(data, "error"), text(data, "message"))))


def status_of(kind: EventType) -> str:
    """A run's status after one of the events that end it: "completed", say."""
    assert kind in TERMINAL
    return kind.value[len("workflow_") :]
