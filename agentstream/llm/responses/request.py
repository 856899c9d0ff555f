"""A ChatRequest in the words of the Responses API.  Pure.

Messages become input items, what stands first of a system's instructions, tools flat.
A field that the API has no words for is refused here, before anything is sent.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence

from agentstream.errors import ConfigError
from agentstream.llm.messages import ChatMessage, ChatRequest

__all__ = ["chat_only", "to_body", "to_item", "to_items"]

API = "the Responses API"
#: Fields that only chat completions has, as a request's body names them.
CHAT_ONLY = (
    "stop",
    "seed",
    "logit_bias",
    "n",
    "frequency_penalty",
    "presence_penalty",
    "logprobs",
    "prediction",
    "modalities",
    "audio",
    "web_search_options",
    "functions",
    "function_call",
    "messages",
    "response_format",
    "verbosity",
    "reasoning_effort",
    "max_tokens",
    "max_completion_tokens",
)
#: Those that go to the other API's place of the same meaning, where a request has them itself.
_AS_IS = ("temperature", "top_p")
#: Objects that a request's own fields are written into.
_MERGED = ("reasoning", "text")


def chat_only(request: ChatRequest, fields: Mapping[str, Any]) -> List[str]:
    """The fields of a request that only chat completions has; `fields` are the body's further ones.

    Its messages are looked at, too: a participant's name, and a function's result.
    """
    found = [name for name in ("stop", "seed") if getattr(request, name) is not None]
    found += [name for name in CHAT_ONLY if fields.get(name) is not None and name not in found]
    if "input" not in fields and "messages" not in found:
        for message in request.messages:
            role, name = _of(message, "role"), _of(message, "name")
            if role == "function":
                found.append("a message of role function")
            elif name is not None and role != "tool":
                found.append("a message's name")
    return list(dict.fromkeys(found))


def to_body(request: ChatRequest, model: str, fields: Mapping[str, Any]) -> Dict[str, Any]:
    """The JSON body of a streaming request but for its input.

    Args:
        request: what is asked.
        model: the client's model, for requests that name none.
        fields: further fields of the body, which win over the request's own; those of
            `reasoning` and `text` one by one.

    Raises:
        ConfigError: the API has no words for a field.
    """
    for name in chat_only(request, fields):
        reason = f"is nothing that {API} has (OpenAIClient(api='chat') asks chat completions)"
        raise ConfigError.about(name, reason)
    body: Dict[str, Any] = {"model": request.model or model, "input": [], "stream": True}
    for name in _AS_IS:
        if getattr(request, name) is not None:
            body[name] = getattr(request, name)
    if request.max_tokens is not None:
        body["max_output_tokens"] = request.max_tokens
    if request.reasoning_effort is not None:
        body["reasoning"] = {"effort": request.reasoning_effort}
    if request.response_format is not None:
        body["text"] = {"format": _format(request.response_format)}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if request.tool_choice is not None:
            body["tool_choice"] = _choice(request.tool_choice)
        if request.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = request.parallel_tool_calls
    for name, value in fields.items():
        ours = body.get(name)
        merged = name in _MERGED and isinstance(ours, dict) and isinstance(value, Mapping)
        body[name] = {**ours, **value} if merged else value  # type: ignore[dict-item]
    return body


def _format(given: Mapping[str, Any]) -> Dict[str, Any]:
    """A response_format as `text.format`: what chat completions nests is flat there."""
    schema = given.get("json_schema")
    if given.get("type") != "json_schema" or not isinstance(schema, Mapping):
        return dict(given)
    return {"type": "json_schema", "name": "answer", **schema}


def _tool(tool: Mapping[str, Any]) -> Dict[str, Any]:
    """A tool, flat; one in the API's own form as it is.

    Without `strict` the API would hold a schema to its strict rules, which chat
    completions does not.
    """
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, Mapping):
        return dict(tool)
    nothing = {"type": "object", "properties": {}}
    return {"type": "function", "parameters": nothing, "strict": False, **function}


def _choice(choice: Any) -> Any:
    function = choice.get("function") if isinstance(choice, Mapping) else None
    if isinstance(function, Mapping):
        return {"type": "function", "name": function.get("name")}
    return choice if isinstance(choice, str) else dict(choice)


# --- messages -------------------------------------------------------------------------------


def instructions_of(messages: Sequence[Any]) -> List[str]:
    """The texts of the system's messages that stand first, if others follow them."""
    found: List[str] = []
    for message in messages:
        content = _of(message, "content")
        if _of(message, "role") not in ("system", "developer") or not isinstance(content, str):
            return found
        found.append(content)
    return []  # nothing but instructions would be no input


def to_items(message: Any) -> List[Dict[str, Any]]:
    """A message as input items: its text, its calls, or a call's result.

    Args:
        message: a `ChatMessage`, or a dict in chat completions' form; one that says
            it is an item (`type`) is taken as it is.

    Raises:
        ConfigError: a part of its content is of no kind that the API has.
    """
    if not isinstance(message, ChatMessage) and message.get("type") is not None:
        return [dict(message)]
    role, content = _of(message, "role"), _of(message, "content")
    if role == "tool":
        call_id = _of(message, "tool_call_id")
        output = _content(content, "input")
        return [{"type": "function_call_output", "call_id": call_id, "output": output or ""}]
    items: List[Dict[str, Any]] = []
    calls = _calls_of(message)
    if content or not calls:
        said = _content(content, "output" if role == "assistant" else "input")
        items.append({"role": role, "content": said or ""})
    return items + [_call(call) for call in calls]


def _calls_of(message: Any) -> List[Mapping[str, Any]]:
    if isinstance(message, ChatMessage):
        return [call.to_dict() for call in message.tool_calls]
    return list(message.get("tool_calls") or ())


def _call(call: Mapping[str, Any]) -> Dict[str, Any]:
    function = call.get("function") or {}
    return {
        "type": "function_call",
        "call_id": call.get("id"),
        "name": function.get("name"),
        "arguments": function.get("arguments") or "{}",
    }


def _content(content: Any, side: str) -> Any:
    """A message's content: a text as it is, parts one by one."""
    if content is None or isinstance(content, str):
        return content
    parts = [content] if isinstance(content, Mapping) else content
    return [to_item(part, side) for part in parts]


def to_item(part: Any, side: str) -> Dict[str, Any]:
    """A part of a content; one in the API's own form as it is.

    Args:
        part: a part as chat completions has it, or a text.
        side: "input" for what is told, "output" for what a model said.

    Raises:
        ConfigError: the API has no such part.
    """
    if isinstance(part, str):
        part = {"type": "text", "text": part}
    kind = part.get("type")
    if kind == "text":
        return {"type": f"{side}_text", "text": part.get("text", "")}
    if kind == "image_url":
        image = part.get("image_url")
        image = {"url": image} if isinstance(image, str) else image or {}
        detail = {"detail": image["detail"]} if image.get("detail") else {}
        return {"type": "input_image", "image_url": image.get("url"), **detail}
    if kind == "file":
        return {"type": "input_file", **(part.get("file") or {})}
    if isinstance(kind, str) and kind.startswith(("input_", "output_", "refusal")):
        return dict(part)
    raise ConfigError.about(f"a content part of type {kind!r}"[:80], f"is nothing that {API} has")


def _of(message: Any, name: str) -> Optional[Any]:
    return getattr(message, name) if isinstance(message, ChatMessage) else message.get(name)
