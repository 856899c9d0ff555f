"""Real Messages streams, HTTP errors and request loops of ../shared/conformance/native.

Data that the project does not ship; without it these tests skip and say so.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List

import pytest

from agentstream import errors
from agentstream.llm import failures
from agentstream.llm.anthropic.client import AnthropicClient
from agentstream.llm.anthropic.request import to_body
from agentstream.llm.messages import ChatMessage, ChatRequest, as_request
from agentstream.llm.secrets import Redactor
from agentstream.llm.settings import Retries
from agentstream.results import ToolCall
from tests.kit.native import (
    expectation,
    load,
    needs_corpus,
    pieces_of,
    play,
    requests_of,
    streams_of,
    summary,
)

pytestmark = needs_corpus

PROTOCOL = "anthropic-messages"
STREAMS = streams_of(PROTOCOL)
LOOPS = requests_of(PROTOCOL)
ERRORS = [case for case in load("http_errors.json") if case["protocol"] == PROTOCOL]


@pytest.fixture
def client(monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with AnthropicClient("asked", base_url="http://127.0.0.1:1", retries=Retries(0)) as client:
        yield client


def test_the_corpus_is_whole():
    assert (len(STREAMS), len(LOOPS), len(ERRORS)) == (57, 9, 13)


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream["file"][9:-4][:60])
def test_stream(client, stream):
    expected = expectation(stream, "asked")
    for name, pieces in pieces_of(stream):
        deltas, response, error = play(client, pieces, as_request("hi"))
        assert "".join(delta.content for delta in deltas) == response.content
        assert summary(response, error) == expected, name
        if expected["error"]:
            assert stream["expected"]["error"]["message"] in str(error)


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: f"{case['status']} {case['kind']}"[:40])
def test_http_error(case):
    error = failures.status_error(case["status"], case["headers"], case["body"], redact=Redactor())
    assert case["message"][:900] in str(error)
    kinds = {401: errors.AuthError, 429: errors.RateLimited, 500: errors.ServerError}
    kinds[529] = errors.ServerError
    assert type(error) is kinds.get(case["status"], errors.BadRequest)
    assert error.retryable == case["retryable"]


# --- the way back -----------------------------------------------------------------------------


def assert_same(sent: Any, recorded: Any) -> None:
    """Equal but for marks, and for a text that stands for a list of one text block."""
    assert plain(sent) == plain(recorded)


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {name: plain(item) for name, item in value.items() if name not in ("cache_control",)}
    if value.get("type") == "tool_result":
        value.pop("is_error", None)
        content = value["content"]
        if isinstance(content, str):
            value["content"] = [{"type": "text", "text": content}]
    if value.get("type") == "text" and not value.get("citations"):
        value.pop("citations", None)
    return value


def retold(message: Dict[str, Any]) -> List[ChatMessage]:
    """A recorded turn as our messages: an answer read by the reader, as it would have come."""
    blocks = message["content"]
    if isinstance(blocks, str):
        return [ChatMessage(message["role"], blocks)]
    if message["role"] == "assistant":
        return [answer_of(blocks)]
    told = []
    rest = []
    for block in blocks:
        if block["type"] == "tool_result":
            told.append(ChatMessage.tool(block["tool_use_id"], block["content"]))
        else:
            rest.append(block)
    return told + ([ChatMessage.user(rest)] if rest else [])


def answer_of(blocks: List[Dict[str, Any]]) -> ChatMessage:
    body = json.dumps({"type": "message", "content": blocks, "stop_reason": "end_turn"})
    with AnthropicClient("asked", base_url="http://127.0.0.1:1") as client:
        _, response, error = play(client, [body.encode()], as_request("hi"))
    assert error is None
    calls = [ToolCall(*call) for call in response.tool_calls]
    return ChatMessage.assistant(response.content or None, calls, response.provider_state)


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop["source"]["path"][-60:])
def test_what_we_would_send_is_what_their_clients_sent(loop):
    for number, turn in enumerate(loop["rounds"]):
        recorded = turn["body"]
        messages = [message for told in recorded["messages"] for message in retold(told)]
        messages[:0] = [ChatMessage.system(block["text"]) for block in recorded.get("system", ())]
        request = ChatRequest(messages, tools=recorded.get("tools", ()))
        body = to_body(
            request,
            model=recorded["model"],
            max_tokens=recorded["max_tokens"],
            origin="http://127.0.0.1:1/v1/messages",
        )
        assert_same(body["messages"], recorded["messages"])
        for name in ("model", "max_tokens", "system", "tools"):
            assert_same(body.get(name), recorded.get(name))
        assert number == 0 or len(body["messages"]) > 1
