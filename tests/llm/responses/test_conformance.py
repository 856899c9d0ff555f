"""Recorded streams and errors of the Responses API, in ../shared/conformance/native.

Data that the project does not ship; without it these tests skip and say so.  What the
corpus calls ambiguous is decided here so: parts of a reasoning's summary are joined by a
blank line; a whole last event counts without the blank line that ends it.
"""

from __future__ import annotations

import json
import pathlib
import random

import pytest

from agentstream import OpenAIClient, Retries, errors
from agentstream.llm import failures
from agentstream.llm.secrets import Redactor
from tests.kit.streams import cut, play

CORPUS = pathlib.Path(__file__).resolve().parents[4] / "shared" / "conformance" / "native"

pytestmark = pytest.mark.skipif(
    not CORPUS.is_dir(), reason="../shared/conformance/native is not here: a clone without it"
)


def _load(name):
    path = CORPUS / name
    entries = json.loads(path.read_text("utf-8")) if path.exists() else []
    return [entry for entry in entries if entry["protocol"] == "openai-responses"]


STREAMS = _load("index.json")
ERRORS = _load("http_errors.json")

#: What a word of `ambiguous` frees from comparison.
FREED = {
    "reasoning_join": ("reasoning_text",),
    "the standard drops": ("finish_reason", "native_finish", "usage", "error"),
}


def test_the_corpus_is_whole():
    assert (len(STREAMS), len(ERRORS)) >= (54, 1)


def summary(deltas, response, error):
    """What a stream came to, in the corpus' terms; joined deltas must equal the sum."""
    assert "".join(d.content for d in deltas) == response.content
    assert "".join(d.reasoning for d in deltas) == response.reasoning
    counts = {
        name: getattr(response.usage, name)
        for name in (
            "prompt_tokens",
            "completion_tokens",
            "total_tokens",
            "cached_tokens",
            "cache_write_tokens",
            "reasoning_tokens",
        )
    }
    return {
        "text": response.content,
        "reasoning_text": response.reasoning,
        "tool_calls": [tuple(call) for call in response.tool_calls],
        "finish_reason": response.finish_reason,
        "usage": None if response.usage.estimated else counts,
        "model": response.model,
        "response_id": response.response_id,
        "native_finish": response.native_finish_reason,
        "error": type(error).__name__ if error else None,
    }


def expectation(stream):
    expected = stream["expected"]
    told = {name: expected[name] for name in ("text", "reasoning_text", "finish_reason", "usage")}
    told["tool_calls"] = [(c["id"], c["name"], c["arguments"]) for c in expected["tool_calls"]]
    told["model"] = expected["model"] or "default"
    told["response_id"] = expected["response_id"]
    native = expected["native_finish"]
    told["native_finish"] = native["reason"] or native["status"]
    told["error"] = "StreamTruncated" if expected["truncated"] else None
    if expected["error"] is not None:
        told["error"] = "RateLimited"
        told["native_finish"] = None  # an error is the last that is read
    return told


def _client():
    return OpenAIClient(
        "default", api="responses", base_url="http://127.0.0.1:1", retries=Retries(0)
    )


@pytest.mark.parametrize("stream", STREAMS, ids=lambda s: s["file"][10:-4])
def test_stream(stream):
    body = (CORPUS / stream["file"]).read_bytes()
    expected = expectation(stream)
    freed = {
        field
        for point in stream["ambiguous"]
        for word, fields in FREED.items()
        if point.startswith(word)
        for field in fields
    }
    randomly = random.Random(stream["sha256"])
    cuts = {"whole": [body]}
    if len(body) < 200_000:
        cuts["bytes"] = [body[i : i + 1] for i in range(len(body))]
    for n in range(3):
        places = (randomly.randrange(1, len(body)) for _ in range(randomly.choice((1, 7, 60))))
        cuts[f"random {n}"] = cut(body, places)
    for name, pieces in cuts.items():
        got = play(pieces, _client())
        said = summary(*got)
        for field, value in expected.items():
            assert said[field] == value or field in freed, (name, field)
        if stream["expected"]["error"] is not None:
            assert stream["expected"]["error"]["message"][:300] in str(got[2])
        if stream["expected"]["refusal"]:
            assert stream["expected"]["refusal"] in str(got[1].warnings)


@pytest.mark.parametrize("stream", STREAMS, ids=lambda s: s["file"][10:-4])
def test_what_is_opaque_is_kept_as_it_was_done(stream):
    opaque = stream["expected"]["opaque_items"]
    body = (CORPUS / stream["file"]).read_bytes()
    deltas, _, error = play([body], _client())
    state = next((d.provider_state for d in reversed(deltas) if d.provider_state), None)
    if error is None:
        assert [item for item in opaque if item not in (state or {"items": []})["items"]] == []


KINDS = {
    400: errors.BadRequest,
    401: errors.AuthError,
    404: errors.BadRequest,
    429: errors.RateLimited,
    500: errors.ServerError,
    502: errors.ServerError,
}


@pytest.mark.parametrize("case", ERRORS, ids=lambda c: f"{c['server']}-{c['status']}-{c['kind']}")
def test_http_error(case):
    error = failures.status_error(
        case["status"], case["headers"], case["body"], redact=Redactor(), model="m"
    )
    assert type(error) is KINDS[case["status"]]
    assert error.retryable == case["retryable"]
    assert " ".join(case["message"].split())[:300] in " ".join(str(error).split())
