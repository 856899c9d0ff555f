"""What was said, as the GenAI conventions write it into attributes: JSON of messages and parts.

Only for whoever asks for content; nothing of it is in the events.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, List, Mapping

from agentstream.llm.messages import ChatMessage, ChatRequest
from agentstream.otel import names
from agentstream.results import ChatResponse, ToolCall

__all__ = ["asked", "said"]

_INSTRUCTING = ("system", "developer")


def asked(request: ChatRequest) -> Dict[str, str]:
    """The attributes that hold what a request says."""
    messages = [_plain(message) for message in request.messages]
    told = [each for each in messages if each.get("role") in _INSTRUCTING]
    rest = [each for each in messages if each.get("role") not in _INSTRUCTING]
    found: Dict[str, Any] = {
        names.INPUT_MESSAGES: [{"role": m["role"], "parts": _parts(m)} for m in rest]
    }
    if told:
        found[names.INSTRUCTIONS] = [part for message in told for part in _parts(message)]
    if request.tools:
        found[names.TOOL_DEFINITIONS] = [_definition(tool) for tool in request.tools]
    return {name: _json(value) for name, value in found.items()}


def said(response: ChatResponse) -> Dict[str, str]:
    """The attribute that holds an answer."""
    parts: List[Dict[str, Any]] = []
    if response.reasoning:
        parts.append({"type": "reasoning", "content": response.reasoning})
    if response.content:
        parts.append({"type": "text", "content": response.content})
    parts += map(_call, response.tool_calls)
    message = {"role": "assistant", "parts": parts, "finish_reason": response.finish_reason or ""}
    return {names.OUTPUT_MESSAGES: _json([message])}


def _plain(message: Any) -> Mapping[str, Any]:
    plain: Mapping[str, Any] = message.to_dict() if isinstance(message, ChatMessage) else message
    return plain


def _parts(message: Mapping[str, Any]) -> List[Dict[str, Any]]:
    content = message.get("content")
    if message.get("role") == "tool":
        call_id = message.get("tool_call_id")
        return [{"type": "tool_call_response", "id": call_id, "response": content}]
    parts: List[Dict[str, Any]] = []
    if isinstance(content, str):
        parts = [{"type": "text", "content": content}] if content else []
    elif isinstance(content, Iterable):
        parts = [_part(part) for part in content if isinstance(part, Mapping)]
    for call in message.get("tool_calls") or ():
        told = {"id": "", **call, **(call.get("function") or {})}
        parts.append(_call(ToolCall(told["id"], told.get("name", ""), told.get("arguments", ""))))
    return parts


def _part(part: Mapping[str, Any]) -> Dict[str, Any]:
    """A part as it is; of a picture or a file no more than that there is one: they are large."""
    text = part.get("text")
    return (
        {"type": "text", "content": text} if isinstance(text, str) else {"type": part.get("type")}
    )


def _call(call: ToolCall) -> Dict[str, Any]:
    arguments: Any = call.arguments
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        pass
    return {"type": "tool_call", "id": call.id, "name": call.name, "arguments": arguments}


def _definition(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    return {"type": "function", **function} if isinstance(function, Mapping) else tool


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
