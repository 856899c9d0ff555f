"""What a provider wants back with an answer: kept unread as it streams, put back as it was.  Pure.

Reasoning under the name it came in, signatures, encrypted items.  A provider that
sent them may refuse a history without them, and one that never did, a history with
them; so they go to the server they came from, and to no other.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, List, Mapping, Optional, Set, Tuple

from agentstream.llm.messages import ChatMessage
from agentstream.text import replace_surrogates

__all__ = ["StateCollector", "sent_back"]

#: The fields of a message that go back as they came.
FIELDS = (
    "reasoning_content",
    "reasoning_details",
    "reasoning_text",
    "reasoning_opaque",
    "thinking_blocks",
    "extra_content",
)
_SIGNED = "extra_content"  # the one that calls may have too

#: Where the words of an entry stand that comes in pieces, by its type.
_PIECES = {"reasoning.text": "text", "reasoning.summary": "summary", "thinking": "thinking"}

#: Where the words of a field that is an object stand; they come in pieces.
_SAID = ("text", "content", "summary", "thinking", "reasoning")

#: Characters that are kept of one answer.
_MOST = 8_000_000


class StateCollector:
    """The fields of one answer that its provider wants back.

    Attributes:
        dropped: True once they were too much to keep; then none are.
    """

    def __init__(self) -> None:
        self._texts: Dict[str, List[str]] = {}
        self._values: Dict[str, Any] = {}
        self._size = 0
        self._signed = False
        self.dropped = False

    def take(self, delta: Mapping[str, Any]) -> None:
        """Take in what a chunk's delta, or a whole message, has of them."""
        for name in FIELDS:
            value = delta.get(name)
            if value:
                self._add(name, value)
        calls = delta.get("tool_calls")
        if calls.__class__ is list and not self._signed:
            self._signed = any(isinstance(call, dict) and call.get(_SIGNED) for call in calls)

    def _add(self, name: str, value: Any) -> None:
        if self.dropped:
            return
        if isinstance(value, str):
            self._size += len(value)
            self._texts.setdefault(name, []).append(value)
            self._values.setdefault(name, None)  # its place among the others
        else:
            self._size += len(json.dumps(value))
            self._values[name] = _joined(self._values.get(name), value)
        if self._size > _MOST:
            self._texts.clear()
            self._values.clear()
            self.dropped = True

    def state(self, origin: str) -> Optional[Dict[str, Any]]:
        """All of it, as `ChatMessage.provider_state` has it; None if there is none.

        Args:
            origin: the server it came from.
        """
        if not self._values and not self._signed:
            return None
        fields = {
            name: replace_surrogates("".join(self._texts[name])) if name in self._texts else value
            for name, value in self._values.items()
        }
        return {"dialect": "chat", "origin": origin, "fields": fields}


def _joined(before: Any, value: Any) -> Any:
    """What is there of a field and what has come, as one value."""
    if isinstance(before, list) and isinstance(value, list):
        joined = list(before)
        for entry in value:
            if joined and _is_piece(joined[-1], entry):
                joined[-1] = _appended(joined[-1], entry)
            else:
                joined.append(entry)
        return joined
    if isinstance(before, dict) and isinstance(value, dict):
        told = {key: before[key] + value[key] for key in _SAID if _both(before, value, key)}
        return {**before, **value, **told}
    return value


def _both(before: Dict[str, Any], value: Dict[str, Any], key: str) -> bool:
    return isinstance(before.get(key), str) and isinstance(value.get(key), str)


def _is_piece(last: Any, entry: Any) -> bool:
    """True if `entry` goes on with the words of the entry before it."""
    if not (isinstance(last, dict) and isinstance(entry, dict)):
        return False
    kind = entry.get("type")
    words = _PIECES.get(kind) if isinstance(kind, str) else None
    if words is None or last.get("type") != kind or last.get("signature"):
        return False
    same = all(entry.get(key) in (None, last.get(key)) for key in ("index", "id", "format"))
    numbered = kind == "thinking" or entry.get("index") is not None
    are_texts = all(isinstance(part.get(words) or "", str) for part in (last, entry))
    return same and numbered and are_texts


def _appended(last: Dict[str, Any], entry: Dict[str, Any]) -> Dict[str, Any]:
    words = _PIECES[entry["type"]]
    text = (last.get(words) or "") + (entry.get(words) or "")
    told = {key: value for key, value in entry.items() if value is not None}
    return {**last, **told, words: text}


def sent_back(
    message: ChatMessage, origin: str, without: Iterable[str]
) -> Tuple[Dict[str, Any], Set[str]]:
    """A message as the server at `origin` takes it, and which of the fields it holds.

    Args:
        without: fields that the server has refused.
    """
    body = message.to_dict()
    state = message.provider_state
    ours = state is None or (state.get("dialect") == "chat" and state.get("origin") == origin)
    used: Set[str] = set()
    if state is not None and ours:
        for name, value in state["fields"].items():
            if name not in without:
                body[name] = value
                used.add(name)
    for call in body.get("tool_calls", ()):
        if not ours or _SIGNED in without:
            call.pop(_SIGNED, None)
        elif _SIGNED in call:
            used.add(_SIGNED)
    return body, used
