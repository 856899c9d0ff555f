"""Content and reasoning, wherever and in whatever shape a message holds them -> texts.  Pure."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Tuple

from agentstream.llm.chunk import text_of
from agentstream.text import pattern

__all__ = ["content_of", "reasoning_of"]

#: Where a delta may hold reasoning, the first place that has words counting: the others repeat it.
_PLACES = (
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "thinking",
    "thinking_blocks",
    "reasoning_details",
    "reasoningContent",
    "reasoning_summary",
    "thought",
)
#: Where an object that is reasoning may hold its words.
_WORDS = (
    "text",
    "thinking",
    "summary",
    "content",
    "reasoning",
    "reasoning_content",
    "reasoning_text",
    "reasoningContent",
    "reasoningText",
    "value",
)
#: The types and the keys of parts that are reasoning; a "thought_signature" makes none.
_TYPE = pattern("reason|think|thought|summary_text", re.IGNORECASE)
_KEY = pattern("thinking|thought|reasoning(_?(content|text))?", re.IGNORECASE)


def reasoning_of(delta: Dict[str, Any]) -> str:
    """The reasoning of a delta or a message, its content's parts aside."""
    for place in _PLACES:
        value = delta.get(place)
        if value:
            words = value if value.__class__ is str else _words(value)
            if words:
                return words
    return ""


def content_of(content: Any) -> Tuple[str, str]:
    """Text and reasoning of a content that is a part or a list of parts; else "" and ""."""
    if isinstance(content, dict):
        content = [content]
    text: List[str] = []
    reasoning: List[str] = []
    for part in content if isinstance(content, list) else []:
        if isinstance(part, str):
            text.append(part)
        elif isinstance(part, dict):
            if _is_reasoning(part):
                reasoning.append(_words(part))
            else:
                text.append(_words(part.get("text"), plain=True))
    return "".join(text), "".join(reasoning)


def _is_reasoning(part: Dict[str, Any]) -> bool:
    if _TYPE.search(text_of(part.get("type"))):
        return True
    return any(value and _KEY.fullmatch(name) for name, value in part.items())


def _words(value: Any, depth: int = 0, *, plain: bool = False) -> str:
    """The words in a value of any shape: a text, a list, an object that holds one of them."""
    if isinstance(value, str):
        return value
    if depth > 4:
        return ""
    if isinstance(value, list):
        return "".join(_words(item, depth + 1, plain=plain) for item in value)
    if isinstance(value, dict):
        for name in ("value", "text") if plain else _WORDS:
            words = _words(value.get(name), depth + 1, plain=plain)
            if words:
                return words
    return ""
