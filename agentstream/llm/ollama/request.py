"""A request as Ollama takes it: POST /api/chat.  Pure.

Its messages have texts, pictures in base64 and arguments that are objects, where chat
completions have parts, URLs and JSON texts; a model's parameters go into `options`.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, List, Mapping, Optional, Union

from agentstream.errors import ConfigError
from agentstream.llm.messages import ChatMessage, ChatRequest
from agentstream.llm.ollama.parts import text_and_images

__all__ = ["DIALECT", "Settings", "to_body"]

#: What `provider_state` names as its dialect.
DIALECT = "ollama"

#: How much a model is to think, by what chat completions call it.
_EFFORTS: Dict[str, Union[bool, str]] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
#: The fields of a request that are options of the model here.
_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "max_tokens": "num_predict",
}
#: What is written anew of a message; the rest of a dict is sent as it is.
_OURS = ("role", "content", "tool_calls", "tool_call_id", "name")


class Settings:
    """What a client says of every request.

    Attributes:
        model: for requests that name none.
        origin: the URL that requests go to, without secrets.
        think, keep_alive: as the API has them; None for the server's default.
        options: the model's parameters, `num_ctx` among them.
        body: further fields.
    """

    def __init__(
        self,
        model: str,
        *,
        origin: str = "",
        think: Union[bool, str, None] = None,
        keep_alive: Union[float, str, None] = None,
        options: Optional[Mapping[str, Any]] = None,
        body: Optional[Mapping[str, Any]] = None,
    ) -> None:
        self.model = model
        self.origin = origin
        self.think = think
        self.keep_alive = keep_alive
        self.options = dict(options or {})
        self.body = dict(body or {})


def to_body(request: ChatRequest, settings: Settings) -> Dict[str, Any]:
    """The JSON body of a streaming request; a field that is None is not in it.

    `options` of the client, of the request and of its `extra` become one.

    Raises:
        ConfigError: the request holds what this API cannot express.
    """
    further = {**settings.body, **request.extra}
    body: Dict[str, Any] = {
        "model": request.model or settings.model,
        "messages": further.get("messages") or _messages(request.messages, settings.origin),
        "stream": True,
        "tools": _tools(request),
        "format": _format(request.response_format),
        "think": _think(request, settings),
        "keep_alive": settings.keep_alive,
    }
    options = {
        **settings.options,
        **_options_of(request),
        **_table("body", settings.body.get("options")),
        **_table("extra", request.extra.get("options")),
    }
    options = {name: value for name, value in options.items() if value is not None}
    body = {**body, **further, "options": options or None}
    return {name: value for name, value in body.items() if value is not None}


def _options_of(request: ChatRequest) -> Dict[str, Any]:
    found = {ours: getattr(request, name) for name, ours in _OPTIONS.items()}
    if request.stop is not None:
        found["stop"] = [request.stop] if isinstance(request.stop, str) else list(request.stop)
    return {name: value for name, value in found.items() if value is not None}


def _table(owner: str, options: Any) -> Mapping[str, Any]:
    if not isinstance(options, (Mapping, type(None))):
        raise ConfigError.about("options", f"must be a dict, not {type(options).__name__}", owner)
    return options or {}


def _tools(request: ChatRequest) -> Optional[List[Dict[str, Any]]]:
    """The tools; a model decides itself whether to call them, so "none" leaves them out."""
    choice = request.tool_choice
    if not request.tools or choice == "none":
        return None
    if choice not in (None, "auto"):
        raise ConfigError.about(
            "tool_choice", 'must be "auto" or "none" with Ollama: it cannot insist on a tool'
        )
    return [dict(tool) for tool in request.tools]


def _format(wanted: Optional[Mapping[str, Any]]) -> Union[str, Mapping[str, Any], None]:
    """`format` for a `response_format`: "json", or a schema."""
    if wanted is None:
        return None
    kind = wanted.get("type")
    if kind == "text":
        return None
    holder = wanted.get("json_schema") if kind == "json_schema" else wanted
    schema = holder.get("schema") if isinstance(holder, Mapping) else None
    if kind in ("json_object", "json_schema") and isinstance(schema, Mapping):
        return schema
    if kind == "json_object":
        return "json"
    raise ConfigError.about(
        "response_format",
        'must be of type "text", "json_object" or "json_schema" (with its schema) for Ollama',
    )


def _think(request: ChatRequest, settings: Settings) -> Union[bool, str, None]:
    effort = request.reasoning_effort
    return settings.think if effort is None else _EFFORTS.get(effort, effort)


# --- messages -------------------------------------------------------------------------------


def _messages(messages: Iterable[Any], origin: str) -> List[Dict[str, Any]]:
    """The messages, each result under the name of the tool that gave it."""
    names: Dict[str, str] = {}  # of tools, by call
    written = []
    for message in messages:
        given = message.to_dict() if isinstance(message, ChatMessage) else dict(message)
        body = _message(given, names)
        if isinstance(message, ChatMessage):
            _put_back(body, message.provider_state, origin)
        written.append(body)
    return written


def _message(given: Dict[str, Any], names: Dict[str, str]) -> Dict[str, Any]:
    role = {"developer": "system", "function": "tool"}.get(given["role"], given["role"])
    text, images = text_and_images(given.get("content"))
    rest = {name: value for name, value in given.items() if name not in _OURS}
    body: Dict[str, Any] = {"role": role, "content": text, **rest}
    if images:
        body["images"] = images
    if given.get("tool_calls"):
        body["tool_calls"] = [_call(call, names) for call in given["tool_calls"]]
    if role == "tool":
        name = names.get(given.get("tool_call_id") or "") or given.get("name")
        if name:
            body["tool_name"] = name
    return body


def _call(call: Mapping[str, Any], names: Dict[str, str]) -> Dict[str, Any]:
    """A call as this API has it: without an id, its arguments an object."""
    function = call["function"]
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments, strict=False)
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, Mapping):
        raise ConfigError.about(
            "arguments", "must be a JSON object", f"a call of {function['name']}"
        )
    if call.get("id"):
        names[call["id"]] = function["name"]
    return {"function": {"name": function["name"], "arguments": arguments}}


def _put_back(body: Dict[str, Any], state: Optional[Mapping[str, Any]], origin: str) -> None:
    """Write what the server wants back with its own answer."""
    if state is not None and state.get("dialect") == DIALECT and state.get("origin") == origin:
        body.update(state["fields"])
