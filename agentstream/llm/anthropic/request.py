"""A request in chat completions' words -> the body that Messages wants.  Pure."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional

from agentstream.errors import ConfigError
from agentstream.llm.anthropic.turns import Turns
from agentstream.llm.messages import ChatRequest

__all__ = ["has_marks", "mark", "to_body"]

_CHOICES = {"auto": "auto", "required": "any", "none": "none"}
#: Words for an effort that Messages has another for.
_EFFORTS = {"minimal": "low"}
#: How a mark says that what stands before it is worth keeping.
_EPHEMERAL = {"type": "ephemeral"}


def to_body(
    request: ChatRequest, *, model: str, max_tokens: int, origin: str, with_messages: bool = True
) -> Dict[str, Any]:
    """The JSON body of a streaming request.

    Args:
        request: what is asked.
        model, max_tokens: the client's, for requests that name none.
        origin: the server that it goes to.
        with_messages: False if others stand in their place.

    Raises:
        ConfigError: Messages has no words for a field, or for a part of a message.
    """
    body: Dict[str, Any] = {
        "model": request.model or model,
        "max_tokens": max_tokens if request.max_tokens is None else request.max_tokens,
        "stream": True,
    }
    if with_messages:
        turns = Turns(request.messages, origin)
        if turns.system:
            body["system"] = turns.system
        body["messages"] = turns.messages
    for name in ("temperature", "top_p"):
        if getattr(request, name) is not None:
            body[name] = getattr(request, name)
    if request.seed is not None:
        raise ConfigError.about("seed", "cannot be sent: Messages has no such field")
    if request.stop is not None:
        stop = request.stop
        body["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    body.update(_output(request))
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        choice = _choice(request)
        if choice:
            body["tool_choice"] = choice
    return body


def _output(request: ChatRequest) -> Dict[str, Any]:
    """What the answer is to be, and how much reasoning is to be before it."""
    fields: Dict[str, Any] = {}
    config: Dict[str, Any] = {}
    wanted = _format(request.response_format)
    if wanted:
        config["format"] = wanted
    effort = request.reasoning_effort
    if effort == "none":
        fields["thinking"] = {"type": "disabled"}
    elif effort is not None:
        config["effort"] = _EFFORTS.get(effort, effort)
        fields["thinking"] = {"type": "adaptive", "display": "summarized"}
    return {**fields, "output_config": config} if config else fields


def _format(wanted: Optional[Mapping[str, Any]]) -> Optional[Dict[str, Any]]:
    if wanted is None or wanted.get("type") == "text":
        return None
    inner = wanted.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, Mapping) else wanted.get("schema")
    if wanted.get("type") != "json_schema" or not isinstance(schema, Mapping):
        raise ConfigError.about(
            "response_format", "must be a json_schema with its schema: Messages has no other"
        )
    return {"type": "json_schema", "schema": dict(schema)}


def _tool(tool: Mapping[str, Any]) -> Dict[str, Any]:
    """A tool's description; one in Messages' own form, a server's tool perhaps, stays as it is."""
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return dict(tool)
    described: Dict[str, Any] = {"name": function.get("name")}
    if function.get("description"):
        described["description"] = function["description"]
    parameters = function.get("parameters")
    described["input_schema"] = parameters or {"type": "object", "properties": {}}
    if function.get("strict"):
        described["strict"] = True
    return described


def _choice(request: ChatRequest) -> Optional[Dict[str, Any]]:
    wanted = request.tool_choice
    choice: Optional[Dict[str, Any]] = None
    if isinstance(wanted, str):
        if wanted not in _CHOICES:
            raise ConfigError.about("tool_choice", f"must be one of {', '.join(_CHOICES)}")
        choice = {"type": _CHOICES[wanted]}
    elif wanted is not None:
        function = wanted.get("function")
        named = isinstance(function, Mapping)
        choice = {"type": "tool", "name": function["name"]} if named else dict(wanted)  # type: ignore[index]
    if request.parallel_tool_calls is False:
        choice = choice or {"type": "auto"}
        if choice["type"] != "none":
            choice["disable_parallel_tool_use"] = True
    return choice


# --- what the server is to keep ---------------------------------------------------------------


def has_marks(body: Mapping[str, Any]) -> bool:
    """True if the request itself says what is to be kept."""
    return "cache_control" in body or any("cache_control" in block for block in _markable(body))


def mark(body: Dict[str, Any]) -> Dict[str, Any]:
    """The body with marks on its tools, its system's words and the last two user turns.

    The server keeps what stands before a mark; the next request begins with the same
    and ends later, so its last turn but one ends where this one's last does.
    """
    marked = dict(body)
    for name in ("tools", "system"):
        if isinstance(marked.get(name), list) and marked[name]:
            marked[name] = _with_mark(marked[name])
    turns = list(marked.get("messages") or ())
    users = [place for place, turn in enumerate(turns) if turn.get("role") == "user"]
    for place in users[-2:]:
        content = turns[place].get("content")
        if isinstance(content, list) and content:
            turns[place] = {**turns[place], "content": _with_mark(content)}
    if turns:
        marked["messages"] = turns
    return marked


def _with_mark(blocks: List[Any]) -> List[Any]:
    """The blocks, or tools, with a mark on the last one that takes it."""
    for place in reversed(range(len(blocks))):
        if _takes_mark(blocks[place]):
            marked = {**blocks[place], "cache_control": _EPHEMERAL}
            return [*blocks[:place], marked, *blocks[place + 1 :]]
    return blocks


def _takes_mark(block: Any) -> bool:
    """False for a tool that is loaded when it is found, and for blank text: a 400 each."""
    if not isinstance(block, Mapping) or block.get("defer_loading"):
        return False
    return block.get("type") != "text" or bool(str(block.get("text", "")).strip())


def _markable(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The tools and blocks of a body."""
    contents = [turn.get("content") for turn in body.get("messages") or ()]
    for blocks in (body.get("tools"), body.get("system"), *contents):
        for block in blocks if isinstance(blocks, list) else ():
            if isinstance(block, Mapping):
                yield block
