"""What a model said -> the calls it means, and what it is sent back of its answer.  Pure."""

from __future__ import annotations

import re
from typing import Any, Collection, Dict, List, Optional, Sequence

from agentstream.llm.finish import Ending, ending_of
from agentstream.llm.history import changed, readable
from agentstream.llm.messages import ChatMessage, Content
from agentstream.results import ChatResponse, ToolCall
from agentstream.schema.parse import as_object

__all__ = ["as_message", "joined", "made_by", "named"]


def made_by(response: ChatResponse, tools: Collection[str]) -> List[ToolCall]:
    """The calls of an answer, each under the name of the tool it means, cut ones marked.

    Args:
        tools: the names of the agent's tools.
    """
    calls = [named(call, tools) for call in response.tool_calls]
    if calls and _is_cut(response) and not calls[-1].cut:
        last = calls[-1].arguments
        if not last.strip() or as_object(last) is None:
            calls[-1] = changed(calls[-1])
            calls[-1].cut = True
    return calls


def _is_cut(response: ChatResponse) -> bool:
    """True if the answer ended before its end, whatever client it came by."""
    word = response.finish_reason
    return word is not None and ending_of(word) in (Ending.CUT, Ending.FAILED)


def named(call: ToolCall, tools: Collection[str]) -> ToolCall:
    """The call under the name of the tool it means.

    Models write what their prompt's format has around a name: "functions.get_weather",
    "default_api:get_weather", "get_weather<|channel|>commentary".  Where the words of
    such a name hold exactly one tool's, that is the one; but not where the tool's is the
    namespace: "get_weather.delete" is another thing's name.
    """
    if call.name in tools:
        return call
    found = {word for word in re.split(r"[^a-zA-Z0-9_-]+", call.name) if word in tools}
    if len(found) != 1:
        return call
    name = found.pop()
    is_namespace = re.search(re.escape(name) + r"[.:/]+[a-zA-Z_]", call.name)
    return call if is_namespace else changed(call, name=name)


def as_message(response: ChatResponse, calls: Sequence[ToolCall]) -> ChatMessage:
    """An answer as a later request tells it; `calls` are its calls."""
    told = [readable(call) for call in calls]
    content = response.content if response.content.strip() else None
    return ChatMessage.assistant(content, told, response.provider_state)


def joined(messages: Sequence[ChatMessage]) -> List[ChatMessage]:
    """The messages with the user's that follow each other as one, a blank line between them.

    A question that was never answered is followed by the next one; the templates of some
    models refuse what does not alternate.
    """
    made: List[ChatMessage] = []
    for message in messages:
        last = made[-1] if made else None
        if last is None or (last.role, message.role) != ("user", "user"):
            made.append(message)
        else:
            made[-1] = last.replace(content=_both(last.content, message.content))
    return made


def _both(first: Optional[Content], second: Optional[Content]) -> Content:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: Optional[Content]) -> List[Dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())
