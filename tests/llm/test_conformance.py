"""Real streams, framing cases and HTTP errors of ../shared/conformance, against the client.

Data that the project does not ship; without it these tests skip and say so.

What the corpus calls arguable is decided here so: a stream with [DONE] and no
finish_reason is whole; one with neither is truncated; "eos_token" stays as the
server wrote it; the last two lines of the TGI stream, which no blank line
parts, are one event that the end of the stream cut off, and so are dropped; a
legacy `function_call` is a tool call, with an id of ours.
"""

from __future__ import annotations

import base64
import json
import pathlib
import random
from unittest.mock import ANY

import pytest

from agentstream import errors
from agentstream.llm import failures
from agentstream.llm.secrets import Redactor
from agentstream.llm.sse import EventDecoder
from tests.kit.streams import cut, play, response_of

CORPUS = pathlib.Path(__file__).resolve().parents[3] / "shared" / "conformance"

pytestmark = pytest.mark.skipif(
    not CORPUS.is_dir(), reason="../shared/conformance is not here: a clone without the corpus"
)


def _load(name):
    path = CORPUS / name
    return json.loads(path.read_text("utf-8")) if path.exists() else []


STREAMS = _load("index.json")
CASES = _load("sse_cases.json")
ERRORS = _load("http_errors.json")


def test_the_corpus_is_whole():
    assert (len(STREAMS), len(CASES), len(ERRORS)) == (109, 85, 36)


def summary(deltas, response, error):
    """What a stream came to, in the corpus' terms; joined deltas must equal the sum."""
    assert "".join(d.content for d in deltas) == response.content
    assert "".join(d.reasoning for d in deltas) == response.reasoning
    usage = response.usage
    counts = {
        name: getattr(usage, name)
        for name in ("prompt_tokens", "completion_tokens", "total_tokens")
        if getattr(usage, name) is not None
    }
    return {
        "text": response.content,
        "reasoning_text": response.reasoning,
        "tool_calls": [call._asdict() for call in response.tool_calls],
        "finish_reason": response.finish_reason,
        "usage": None if usage.estimated else counts,
        "error": type(error).__name__ if error else None,
    }


def expectation(stream):
    expected = dict(stream["expected"])
    if expected["error"] is not None:
        expected["error"] = "ProviderStreamError"
    elif not stream["saw_done"] and expected["finish_reason"] is None:
        expected["error"] = "StreamTruncated"
    if "function_call" in stream.get("extra", ()):
        expected["tool_calls"] = [{"id": ANY, **stream["extra"]["function_call"]}]
    if expected["usage"] is not None:
        expected["usage"] = {k: v for k, v in expected["usage"].items() if v is not None}
    return expected


@pytest.mark.parametrize("stream", STREAMS, ids=lambda s: s["file"][8:-4])
def test_stream(stream):
    body = (CORPUS / stream["file"]).read_bytes()
    expected = expectation(stream)
    randomly = random.Random(stream["sha256"])
    cuts = {"whole": [body], "bytes": [body[i : i + 1] for i in range(len(body))]}
    for n in range(3):
        places = (randomly.randrange(1, len(body)) for _ in range(randomly.choice((1, 7, 60))))
        cuts[f"random {n}"] = cut(body, places)
    for name, pieces in cuts.items():
        got = play(pieces)
        assert summary(*got) == expected, name
        if stream["expected"]["error"] is not None:
            message = stream["expected"]["error"]
            message = message["message"] if isinstance(message, dict) else message
            assert message in str(got[2]), name


def _lines(pieces):
    return response_of(pieces).iter_lines()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_sse_case(case):
    if "generate" in case:
        made = case["generate"]
        body = (made["prefix"] + made["repeat"] * made["count"] + made["suffix"]).encode()
        expected = [
            ("message", e["data_repeat"] * e["data_len"], e["id"]) for e in case["expected_events"]
        ]
    else:
        body = base64.b64decode(case["input_b64"])
        expected = [(e["event"], e["data"], e["id"]) for e in case["expected_events"]]
    cuts = [[body]]
    if len(body) < 100_000:
        cuts.append([body[i : i + 1] for i in range(len(body))])
        cuts += [cut(body, [i]) for i in range(1, min(len(body), 200))]
    if case.get("chunks_b64"):
        cuts.append([base64.b64decode(c) for c in case["chunks_b64"]])
    for pieces in cuts:
        decoder = EventDecoder()
        events = [(e.event, e.data, e.id) for e in decoder.decode(_lines(pieces))]
        assert events == expected
        assert decoder.retry == case.get("expected_retry")


KINDS = {
    400: errors.BadRequest,
    401: errors.AuthError,
    403: errors.AuthError,
    404: errors.BadRequest,
    409: errors.ServerError,
    422: errors.BadRequest,
    429: errors.RateLimited,
}


def _message(body):
    """The provider's message, found by the corpus' own shapes."""
    payload = json.loads(body)
    found = payload.get("error", payload.get("message", payload.get("detail")))
    if isinstance(found, dict):
        found = found["message"]
    return found[0] if isinstance(found, list) else found


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_http_error(number):
    case = ERRORS[number]
    error = failures.status_error(case["status"], case["headers"], case["body"], redact=Redactor())
    assert type(error) is KINDS[case["status"]]
    assert error.status == case["status"]
    assert _message(case["body"])[:900] in str(error)
    assert error.retryable == (case["status"] in (409, 429))
