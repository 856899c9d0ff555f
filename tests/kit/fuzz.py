"""Recorded streams, bent: what may come out of a client whatever its server writes.

`recordings` gives whole streams of one protocol; `bend` changes one in its JSON, in its
lines or in its bytes; `play` gives it to a client as its server's answer and raises
what is no AgentStreamError.
"""

from __future__ import annotations

import json
import pathlib
import random
from typing import Any, Callable, Dict, Iterator, List

from agentstream.errors import AgentStreamError
from agentstream.llm.anthropic.client import AnthropicClient
from agentstream.llm.clients import HTTPClient, LlamaClient, OpenAIClient
from agentstream.llm.messages import as_request
from agentstream.llm.ollama.client import OllamaClient
from agentstream.llm.settings import Retries
from agentstream.testing import (
    messages_chunks,
    ollama_chunks,
    responses_chunks,
    text_chunks,
    tool_call_chunks,
)
from tests.kit.streams import cut, response_of

__all__ = ["PROTOCOLS", "bend", "client_of", "play", "recordings"]

_CORPUS = pathlib.Path(__file__).resolve().parents[3] / "shared" / "conformance"
_NOWHERE = "http://127.0.0.1:1"

#: Each protocol's client.
PROTOCOLS: Dict[str, Callable[..., HTTPClient]] = {
    "chat": lambda **how: OpenAIClient(base_url=_NOWHERE, api_key="k", think_tags=True, **how),
    "llama": lambda **how: LlamaClient(_NOWHERE, **how),
    "responses": lambda **how: OpenAIClient(base_url=_NOWHERE, api_key="k", api="responses", **how),
    "anthropic": lambda **how: AnthropicClient(base_url=_NOWHERE, api_key="k", **how),
    "ollama": lambda **how: OllamaClient("m", base_url=_NOWHERE, **how),
}
_FOLDERS = {
    "chat": "streams",
    "llama": "streams",
    "responses": "native/responses",
    "anthropic": "native/messages",
}
_HEADERS = {"ollama": {"content-type": "application/x-ndjson"}}
_OWN: Dict[str, List[List[bytes]]] = {
    "chat": [text_chunks("Hello", " world"), tool_call_chunks(("look", {"at": "sea"}), ("go", {}))],
    "responses": [
        responses_chunks("Hello", ("look", {"at": "sea"})),
        responses_chunks({"type": "reasoning", "summary": [{"text": "hm"}]}, "Hello"),
    ],
    "anthropic": [
        messages_chunks("Hello", ("look", {"at": "sea"})),
        messages_chunks({"type": "thinking", "thinking": "hm", "signature": "s"}, "Hello"),
    ],
    "ollama": [
        ollama_chunks("Hello", " world", thinking=["hm"]),
        ollama_chunks("Hello", tool_calls=[("look", {"at": "sea"})]),
    ],
}
_OWN["llama"] = _OWN["chat"]

#: What a server may write in a value's place.
_ODD: List[Any] = [
    None, True, False, 0, -1, 1.5, 10**400, -(2**63), 1e308, float("nan"), float("inf"), "", "x",
    "\ud800", "\0", "1", "[DONE]", "a" * 5000, [], [None], [[]], [{}], {}, {"x": None}, {"": {}},
    {"index": 10**30}, {"type": []}, [1, "a", {}],
]  # fmt: skip


def recordings(protocol: str) -> List[bytes]:
    """Whole streams: the corpus' open part where it is here, and the testing module's."""
    own = [b"".join(pieces) for pieces in _OWN[protocol]]
    folder = _FOLDERS.get(protocol)
    paths = sorted((_CORPUS / folder).glob("*.sse")) if folder and _CORPUS.is_dir() else []
    return own + [_shortened(path.read_bytes()) for path in paths]


def _shortened(stream: bytes) -> bytes:
    """A long stream without its middle."""
    events = stream.split(b"\n\n")
    if len(events) > 24:
        events = events[:12] + events[-12:]
    return b"\n\n".join(events)


def bend(stream: bytes, chance: random.Random) -> bytes:
    """The stream with a few things wrong in it."""
    lines = stream.split(b"\n")
    for _ in range(chance.choice((1, 1, 2, 5))):
        place = chance.randrange(len(lines))
        begin = lines[place].find(b"{")
        if begin >= 0:
            lines[place] = lines[place][:begin] + _bend_json(lines[place][begin:], chance)
        elif chance.random() < 0.3:
            lines[place] = chance.choice((b"event: error", b"data: 1", b"{", b"data: []", b": x"))
    kind = chance.random()
    if kind < 0.1:
        chance.shuffle(lines)
    elif kind < 0.2:
        del lines[chance.randrange(len(lines)) :]
    bent = b"\n".join(lines)
    if kind > 0.8 and bent:
        data = bytearray(bent)
        for _ in range(chance.randrange(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        bent = bytes(data)
    return bent


def _bend_json(text: bytes, chance: random.Random) -> bytes:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    kind = chance.random()
    if kind < 0.05:
        depth = chance.choice((5_000, 100_000))
        return b'{"a":' * depth + text + b"}" * depth if kind < 0.03 else b"[" * depth
    places = list(_places(value))
    if places:
        holder, key = chance.choice(places)
        how = chance.randrange(5)
        if how == 0:
            del holder[key]
        elif how == 1:
            holder[key] = [holder[key]]
        elif how == 2:
            holder[key] = {"x": holder[key]}
        elif how == 3:
            for _ in range(chance.choice((2, 50, 400, 900))):
                holder[key] = [holder[key]] if chance.random() < 0.5 else {"type": holder[key]}
        else:
            holder[key] = chance.choice(_ODD)
    else:
        value = chance.choice(_ODD)
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return text


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each (dict or list, key) within a value; a stack of its own, since values nest deeply."""
    rest = [value]
    while rest:
        outer = rest.pop()
        for key, inner in outer.items() if isinstance(outer, dict) else enumerate(outer):
            yield outer, key
            if isinstance(inner, (dict, list)):
                rest.append(inner)


def client_of(protocol: str) -> HTTPClient:
    """A client to be given to `play`."""
    return PROTOCOLS[protocol](retries=Retries(0))


def play(client: HTTPClient, protocol: str, body: bytes, chance: random.Random) -> str:
    """What a body comes to: "whole", or the type of an AgentStreamError; it may raise others.

    Mostly a stream in a few pieces; now and then an answer with another Content-Type
    or an error's status.
    """
    places = [chance.randrange(len(body) + 1) for _ in range(chance.choice((0, 1, 6)))]
    headers = dict(_HEADERS.get(protocol, {}))
    status = 200
    kind = chance.random()
    if kind < 0.1:
        headers["content-type"] = "application/json"
        body = body.partition(b"{")[1] + body.partition(b"{")[2].partition(b"\n")[0]
    elif kind < 0.2:
        status = chance.choice((400, 401, 404, 429, 500, 503, 529))
    client._transport._send = lambda *_: response_of(cut(body, places), headers, status)  # type: ignore[method-assign]
    try:
        if chance.random() < 0.5:
            repr(client.chat(as_request("hi")))
        else:
            with client.stream_deltas(as_request("hi")) as stream:
                for delta in stream:
                    repr(delta)
            repr(stream.answer.response())
    except AgentStreamError as error:
        repr(error.partial)
        return type(error).__name__
    return "whole"
