"""The recordings of the native protocols, ../shared/conformance/native, and what they came to."""

from __future__ import annotations

import json
import pathlib
import random
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest

from agentstream import errors
from tests.kit.streams import cut, response_of

CORPUS = pathlib.Path(__file__).resolve().parents[3] / "shared" / "conformance" / "native"

needs_corpus = pytest.mark.skipif(
    not CORPUS.is_dir(), reason="../shared/conformance is not here: a clone without the corpus"
)

_COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


def load(name: str) -> List[Any]:
    """One of the corpus' lists; empty where there is no corpus."""
    path = CORPUS / name
    found: List[Any] = json.loads(path.read_text("utf-8")) if path.exists() else []
    return found


def streams_of(protocol: str) -> List[Any]:
    """The streams of a protocol, as index.json describes them."""
    return [stream for stream in load("index.json") if stream["protocol"] == protocol]


def requests_of(protocol: str) -> List[Any]:
    """The recorded conversations of a protocol."""
    paths = sorted((CORPUS / "requests").glob("*.json")) if CORPUS.is_dir() else []
    loops = [json.loads(path.read_text("utf-8")) for path in paths if path.name != "index.json"]
    return [loop for loop in loops if loop["protocol"] == protocol]


def pieces_of(stream: Any) -> Iterator[Tuple[str, List[bytes]]]:
    """The body of a stream whole, byte by byte, and cut at random."""
    body = (CORPUS / stream["file"]).read_bytes()
    yield "whole", [body]
    yield "bytes", [body[i : i + 1] for i in range(len(body))]
    randomly = random.Random(stream["sha256"])
    for n in range(3):
        count = randomly.choice((1, 7, 60))
        yield f"random {n}", cut(body, [randomly.randrange(1, len(body)) for _ in range(count)])


def play(client: Any, pieces: List[bytes], request: Any) -> Tuple[List[Any], Any, Any]:
    """All deltas of a client whose server answers so, the response, and the error or None."""
    client._transport._send = lambda *_: response_of(pieces)
    stream = client.stream_deltas(request)
    deltas = []
    error: Optional[errors.AgentStreamError] = None
    try:
        for delta in stream:
            deltas.append(delta)
    except errors.AgentStreamError as raised:
        error = raised
    finally:
        stream.close()
    return deltas, stream.answer.response() if error is None else error.partial, error


def summary(response: Any, error: Optional[Exception]) -> Dict[str, Any]:
    """What an answer came to, in the corpus' terms."""
    usage = response.usage
    return {
        "text": response.content,
        "reasoning_text": response.reasoning,
        "tool_calls": [call._asdict() for call in response.tool_calls],
        "finish_reason": response.finish_reason,
        "model": response.model,
        "response_id": response.response_id,
        "native_finish": response.native_finish_reason,
        "usage": None if usage.estimated else {name: getattr(usage, name) for name in _COUNTS},
        "error": isinstance(error, (errors.ProviderStreamError, errors.StatusError)),
        "truncated": isinstance(error, errors.StreamTruncated),
    }


def expectation(stream: Any, model: str) -> Dict[str, Any]:
    """What it should come to; `model` is what was asked for.

    An answer whose reason for ending had come is whole, whatever its body lacked.
    """
    expected = stream["expected"]
    usage = expected["usage"]
    fields = ("text", "reasoning_text", "tool_calls", "finish_reason")
    calls = [
        {name: call[name] for name in ("id", "name", "arguments")}
        for call in expected["tool_calls"]
    ]
    return {
        **{name: expected[name] for name in fields},
        "tool_calls": calls,
        "model": expected["model"] or model,
        "response_id": expected["response_id"],
        "native_finish": expected["native_finish"]["stop_reason"],
        "usage": usage and {name: usage[name] for name in _COUNTS},
        "error": expected["error"] is not None,
        "truncated": bool(expected["truncated"] and expected["finish_reason"] is None),
    }
