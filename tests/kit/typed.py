"""Servers of every protocol that give the answers of a script, and what each takes of a schema."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from agentstream import AnthropicClient, LlamaClient, OllamaClient, OpenAIClient
from agentstream.testing import (
    ScriptedServer,
    messages_chunks,
    ollama_chunks,
    responses_chunks,
    text_chunks,
    tool_call_chunks,
)
from tests.kit.support import KEY, NO_RETRIES

__all__ = ["PROTOCOLS", "Protocol", "play"]

Schema = Mapping[str, Any]


class Protocol(NamedTuple):
    """A protocol and its client.

    Attributes:
        path: where requests go.
        client: makes the client of a server.
        text: the pieces of an answer, of texts and why it ended.
        call: the pieces of an answer that calls a tool; None where none can be insisted on.
        schema: the schema of a request's body; None if there is none.
        check: raises AssertionError for a schema that the servers refuse.
    """

    name: str
    path: str
    client: Callable[[ScriptedServer], Any]
    text: Callable[..., List[bytes]]
    call: Optional[Callable[..., List[bytes]]]
    schema: Callable[[Dict[str, Any]], Optional[Schema]]
    check: Callable[[Schema], None]


def play(server: ScriptedServer, protocol: Protocol, *texts: str, **options: Any) -> None:
    """The server's next answer: texts, a delta each."""
    kind = "application/x-ndjson" if protocol.path == "/api/chat" else "text/event-stream"
    pieces = protocol.text(*texts, **options)
    server.reply(*pieces, path=protocol.path, content_type=kind)


def _parts(schema: Any) -> Iterator[Schema]:
    """A schema and those within it."""
    if not isinstance(schema, Mapping):
        return
    yield schema
    for key in ("items", "additionalProperties", "not"):
        yield from _parts(schema.get(key))
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for part in schema.get(key) or ():
            yield from _parts(part)
    for key in ("properties", "$defs"):
        for part in (schema.get(key) or {}).values():
            yield from _parts(part)


_COMMON = {"type", "properties", "required", "additionalProperties", "items", "anyOf", "enum",
           "const", "description", "$ref", "$defs", "pattern", "format"}  # fmt: skip
_NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_FORMATS = {"date-time", "date", "time", "duration", "uuid", "email", "hostname", "ipv4", "ipv6"}


def _check_openai(held: Schema) -> None:
    """OpenAI's structured outputs: with `strict`, closed objects, each key required."""
    assert held["schema"]["type"] == "object"
    assert set(held) <= {"type", "name", "schema", "strict"} and held["name"]
    for part in _parts(held["schema"]) if held["strict"] else ():
        assert set(part) <= _COMMON | _NUMBERS | {"minItems", "maxItems"}, part
        assert part.get("format", "date") in _FORMATS, part
        if part.get("type") == "object":
            assert part["additionalProperties"] is False, part
            assert list(part["required"]) == list(part["properties"]), part


def _check_messages(held: Schema) -> None:
    """Anthropic's: closed objects, no bounds."""
    for part in _parts(held["schema"]):
        assert set(part) <= _COMMON | {"allOf", "default", "title", "minItems"}, part
        assert part.get("minItems", 0) in (0, 1), part
        assert part.get("type") != "object" or part["additionalProperties"] is False, part


def _check_grammar(held: Schema) -> None:
    """llama.cpp's: a pattern has both anchors."""
    for part in _parts(held["schema"]):
        pattern = part.get("pattern", "^$")
        assert pattern[0] == "^" and pattern[-1] == "$", part


def _chat_schema(body: Dict[str, Any]) -> Optional[Schema]:
    held: Optional[Schema] = (body.get("response_format") or {}).get("json_schema")
    return held


def _responses_schema(body: Dict[str, Any]) -> Optional[Schema]:
    held: Optional[Schema] = (body.get("text") or {}).get("format")
    return held


def _messages_schema(body: Dict[str, Any]) -> Optional[Schema]:
    held: Optional[Schema] = (body.get("output_config") or {}).get("format")
    return held


def _ollama_schema(body: Dict[str, Any]) -> Optional[Schema]:
    return {"schema": body["format"]} if isinstance(body.get("format"), dict) else None


def _responses_text(*texts: str, cut: bool = False) -> List[bytes]:
    return responses_chunks(*texts, incomplete="max_output_tokens" if cut else None)


def _messages_text(*texts: str, cut: bool = False) -> List[bytes]:
    return messages_chunks(*texts, stop_reason="max_tokens" if cut else "")


def _ollama_text(*texts: str, cut: bool = False) -> List[bytes]:
    return ollama_chunks(*texts, done_reason="length" if cut else "stop")


def _chat_text(*texts: str, cut: bool = False) -> List[bytes]:
    return text_chunks(*texts, finish_reason="length" if cut else "stop")


def _openai(api: str) -> Callable[[ScriptedServer], Any]:
    return lambda server: OpenAIClient(
        "m", api_key=KEY, base_url=f"{server.url}/v1", api=api, retries=NO_RETRIES
    )


Call = Tuple[str, Mapping[str, Any]]
PROTOCOLS = (
    Protocol("chat", "/v1/chat/completions", _openai("chat"), _chat_text, tool_call_chunks,
             _chat_schema, _check_openai),
    Protocol("responses", "/v1/responses", _openai("responses"), _responses_text,
             responses_chunks, _responses_schema, _check_openai),
    Protocol("messages", "/v1/messages",
             lambda server: AnthropicClient("m", api_key=KEY, base_url=server.url,
                                            retries=NO_RETRIES),
             _messages_text, messages_chunks, _messages_schema, _check_messages),
    Protocol("ollama", "/api/chat",
             lambda server: OllamaClient("m", base_url=server.url, retries=NO_RETRIES),
             _ollama_text, None, _ollama_schema, _check_grammar),
    Protocol("llama.cpp", "/v1/chat/completions",
             lambda server: LlamaClient(server.url, retries=NO_RETRIES), _chat_text,
             None, _chat_schema, _check_grammar),
)  # fmt: skip


def words_of(body: Dict[str, Any]) -> str:
    """All that a request's body says."""
    return json.dumps(body, ensure_ascii=False)
