"""By which means a server is asked for a typed answer, and the request that does it.  Pure.

Three means, the first that the server takes: a JSON schema that it holds the answer to
(each dialect's own field for `response_format`), a tool that it is made to call, words.
"""

from __future__ import annotations

import json
import re
from typing import Any, List, Mapping, NamedTuple, Optional, Set, Tuple

from agentstream.errors import AgentStreamError, StatusError
from agentstream.llm.messages import ChatMessage, ChatRequest
from agentstream.schema.annotations import Undescribable
from agentstream.schema.output import Output
from agentstream.schema.wire import GRAMMAR, MESSAGES, OPENAI, Wire, reduced

__all__ = ["WIRES", "Means", "OutputTraits", "WireMeans", "means_of", "refuses"]


class WireMeans(NamedTuple):
    """What servers that speak a language take.

    Attributes:
        wire: what they take of a schema.
        means: in the order of choice.
        loose: they take a schema that cannot be held strictly.
        with_tools: a schema and tools may be in one request.
        needs_words: a schema holds the answer but is not shown to the model.
    """

    wire: Wire
    means: Tuple[str, ...]
    loose: bool = True
    with_tools: bool = True
    needs_words: bool = False


#: By a client's name for its language.
WIRES: Mapping[str, WireMeans] = {
    "openai": WireMeans(OPENAI, ("schema", "tool", "words")),
    "messages": WireMeans(MESSAGES, ("schema", "tool", "words"), loose=False),
    "grammar": WireMeans(GRAMMAR, ("schema", "words"), with_tools=False, needs_words=True),
}
#: The name of the tool that is the answer; longer if the request has one of that name.
_TOOL = "final_answer"
_TOLD = "Call this once, at the end: its arguments are your answer."
#: What a server says of a request whose means it does not take.
_REFUSALS = {
    "schema": re.compile(
        r"response.?format|json.?schema|text\.format|output_(config|format)|structured|grammar"
        r"|\bschema\b|\bformat\b",
        re.IGNORECASE,
    ),
    "tool": re.compile(r"tool|function", re.IGNORECASE),
}
#: What it says of one schema, and not of schemas.
_OF_ONE = re.compile(
    r"invalid.{0,3}(json.{0,3})?schema|in context|unrecognized schema"
    r"|failed to (load|parse|convert|compile).{0,40}(schema|grammar)|too (complex|large|many|deep)"
    r"|pattern must",
    re.IGNORECASE,
)
_STATUSES = (400, 404, 415, 422, 500, 501)


class Means(NamedTuple):
    """A request as it is asked by some means.

    Attributes:
        name: "schema", "tool" or "words".
        request: what is sent; its `output` is None.
        tool: the name of the tool whose arguments are the answer; "" for none.
    """

    name: str
    request: ChatRequest
    tool: str = ""


class OutputTraits:
    """What is learned of a server; one for each client.

    Attributes:
        refused: (model, means) of a server that has no such means, and
            (model, means, schema) of one that does not take this schema.
    """

    def __init__(self) -> None:
        self.refused: Set[Tuple[str, ...]] = set()

    def note(self, model: str, means: str, output: Output, error: AgentStreamError) -> None:
        """The server has refused `means` with `error`."""
        one = isinstance(error, StatusError) and _OF_ONE.search(error.body)
        key = (model, means)
        self.refused.add((*key, _text_of(output)) if one else key)

    def takes(self, model: str, means: str, output: Output) -> bool:
        """False if the server has refused that before."""
        key = (model, means)
        return key not in self.refused and (*key, _text_of(output)) not in self.refused


def _text_of(output: Output) -> str:
    return json.dumps(output.schema, sort_keys=True)


def means_of(request: ChatRequest, wire: WireMeans) -> List[Means]:
    """The ways to ask for `request`, in the order of choice; its `output` says for what."""
    output: Output = request.output
    plain = request.replace(output=None)
    late = bool(plain.tools) and not wire.with_tools
    if late and plain.tool_choice == "none":  # no call is wanted any more
        plain, late = plain.replace(tools=(), tool_choice=None), False
    wanted = wire.means if output.means == "auto" else (output.means,)
    found = []
    for name in wanted:
        if name == "words" or (late and output.means == "auto"):
            found.append(Means("words", _in_words(plain, output)))
            break
        made = (
            _by_schema(plain, output, wire) if name == "schema" else _by_tool(plain, output, wire)
        )
        if made is not None:
            found.append(made)
    return found or [Means("words", _in_words(plain, output))]


def refuses(error: AgentStreamError, means: str) -> bool:
    """True if the server says that it does not take a means."""
    if not isinstance(error, StatusError) or error.status not in _STATUSES:
        return False
    words = _REFUSALS.get(means)
    return words is not None and words.search(error.body) is not None


# --- one function a means -------------------------------------------------------------------


def _by_schema(request: ChatRequest, output: Output, wire: WireMeans) -> Optional[Means]:
    strict, schema = True, output.schema
    try:
        schema = reduced(schema, wire.wire)
    except Undescribable:
        if not wire.loose:
            return None
        strict = False
    described = {"name": output.name, "strict": strict, "schema": schema}
    request = _in_words(request, output) if wire.needs_words else request
    form = {"type": "json_schema", "json_schema": described}
    return Means("schema", request.replace(response_format=form))


def _by_tool(request: ChatRequest, output: Output, wire: WireMeans) -> Optional[Means]:
    names = {str((tool.get("function") or {}).get("name")) for tool in request.tools}
    name = _TOOL
    while name in names:
        name += "_"
    choice = request.tool_choice
    if choice not in (None, "auto", "none"):
        return Means("tool", request, name)  # the first call is another one
    function = {"name": name, "description": _TOLD, "parameters": output.schema}
    tool = {"type": "function", "function": function}
    if choice == "none" or not request.tools:
        named = {"type": "function", "function": {"name": name}}
        return Means("tool", request.replace(tools=[tool], tool_choice=named), name)
    tools = [*request.tools, tool]
    return Means("tool", request.replace(tools=tools, tool_choice="required"), name)


def _in_words(request: ChatRequest, output: Output) -> ChatRequest:
    """The request with the schema in its system's words."""
    messages: List[Any] = list(request.messages)
    first = messages[0]
    role, content = _of(first, "role"), _of(first, "content")
    words = output.words()
    if request.tools:
        words = f"Use your tools as you need them. Then: {words}"
    if role not in ("system", "developer") or not isinstance(content, str):
        return request.replace(messages=[ChatMessage.system(words), *messages])
    words = f"{content}\n\n{words}" if content else words
    if isinstance(first, ChatMessage):
        messages[0] = first.replace(content=words)
    else:
        messages[0] = {**first, "content": words}
    return request.replace(messages=messages)


def _of(message: Any, name: str) -> Any:
    return getattr(message, name) if isinstance(message, ChatMessage) else message.get(name)
