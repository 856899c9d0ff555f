"""Tools for a model whose chat template knows none: JSON that is a call or an answer (pure).

The request's tools become words and a response_format that llama.cpp enforces;
the answer's JSON becomes deltas of text, or of a tool call, as if the model had
known tools.  After a tool's result only an answer is offered: a small model
that may call again does so for ever.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Mapping, Optional, Tuple

from agentstream.errors import ConfigError, ProtocolError
from agentstream.llm.accumulator import Accumulator
from agentstream.llm.dialect import Dialect, Wrapped
from agentstream.llm.messages import ChatMessage, ChatRequest, Delta, ToolCallDelta
from agentstream.schema.partial_json import StringField

__all__ = ["SchemaDialect", "as_schema_request"]

#: Characters that a tool call's JSON may have.
_LONGEST_CALL = 2**20

_ANSWER: Dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}


def as_schema_request(request: ChatRequest) -> ChatRequest:
    """The request that asks for a call or an answer as JSON, and speaks of no tools.

    Raises:
        ConfigError: the request has a response_format of its own.
    """
    if request.response_format is not None:
        raise ConfigError(
            "tools by JSON schema and a response_format exclude each other: both say what"
            " the answer looks like"
        )
    messages = [_fields(message) for message in request.messages]
    choice = request.tool_choice
    answered = bool(messages) and messages[-1].get("role") == "tool"
    forms = []
    if choice != "none" and not answered:
        forms = [_call_schema(tool) for tool in request.tools]
    if not forms or choice in (None, "auto"):
        forms.append(_ANSWER)
    schema = forms[0] if len(forms) == 1 else {"anyOf": forms}
    return request.replace(
        messages=_told(messages, request.tools),
        tools=(),
        tool_choice=None,
        parallel_tool_calls=None,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "call_or_answer", "strict": True, "schema": schema},
        },
    )


def _fields(message: Any) -> Dict[str, Any]:
    return message.to_dict() if isinstance(message, ChatMessage) else dict(message)


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    return function if isinstance(function, Mapping) else tool


def _call_schema(tool: Mapping[str, Any]) -> Dict[str, Any]:
    function = _function(tool)
    parameters = function.get("parameters") or {"type": "object"}
    if '"$ref"' in json.dumps(parameters):
        parameters = {"type": "object"}  # its references would point past it here
    return {
        "type": "object",
        "properties": {"tool": {"const": function.get("name", "")}, "arguments": parameters},
        "required": ["tool", "arguments"],
        "additionalProperties": False,
    }


# --- the words ------------------------------------------------------------------------------


def _told(messages: List[Dict[str, Any]], tools: Any) -> List[Dict[str, Any]]:
    """The messages as a template without tools takes them, the tools described in the first."""
    system = _instructions(tools)
    rest = messages
    if messages and messages[0].get("role") in ("system", "developer"):
        own = messages[0].get("content")
        if isinstance(own, str) and own:
            system = f"{own}\n\n{system}"
        rest = messages[1:]
    else:
        system = f"You are a helpful assistant with tools.\n{system}"
    told: List[Dict[str, Any]] = [{"role": "system", "content": system}]
    question = ""
    names: Dict[str, str] = {}
    for number, message in enumerate(rest):
        role, content = message.get("role"), message.get("content")
        if role == "tool":
            name = names.get(str(message.get("tool_call_id")), "the tool")
            text = f"Result of {name}: {content}"
            if number == len(rest) - 1:
                text += f"\n\nNow answer my question in words: {question}"
            told.append({"role": "user", "content": text})
        elif role == "assistant":
            told.append({"role": "assistant", "content": _as_json(message, names)})
        else:
            question = content if isinstance(content, str) else question
            told.append(message)
    return told


def _instructions(tools: Any) -> str:
    lines = []
    for tool in tools:
        function = _function(tool)
        properties = (function.get("parameters") or {}).get("properties", {})
        lines.append(
            f"- {function.get('name', '')}: {function.get('description', '')} "
            f"Arguments: {json.dumps(properties, ensure_ascii=False)}"
        )
    return (
        "Tools:\n" + "\n".join(lines) + "\n\nReply in JSON, in one of two forms:\n"
        '{"tool": "the tool\'s name", "arguments": {...}} to use a tool, or\n'
        '{"answer": "your words"} when no tool is needed.'
    )


def _as_json(message: Mapping[str, Any], names: Dict[str, str]) -> str:
    """What the model said, as it would have been written in this mode."""
    said = []
    content = message.get("content")
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        name = str(function.get("name", ""))
        names[str(call.get("id"))] = name
        try:
            arguments = json.loads(function.get("arguments") or "{}")
        except (ValueError, RecursionError):
            arguments = {}
        said.append(json.dumps({"tool": name, "arguments": arguments}, ensure_ascii=False))
    if said:
        return "\n".join(said)
    return json.dumps({"answer": content}, ensure_ascii=False)


# --- the answer -----------------------------------------------------------------------------


class SchemaDialect(Wrapped):
    """A dialect whose answers are such JSON: their text is the answer's, their calls its call.

    A server that did not keep to the schema and just talks is taken at its word.
    """

    def __init__(self, inner: Dialect) -> None:
        super().__init__(inner)
        self._forget()

    def _forget(self) -> None:
        self._field = StringField("answer")
        self._raw: List[str] = []  # while it may still be a call
        self._size = 0
        self._ended = False

    def begin(self, answer: Accumulator) -> None:
        """See `Dialect.begin`."""
        super().begin(answer)
        self._forget()

    def read(self, event: str, data: str) -> Optional[Delta]:
        """See `Dialect.read`."""
        delta = self._inner.read(event, data)
        return None if delta is None else self._translated(delta, bool(delta.finish_reason))

    def read_whole(self, text: str) -> Optional[Delta]:
        """See `Dialect.read_whole`."""
        delta = self._inner.read_whole(text)
        if delta is None:
            return None
        return self._translated(delta, bool(delta.finish_reason)) or Delta()

    def flush(self, tail: str) -> Optional[Delta]:
        """See `Dialect.flush`."""
        return self._translated(self._inner.flush(tail) or Delta(), True)

    def _translated(self, delta: Delta, last: bool) -> Optional[Delta]:
        content = self._text(delta.content) if delta.content else ""
        calls: Tuple[ToolCallDelta, ...] = delta.tool_calls
        warnings = delta.warnings
        if last and not self._ended:
            self._ended = True
            content += self._field.flush()
            if not (self._field.found or self._field.plain):
                call, warning = self._call()
                calls += call
                warnings += warning
        finish = "tool_calls" if calls and delta.finish_reason else delta.finish_reason
        made = delta._replace(
            content=content, tool_calls=calls, warnings=warnings, finish_reason=finish
        )
        return made if made != Delta() else None

    def _text(self, content: str) -> str:
        text = self._field.feed(content)
        if self._field.found:
            self._raw.clear()
            return text
        self._raw.append(content)
        if self._field.plain:
            text = "".join(self._raw)
            self._raw.clear()
            return text
        self._size += len(content)
        if self._size > _LONGEST_CALL:
            raise ProtocolError("the JSON of a tool call has no end", phase="stream")
        return ""

    def _call(self) -> Tuple[Tuple[ToolCallDelta, ...], Tuple[str, ...]]:
        """The call that the JSON is; or a warning that it is none, cut off perhaps."""
        text = "".join(self._raw)
        if not text.strip():
            return (), ()
        try:
            said = json.loads(text)
            name, arguments = said["tool"], said["arguments"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return (), ("the model's JSON is neither a whole call nor an answer",)
        written = json.dumps(arguments, ensure_ascii=False)
        return (ToolCallDelta(0, "", str(name), written),), ()
